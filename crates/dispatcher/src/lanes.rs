//! Lanes: one per active webhook, bounded, so that one receiver's trouble stays its own (contract
//! R15). The policy is [`ringback_core::lane`]; here are the queues and the tasks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::check_invariant;
use ringback_core::lane::{Lane, Limits, Offer};
use ringback_core::log::Log;
use ringback_core::record::Reason;
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use ringback_telemetry::{Gauge, Histogram};
use uuid::Uuid;

use crate::dispatcher::Shared;
use crate::route::{Job, Parking};
use crate::send::Transport;
use crate::settle::AttemptMade;

/// All lanes of a process.
pub(crate) struct Lanes {
    limits: Limits,
    lanes: Mutex<HashMap<Uuid, Arc<Mutex<LaneState>>>>,
    in_flight: AtomicUsize,
}

struct LaneState {
    lane: Lane,
    queue: VecDeque<Job>,
    /// It was found idle and taken out of the map; a delivery that still holds it looks again.
    closed: bool,
}

impl Lanes {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: Mutex::default(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Lanes that are not idle.
    pub(crate) fn active(&self) -> usize {
        self.lanes.lock().len()
    }

    fn lane(&self, webhook: Uuid) -> Arc<Mutex<LaneState>> {
        let new = || {
            let lane = Lane::new(self.limits);
            Arc::new(Mutex::new(LaneState {
                lane,
                queue: VecDeque::new(),
                closed: false,
            }))
        };
        self.lanes.lock().entry(webhook).or_insert_with(new).clone()
    }

    /// What becomes of a delivery that arrives: `Some` gives it back to be deferred.
    fn offer(&self, job: Job, now: Timestamp) -> Offered {
        let webhook = job.delivery.webhook;
        loop {
            let shared = self.lane(webhook);
            let mut state = shared.lock();
            if state.closed {
                continue;
            }
            return match state.lane.offer(now) {
                Offer::Start => {
                    drop(state);
                    Offered::Start(shared, job)
                }
                Offer::Queue => {
                    state.queue.push_back(job);
                    Offered::Queued
                }
                Offer::Defer(wait) => Offered::Defer(job, wait),
            };
        }
    }

    /// A request ended: the next of the queue, if it may start now.
    fn next(
        &self,
        webhook: Uuid,
        lane: &Mutex<LaneState>,
        took: Duration,
        now: Timestamp,
    ) -> Option<Job> {
        let mut state = lane.lock();
        if state.lane.ended(took, now) {
            let job = state.queue.pop_front();
            check_invariant!(
                DL5,
                job.is_some(),
                "a lane counts more than its queue holds"
            );
            return job;
        }
        if !state.lane.is_idle() {
            return None;
        }
        drop(state);
        // In the order of `lane`: the map first.
        let mut lanes = self.lanes.lock();
        let mut state = lane.lock();
        if state.lane.is_idle() && !state.closed {
            state.closed = true;
            lanes.remove(&webhook);
        }
        None
    }
}

enum Offered {
    Start(Arc<Mutex<LaneState>>, Job),
    Queued,
    Defer(Job, Duration),
}

/// Hands a delivery to its webhook's lane. Never waits.
pub(crate) fn offer<L: Log, T: Transport>(shared: &Arc<Shared<L, T>>, job: Job) {
    match shared.lanes.offer(job, shared.now()) {
        Offered::Start(lane, job) => {
            let task = run(shared.clone(), lane, job);
            shared.runtime.spawn(task);
        }
        Offered::Queued => {}
        Offered::Defer(job, wait) => shared.settler.defer(job, wait, shared.now()),
    }
}

/// Sends a delivery, then those that queued behind it.
async fn run<L: Log, T: Transport>(
    shared: Arc<Shared<L, T>>,
    lane: Arc<Mutex<LaneState>>,
    first: Job,
) {
    let webhook = first.delivery.webhook;
    let mut job = Some(first);
    while let Some(current) = job {
        shared.lanes.in_flight.fetch_add(1, Ordering::AcqRel);
        let took = attempt(&shared, current).await;
        shared.lanes.in_flight.fetch_sub(1, Ordering::AcqRel);
        job = shared.lanes.next(webhook, &lane, took, shared.now());
    }
}

/// One attempt, if the delivery may still be sent. Returns how long the receiver took.
async fn attempt<L: Log, T: Transport>(shared: &Shared<L, T>, job: Job) -> Duration {
    // DL6: what is sent is sent on configuration that is known to be current.
    shared.fresh().await;
    let started = shared.now();
    let webhook = match sendable(shared, &job, started) {
        Ok(webhook) => webhook,
        Err(parking) => {
            shared.settler.park(job, parking);
            return Duration::ZERO;
        }
    };
    if !job.work.owned.is_owned() {
        // Taken away before it was sent: the new owner sends it.
        return Duration::ZERO;
    }
    match shared
        .transport
        .send(&webhook, &job.delivery, job.body(), started)
        .await
    {
        Ok(sent) => {
            let took = sent.took;
            let ended = shared.now();
            shared
                .metrics
                .observe(Histogram::AttemptSeconds, &[], took.as_secs_f64());
            shared
                .metrics
                .set(Gauge::InFlight, &[], shared.lanes.in_flight() as f64);
            shared.settler.attempted(
                job,
                AttemptMade {
                    webhook,
                    started,
                    ended,
                    sent,
                },
            );
            took
        }
        Err(unsendable) => {
            let detail = Some(unsendable.to_string());
            shared.settler.park(
                job,
                Parking {
                    reason: Reason::Undeliverable,
                    detail,
                },
            );
            Duration::ZERO
        }
    }
}

/// The webhook as it is configured now, or why nothing may be sent to it.
fn sendable<L: Log, T: Transport>(
    shared: &Shared<L, T>,
    job: &Job,
    now: Timestamp,
) -> Result<Arc<Webhook>, Parking> {
    let directory = shared.directory.read();
    let Some(webhook) = directory.webhook_by_id(job.delivery.webhook) else {
        return Err(Parking::because(Reason::Removed));
    };
    if !webhook.enabled {
        return Err(Parking::because(Reason::Paused));
    }
    if directory.is_disabled(webhook) {
        return Err(Parking::because(Reason::Disabled));
    }
    if shared.schedule.expired(job.delivery.began(), now) {
        return Err(Parking::because(Reason::Expired));
    }
    Ok(webhook.clone())
}
