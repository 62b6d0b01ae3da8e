//! The policy of a lane (contract R15): what happens to a delivery that arrives while its webhook is
//! busy, and when the next one starts.
//!
//! A lane never waits and never blocks a partition: a delivery starts, queues for a short while, or is
//! deferred to a topic from which it comes back later. The deliveries themselves are the caller's; the
//! lane counts them in two queues, fresh ones and those that have waited before.

mod breaker;
mod deferral;
mod limit;

use std::time::Duration;

use breaker::Breaker;
use deferral::Outstanding;
pub use deferral::{DEFERRALS_MAX, rung_for};
use limit::Limit;

use crate::check_invariant;
use crate::time::Timestamp;
use crate::topics::{DEFER_RUNGS, Role};
use crate::verdict::{Outcome, Verdict};

/// Of so many starts at least one goes to a delivery that has waited before, if there is one.
const OLD_EVERY: usize = 4;
/// The longest that a receiver's `Retry-After` holds its lane back: a mistake heals.
const HOLD_MAX: Duration = DEFER_RUNGS[DEFER_RUNGS.len() - 1];
/// A lane that holds less than this part of all slots harms nobody.
const HOG: usize = 16;
/// A lane that nothing happened in for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Limits of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests in flight at a time, at most; how many it is at the moment is learned.
    pub concurrency: usize,
    /// Deliveries waiting for one of them to end.
    pub queue: usize,
    /// A delivery that would wait longer than this is deferred instead.
    pub wait: Duration,
}

/// One of a lane's two queues, each first in, first out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Queue {
    /// First passages.
    Fresh,
    /// What has waited before: retries, deferred deliveries, replays. A share of the starts is theirs.
    Old,
}

impl Queue {
    /// Of the deliveries in a topic.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Retry(_) | Role::Defer(_) | Role::Replay => Self::Old,
            _ => Self::Fresh,
        }
    }
}

/// How much the whole process holds: what one lane may hold depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pressure {
    /// All slots.
    pub slots: usize,
    /// Those that are free for this delivery's class of work.
    pub free: usize,
    /// Lanes with something in flight or queued.
    pub active: usize,
    /// Slots held by lanes whose last outcome failed.
    pub failing: usize,
}

/// What to do with a delivery that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// Put it into its queue; [`Lane::next`] says when it is its turn.
    Queue,
    /// Put it off: it would wait for about this long.
    Defer(Duration),
}

/// What to do with the queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Send the first of this queue now; [`Lane::ended`] when the request has ended. Then ask again.
    Start(Queue),
    /// Put the first of this queue off: it would wait for about this long. Then ask again.
    Defer(Queue, Duration),
    /// Ask again after this time.
    Wait(Duration),
    /// Ask again when a request ends or a delivery arrives.
    Rest,
}

/// The starts that a rate limit allows.
pub trait Pace {
    /// Takes one start, or says how long until there is one.
    fn take(&mut self, now: Timestamp) -> Result<(), Duration>;

    /// Time between two starts in the long run.
    fn interval(&self) -> Duration;
}

/// No rate limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Pace for Unlimited {
    fn take(&mut self, _now: Timestamp) -> Result<(), Duration> {
        Ok(())
    }

    fn interval(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a request told about its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// It took the event, or does not want it.
    Good,
    /// It answered, but failed.
    Failed,
    /// 429 or 503: less, and after this time if it says so.
    Busy(Option<Duration>),
    /// No answer in time.
    TimedOut,
    /// No request was made.
    None,
}

impl Signal {
    /// From how an attempt ended. `retry_after` counts with 429 and 503 alone (RFC 9110 §10.2.3,
    /// RFC 6585 §4).
    pub fn of(outcome: Outcome, verdict: Verdict, retry_after: Option<Duration>) -> Self {
        match (outcome, verdict) {
            (Outcome::Timeout, _) => Self::TimedOut,
            (Outcome::Status(429 | 503), Verdict::Failed) => Self::Busy(retry_after),
            (_, Verdict::Failed) => Self::Failed,
            (_, Verdict::Delivered | Verdict::Rejected) => Self::Good,
        }
    }
}

