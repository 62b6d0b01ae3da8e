//! The writer thread. It commits whatever arrived since the last commit, in one transaction per
//! file, and says so only after the disk has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::log::{AppendError, Appended, LogError, WriteError};
use ringback_core::time::Timestamp;
use ringback_core::topics::Cleanup;

use super::Clock;
use super::inbox::{CompareAndSet, Found, Inbox, Positions, Request};
use super::lock::DirLock;
use super::meta::{self, Meta};
use super::queue::{Source, Waiting};
use super::slices::Slices;
use super::state::{State, StoredTopic};
use super::write::{Touched, compare_and_set, current, in_transaction, insert, remove_key};

/// Most records of a commit: more do not make it cheaper, and the first would wait for the last.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// The writer looks at the clock at least this often for retention: a machine may have slept.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    pub(super) state: Arc<State>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) meta: Meta,
    pub(super) slices: Slices,
    pub(super) clock: Clock,
    /// Newest append time; time does not go back within a log.
    pub(super) newest: Timestamp,
    /// How long positions wait for others to share their commit.
    pub(super) gather: Duration,
    pub(super) sources: Vec<Arc<dyn Source>>,
    /// What does not work at the moment; said once, not with every batch.
    pub(super) failing: BTreeSet<Work>,
    /// Held until the writer is done.
    pub(super) _lock: DirLock,
}

/// What the writer can fail at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Work {
    Retention,
    Append,
    Meta,
}

/// One commit being put together.
struct Batch {
    records: Vec<Waiting>,
    results: Vec<Result<Appended, AppendError>>,
    /// How many of the records each source gave, in the order of the sources.
    shares: Vec<usize>,
    at: Timestamp,
}

impl Writer {
    /// Completes what opening the slices began: where partitions end that have no records any more,
    /// the compacted topics, and retention.
    pub(super) fn restore(&mut self) -> Result<(), LogError> {
        for (topic, _) in self.state.topics.iter() {
            for slot in self.state.slots(topic) {
                let partition = &self.state.partitions[slot];
                if partition.compacted {
                    let (end, at) = self.meta.compacted_end(partition)?;
                    partition.restore(0, end);
                    self.newest = self.newest.max(at);
                } else {
                    let end = self.meta.recorded_end(partition)?.max(partition.end());
                    let start = if partition.is_empty() {
                        end
                    } else {
                        partition.start()
                    };
                    partition.restore(start, end);
                }
            }
        }
        let now = self.now();
        for partition in self
            .state
            .partitions
            .iter()
            .filter(|p| p.compacted && p.end() > 0)
        {
            self.meta.forget_tombstones(partition, now)?;
        }
        self.expire()
    }

    /// Serves until it is told to stop and nothing is left.
    pub(super) fn run(&mut self) {
        let mut more = false;
        loop {
            let now = Instant::now();
            let until = if more { now } else { self.look_at(now) };
            let mut found = self.inbox.wait(until, self.gather);
            self.sources.append(&mut found.sources);
            more = self.pass(&mut found);
            if found.stop && !more && self.sources.iter().all(|source| source.is_over()) {
                return;
            }
        }
    }

    /// Ends whatever is still waiting, after the thread failed.
    pub(super) fn fail_all(&mut self) {
        let found = self.inbox.die();
        let reason = self.inbox.dead_reason();
        for source in self.sources.drain(..).chain(found.sources) {
            source.fail(&mut |slot| unavailable(&self.state, slot, &reason));
        }
        // Those who asked see their reply channel close.
        drop(found.requests);
    }

    /// The time at which append times and retention are judged.
    pub(super) fn now(&mut self) -> Timestamp {
        self.newest = self.newest.max(self.clock.now());
        self.newest
    }

    pub(super) fn expire(&mut self) -> Result<(), LogError> {
        let now = self.now();
        self.slices.expire(now, &self.meta)
    }

    fn note(&mut self, work: Work, error: Option<&LogError>) {
        match error {
            Some(error) if self.failing.insert(work) => {
                tracing::error!(?work, %error, "the local log cannot write; trying again");
            }
            None if self.failing.remove(&work) => {
                tracing::info!(?work, "the local log writes again")
            }
            _ => {}
        }
    }

    fn look_at(&mut self, now: Instant) -> Instant {
        let time = self.now();
        let wait = self
            .slices
            .next_expiry()
            .map_or(LOOK_AT_CLOCK, |due| due.since(time));
        now + wait.clamp(Duration::from_secs(1), LOOK_AT_CLOCK)
    }

