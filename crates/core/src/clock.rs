//! The log's clock, as far as its acknowledgements tell: tiers are due by the clock that stamps
//! their records, not by ours (design, "Tiers").

use std::time::Duration;

use crate::time::Timestamp;

/// How long an observation counts, at most twice this.
const WINDOW: Duration = Duration::from_secs(300);
/// An append that took longer than this by our clock says nothing: it would have been reported as
/// failed, so this process was suspended.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

/// Estimates the log's time from ours, by the steady hand of our clock: our time of day may be wrong,
/// and may be set at any moment.
///
/// An acknowledgement that arrives at our `now` carries the append time `at`. It travelled for a
/// while, so `at - now` is too small by that while, never too large: the largest value seen is the
/// best, and what it still lacks makes us late by one network delay, never early.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    /// Log's time at the zero of our steady hand, in microseconds.
    current: Option<i64>,
    previous: Option<i64>,
    window_began: Duration,
}

impl LogClock {
    /// An append that was handed over at `handed` by our steady hand was acknowledged at `now`, with
    /// append time `at`.
    pub fn observe(&mut self, at: Timestamp, handed: Duration, now: Duration) {
        if now.saturating_sub(handed) > ROUND_TRIP_MAX {
            return;
        }
        if now.saturating_sub(self.window_began) > WINDOW {
            self.previous = self.current.take();
            self.window_began = now;
        }
        let zero = at.as_micros().saturating_sub(micros(now));
        self.current = Some(self.current.map_or(zero, |best| best.max(zero)));
    }

    /// The log's time when our steady hand says `now`; `None` when there was no acknowledgement yet.
    pub fn at(&self, now: Duration) -> Option<Timestamp> {
        let zero = self.current.max(self.previous)?;
        Some(Timestamp::from_micros(zero.saturating_add(micros(now))))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    proptest! {
        /// DL4: with any delays, the estimate is never ahead of the log, and lags by no more than the
        /// shortest delay seen.
        #[test]
        fn never_ahead_and_close(delays in proptest::collection::vec(0u64..500_000, 1..50)) {
            let mut clock = LogClock::default();
            let mut now = Duration::from_secs(77);
            for delay in &delays {
                now += Duration::from_millis(100);
                let at = START + now - Duration::from_micros(*delay);
                clock.observe(at, now.saturating_sub(Duration::from_millis(500)), now);
            }
            let lag = (START + now).as_micros() - clock.at(now).unwrap().as_micros();
            prop_assert!(lag >= 0, "ahead by {}", -lag);
            prop_assert!(lag.unsigned_abs() <= *delays.iter().min().unwrap());
        }
    }

    /// Two oscillators never agree for ever.
    #[test]
    fn forgets_what_is_long_past() {
        let mut clock = LogClock::default();
        clock.observe(
            START + Duration::from_secs(60),
            Duration::ZERO,
            Duration::ZERO,
        );
        for times in 1..20 {
            let now = Duration::from_secs(61 * times);
            clock.observe(START + now, now, now);
        }
        let now = Duration::from_secs(1200);
        assert_eq!(clock.at(now), Some(START + now));
    }

    /// The longest time that an append may take, and a window to its end, still count.
    #[test]
    fn the_largest_lead_within_a_window_counts() {
        let seconds = Duration::from_secs;
        let begin = seconds(77);
        let ahead = |now: Duration, lead| START + now + seconds(lead);
        let mut clock = LogClock::default();
        clock.observe(ahead(WINDOW + begin, 60), begin + WINDOW, begin + WINDOW);
        for lead in [10, 10] {
            clock.observe(ahead(WINDOW + begin, lead), begin + WINDOW, begin + WINDOW);
        }
        let began = begin + WINDOW;
        assert_eq!(clock.at(began), Some(ahead(began, 60)));
        // Its last moment belongs to a window: what was learned is still of the one before, and counts.
        let end = began + WINDOW;
        clock.observe(ahead(end, 0), end, end);
        let after = end + Duration::from_micros(1);
        clock.observe(ahead(after, 0), after, after);
        assert_eq!(clock.at(after), Some(ahead(after, 60)));
        // The one after it began after its end, so it is not over yet.
        let later = end + WINDOW;
        clock.observe(ahead(later, 0), later, later);
        assert_eq!(clock.at(later), Some(ahead(later, 60)));

        let mut clock = LogClock::default();
        let now = begin + ROUND_TRIP_MAX;
        clock.observe(ahead(now, 5), begin, now);
        assert_eq!(clock.at(now), Some(ahead(now, 5)));
    }

    /// Else a retry would be late by the time that the process was suspended.
    #[test]
    fn a_suspension_is_no_delay() {
        let mut clock = LogClock::default();
        let now = Duration::from_secs(400);
        clock.observe(START, Duration::ZERO, now);
        assert_eq!(clock.at(now), None);
    }
}
