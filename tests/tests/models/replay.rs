//! Replay while an administrator pauses, resumes and removes the webhook (contract R3; invariants DL1,
//! DL6). The dispatcher reads configuration later than it is written and decides with the product's
//! [`sendable`] and [`may_be_news`] over the product's [`Directory`].
//!
//! Time goes in seconds. Configuration counts as current if everything older than 2 s was read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringback_core::directory::Directory;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::log::Record;
use ringback_core::record::{Delivery, Reason};
use ringback_core::schedule::Schedule;
use ringback_core::sendable::{may_be_news, sendable};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use serde_json::json;
use stateright::{Model, Property};
use uuid::Uuid;

use crate::{breaks, holds, long};

const WEBHOOK: Uuid = Uuid::from_u128(1);
/// After this, configuration that was not read makes a dispatcher stop.
const STALE_AFTER: u8 = 2;
/// The shortest rung.
const RUNG: u8 = 2;

struct Protocol {
    deliveries: usize,
    /// Changes of the webhook.
    changes: usize,
    seconds: u8,
    bug: Bug,
    /// The directory for each state of the webhook, and the schedule.
    directories: [Directory; 3],
    schedule: Schedule,
}

/// What is planted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// It sends on configuration that is not known to be current.
    Stale,
    /// It looks at the webhook when a delivery arrives, not when it is sent.
    DecidedOnArrival,
    /// A replay is parked for what was known before it was asked for.
    NewsIgnored,
    /// What may not be sent is dropped.
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Webhook {
    On,
    Paused,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    /// The configuration topic: what was written when.
    written: Vec<(u8, Webhook)>,
    /// How much of it the dispatcher has read.
    read: usize,
    deliveries: Vec<Replay>,
    /// A request began on a webhook that had been off for longer than it may take to know.
    sent_late: bool,
}

/// A delivery that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Replay {
    NotAsked,
    /// In a topic, to be taken in at this time.
    Waiting {
        asked: u8,
        due: u8,
        from: From,
    },
    /// In its lane; what was known on arrival.
    Queued {
        asked: u8,
        from: From,
        known: Webhook,
    },
    Sent {
        asked: u8,
        last: bool,
    },
    Delivered,
    Parked {
        asked: u8,
        at: u8,
        reason: Reason,
    },
    /// A bug's end.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum From {
    Replay,
    Defer,
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Second,
    Write(Webhook),
    Read,
    Ask(usize),
    TakeIn(usize),
    Start(usize),
    End(usize, bool),
}

fn seconds(seconds: u8) -> Timestamp {
    Timestamp::from_millis(1_000_000 + i64::from(seconds) * 1000)
}

impl State {
    /// The webhook after so many records.
    fn after(&self, records: usize) -> Webhook {
        self.written[..records]
            .last()
            .map_or(Webhook::On, |(_, webhook)| *webhook)
    }

    fn is_fresh(&self) -> bool {
        let unread = self.written.get(self.read);
        unread.is_none_or(|(at, _)| self.now - at < STALE_AFTER)
    }

    /// Whether it was in such a state at some time from `from` to `to`.
    fn was(&self, is: impl Fn(Webhook) -> bool, from: u8, to: u8) -> bool {
        let before = self.written.iter().take_while(|(at, _)| *at < from).count();
        let until = self.written.iter().take_while(|(at, _)| *at <= to).count();
        (before..=until).any(|records| is(self.after(records)))
    }
}

fn delivery(asked: u8) -> Delivery {
    let event = Event {
        id: Uuid::from_u128(7),
        name: EventName::parse("cdr.completed").unwrap(),
        time: Timestamp::EPOCH,
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("pbx").unwrap(),
        subject: None,
        data: Bytes::from_static(b"{}"),
        backfill: false,
        traceparent: None,
    };
    Delivery {
        event: Arc::new(event),
        webhook: WEBHOOK,
        attempt: 0,
        run: 1,
        accepted: seconds(asked),
        deferrals: 0,
        replay: None,
    }
}

/// What a dispatcher knows when it has read that the webhook is so.
fn directory(webhook: Webhook) -> Directory {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let mut directory = Directory::default();
    let value = json!({
        "version": 1, "id": WEBHOOK, "tenant": "acme", "name": "cdr", "subscription": ["*"],
        "url": "http://x/", "authentication": {"method": "none"},
        "enabled": webhook == Webhook::On,
        "generation": 0, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
    });
    let value = value.to_string();
    let record = Record {
        partition: Partition {
            topic: topics.find(Role::Webhooks).unwrap(),
            index: 0,
        },
        offset: 0,
        appended: Timestamp::EPOCH,
        key: Some(b"acme/cdr"),
        headers: &[],
        value: (webhook != Webhook::Removed).then_some(value.as_bytes()),
    };
    directory.apply(Role::Webhooks, &record).unwrap();
    directory
}

