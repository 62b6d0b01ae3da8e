//! Intake: turn by turn, one per consumer group polls the log, hands what is due to the lanes, and
//! commits what is done. Each has an OS thread to take its turns. Nothing here waits for a webhook.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringback_core::admission::Class;
use ringback_core::log::{Assignment, Committed, Consumer, Handler, Log, LogError, Offset, Record};
use ringback_core::topics::{Partition, Role};
use ringback_core::tracker::Begin;
use ringback_telemetry::{Counter, Gauge as MetricGauge, Histogram};
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Shared;
use crate::lanes;
use crate::partition::{Owned, Work};
use crate::raw::RawRecord;
use crate::route::{Held, Job, Routed, decode_sendable, route};
use crate::send::Transport;

/// The longest an idle intake waits; it is woken when there is something to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long an intake with stale configuration waits before it looks again.
const STALE_WAIT: Duration = Duration::from_millis(100);
/// Records of a delay partition that are read ahead of their time.
const READ_AHEAD: usize = 16;
/// Records taken from one partition per turn, so that all partitions get one.
const TURN: usize = 64;

/// One consumer group's way into the dispatcher.
pub(crate) struct Intake<L: Log, T: Transport> {
    group: &'static str,
    consumer: L::Consumer,
    taking: Taking<L, T>,
    /// When positions were last committed, by the steady clock.
    committed: Duration,
    failing: bool,
    uncommitted: bool,
}

impl<L: Log, T: Transport> Intake<L, T> {
    /// Joins the group.
    pub(crate) fn join(
        shared: &Arc<Shared<L, T>>,
        log: &L,
        group: &'static str,
    ) -> Result<Self, LogError> {
        let topics: Vec<_> = log
            .topics()
            .iter()
            .filter(|(_, spec)| spec.role.group() == Some(group))
            .map(|(topic, _)| topic)
            .collect();
        let consumer = log.consumer(group, &topics)?;
        shared.gauge.add_waker(consumer.waker());
        Ok(Self {
            group,
            consumer,
            committed: shared.steady(),
            taking: Taking {
                shared: shared.clone(),
                partitions: BTreeMap::new(),
            },
            failing: false,
            uncommitted: false,
        })
    }

    pub(crate) fn group(&self) -> &'static str {
        self.group
    }

    /// Takes turns until `stop`, then gives up the partitions.
    pub(crate) fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            if let Some(pause) = self.turn() {
                std::thread::park_timeout(pause);
            }
        }
        self.leave();
    }

    /// Waits until there is something to do, and does it. After a failure: how long to wait before
    /// the next turn.
    pub(crate) fn turn(&mut self) -> Option<Duration> {
        let wait = self.idle().map_or(IDLE, |idle| idle.min(IDLE));
        let shared = self.taking.shared.clone();
        let group = self.group;
        let mut pause = None;
        match self.consumer.poll(wait, &mut self.taking) {
            Ok(()) => {
                if self.failing {
                    tracing::info!(group, "reading again");
                }
                self.failing = false;
                shared.intake_ready(group);
            }
            Err(error) => {
                if !self.failing {
                    tracing::error!(%error, group, "cannot read; trying again");
                }
                self.failing = true;
                shared.intake_failed(group, &error);
                // Not in a hot loop; the drain does not wait for it either.
                pause = Some(STALE_WAIT);
            }
        }
        self.taking.release_due();
        let now = shared.steady();
        if now.saturating_sub(self.committed) >= shared.config.commit_interval {
            self.committed = now;
            self.commit();
        }
        pause
    }

    /// After how long there is something to do by time alone, if there is.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.taking.idle(self.committed)
    }

    fn commit(&mut self) {
        let positions = self.taking.positions();
        if positions.is_empty() {
            return;
        }
        match self.consumer.commit(&positions) {
            Ok(()) => self.uncommitted = false,
            Err(error) => {
                // Said once; it is tried again at every interval.
                if !std::mem::replace(&mut self.uncommitted, true) {
                    let group = self.group;
                    tracing::warn!(%error, group, "positions are not committed yet");
                }
                for (partition, _) in &positions {
                    self.taking.commit_failed(*partition);
                }
            }
        }
    }

    /// Gives up the partitions and leaves the group.
    pub(crate) fn leave(mut self) {
        let drain = self.taking.shared.config.drain;
        if let Err(error) = self.consumer.close(drain, &mut self.taking) {
            tracing::warn!(%error, group = self.group, "leaving the group");
        }
    }
}

/// What is taken in: the consumer's handler.
struct Taking<L: Log, T: Transport> {
    shared: Arc<Shared<L, T>>,
    /// In an order of their own, so that equal turns do equal things.
    partitions: BTreeMap<Partition, Taken>,
}

