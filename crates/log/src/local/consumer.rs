//! The consumer: the one member of its group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::log::{Assignment, Committed, Consumer, Handler, LogError, Offset, Waker};
use ringback_core::topics::{Partition, TopicId};
use ringback_core::tracker::METADATA_BYTES_MAX;

use super::Engine;
use super::inbox::Request;
use super::meta;
use super::news::News;
use super::read::Reads;

/// Most records of a partition per poll, however much room there is: then it is the others' turn.
const TURN: usize = 512;
/// While a partition is given up, how often its owner is asked when nobody wakes us.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A consumer of the local log.
pub struct LocalConsumer {
    engine: Arc<Engine>,
    group: Arc<str>,
    topics: Vec<TopicId>,
    news: Arc<News>,
    reads: Reads,
    /// What we own; a position in here is the tag of our news. Empty until the first poll.
    owned: Vec<Owned>,
    /// Tags that may have records, in the order of their turns.
    ready: VecDeque<usize>,
}

struct Owned {
    slot: usize,
    partition: Partition,
    /// The next offset to read.
    position: Offset,
    committed: Option<Committed>,
    ready: bool,
}

impl LocalConsumer {
    pub(super) fn new(
        engine: Arc<Engine>,
        group: &str,
        topics: &[TopicId],
    ) -> Result<Self, LogError> {
        let doing = || format!("joining group {group}");
        for topic in topics {
            if engine.state.existing(*topic) == 0 {
                let name = &engine.state.topics.spec(*topic).full_name;
                let reason = format!("topic {name} does not exist; create the topics first");
                return Err(LogError::permanent(doing(), reason));
            }
        }
        let group: Arc<str> = group.into();
        if !engine.groups.lock().insert(group.clone()) {
            let reason = "it has a member in this process already, and the local log allows one";
            return Err(LogError::permanent(doing(), reason));
        }
        Ok(Self {
            reads: Reads::new(engine.state.clone()),
            engine,
            group,
            topics: topics.to_vec(),
            news: Arc::default(),
            owned: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    fn assign(&mut self, handler: &mut impl Handler) -> Result<(), LogError> {
        // What an earlier member of the group committed may still be on its way.
        self.engine.settle()?;
        let state = self.engine.state.clone();
        let mut owned = Vec::new();
        for slot in self.topics.iter().flat_map(|topic| state.slots(*topic)) {
            let partition = &state.partitions[slot];
            let committed = meta::read_position(self.reads.meta()?, &self.group, partition)
                .map_err(|error| {
                    LogError::retriable(
                        format!("reading the positions of group {}", self.group),
                        error,
                    )
                })?;
            owned.push(Owned {
                slot,
                partition: partition.partition,
                position: 0,
                committed,
                ready: false,
            });
        }
        self.owned = owned;
        for tag in 0..self.owned.len() {
            state.partitions[self.owned[tag].slot].listen(&self.news, tag);
            self.begin(tag, handler);
        }
        Ok(())
    }

    /// Hands a partition over, with reading to start where the group left off.
    fn begin(&mut self, tag: usize, handler: &mut impl Handler) {
        let owned = &mut self.owned[tag];
        let log_start = self.engine.state.partitions[owned.slot].start();
        let committed = owned.committed.clone();
        owned.position = committed
            .as_ref()
            .map_or(0, |committed| committed.offset)
            .max(log_start);
        handler.assigned(Assignment {
            partition: owned.partition,
            committed,
            log_start,
        });
        if !std::mem::replace(&mut owned.ready, true) {
            self.ready.push_back(tag);
        }
    }

    /// Gives every partition that may have records a turn; `true` when there was something.
    fn serve(&mut self, handler: &mut impl Handler) -> Result<bool, LogError> {
        let mut served = false;
        for _ in 0..self.ready.len() {
            let Some(tag) = self.ready.pop_front() else {
                break;
            };
            let owned = &mut self.owned[tag];
            let state = &self.engine.state.partitions[owned.slot];
            if owned.position < state.start() {
                // Retention has overtaken us (DL10): whoever tracks this partition begins anew and
                // sees the gap between what was committed and where the log starts.
                owned.ready = false;
                handler.lost(owned.partition);
                self.begin(tag, handler);
                served = true;
                continue;
            }
            let room = handler.room(owned.partition).min(TURN);
            if room == 0 {
                // Without records there is nothing to hold.
                owned.ready = owned.position < state.end();
                if owned.ready {
                    self.ready.push_back(tag);
                }
                continue;
            }
            let read = self.reads.read(
                owned.slot,
                &mut owned.position,
                Offset::MAX,
                room,
                &mut |record| handler.record(record),
            );
            served |= !matches!(read, Ok(0));
            owned.ready = !matches!(read, Ok(count) if count < room);
            if owned.ready {
                self.ready.push_back(tag);
            }
            read?;
        }
        Ok(served)
    }

    fn note(owned: &mut [Owned], ready: &mut VecDeque<usize>, tag: usize) {
        if let Some(owned) = owned.get_mut(tag)
            && !std::mem::replace(&mut owned.ready, true)
        {
            ready.push_back(tag);
        }
    }

    /// Waits until `revoking` says yes for each partition, or the time is over.
    fn drain(&mut self, drain: Duration, handler: &mut impl Handler) {
        let deadline = Instant::now().checked_add(drain);
        let mut busy: Vec<Partition> = self.owned.iter().map(|owned| owned.partition).collect();
        loop {
            busy.retain(|partition| !handler.revoking(*partition));
            let now = Instant::now();
            if busy.is_empty() || deadline.is_some_and(|deadline| now >= deadline) {
                return;
            }
            let until = now + ASK_AGAIN;
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            self.news.wait(Some(until), |_| {});
        }
    }
}

impl Consumer for LocalConsumer {
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        self.reads.refresh();
        let deadline = Instant::now().checked_add(timeout);
        let mut end = self.owned.is_empty() && !self.topics.is_empty();
        if end {
            self.assign(handler)?;
        }
        let Self {
            news, owned, ready, ..
        } = self;
        end |= news.take(|tag| Self::note(owned, ready, tag));
        loop {
            if self.serve(handler)? || end {
                return Ok(());
            }
            let Self {
                news, owned, ready, ..
            } = self;
            let (woken, over) = news.wait(deadline, |tag| Self::note(owned, ready, tag));
            end = woken || over;
            if over && ready.is_empty() {
                return Ok(());
            }
        }
    }

    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        let mut news = Vec::with_capacity(positions.len());
        let mut result = Ok(());
        for (partition, committed) in positions {
            let Some(owned) = self
                .owned
                .iter_mut()
                .find(|owned| owned.partition == *partition)
            else {
                continue;
            };
            if committed.metadata.len() > METADATA_BYTES_MAX {
                result = Err(LogError::permanent(
                    format!("committing for group {}", self.group),
                    format!(
                        "metadata of {} bytes, more than {METADATA_BYTES_MAX}",
                        committed.metadata.len()
                    ),
                ));
                continue;
            }
            owned.committed = Some(committed.clone());
            news.push(((self.group.clone(), owned.slot), committed.clone()));
        }
        self.engine.inbox.add_positions(news.into_iter());
        result
    }

    fn waker(&self) -> Waker {
        let news = self.news.clone();
        Waker::new(move || news.wake())
    }

    fn close(mut self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        self.drain(drain, handler);
        let last: Vec<_> = self
            .owned
            .iter()
            .filter_map(|owned| Some((owned.partition, handler.revoked(owned.partition)?)))
            .collect();
        let committed = self.commit(&last);
        self.engine.settle().and(committed)
    }
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        self.engine.groups.lock().remove(&self.group);
    }
}

impl super::Engine {
    /// Blocking: makes the positions durable that were committed before.
    pub(super) fn settle(&self) -> Result<(), LogError> {
        let answer = self.inbox.ask(Request::Settle);
        answer.unwrap_or_else(|| Err(self.ended("committing positions")))
    }
}
