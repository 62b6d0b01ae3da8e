//! When a delivery is tried again, and when it ends (contract R12, R13).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Reason;
use crate::time::{Timestamp, duration_text};
use crate::verdict::Verdict;

/// The waits before the retries, and how long after its event a delivery may still be attempted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    #[serde(with = "tiers_text")]
    tiers: Vec<Duration>,
    #[serde(with = "duration_text")]
    expires_after: Duration,
}

impl Default for Schedule {
    /// The waits of contract R12 and the 24 h of R13.
    fn default() -> Self {
        let tiers = [32, 4 * 60, 17 * 60, 52 * 60, 2 * 3600]
            .map(Duration::from_secs)
            .into();
        Self {
            tiers,
            expires_after: Duration::from_secs(86_400),
        }
    }
}

/// A schedule that no table of topics can be made of.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidSchedule {
    /// Two tiers of the same length would share a topic.
    #[error("two retry tiers last {0:?}; each needs its own length")]
    Repeated(Duration),
    /// More attempts than the attempt number can count.
    #[error("{0} retry tiers; at most {max} are possible", max = Schedule::TIERS_MAX)]
    TooMany(usize),
    /// A wait of nothing, or of a fraction of a millisecond.
    #[error("a retry tier of {0:?}; use whole milliseconds, at least 1ms")]
    TooShort(Duration),
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It arrived.
    Delivered,
    /// It waits on this tier for its next attempt.
    Retry {
        /// Index into [`Schedule::tiers`].
        tier: usize,
    },
    /// It ended without success.
    Park(Reason),
}

impl Schedule {
    /// More tiers than this make no schedule.
    pub const TIERS_MAX: usize = 16;

    /// A schedule of these waits and this limit.
    pub fn new(tiers: Vec<Duration>, expires_after: Duration) -> Result<Self, InvalidSchedule> {
        let schedule = Self {
            tiers,
            expires_after,
        };
        schedule.check()?;
        Ok(schedule)
    }

    /// Whether a schedule that was read from configuration makes sense.
    pub fn check(&self) -> Result<(), InvalidSchedule> {
        if self.tiers.len() > Self::TIERS_MAX {
            return Err(InvalidSchedule::TooMany(self.tiers.len()));
        }
        for (index, tier) in self.tiers.iter().enumerate() {
            if tier.as_millis() == 0 || tier.subsec_nanos() % 1_000_000 != 0 {
                return Err(InvalidSchedule::TooShort(*tier));
            }
            if self.tiers[..index].contains(tier) {
                return Err(InvalidSchedule::Repeated(*tier));
            }
        }
        Ok(())
    }

    /// The waits, first retry first.
    pub fn tiers(&self) -> &[Duration] {
        &self.tiers
    }

    /// How long after its start a run may still be attempted (contract R13).
    pub fn expires_after(&self) -> Duration {
        self.expires_after
    }

    /// Whether an attempt may no longer start `now`, for a run whose 24 hours began at `began`.
    pub fn expired(&self, began: Timestamp, now: Timestamp) -> bool {
        now > began + self.expires_after
    }

    /// What becomes of a delivery whose attempt number `attempt` ended `now` with `verdict`.
    ///
    /// The wait counts from the end of the attempt, because the tier's topic counts from when the
    /// delivery is appended to it.
    pub fn next(&self, verdict: Verdict, attempt: u8, began: Timestamp, now: Timestamp) -> Next {
        match verdict {
            Verdict::Delivered => Next::Delivered,
            Verdict::Rejected => Next::Park(Reason::Rejected),
            Verdict::Failed => {
                let tier = usize::from(attempt);
                match self.tiers.get(tier) {
                    None => Next::Park(Reason::Exhausted),
                    Some(wait) if self.expired(began, now + *wait) => Next::Park(Reason::Expired),
                    Some(_) => Next::Retry { tier },
                }
            }
        }
    }
}

mod tiers_text {
    use serde::{Deserializer, Serializer};