struct Taken {
    owned: Arc<Owned>,
    delay: Duration,
    /// Read, but not due yet. In due order, because the log appends in time order.
    held: VecDeque<Held>,
    revoking: bool,
}

impl<L: Log, T: Transport> Taking<L, T> {
    fn give_up(&self, taken: &Taken) {
        taken.owned.give_up();
        if is_shared_by(taken.owned.role) {
            self.shared.share.lost();
        }
    }

    /// After how long there is something to do by time alone: something to commit, to release or to
    /// look at again.
    fn idle(&self, committed: Duration) -> Option<Duration> {
        let fresh = self.shared.directory.is_fresh();
        let stale = (!fresh).then_some(STALE_WAIT);
        let dirty = |taken: &Taken| taken.owned.dirty.load(Ordering::Acquire);
        // While deliveries are in flight something may become committable at any time.
        let busy = |taken: &Taken| taken.owned.in_flight.load(Ordering::Acquire) > 0;
        let mut taken = self.partitions.values();
        let commit = taken.any(|taken| dirty(taken) || busy(taken)).then(|| {
            let since = self.shared.steady().saturating_sub(committed);
            self.shared.config.commit_interval.saturating_sub(since)
        });
        let now = self.shared.log_now();
        // What is due but has no room does not count: whoever gives room back wakes us.
        let next_due = self
            .partitions
            .values()
            .filter(|taken| fresh && !taken.revoking)
            .filter_map(|taken| Some((taken.held.front()?.due, taken.owned.class)))
            .filter(|(_, class)| self.shared.gauge.room(*class) > 0)
            .map(|(due, _)| due.since(now))
            .min();
        stale.into_iter().chain(commit).chain(next_due).min()
    }

    /// Hands over what has become due.
    fn release_due(&mut self) {
        if !self.shared.directory.is_fresh() {
            return;
        }
        let now = self.shared.log_now();
        for taken in self.partitions.values_mut() {
            while !taken.revoking
                && taken.held.front().is_some_and(|held| held.due <= now)
                && self.shared.gauge.room(taken.owned.class) > 0
            {
                let Some(held) = taken.held.pop_front() else {
                    break;
                };
                let late = now.since(held.due).as_secs_f64();
                self.shared
                    .metrics
                    .observe(Histogram::LatenessSeconds, &[], late);
                let work =
                    Work::begin(&taken.owned, held.offset, 1, held.delivery.event.data.len());
                lanes::offer(&self.shared, Job::new(work, held.delivery));
            }
        }
    }

    /// What has changed since the last commit.
    fn positions(&self) -> Vec<(Partition, Committed)> {
        self.partitions
            .values()
            .filter(|taken| taken.owned.dirty.swap(false, Ordering::AcqRel))
            .filter_map(|taken| {
                let position = taken.owned.tracker.lock().commit()?;
                Some((taken.owned.partition, position))
            })
            .collect()
    }

    /// DL10: counted and said aloud; what is lost is lost, silence would be worse.
    fn report_lost(&self, partition: Partition, lost: Range<Offset>) {
        let spec = self.shared.topics.spec(partition.topic);
        let count = (lost.end - lost.start).unsigned_abs();
        self.shared
            .metrics
            .add(Counter::RecordsLost, &[&spec.name], count);
        ringback_core::invariant::count(ringback_core::invariant::Invariant::DL10);
        tracing::error!(
            topic = spec.full_name,
            partition = partition.index,
            from = lost.start,
            to = lost.end,
            "records were dropped by retention before they were read (DL10)"
        );
    }

    fn take(&mut self, record: Record<'_>) {
        let Some(taken) = self.partitions.get_mut(&record.partition) else {
            return;
        };
        let owned = &taken.owned;
        if owned.tracker.lock().begin(record.offset) == Begin::Done {
            owned.dirty.store(true, Ordering::Release);
            return;
        }
        if !taken.delay.is_zero()
            && let Ok(delivery) = decode_sendable(&record)
        {
            let due = record.appended + taken.delay;
            taken.held.push_back(Held {
                due,
                offset: record.offset,
                delivery,
            });
            return;
        }
        match route(&record, owned, &self.shared.directory) {
            Routed::Nobody => {
                self.shared.metrics.inc(Counter::Unrouted, &[]);
                owned.tracker.lock().finish(record.offset);
                owned.dirty.store(true, Ordering::Release);
            }
            Routed::Deliveries(deliveries) => {
                if is_begun_by(owned.role) {
                    let count = deliveries.len() as u64;
                    self.shared.metrics.add(Counter::Begun, &[], count);
                }
                for (job, parking) in deliveries {
                    match parking {
                        None => lanes::offer(&self.shared, job),
                        Some(parking) => self.shared.settler.park(job, parking),
                    }
                }
            }
            Routed::Unreadable(error) => {
                let partition = record.partition;
                let topic = &self.shared.topics.spec(partition.topic).full_name;
                let (index, offset) = (partition.index, record.offset);
                tracing::warn!(%error, topic, index, offset, "parking a record that cannot be read");
                let work =
                    Work::begin(owned, record.offset, 1, record.value.map_or(0, <[u8]>::len));
                let detail = format!("{topic}/{index}@{offset}: {error}");
                self.shared
                    .settler
                    .park_raw(work, RawRecord::of(&record, detail));
            }
        }
    }
}

