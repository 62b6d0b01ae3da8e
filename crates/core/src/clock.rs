//! The log's clock, as far as its acknowledgements tell: tiers are due by the clock that stamps
//! their records, not by ours (design, "Tiers").

use std::time::Duration;

use crate::time::Timestamp;

/// How long an observation counts, at most twice this.
const WINDOW: Duration = Duration::from_secs(300);

/// An append that took longer than this by our clock says nothing: it would have been reported as
/// failed, so our clock jumped or this process was suspended.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

/// Estimates how far the log's clock is ahead of ours.
///
/// An acknowledgement that arrives at our `now` carries the append time `at`. It travelled for a
/// while, so `at - now` is too small by that while, never too large: the largest value seen is the
/// best, and what it still lacks makes us late by one network delay, never early.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    current: Option<i64>,
    previous: Option<i64>,
    window_began: Timestamp,
}

impl LogClock {
    /// An append that was handed over when our clock said `handed` was acknowledged `now`, with append
    /// time `at`.
    pub fn observe(&mut self, at: Timestamp, handed: Timestamp, now: Timestamp) {
        if now < handed || now.since(handed) > ROUND_TRIP_MAX {
            return;
        }
        if now.since(self.window_began) > WINDOW || now < self.window_began {
            self.previous = self.current.take();
            self.window_began = now;
        }
        let ahead = at.as_micros().saturating_sub(now.as_micros());
        self.current = Some(self.current.map_or(ahead, |best| best.max(ahead)));
    }

    /// The log's time when ours is `now`; ours, when there was no acknowledgement yet.
    pub fn at(&self, now: Timestamp) -> Timestamp {
        let ahead = self.current.max(self.previous).unwrap_or(0);
        Timestamp::from_micros(now.as_micros().saturating_add(ahead))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// DL4: with any constant skew and any delays, the estimate is never ahead of the log, and
        /// lags by no more than the shortest delay seen.
        #[test]
        fn never_ahead_and_close(skew in -10_000_000i64..10_000_000, delays in proptest::collection::vec(0i64..500_000, 1..50)) {
            let mut clock = LogClock::default();
            let mut now = Timestamp::from_micros(1_000_000_000_000);
            for delay in &delays {
                now = now + Duration::from_millis(100);
                let at = Timestamp::from_micros(now.as_micros() + skew - delay);
                clock.observe(at, now - Duration::from_millis(500), now);
            }
            let lag = now.as_micros() + skew - clock.at(now).as_micros();
            prop_assert!(lag >= 0, "ahead by {}", -lag);
            prop_assert!(lag <= *delays.iter().min().unwrap());
        }
    }

    #[test]
    fn forgets_an_old_skew() {
        let mut clock = LogClock::default();
        let start = Timestamp::from_micros(1_000_000_000_000);
        clock.observe(start + Duration::from_secs(60), start, start);
        for minute in 1..20 {
            let now = start + Duration::from_secs(60 * minute);
            clock.observe(now, now, now);
        }
        let now = start + Duration::from_secs(1200);
        assert_eq!(clock.at(now), now);
    }

    /// The longest time that an append may take, and a window to its end, still count.
    #[test]
    fn the_largest_lead_within_a_window_counts() {
        let start = Timestamp::from_micros(1_000_000_000_000);
        let lead = |seconds| start + Duration::from_secs(seconds);
        let mut clock = LogClock::default();
        clock.observe(lead(60), start, start);
        clock.observe(lead(10), start, start);
        clock.observe(lead(10), start, start);
        assert_eq!(clock.at(start), lead(60));
        // The window began at the start: its last moment belongs to it, and so it is not the one
        // before the last yet.
        let end = start + WINDOW;
        clock.observe(end, end, end);
        let after = end + Duration::from_micros(1);
        clock.observe(after, after, after);
        assert_eq!(clock.at(after), after + Duration::from_secs(60));
        // The one after it began after its end, so it is not over yet.
        let later = end + WINDOW;
        clock.observe(later, later, later);
        assert_eq!(clock.at(later), later + Duration::from_secs(60));

        let mut clock = LogClock::default();
        clock.observe(lead(15), start, start + ROUND_TRIP_MAX);
        assert_eq!(clock.at(start), lead(5));
    }

    /// Our clock was set back: what was learned before is forgotten like what is old.
    #[test]
    fn a_clock_set_back_begins_a_window() {
        let mut clock = LogClock::default();
        let start = Timestamp::from_micros(1_000_000_000_000);
        clock.observe(start + Duration::from_secs(60), start, start);
        for back in 1..3 {
            let now = start - Duration::from_secs(1000 * back);
            clock.observe(now, now, now);
            let lead = if back == 1 { 60 } else { 0 };
            assert_eq!(clock.at(now), now + Duration::from_secs(lead));
        }
    }

    /// Else a retry would be late by the time that the process was suspended.
    #[test]
    fn a_suspension_is_no_skew() {
        let mut clock = LogClock::default();
        let handed = Timestamp::from_micros(1_000_000_000_000);
        let now = handed + Duration::from_secs(400);
        clock.observe(handed, handed, now);
        assert_eq!(clock.at(now), now);
        // Nor is our clock being set back.
        clock.observe(now, now, handed);
        assert_eq!(clock.at(now), now);
    }
}
