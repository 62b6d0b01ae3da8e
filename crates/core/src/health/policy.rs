//! When a webhook is disabled: pure, with all numbers configurable.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The policy of disablement (contract R14). Two rules, either of which disables; a webhook is
/// *failing* as soon as half of the evidence of a rule is there: half the attempts, half the times.
///
/// 1. Many: of at least `attempts` attempts within `window`, `failed_percent` or more failed, and it
///    has been failing without a success for `silence`.
/// 2. Few: all of at least `slow_attempts` attempts within `slow_window` failed, and it has been
///    failing for all of that time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthPolicy {
    /// First rule: how far back it looks; at least a 30th of `metrics.policy.slow_window`.
    #[serde(with = "DurationText")]
    pub window: Duration,
    /// First rule: how many of the attempts must have failed, in percent.
    #[schemars(range(min = 51, max = 100))]
    pub failed_percent: u32,
    /// First rule: how many attempts it takes.
    #[schemars(range(min = 2))]
    pub attempts: u32,
    /// First rule: for how long there must have been failures and no success.
    #[serde(with = "DurationText")]
    pub silence: Duration,
    /// Second rule, for webhooks with few events: how far back it looks, and for how long they must
    /// have been failing.
    #[serde(with = "DurationText")]
    pub slow_window: Duration,
    /// Second rule: how many attempts it takes, all of them failed.
    #[schemars(range(min = 2))]
    pub slow_attempts: u32,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Into how many buckets the memory is divided.
const BUCKETS: u32 = 120;
/// Fewest buckets in `window`. What is counted is whole buckets, so that the first rule sees less than
/// its window, up to a bucket; and half of it must still be more than one.
const WINDOW_BUCKETS_MIN: u32 = 4;

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            window: 24 * HOUR,
            failed_percent: 95,
            attempts: 50,
            silence: 6 * HOUR,
            slow_window: 120 * HOUR,
            slow_attempts: 12,
        }
    }
}

/// Numbers that make no policy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct InvalidPolicy {
    /// Which number.
    pub key: &'static str,
    /// What is allowed.
    pub rule: &'static str,
}

impl HealthPolicy {
    /// Everything that is wrong with these numbers.
    pub fn problems(&self) -> Vec<InvalidPolicy> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, key, rule| {
            if !holds {
                problems.push(InvalidPolicy { key, rule });
            }
        };
        let day = 24 * HOUR;
        need(
            (51..=100).contains(&self.failed_percent),
            "failed_percent",
            "use 51 to 100: a webhook that works more often than not stays",
        );
        need(self.attempts >= 2, "attempts", "use at least 2");
        need(self.slow_attempts >= 2, "slow_attempts", "use at least 2");
        need(!self.window.is_zero(), "window", "use more than 0s");
        let in_buckets = BUCKETS / WINDOW_BUCKETS_MIN * self.window >= self.slow_window;
        need(
            in_buckets || self.window.is_zero(),
            "window",
            "use at least a 30th of slow_window: attempts are counted in steps of a 120th of that, \
             too coarse for less",
        );
        need(!self.silence.is_zero(), "silence", "use more than 0s");
        need(
            self.silence <= self.window,
            "silence",
            "use at most window, or the rule never holds",
        );
        need(
            self.window <= self.slow_window,
            "slow_window",
            "use at least window",
        );
        need(
            self.slow_window <= 30 * day,
            "slow_window",
            "use at most 30d: each webhook's counts are kept for so long",
        );
        problems
    }

    /// The same with half of everything that counts as evidence.
    pub(super) fn half(self) -> Self {
        Self {
            window: self.window / 2,
            attempts: self.attempts.div_ceil(2),
            silence: self.silence / 2,
            slow_window: self.slow_window / 2,
            slow_attempts: self.slow_attempts.div_ceil(2),
            ..self
        }
    }

    /// For how long counts matter.
    pub(super) fn memory(&self) -> Duration {
        self.window.max(self.slow_window)
    }

    /// How fine counts are kept: a 120th of the memory, an hour by default. Shortened policies, as
    /// in tests and in the demo, keep the same shape.
    pub(super) fn bucket(&self) -> Duration {
        (self.memory() / BUCKETS).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last value that each rule allows, and the first that it does not.
    #[test]
    fn each_number_has_its_rule() {
        let policy = HealthPolicy::default();
        let moment = Duration::from_millis(1);
        let day = 24 * HOUR;
        type Change = fn(&mut HealthPolicy, bool);
        let rules: [(&str, Change); 5] = [
            ("failed_percent", |p, bad| {
                p.failed_percent = if bad { 50 } else { 51 }
            }),
            ("failed_percent", |p, bad| {
                p.failed_percent = if bad { 101 } else { 100 }
            }),
            ("attempts", |p, bad| p.attempts = if bad { 1 } else { 2 }),
            ("slow_attempts", |p, bad| {
                p.slow_attempts = if bad { 1 } else { 2 }
            }),
            ("silence", |p, bad| {
                p.silence = Duration::from_millis(u64::from(!bad))
            }),
        ];
        for (key, change) in rules {
            for bad in [false, true] {
                let mut policy = policy;
                change(&mut policy, bad);
                let problems = policy.problems();
                let keys: Vec<_> = problems.iter().map(|problem| problem.key).collect();
                assert_eq!(keys, if bad { vec![key] } else { vec![] });
            }
        }
        let lasting = |window, silence, slow_window| {
            let policy = HealthPolicy {
                window,
                silence,
                slow_window,
                ..policy
            };
            let problems = policy.problems();
            problems
                .iter()
                .map(|problem| problem.key)
                .collect::<Vec<_>>()
        };
        assert!(lasting(day, day, day).is_empty());
        assert_eq!(lasting(day, day + moment, day), ["silence"]);
        assert_eq!(lasting(day + moment, day, day), ["slow_window"]);
        assert!(lasting(day, day, 30 * day).is_empty());
        assert_eq!(
            lasting(day, day, 30 * day + moment),
            ["window", "slow_window"]
        );
        assert_eq!(lasting(day - moment, moment, 30 * day), ["window"]);
        assert_eq!(lasting(Duration::ZERO, moment, day), ["window", "silence"]);
    }

    #[test]
    fn memory_and_buckets_follow_from_the_windows() {
        let policy = HealthPolicy::default();
        assert_eq!(policy.memory(), 120 * HOUR);
        assert_eq!(policy.bucket(), HOUR);
        let window = Duration::from_secs(12);
        let short = HealthPolicy {
            window,
            slow_window: Duration::from_secs(6),
            ..policy
        };
        assert_eq!(short.memory(), window);
        assert_eq!(short.bucket(), Duration::from_millis(100));
        let shortest = HealthPolicy {
            window: Duration::from_millis(2),
            slow_window: Duration::from_millis(2),
            ..policy
        };
        assert_eq!(shortest.bucket(), Duration::from_millis(1));
    }

    #[test]
    fn half_of_the_evidence_is_half_of_each_number() {
        let half = HealthPolicy::default().half();
        let expected = HealthPolicy {
            window: 12 * HOUR,
            failed_percent: 95,
            attempts: 25,
            silence: 3 * HOUR,
            slow_window: 60 * HOUR,
            slow_attempts: 6,
        };
        assert_eq!(half, expected);
        let odd = HealthPolicy {
            attempts: 5,
            slow_attempts: 3,
            ..half
        };
        assert_eq!((odd.half().attempts, odd.half().slow_attempts), (3, 2));
    }
}
