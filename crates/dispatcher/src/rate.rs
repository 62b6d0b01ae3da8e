//! Rate limits of webhooks: GCRA by `governor`, on our clock, divided by this instance's share of the
//! work.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ringback_core::lane::Pace;
use ringback_core::time::Timestamp;

/// A tenth of a second's starts may come at once: timers are not exact to the millisecond.
const BURST_PER_SECOND: f64 = 0.1;
/// So slow a limit is none that a person means; it bounds the arithmetic.
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// This instance's share of the work: of all partitions of `events.*`, those it owns. There is no
/// coordinator; retries and deferrals have no key and spread evenly.
pub(crate) struct Share {
    owned: AtomicUsize,
    all: usize,
}

impl Share {
    pub(crate) fn new(all: usize) -> Self {
        Self {
            owned: AtomicUsize::new(0),
            all: all.max(1),
        }
    }

    pub(crate) fn gained(&self) {
        self.owned.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn lost(&self) {
        let less = |owned: usize| owned.checked_sub(1);
        let _ = self
            .owned
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// From one partition's worth, for what still comes from retries, to 1.
    fn get(&self) -> f64 {
        let owned = self.owned.load(Ordering::Acquire).clamp(1, self.all);
        owned as f64 / self.all as f64
    }
}

/// The starts of one lane.
pub(crate) struct Rate {
    limit: Option<Limited>,
}

struct Limited {
    interval: Duration,
    now: Now,
    limiter: RateLimiter<NotKeyed, InMemoryState, Now, NoOpMiddleware<Duration>>,
}

impl Rate {
    pub(crate) fn unlimited() -> Self {
        Self { limit: None }
    }

    /// Follows the webhook's setting and the share. A changed limit starts with a full burst.
    pub(crate) fn set(&mut self, per_second: Option<NonZeroU32>, share: &Share) {
        let Some(per_second) = per_second else {
            self.limit = None;
            return;
        };
        let here = f64::from(per_second.get()) * share.get();
        let interval = Duration::from_secs_f64(1.0 / here).min(INTERVAL_MAX);
        if self.limit.as_ref().map(|limit| limit.interval) == Some(interval) {
            return;
        }
        let burst = (here * BURST_PER_SECOND).clamp(1.0, f64::from(u32::MAX)) as u32;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        self.limit = Quota::with_period(interval).map(|quota| {
            let now = Now::default();
            Limited {
                interval,
                limiter: RateLimiter::direct_with_clock(quota.allow_burst(burst), now.clone()),
                now,
            }
        });
    }
}

impl Pace for Rate {
    fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let Some(limit) = &self.limit else {
            return Ok(());
        };
        let now = limit.now.set(now);
        limit.limiter.check().map_err(|until| {
            let wait = until.wait_time_from(now);
            wait.max(Duration::from_micros(1))
        })
    }

    fn interval(&self) -> Duration {
        self.limit
            .as_ref()
            .map_or(Duration::ZERO, |limit| limit.interval)
    }
}

/// The time that was passed in last. It never goes back.
#[derive(Clone, Debug, Default)]
struct Now(Arc<AtomicU64>);

impl Now {
    fn set(&self, now: Timestamp) -> Duration {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let before = self.0.fetch_max(micros, Ordering::AcqRel);
        Duration::from_micros(micros.max(before))
    }
}

impl Clock for Now {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day in 2026: the limiter counts nanoseconds in 64 bits.
    const START: i64 = 1_795_000_000_000;

    fn starts(rate: &mut Rate, millis: std::ops::Range<i64>) -> usize {
        millis
            .filter(|n| rate.take(Timestamp::from_millis(START + n)).is_ok())
            .count()
    }

    #[test]
    fn the_limit_is_kept_and_divided() {
        let share = Share::new(36);
        (0..36).for_each(|_| share.gained());
        let mut rate = Rate::unlimited();
        assert_eq!(starts(&mut rate, 0..50), 50);
        rate.set(NonZeroU32::new(50), &share);
        assert_eq!(rate.interval(), Duration::from_millis(20));
        let full = starts(&mut rate, 0..10_000);
        assert!((500..=505).contains(&full), "{full}");
        // Half of the partitions went to another instance.
        (0..18).for_each(|_| share.lost());
        rate.set(NonZeroU32::new(50), &share);
        let half = starts(&mut rate, 10_000..20_000);
        assert!((250..=253).contains(&half), "{half}");
        // Without any, it still sends what comes back to it from the rungs.
        (0..40).for_each(|_| share.lost());
        rate.set(NonZeroU32::new(50), &share);
        assert!(starts(&mut rate, 20_000..30_000) >= 10);
        rate.set(None, &share);
        assert_eq!(starts(&mut rate, 30_000..30_100), 100);
    }

    #[test]
    fn the_wait_that_it_names_is_enough() {
        let share = Share::new(1);
        let mut rate = Rate::unlimited();
        rate.set(NonZeroU32::new(3), &share);
        let now = Timestamp::from_millis(START);
        rate.take(now).unwrap();
        let wait = rate.take(now).unwrap_err();
        assert!(wait > Duration::from_millis(300), "{wait:?}");
        rate.take(now + wait + Duration::from_micros(1)).unwrap();
    }
}
