//! Lanes: one per active webhook, bounded, so that one receiver's trouble stays its own (contract
//! R15). The policy is [`ringback_core::lane`]; here are the queues and the tasks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ringback_core::check_invariant;
use ringback_core::lane::{Lane, Limits, Offer, Pressure, Queue, Signal, Turn};
use ringback_core::log::Log;
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use uuid::Uuid;

use crate::attempt::attempt;
use crate::dispatcher::Shared;
use crate::rate::{Rate, Share};
use crate::route::Job;
use crate::send::Transport;

/// The map is cut into as many parts, each with its own lock; one part is swept at a time.
const PARTS: usize = 64;
/// The shortest wait of a timer: tokio's are exact to the millisecond.
const WAIT_MIN: Duration = Duration::from_millis(1);

type SharedLane = Arc<Mutex<State>>;

/// All lanes of a process.
pub(crate) struct Lanes {
    limits: Limits,
    slots: usize,
    parts: Vec<Mutex<HashMap<Uuid, SharedLane>>>,
    swept: AtomicUsize,
    in_flight: AtomicUsize,
    active: AtomicUsize,
    /// Slots held by lanes whose last outcome failed.
    failing: AtomicUsize,
}

struct State {
    lane: Lane,
    rate: Rate,
    fresh: VecDeque<Job>,
    old: VecDeque<Job>,
    /// The webhook as the lane knows it: a changed one may have another receiver.
    updated: Timestamp,
    /// A task waits to ask [`Lane::next`] again.
    timer: bool,
    /// It was found idle and taken out of the map; a delivery that still holds it looks again.
    closed: bool,
}

impl State {
    fn queue(&mut self, queue: Queue) -> &mut VecDeque<Job> {
        match queue {
            Queue::Fresh => &mut self.fresh,
            Queue::Old => &mut self.old,
        }
    }
}

/// What is to be done once the lane's lock is released.
#[derive(Default)]
struct Todo {
    start: Vec<Job>,
    defer: Vec<(Job, Duration)>,
    timer: Option<Duration>,
}

