//! The offset tracker with a crash, rebalances, lost acknowledgements and commits that fail (invariants
//! DL2, DL3, DL8). Dispatchers use the product's [`Tracker`].
//!
//! A partition has so many records, each one delivery. Work on a record ends with an append, whose
//! acknowledgement comes later or is lost, so that it is appended again. The broker keeps the group's
//! commits and takes none of a member that it has expelled.

use ringback_core::log::{Committed, Offset};
use ringback_core::tracker::{Begin, Finished, Tracker};
use stateright::{Model, Property};

use crate::{breaks, holds, long};

/// What may happen, and how often.
#[derive(Clone, Copy)]
struct Protocol {
    workers: usize,
    partitions: usize,
    records: Offset,
    crashes: u8,
    /// How often a member is expelled without knowing it.
    expulsions: u8,
    /// How often a partition is given up as planned.
    revocations: u8,
    /// How often a commit fails or its answer is lost.
    failures: u8,
    bug: Bug,
}

/// What is planted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A record is finished when its result is handed to the log, not when that is acknowledged.
    FinishedBeforeAcknowledged,
    /// The tracker is not told that a commit failed.
    FailureForgotten,
    /// Results are written for a partition that was given up.
    WritesAfterRevoke,
    /// The broker takes commits of members that it has expelled.
    NoFencing,
    /// The metadata of a commit is not read.
    MetadataIgnored,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    partitions: Vec<Broker>,
    workers: Vec<Worker>,
    crashes: u8,
    expulsions: u8,
    revocations: u8,
    failures: u8,
    /// What must never be seen, once it was.
    went_back: bool,
    wrote_after_revoke: bool,
    repeated: bool,
}

/// A partition as the brokers know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Broker {
    committed: Option<Committed>,
    owner: Option<usize>,
    /// Whether the outcome of each record is in the log.
    durable: Vec<bool>,
}

/// A dispatcher: what it believes to own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker(Vec<Option<Owned>>);

/// A partition as its dispatcher knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owned {
    tracker: Tracker,
    position: Offset,
    work: Vec<Work>,
    /// It was given up: only acknowledgements still arrive.
    given_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Unread,
    Begun,
    /// Handed to the log and durable there; nobody here knows yet.
    Appended,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Assign(usize, usize),
    Read(usize, usize),
    /// The result of a record gets into the log.
    Append(usize, usize, usize),
    Acknowledge(usize, usize, usize),
    /// The acknowledgement is lost: the result will be appended again.
    LoseAcknowledgement(usize, usize, usize),
    Commit(usize, usize, Ended),
    Revoke(usize, usize),
    /// The broker gives the partition to nobody; its owner does not know.
    Expel(usize),
    /// An expelled owner hears of it.
    Lost(usize, usize),
    Crash(usize),
}

/// How a commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// The broker did not take it.
    Failed,
    /// It took it, and the answer was lost.
    AnswerLost,
}

impl State {
    /// A commit reaches the broker.
    fn store(&mut self, protocol: &Protocol, worker: usize, partition: usize, news: &Committed) {
        let broker = &mut self.partitions[partition];
        if broker.owner != Some(worker) && protocol.bug != Bug::NoFencing {
            return;
        }
        let before = Finished::of(broker.committed.as_ref(), 0);
        let after = Finished::of(Some(news), 0);
        let forgotten = (0..protocol.records).any(|at| before.contains(at) && !after.contains(at));
        self.went_back |= after.next() < before.next() || forgotten;
        broker.committed = Some(news.clone());
    }
}

