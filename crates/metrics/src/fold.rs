//! The attempts of one partition, folded into windows. Pure: no log, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringback_core::event::TenantId;
use ringback_core::health::{HEALTH_VERSION, HealthPolicy, Snapshot, State, Window, charge};
use ringback_core::log::Offset;
use ringback_core::record::Attempt;
use ringback_core::time::Timestamp;
use uuid::Uuid;

use crate::verdict::Verdict;

/// Attempts may come for so long after a verdict that ends them: those in flight, and those of
/// dispatchers that had not read it.
const UNHEARD_AFTER: Duration = Duration::from_secs(60);

/// The windows of all webhooks of a partition of `attempts`.
#[derive(Default)]
pub struct Fold {
    windows: BTreeMap<Uuid, Counted>,
    /// Windows that differ from their snapshots.
    changed: BTreeSet<Uuid>,
}

/// A window and how far it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Counted {
    tenant: TenantId,
    window: Window,
    /// Offset of the first attempt that is not counted.
    next: Offset,
    /// The generation before was disabled: its first success is worth a notice.
    repaired: bool,
}

impl Fold {
    /// Takes over a snapshot. Of several, the one that counts furthest: a member that lost the
    /// partition without knowing may have written an older one after a newer.
    pub fn restore(&mut self, webhook: Uuid, snapshot: Snapshot) {
        let Snapshot {
            tenant,
            next,
            window,
            repaired,
            ..
        } = snapshot;
        if self
            .windows
            .get(&webhook)
            .is_some_and(|known| known.next > next)
        {
            return;
        }
        let counted = Counted {
            tenant,
            window,
            next,
            repaired,
        };
        self.windows.insert(webhook, counted);
    }

    /// A snapshot was removed.
    pub(crate) fn forget(&mut self, webhook: Uuid) {
        self.windows.remove(&webhook);
        self.changed.remove(&webhook);
    }

    /// Counts an attempt that was appended `at`; a verdict, if it changes one.
    pub fn count(
        &mut self,
        attempt: &Attempt,
        offset: Offset,
        at: Timestamp,
        policy: &HealthPolicy,
    ) -> Option<Verdict> {
        let succeeded = charge(attempt)?;
        let counted = self
            .windows
            .entry(attempt.webhook)
            .or_insert_with(|| Counted {
                tenant: attempt.tenant.clone(),
                window: Window::new(attempt.generation),
                next: offset,
                repaired: false,
            });
        // Older: an attempt of a life that has ended says nothing about this one.
        if offset < counted.next || attempt.generation < counted.window.generation {
            return None;
        }
        if attempt.generation > counted.window.generation {
            counted.repaired = counted.window.state == State::Disabled;
            counted.window = Window::new(attempt.generation);
        }
        counted.next = offset + 1;
        self.changed.insert(attempt.webhook);
        counted.window.count(succeeded, at, policy);
        let decision = counted.window.decide(policy, at);
        let recovered = succeeded && std::mem::take(&mut counted.repaired);
        // Nothing is sent to a disabled webhook, but for what was on its way: its verdict did not reach
        // the dispatchers. A member that lost the partition may have written an older one over it.
        let unheard = decision.state == State::Disabled
            && counted.window.state == State::Disabled
            && at.since(counted.window.announced) > UNHEARD_AFTER;
        if decision.state == counted.window.state && !recovered && !unheard {
            return None;
        }
        counted.window.state = decision.state;
        counted.window.announced = at;
        Some(Verdict {
            webhook: attempt.webhook,
            tenant: counted.tenant.clone(),
            generation: attempt.generation,
            state: decision.state,
            since: at,
            reason: match unheard {
                true => "it is disabled, but was still sent to".to_owned(),
                false => decision.reason,
            },
            figures: counted.window.figures(policy, at),
        })
    }

    /// Snapshots of what changed since the last time.
    pub fn changes(&self) -> Vec<(Uuid, Snapshot)> {
        self.changed
            .iter()
            .filter_map(|webhook| {
                let counted = self.windows.get(webhook)?;
                let snapshot = Snapshot {
                    version: HEALTH_VERSION,
                    tenant: counted.tenant.clone(),
                    next: counted.next,
                    window: counted.window.clone(),
                    repaired: counted.repaired,
                };
                Some((*webhook, snapshot))
            })
            .collect()
    }

    /// The snapshots of [`Self::changes`] are written.
    pub(crate) fn written(&mut self) {
        self.changed.clear();
    }

    /// Webhooks whose windows are no longer needed: of old, or of webhooks that `exists` does not
    /// know and that were last attempted before `settled`.
    pub(crate) fn stale(
        &self,
        policy: &HealthPolicy,
        now: Timestamp,
        settled: Timestamp,
        exists: impl Fn(Uuid) -> bool,
    ) -> Vec<Uuid> {
        let is_stale = |webhook: &Uuid, window: &Window| {
            window.is_stale(policy, now) || (window.last_attempt < settled && !exists(*webhook))
        };
        self.windows
            .iter()
            .filter(|(webhook, counted)| is_stale(webhook, &counted.window))
            .map(|(webhook, _)| *webhook)
            .collect()
    }