    use super::*;
    use crate::time::{duration_label, parse_duration};

    pub(super) fn serialize<S: Serializer>(
        tiers: &[Duration],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(tiers.iter().map(|tier| duration_label(*tier)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| parse_duration(text).map_err(serde::de::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Contract R12, with the times of the seed: five retries, about 3 h 13 m in all.
    #[test]
    fn the_ladder_of_the_contract() {
        let schedule = Schedule::default();
        let mut now = at(0);
        let mut starts = Vec::new();
        for attempt in 0.. {
            starts.push(now.as_secs());
            match schedule.next(Verdict::Failed, attempt, at(0), now) {
                Next::Retry { tier } => now = now + schedule.tiers()[tier],
                end => {
                    assert_eq!(end, Next::Park(Reason::Exhausted));
                    break;
                }
            }
        }
        assert_eq!(starts, [0, 32, 272, 1292, 4412, 11_612]);
    }

    #[test]
    fn parked_at_once_when_the_next_attempt_would_be_too_late() {
        let schedule = Schedule::default();
        let day = 86_400;
        let next = |now| schedule.next(Verdict::Failed, 0, at(0), at(now));
        assert_eq!(next(day - 32), Next::Retry { tier: 0 });
        assert_eq!(next(day - 31), Next::Park(Reason::Expired));
    }

    #[test]
    fn schedules_that_no_topics_can_serve_are_refused() {
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        assert!(Schedule::new(vec![second, second], day).is_err());
        assert!(Schedule::new(vec![Duration::from_micros(1500)], day).is_err());
        assert!(Schedule::new(vec![Duration::ZERO], day).is_err());
        assert!(Schedule::new((1..18).map(Duration::from_secs).collect(), day).is_err());
        assert!(Schedule::new(vec![], day).is_ok());
    }

    fn tiers() -> impl Strategy<Value = Vec<Duration>> {
        proptest::collection::hash_set(1u64..200_000, 0..8)
            .prop_map(|set| set.into_iter().map(Duration::from_secs).collect())
    }

    proptest! {
        /// DL4: whatever the schedule and however long attempts take, no attempt starts early, none
        /// starts after R13, and the ladder ends.
        #[test]
        fn no_attempt_early_none_late_and_an_end(
            tiers in tiers(),
            age in 0i64..100_000,
            takes in proptest::collection::vec(0u64..40, 10),
        ) {
            let schedule = Schedule::new(tiers, Duration::from_secs(86_400)).unwrap();
            let began = at(0);
            let mut now = at(age);
            for attempt in 0u8..10 {
                if schedule.expired(began, now) {
                    prop_assert!(attempt == 0, "attempt {} would start after R13", attempt);
                    return Ok(());
                }
                now = now + Duration::from_secs(takes[usize::from(attempt)]);
                match schedule.next(Verdict::Failed, attempt, began, now) {
                    Next::Retry { tier } => {
                        prop_assert_eq!(tier, usize::from(attempt));
                        now = now + schedule.tiers()[tier];
                    }
                    Next::Park(_) => return Ok(()),
                    Next::Delivered => prop_assert!(false, "a failure delivered"),
                }
            }
            prop_assert!(false, "the ladder does not end");
        }

        /// R9, R10: success and 404 end a run whatever the schedule says.
        #[test]
        fn ends_do_not_depend_on_the_schedule(tiers in tiers(), attempt in 0u8..20, now in 0i64..200_000) {
            let schedule = Schedule::new(tiers, Duration::from_secs(86_400)).unwrap();
            let next = |verdict| schedule.next(verdict, attempt, at(0), at(now));
            prop_assert_eq!(next(Verdict::Delivered), Next::Delivered);
            prop_assert_eq!(next(Verdict::Rejected), Next::Park(Reason::Rejected));
        }

        #[test]
        fn reads_back(tiers in tiers()) {
            let schedule = Schedule::new(tiers, Duration::from_secs(86_400)).unwrap();
            let text = serde_json::to_string(&schedule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        }
    }
}