impl Protocol {
    fn each(&self, of: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let partitions = self.partitions;
        (0..of).flat_map(move |one| (0..partitions).map(move |partition| (one, partition)))
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let broker = Broker {
            committed: None,
            owner: None,
            durable: vec![false; self.records as usize],
        };
        vec![State {
            partitions: vec![broker; self.partitions],
            workers: vec![Worker(vec![None; self.partitions]); self.workers],
            crashes: self.crashes,
            expulsions: self.expulsions,
            revocations: self.revocations,
            failures: self.failures,
            went_back: false,
            wrote_after_revoke: false,
            repeated: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (worker, partition) in self.each(self.workers) {
            let broker = &state.partitions[partition];
            let Some(owned) = &state.workers[worker].0[partition] else {
                if broker.owner.is_none() {
                    actions.push(Action::Assign(worker, partition));
                }
                continue;
            };
            for (at, work) in owned.work.iter().enumerate() {
                match work {
                    Work::Begun if !owned.given_up || self.bug == Bug::WritesAfterRevoke => {
                        actions.push(Action::Append(worker, partition, at));
                    }
                    Work::Appended => {
                        actions.push(Action::Acknowledge(worker, partition, at));
                        if state.failures > 0 && !owned.given_up {
                            actions.push(Action::LoseAcknowledgement(worker, partition, at));
                        }
                    }
                    _ => {}
                }
            }
            if owned.given_up {
                continue;
            }
            if owned.position < self.records {
                actions.push(Action::Read(worker, partition));
            }
            if owned.tracker.clone().commit().is_some() {
                actions.push(Action::Commit(worker, partition, Ended::Well));
                if state.failures > 0 {
                    actions.push(Action::Commit(worker, partition, Ended::Failed));
                    actions.push(Action::Commit(worker, partition, Ended::AnswerLost));
                }
            }
            if broker.owner == Some(worker) {
                if state.revocations > 0 {
                    actions.push(Action::Revoke(worker, partition));
                }
                if state.expulsions > 0 {
                    actions.push(Action::Expel(partition));
                }
            } else {
                actions.push(Action::Lost(worker, partition));
            }
        }
        if state.crashes > 0 {
            let works = |worker: &usize| state.workers[*worker].0.iter().any(Option::is_some);
            actions.extend((0..self.workers).filter(works).map(Action::Crash));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Assign(worker, partition) => {
                let broker = &mut state.partitions[partition];
                broker.owner = Some(worker);
                let mut committed = broker.committed.clone();
                if let Some(committed) = &mut committed
                    && self.bug == Bug::MetadataIgnored
                {
                    committed.metadata.clear();
                }
                let tracker = Tracker::new(committed.as_ref(), 0);
                state.workers[worker].0[partition] = Some(Owned {
                    position: tracker.committable(),
                    tracker,
                    work: vec![Work::Unread; self.records as usize],
                    given_up: false,
                });
            }
            Action::Read(worker, partition) => {
                let known = Finished::of(state.partitions[partition].committed.as_ref(), 0);
                let owner = state.partitions[partition].owner;
                let owned = state.workers[worker].0[partition].as_mut()?;
                let at = owned.position;
                owned.position += 1;
                let begun = owned.tracker.begin(at) == Begin::New;
                owned.work[at as usize] = match begun {
                    true => Work::Begun,
                    false => Work::Over,
                };
                state.repeated |= begun && known.contains(at) && owner == Some(worker);
            }
            Action::Append(worker, partition, at) => {
                let owned = state.workers[worker].0[partition].as_mut()?;
                state.wrote_after_revoke |= owned.given_up;
                owned.work[at] = Work::Appended;
                if self.bug == Bug::FinishedBeforeAcknowledged {
                    // The append is under way; whether it succeeds is for the next action to say.
                    owned.tracker.finish(at as Offset);
                } else {
                    state.partitions[partition].durable[at] = true;
                }
            }
            Action::Acknowledge(worker, partition, at) => {
                state.partitions[partition].durable[at] = true;
                let owned = state.workers[worker].0[partition].as_mut()?;
                owned.tracker.finish(at as Offset);
                owned.work[at] = Work::Over;
            }
            Action::LoseAcknowledgement(worker, partition, at) => {
                state.failures -= 1;
                state.workers[worker].0[partition].as_mut()?.work[at] = Work::Begun;
            }
            Action::Commit(worker, partition, ended) => {
                let owned = state.workers[worker].0[partition].as_mut()?;
                let news = owned.tracker.commit()?;
                let refused = state.partitions[partition].owner != Some(worker);
                if (ended != Ended::Well || refused) && self.bug != Bug::FailureForgotten {
                    owned.tracker.commit_failed();
                }
                state.failures -= u8::from(ended != Ended::Well);
                if ended != Ended::Failed {
                    state.store(self, worker, partition, &news);
                }
            }
            Action::Revoke(worker, partition) => {
                state.revocations -= 1;
                let owned = state.workers[worker].0[partition].as_mut()?;
                owned.given_up = true;
                if let Some(news) = owned.tracker.commit() {
                    state.store(self, worker, partition, &news);
                }
                state.partitions[partition].owner = None;
            }
            Action::Expel(partition) => {
                state.expulsions -= 1;
                state.partitions[partition].owner = None;
            }
            Action::Lost(worker, partition) => {
                state.workers[worker].0[partition].as_mut()?.given_up = true;
            }
            Action::Crash(worker) => {
                state.crashes -= 1;
                for (partition, owned) in state.workers[worker].0.iter_mut().enumerate() {
                    *owned = None;
                    let owner = &mut state.partitions[partition].owner;
                    if *owner == Some(worker) {
                        *owner = None;
                    }
                }
            }
        }
        // What nobody can see any more is forgotten, so that equal states are equal.
        for worker in &mut state.workers {
            for owned in &mut worker.0 {
                let waits = |work: &Work| *work == Work::Appended;
                let writes =
                    |work: &Work| self.bug == Bug::WritesAfterRevoke && *work == Work::Begun;
                if owned.as_ref().is_some_and(|owned| {
                    owned.given_up && !owned.work.iter().any(|work| waits(work) || writes(work))
                }) {
                    *owned = None;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DURABLE, |_, state: &State| {
                state.partitions.iter().all(|broker| {
                    let finished = Finished::of(broker.committed.as_ref(), 0);
                    let durable = |(at, durable): (usize, &bool)| {
                        *durable || !finished.contains(at as Offset)
                    };
                    broker.durable.iter().enumerate().all(durable)
                })
            }),
            Property::always(NEVER_BACK, |_, state: &State| !state.went_back),
            Property::always(NO_REWRITE, |_, state: &State| !state.wrote_after_revoke),
            Property::always(NO_REPEAT, |_, state: &State| !state.repeated),
            Property::always(DUE, |_, state: &State| {
                state.workers.iter().enumerate().all(|(worker, owned)| {
                    owned.0.iter().enumerate().all(|(partition, owned)| {
                        let broker = &state.partitions[partition];
                        let Some(owned) = owned else { return true };
                        // The next commit says it, or the broker knows it.
                        broker.owner != Some(worker)
                            || owned.tracker.clone().commit().is_some()
                            || Finished::of(broker.committed.as_ref(), 0).next()
                                == owned.tracker.committable()
                    })
                })
            }),
            Property::sometimes(
                "everything is finished and committed",
                |model: &Self, state: &State| {
                    state.partitions.iter().all(|broker| {
                        Finished::of(broker.committed.as_ref(), 0).next() == model.records
                    })
                },
            ),
            Property::sometimes(
                "a commit says what is finished beyond a gap",
                |_, state: &State| {
                    state.partitions.iter().any(|broker| {
                        let committed = broker.committed.as_ref();
                        committed.is_some_and(|committed| !committed.metadata.is_empty())
                    })
                },
            ),
        ]
    }
}

const DURABLE: &str = "DL3: what a commit calls finished has its outcome in the log";
const NEVER_BACK: &str = "DL2: a commit neither goes back nor forgets what was finished";
const NO_REWRITE: &str = "DL8: nothing is written for a partition that was given up";
const NO_REPEAT: &str = "what a commit called finished is not worked on again";
const DUE: &str = "what is not committed is due to be, also after a commit that failed";

const SMALL: Protocol = Protocol {
    workers: 2,
    partitions: 1,
    records: 2,
    crashes: 1,
    expulsions: 1,
    revocations: 1,
    failures: 1,
    bug: Bug::None,
};

#[test]
fn the_tracker_survives_crashes_rebalances_and_lost_answers() {
    holds("tracker", SMALL);
}

/// Two partitions of three records each and one crash; and every fault with three records.
#[test]
fn the_tracker_in_larger_bounds() {
    if !long() {
        return;
    }
    let crash = Protocol {
        partitions: 2,
        records: 3,
        expulsions: 0,
        revocations: 0,
        failures: 0,
        ..SMALL
    };
    holds("tracker_long_crash", crash);
    let faults = Protocol {
        records: 3,
        ..SMALL
    };
    holds("tracker_long_faults", faults);
}

#[test]
fn planted_bugs_of_the_tracker_are_found() {
    for (bug, property) in [
        (Bug::FinishedBeforeAcknowledged, DURABLE),
        (Bug::FailureForgotten, DUE),
        (Bug::WritesAfterRevoke, NO_REWRITE),
        (Bug::NoFencing, NEVER_BACK),
        (Bug::MetadataIgnored, NO_REPEAT),
    ] {
        breaks(Protocol { bug, ..SMALL }, property);
    }
}
