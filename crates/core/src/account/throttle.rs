//! How often something may happen, decided by the time it is given: the generic cell rate algorithm,
//! which is one number per limit. Unlike `governor`, what was taken can be given back, so that those
//! who sign in with success do not use up what is left to guessing.

use std::time::Duration;

/// A number of cells at once, and one more each `every`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Cells that a rested limit has.
    pub burst: u32,
    /// How long it takes for one to come back.
    pub every: Duration,
}

/// What is left of an allowance. Times are those of a steady clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Throttle {
    /// When it will be rested: the theoretical arrival time.
    rested: Duration,
}

impl Throttle {
    /// Takes this many cells, or says how long to wait for them. More than the burst never come; then
    /// the wait is that for a rested limit.
    pub fn take(
        &mut self,
        cells: u32,
        now: Duration,
        allowance: Allowance,
    ) -> Result<(), Duration> {
        let cost = allowance.every.saturating_mul(cells);
        let depth = allowance.every.saturating_mul(allowance.burst);
        let rested = self.rested.max(now).saturating_add(cost);
        let wait = rested.saturating_sub(now.saturating_add(depth));
        if wait > Duration::ZERO {
            return Err(wait.min(self.rested.saturating_sub(now).max(allowance.every)));
        }
        self.rested = rested;
        Ok(())
    }

    /// Whether all of the allowance is there, as if nothing had ever been taken.
    pub fn is_rested(&self, now: Duration) -> bool {
        self.rested <= now
    }

    /// Gives back what was taken for nothing.
    pub fn give_back(&mut self, cells: u32, allowance: Allowance) {
        let cost = allowance.every.saturating_mul(cells);
        self.rested = self.rested.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        burst: 3,
        every: Duration::from_secs(10),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_then_one_at_a_time() {
        let mut throttle = Throttle::default();
        let mut take = |now| throttle.take(1, seconds(now), ALLOWANCE);
        assert_eq!([take(100), take(100), take(100)], [Ok(()); 3]);
        assert_eq!(take(100), Err(seconds(10)));
        assert_eq!(take(104), Err(seconds(6)));
        assert_eq!(take(110), Ok(()));
        assert_eq!(take(110), Err(seconds(10)));
        // Rested: three again, and no more than that.
        assert_eq!([take(500), take(500), take(500)], [Ok(()); 3]);
        assert_eq!(take(500), Err(seconds(10)));
    }

    #[test]
    fn several_cells_at_once() {
        let mut throttle = Throttle::default();
        let mut take = |cells, now| throttle.take(cells, seconds(now), ALLOWANCE);
        assert_eq!(take(2, 0), Ok(()));
        assert_eq!(take(2, 0), Err(seconds(10)));
        assert_eq!(take(1, 0), Ok(()));
        assert_eq!(take(3, 10), Err(seconds(20)));
        assert_eq!(take(3, 30), Ok(()));
        // It will never be had; wait for a rested limit, and ask for less.
        assert_eq!(take(4, 30), Err(seconds(30)));
        assert_eq!(take(4, 100), Err(seconds(10)));
        assert_eq!(take(u32::MAX, 100), Err(seconds(10)));
    }

    #[test]
    fn rested_is_who_has_all_of_it() {
        let mut throttle = Throttle::default();
        assert!(throttle.is_rested(seconds(0)));
        throttle.take(2, seconds(5), ALLOWANCE).unwrap();
        assert!(!throttle.is_rested(seconds(24)));
        assert!(throttle.is_rested(seconds(25)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut throttle = Throttle::default();
        for _ in 0..3 {
            throttle.take(1, seconds(5), ALLOWANCE).unwrap();
        }
        throttle.give_back(1, ALLOWANCE);
        throttle.take(1, seconds(5), ALLOWANCE).unwrap();
        assert_eq!(throttle.take(1, seconds(5), ALLOWANCE), Err(seconds(10)));
        // Never more than a rested limit has.
        throttle.give_back(100, ALLOWANCE);
        throttle.take(3, seconds(5), ALLOWANCE).unwrap();
        assert!(throttle.take(1, seconds(5), ALLOWANCE).is_err());
    }
}
