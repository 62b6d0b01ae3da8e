//! Compare-and-set of configuration with two administrators on Kafka: fence, read to the end, check the
//! revision, write, commit; any answer may be lost. Writers decide with the product's
//! [`Known`](ringback_core::compare_and_set::Known); fencing and transactions are Kafka's.

use ringback_core::compare_and_set::{Decision, Known};
use ringback_core::log::{Offset, Revision};
use stateright::{Model, Property};

use crate::{breaks, holds, long};

const KEY: &[u8] = b"acme/cdr";

#[derive(Clone, Copy)]
struct Protocol {
    /// Changes that each of the two makes, one after the other.
    changes: usize,
    /// How often a write starts again after it was fenced.
    tries: u8,
    /// Answers that may be lost.
    lost: u8,
    crashes: u8,
    bug: Bug,
}

/// What is planted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Nobody fences: a transaction stays open beside another one.
    NoFence,
    /// It decides on what it knew, without reading to the end.
    NotRead,
    /// Fencing does not wait for the end of a transaction whose commit is decided.
    EndNotAwaited,
    /// A write that starts again does not remember where it may have put the record.
    ForgetsWhere,
    /// What it wrote itself is known only once the log shows it.
    OwnNotKnown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    log: Vec<Entry>,
    /// The coordinator's: who has an older one is fenced.
    epoch: u8,
    admins: [Admin; 2],
    lost: u8,
    crashes: u8,
}

/// A record in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    change: Change,
    /// The revision that it changes.
    based_on: Option<Revision>,
    epoch: u8,
    transaction: Transaction,
}

/// Which administrator's, and which of his.
type Change = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transaction {
    Open,
    /// The commit is decided; readers do not see it yet.
    Decided,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Admin {
    /// The epoch of its producer.
    producer: Option<u8>,
    known: Known,
    step: Step,
    /// How its changes ended.
    answers: Vec<Answer>,
    based_on: Option<Revision>,
    perhaps: Option<Offset>,
    tries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Looks at what is there, to change it.
    Look,
    Fence,
    CatchUp,
    Decide,
    Send,
    Commit(Offset),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Written(Revision),
    Conflict,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Go(usize),
    /// The same, but its answer is lost: the write ends, and nobody knows how.
    GoLost(usize),
    /// The same, but it looks as if somebody had fenced it: the write starts again.
    GoFenced(usize),
    /// The coordinator shows a decided transaction to readers.
    Show,
    Crash(usize),
}

impl State {
    /// Before this, everything is committed or aborted: readers see no further.
    fn end(&self) -> usize {
        let ended = |entry: &Entry| {
            matches!(
                entry.transaction,
                Transaction::Committed | Transaction::Aborted
            )
        };
        self.log.iter().take_while(|entry| ended(entry)).count()
    }

    fn committed(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let chosen = |entry: &Entry| {
            matches!(
                entry.transaction,
                Transaction::Committed | Transaction::Decided
            )
        };
        let log = self.log.iter().enumerate();
        log.filter(move |(_, entry)| chosen(entry))
    }
}

impl Admin {
    fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
        (self.perhaps, self.tries, self.based_on) = (None, 0, None);
        self.step = Step::Look;
    }

    fn unknown(&mut self) {
        self.producer = None;
        self.answer(Answer::Unknown);
    }

    fn fenced(&mut self, protocol: &Protocol) {
        self.producer = None;
        self.tries += 1;
        self.step = Step::Fence;
        if protocol.bug == Bug::ForgetsWhere {
            self.perhaps = None;
        }
        if self.tries > protocol.tries {
            self.unknown();
        }
    }
}

