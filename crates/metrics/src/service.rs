//! The service: one thread that reads attempts, writes verdicts and snapshots, and commits.

use std::collections::HashMap;
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringback_core::health::{Snapshot, State};
use ringback_core::invariant::{self, Invariant};
use ringback_core::log::{
    Append, AppendError, AppenderOptions, Assignment, Committed, Consumer, Handler, Log, LogError,
    Offset, Reader, Record, Waker,
};
use ringback_core::record::{Attempt, HeaderBuf};
use ringback_core::time::Clock;
use ringback_core::topics::{Partition, Role, TopicId, group};
use ringback_log::batch::{Acknowledgement, Batch, IN_FLIGHT_MAX};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::{ComponentHealth, Counter, Gauge, Health, Metrics};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::fold::Fold;
use crate::verdict::Verdict;

/// The consumer group.
const GROUP: &str = group::ATTEMPTS;
/// Our name among the parts of a process.
const NAME: &str = "metrics";
/// The longest an idle service waits; it is woken when there is something to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long it waits after a failure before it tries again.
const BACKOFF: Duration = Duration::from_millis(200);
/// How often it looks for windows that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A webhook is new to nobody this long after an attempt: if it is not configured, it was removed.
const SETTLED: Duration = Duration::from_secs(3600);
/// By how much the clocks of brokers, which give records their times, may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// Attempts taken from one partition per turn.
const TURN: usize = 1024;
/// Before every offset: what is committed is not known.
const NOT_COMMITTED: Offset = -1;
/// How long giving up partitions may take.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the metrics component does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error("starting metrics: {0}")]
    Log(#[from] LogError),
    /// The table of topics does not fit.
    #[error("starting metrics: {0}")]
    Topics(&'static str),
    /// The thread cannot be started.
    #[error("starting the thread of metrics: {0}")]
    Thread(std::io::Error),
}

/// What the service needs besides the log.
pub struct Environment {
    /// Its settings.
    pub config: Config,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it says whether it is ready.
    pub health: Health,
    /// The clock: the system's, or a simulated one. Verdicts use the log's.
    pub clock: Clock,
}

/// The running metrics component. [`drain`](Self::drain) it; dropped, it stops as well, waiting for
/// its thread.
pub struct MetricsService {
    stop: CancellationToken,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl MetricsService {
    /// Joins the group that folds attempts.
    pub fn start<L: Log>(log: &L, environment: Environment) -> Result<Self, StartError> {
        let missing = StartError::Topics("a topic is missing from the table");
        let topics = log.topics().clone();
        let find = |role| topics.find(role);
        let (Some(attempts), Some(windows), Some(health), Some(notices)) = (
            find(Role::Attempts),
            find(Role::Windows),
            find(Role::Health),
            find(Role::SystemEvents),
        ) else {
            return Err(missing);
        };
        if topics.spec(attempts).partitions != topics.spec(windows).partitions {
            let text = "attempts and windows need the same number of partitions";
            return Err(StartError::Topics(text));
        }
        let consumer = log.consumer(GROUP, &[attempts])?;
        let Environment {
            config,
            metrics,
            health: readiness,
            clock,
        } = environment;
        let options = AppenderOptions {
            queue: IN_FLIGHT_MAX,
            ..AppenderOptions::default()
        };
        let service = Service::<L> {
            appender: log.appender(options, Acknowledgement)?,
            reader: log.reader()?,
            directory: LiveDirectory::start(log, &[Role::Webhooks], || {})?,
            windows,
            health,
            notices,
            partitions: HashMap::new(),
            verdicts: Vec::new(),
            stuck: false,
            config,
            metrics,
            clock,
        };
        let (stop, waker) = (CancellationToken::new(), consumer.waker());
        let stopping = stop.clone();
        let ready = readiness.component(NAME);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || service.run(consumer, &stopping, &ready))
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop,
            waker,
            thread: Some(thread),
        })
    }

    /// Blocking: writes down what was counted, commits, and leaves the group.
    pub fn drain(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of metrics panicked");
        }
    }
}

impl Drop for MetricsService {
    fn drop(&mut self) {
        self.end();
    }
}

struct Service<L: Log> {
    appender: L::Appender<Acknowledgement>,
    reader: L::Reader,
    directory: LiveDirectory,
    windows: TopicId,
    health: TopicId,
    notices: TopicId,
    partitions: HashMap<Partition, Counting>,
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
    fn run(mut self, mut consumer: L::Consumer, stop: &CancellationToken, ready: &ComponentHealth) {
        let (mut flushed, mut swept) = (Instant::now(), Instant::now());
        while !stop.is_cancelled() {
            let ended = consumer
                .poll(self.timeout(flushed), &mut self)
                .and_then(|()| self.restore());
            if let Err(error) = &ended {
                tracing::warn!(%error, "attempts cannot be read; trying again");
                ready.not_ready(&error.to_string());
                std::thread::park_timeout(BACKOFF);
                continue;
            }
            // Dispatchers wait for a verdict; a snapshot may wait for more to write.
            let due = flushed.elapsed() >= self.config.snapshot_interval;
            if !self.verdicts.is_empty() || (due && self.is_behind()) {
                flushed = Instant::now();
                if self.flush() {
                    self.commit(&mut consumer);
                } else {
                    std::thread::park_timeout(BACKOFF);
                }
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                self.sweep();
            }
            match (self.stuck, self.directory.is_fresh()) {
                (true, _) => ready.not_ready("verdicts and snapshots cannot be written"),
                (false, true) => ready.ready(),
                // Polls bring nothing, rather than an error, while the log is away.
                (false, false) => {
                    ready.not_ready("the configuration is not read to its end, or the log is away");
                }
            }
        }
        if let Err(error) = consumer.close(DRAIN, &mut self) {
            tracing::warn!(%error, "metrics is leaving its group");
        }
    }

    fn timeout(&self, flushed: Instant) -> Duration {
        match self.is_behind() {
            true => self
                .config
                .snapshot_interval
                .saturating_sub(flushed.elapsed())
                .min(IDLE),
            false => IDLE,
        }
    }

    /// Whether something is not written down, or not committed since that failed.
    fn is_behind(&self) -> bool {
        self.partitions.values().any(|counting| {
            counting.written < counting.position || counting.committed < counting.written
        })
    }

    /// Reads the snapshots of partitions that are new to us.
    fn restore(&mut self) -> Result<(), LogError> {
        for (partition, counting) in &mut self.partitions {
            if counting.restored {
                continue;
            }
            let snapshots = Partition {
                topic: self.windows,
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
    fn flush(&mut self) -> bool {
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
                topic: self.health,
                key: Some(key.as_bytes()),
                headers: &[],
                value: Some(&value),
            })?;
            let name = name_of(&self.directory, verdict.webhook);
            match verdict.notice(name.as_deref()) {
                Ok(notice) => {
                    let mut buf = HeaderBuf::default();
                    buf.push_event(&notice);
                    batch.append(Append {
                        topic: self.notices,
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
                    topic: self.windows,
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

    fn commit(&mut self, consumer: &mut L::Consumer) {
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
    fn sweep(&mut self) {
        for state in [State::Healthy, State::Failing, State::Disabled] {
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
            for topic in [self.windows, self.health] {
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

    /// Counts are a statistic: what is lost makes them smaller, and that is said (DL10).
    fn gap(&mut self, partition: Partition, lost: Range<Offset>) {
        let count = (lost.end - lost.start).unsigned_abs();
        self.metrics.add(Counter::RecordsLost, &[], count);
        invariant::count(Invariant::DL10);
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
