//! How many requests a lane may have in flight: learned from what the receiver does, like a congestion
//! window. Up by one per answer until the first sign of trouble, then by one per round trip; halved by a
//! timeout, 429 or 503, at most once per round trip.

use std::time::Duration;

use crate::time::Timestamp;

/// Where a lane starts and where trouble or a pause of the process puts nobody below: enough that a
/// quick receiver is at its maximum after a dozen answers, and few enough that one that hangs holds
/// little.
const START: usize = 4;
/// Requests that take this long or less are no reason to hold back.
const QUICK: Duration = Duration::from_millis(100);
/// For how long the shortest request is remembered, at least.
const EPOCH: Duration = Duration::from_secs(30);

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
    best: Best,
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
            best: Best::default(),
        }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// A request succeeded; `usual` is what requests take lately, and `in_use` says whether the limit
    /// was what held others back.
    pub(super) fn succeeded(
        &mut self,
        took: Duration,
        usual: Duration,
        in_use: bool,
        now: Timestamp,
    ) {
        let best = self.best.note(took, now);
        // More at a time that only makes each take longer is no gain: the bottleneck is elsewhere, be
        // it the receiver or this process.
        if !in_use || self.now >= self.max || usual > QUICK.max(best * 2) {
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

/// The shortest request of the last one to two epochs.
#[derive(Clone, Debug, Default)]
struct Best {
    last: Option<Duration>,
    this: Option<Duration>,
    since: Timestamp,
}

impl Best {
    fn note(&mut self, took: Duration, now: Timestamp) -> Duration {
        if now.since(self.since) > EPOCH {
            self.last = self.this.take();
            self.since = now;
        }
        let this = self.this.map_or(took, |this| this.min(took));
        self.this = Some(this);
        self.last.map_or(this, |last| last.min(this))
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
        for n in 0..12 {
            limit.succeeded(ms(2), ms(2), true, at(n));
        }
        assert_eq!(limit.get(), 16);
        limit.succeeded(ms(2), ms(2), true, at(20));
        assert_eq!(limit.get(), 16);
    }

    #[test]
    fn one_round_trip_halves_once_and_growth_is_slow_afterwards() {
        let mut limit = Limit::new(16);
        (0..12).for_each(|n| limit.succeeded(ms(2), ms(2), true, at(n)));
        for n in 0..16 {
            limit.pressed(ms(1000), at(2000 + n));
        }
        assert_eq!(limit.get(), 8);
        (0..8).for_each(|n| limit.succeeded(ms(2), ms(2), true, at(3000 + n)));
        assert_eq!(limit.get(), 9);
    }

    #[test]
    fn unused_or_longer_requests_do_not_grow_it() {
        let mut limit = Limit::new(16);
        limit.succeeded(ms(10), ms(10), false, at(1));
        limit.succeeded(ms(400), ms(300), true, at(2));
        assert_eq!(limit.get(), 4);
        // A receiver far away is not a slow one.
        let mut far = Limit::new(16);
        far.succeeded(ms(400), ms(400), true, at(2));
        assert_eq!(far.get(), 5);
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
                    1 => limit.succeeded(ms(took), ms(took), true, at(now)),
                    _ => limit.succeeded(ms(took), ms(took), false, at(now)),
                }
                prop_assert!((1..=max.max(1)).contains(&limit.get()));
                prop_assert!(limit.get() <= before + 1);
                prop_assert!(limit.get() >= before / 2);
            }
        }
    }
}
