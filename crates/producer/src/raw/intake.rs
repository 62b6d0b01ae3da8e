//! The intake of foreign records: what is read is mapped, handed to the log, and committed when that
//! is acknowledged (invariants DL2, DL3). One thread owns all of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringback_core::event::{Defaults, Event, InvalidEvent, Source, id_of_place};
use ringback_core::invariant::{Invariant, count};
use ringback_core::log::{Assignment, Committed, Consumer, Handler, Log, Offset, Record};
use ringback_core::record::Reason;
use ringback_core::topics::{Partition, TopicId, Topics};
use ringback_core::tracker::{Begin, Tracker};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::waiting::Progress;
use ringback_telemetry::{ComponentHealth, Counter, Metrics, traces};
use tokio_util::sync::CancellationToken;

use super::appends::{Appends, Outcome, Parked, What};
use crate::mapping::{Records, Unmappable};
use crate::publisher::is_reserved;

/// The longest an idle intake waits; it is woken when there is something to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long it waits for configuration, or for a log that fails, before it looks again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often positions are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// How long a drain waits for acknowledgements.
const DRAIN: Duration = Duration::from_secs(10);
/// Records taken from one partition per turn, so that all partitions get one.
const TURN: usize = 64;
/// Headers of ours mean nothing in a foreign record, and must not seem to when it is parked.
const OUR_HEADERS: &str = "rb_";

/// A topic of foreign records.
pub(super) struct Feed {
    pub(super) name: String,
    /// Source of events whose mapping names none.
    pub(super) source: Source,
    pub(super) records: Records,
}

/// What a record is.
enum Judged {
    Event(Box<Event>),
    LeftOut,
    Bad(Unmappable),
}

pub(super) struct Intake<L: Log> {
    feeds: HashMap<TopicId, Feed>,
    appends: Appends<L>,
    topics: Arc<Topics>,
    directory: Arc<LiveDirectory>,
    metrics: Metrics,
    partitions: HashMap<Partition, Taken>,
}

struct Taken {
    tracker: Tracker,
    /// Something finished since the last commit.
    dirty: bool,
    revoking: bool,
}

impl Taken {
    fn finish(&mut self, offset: Offset) {
        self.tracker.finish(offset);
        self.dirty = true;
    }
}

impl<L: Log> Intake<L> {
    pub(super) fn new(
        feeds: HashMap<TopicId, Feed>,
        appends: Appends<L>,
        topics: Arc<Topics>,
        directory: Arc<LiveDirectory>,
        metrics: Metrics,
    ) -> Self {
        Self {
            feeds,
            appends,
            topics,
            directory,
            metrics,
            partitions: HashMap::new(),
        }
    }