impl Protocol {
    /// A delivery that is in its lane gets its turn.
    fn start(&self, state: &mut State, asked: u8, from: From, known: Webhook) -> Replay {
        let known = match self.bug {
            Bug::DecidedOnArrival => known,
            _ => state.after(state.read),
        };
        let (delivery, now) = (delivery(asked), seconds(state.now));
        let directory = &self.directories[known as usize];
        let parking = match sendable(&delivery, directory, &self.schedule, now) {
            Ok(_) => {
                let is_on = |webhook| webhook == Webhook::On;
                let since = state.now.saturating_sub(STALE_AFTER);
                state.sent_late |= !state.was(is_on, since, state.now);
                let last = from == From::Retry;
                return Replay::Sent { asked, last };
            }
            Err(parking) => parking,
        };
        let role = match from {
            From::Replay => Role::Replay,
            From::Defer => Role::Defer(0),
            From::Retry => Role::Retry(0),
        };
        let news = Duration::from_secs(STALE_AFTER.into());
        if self.bug != Bug::NewsIgnored && may_be_news(&delivery, role, parking.reason, now, news) {
            return Replay::Waiting {
                asked,
                due: state.now + RUNG,
                from: From::Defer,
            };
        }
        match self.bug {
            Bug::Dropped => Replay::Gone,
            _ => Replay::Parked {
                asked,
                at: state.now,
                reason: parking.reason,
            },
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            written: Vec::new(),
            read: 0,
            deliveries: vec![Replay::NotAsked; self.deliveries],
            sent_late: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.seconds {
            actions.push(Action::Second);
        }
        if state.written.len() < self.changes {
            actions.extend(match state.after(state.written.len()) {
                Webhook::On => vec![
                    Action::Write(Webhook::Paused),
                    Action::Write(Webhook::Removed),
                ],
                Webhook::Paused => {
                    vec![Action::Write(Webhook::On), Action::Write(Webhook::Removed)]
                }
                Webhook::Removed => vec![],
            });
        }
        if state.read < state.written.len() {
            actions.push(Action::Read);
        }
        for (which, replay) in state.deliveries.iter().enumerate() {
            match replay {
                // What is asked for has time to end.
                Replay::NotAsked if state.now + 3 * RUNG <= self.seconds => {
                    actions.push(Action::Ask(which));
                }
                Replay::Waiting { due, .. } if *due <= state.now => {
                    actions.push(Action::TakeIn(which));
                }
                Replay::Queued { .. } if state.is_fresh() || self.bug == Bug::Stale => {
                    actions.push(Action::Start(which));
                }
                Replay::Sent { .. } => {
                    actions.extend([Action::End(which, true), Action::End(which, false)]);
                }
                _ => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Second => state.now += 1,
            Action::Write(webhook) => state.written.push((state.now, webhook)),
            Action::Read => state.read += 1,
            Action::Ask(which) => {
                state.deliveries[which] = Replay::Waiting {
                    asked: state.now,
                    due: state.now,
                    from: From::Replay,
                };
            }
            Action::TakeIn(which) => {
                let known = state.after(state.read);
                if let Replay::Waiting { asked, from, .. } = state.deliveries[which] {
                    state.deliveries[which] = Replay::Queued { asked, from, known };
                }
            }
            Action::Start(which) => {
                if let Replay::Queued { asked, from, known } = state.deliveries[which] {
                    state.deliveries[which] = self.start(&mut state, asked, from, known);
                }
            }
            Action::End(which, well) => {
                if let Replay::Sent { asked, last } = state.deliveries[which] {
                    state.deliveries[which] = match (well, last) {
                        (true, _) => Replay::Delivered,
                        (false, true) => Replay::Parked {
                            asked,
                            at: state.now,
                            reason: Reason::Exhausted,
                        },
                        (false, false) => Replay::Waiting {
                            asked,
                            due: state.now + 1,
                            from: From::Retry,
                        },
                    };
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_LATE, |_, state: &State| !state.sent_late),
            Property::always(RIGHT_REASON, |_, state: &State| {
                state.deliveries.iter().all(|replay| match *replay {
                    Replay::Parked { asked, at, reason } => match reason {
                        Reason::Paused => state.was(|now| now == Webhook::Paused, asked, at),
                        Reason::Removed => state.was(|now| now == Webhook::Removed, asked, at),
                        reason => reason == Reason::Exhausted,
                    },
                    _ => true,
                })
            }),
            Property::always(ENDS, |model: &Self, state: &State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                let over = state.now == model.seconds && actions.is_empty();
                !over
                    || state.deliveries.iter().all(|replay| match *replay {
                        Replay::NotAsked | Replay::Delivered | Replay::Parked { .. } => true,
                        // On its way: it is due after the time that is looked at.
                        Replay::Waiting { due, .. } => due > model.seconds,
                        _ => false,
                    })
            }),
            Property::sometimes("delivered after a resume", |_, state: &State| {
                state.written.len() == 2
                    && state.written[1].1 == Webhook::On
                    && state.deliveries.contains(&Replay::Delivered)
            }),
            Property::sometimes("removed between attempt and retry", |_, state: &State| {
                state.deliveries.iter().any(|replay| {
                    matches!(
                        replay,
                        Replay::Parked {
                            reason: Reason::Removed,
                            ..
                        }
                    )
                })
            }),
        ]
    }
}

const NOT_LATE: &str = "DL6: nothing is sent 2 s after a pause or a removal was written";
const RIGHT_REASON: &str = "a replay is parked for what was so after it was asked for";
const ENDS: &str = "DL1: every replayed delivery is delivered, parked or on its way";

fn small(bug: Bug) -> Protocol {
    Protocol {
        deliveries: 1,
        changes: 2,
        seconds: 8,
        bug,
        directories: [Webhook::On, Webhook::Paused, Webhook::Removed].map(directory),
        schedule: Schedule::default(),
    }
}

#[test]
fn replays_end_whatever_becomes_of_their_webhook() {
    holds("replay", small(Bug::None));
}

#[test]
fn replays_in_larger_bounds() {
    if long() {
        let large = Protocol {
            changes: 3,
            seconds: 11,
            ..small(Bug::None)
        };
        holds("replay_long", large);
    }
}

#[test]
fn planted_bugs_of_replay_are_found() {
    for (bug, property) in [
        (Bug::Stale, NOT_LATE),
        (Bug::DecidedOnArrival, NOT_LATE),
        (Bug::NewsIgnored, RIGHT_REASON),
        (Bug::Dropped, ENDS),
    ] {
        breaks(small(bug), property);
    }
}