impl Protocol {
    fn go(&self, state: &mut State, who: usize) -> Option<()> {
        let end = state.end();
        let decided = |entry: &Entry| entry.transaction == Transaction::Decided;
        let current = |admin: &Admin, state: &State| {
            admin.producer == Some(state.epoch) || self.bug == Bug::NoFence
        };
        let mut admin = state.admins[who].clone();
        match admin.step {
            Step::Look => {
                let seen = state.log[..end]
                    .iter()
                    .rposition(|entry| entry.transaction == Transaction::Committed);
                admin.based_on = seen.map(|at| Revision(at as Offset));
                admin.step = Step::Fence;
            }
            Step::Fence => {
                if admin.producer.is_none() {
                    // Until a decided transaction is shown, the coordinator says "concurrent".
                    if state.log.iter().any(decided) && self.bug != Bug::EndNotAwaited {
                        return None;
                    }
                    if self.bug != Bug::NoFence {
                        state.epoch += 1;
                        for entry in &mut state.log {
                            if entry.transaction == Transaction::Open {
                                entry.transaction = Transaction::Aborted;
                            }
                        }
                    }
                    admin.producer = Some(state.epoch);
                }
                admin.step = Step::CatchUp;
            }
            Step::CatchUp => {
                admin.known.begin(admin.perhaps);
                if self.bug != Bug::NotRead {
                    let next = admin.known.next() as usize;
                    for (at, entry) in state.log.iter().enumerate().take(end).skip(next) {
                        if entry.transaction == Transaction::Committed {
                            admin.known.learn(KEY, at as Offset, false);
                        }
                    }
                    admin.known.read_to(end.max(next) as Offset);
                }
                admin.step = Step::Decide;
            }
            Step::Decide => match admin.known.decide(KEY, admin.based_on) {
                Decision::Write => admin.step = Step::Send,
                Decision::Done(revision) => admin.answer(Answer::Written(revision)),
                Decision::Conflict(_) => admin.answer(Answer::Conflict),
            },
            Step::Send if current(&admin, state) => {
                let at = state.log.len() as Offset;
                state.log.push(Entry {
                    change: (who, admin.answers.len()),
                    based_on: admin.based_on,
                    epoch: state.epoch,
                    transaction: Transaction::Open,
                });
                admin.perhaps = Some(at);
                admin.step = Step::Commit(at);
            }
            Step::Commit(at) if current(&admin, state) => {
                let entry = &mut state.log[at as usize];
                entry.transaction = Transaction::Decided;
                if self.bug != Bug::OwnNotKnown {
                    admin.known.learn(KEY, at, false);
                }
                admin.answer(Answer::Written(Revision(at)));
            }
            Step::Send | Step::Commit(_) => admin.fenced(self),
        }
        state.admins[who] = admin;
        Some(())
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let admin = Admin {
            producer: None,
            known: Known::default(),
            step: Step::Look,
            answers: Vec::new(),
            based_on: None,
            perhaps: None,
            tries: 0,
        };
        vec![State {
            log: Vec::new(),
            epoch: 0,
            admins: [admin.clone(), admin],
            lost: self.lost,
            crashes: self.crashes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, admin) in state.admins.iter().enumerate() {
            if admin.answers.len() == self.changes {
                continue;
            }
            actions.push(Action::Go(who));
            if state.lost > 0 && matches!(admin.step, Step::Send | Step::Commit(_)) {
                actions.extend([Action::GoLost(who), Action::GoFenced(who)]);
            }
            if state.crashes > 0 {
                actions.push(Action::Crash(who));
            }
        }
        actions.push(Action::Show);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Go(who) => self.go(&mut state, who)?,
            Action::GoLost(who) | Action::GoFenced(who) => {
                state.lost -= 1;
                let before = state.admins[who].clone();
                self.go(&mut state, who)?;
                // What it did to the log is done; what it learned by it is not.
                let perhaps = match before.step {
                    Step::Commit(_) => before.perhaps,
                    // Without a report it does not know where the record is, and nobody commits it.
                    _ => None,
                };
                let admin = &mut state.admins[who];
                *admin = Admin { perhaps, ..before };
                match action {
                    Action::GoFenced(_) => admin.fenced(self),
                    _ => admin.unknown(),
                }
            }
            Action::Show => {
                let decided = |entry: &&mut Entry| entry.transaction == Transaction::Decided;
                state.log.iter_mut().find(decided)?.transaction = Transaction::Committed;
            }
            Action::Crash(who) => {
                state.crashes -= 1;
                let admin = &mut state.admins[who];
                let looked = admin.step != Step::Look;
                admin.known = Known::default();
                admin.producer = None;
                if looked {
                    admin.unknown();
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_LOST_UPDATE, |_, state: &State| {
                let mut before = None;
                state.committed().all(|(at, entry)| {
                    let based_on = before.replace(Revision(at as Offset));
                    entry.based_on == based_on
                })
            }),
            Property::always(ANSWER_TRUE, |_, state: &State| {
                state.admins.iter().enumerate().all(|(who, admin)| {
                    admin.answers.iter().enumerate().all(|(which, answer)| {
                        let mut of = state
                            .committed()
                            .filter(|(_, entry)| entry.change == (who, which))
                            .map(|(at, _)| Revision(at as Offset));
                        let (first, second) = (of.next(), of.next());
                        let once = second.is_none();
                        match answer {
                            Answer::Written(revision) => first == Some(*revision) && once,
                            Answer::Conflict => first.is_none(),
                            Answer::Unknown => once,
                        }
                    })
                })
            }),
            Property::sometimes("all changes are written", |model: &Self, state: &State| {
                state.committed().count() == 2 * model.changes
            }),
            Property::sometimes("somebody meets a conflict", |_, state: &State| {
                let mut admins = state.admins.iter();
                admins.any(|admin| admin.answers.contains(&Answer::Conflict))
            }),
            Property::sometimes(
                "a write with an unknown end is there",
                |_, state: &State| {
                    state.committed().any(|(_, entry)| {
                        let (who, which) = entry.change;
                        state.admins[who].answers.get(which) == Some(&Answer::Unknown)
                    })
                },
            ),
        ]
    }
}

const NO_LOST_UPDATE: &str = "each record changes the one before: no update is lost";
const ANSWER_TRUE: &str = "written means once, conflict never, unknown at most once";

const SMALL: Protocol = Protocol {
    changes: 1,
    tries: 1,
    lost: 1,
    crashes: 1,
    bug: Bug::None,
};

#[test]
fn no_update_is_lost_between_two_administrators() {
    holds("configuration", SMALL);
}

#[test]
fn no_update_is_lost_in_larger_bounds() {
    if long() {
        let large = Protocol {
            changes: 2,
            tries: 1,
            ..SMALL
        };
        holds("configuration_long", large);
    }
}

#[test]
fn planted_bugs_of_configuration_writes_are_found() {
    for (bug, property) in [
        (Bug::NoFence, NO_LOST_UPDATE),
        (Bug::NotRead, NO_LOST_UPDATE),
        (Bug::EndNotAwaited, NO_LOST_UPDATE),
        (Bug::ForgetsWhere, ANSWER_TRUE),
        (Bug::OwnNotKnown, NO_LOST_UPDATE),
    ] {
        let changes = 2;
        breaks(
            Protocol {
                bug,
                changes,
                ..SMALL
            },
            property,
        );
    }
}
