//! What stands in a log, and what its groups are given.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ringback_core::log::{Assignment, Committed, Consumer, Handler, Log, Offset, Reader, Record};
use ringback_core::record::decode_event;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role};
use ringback_core::tracker::{Begin, Tracker};
use ringback_log::local::LocalLog;

/// A member that finishes what it wants to.
pub(crate) struct Worker {
    pub(crate) wants: fn(&str) -> bool,
    pub(crate) trackers: HashMap<Partition, Tracker>,
    /// The next offset to read.
    pub(crate) next: HashMap<Partition, Offset>,
    pub(crate) seen: Vec<Seen>,
}

impl Worker {
    pub(crate) fn new(wants: fn(&str) -> bool) -> Self {
        Self {
            wants,
            trackers: HashMap::new(),
            next: HashMap::new(),
            seen: Vec::new(),
        }
    }
}

/// A record that a group was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) partition: Partition,
    pub(crate) appended: Timestamp,
    pub(crate) time: Option<Timestamp>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) value: String,
}

pub(crate) fn seen(record: &Record<'_>) -> Seen {
    let headers = record.headers.iter();
    Seen {
        partition: record.partition,
        appended: record.appended,
        time: decode_event(record).ok().map(|event| event.time),
        key: record.key.map(<[u8]>::to_vec),
        headers: headers
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect(),
        value: String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap(),
    }
}

impl Handler for Worker {
    fn assigned(&mut self, assignment: Assignment) {
        let tracker = Tracker::new(assignment.committed.as_ref(), assignment.log_start);
        self.trackers.insert(assignment.partition, tracker);
        let committed = assignment.committed.map(|committed| committed.offset);
        let next = committed.unwrap_or(assignment.log_start);
        self.next.insert(assignment.partition, next);
    }

    fn room(&mut self, _: Partition) -> usize {
        100
    }

    fn record(&mut self, record: Record<'_>) {
        self.next.insert(record.partition, record.offset + 1);
        let tracker = self.trackers.get_mut(&record.partition).unwrap();
        if tracker.begin(record.offset) == Begin::New {
            let seen = seen(&record);
            if (self.wants)(&seen.value) {
                tracker.finish(record.offset);
            }
            self.seen.push(seen);
        }
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.trackers.get_mut(&partition)?.commit()
    }

    fn lost(&mut self, partition: Partition) {
        self.trackers.remove(&partition);
    }
}

/// Reads all that a group has to work off.
pub(crate) fn consume<L: Log>(log: &L, name: &str, worker: &mut Worker) {
    let topics = log.topics();
    let of_group = topics
        .iter()
        .filter(|(_, spec)| spec.role.group() == Some(name));
    let of_group: Vec<_> = of_group.map(|(topic, _)| topic).collect();
    let mut reader = log.reader().unwrap();
    let all: Vec<_> = of_group
        .iter()
        .flat_map(|topic| topics.partitions(*topic))
        .collect();
    let mut consumer = log.consumer(name, &of_group).unwrap();
    let at_end = |worker: &Worker, reader: &mut L::Reader| {
        all.iter().all(|partition| {
            let bounds = reader.bounds(*partition).unwrap();
            worker.next.get(partition) >= Some(&bounds.end)
        })
    };
    while !at_end(worker, &mut reader) {
        consumer.poll(Duration::from_millis(10), worker).unwrap();
    }
    consumer.close(Duration::from_secs(5), worker).unwrap();
}

/// What a group of the log would be given now, without finishing any of it.
pub(crate) fn waiting<L: Log>(log: &L, name: &str) -> Vec<Seen> {
    let mut worker = Worker::new(|_| false);
    consume(log, name, &mut worker);
    worker.seen
}

pub(crate) fn each<L: Log>(log: &L, role: Role, mut handler: impl FnMut(&Record<'_>)) {
    let mut reader = log.reader().unwrap();
    let topic = log.topics().find(role).unwrap();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        reader
            .read(partition, bounds, &mut |record| handler(&record))
            .unwrap();
    }
}

pub(crate) fn newest<L: Log>(log: &L, role: Role) -> BTreeMap<String, Vec<u8>> {
    let mut newest = BTreeMap::new();
    each(log, role, |record| {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        match record.value {
            Some(value) => newest.insert(key, value.to_vec()),
            None => newest.remove(&key),
        };
    });
    newest
}

pub(crate) fn values<L: Log>(log: &L, role: Role) -> Vec<String> {
    let mut values = Vec::new();
    each(log, role, |record| values.push(seen(record).value));
    values.sort_unstable();
    values
}

/// Everything that stands in a log, but for compacted topics.
pub(crate) fn all_records(log: &LocalLog) -> Vec<(Offset, Seen)> {
    let mut all = Vec::new();
    for (_, spec) in log.topics().iter() {
        each(log, spec.role, |record| {
            all.push((record.offset, seen(record)))
        });
    }
    all
}
