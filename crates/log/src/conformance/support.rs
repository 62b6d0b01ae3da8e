//! What the promises share: a table of their own, an appender that waits, a handler that collects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Consumer, Handler, Header, Log, LogError, Offset, Record,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId, Topics, TopicsConfig};

use super::DEADLINE;

/// Tiers of the tables; a topic each.
pub(super) const TIERS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
];

/// Settings of a table whose topics nobody else uses.
pub(super) fn config(replication: u16) -> TopicsConfig {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (process, run) = (std::process::id(), RUN.fetch_add(1, Ordering::Relaxed));
    TopicsConfig {
        prefix: format!("conformance-{}-{process}-{run}.", now.as_millis()),
        event_partitions: 3,
        work_partitions: 2,
        replication,
        ..TopicsConfig::default()
    }
}

pub(super) fn table(replication: u16) -> Arc<Topics> {
    Topics::new(&config(replication), &TIERS)
}

pub(super) fn topic<L: Log>(log: &L, role: Role) -> TopicId {
    log.topics().find(role).expect("the table has this topic")
}

/// A group name that nobody else uses: the prefix is part of it.
pub(super) fn group<L: Log>(log: &L, name: &str) -> String {
    let tenants = log.topics().spec(topic(log, Role::Tenants));
    format!("{}{name}", tenants.full_name.trim_end_matches("tenants"))
}

/// A record with a copy of everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Copied {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) appended: Timestamp,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) value: Option<Vec<u8>>,
}

impl Copied {
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
            appended: record.appended,
            key: record.key.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|Header { name, value }| ((*name).to_owned(), value.to_vec()))
                .collect(),
            value: record.value.map(<[u8]>::to_vec),
        }
    }

    /// The value as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or(b"(removed)")).into_owned()
    }
}

type Ends = BTreeMap<usize, Vec<Result<Appended, AppendError>>>;

/// How appends ended, by token.
#[derive(Default)]
pub(super) struct Acks {
    ends: Mutex<Ends>,
    changed: Condvar,
}

#[derive(Clone, Default)]
pub(super) struct Collecting(pub(super) Arc<Acks>);

impl Completion for Collecting {
    type Token = usize;

    fn done(&self, token: usize, result: Result<Appended, AppendError>) {
        self.0.ends.lock().entry(token).or_default().push(result);
        self.0.changed.notify_all();
    }
}

/// An appender whose caller waits.
pub(super) struct Writing<L: Log> {
    pub(super) appender: L::Appender<Collecting>,
    pub(super) acks: Arc<Acks>,
    next: std::cell::Cell<usize>,
}

impl<L: Log> Writing<L> {
    pub(super) fn new(log: &L) -> Self {
        Self::with(log, AppenderOptions::default())
    }

    pub(super) fn with(log: &L, options: AppenderOptions) -> Self {
        let collecting = Collecting::default();
        let acks = collecting.0.clone();
        Self {
            appender: log.appender(options, collecting).expect("an appender"),
            acks,
            next: std::cell::Cell::new(0),
        }
    }

    /// Hands a record over; the token it got.
    pub(super) fn start(&self, record: Append<'_>) -> Result<usize, AppendError> {
        let token = self.next.get();
        self.next.set(token + 1);
        match self.appender.append(record, token) {
            Ok(()) => Ok(token),
            Err((back, error)) => {
                assert_eq!(back, token, "the token of a refused append comes back");
                Err(error)
            }
        }
    }

    /// Appends and waits for the end of it.
    pub(super) fn try_put(&self, record: Append<'_>) -> Result<Appended, AppendError> {
        let token = self.start(record)?;
        self.end_of(token)
    }

    pub(super) fn put(&self, record: Append<'_>) -> Appended {
        self.try_put(record).expect("an append")
    }

    /// Appends text under a key.
    pub(super) fn text(&self, topic: TopicId, key: &str, value: &str) -> Appended {
        self.put(Append {
            topic,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(value.as_bytes()),
        })
    }

    /// Appends many texts at once, without keys unless there is one for each.
    pub(super) fn texts(
        &self,
        topic: TopicId,
        texts: &[(Option<String>, String)],
    ) -> Vec<Appended> {
        let started: Vec<_> = texts
            .iter()
            .map(|(key, value)| {
                let record = Append {
                    topic,
                    key: key.as_deref().map(str::as_bytes),
                    headers: &[],
                    value: Some(value.as_bytes()),
                };
                self.start(record).expect("an append")
            })
            .collect();
        started
            .into_iter()
            .map(|token| self.end_of(token).expect("an append"))
            .collect()
    }

