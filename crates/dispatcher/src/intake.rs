//! Intake: one OS thread per consumer group polls the log, hands what is due to the lanes, and
//! commits what is done. Nothing here waits for a webhook.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringback_core::admission::Class;
use ringback_core::log::{Assignment, Committed, Consumer, Handler, Log, Offset, Record};
use ringback_core::topics::{Partition, Role, group};
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

/// A consumer group and the classes of work it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) reads: fn(Role) -> bool,
}

/// Separate groups, so that retries and deferrals have their own assignments and prefetch.
pub(crate) const GROUPS: [Group; 3] = [
    Group {
        name: group::EVENTS,
        reads: |role| role.group() == Some(group::EVENTS),
    },
    Group {
        name: group::RETRIES,
        reads: |role| role.group() == Some(group::RETRIES),
    },
    Group {
        name: group::DEFERRALS,
        reads: |role| role.group() == Some(group::DEFERRALS),
    },
];

/// Runs one intake until `stop`, then gives up its partitions.
pub(crate) fn run<L: Log, T: Transport>(
    shared: Arc<Shared<L, T>>,
    group: Group,
    mut consumer: L::Consumer,
    stop: CancellationToken,
) {
    let mut intake = Intake {
        shared: shared.clone(),
        partitions: HashMap::new(),
    };
    let mut committed = Instant::now();
    let mut failing = false;
    let mut uncommitted = false;
    while !stop.is_cancelled() {
        let timeout = intake.timeout(committed);
        match consumer.poll(timeout, &mut intake) {
            Ok(()) => {
                if failing {
                    tracing::info!(group = group.name, "reading again");
                }
                failing = false;
                shared.intake_ready(group.name);
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%error, group = group.name, "cannot read; trying again");
                }
                failing = true;
                shared.intake_failed(group.name, &error);
                // Not in a hot loop; the drain does not wait for it either.
                std::thread::park_timeout(STALE_WAIT);
            }
        }
        intake.release_due();
        if committed.elapsed() >= shared.config.commit_interval {
            committed = Instant::now();
            let positions = intake.positions();
            if !positions.is_empty() {
                match consumer.commit(&positions) {
                    Ok(()) => uncommitted = false,
                    Err(error) => {
                        // Said once; it is tried again at every interval.
                        if !std::mem::replace(&mut uncommitted, true) {
                            let group = group.name;
                            tracing::warn!(%error, group, "positions are not committed yet");
                        }
                        for (partition, _) in &positions {
                            intake.commit_failed(*partition);
                        }
                    }
                }
            }
        }
    }
    if let Err(error) = consumer.close(shared.config.drain, &mut intake) {
        tracing::warn!(%error, group = group.name, "leaving the group");
    }
}

struct Intake<L: Log, T: Transport> {
    shared: Arc<Shared<L, T>>,
    partitions: HashMap<Partition, Taken>,
}

struct Taken {
    owned: Arc<Owned>,
    delay: Duration,
    /// Read, but not due yet. In due order, because the log appends in time order.
    held: VecDeque<Held>,
    revoking: bool,
}

impl<L: Log, T: Transport> Intake<L, T> {
    fn give_up(&self, taken: &Taken) {
        taken.owned.give_up();
        if is_shared_by(taken.owned.role) {
            self.shared.share.lost();
        }
    }

    /// How long the next poll may wait.
    fn timeout(&self, committed: Instant) -> Duration {
        let mut timeout = IDLE;
        if !self.shared.directory.is_fresh() {
            timeout = STALE_WAIT;
        }
        let dirty = |taken: &Taken| taken.owned.dirty.load(Ordering::Acquire);
        // While deliveries are in flight something may become committable at any time.
        let busy = |taken: &Taken| taken.owned.in_flight.load(Ordering::Acquire) > 0;
        if self
            .partitions
            .values()
            .any(|taken| dirty(taken) || busy(taken))
        {
            let interval = self.shared.config.commit_interval;
            timeout = timeout.min(interval.saturating_sub(committed.elapsed()));
        }
        let now = self.shared.log_now();
        // What is due but has no room does not count: whoever gives room back wakes us.
        let next_due = self
            .partitions
            .values()
            .filter(|taken| !taken.revoking)
            .filter_map(|taken| Some((taken.held.front()?.due, taken.owned.class)))
            .filter(|(_, class)| self.shared.gauge.room(*class) > 0)
            .map(|(due, _)| due.since(now));
        next_due
            .min()
            .filter(|_| self.shared.directory.is_fresh())
            .map_or(timeout, |due| due.min(timeout))
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
                let work = Work::begin(&taken.owned, held.offset, 1);
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
        self.shared.metrics.add(Counter::RecordsLost, &[], count);
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
                let work = Work::begin(owned, record.offset, 1);
                let detail = format!("{topic}/{index}@{offset}: {error}");
                self.shared
                    .settler
                    .park_raw(work, RawRecord::of(&record, detail));
            }
        }
    }
}

/// Whether owning partitions of a topic is a share of the work, by which rate limits are divided.
fn is_shared_by(role: Role) -> bool {
    matches!(role, Role::Events(_))
}

impl<L: Log, T: Transport> Handler for Intake<L, T> {
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
        self.shared.metrics.inc(Counter::Rebalances, &["assigned"]);
        let gauge = self.shared.gauge.clone();
        let owned = Owned::new(&assignment, spec.role, class, gauge);
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
    shared
        .metrics
        .set(MetricGauge::InFlight, &[], shared.lanes.in_flight() as f64);
}
