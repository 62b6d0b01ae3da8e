//! What is counted: attempts are folded, verdicts and snapshots written, positions committed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use ringback_core::health::{Snapshot, State};
use ringback_core::log::{
    Append, AppendError, AppenderOptions, Assignment, Committed, Consumer, Handler, Log, LogError,
    Offset, Reader, Record,
};
use ringback_core::record::{Attempt, HeaderBuf};
use ringback_core::time::Clock;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_log::batch::{Acknowledgement, Batch, IN_FLIGHT_MAX};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::{Counter, Gauge, Metrics};
use uuid::Uuid;

use crate::component::{Environment, StartDirectory};
use crate::config::Config;
use crate::fold::Fold;
use crate::verdict::Verdict;

/// A webhook is new to nobody this long after an attempt: if it is not configured, it was removed.
const SETTLED: Duration = Duration::from_secs(3600);
/// By how much the clocks of brokers, which give records their times, may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// Attempts taken from one partition per turn.
const TURN: usize = 1024;
/// Before every offset: what is committed is not known.
const NOT_COMMITTED: Offset = -1;

/// The topics that are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writes {
    pub(crate) windows: TopicId,
    pub(crate) health: TopicId,
    pub(crate) notices: TopicId,
}

/// What is counted and what is to be written: the consumer's handler.
pub(crate) struct Service<L: Log> {
    appender: L::Appender<Acknowledgement>,
    reader: L::Reader,
    directory: LiveDirectory,
    writes: Writes,
    partitions: BTreeMap<Partition, Counting>,
    /// Changed verdicts that are not in the log yet.
    verdicts: Vec<Verdict>,
    /// The log did not take what was to be written: nothing more is read until it does.
    stuck: bool,
    config: Config,
    metrics: Metrics,
    clock: Clock,
}

/// A partition of `attempts` that we own.
struct Counting {
    fold: Fold,
    /// Its snapshots are read.
    restored: bool,
    /// The next attempt.
    position: Offset,
    /// What is in snapshots: this much may be committed.
    written: Offset,
    committed: Offset,
}

impl<L: Log> Service<L> {
    /// Nothing is counted yet.
    pub(crate) fn new(
        log: &L,
        writes: Writes,
        environment: Environment,
        start_directory: StartDirectory<L>,
    ) -> Result<Self, LogError> {
        let options = AppenderOptions {
            queue: IN_FLIGHT_MAX,
            ..AppenderOptions::default()
        };
        let Environment {
            config,
            metrics,
            clock,
            ..
        } = environment;
        Ok(Self {
            appender: log.appender(options, Acknowledgement)?,
            reader: log.reader()?,
            directory: start_directory(&clock, log, &[Role::Webhooks], Box::new(|| {}))?,
            writes,
            partitions: BTreeMap::new(),
            verdicts: Vec::new(),
            stuck: false,
            config,
            metrics,
            clock,
        })
    }

    /// After how long something is to be written down, if there is something; `since` it was last.
    pub(crate) fn idle(&self, since: Duration) -> Option<Duration> {
        let interval = self.config.snapshot_interval;
        self.is_behind().then(|| interval.saturating_sub(since))
    }

    /// Whether to write now what is not written; `since` that was last done.
    pub(crate) fn is_due(&self, since: Duration) -> bool {
        // Dispatchers wait for a verdict; a snapshot may wait for more to write.
        let due = since >= self.config.snapshot_interval;
        !self.verdicts.is_empty() || (due && self.is_behind())
    }