    /// One round; `true` when there may be more to do at once.
    fn pass(&mut self, found: &mut Found) -> bool {
        let expired = self.expire();
        self.note(Work::Retention, expired.as_ref().err());
        let mut batch = self.gather_batch();
        let full = batch.records.len() >= BATCH_RECORDS;
        self.write_slices(&mut batch);
        self.write_meta(&mut batch, found);
        let Batch {
            results, shares, ..
        } = batch;
        let mut results = results.into_iter();
        for (source, share) in self.sources.iter().zip(shares) {
            if share > 0 {
                source.complete(&mut results.by_ref().take(share));
            }
        }
        self.sources.retain(|source| !source.is_over());
        // The next round begins with another source, so that a busy one does not starve the rest.
        if !self.sources.is_empty() {
            self.sources.rotate_left(1);
        }
        full
    }

    fn gather_batch(&mut self) -> Batch {
        let mut records = Vec::new();
        let mut shares = Vec::with_capacity(self.sources.len());
        let mut bytes = BATCH_BYTES;
        for source in &self.sources {
            let before = records.len();
            bytes = bytes.saturating_sub(source.take(&mut records, BATCH_RECORDS, bytes));
            shares.push(records.len() - before);
        }
        if bytes == 0 {
            // There is more, and nobody will ring for it again.
            self.inbox.ring();
        }
        let at = if records.is_empty() {
            self.newest
        } else {
            self.now()
        };
        self.batch(records, shares, at)
    }

    fn batch(&self, records: Vec<Waiting>, shares: Vec<usize>, at: Timestamp) -> Batch {
        let results = records
            .iter()
            .map(|record| {
                let partition = self.state.partitions[record.slot].partition;
                Ok(Appended {
                    partition,
                    offset: -1,
                    at,
                })
            })
            .collect();
        Batch {
            records,
            results,
            shares,
            at,
        }
    }

    /// Appends the records of topics with retention: one transaction per class.
    fn write_slices(&mut self, batch: &mut Batch) {
        for class in 0..self.slices.class_count() {
            let mine: Vec<usize> = (0..batch.records.len())
                .filter(|index| {
                    let slot = batch.records[*index].slot;
                    !self.state.partitions[slot].compacted && self.slices.class_of(slot) == class
                })
                .collect();
            if mine.is_empty() {
                continue;
            }
            let written = self.write_class(class, batch, &mine);
            self.note(Work::Append, written.as_ref().err());
            if let Err(error) = written {
                for index in mine {
                    let slot = batch.records[index].slot;
                    batch.results[index] = Err(unavailable(&self.state, slot, &error.to_string()));
                }
            }
        }
    }

    fn write_class(
        &mut self,
        class: usize,
        batch: &mut Batch,
        mine: &[usize],
    ) -> Result<(), LogError> {
        let (connection, slice) = self.slices.active(class, batch.at, &self.meta)?;
        let path = slice.path.clone();
        let mut touched = Touched::default();
        let written = in_transaction(connection, |connection| {
            for index in mine {
                let record = &batch.records[*index];
                let partition = &self.state.partitions[record.slot];
                let (offset, first) = touched.next(record.slot, partition);
                if first && !partition.is_in(slice) {
                    connection.execute_batch(&partition.sql.create)?;
                }
                insert(connection, partition, offset, batch.at, record)?;
                if let Ok(appended) = &mut batch.results[*index] {
                    appended.offset = offset;
                }
            }
            Ok(())
        });
        match written {
            Ok(()) => {
                for (slot, first, end) in touched.0 {
                    self.state.partitions[slot].publish(Some(slice), first, end);
                }
                Ok(())
            }
            Err((error, usable)) => {
                if !usable {
                    self.slices.abandon(class);
                }
                Err(super::file::failed("appending to", &path, error))
            }
        }
    }

    /// Everything for the meta file: compacted records, compare-and-set, positions.
    fn write_meta(&mut self, batch: &mut Batch, found: &mut Found) {
        let mine: Vec<usize> = (0..batch.records.len())
            .filter(|index| self.state.partitions[batch.records[*index].slot].compacted)
            .collect();
        let mut sets = Vec::new();
        let mut settles = Vec::new();
        for request in found.requests.drain(..) {
            match request {
                Request::CompareAndSet(mut set) => match set.beside.take() {
                    None => sets.push(set),
                    Some(told) => self.set_beside(set, told),
                },
                Request::Settle(reply) => settles.push(reply),
                Request::CreateTopics(reply) => {
                    let _ = reply.try_send(self.create_topics());
                }
            }
        }
        let positions = std::mem::take(&mut found.positions);
        let mut outcome = Ok(());
        if !(mine.is_empty() && sets.is_empty() && positions.is_empty()) {
            let at = if sets.is_empty() {
                batch.at
            } else {
                self.now()
            };
            outcome = self.commit_meta(batch, at, &mine, sets, positions);
            self.note(Work::Meta, outcome.as_ref().err());
        }
        for settle in settles {
            let _ = settle.try_send(outcome.clone());
        }
    }

