//! A small world for tests of the simulated engine, driven in steps.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "helpers of tests fail by panicking, as tests do; not every test uses all"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::catalogue::Family;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Handler, Log, Offset, Reader, Record,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId, Topics, TopicsConfig};
use ringback_log::sim::{Drive, Seen, Sim, SimAppender, SimClock, SimConsumer, SimLog, SimOptions};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);
pub(crate) const CDR: Role = Role::Events(Family::Cdr);
pub(crate) const GROUP: &str = "group";

/// So many milliseconds after the start.
pub(crate) fn at(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

/// One partition per topic.
pub(crate) fn table() -> Arc<Topics> {
    partitioned(1)
}

pub(crate) fn partitioned(partitions: u32) -> Arc<Topics> {
    let config = TopicsConfig {
        prefix: "t.".to_owned(),
        event_partitions: partitions,
        work_partitions: partitions,
        ..TopicsConfig::default()
    };
    Topics::new(&config, &[Duration::from_secs(1)])
}

type End = Result<Appended, AppendError>;

#[derive(Clone, Default)]
pub(crate) struct Ends {
    ends: Arc<Mutex<BTreeMap<u64, End>>>,
    order: Arc<Mutex<Vec<u64>>>,
}

impl Completion for Ends {
    type Token = u64;

    fn done(&self, token: u64, result: End) {
        self.order.lock().push(token);
        let before = self.ends.lock().insert(token, result);
        assert!(before.is_none(), "append {token} ended twice");
    }
}

/// A log in steps, with a steered clock and one process.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) log: SimLog,
    pub(crate) ends: Arc<Mutex<BTreeMap<u64, End>>>,
    /// Tickets in the order in which they ended.
    pub(crate) order: Arc<Mutex<Vec<u64>>>,
    appender: SimAppender<Ends>,
    tickets: Cell<u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_seed(0)
    }

    pub(crate) fn with_seed(seed: u64) -> Self {
        Self::with(seed, table())
    }

    pub(crate) fn with(seed: u64, topics: Arc<Topics>) -> Self {
        let options = SimOptions {
            seed,
            clock: SimClock::steered(START),
            drive: Drive::Steps,
            ..SimOptions::default()
        };
        let sim = Sim::new(options).unwrap();
        let log = sim.open(topics);
        assert_eq!(log.create_topics().unwrap(), []);
        let completion = Ends::default();
        let Ends { ends, order } = completion.clone();
        let appender = log.appender(AppenderOptions::default(), completion);
        Self {
            appender: appender.unwrap(),
            sim,
            log,
            ends,
            order,
            tickets: Cell::new(0),
        }
    }

    pub(crate) fn topic(&self, role: Role) -> TopicId {
        self.log.topics().find(role).unwrap()
    }

    /// The first partition.
    pub(crate) fn partition(&self, role: Role) -> Partition {
        let topic = self.topic(role);
        Partition { topic, index: 0 }
    }

    /// Hands over a text; its ticket.
    pub(crate) fn start(&self, topic: &str, text: &str) -> u64 {
        let ticket = self.tickets.replace(self.tickets.get() + 1);
        let record = Append {
            topic: self.log.topics().find_name(topic).unwrap(),
            key: None,
            headers: &[],
            value: Some(text.as_bytes()),
        };
        assert!(self.appender.append(record, ticket).is_ok());
        ticket
    }

    /// Takes all steps that can be taken now.
    pub(crate) fn run(&self) {
        while self.sim.step() {}
    }

    pub(crate) fn end(&self, ticket: u64) -> End {
        self.ends.lock().get(&ticket).cloned().unwrap()
    }

    /// Appends to the end.
    pub(crate) fn put(&self, topic: &str, text: &str) -> End {
        let ticket = self.start(topic, text);
        self.run();
        self.end(ticket)
    }

    /// Everything in the topic, partition by partition.
    pub(crate) fn texts(&self, topic: &str) -> Vec<String> {
        let topic = self.log.topics().find_name(topic).unwrap();
        let mut reader = self.log.reader().unwrap();
        let mut texts = Vec::new();
        for partition in self.log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            let mut take = |record: Record<'_>| texts.push(text(&record));
            reader.read(partition, bounds, &mut take).unwrap();
        }
        texts
    }

    /// A member of the group that reads CDRs, in this process or another.
    pub(crate) fn member(&self, log: &SimLog) -> SimConsumer {
        log.consumer(GROUP, &[self.topic(CDR)]).unwrap()
    }

    pub(crate) fn took(&self) -> Took {
        Took {
            room: usize::MAX,
            ..Took::default()
        }
    }

    /// This has happened, and nothing else.
    pub(crate) fn seen(&self, expected: Seen) {
        assert_eq!(self.sim.seen(), expected);
    }
}

fn text(record: &Record<'_>) -> String {
    String::from_utf8(record.value.unwrap_or(b"(removed)").to_vec()).unwrap()
}

/// What a member was told.
#[derive(Default)]
pub(crate) struct Took {
    pub(crate) room: usize,
    pub(crate) texts: Vec<String>,
    pub(crate) assigned: Vec<Assignment>,
    pub(crate) owned: BTreeMap<Partition, Offset>,
    pub(crate) asked: usize,
    /// `revoking` says no.
    pub(crate) busy: bool,
    pub(crate) revoked: usize,
    pub(crate) lost: usize,
    pub(crate) not_committed: usize,
    left: BTreeMap<Partition, usize>,
}

impl Took {
    /// What it would commit: everything it has taken.
    pub(crate) fn positions(&self) -> Vec<(Partition, Committed)> {
        let owned = self.owned.iter();
        owned.map(|(p, offset)| (*p, position(*offset))).collect()
    }
}

pub(crate) fn position(offset: Offset) -> Committed {
    Committed {
        offset,
        metadata: String::new(),
    }
}

impl Handler for Took {
    fn assigned(&mut self, assignment: Assignment) {
        let from = assignment.committed.as_ref().map_or(0, |c| c.offset);
        let before = self.owned.insert(assignment.partition, from);
        assert!(before.is_none(), "assigned twice");
        self.assigned.push(assignment);
    }

    fn room(&mut self, partition: Partition) -> usize {
        assert!(self.owned.contains_key(&partition), "asked for room");
        self.left.insert(partition, self.room);
        self.room
    }

    fn record(&mut self, record: Record<'_>) {
        let left = self.left.get_mut(&record.partition).unwrap();
        *left = left.checked_sub(1).unwrap();
        let next = self.owned.get_mut(&record.partition).unwrap();
        assert!(record.offset >= *next, "went back");
        *next = record.offset + 1;
        self.texts.push(text(&record));
    }

    fn revoking(&mut self, _partition: Partition) -> bool {
        self.asked += 1;
        !self.busy
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.revoked += 1;
        self.owned.remove(&partition).map(position)
    }

    fn commit_failed(&mut self, partition: Partition) {
        assert!(self.owned.contains_key(&partition), "told of another's");
        self.not_committed += 1;
    }

    fn lost(&mut self, partition: Partition) {
        self.lost += 1;
        self.owned.remove(&partition).unwrap();
    }
}
