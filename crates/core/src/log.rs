//! The interface of the log: what everything needs of Kafka, of the local engine and of the
//! simulated one. One conformance suite (`ringback-log`, `conformance`) says what each method means.
//!
//! It works in borrowed records and completions by callback: no boxed future, no dynamic call and
//! no copy per record that an engine does not need itself. Methods that wait are blocking and say
//! so; they belong on a thread of their own, never on an async runtime.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;
use crate::topics::{Partition, TopicId, Topics};

/// Position of a record in its partition, from 0. Gaps are normal (compaction, transactions).
pub type Offset = i64;

/// One header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value; by the CloudEvents binding UTF-8 text, but nothing guarantees that.
    pub value: &'a [u8],
}

/// A record to append.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// Where to.
    pub topic: TopicId,
    /// Records with equal keys go to one partition, by [`partition_of`]; without a key the engine
    /// spreads them.
    pub key: Option<&'a [u8]>,
    /// Its headers, in this order.
    pub headers: &'a [Header<'a>],
    /// Its value; `None` removes the key from a compacted topic.
    pub value: Option<&'a [u8]>,
}

/// A record as it is read; borrowed from the engine for the length of a call.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it was read.
    pub partition: Partition,
    /// Its position there.
    pub offset: Offset,
    /// When the log appended it, by the log's own clock (Kafka: `LogAppendTime`).
    pub appended: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its headers. Headers without a value, or whose name is not UTF-8, are left out.
    pub headers: &'a [Header<'a>],
    /// Its value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .find(|header| header.name == name)
            .map(|header| header.value)
    }
}

/// The log's word that a record is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where it is.
    pub partition: Partition,
    /// Its position there.
    pub offset: Offset,
    /// Its append time by the log's clock.
    pub at: Timestamp,
}

/// A record was not appended, or it is not known whether it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The bounded queue in front of the log is full. Try again in a moment.
    #[error("the queue in front of the log is full; try again in a moment")]
    QueueFull,
    /// The log did not acknowledge in time or is out of reach. The record may still be there: trying
    /// again can make a second one, never lose the first.
    #[error("the log did not acknowledge {topic}: {reason}")]
    Unavailable {
        /// Full name of the topic.
        topic: String,
        /// What the engine said.
        reason: String,
    },
    /// The log refuses this record for good (too large, topic unknown, not authorised).
    #[error("the log refuses the record for {topic}: {reason}")]
    Refused {
        /// Full name of the topic.
        topic: String,
        /// What the engine said.
        reason: String,
    },
}

/// An operation of the log other than an append failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{doing}: {reason}")]
pub struct LogError {
    /// What was being done, to what.
    pub doing: String,
    /// What went wrong and, where known, what to do.
    pub reason: String,
    /// Whether trying again can help.
    pub retriable: bool,
}

impl LogError {
    /// An error that another try may overcome.
    pub fn retriable(doing: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            doing: doing.into(),
            reason: reason.to_string(),
            retriable: true,
        }
    }

    /// An error that stays until somebody changes something.
    pub fn permanent(doing: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            doing: doing.into(),
            reason: reason.to_string(),
            retriable: false,
        }
    }
}

/// Where an [`Appender`] reports how each append ended. Called from the engine's own thread, once
/// per accepted append: it must be quick and must not block.
pub trait Completion: Send + Sync + 'static {
    /// What the caller needs to know which append this was.
    type Token: Send + Sync + 'static;

    /// The append ended.
    fn done(&self, token: Self::Token, result: Result<Appended, AppendError>);
}

/// How an appender trades latency for throughput.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppenderOptions {
    /// How long an append may wait for others to share its request (Kafka: `linger.ms`).
    pub linger: Duration,
    /// After how long without acknowledgement an append fails with [`AppendError::Unavailable`]
    /// (Kafka: `message.timeout.ms`).
    pub timeout: Duration,
    /// How many appends may be waiting; beyond, [`AppendError::QueueFull`].
    pub queue: usize,
}

impl Default for AppenderOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(2),
            timeout: Duration::from_secs(10),
            queue: 16_384,
        }
    }
}