    /// The partitions that are ours, each with the next attempt to be counted.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> {
        let partitions = self.partitions.iter();
        partitions.map(|(partition, counting)| (*partition, counting.position))
    }

    /// Looks at the configuration topics once, where no thread does.
    pub(crate) fn follow(&self) {
        self.directory.turn();
    }

    /// Why it is not ready, if it is not.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        match (self.stuck, self.directory.is_fresh()) {
            (true, _) => Some("verdicts and snapshots cannot be written"),
            (false, true) => None,
            // Polls bring nothing, rather than an error, while the log is away.
            (false, false) => Some("the configuration is not read to its end, or the log is away"),
        }
    }

    /// Whether something is not written down, or not committed since that failed.
    pub(crate) fn is_behind(&self) -> bool {
        self.partitions.values().any(|counting| {
            counting.written < counting.position || counting.committed < counting.written
        })
    }

    /// Reads the snapshots of partitions that are new to us.
    pub(crate) fn restore(&mut self) -> Result<(), LogError> {
        for (partition, counting) in &mut self.partitions {
            if counting.restored {
                continue;
            }
            let snapshots = Partition {
                topic: self.writes.windows,
                index: partition.index,
            };
            let bounds = self.reader.bounds(snapshots)?;
            let fold = &mut counting.fold;
            let counted = self.reader.bounds(*partition)?;
            self.reader.read(snapshots, bounds, &mut |record| {
                if let Err(problem) = restore_one(fold, &record, counted.end) {
                    let offset = record.offset;
                    // Its webhook begins anew, with an empty window: nothing is disabled for what
                    // is unreadable.
                    tracing::error!(offset, problem, "a snapshot of a window is ignored");
                    self.metrics.inc(Counter::RecordsIgnored, &["windows"]);
                }
            })?;
            counting.restored = true;
        }
        Ok(())
    }

    /// Blocking: writes verdicts, then snapshots. `false` when the log did not take all of it.
    pub(crate) fn flush(&mut self) -> bool {
        let written = self.write_verdicts().and_then(|()| self.write_snapshots());
        if let Err(error) = &written
            && !self.stuck
        {
            tracing::warn!(%error, "verdicts and snapshots are not in the log yet; trying again");
        }
        self.stuck = written.is_err();
        !self.stuck
    }

    fn write_verdicts(&mut self) -> Result<(), AppendError> {
        let mut batch = Batch::new(&self.appender);
        for verdict in &self.verdicts {
            let key = verdict.webhook.as_hyphenated().to_string();
            let Ok(value) = serde_json::to_vec(&verdict.record()) else {
                continue;
            };
            batch.append(Append {
                topic: self.writes.health,
                key: Some(key.as_bytes()),
                headers: &[],
                value: Some(&value),
            })?;
            let name = name_of(&self.directory, verdict.webhook);
            match verdict.notice(name).event() {
                Ok(notice) => {
                    let mut buf = HeaderBuf::default();
                    buf.push_event(&notice);
                    batch.append(Append {
                        topic: self.writes.notices,
                        key: Some(verdict.tenant.as_str().as_bytes()),
                        headers: &buf.headers(),
                        value: Some(&notice.data),
                    })?;
                }
                Err(error) => tracing::error!(%error, "a notice cannot be made"),
            }
        }
        batch.finish()?;
        for verdict in self.verdicts.drain(..) {
            let Verdict {
                webhook,
                tenant,
                state,
                reason,
                ..
            } = &verdict;
            self.metrics.inc(Counter::Verdicts, &[state.as_str()]);
            tracing::warn!(%webhook, %tenant, %state, reason, "a webhook's health changed");
        }
        Ok(())
    }

    fn write_snapshots(&mut self) -> Result<(), AppendError> {
        let mut batch = Batch::new(&self.appender);
        for counting in self.partitions.values() {
            for (webhook, snapshot) in counting.fold.changes() {
                let key = webhook.as_hyphenated().to_string();
                let Ok(value) = serde_json::to_vec(&snapshot) else {
                    continue;
                };
                batch.append(Append {
                    topic: self.writes.windows,
                    key: Some(key.as_bytes()),
                    headers: &[],
                    value: Some(&value),
                })?;
            }
        }
        batch.finish()?;
        for counting in self.partitions.values_mut() {
            counting.fold.written();
            counting.written = counting.position;
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self, consumer: &mut L::Consumer) {
        let news: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, counting)| counting.committed < counting.written)
            .map(|(partition, counting)| (*partition, committed(counting.written)))
            .collect();
        if news.is_empty() {
            return;
        }
        match consumer.commit(&news) {
            Ok(()) => {
                for counting in self.partitions.values_mut() {
                    counting.committed = counting.written;
                }
            }
            Err(error) => {
                for (partition, _) in news {
                    self.commit_failed(partition);
                }
                tracing::warn!(%error, "positions of metrics are not committed yet");
            }
        }
    }

    /// Removes windows that nobody needs any more, with the verdicts on removed webhooks.
    pub(crate) fn sweep(&mut self) {
        for state in State::ALL {
            let folds = self.partitions.values();
            let count: usize = folds.map(|counting| counting.fold.in_state(state)).sum();
            self.metrics
                .set(Gauge::WebhooksHealth, &[state.as_str()], count as f64);
        }
        if !self.directory.is_fresh() {
            return;
        }
        let now = self.clock.now();
        let exists = |webhook| self.directory.read().webhook_by_id(webhook).is_some();
        let policy = &self.config.policy;
        let stale: Vec<(Partition, Uuid)> = self
            .partitions
            .iter()
            .flat_map(|(partition, counting)| {
                let stale = counting.fold.stale(policy, now, now - SETTLED, exists);
                stale.into_iter().map(|webhook| (*partition, webhook))
            })
            .collect();
        if let Err(error) = self.remove(stale.iter().map(|(_, webhook)| *webhook)) {
            tracing::warn!(%error, "old windows are not removed yet");
            return;
        }
        for (partition, webhook) in stale {
            if let Some(counting) = self.partitions.get_mut(&partition) {
                counting.fold.forget(webhook);
            }
        }
    }

    /// Blocking: removes windows and verdicts of these webhooks from the log.
    fn remove(&self, webhooks: impl Iterator<Item = Uuid>) -> Result<(), AppendError> {
        let mut batch = Batch::new(&self.appender);
        for webhook in webhooks {
            let key = webhook.as_hyphenated().to_string();
            for topic in [self.writes.windows, self.writes.health] {
                batch.append(Append {
                    topic,
                    key: Some(key.as_bytes()),
                    headers: &[],
                    value: None,
                })?;
            }
        }
        batch.finish().map(drop)
    }
}

fn committed(offset: Offset) -> Committed {
    Committed {
        offset,
        metadata: String::new(),
    }
}

