//! How many requests a lane may have in flight: learned from what the receiver does, like a congestion
//! window. Up by one per answer until the first sign of trouble, then by one per round trip; halved by a
//! timeout, 429 or 503, at most once per round trip.

use std::time::Duration;

use crate::time::Timestamp;

/// Where a lane starts: enough that a quick receiver is at its maximum after a dozen answers, and few
/// enough that one that hangs holds little.
const START: usize = 4;
/// The limit of one lane.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    now: usize,
    max: usize,
    /// Until the first sign of trouble, every answer raises the limit.
    ramp: bool,
    /// Answers since the limit last grew.
    credit: usize,
    /// Requests that started before this have been answered for.
    decreased: Timestamp,
}

impl Limit {
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            now: START.min(max),
            max,
            ramp: true,
            credit: 0,
            decreased: Timestamp::EPOCH,
        }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// What it will be in a few round trips: until the first sign of trouble the receiver is taken to be
    /// able, and a burst that arrives during the ramp waits for that short while.
    pub(super) fn expected(&self) -> usize {
        if self.ramp { self.max } else { self.now }
    }

    /// A request succeeded; `in_use` says whether the limit was what held others back.
    pub(super) fn succeeded(&mut self, in_use: bool) {
        if !in_use || self.now >= self.max {
            return;
        }
        self.credit += 1;
        if self.ramp || self.credit >= self.now {
            self.now += 1;
            self.credit = 0;
        }
    }

    /// The receiver gave no answer in time, or asked for less.
    pub(super) fn pressed(&mut self, took: Duration, now: Timestamp) {
        self.ramp = false;
        self.credit = 0;
        // All that was under way together is one sign.
        if now - took < self.decreased {
            return;
        }
        self.decreased = now;
        self.now = (self.now / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(millis).unwrap())
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_quick_receiver_gets_all_after_a_dozen_answers() {
        let mut limit = Limit::new(16);
        for _ in 0..12 {
            limit.succeeded(true);
        }
        assert_eq!(limit.get(), 16);
        limit.succeeded(true);
        assert_eq!(limit.get(), 16);
    }

    #[test]
    fn one_round_trip_halves_once_and_growth_is_slow_afterwards() {
        let mut limit = Limit::new(16);
        (0..12).for_each(|_| limit.succeeded(true));
        for n in 0..16 {
            limit.pressed(ms(1000), at(2000 + n));
        }
        assert_eq!(limit.get(), 8);
        (0..8).for_each(|_| limit.succeeded(true));
        assert_eq!(limit.get(), 9);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut limit = Limit::new(16);
        limit.succeeded(false);
        assert_eq!(limit.get(), 4);
    }

    proptest! {
        /// DL5, R15: from 1 to the maximum, whatever happens.
        #[test]
        fn within_its_bounds(
            max in 0usize..40,
            steps in proptest::collection::vec((0u8..3, 0u64..5000, 0u64..2000), 0..300),
        ) {
            let mut limit = Limit::new(max);
            let mut now = 0;
            for (what, took, later) in steps {
                now += later;
                let before = limit.get();
                match what {
                    0 => limit.pressed(ms(took), at(now)),
                    1 => limit.succeeded(true),
                    _ => limit.succeeded(false),
                }
                prop_assert!((1..=max.max(1)).contains(&limit.get()));
                prop_assert!(limit.get() <= before + 1);
                prop_assert!(limit.get() >= before / 2);
            }
        }
    }
}