impl Lanes {
    pub(crate) fn new(limits: Limits, slots: usize) -> Self {
        Self {
            limits,
            slots,
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            swept: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            failing: AtomicUsize::new(0),
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Lanes with something in flight or queued.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    fn part(&self, webhook: Uuid) -> &Mutex<HashMap<Uuid, SharedLane>> {
        // Of a version 7 id, the last bytes are the random ones.
        let last = usize::from(webhook.as_bytes()[15]);
        &self.parts[last % PARTS]
    }

    fn lane(&self, webhook: Uuid) -> SharedLane {
        let new = || {
            Arc::new(Mutex::new(State {
                lane: Lane::new(self.limits),
                rate: Rate::unlimited(),
                fresh: VecDeque::new(),
                old: VecDeque::new(),
                updated: Timestamp::EPOCH,
                timer: false,
                closed: false,
            }))
        };
        let mut part = self.part(webhook).lock();
        part.entry(webhook).or_insert_with(new).clone()
    }

    /// Does something to a lane, and counts what it holds.
    fn with<R>(&self, mut state: MutexGuard<'_, State>, act: impl FnOnce(&mut State) -> R) -> R {
        let holds = |state: &State| match state.lane.is_failing() {
            true => state.lane.holds(),
            false => 0,
        };
        let (idle, held) = (state.lane.is_idle(), holds(&state));
        let done = act(&mut state);
        match (idle, state.lane.is_idle()) {
            (true, false) => _ = self.active.fetch_add(1, Ordering::AcqRel),
            (false, true) => _ = self.active.fetch_sub(1, Ordering::AcqRel),
            _ => {}
        }
        // Wraps around in between, never in sum.
        let more = holds(&state).wrapping_sub(held);
        self.failing.fetch_add(more, Ordering::AcqRel);
        done
    }

    /// A delivery arrives.
    fn offer(
        &self,
        job: Job,
        webhook: Option<&Webhook>,
        share: &Share,
        now: Timestamp,
    ) -> (SharedLane, Todo) {
        let owned = job.work.owned.clone();
        let queue = Queue::of(owned.role);
        let pressure = Pressure {
            slots: self.slots,
            free: owned.gauge.room(owned.class),
            active: self.active(),
            failing: self.failing.load(Ordering::Acquire),
        };
        loop {
            let shared = self.lane(job.delivery.webhook);
            let state = shared.lock();
            if state.closed {
                continue;
            }
            let todo = self.with(state, |state| {
                if let Some(webhook) = webhook {
                    if webhook.updated != state.updated {
                        state.updated = webhook.updated;
                        state.lane.renew();
                    }
                    state.rate.set(webhook.rate_limit, share);
                }
                match state.lane.offer(now, queue, pressure, &state.rate) {
                    Offer::Queue => {
                        state.queue(queue).push_back(job);
                        turns(state, now)
                    }
                    Offer::Defer(wait) => Todo {
                        defer: vec![(job, wait)],
                        ..Todo::default()
                    },
                }
            });
            return (shared, todo);
        }
    }

    /// A request ended.
    fn ended(&self, lane: &SharedLane, took: Duration, signal: Signal, now: Timestamp) -> Todo {
        self.with(lane.lock(), |state| {
            state.lane.ended(took, signal, now);
            turns(state, now)
        })
    }

    /// A wait is over.
    fn waited(&self, lane: &SharedLane, now: Timestamp) -> Todo {
        self.with(lane.lock(), |state| {
            state.timer = false;
            turns(state, now)
        })
    }

    /// How many lanes are saturated, and how many breakers are open. Each lane is looked at for a moment.
    pub(crate) fn strained(&self) -> (usize, usize) {
        let (mut saturated, mut broken) = (0, 0);
        for part in &self.parts {
            // Not both locks at a time, so that nobody waits for a part because of one lane.
            let lanes: Vec<_> = part.lock().values().cloned().collect();
            for lane in lanes {
                let state = lane.lock();
                saturated += usize::from(state.lane.is_saturated());
                broken += usize::from(state.lane.is_broken());
            }
        }
        (saturated, broken)
    }

    /// Forgets lanes of which nothing is lost, in one part of the map: every lane is looked at about
    /// once a minute.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let next = self.swept.fetch_add(1, Ordering::AcqRel) % PARTS;
        self.parts[next].lock().retain(|_, lane| {
            let mut state = lane.lock();
            state.closed = state.lane.is_forgettable(now) && !state.timer;
            !state.closed
        });
    }
}

/// Asks the lane whose turn it is until it has had enough.
fn turns(state: &mut State, now: Timestamp) -> Todo {
    let mut todo = Todo::default();
    loop {
        match state.lane.next(now, &mut state.rate) {
            Turn::Start(queue) => todo.start.extend(pop(state, queue)),
            Turn::Defer(queue, wait) => {
                let job = pop(state, queue);
                todo.defer.extend(job.map(|job| (job, wait)));
            }
            Turn::Wait(wait) => {
                if !state.timer {
                    state.timer = true;
                    todo.timer = Some(wait.max(WAIT_MIN));
                }
                return todo;
            }
            Turn::Rest => return todo,
        }
    }
}

fn pop(state: &mut State, queue: Queue) -> Option<Job> {
    let job = state.queue(queue).pop_front();
    check_invariant!(
        DL5,
        job.is_some(),
        "a lane counts more than its queue holds"
    );
    job
}

/// Hands a delivery to its webhook's lane. Never waits.
pub(crate) fn offer<L: Log, T: Transport>(shared: &Arc<Shared<L, T>>, job: Job) {
    let webhook = {
        let directory = shared.directory.read();
        directory.webhook_by_id(job.delivery.webhook).cloned()
    };
    let now = shared.now();
    let (lane, todo) = shared
        .lanes
        .offer(job, webhook.as_deref(), &shared.share, now);
    carry_out(shared, &lane, todo);
}

/// Starts, defers and waits as the lane said.
fn carry_out<L: Log, T: Transport>(shared: &Arc<Shared<L, T>>, lane: &SharedLane, todo: Todo) {
    for (job, wait) in todo.defer {
        let now = shared.now();
        if let Some(rung) = shared.settler.defer(job, wait, now) {
            lane.lock().lane.deferred(rung, now);
        }
    }
    for job in todo.start {
        shared.runtime.spawn(run(shared.clone(), lane.clone(), job));
    }
    if let Some(wait) = todo.timer {
        let (shared, lane) = (shared.clone(), lane.clone());
        shared.runtime.clone().spawn(async move {
            tokio::time::sleep(wait).await;
            let todo = shared.lanes.waited(&lane, shared.now());
            carry_out(&shared, &lane, todo);
        });
    }
}

/// Sends a delivery, then those whose turn it is when it has ended.
async fn run<L: Log, T: Transport>(shared: Arc<Shared<L, T>>, lane: SharedLane, first: Job) {
    let mut job = Some(first);
    while let Some(current) = job {
        shared.lanes.in_flight.fetch_add(1, Ordering::AcqRel);
        let (took, signal) = attempt(&shared, current).await;
        // The connection goes back to the client's pool in a task of its own; a request that does not
        // wait for that makes another one, for nothing.
        tokio::task::yield_now().await;
        shared.lanes.in_flight.fetch_sub(1, Ordering::AcqRel);
        let mut todo = shared.lanes.ended(&lane, took, signal, shared.now());
        job = todo.start.pop();
        carry_out(&shared, &lane, todo);
    }
}