    /// How many webhooks are in this state.
    pub(crate) fn in_state(&self, state: State) -> usize {
        self.windows
            .values()
            .filter(|counted| counted.window.state == state)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringback_core::event::EventName;
    use ringback_core::record::{DELIVERED, VERSION};

    use super::*;

    const POLICY: fn() -> HealthPolicy = || HealthPolicy {
        window: Duration::from_secs(100),
        attempts: 4,
        silence: Duration::from_secs(10),
        slow_window: Duration::from_secs(1000),
        ..HealthPolicy::default()
    };

    fn attempt(webhook: u128, generation: u64, succeeded: bool) -> Attempt {
        Attempt {
            version: VERSION,
            event: Uuid::nil(),
            name: EventName::parse("cdr.completed").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            webhook: Uuid::from_u128(webhook),
            generation,
            run: 0,
            attempt: 0,
            started: Timestamp::EPOCH,
            duration_ms: 1,
            outcome: "status".to_owned(),
            status: Some(if succeeded { 200 } else { 500 }),
            error: None,
            response: None,
            next_at: None,
            request_headers: None,
            response_headers: None,
            next: if succeeded { DELIVERED } else { "retry.32s" }.to_owned(),
            late: false,
            dispatcher: "d".to_owned(),
            trace: None,
            subject: None,
            replay: None,
        }
    }

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn states(fold: &mut Fold, attempts: &[(i64, u64, bool)]) -> Vec<(i64, State)> {
        let mut states = Vec::new();
        for &(at, generation, succeeded) in attempts {
            let attempt = attempt(1, generation, succeeded);
            if let Some(verdict) = fold.count(&attempt, at, seconds(at), &POLICY()) {
                states.push((at, verdict.state));
            }
        }
        states
    }

    /// Contract R14: disabled, repaired, enabled (a new generation), recovered. What is late from
    /// the old life changes nothing.
    #[test]
    fn from_disablement_to_recovery() {
        let mut fold = Fold::default();
        let mut attempts: Vec<_> = (0..12).map(|at| (at, 0, false)).collect();
        attempts.extend([(12, 0, true), (13, 1, false), (14, 0, false), (15, 1, true)]);
        use State::{Disabled, Failing, Healthy};
        let expected = [(5, Failing), (10, Disabled), (15, Healthy)];
        assert_eq!(states(&mut fold, &attempts), expected);
        assert_eq!(fold.in_state(Disabled), 0);
    }

    /// A verdict that was overwritten by an older one is given again, once a minute at most.
    #[test]
    fn a_verdict_that_nobody_heard_is_said_again() {
        let mut fold = Fold::default();
        let attempts: Vec<_> = (0..200).map(|at| (at, 0, false)).collect();
        use State::{Disabled, Failing};
        let expected = [
            (5, Failing),
            (10, Disabled),
            (71, Disabled),
            (132, Disabled),
            (193, Disabled),
        ];
        assert_eq!(states(&mut fold, &attempts), expected);
    }

    #[test]
    fn our_own_faults_are_not_charged() {
        let mut fold = Fold::default();
        for at in 0..50 {
            let attempt = Attempt {
                outcome: "resolver".to_owned(),
                ..attempt(1, 0, false)
            };
            assert_eq!(fold.count(&attempt, at, seconds(at), &POLICY()), None);
        }
        assert!(fold.changes().is_empty());
    }

    #[test]
    fn windows_of_removed_and_silent_webhooks_are_forgotten() {
        let mut fold = Fold::default();
        for (webhook, at) in [(1, 0), (2, 0), (3, 90)] {
            let _ = fold.count(&attempt(webhook, 0, false), at, seconds(at), &POLICY());
        }
        let exists = |webhook: Uuid| webhook.as_u128() == 2;
        let stale = fold.stale(&POLICY(), seconds(100), seconds(50), exists);
        assert_eq!(stale, [Uuid::from_u128(1)]);
        let mut stale = fold.stale(&POLICY(), seconds(3000), seconds(50), |_| true);
        stale.sort();
        assert_eq!(stale, [1, 2, 3].map(Uuid::from_u128));
    }

    proptest! {
        /// However often it is interrupted between snapshot and commit, and however far back it has
        /// to read, nothing is counted twice and nothing is missed.
        #[test]
        fn interrupted_anywhere_it_counts_the_same(
            attempts in proptest::collection::vec((1u128..4, 0u64..3, any::<bool>()), 1..60),
            snapshots in proptest::collection::hash_set(0usize..60, 0..10),
            crashes in proptest::collection::hash_map(0usize..60, 0usize..60, 0..6),
        ) {
            let policy = POLICY();
            let count = |fold: &mut Fold, at: usize| {
                let (webhook, generation, succeeded) = attempts[at];
                let at = at as i64;
                fold.count(&attempt(webhook, generation, succeeded), at, seconds(at), &policy)
            };
            let mut whole = Fold::default();
            let verdicts: Vec<_> = (0..attempts.len()).map(|at| count(&mut whole, at)).collect();
            let (mut fold, mut log, mut committed) = (Fold::default(), Vec::new(), 0);
            let mut crashes = crashes;
            let mut at = 0;
            while at < attempts.len() {
                let verdict = count(&mut fold, at);
                if verdict.is_some() {
                    prop_assert_eq!(&verdict, &verdicts[at]);
                }
                at += 1;
                if snapshots.contains(&at) {
                    log.extend(fold.changes());
                    fold.written();
                    committed = at;
                }
                if let Some(back) = crashes.remove(&at) {
                    // A crash: what is in memory is gone, and reading goes on at or before the commit.
                    fold = Fold::default();
                    for (webhook, snapshot) in log.clone() {
                        fold.restore(webhook, snapshot);
                    }
                    at = committed.saturating_sub(back % 7);
                }
            }
            let windows = |fold: &Fold| {
                let mut all: Vec<_> = fold.windows.iter().map(|(id, c)| (*id, c.window.clone())).collect();
                all.sort_by_key(|(id, _)| *id);
                all
            };
            prop_assert_eq!(windows(&whole), windows(&fold));
        }
    }
}