    /// A change of which a record tells. That one is in another file, so it is made durable first: then
    /// no change is without it. Whether the change meets a conflict is known before, because nobody
    /// writes but this thread.
    fn set_beside(&mut self, set: CompareAndSet, told: Waiting) {
        let at = self.now();
        let told = match current(&self.meta.connection, &self.state, &set) {
            Ok(current) if current == set.expected => self.append_one(told, at),
            // The conflict is answered below.
            Ok(_) => Ok(()),
            Err(error) => Err(self.meta.failed("reading", error)),
        };
        if let Err(error) = told {
            self.note(Work::Append, Some(&error));
            let _ = set.reply.try_send(Err(WriteError::Log(error)));
            return;
        }
        let mut nothing = self.batch(Vec::new(), Vec::new(), at);
        // Who asked has been told.
        let outcome = self.commit_meta(&mut nothing, at, &[], vec![set], Positions::new());
        self.note(Work::Meta, outcome.as_ref().err());
    }

    /// Appends a record to a topic with retention.
    fn append_one(&mut self, record: Waiting, at: Timestamp) -> Result<(), LogError> {
        let class = self.slices.class_of(record.slot);
        let mut batch = self.batch(vec![record], Vec::new(), at);
        self.write_class(class, &mut batch, &[0])
    }

    fn commit_meta(
        &mut self,
        batch: &mut Batch,
        at: Timestamp,
        mine: &[usize],
        sets: Vec<CompareAndSet>,
        positions: Positions,
    ) -> Result<(), LogError> {
        let mut touched = Touched::default();
        let mut answers = Vec::with_capacity(sets.len());
        let written = in_transaction(&self.meta.connection, |connection| {
            for index in mine {
                let record = &batch.records[*index];
                let partition = &self.state.partitions[record.slot];
                let (offset, _) = touched.next(record.slot, partition);
                remove_key(connection, partition, record.key().unwrap_or_default())?;
                insert(connection, partition, offset, at, record)?;
                if let Ok(appended) = &mut batch.results[*index] {
                    (appended.offset, appended.at) = (offset, at);
                }
            }
            for set in &sets {
                answers.push(compare_and_set(
                    connection,
                    &self.state,
                    set,
                    at,
                    &mut touched,
                )?);
            }
            for ((group, slot), committed) in &positions {
                meta::write_position(connection, group, &self.state.partitions[*slot], committed)?;
            }
            Ok(())
        });
        match written {
            Ok(()) => {
                for (slot, first, end) in touched.0 {
                    self.state.partitions[slot].publish(None, first, end);
                }
                for (set, answer) in sets.into_iter().zip(answers) {
                    let _ = set.reply.try_send(answer);
                }
                Ok(())
            }
            Err((error, usable)) => {
                let error = self.meta.failed("writing to", error);
                if !usable {
                    self.reopen_meta();
                }
                for index in mine {
                    let slot = batch.records[*index].slot;
                    batch.results[*index] = Err(unavailable(&self.state, slot, &error.to_string()));
                }
                for set in sets {
                    let _ = set.reply.try_send(Err(WriteError::Log(error.clone())));
                }
                self.inbox.restore_positions(positions);
                Err(error)
            }
        }
    }

    fn reopen_meta(&mut self) {
        match Meta::open(self.meta.path.clone()) {
            Ok(meta) => self.meta = meta,
            Err(error) => tracing::warn!(%error, "trying again with the next write"),
        }
    }

    fn create_topics(&mut self) -> Result<(), LogError> {
        for (topic, spec) in self.state.topics.iter() {
            let retention = match spec.cleanup {
                Cleanup::Delete { retention } => Some(retention),
                Cleanup::Compact => None,
            };
            let stored = match self.state.stored(topic) {
                // What is there stays as it is, but for partitions to come and a new retention.
                Some(there) if there.retention.is_some() == retention.is_some() => StoredTopic {
                    partitions: there.partitions.max(spec.partitions),
                    retention,
                },
                Some(there) => there,
                None => StoredTopic {
                    partitions: spec.partitions,
                    retention,
                },
            };
            if self.state.stored(topic).as_ref() == Some(&stored) {
                continue;
            }
            let partitions = self
                .state
                .partitions
                .iter()
                .filter(|partition| partition.partition.topic == topic);
            self.meta
                .store_topic(&spec.full_name, &stored, partitions)?;
            self.state.set_stored(topic, stored);
        }
        Ok(())
    }
}

fn unavailable(state: &State, slot: usize, reason: &str) -> AppendError {
    let topic = state.partitions[slot].partition.topic;
    AppendError::Unavailable {
        topic: state.topics.spec(topic).full_name.clone(),
        reason: reason.to_owned(),
    }
}