fn name_of(directory: &LiveDirectory, webhook: Uuid) -> Option<String> {
    let directory = directory.read();
    Some(directory.webhook_by_id(webhook)?.name.to_string())
}

/// Takes over a snapshot; `end` is the end of its partition of `attempts`. What is wrong with one that
/// is not used.
fn restore_one(fold: &mut Fold, record: &Record<'_>, end: Offset) -> Result<(), String> {
    let webhook = key_of(record)?;
    let Some(value) = record.value else {
        fold.forget(webhook);
        return Ok(());
    };
    let snapshot: Snapshot = serde_json::from_slice(value)
        .map_err(|error| format!("of webhook {webhook}: it cannot be read: {error}"))?;
    // Either would keep attempts from counting for as long as it holds, and nobody would notice.
    if snapshot.next > end {
        let next = snapshot.next;
        return Err(format!(
            "of webhook {webhook}: it counts attempts up to offset {next}, the topic ends at {end}"
        ));
    }
    let last = snapshot.window.last_attempt;
    if last > record.appended + CLOCKS_DIFFER {
        return Err(format!(
            "of webhook {webhook}: its last attempt is of {last}, after the snapshot itself"
        ));
    }
    fold.restore(webhook, snapshot);
    Ok(())
}

/// The attempt in a record, or what is wrong with it.
fn read_attempt(record: &Record<'_>) -> Result<Attempt, String> {
    let value = record.value.ok_or("it has no value")?;
    let attempt: Attempt =
        serde_json::from_slice(value).map_err(|error| format!("it cannot be read: {error}"))?;
    let webhook = key_of(record)?;
    // Its window would be kept in a partition where nobody looks for it.
    match attempt.webhook == webhook {
        true => Ok(attempt),
        false => Err(format!(
            "it is about webhook {}, its key is {webhook}",
            attempt.webhook
        )),
    }
}

fn key_of(record: &Record<'_>) -> Result<Uuid, String> {
    let key = record.key.unwrap_or_default();
    Uuid::try_parse_ascii(key).map_err(|_| {
        format!(
            "its key {:?} is no webhook's id",
            String::from_utf8_lossy(key)
        )
    })
}

impl<L: Log> Handler for Service<L> {
    fn assigned(&mut self, assignment: Assignment) {
        let position = assignment
            .committed
            .map_or(assignment.log_start, |committed| committed.offset);
        if position < assignment.log_start {
            self.gap(assignment.partition, position..assignment.log_start);
        }
        let position = position.max(assignment.log_start);
        self.metrics.inc(Counter::Rebalances, &["assigned"]);
        // There before anything is lost: an alarm sees the first.
        self.metrics.add(Counter::RecordsLost, &["attempts"], 0);
        let counting = Counting {
            fold: Fold::default(),
            restored: false,
            position,
            written: position,
            committed: position,
        };
        self.partitions.insert(assignment.partition, counting);
    }

    fn room(&mut self, partition: Partition) -> usize {
        match self.partitions.get(&partition) {
            Some(counting) if counting.restored && !self.stuck => TURN,
            _ => 0,
        }
    }

    fn record(&mut self, record: Record<'_>) {
        let Some(counting) = self.partitions.get_mut(&record.partition) else {
            return;
        };
        counting.position = record.offset + 1;
        let attempt = match read_attempt(&record) {
            Ok(attempt) => attempt,
            Err(problem) => {
                let (partition, offset) = (record.partition.index, record.offset);
                tracing::error!(partition, offset, problem, "an attempt is not counted");
                self.metrics.inc(Counter::RecordsIgnored, &["attempts"]);
                return;
            }
        };
        self.metrics.inc(Counter::AttemptsCounted, &[]);
        let policy = &self.config.policy;
        let fold = &mut counting.fold;
        if let Some(verdict) = fold.count(&attempt, record.offset, record.appended, policy) {
            self.verdicts.push(verdict);
        }
    }

    fn revoking(&mut self, _: Partition) -> bool {
        // What was counted goes with the partition.
        self.flush()
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        let counting = self.partitions.remove(&partition)?;
        self.metrics.inc(Counter::Rebalances, &["revoked"]);
        (counting.committed < counting.written).then(|| committed(counting.written))
    }

    /// Counts are a statistic: what is lost makes them smaller, and that is counted and said (DL10). It is
    /// no violation: no event is lost with it.
    fn gap(&mut self, partition: Partition, lost: Range<Offset>) {
        let count = (lost.end - lost.start).unsigned_abs();
        self.metrics.add(Counter::RecordsLost, &["attempts"], count);
        tracing::error!(
            partition = partition.index,
            from = lost.start,
            to = lost.end,
            "attempts were dropped by retention before they were counted (DL10)"
        );
    }

    /// What it said is due again.
    fn commit_failed(&mut self, partition: Partition) {
        self.metrics.inc(Counter::CommitFailures, &[]);
        if let Some(counting) = self.partitions.get_mut(&partition) {
            counting.committed = NOT_COMMITTED;
        }
    }

    fn lost(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
        self.metrics.inc(Counter::Rebalances, &["lost"]);
    }
}
