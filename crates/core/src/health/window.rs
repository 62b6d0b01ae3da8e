//! What is remembered of a webhook's attempts, and the decision it leads to.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::policy::HealthPolicy;
use super::{Figures, State};
use crate::time::{Timestamp, duration_label};

/// The attempts of a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins.
    #[serde(rename = "t")]
    pub begins: Timestamp,
    /// Attempts that succeeded.
    #[serde(rename = "s")]
    pub succeeded: u32,
    /// Attempts that failed.
    #[serde(rename = "f")]
    pub failed: u32,
}

/// A webhook's recent attempts in one generation. Its size is bounded by the policy: some 120
/// buckets, of which only those with attempts are there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// Which of the webhook's lives it is about.
    pub generation: u64,
    /// What was last announced.
    pub state: State,
    /// When: the time of the attempt that led to it.
    #[serde(default)]
    pub announced: Timestamp,
    /// Time of the first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// Time of the last attempt.
    pub last_attempt: Timestamp,
    /// Time of the last success, where there was one; for people, nothing is decided by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_success: Option<Timestamp>,
    buckets: VecDeque<Bucket>,
}

/// What should be thought of a webhook now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The verdict.
    pub state: State,
    /// Why, for people.
    pub reason: String,
}

impl Window {
    /// An empty window of this generation.
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    /// Counts an attempt. What the policy no longer looks at is forgotten.
    pub fn count(&mut self, succeeded: bool, at: Timestamp, policy: &HealthPolicy) {
        self.last_attempt = self.last_attempt.max(at);
        if succeeded {
            self.failing_since = None;
            self.last_success = Some(at);
        } else if self.failing_since.is_none() {
            self.failing_since = Some(at);
        }
        let length = i64::try_from(policy.bucket().as_micros()).unwrap_or(i64::MAX);
        let begins = Timestamp::from_micros(at.as_micros().div_euclid(length) * length);
        // Times come from the log, whose clock may be set back a little: the newest bucket takes it.
        if self.buckets.back().is_none_or(|last| last.begins < begins) {
            self.buckets.push_back(Bucket {
                begins,
                succeeded: 0,
                failed: 0,
            });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            let counter = match succeeded {
                true => &mut bucket.succeeded,
                false => &mut bucket.failed,
            };
            *counter = counter.saturating_add(1);
        }
        let horizon = self.last_attempt - (policy.memory() + policy.bucket());
        while self.buckets.front().is_some_and(|b| b.begins < horizon) {
            self.buckets.pop_front();
        }
    }

    /// Whether everything in it is too old to matter, so that it can be forgotten.
    pub fn is_stale(&self, policy: &HealthPolicy, now: Timestamp) -> bool {
        self.state != State::Disabled && now.since(self.last_attempt) > policy.memory() * 2
    }

    /// The verdict `now`. Failing ends by a success only, or it would come and go as old attempts are
    /// forgotten; disabled by a new generation only.
    pub fn decide(&self, policy: &HealthPolicy, now: Timestamp) -> Decision {
        if self.state == State::Disabled {
            return Decision {
                state: State::Disabled,
                reason: String::new(),
            };
        }
        let verdict = |state, reason| Decision { state, reason };
        if let Some(reason) = self.fails(policy, now) {
            return verdict(State::Disabled, reason);
        }
        match self.fails(&policy.half(), now) {
            Some(reason) => verdict(State::Failing, reason),
            None if self.state == State::Failing && self.failing_since.is_some() => {
                verdict(State::Failing, "it has not answered since".to_owned())
            }
            None => verdict(State::Healthy, "it answers again".to_owned()),
        }
    }

    fn fails(&self, policy: &HealthPolicy, now: Timestamp) -> Option<String> {
        let failing = now.since(self.failing_since?);
        let (succeeded, failed) = self.sums(now - policy.window);
        let attempts = succeeded + failed;
        let percent = u64::from(policy.failed_percent);
        if failing >= policy.silence
            && attempts >= u64::from(policy.attempts)
            && failed * 100 >= percent * attempts
        {
            return Some(format!(
                "{failed} of {attempts} attempts within {} failed, and none succeeded for {}",
                duration_label(policy.window),
                duration_label(policy.silence),
            ));
        }
        let (succeeded, failed) = self.sums(now - policy.slow_window);
        if failing >= policy.slow_window
            && succeeded == 0
            && failed >= u64::from(policy.slow_attempts)
        {
            return Some(format!(
                "all of {failed} attempts within {} failed",
                duration_label(policy.slow_window),
            ));
        }
        None
    }