/// Whether deliveries begin with the records of a topic; those of others were begun before.
fn is_begun_by(role: Role) -> bool {
    matches!(role, Role::Events(_) | Role::SystemEvents | Role::Replay)
}

/// Whether owning partitions of a topic is a share of the work, by which rate limits are divided.
fn is_shared_by(role: Role) -> bool {
    matches!(role, Role::Events(_))
}

impl<L: Log, T: Transport> Handler for Taking<L, T> {
    fn assigned(&mut self, assignment: Assignment) {
        let partition = assignment.partition;
        let spec = self.shared.topics.spec(partition.topic);
        let Some(class) = Class::of(spec.role) else {
            return;
        };
        if let Some(committed) = &assignment.committed
            && committed.offset < assignment.log_start
        {
            self.report_lost(partition, committed.offset..assignment.log_start);
        }
        let metrics = &self.shared.metrics;
        metrics.inc(Counter::Rebalances, &["assigned"]);
        // There before anything is lost: an alarm sees the first.
        metrics.add(Counter::RecordsLost, &[&spec.name], 0);
        let gauge = self.shared.gauge.clone();
        let owned = Owned::new(&assignment, spec.role, class, gauge);
        self.shared.owns(owned.clone());
        let delay = self.shared.topics.delay(partition.topic);
        let taken = Taken {
            owned,
            delay,
            held: VecDeque::new(),
            revoking: false,
        };
        if is_shared_by(spec.role) {
            self.shared.share.gained();
        }
        if let Some(old) = self.partitions.insert(partition, taken) {
            self.give_up(&old);
        }
    }

    fn room(&mut self, partition: Partition) -> usize {
        let Some(taken) = self.partitions.get(&partition) else {
            return 0;
        };
        if taken.revoking || !self.shared.directory.is_fresh() {
            return 0;
        }
        let tracker = taken.owned.tracker.lock().room();
        if tracker == 0 {
            self.shared.gauge.starve();
        }
        if !taken.delay.is_zero() {
            return READ_AHEAD.saturating_sub(taken.held.len()).min(tracker);
        }
        self.shared
            .gauge
            .room(taken.owned.class)
            .min(tracker)
            .min(TURN)
    }

    fn record(&mut self, record: Record<'_>) {
        self.take(record);
    }

    fn revoking(&mut self, partition: Partition) -> bool {
        match self.partitions.get_mut(&partition) {
            Some(taken) => {
                taken.revoking = true;
                taken.owned.in_flight.load(Ordering::Acquire) == 0
            }
            None => true,
        }
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        let taken = self.partitions.remove(&partition)?;
        self.give_up(&taken);
        self.shared.metrics.inc(Counter::Rebalances, &["revoked"]);
        taken.owned.tracker.lock().commit()
    }

    fn gap(&mut self, partition: Partition, lost: Range<Offset>) {
        self.report_lost(partition, lost);
    }

    /// What it said is due again.
    fn commit_failed(&mut self, partition: Partition) {
        self.shared.metrics.inc(Counter::CommitFailures, &[]);
        if let Some(taken) = self.partitions.get(&partition) {
            taken.owned.tracker.lock().commit_failed();
            taken.owned.dirty.store(true, Ordering::Release);
        }
    }

    fn lost(&mut self, partition: Partition) {
        if let Some(taken) = self.partitions.remove(&partition) {
            self.give_up(&taken);
            self.shared.metrics.inc(Counter::Rebalances, &["lost"]);
        }
    }
}

/// Publishes how much is taken in.
pub(crate) fn report<L: Log, T: Transport>(shared: &Shared<L, T>) {
    for class in Class::ALL {
        let used = shared.gauge.used(class) as f64;
        shared
            .metrics
            .set(MetricGauge::SlotsUsed, &[&class.to_string()], used);
    }
    shared
        .metrics
        .set(MetricGauge::Lanes, &[], shared.lanes.active() as f64);
    let (saturated, broken) = shared.lanes.strained();
    for (gauge, count) in [
        (MetricGauge::LanesSaturated, saturated),
        (MetricGauge::BreakersOpen, broken),
    ] {
        shared.metrics.set(gauge, &[], count as f64);
    }
    shared
        .metrics
        .set(MetricGauge::InFlight, &[], shared.lanes.in_flight() as f64);
}