/// Appends records. Clones share one queue.
pub trait Appender<C: Completion>: Clone + Send + Sync + 'static {
    /// Hands a record over without waiting. `Ok` promises exactly one call of
    /// [`Completion::done`]; on `Err` there is none, and the token comes back.
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)>;

    /// Called by whoever is about to wait for a completion: an engine that has no thread of its own
    /// does its work now. The others have nothing to do.
    fn work(&self) {}

    /// Blocking: waits until everything handed over has ended, or the time is over. `true` when
    /// nothing is left.
    fn flush(&self, timeout: Duration) -> bool;
}

/// What a group remembers of a partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// What travelled with it, at most 4,096 bytes (see [`crate::tracker`]).
    pub metadata: String,
}

/// A partition that a consumer now owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Which one.
    pub partition: Partition,
    /// What the group had committed; `None` means reading starts at the earliest record.
    pub committed: Option<Committed>,
    /// The first offset that the log still has. A committed offset before it means that unread
    /// records were lost to retention (invariant DL10).
    pub log_start: Offset,
}

/// The user of a [`Consumer`]: called only from within `poll` and `close`, on the thread that called.
pub trait Handler {
    /// The partition is ours from now on; its records follow.
    fn assigned(&mut self, assignment: Assignment);

    /// How many more records of this partition can be taken now. 0 leaves them unread.
    fn room(&mut self, partition: Partition) -> usize;

    /// The next record; at most as many per partition and poll as `room` said.
    fn record(&mut self, record: Record<'_>);

    /// The partition is to be given up: take no more of it. Asked again at every poll until the
    /// answer is `true` (nothing of it is in flight any more) or the time for it is over (5 s).
    fn revoking(&mut self, partition: Partition) -> bool;

    /// The partition is about to be given up: the last commit for it, if there is any news. After
    /// this call it belongs to somebody else.
    fn revoked(&mut self, partition: Partition) -> Option<Committed>;

    /// The partition was taken away without asking (session expired): nothing may be committed.
    fn lost(&mut self, partition: Partition);

    /// Retention dropped these before they were read, while the partition was ours (invariant
    /// DL10). Reading goes on behind them.
    fn gap(&mut self, _partition: Partition, _lost: Range<Offset>) {}

    /// A [`Consumer::commit`] that had begun well did not succeed for this partition, which is still
    /// ours: what it said is not durable unless a later commit says the same or more.
    fn commit_failed(&mut self, _partition: Partition) {}
}

/// Wakes a thread that waits in [`Consumer::poll`], from anywhere, cheaply, any number of times.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls this.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// A member of a consumer group, used from one thread.
pub trait Consumer: Send + 'static {
    /// Blocking: waits until a record can be taken, the assignment changes, the waker is used or the
    /// time is over; then serves all that is there, giving every partition a turn. A partition whose
    /// `room` is 0 keeps its records and does not end the wait.
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError>;

    /// Commits positions of owned partitions, without waiting for the log. Positions of partitions
    /// that are not owned are ignored. A failure, told here or later by
    /// [`Handler::commit_failed`], costs repetitions after a crash, nothing else: the next commit
    /// makes up for it.
    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError>;

    /// Wakes `poll`.
    fn waker(&self) -> Waker;

    /// Blocking: gives up all partitions (`revoking` until done or `drain` is over, then `revoked`),
    /// commits what `revoked` says durably, and leaves the group.
    fn close(self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError>;
}

/// Follows a compacted topic of one partition from its beginning, used from one thread.
pub trait Follower: Send + 'static {
    /// Blocking: hands over what is new, waiting for at most `timeout` when there is nothing.
    /// `true`: the end of the topic, as it was at some moment during this call, has been reached.
    /// An error means that the end is not known to be reached, and following goes on at the next
    /// call.
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError>;
}

/// Reads anywhere, for people and tools; used from one thread.
pub trait Reader: Send + 'static {
    /// Blocking: the offsets that the log has now, from the earliest to the next to be written.
    fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError>;

    /// Blocking: the same of several, in their order; for engines that can ask for many at once.
    fn all_bounds(&mut self, partitions: &[Partition]) -> Result<Vec<Range<Offset>>, LogError> {
        let each = partitions.iter().map(|partition| self.bounds(*partition));
        each.collect()
    }

    /// Blocking: hands over the records with offsets in `range`, in order, as far as they exist
    /// when it is called.
    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError>;
}