/// One webhook's lane in one process.
#[derive(Clone, Debug)]
pub struct Lane {
    limits: Limits,
    limit: Limit,
    breaker: Breaker,
    in_flight: usize,
    fresh: usize,
    old: usize,
    /// Starts of fresh deliveries since the last old one.
    since_old: usize,
    outstanding: Outstanding,
    /// `Retry-After`: nothing starts before this.
    held: Timestamp,
    failing: bool,
    /// Moving average of how long a request takes.
    request: Duration,
    /// When a request last ended, or the first one of a busy time began.
    progress: Timestamp,
}

impl Lane {
    /// An idle lane.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            limit: Limit::new(limits.concurrency),
            breaker: Breaker::default(),
            in_flight: 0,
            fresh: 0,
            old: 0,
            since_old: 0,
            outstanding: Outstanding::default(),
            held: Timestamp::EPOCH,
            failing: false,
            request: Duration::ZERO,
            progress: Timestamp::EPOCH,
        }
    }

    /// A delivery arrives.
    pub fn offer(
        &mut self,
        now: Timestamp,
        queue: Queue,
        pressure: Pressure,
        pace: &impl Pace,
    ) -> Offer {
        let blocked = self.blocked(now);
        let wait = self.wait_in(queue, now, pace);
        // The last of the queue's room is for those that have waited before.
        let full = match queue {
            Queue::Fresh => self.fresh >= self.limits.queue - self.limits.queue / OLD_EVERY,
            Queue::Old => false,
        };
        let refused = blocked.max(wait) > self.limits.wait
            || full
            || self.queued() >= self.limits.queue
            || (self.failing && pressure.failing >= pressure.slots / 2)
            || self.is_hogging(pressure, wait);
        if refused {
            return Offer::Defer(self.wait_for_all(now, pace).saturating_add(blocked));
        }
        match queue {
            Queue::Fresh => self.fresh += 1,
            Queue::Old => self.old += 1,
        }
        Offer::Queue
    }

    /// Whose turn it is. Called until it says [`Turn::Wait`] or [`Turn::Rest`] after every offer that
    /// queued, after every end, and after every wait.
    pub fn next(&mut self, now: Timestamp, pace: &mut impl Pace) -> Turn {
        let Some(queue) = self.first() else {
            return Turn::Rest;
        };
        let blocked = self.blocked(now);
        if blocked > self.limits.wait {
            let wait = self.wait_for_all(now, pace).saturating_add(blocked);
            self.leave(queue);
            return Turn::Defer(queue, wait);
        }
        if !blocked.is_zero() {
            return Turn::Wait(blocked);
        }
        if self.in_flight >= self.allowed() {
            return Turn::Rest;
        }
        if let Err(wait) = pace.take(now) {
            return Turn::Wait(wait);
        }
        if self.in_flight == 0 {
            self.progress = now;
        }
        self.leave(queue);
        self.since_old = match queue {
            Queue::Fresh => self.since_old + 1,
            Queue::Old => 0,
        };
        self.in_flight += 1;
        Turn::Start(queue)
    }

    /// A request has ended after `took`.
    pub fn ended(&mut self, took: Duration, signal: Signal, now: Timestamp) {
        check_invariant!(
            DL5,
            self.in_flight > 0,
            "a request ended that was not in flight"
        );
        let in_use = self.in_flight >= self.limit.get();
        self.in_flight = self.in_flight.saturating_sub(1);
        self.progress = now;
        if signal == Signal::None {
            return;
        }
        self.request = match self.request.is_zero() {
            true => took,
            false => (self.request * 7 + took) / 8,
        };
        self.failing = signal != Signal::Good;
        match signal {
            Signal::TimedOut => self.breaker.timed_out(took, now),
            _ => self.breaker.answered(),
        }
        match signal {
            Signal::Good => self.limit.succeeded(in_use),
            Signal::Busy(_) | Signal::TimedOut => self.limit.pressed(took, now),
            Signal::Failed | Signal::None => {}
        }
        if let Signal::Busy(Some(wait)) = signal {
            self.held = self.held.max(now + wait.min(HOLD_MAX));
        }
    }

    /// A delivery of this lane was put off on this rung.
    pub fn deferred(&mut self, rung: usize, now: Timestamp) {
        self.outstanding.left(rung, now);
    }

    /// The webhook was changed: what was learned about its receiver may be about another one.
    pub fn renew(&mut self) {
        self.limit = Limit::new(self.limits.concurrency);
        self.breaker = Breaker::default();
        self.held = Timestamp::EPOCH;
        self.failing = false;
        self.request = Duration::ZERO;
    }

    /// Whether nothing is in flight or queued.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.queued() == 0
    }

    /// Whether nothing is lost when this lane is made anew.
    pub fn is_forgettable(&self, now: Timestamp) -> bool {
        let wait = self
            .breaker
            .is_probing()
            .unwrap_or_default()
            .max(FORGET_AFTER);
        self.is_idle()
            && self.outstanding.count(now) == 0
            && self.blocked(now).is_zero()
            && now > self.progress + wait * 2
    }

    /// Whether its last outcome failed.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether its breaker is open: the receiver lets one request after the other time out, and is asked
    /// with one at a time.
    pub fn is_broken(&self) -> bool {
        self.breaker.is_probing().is_some()
    }

    /// Whether more waits for it than may be sent to it at once, at the pace of its receiver.
    pub fn is_saturated(&self) -> bool {
        self.queued() > 0 && self.in_flight >= self.allowed()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries in the queues.
    pub fn queued(&self) -> usize {
        self.fresh + self.old
    }

    /// Deliveries in flight or queued: the slots it holds.
    pub fn holds(&self) -> usize {
        self.in_flight + self.queued()
    }

    /// Requests that may be in flight now.
    fn allowed(&self) -> usize {
        match self.breaker.is_probing() {
            Some(_) => 1,
            None => self.limit.get(),
        }
    }

    /// How long nothing may start, be it for the breaker or for `Retry-After`.
    fn blocked(&self, now: Timestamp) -> Duration {
        let probed = match self.breaker.is_probing() {
            Some(backoff) if self.in_flight > 0 => backoff,
            _ => Duration::ZERO,
        };
        self.breaker.wait(now).max(self.held.since(now)).max(probed)
    }

    /// The queue whose turn it is.
    fn first(&self) -> Option<Queue> {
        match (self.fresh, self.old) {
            (0, 0) => None,
            (0, _) => Some(Queue::Old),
            (_, 0) => Some(Queue::Fresh),
            _ if self.since_old + 1 >= OLD_EVERY => Some(Queue::Old),
            _ => Some(Queue::Fresh),
        }
    }

    fn leave(&mut self, queue: Queue) {
        let count = match queue {
            Queue::Fresh => &mut self.fresh,
            Queue::Old => &mut self.old,
        };
        *count = count.saturating_sub(1);
    }

    /// Whether it holds more than its equal share and more than what is free, and would hold it for
    /// long. What all lanes hold alike is served by taking in no more; one lane's flood is put off.
    fn is_hogging(&self, pressure: Pressure, wait: Duration) -> bool {
        let share = (pressure.slots / (pressure.active + 1)).max(pressure.slots / HOG);
        self.holds() > pressure.free + share && wait > self.limits.wait / 4
    }

    /// How long a delivery that joined this queue now would wait.
    fn wait_in(&self, queue: Queue, now: Timestamp, pace: &impl Pace) -> Duration {
        let before = match queue {
            // The others take at most what is left of every round.
            Queue::Fresh => self.fresh + self.old.min(self.fresh / (OLD_EVERY - 1)),
            Queue::Old => self.old + self.fresh.min(self.old.saturating_mul(OLD_EVERY - 1)),
        };
        self.time_for(before, now, pace)
    }

    /// How long until all that is here or out on rungs is sent.
    fn wait_for_all(&self, now: Timestamp, pace: &impl Pace) -> Duration {
        self.time_for(self.queued() + self.outstanding.count(now), now, pace)
    }

    /// Time in which so many and one more start. A receiver that stopped answering makes it grow with
    /// the time since its last answer.
    fn time_for(&self, count: usize, now: Timestamp, pace: &impl Pace) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let paced = pace.interval().saturating_mul(count);
        let expected = match self.breaker.is_probing() {
            Some(_) => 1,
            None => self.limit.expected(),
        };
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        if self.in_flight < self.allowed() {
            return paced;
        }
        let request = self.request.max(now.since(self.progress));
        let turns = count / expected + 1;
        paced.max(request.saturating_mul(turns))
    }
}

#[cfg(test)]
mod tests;
