//! The breaker of a lane: a receiver that lets one request after the other time out is left alone for a
//! while, then asked again with one real delivery. Any answer closes it, a 500 too: who answers is there.

use std::time::Duration;

use crate::time::Timestamp;

/// So many timeouts with no answer in between open it.
const SERIES: u32 = 8;
/// How long it stays open at first; doubled after each probe that times out.
const BACKOFF_MIN: Duration = Duration::from_secs(15);
const BACKOFF_MAX: Duration = Duration::from_secs(900);

/// One lane's breaker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    /// Timeouts with no answer in between.
    series: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Timestamp,
    backoff: Duration,
}

impl Breaker {
    /// Any answer.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A request that began `took` ago timed out.
    pub(super) fn timed_out(&mut self, took: Duration, now: Timestamp) {
        self.series = self.series.saturating_add(1);
        let backoff = match self.open {
            None if self.series < SERIES => return,
            None => BACKOFF_MIN,
            // It was under way when the breaker opened, and says nothing new.
            Some(open) if now - took < open.until => return,
            Some(open) => (open.backoff * 2).min(BACKOFF_MAX),
        };
        let until = now + backoff;
        self.open = Some(Open { until, backoff });
    }

    /// How long nothing may be sent; zero when closed or when it is time for a probe.
    pub(super) fn wait(&self, now: Timestamp) -> Duration {
        self.open
            .map_or(Duration::ZERO, |open| open.until.since(now))
    }

    /// Whether only a probe may be sent; then this is the wait that the others face.
    pub(super) fn is_probing(&self) -> Option<Duration> {
        self.open.map(|open| open.backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn opens_after_a_series_backs_off_and_closes_by_any_answer() {
        let mut breaker = Breaker::default();
        for n in 1..8 {
            breaker.timed_out(TIMEOUT, at(n * 10));
            assert_eq!(breaker.wait(at(n * 10)), Duration::ZERO, "{n}");
        }
        breaker.timed_out(TIMEOUT, at(80));
        assert_eq!(breaker.wait(at(80)), BACKOFF_MIN);
        // What was under way does not lengthen it.
        breaker.timed_out(TIMEOUT, at(84));
        assert_eq!(breaker.wait(at(84)), Duration::from_secs(11));
        let (mut now, mut backoffs) = (95, Vec::new());
        for _ in 0..7 {
            assert_eq!(breaker.wait(at(now)), Duration::ZERO);
            breaker.timed_out(TIMEOUT, at(now + 10));
            let wait = breaker.wait(at(now + 10)).as_secs();
            backoffs.push(wait);
            now += 10 + i64::try_from(wait).unwrap();
        }
        assert_eq!(backoffs, [30, 60, 120, 240, 480, 900, 900]);
        breaker.answered();
        assert_eq!(breaker.wait(at(now)), Duration::ZERO);
        assert!(breaker.is_probing().is_none());
    }

    #[test]
    fn an_answer_ends_the_series() {
        let mut breaker = Breaker::default();
        for n in 0..100 {
            breaker.timed_out(TIMEOUT, at(n));
            if n % 7 == 6 {
                breaker.answered();
            }
        }
        assert!(breaker.is_probing().is_none());
    }
}