    /// Reads until `stop`, then gives up its partitions.
    pub(super) fn run(
        mut self,
        mut consumer: L::Consumer,
        health: &ComponentHealth,
        progress: &Progress,
        stop: &CancellationToken,
    ) {
        let mut committed = Instant::now();
        let mut failing = false;
        while !stop.is_cancelled() {
            match consumer.poll(self.timeout(committed), &mut self) {
                Ok(()) => {
                    failing = false;
                    health.ready();
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "cannot read the raw topics; trying again");
                    }
                    failing = true;
                    health.not_ready(&error.to_string());
                    std::thread::park_timeout(AGAIN);
                }
            }
            self.settle();
            if committed.elapsed() >= COMMIT_EVERY {
                committed = Instant::now();
                self.commit(&mut consumer);
                let owned = self.partitions.iter();
                progress.set(owned.map(|(at, taken)| (*at, taken.tracker.committable())));
            }
        }
        if let Err(error) = consumer.close(DRAIN, &mut self) {
            tracing::warn!(%error, "leaving the group of the raw topics");
        }
    }

    /// How long the next poll may wait.
    fn timeout(&self, committed: Instant) -> Duration {
        let mut timeout = match self.directory.is_fresh() {
            true => IDLE,
            false => AGAIN,
        };
        // What is finished is committed soon: after a crash it would be repeated.
        if self.partitions.values().any(|taken| taken.dirty) {
            timeout = timeout.min(COMMIT_EVERY.saturating_sub(committed.elapsed()));
        }
        match self.appends.retry_at() {
            Some(at) => timeout.min(at.saturating_duration_since(Instant::now())),
            None => timeout,
        }
    }

    fn commit(&mut self, consumer: &mut L::Consumer) {
        let positions: Vec<_> = self
            .partitions
            .iter_mut()
            .filter_map(|(partition, taken)| {
                let news = std::mem::take(&mut taken.dirty);
                let position = news.then(|| taken.tracker.commit()).flatten()?;
                Some((*partition, position))
            })
            .collect();
        if !positions.is_empty()
            && let Err(error) = consumer.commit(&positions)
        {
            tracing::warn!(%error, "positions of the raw topics are not committed yet");
            for (partition, _) in positions {
                self.commit_failed(partition);
            }
        }
    }

    /// Finishes what was acknowledged, and tries again what was not.
    fn settle(&mut self) {
        let Self {
            appends,
            partitions,
            feeds,
            metrics,
            ..
        } = self;
        let mut done = Vec::new();
        let owned = |partition| partitions.contains_key(&partition);
        appends.settle(Instant::now(), owned, |outcome| done.push(outcome));
        for outcome in done {
            // Of an earlier assignment it is durable all the same.
            if let Some(taken) = partitions.get_mut(&outcome.partition) {
                taken.finish(outcome.offset);
            }
            let name = feeds
                .get(&outcome.partition.topic)
                .map_or("", |feed| &feed.name);
            match &outcome.what {
                What::Event(event, traced) => {
                    if let Some(traced) = traced {
                        traced.ended(event, ringback_log::system_clock().now(), None);
                    }
                    let family = ringback_core::catalogue::Family::of(event.name.as_str());
                    metrics.inc(Counter::EventsAccepted, &[&family.to_string()]);
                    metrics.inc(Counter::RawRecords, &[name, "accepted"]);
                }
                What::Parked(_) => {
                    metrics.inc(Counter::Parked, &[Reason::Undeliverable.as_str()]);
                    metrics.inc(Counter::RawRecords, &[name, "parked"]);
                }
            }
        }
    }

    fn judge(&self, record: &Record<'_>) -> Judged {
        match self.try_judge(record) {
            Ok(Some(event)) => Judged::Event(Box::new(event)),
            Ok(None) => Judged::LeftOut,
            Err(unmappable) => Judged::Bad(unmappable),
        }
    }

    fn try_judge(&self, record: &Record<'_>) -> Result<Option<Event>, Unmappable> {
        let bad = |code, reason: String| Unmappable { code, reason };
        let refused = |error: InvalidEvent| bad(error.code(), error.to_string());
        let partition = record.partition;
        let spec = self.topics.spec(partition.topic);
        let Some(feed) = self.feeds.get(&partition.topic) else {
            return Err(bad(
                "no_mapping",
                format!("{} has no mapping", spec.full_name),
            ));
        };
        let Some(value) = record.value else {
            return Err(bad("no_value", "the record has no value".to_owned()));
        };
        let Some(text) = feed.records.event(value)? else {
            return Ok(None);
        };
        let (index, offset) = (partition.index, record.offset);
        let defaults = Defaults {
            tenant: None,
            source: &feed.source,
            id: id_of_place(&spec.full_name, index, offset, record.appended),
            now: record.appended,
            // Too old is for the dispatcher to say (R13): it parks the delivery where its webhook's
            // owner sees it and can replay it.
            age_max: Some(Duration::MAX),
        };
        let event = Event::parse_posted(&text, &defaults).map_err(refused)?;
        if is_reserved(&event.name) {
            let reason = format!(
                "type {} is reserved for notices of Ringback itself",
                event.name
            );
            return Err(bad("illegal_attribute", reason));
        }
        if self.directory.read().tenant(&event.tenant).is_none() {
            return Err(bad(
                "unknown_tenant",
                format!("there is no tenant {}", event.tenant),
            ));
        }
        Ok(Some(event))
    }

    fn take(&mut self, record: &Record<'_>) {
        let partition = record.partition;
        let Some(taken) = self.partitions.get_mut(&partition) else {
            return;
        };
        if taken.tracker.begin(record.offset) == Begin::Done {
            taken.dirty = true;
            return;
        }
        let what = match self.judge(record) {
            Judged::Event(mut event) => {
                let traced = traces::accepting(&mut event, || record.appended);
                What::Event(event, traced.map(Box::new))
            }
            Judged::Bad(Unmappable { code, reason }) => {
                let topic = &self.topics.spec(partition.topic).full_name;
                let (index, offset) = (partition.index, record.offset);
                tracing::warn!(
                    topic,
                    index,
                    offset,
                    code,
                    reason,
                    "parking a record that makes no event"
                );
                self.metrics.inc(Counter::EventsRefused, &[code]);
                let detail = format!("{topic}/{index}@{offset}: {reason}");
                What::Parked(Box::new(parked(record, detail)))
            }
            Judged::LeftOut => {
                if let Some(taken) = self.partitions.get_mut(&partition) {
                    taken.finish(record.offset);
                }
                let name = self
                    .feeds
                    .get(&partition.topic)
                    .map_or("", |feed| &feed.name);
                self.metrics.inc(Counter::RawRecords, &[name, "left_out"]);
                return;
            }
        };
        let outcome = Outcome {
            partition,
            offset: record.offset,
            what,
        };
        self.appends.add(outcome, Instant::now());
    }
}

