//! The policy of a lane: what happens to a delivery that arrives while its webhook is busy.
//!
//! A lane never waits and never blocks a partition: a delivery starts, queues for a short while, or is
//! deferred to a topic from which it comes back later.

use std::time::Duration;

use crate::check_invariant;
use crate::time::Timestamp;
use crate::topics::DEFER_RUNGS;

/// At most this many times is a delivery rewritten without an attempt.
pub const DEFERRALS_MAX: u8 = 30;

/// Limits of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests in flight at a time.
    pub concurrency: usize,
    /// Deliveries waiting for one of them to end.
    pub queue: usize,
    /// A delivery that would wait longer than this is deferred instead.
    pub wait: Duration,
}

/// What to do with a delivery that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// Send it now; [`Lane::ended`] when the request has ended.
    Start,
    /// Keep it in the lane's queue; [`Lane::ended`] says when it is its turn.
    Queue,
    /// Put it off: it would wait for about this long.
    Defer(Duration),
}

/// One webhook's lane in one process. The queue itself is the caller's.
#[derive(Clone, Debug)]
pub struct Lane {
    limits: Limits,
    in_flight: usize,
    queued: usize,
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
            in_flight: 0,
            queued: 0,
            request: Duration::ZERO,
            progress: Timestamp::EPOCH,
        }
    }

    /// A delivery arrives.
    pub fn offer(&mut self, now: Timestamp) -> Offer {
        if self.in_flight < self.limits.concurrency {
            if self.in_flight == 0 {
                self.progress = now;
            }
            self.in_flight += 1;
            return Offer::Start;
        }
        let wait = self.wait(now);
        if self.queued >= self.limits.queue || wait > self.limits.wait {
            return Offer::Defer(wait);
        }
        self.queued += 1;
        Offer::Queue
    }

    /// A request has ended after `took`. `true`: the next delivery of the queue starts now.
    pub fn ended(&mut self, took: Duration, now: Timestamp) -> bool {
        check_invariant!(
            DL5,
            self.in_flight > 0,
            "a request ended that was not in flight"
        );
        self.request = (self.request * 7 + took) / 8;
        self.progress = now;
        if self.queued > 0 && self.in_flight <= self.limits.concurrency {
            self.queued -= 1;
            return true;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        false
    }

    /// Whether nothing is in flight or queued.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.queued == 0
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries in the queue.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How long a delivery that queued now would wait. A receiver that stopped answering makes it
    /// grow with the time since its last answer.
    fn wait(&self, now: Timestamp) -> Duration {
        let request = self.request.max(now.since(self.progress));
        let turns = u32::try_from(self.queued / self.limits.concurrency + 1).unwrap_or(u32::MAX);
        request.saturating_mul(turns)
    }
}

/// The rung for a delivery that would wait this long, was deferred `deferrals` times before, and may
/// still be attempted for `remaining`: the nearest one, but long enough that the rewrites left
/// ([`DEFERRALS_MAX`]) last for the time that remains.
pub fn rung_for(wait: Duration, deferrals: u8, remaining: Duration) -> usize {
    let nearest = (0..DEFER_RUNGS.len())
        .min_by_key(|rung| DEFER_RUNGS[*rung].abs_diff(wait))
        .unwrap_or_default();
    let left = u32::from(DEFERRALS_MAX.saturating_sub(deferrals)).max(1);
    // The first half of the rewrites is free to be quick; the second half must last.
    if u32::from(deferrals) * 2 < u32::from(DEFERRALS_MAX) && remaining / left < DEFER_RUNGS[4] {
        return nearest;
    }
    let lasting = DEFER_RUNGS
        .iter()
        .position(|rung| *rung * left >= remaining);
    nearest.max(lasting.unwrap_or(DEFER_RUNGS.len() - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        concurrency: 4,
        queue: 16,
        wait: Duration::from_secs(2),
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_hanging_receiver_is_deferred_and_a_quick_one_queues() {
        let mut lane = Lane::new(LIMITS);
        for _ in 0..4 {
            assert_eq!(lane.offer(at(0)), Offer::Start);
        }
        assert_eq!(lane.offer(at(10)), Offer::Queue);
        assert!(matches!(lane.offer(at(3000)), Offer::Defer(_)));
        assert!(lane.ended(Duration::from_millis(5), at(3001)));
        assert_eq!(lane.offer(at(3001)), Offer::Queue);
    }

    #[test]
    fn rungs_are_the_nearest_while_rewrites_last() {
        let hour = Duration::from_secs(3600);
        assert_eq!(rung_for(Duration::from_secs(1), 0, 20 * hour), 0);
        assert_eq!(rung_for(Duration::from_secs(100), 3, 20 * hour), 2);
        assert_eq!(rung_for(Duration::from_secs(1), 29, 20 * hour), 4);
        assert_eq!(rung_for(Duration::MAX, 0, hour), 4);
    }

    proptest! {
        /// DL5: never more in flight than the limit, never more queued than the limit, and what is
        /// offered is started, queued or deferred, never forgotten.
        #[test]
        fn bounded_and_conserving(steps in proptest::collection::vec((any::<bool>(), 0i64..500), 1..400)) {
            let mut lane = Lane::new(LIMITS);
            let (mut offered, mut started, mut deferred, mut ended) = (0, 0, 0, 0);
            let mut now = 0;
            for (arrives, later) in steps {
                now += later;
                if arrives {
                    offered += 1;
                    match lane.offer(at(now)) {
                        Offer::Start => started += 1,
                        Offer::Queue => {}
                        Offer::Defer(_) => deferred += 1,
                    }
                } else if lane.in_flight() > 0 {
                    ended += 1;
                    if lane.ended(Duration::from_millis(later.unsigned_abs()), at(now)) {
                        started += 1;
                    }
                }
                prop_assert!(lane.in_flight() <= LIMITS.concurrency);
                prop_assert!(lane.queued() <= LIMITS.queue);
                prop_assert_eq!(lane.in_flight(), started - ended);
                prop_assert_eq!(offered, started + lane.queued() + deferred);
                prop_assert!(lane.queued() == 0 || lane.in_flight() == LIMITS.concurrency);
            }
        }

        /// However often a delivery is put off, it is rewritten at most 30 times in its 24 hours.
        #[test]
        fn at_most_thirty_rewrites(waits in proptest::collection::vec(0u64..7200, 100)) {
            let mut remaining = Duration::from_secs(86_400);
            let mut deferrals = 0u8;
            for wait in waits {
                let rung = DEFER_RUNGS[rung_for(Duration::from_secs(wait), deferrals, remaining)];
                if rung > remaining {
                    break;
                }
                remaining -= rung;
                deferrals += 1;
            }
            prop_assert!(deferrals <= DEFERRALS_MAX, "{} rewrites", deferrals);
        }
    }
}
