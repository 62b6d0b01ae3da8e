//! What is known of every event, record, delivery and process.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringback_core::event::{EventName, TenantId};
use ringback_core::log::Offset;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_log::sim::{Happening, ProcessId};
use uuid::Uuid;

use super::configuration::Configuration;
use super::{Check, Rules, Violation};
use crate::pipeline::trace::Trace;

/// An event on its way to a webhook, in one run.
pub(super) type Key = (Uuid, Uuid, u32);

/// What a simulation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    pub events: u64,
    /// Deliveries, over all runs.
    pub deliveries: u64,
    pub delivered: u64,
    pub parked: u64,
    pub requests: u64,
    /// Requests beyond the first of their attempt.
    pub duplicates: u64,
    /// What the faults allow of them.
    pub allowed: u64,
    pub commits: u64,
    pub disabled: u64,
    pub replayed: u64,
    /// Put off without an attempt.
    pub deferred: u64,
    /// Attempts whose partition was taken away meanwhile.
    pub late: u64,
}

/// An event as it was accepted.
pub(super) struct EventInfo {
    pub(super) tenant: TenantId,
    pub(super) name: EventName,
    pub(super) body: Vec<u8>,
    pub(super) data: bytes::Bytes,
    /// The webhook that a notice is about: it does not get it.
    pub(super) about: Option<Uuid>,
    /// When it was first in the log.
    pub(super) appended: Timestamp,
    /// Where it is.
    pub(super) places: Vec<Partition>,
}

/// What a record stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    Event(Uuid, Timestamp),
    Delivery(Key, u8, u8),
}

/// A record that asks for an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    pub(super) partition: Partition,
    pub(super) attempt: u8,
    pub(super) deferrals: u8,
    pub(super) due: Timestamp,
}

/// One attempt of a delivery, however often it was made.
#[derive(Default)]
pub(super) struct Made {
    pub(super) first: Timestamp,
    pub(super) count: u64,
    pub(super) open: u64,
    pub(super) generations: Vec<u64>,
}

/// A delivery.
#[derive(Default)]
pub(super) struct Track {
    pub(super) asks: Vec<Asks>,
    pub(super) attempts: Vec<Made>,
    /// A receiver has acknowledged it.
    pub(super) acknowledged: bool,
    /// The log says that it was delivered, is parked.
    pub(super) delivered: bool,
    pub(super) parked: bool,
    /// The furthest attempt and deferral that the log asks for.
    pub(super) furthest: Option<(u8, u8)>,
    /// It must come to an end.
    pub(super) expected: bool,
}

impl Track {
    /// Whether the log says what comes after this attempt, or that it is over.
    pub(super) fn is_beyond(&self, attempt: u8, deferrals: u8) -> bool {
        self.is_over() || self.furthest > Some((attempt, deferrals))
    }

    pub(super) fn is_over(&self) -> bool {
        self.delivered || self.parked
    }

    /// What was requested of this attempt or a later one, if anything.
    pub(super) fn made(&self, attempt: u8) -> Option<&Made> {
        let made = self.attempts.iter().skip(usize::from(attempt));
        made.rev().find(|made| made.count > 0)
    }
}

/// How far a partition is committed, and what of it was checked.
#[derive(Default)]
pub(super) struct Position {
    pub(super) committed: Offset,
    pub(super) checked: Offset,
    pub(super) beyond: BTreeSet<Offset>,
    /// Records before this were removed.
    pub(super) start: Offset,
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) owns: BTreeSet<Partition>,
    pub(super) requests: BTreeMap<u64, (Key, u8)>,
    pub(super) per_webhook: BTreeMap<Uuid, usize>,
    /// When the log first acknowledged something, so that it can know the log's time.
    pub(super) knows_time: Option<Timestamp>,
    /// Records that it must have counted as lost (DL10).
    pub(super) lost: u64,
}