    /// What the policy's first rule looks at `now`, for people.
    pub fn figures(&self, policy: &HealthPolicy, now: Timestamp) -> Figures {
        let (succeeded, failed) = self.sums(now - policy.window);
        Figures {
            attempts: succeeded + failed,
            failed,
            first_failure: self.failing_since,
            last_success: self.last_success,
            last_attempt: Some(self.last_attempt).filter(|last| *last > Timestamp::EPOCH),
        }
    }

    /// Attempts that succeeded and that failed in buckets that begin at `from` or later.
    fn sums(&self, from: Timestamp) -> (u64, u64) {
        self.buckets
            .iter()
            .filter(|bucket| bucket.begins >= from)
            .fold((0, 0), |(succeeded, failed), bucket| {
                (
                    succeeded + u64::from(bucket.succeeded),
                    failed + u64::from(bucket.failed),
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn hours(hours: f64) -> Timestamp {
        Timestamp::from_millis((hours * 3_600_000.0) as i64)
    }

    /// Counts and decides as the metrics component does: after every attempt.
    fn run(attempts: impl IntoIterator<Item = (f64, bool)>) -> Vec<(f64, State)> {
        let policy = HealthPolicy::default();
        let mut window = Window::new(0);
        let mut changes = Vec::new();
        for (at, succeeded) in attempts {
            window.count(succeeded, hours(at), &policy);
            let state = window.decide(&policy, hours(at)).state;
            if state != window.state {
                window.state = state;
                changes.push((at, state));
            }
        }
        changes
    }

    #[test]
    fn figures_are_those_of_the_first_rule() {
        let policy = HealthPolicy::default();
        let mut window = Window::new(0);
        assert_eq!(window.figures(&policy, hours(1.0)), Figures::default());
        for (at, succeeded) in [(1.0, true), (20.0, true), (24.0, false), (26.0, false)] {
            window.count(succeeded, hours(at), &policy);
        }
        // The first has left the window.
        let figures = Figures {
            attempts: 3,
            failed: 2,
            first_failure: Some(hours(24.0)),
            last_success: Some(hours(20.0)),
            last_attempt: Some(hours(26.0)),
        };
        assert_eq!(window.figures(&policy, hours(26.0)), figures);
        window.count(true, hours(27.0), &policy);
        let figures = window.figures(&policy, hours(27.0));
        assert_eq!(
            (figures.first_failure, figures.last_success),
            (None, Some(hours(27.0)))
        );
    }

    #[test]
    fn failing_at_half_of_the_evidence_and_disabled_at_all_of_it() {
        // 10 an hour: 25 attempts and 3 h, then 50 attempts and 6 h.
        let changes = run((0..1000).map(|n| (f64::from(n) * 0.1, false)));
        assert_eq!(changes, [(3.0, State::Failing), (6.0, State::Disabled)]);
        // 2.5 an hour: attempts are what is missing.
        let changes = run((0..1000).map(|n| (f64::from(n) * 0.4, false)));
        let hours: Vec<_> = changes.iter().map(|(at, _)| at.round()).collect();
        assert_eq!(hours, [10.0, 20.0]);
        // One in 8 hours: the second rule.
        let changes = run((0..1000).map(|n| (f64::from(n) * 8.0, false)));
        assert_eq!(changes, [(64.0, State::Failing), (120.0, State::Disabled)]);
    }

    #[test]
    fn a_success_ends_failing_but_not_disablement() {
        let failures = (0..40).map(|n| (f64::from(n) * 0.1, false));
        let changes = run(failures.chain([(4.0, true), (4.1, false)]));
        assert_eq!(changes, [(3.0, State::Failing), (4.0, State::Healthy)]);
        let failures = (0..80).map(|n| (f64::from(n) * 0.1, false));
        let changes = run(failures.chain([(8.0, true), (8.1, true)]));
        assert_eq!(changes.last(), Some(&(6.0, State::Disabled)));
    }

    #[test]
    fn what_is_old_is_forgotten_and_size_is_bounded() {
        let policy = HealthPolicy::default();
        let mut window = Window::new(0);
        for n in 0..100_000 {
            window.count(n % 2 == 0, hours(f64::from(n) * 0.01), &policy);
            assert!(window.buckets.len() <= 123, "{}", window.buckets.len());
        }
        let (succeeded, failed) = window.sums(Timestamp::EPOCH);
        assert!((11_900..12_500).contains(&(succeeded + failed)));
        assert!(!window.is_stale(&policy, hours(1001.0)));
        assert!(window.is_stale(&policy, hours(1300.0)));
    }

    proptest! {
        /// A receiver of whose attempts at least 90 % succeed is never disabled, however they are
        /// spread.
        #[test]
        fn nobody_healthy_is_disabled(
            gaps in proptest::collection::vec(prop_oneof![0f64..0.01, 0f64..2.0, 0f64..60.0], 200..1200),
            bad in 0usize..10,
        ) {
            let mut at = 0.0;
            let attempts = gaps.into_iter().enumerate().map(|(n, gap)| {
                at += gap;
                (at, n % 10 != bad)
            });
            prop_assert!(run(attempts).iter().all(|(_, state)| *state != State::Disabled));
        }

        /// A dead one is, as soon as the evidence is there, and no sooner than the silence.
        #[test]
        fn everybody_dead_is_disabled(gap in 0.01f64..10.0) {
            let changes = run((0..2000).map(|n| (f64::from(n) * gap, false)));
            let (at, state) = *changes.last().unwrap();
            prop_assert_eq!(state, State::Disabled);
            prop_assert!((6.0..=120.0 + gap).contains(&at), "{}", at);
        }

        /// A snapshot is the window: going on from it leads to the same verdicts.
        #[test]
        fn snapshots_lose_nothing(attempts in proptest::collection::vec((0f64..200.0, any::<bool>()), 1..100), cut in 0usize..100) {
            let policy = HealthPolicy::default();
            let mut attempts = attempts;
            attempts.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut whole = Window::new(3);
            let mut parts = Window::new(3);
            for (n, (at, succeeded)) in attempts.into_iter().enumerate() {
                whole.count(succeeded, hours(at), &policy);
                parts.count(succeeded, hours(at), &policy);
                if n == cut {
                    parts = serde_json::from_str(&serde_json::to_string(&parts).unwrap()).unwrap();
                }
                prop_assert_eq!(whole.decide(&policy, hours(at)), parts.decide(&policy, hours(at)));
            }
            prop_assert_eq!(whole, parts);
        }
    }

    /// Whenever it begins to fail: counts are kept by the hour, which four hours are enough for.
    #[test]
    fn the_shortest_window_that_a_policy_takes_disables() {
        let policy = HealthPolicy {
            window: Duration::from_secs(4 * 3600),
            silence: Duration::from_secs(3600),
            slow_window: Duration::from_secs(120 * 3600),
            ..HealthPolicy::default()
        };
        assert!(policy.problems().is_empty());
        for begins in 0..60 {
            let mut window = Window::new(0);
            // 50 attempts in three hours: those that a window of four surely has.
            let disabled = (0..100)
                .map(|n| hours(f64::from(begins) / 60.0 + f64::from(n) * 0.06))
                .find(|at| {
                    window.count(false, *at, &policy);
                    window.decide(&policy, *at).state == State::Disabled
                });
            let after = disabled.map(|at| at.since(hours(f64::from(begins) / 60.0)));
            assert!(
                after.is_some_and(|after| after <= policy.window),
                "{begins}: {after:?}"
            );
        }
    }

    #[test]
    fn short_policies_have_the_same_shape() {
        let policy = HealthPolicy {
            window: Duration::from_secs(10),
            silence: Duration::from_secs(1),
            slow_window: Duration::from_secs(20),
            attempts: 4,
            ..HealthPolicy::default()
        };
        let mut window = Window::new(0);
        let states: Vec<_> = (0..8)
            .map(|n| {
                let at = Timestamp::from_millis(n * 250);
                window.count(false, at, &policy);
                window.decide(&policy, at).state
            })
            .collect();
        use State::{Disabled, Failing, Healthy};
        assert_eq!(states[..5], [Healthy, Healthy, Failing, Failing, Disabled]);
    }
}
