//! When a delivery is tried again, and when it ends (contract R12, R13).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::Reason;
use crate::time::{DurationText, Timestamp, duration_label};
use crate::verdict::Verdict;

/// The waits before the retries, and how long after its event a delivery may still be attempted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The waits before the retries, each counted from the end of the attempt before it. Each needs
    /// its own length, at most 16 are possible. A changed wait is a new topic; what waits on the
    /// old one is still attempted when it is due, and the old topic can be deleted once it is
    /// empty.
    #[serde(with = "tiers_text")]
    #[schemars(with = "Vec<DurationText>", length(max = Self::TIERS_MAX), extend("uniqueItems" = true))]
    tiers: Vec<Duration>,
    /// No attempt starts later than this after the event was triggered or its replay asked for.
    #[serde(with = "DurationText")]
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
    #[error("a retry tier of {}; use whole milliseconds, at least 1ms", duration_label(*.0))]
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

/// What a receiver asks for, within the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked<'a> {
    /// The waits of its own schedule, each one of the deployment's tiers.
    pub waits: Option<&'a [Duration]>,
    /// Its `Retry-After` with 429 or 503.
    pub retry_after: Option<Duration>,
}

/// A webhook's own schedule that this deployment cannot serve.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidWaits {
    /// A wait that is no tier.
    #[error("{wait} is no retry tier here: use {allowed}", wait = duration_label(*.wait))]
    NoTier {
        /// The wait.
        wait: Duration,
        /// The tiers there are.
        allowed: String,
    },
    /// More retries than the attempt number can count.
    #[error("{0} retries; at most {max} are possible", max = Schedule::TIERS_MAX)]
    TooMany(usize),
}

/// Checks a webhook's own schedule: its waits are topics, so each must be one of these tiers. A wait may
/// be used more than once, and none at all means that nothing is retried.
pub fn check_waits(waits: &[Duration], tiers: &[Duration]) -> Result<(), InvalidWaits> {
    if waits.len() > Schedule::TIERS_MAX {
        return Err(InvalidWaits::TooMany(waits.len()));
    }
    match waits.iter().find(|wait| !tiers.contains(wait)) {
        None => Ok(()),
        Some(&wait) => {
            let labels: Vec<_> = tiers.iter().map(|tier| duration_label(*tier)).collect();
            let allowed = labels.join(", ");
            Err(InvalidWaits::NoTier { wait, allowed })
        }
    }
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

    /// What becomes of a delivery whose attempt number `attempt` ended `now` with `verdict`, if the
    /// receiver asks for nothing.
    ///
    /// The wait counts from the end of the attempt, because the tier's topic counts from when the
    /// delivery is appended to it.
    pub fn next(&self, verdict: Verdict, attempt: u8, began: Timestamp, now: Timestamp) -> Next {
        self.next_asked(verdict, attempt, began, now, Asked::default())
    }

    /// The same for a receiver that asks for something. `Retry-After` only lengthens the wait, to the
    /// shortest tier that is long enough, and never past R13: then it is the longest that is not.
    pub fn next_asked(
        &self,
        verdict: Verdict,
        attempt: u8,
        began: Timestamp,
        now: Timestamp,
        asked: Asked<'_>,
    ) -> Next {
        match verdict {
            Verdict::Delivered => return Next::Delivered,
            Verdict::Rejected => return Next::Park(Reason::Rejected),
            Verdict::Failed => {}
        }
        let waits = asked.waits.unwrap_or(&self.tiers);
        let Some(&wait) = waits.get(usize::from(attempt)) else {
            return Next::Park(Reason::Exhausted);
        };
        // A wait whose tier was taken out of the deployment since becomes the next longer one.
        let Some((tier, wait)) = self.shortest_from(wait).or_else(|| self.longest()) else {
            return Next::Park(Reason::Exhausted);
        };
        if self.expired(began, now + wait) {
            return Next::Park(Reason::Expired);
        }
        let ask = asked.retry_after.unwrap_or_default().max(wait);
        // The tier itself is, so the longest that is within is no shorter.
        let within = |tier: &(usize, Duration)| !self.expired(began, now + tier.1);
        let enough = self.shortest_from(ask).filter(within);
        let longest = || self.each().filter(within).max_by_key(|(_, tier)| *tier);
        let tier = enough.or_else(longest).map_or(tier, |(tier, _)| tier);
        Next::Retry { tier }
    }

    fn each(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.tiers.iter().copied().enumerate()
    }

    /// The shortest tier that lasts at least so long.
    fn shortest_from(&self, wait: Duration) -> Option<(usize, Duration)> {
        self.each()
            .filter(|(_, tier)| *tier >= wait)
            .min_by_key(|(_, tier)| *tier)
    }

    fn longest(&self) -> Option<(usize, Duration)> {
        self.each().max_by_key(|(_, tier)| *tier)
    }
}

/// Serde form of waits: a list of [`duration_label`] texts.
pub mod waits_text {
    use serde::{Deserializer, Serializer};

    use super::*;

