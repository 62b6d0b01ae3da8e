//! Which successes are kept when there are more than the projection should keep up with.

use std::collections::BTreeMap;

/// Of the successes beyond the full rate, one in so many is kept.
pub(crate) const ONE_IN: i64 = 20;
/// Seconds that are remembered; catching up goes through them partition by partition.
const SECONDS_MAX: usize = 16_384;

/// Counts attempts by the second in which the log appended them.
pub(crate) struct Sampling {
    full_rate: u32,
    seconds: BTreeMap<i64, u32>,
}

impl Sampling {
    pub(crate) fn new(full_rate: u32) -> Self {
        Self {
            full_rate,
            seconds: BTreeMap::new(),
        }
    }

    /// How many attempts this one stands for; `None`: it is counted only. Failures are always kept.
    pub(crate) fn keep(&mut self, second: i64, failed: bool) -> Option<i64> {
        let count = self.seconds.entry(second).or_default();
        *count = count.saturating_add(1);
        let beyond = i64::from(*count) - i64::from(self.full_rate);
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_first();
        }
        match beyond {
            _ if failed => Some(1),
            ..=0 => Some(1),
            beyond if beyond % ONE_IN == 1 => Some(ONE_IN),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_full_rate_successes_are_sampled_and_failures_kept() {
        let mut sampling = Sampling::new(100);
        for second in 0..3 {
            let kept: Vec<_> = (0..1100)
                .filter_map(|number| sampling.keep(second, number % 11 == 0))
                .collect();
            let whole = kept.iter().filter(|stands_for| **stands_for == 1).count();
            let sampled = kept.len() - whole;
            // 100 at first, then of the 1,000 others every failure.
            assert!((185..=200).contains(&whole), "{whole}");
            assert!((40..=50).contains(&sampled), "{sampled}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sampling = Sampling::new(1);
        for second in 0..50_000 {
            assert_eq!(sampling.keep(second, false), Some(1));
        }
        assert!(sampling.seconds.len() <= SECONDS_MAX);
    }
}
