//! Disabling and enabling again, with verdicts of two members of the metrics component at a time and
//! attempts that come late (contract R14, invariant DL6 as order). Attempts are folded with the product's
//! [`Fold`], and the dispatcher looks into the product's [`Directory`].
//!
//! An attempt is 100 s after the one before; two failures in a row make a verdict. A member that was
//! expelled without knowing it still writes the verdicts that it holds: nobody fences producers.

use std::collections::HashMap;
use std::time::Duration;

use ringback_core::directory::Directory;
use ringback_core::event::{EventName, TenantId};
use ringback_core::health::{Health, HealthPolicy, State as Verdict};
use ringback_core::log::Record;
use ringback_core::record::{Attempt, DELIVERED};
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use ringback_metrics::Fold;
use serde_json::{Value, json};
use stateright::{Model, Property};
use uuid::Uuid;

use crate::{breaks, holds, long};

const WEBHOOK: Uuid = Uuid::from_u128(1);

struct Protocol {
    /// Attempts that may be made.
    attempts: usize,
    /// How often an administrator enables the webhook.
    enablings: u64,
    /// How often a member is expelled without knowing it, or crashes.
    losses: u8,
    bug: Bug,
    /// What the directory says of a webhook's generation after a verdict: the last one read, which
    /// is also what compaction keeps.
    disables: HashMap<(u64, (u64, Verdict)), bool>,
}

/// What is planted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A verdict holds whatever generation it is of.
    GenerationIgnored,
    /// Attempts carry no generation: late ones are counted for the new life.
    LateCounted,
    /// A member commits before its verdict is written, and crashes.
    CommitFirst,
    /// A disabled webhook that is still attempted gets no new verdict.
    SaidOnce,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The webhook's generation; each write of it is a record.
    generation: u64,
    /// Topic `health`: the newest record of the key is what compaction keeps.
    health: Vec<(u64, Verdict)>,
    /// Topic `attempts`: generation, and whether it succeeded.
    attempts: Vec<(u64, bool)>,
    /// What the dispatcher has read of both configuration topics.
    seen: (u64, usize),
    in_flight: Vec<u64>,
    repaired: bool,
    members: [Option<Member>; 2],
    owner: Option<usize>,
    committed: usize,
    losses: u8,
    /// Attempts in the topic when a member that had lost its partition last wrote a verdict.
    overwritten: Option<usize>,
}

/// A member of metrics that owns the partition, or believes so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    position: usize,
    verdicts: Vec<(u64, Verdict)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    /// The nth attempt in flight ends.
    End(usize),
    SeeWebhook,
    SeeVerdict,
    Repair,
    Enable,
    Assign(usize),
    Count(usize),
    Flush(usize),
    Expel,
    Crash(usize),
}

fn at(offset: usize) -> Timestamp {
    Timestamp::from_millis(offset as i64 * 100_000)
}