    /// Writes `["32s", "4m"]`, or null.
    pub fn serialize<S: Serializer>(
        waits: &Option<Vec<Duration>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match waits {
            Some(waits) => tiers_text::serialize(waits, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads `["32s", "4m"]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Duration>>, D::Error> {
        #[derive(Deserialize)]
        struct Waits(#[serde(with = "tiers_text")] Vec<Duration>);
        Ok(Option::<Waits>::deserialize(deserializer)?.map(|waits| waits.0))
    }
}

mod tiers_text {
    use serde::{Deserializer, Serializer};

    use super::*;
    use crate::time::parse_duration;

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

    #[test]
    fn the_most_and_the_finest_tiers_are_allowed() {
        let second = Duration::from_secs(1);
        let many: Vec<_> = (1..=16).map(|n| second * n).collect();
        assert_eq!(check_waits(&many, &many), Ok(()));
        assert!(check_waits(&[second; 17], &many).is_err());
        Schedule::new(many, 100 * second).unwrap();
        let day = Duration::from_secs(86400);
        Schedule::new(vec![Duration::from_millis(1500)], day).unwrap();
        Schedule::new(vec![second + Duration::from_nanos(1)], day).unwrap_err();
    }

    /// A wait whose tier is gone becomes the next longer one, or else the longest there is.
    #[test]
    fn a_tier_that_was_taken_out_is_replaced() {
        let seconds = Duration::from_secs;
        let schedule = Schedule::new(
            vec![seconds(32), seconds(240), seconds(1020)],
            seconds(86400),
        );
        let schedule = schedule.unwrap();
        let began = Timestamp::from_millis(0);
        for (wait, tier) in [(32, 0), (33, 1), (1000, 2), (7200, 2)] {
            let waits = [seconds(wait)];
            let asked = Asked {
                waits: Some(&waits),
                retry_after: None,
            };
            let next = schedule.next_asked(Verdict::Failed, 0, began, began, asked);
            assert_eq!(next, Next::Retry { tier });
        }
    }

    #[test]
    fn a_webhooks_own_schedule_is_drawn_from_the_tiers() {
        let schedule = Schedule::default();
        let seconds = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect();
        let waits: Vec<_> = seconds(&[240, 240, 7200]);
        check_waits(&waits, schedule.tiers()).unwrap();
        let next = |attempt| {
            let waits = Some(waits.as_slice());
            let asked = Asked {
                waits,
                retry_after: None,
            };
            schedule.next_asked(Verdict::Failed, attempt, at(0), at(0), asked)
        };
        let tiers = [0, 1, 2, 3].map(next);
        let retry = |tier| Next::Retry { tier };
        let end = Next::Park(Reason::Exhausted);
        assert_eq!(tiers, [retry(1), retry(1), retry(4), end]);
        let wrong: Vec<_> = seconds(&[32, 60]);
        let error = check_waits(&wrong, schedule.tiers()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1m is no retry tier here: use 32s, 4m, 17m, 52m, 2h"
        );
        assert!(check_waits(&[schedule.tiers()[0]; 17], schedule.tiers()).is_err());
    }

    #[test]
    fn retry_after_lengthens_to_the_tier_that_is_long_enough() {
        let schedule = Schedule::default();
        let next = |attempt, now, ask| {
            let asked = Asked {
                waits: None,
                retry_after: Some(Duration::from_secs(ask)),
            };
            schedule.next_asked(Verdict::Failed, attempt, at(0), at(now), asked)
        };
        let retry = |tier| Next::Retry { tier };
        assert_eq!(next(0, 0, 10), retry(0));
        assert_eq!(next(0, 0, 33), retry(1));
        assert_eq!(next(3, 0, 1), retry(3));
        assert_eq!(next(0, 0, 1_000_000), retry(4));
        // Two hours would be past R13, 52 minutes are not.
        assert_eq!(next(0, 86_400 - 4000, 5000), retry(3));
        assert_eq!(next(0, 86_400 - 31, 5000), Next::Park(Reason::Expired));
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

        /// R13 and the promise about `Retry-After`: it never shortens a wait, never parks what would
        /// have been retried, and never takes a delivery past its 24 hours.
        #[test]
        fn retry_after_only_lengthens(
            tiers in tiers(),
            attempt in 0u8..8,
            now in 0i64..90_000,
            ask in 0u64..200_000,
        ) {
            let schedule = Schedule::new(tiers, Duration::from_secs(86_400)).unwrap();
            let asked = Asked { waits: None, retry_after: Some(Duration::from_secs(ask)) };
            let without = schedule.next(Verdict::Failed, attempt, at(0), at(now));
            let with = schedule.next_asked(Verdict::Failed, attempt, at(0), at(now), asked);
            match (without, with) {
                (Next::Retry { tier: short }, Next::Retry { tier: long }) => {
                    let (short, long) = (schedule.tiers()[short], schedule.tiers()[long]);
                    prop_assert!(long >= short);
                    prop_assert!(!schedule.expired(at(0), at(now) + long));
                }
                (without, with) => prop_assert_eq!(without, with),
            }
        }

        #[test]
        fn reads_back(tiers in tiers()) {
            let schedule = Schedule::new(tiers, Duration::from_secs(86_400)).unwrap();
            let text = serde_json::to_string(&schedule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        }
    }
}