    /// Waits until the append with this token has ended.
    pub(super) fn end_of(&self, token: usize) -> Result<Appended, AppendError> {
        let until = Instant::now() + DEADLINE;
        let mut ends = self.acks.ends.lock();
        loop {
            if let Some(end) = ends.get(&token) {
                assert_eq!(end.len(), 1, "an append ends once");
                return end[0].clone();
            }
            let over = self.acks.changed.wait_until(&mut ends, until).timed_out();
            assert!(!over, "an append did not end within {DEADLINE:?}");
        }
    }
}

/// Keys `0..count`, each with a text of its own.
pub(super) fn numbered(count: usize) -> Vec<(Option<String>, String)> {
    (0..count)
        .map(|n| (Some(format!("key-{n}")), format!("value-{n}")))
        .collect()
}

/// A handler that takes what it has room for and remembers everything.
#[derive(Default)]
pub(super) struct Taking {
    pub(super) assigned: Vec<Assignment>,
    pub(super) records: Vec<Copied>,
    /// Room of partitions; those not in here take everything.
    pub(super) room: HashMap<Partition, usize>,
    /// Room was given for so many more records in this poll.
    left: HashMap<Partition, usize>,
    /// How often `revoking` still says no.
    pub(super) busy: HashMap<Partition, usize>,
    pub(super) asked: usize,
    /// What `revoked` answers.
    pub(super) last: HashMap<Partition, Committed>,
    pub(super) revoked: Vec<Partition>,
    /// Partitions whose commits failed after they had begun well.
    pub(super) not_committed: Vec<Partition>,
}

impl Taking {
    /// Polls until `done`, or panics when that takes too long.
    pub(super) fn until<C: Consumer>(
        &mut self,
        consumer: &mut C,
        what: &str,
        mut done: impl FnMut(&Self) -> bool,
    ) {
        let until = Instant::now() + DEADLINE;
        while !done(self) {
            assert!(
                Instant::now() < until,
                "{what}: not within {DEADLINE:?}; {} partitions, {} records",
                self.assigned.len(),
                self.records.len(),
            );
            self.poll(consumer, Duration::from_millis(250));
        }
    }

    /// One poll; an error that another try may overcome is none.
    pub(super) fn poll<C: Consumer>(&mut self, consumer: &mut C, timeout: Duration) {
        self.left.clear();
        match consumer.poll(timeout, self) {
            Ok(()) => {}
            Err(LogError {
                retriable: true, ..
            }) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }

    pub(super) fn assignment(&self, partition: Partition) -> &Assignment {
        let found = self
            .assigned
            .iter()
            .rfind(|given| given.partition == partition);
        found.expect("the partition is assigned")
    }

    /// The values of a partition's records, in the order they came.
    pub(super) fn offsets(&self, partition: Partition) -> Vec<Offset> {
        let of = self
            .records
            .iter()
            .filter(|record| record.partition == partition);
        of.map(|record| record.offset).collect()
    }
}

impl Handler for Taking {
    fn assigned(&mut self, assignment: Assignment) {
        self.assigned.push(assignment);
    }

    fn room(&mut self, partition: Partition) -> usize {
        let room = self.room.get(&partition).copied().unwrap_or(usize::MAX);
        // What was taken in this poll counts against it, as it does for a real owner.
        *self.left.entry(partition).or_insert(room)
    }

    fn record(&mut self, record: Record<'_>) {
        let owned = self
            .assigned
            .iter()
            .any(|given| given.partition == record.partition);
        assert!(
            owned,
            "a record of a partition that was not assigned: {record:?}"
        );
        let left = self
            .left
            .get_mut(&record.partition)
            .expect("room is asked before a record");
        assert!(
            *left > 0,
            "more records than there was room for: {record:?}"
        );
        *left -= 1;
        self.records.push(Copied::of(&record));
    }

    fn revoking(&mut self, partition: Partition) -> bool {
        self.asked += 1;
        assert!(
            !self.revoked.contains(&partition),
            "asked after it was revoked"
        );
        match self.busy.get_mut(&partition) {
            Some(0) | None => true,
            Some(times) => {
                *times -= 1;
                false
            }
        }
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        assert!(!self.revoked.contains(&partition), "revoked twice");
        self.revoked.push(partition);
        self.last.get(&partition).cloned()
    }

    fn commit_failed(&mut self, partition: Partition) {
        self.not_committed.push(partition);
    }

    fn lost(&mut self, partition: Partition) {
        panic!("partition {partition:?} was lost");
    }
}