fn attempt(generation: u64, succeeded: bool) -> Attempt {
    Attempt {
        version: 1,
        event: Uuid::nil(),
        name: EventName::parse("cdr.completed").unwrap(),
        tenant: TenantId::parse("acme").unwrap(),
        webhook: WEBHOOK,
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

impl Protocol {
    fn policy() -> HealthPolicy {
        HealthPolicy {
            window: Duration::from_secs(100_000),
            attempts: 2,
            silence: Duration::from_secs(100),
            slow_window: Duration::from_secs(100_000),
            ..HealthPolicy::default()
        }
    }

    /// The window after so many attempts: what a snapshot says, and what counting again leads to.
    fn fold(&self, state: &State, end: usize) -> (Fold, Option<Health>) {
        let mut fold = Fold::default();
        let mut last = None;
        for (offset, (generation, succeeded)) in state.attempts[..end].iter().enumerate() {
            let generation = match self.bug {
                // As if it were of the life that is known by then.
                Bug::LateCounted => state.attempts[..=offset].iter().map(|a| a.0).max(),
                _ => Some(*generation),
            };
            let attempt = attempt(generation.unwrap_or_default(), *succeeded);
            let verdict = fold.count(&attempt, offset as i64, at(offset), &Self::policy());
            last = verdict.map(|verdict| verdict.record());
        }
        (fold, last)
    }

    /// Whether the webhook is disabled for whoever has read this much.
    fn is_disabled(&self, state: &State, (generation, verdicts): (u64, usize)) -> bool {
        let last = state.health[..verdicts].last();
        last.is_some_and(|(of, verdict)| {
            let of = match self.bug {
                Bug::GenerationIgnored => generation,
                _ => *of,
            };
            self.disables[&(generation, (of, *verdict))]
        })
    }

    fn is_disabled_now(&self, state: &State) -> bool {
        self.is_disabled(state, (state.generation, state.health.len()))
    }
}

/// Asks the product's directory.
fn disables(generation: u64, (of, verdict): (u64, Verdict)) -> bool {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let mut directory = Directory::default();
    let mut apply = |role, key: &str, value: Value| {
        let value = value.to_string();
        let record = Record {
            partition: Partition {
                topic: topics.find(role).unwrap(),
                index: 0,
            },
            offset: 0,
            appended: Timestamp::EPOCH,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(value.as_bytes()),
        };
        directory.apply(role, &record).unwrap();
    };
    let webhook = json!({
        "version": 1, "id": WEBHOOK, "tenant": "acme", "name": "cdr", "subscription": ["*"],
        "url": "http://x/", "authentication": {"method": "none"}, "enabled": true,
        "generation": generation, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
    });
    apply(Role::Webhooks, "acme/cdr", webhook);
    let health = json!({
        "version": 1, "webhook": WEBHOOK, "tenant": "acme", "generation": of,
        "state": verdict, "since": Timestamp::EPOCH, "reason": "",
    });
    apply(Role::Health, &WEBHOOK.to_string(), health);
    directory.is_disabled(directory.webhook_by_id(WEBHOOK).unwrap())
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            generation: 0,
            health: Vec::new(),
            attempts: Vec::new(),
            seen: (0, 0),
            in_flight: Vec::new(),
            repaired: false,
            members: [None, None],
            owner: None,
            committed: 0,
            losses: self.losses,
            overwritten: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let begun = state.attempts.len() + state.in_flight.len();
        if begun < self.attempts
            && state.in_flight.len() < 2
            && !self.is_disabled(state, state.seen)
        {
            actions.push(Action::Start);
        }
        actions.extend((0..state.in_flight.len()).map(Action::End));
        if state.seen.0 < state.generation {
            actions.push(Action::SeeWebhook);
        }
        if state.seen.1 < state.health.len() {
            actions.push(Action::SeeVerdict);
        }
        if !state.repaired && state.generation > 0 {
            actions.push(Action::Repair);
        }
        if state.generation < self.enablings && self.is_disabled_now(state) {
            actions.push(Action::Enable);
        }
        for (who, member) in state.members.iter().enumerate() {
            let Some(member) = member else {
                if state.owner.is_none() {
                    actions.push(Action::Assign(who));
                }
                continue;
            };
            if state.owner == Some(who) && member.position < state.attempts.len() {
                actions.push(Action::Count(who));
            }
            if !member.verdicts.is_empty() || state.owner != Some(who) {
                actions.push(Action::Flush(who));
            }
            if state.losses > 0 {
                actions.push(Action::Crash(who));
            }
        }
        if state.losses > 0 && state.owner.is_some() {
            actions.push(Action::Expel);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start => state.in_flight.push(state.seen.0),
            Action::End(which) => {
                let generation = state.in_flight.remove(which);
                state.attempts.push((generation, state.repaired));
            }
            Action::SeeWebhook => state.seen.0 += 1,
            Action::SeeVerdict => state.seen.1 += 1,
            Action::Repair => state.repaired = true,
            Action::Enable => state.generation += 1,
            Action::Assign(who) => {
                state.owner = Some(who);
                state.members[who] = Some(Member {
                    position: state.committed,
                    verdicts: Vec::new(),
                });
            }
            Action::Count(who) => {
                let position = state.members[who].as_ref()?.position + 1;
                let verdict = self.fold(&state, position).1;
                let repeated = self.bug == Bug::SaidOnce
                    && verdict.as_ref().is_some_and(|verdict| {
                        let before = self.fold(&state, position - 1).0;
                        before
                            .changes()
                            .iter()
                            .any(|(_, snapshot)| snapshot.window.state == verdict.state)
                    });
                let member = state.members[who].as_mut()?;
                member.position = position;
                member.verdicts.extend(
                    verdict
                        .filter(|_| !repeated)
                        .map(|verdict| (verdict.generation, verdict.state)),
                );
                // With nothing to say, it writes a snapshot and commits.
                if member.verdicts.is_empty() || self.bug == Bug::CommitFirst {
                    state.committed = position;
                }
            }
            Action::Flush(who) => {
                let member = state.members[who].as_mut()?;
                let written = std::mem::take(&mut member.verdicts);
                if state.owner == Some(who) {
                    state.committed = member.position;
                } else {
                    if !written.is_empty() {
                        state.overwritten = Some(state.attempts.len());
                    }
                    state.members[who] = None;
                }
                state.health.extend(written);
            }
            Action::Expel => {
                state.losses -= 1;
                state.owner = None;
            }
            Action::Crash(who) => {
                state.losses -= 1;
                state.members[who] = None;
                if state.owner == Some(who) {
                    state.owner = None;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(OWN_LIFE, |model: &Self, state: &State| {
                let of_this_life = |attempt: &&(u64, bool)| *attempt == &(state.generation, false);
                let failed = state.attempts.iter().filter(of_this_life).count();
                failed >= 2 || !model.is_disabled_now(state)
            }),
            Property::always(TAKES_EFFECT, |model: &Self, state: &State| {
                let counted = state.attempts.len();
                let at_rest = state
                    .members
                    .iter()
                    .enumerate()
                    .all(|(who, member)| match member {
                        Some(member) => {
                            member.verdicts.is_empty()
                                && state.owner == Some(who)
                                && member.position == counted
                        }
                        None => true,
                    });
                if !at_rest || state.owner.is_none() {
                    return true;
                }
                // An old verdict in place of the new one: the next attempt of this life, which is
                // then made, brings the new one back.
                let next = |&(generation, _): &(u64, bool)| generation == state.generation;
                let overwritten = state
                    .overwritten
                    .is_some_and(|before| !state.attempts[before..].iter().any(next));
                let (fold, _) = model.fold(state, counted);
                let disabled = fold.changes().iter().any(|(_, snapshot)| {
                    snapshot.window.state == Verdict::Disabled
                        && snapshot.window.generation == state.generation
                });
                !disabled || overwritten || model.is_disabled_now(state)
            }),
            Property::sometimes(
                "a repaired webhook is disabled again",
                |model: &Self, state: &State| state.generation > 0 && model.is_disabled_now(state),
            ),
            Property::sometimes(
                "an attempt of the old life comes late",
                |_, state: &State| state.attempts.windows(2).any(|pair| pair[0].0 > pair[1].0),
            ),
            Property::sometimes("an old verdict is written late", |_, state: &State| {
                state.health.windows(2).any(|pair| pair[0].0 > pair[1].0)
            }),
        ]
    }
}

const OWN_LIFE: &str = "only failures of its own life disable a webhook";
const TAKES_EFFECT: &str = "DL6: a verdict on the current life is what dispatchers read";

fn small(bug: Bug) -> Protocol {
    let verdicts = [Verdict::Healthy, Verdict::Failing, Verdict::Disabled];
    let all = (0..3).flat_map(|generation| {
        (0..3).flat_map(move |of| verdicts.map(|verdict| (generation, (of, verdict))))
    });
    Protocol {
        attempts: 5,
        enablings: 1,
        losses: 1,
        bug,
        disables: all
            .map(|(generation, verdict)| ((generation, verdict), disables(generation, verdict)))
            .collect(),
    }
}

#[test]
fn verdicts_reach_their_own_life_and_no_other() {
    holds("generations", small(Bug::None));
}

#[test]
fn verdicts_in_larger_bounds() {
    if long() {
        let large = Protocol {
            attempts: 6,
            enablings: 2,
            ..small(Bug::None)
        };
        holds("generations_long", large);
    }
}

#[test]
fn planted_bugs_of_disablement_are_found() {
    for (bug, property) in [
        (Bug::GenerationIgnored, OWN_LIFE),
        (Bug::LateCounted, OWN_LIFE),
        (Bug::CommitFirst, TAKES_EFFECT),
        (Bug::SaidOnce, TAKES_EFFECT),
    ] {
        breaks(small(bug), property);
    }
}