/// A copy of a record that makes no event.
fn parked(record: &Record<'_>, detail: String) -> Parked {
    let foreign = record
        .headers
        .iter()
        .filter(|h| !h.name.starts_with(OUR_HEADERS));
    Parked {
        headers: foreign
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect(),
        value: record.value.map(Bytes::copy_from_slice),
        detail,
    }
}

impl<L: Log> Handler for Intake<L> {
    fn assigned(&mut self, assignment: Assignment) {
        let partition = assignment.partition;
        if let Some(committed) = &assignment.committed
            && committed.offset < assignment.log_start
        {
            self.gap(partition, committed.offset..assignment.log_start);
        }
        self.metrics.inc(Counter::Rebalances, &["assigned"]);
        // There before anything is lost: an alarm sees the first.
        let spec = self.topics.spec(partition.topic);
        self.metrics.add(Counter::RecordsLost, &[&spec.name], 0);
        let taken = Taken {
            tracker: Tracker::new(assignment.committed.as_ref(), assignment.log_start),
            dirty: false,
            revoking: false,
        };
        self.partitions.insert(partition, taken);
    }

    fn room(&mut self, partition: Partition) -> usize {
        match self.partitions.get(&partition) {
            Some(taken)
                if !taken.revoking && self.appends.has_room() && self.directory.is_fresh() =>
            {
                taken.tracker.room().min(TURN)
            }
            _ => 0,
        }
    }

    fn record(&mut self, record: Record<'_>) {
        self.take(&record);
    }

    fn revoking(&mut self, partition: Partition) -> bool {
        self.settle();
        match self.partitions.get_mut(&partition) {
            Some(taken) => {
                taken.revoking = true;
                taken.tracker.unfinished() == 0
            }
            None => true,
        }
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.settle();
        let mut taken = self.partitions.remove(&partition)?;
        self.metrics.inc(Counter::Rebalances, &["revoked"]);
        taken.tracker.commit()
    }

    fn gap(&mut self, partition: Partition, lost: Range<Offset>) {
        let missing = (lost.end - lost.start).unsigned_abs();
        let spec = self.topics.spec(partition.topic);
        let labels = [spec.name.as_str()];
        self.metrics.add(Counter::RecordsLost, &labels, missing);
        count(Invariant::DL10);
        tracing::error!(
            topic = spec.full_name,
            partition = partition.index,
            from = lost.start,
            to = lost.end,
            "foreign records were dropped by retention before they were read (DL10)"
        );
    }

    /// What it said is due again.
    fn commit_failed(&mut self, partition: Partition) {
        self.metrics.inc(Counter::CommitFailures, &[]);
        if let Some(taken) = self.partitions.get_mut(&partition) {
            taken.tracker.commit_failed();
            taken.dirty = true;
        }
    }

    fn lost(&mut self, partition: Partition) {
        if self.partitions.remove(&partition).is_some() {
            self.metrics.inc(Counter::Rebalances, &["lost"]);
        }
    }
}