/// Everything.
pub(crate) struct Books {
    pub(super) rules: Rules,
    pub(crate) trace: Trace,
    pub(crate) now: Timestamp,
    pub(crate) violation: Option<Violation>,
    pub(super) events: HashMap<Uuid, EventInfo>,
    pub(super) tracks: HashMap<Key, Track>,
    pub(super) records: BTreeMap<Partition, Vec<Option<Entry>>>,
    pub(super) positions: BTreeMap<Partition, Position>,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// Which process makes a request, until it is answered.
    pub(super) requests: HashMap<u64, ProcessId>,
    /// Attempts that are in the log for each life of a webhook, and those of them that failed.
    pub(super) lives: HashMap<(Uuid, u64), (u64, u64)>,
    pub(super) configuration: Configuration,
    pub(super) sums: Sums,
}

impl Books {
    pub(super) fn new(rules: Rules, trace: Trace) -> Self {
        Self {
            rules,
            trace,
            now: Timestamp::EPOCH,
            violation: None,
            events: HashMap::new(),
            tracks: HashMap::new(),
            records: BTreeMap::new(),
            positions: BTreeMap::new(),
            processes: BTreeMap::new(),
            requests: HashMap::new(),
            lives: HashMap::new(),
            configuration: Configuration::default(),
            sums: Sums::default(),
        }
    }

    pub(super) fn role(&self, topic: TopicId) -> Role {
        self.rules.topics.spec(topic).role
    }

    /// The first is kept: what comes after may follow from it.
    pub(crate) fn violated(&mut self, check: Check, what: String) {
        let at = self.now;
        self.trace.add(
            "violation",
            &[check as u64],
            format_args!("{check:?} {what}"),
        );
        self.violation.get_or_insert(Violation { check, at, what });
    }

    pub(super) fn saw(&mut self, happening: Happening<'_>) {
        match happening {
            Happening::Handed(process, append) => self.handed(process, &append),
            Happening::Appended(process, record) => self.appended(process, &record),
            Happening::Set(record) => self.set(&record),
            Happening::Acknowledged(process) => {
                self.trace
                    .add("acknowledged", &[process], format_args!("{process}"));
                let now = self.now;
                self.process(process).knows_time.get_or_insert(now);
            }
            Happening::Assigned(process, group, assignment) => {
                self.assigned(process, group, assignment);
            }
            Happening::Gone(process, group, partition) => {
                let number = number_of(partition);
                let text = format_args!("{process} {group} {partition:?}");
                self.trace.add("gone", &[process, number], text);
                self.process(process).owns.remove(&partition);
            }
            Happening::Committed(process, group, partition, committed) => {
                self.committed(process, group, partition, committed);
            }
            Happening::NotOwned(process, group, partition) => {
                let what =
                    format!("process {process} commits {partition:?} of {group}, not its own");
                self.violated(Check::DL8, what);
            }
        }
    }

    pub(super) fn process(&mut self, process: ProcessId) -> &mut Process {
        self.processes.entry(process).or_default()
    }

    pub(super) fn ended(&mut self, process: ProcessId) {
        let Some(gone) = self.processes.remove(&process) else {
            return;
        };
        for (request, (key, attempt)) in gone.requests {
            self.requests.remove(&request);
            if let Some(track) = self.tracks.get_mut(&key)
                && let Some(made) = track.attempts.get_mut(usize::from(attempt))
            {
                made.open -= 1;
            }
        }
    }

    /// What came of everything so far.
    pub(crate) fn sums(&self) -> Sums {
        let tracks = self.tracks.values();
        let count =
            |is: fn(&Track) -> bool| tracks.clone().filter(|track| is(track)).count() as u64;
        Sums {
            events: self.events.len() as u64,
            deliveries: tracks.len() as u64,
            delivered: count(|track| track.delivered),
            parked: count(|track| track.parked && !track.delivered),
            duplicates: tracks
                .clone()
                .flat_map(|track| &track.attempts)
                .map(|made| made.count.saturating_sub(1))
                .sum(),
            ..self.sums
        }
    }

    /// How many lost records a process must have counted.
    pub(crate) fn lost(&self, process: ProcessId) -> u64 {
        self.processes
            .get(&process)
            .map_or(0, |process| process.lost)
    }
}

pub(super) fn number_of(partition: Partition) -> u64 {
    (partition.topic.index() as u64) << 16 | u64::from(partition.index)
}

/// The last 64 bits of an id.
pub(super) fn short(id: Uuid) -> u64 {
    id.as_u64_pair().1 ^ id.as_u64_pair().0
}