/// The version of a configuration record: its offset in its topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Revision(pub Offset);

/// A configuration record was not written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote first; the revision that is there now (`None`: there is no record).
    #[error("the record was changed by somebody else in the meantime; read it again")]
    Conflict {
        /// What is there now.
        current: Option<Revision>,
    },
    /// The log failed; whether the write took place is not known.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// One way in which a topic differs from the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicProblem {
    /// Full name of the topic.
    pub topic: String,
    /// What differs: `it` (is missing), `partitions`, or the name of a topic setting.
    pub setting: String,
    /// What the table says.
    pub expected: String,
    /// What the log has.
    pub found: String,
}

impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            setting,
            expected,
            found,
        } = self;
        write!(
            f,
            "topic {topic}: {setting} is {found}, expected {expected}"
        )
    }
}

/// A consumer group, as somebody who is not in it sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupView {
    /// Who is in it now.
    pub members: Vec<GroupMember>,
    /// The next offset to read of each partition of which one was committed.
    pub committed: Vec<(Partition, Offset)>,
}

/// A member of a consumer group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// What the log calls it.
    pub id: String,
    /// Where it is, as far as the log knows.
    pub host: String,
    /// What it owns.
    pub partitions: Vec<Partition>,
}

/// An engine: Kafka, local, or simulated.
pub trait Log: Clone + Send + Sync + 'static {
    /// See [`Appender`].
    type Appender<C: Completion>: Appender<C>;
    /// See [`Consumer`].
    type Consumer: Consumer;
    /// See [`Follower`].
    type Follower: Follower;
    /// See [`Reader`].
    type Reader: Reader;

    /// The table that this log was opened with.
    fn topics(&self) -> &Arc<Topics>;

    /// A new appender with a queue of its own.
    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<Self::Appender<C>, LogError>;

    /// Joins a group for these topics.
    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<Self::Consumer, LogError>;

    /// Follows a compacted topic from its beginning.
    fn follower(&self, topic: TopicId) -> Result<Self::Follower, LogError>;

    /// Reads anywhere.
    fn reader(&self) -> Result<Self::Reader, LogError>;

    /// Blocking: who is in a group, and what it has committed of these topics; for people, since it may
    /// have changed by the time it is told.
    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError>;

    /// Blocking: writes a record of a compacted topic (`value` `None` removes it) if its revision
    /// still is `expected` (`None`: there is no record). Atomic against every other writer.
    fn compare_and_set(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
    ) -> Result<Revision, WriteError> {
        self.compare_and_set_beside(topic, key, expected, value, None)
    }

    /// Blocking: the same, and appends a record that tells of it to a topic with retention. That one
    /// is there whenever the change is, and not when it met a conflict. After an unknown end it may be
    /// there alone, where the engine cannot write both in one transaction (local).
    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError>;

    /// Blocking: creates the topics of the table that do not exist, and says how the others differ.
    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError>;

    /// Blocking: says which topic differs from the table, and how.
    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError>;
}

/// The partition of a key: FNV-1a over its bytes, the same in every engine, so that a partition's
/// owner does not depend on the client library. Others may spread `events.*` as they like.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_waker_wakes() {
        let woken = Arc::new(AtomicU32::new(0));
        let counted = woken.clone();
        let waker = Waker::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        waker.wake();
        waker.clone().wake();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert_eq!(format!("{waker:?}"), "Waker");
    }

    #[test]
    fn a_topic_problem_says_what_differs() {
        let problem = TopicProblem {
            topic: "t".to_owned(),
            setting: "partitions".to_owned(),
            expected: "12".to_owned(),
            found: "6".to_owned(),
        };
        assert_eq!(problem.to_string(), "topic t: partitions is 6, expected 12");
    }

    /// The function's published values, without the sign bit.
    #[test]
    fn keys_are_spread_by_fnv_1a() {
        let hash = |key: &str| partition_of(key.as_bytes(), u32::MAX);
        assert_eq!(hash(""), 0x011c_9dc5);
        assert_eq!(hash("a"), 0x640c_292c);
        assert_eq!(hash("foobar"), 0x3f9c_f968);
        assert_eq!(partition_of(b"foobar", 12), 0x3f9c_f968 % 12);
        assert_eq!(partition_of(b"foobar", 0), 0);
    }
}
