//! What all parts of the engine share: the topics, and where each partition's records are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringback_core::log::{LogError, Offset};
use ringback_core::topics::{Cleanup, Partition, TopicId, Topics};

use super::file::quoted;
use super::news::News;

/// Shared by handles, readers and the writer thread.
pub(super) struct State {
    pub(super) topics: Arc<Topics>,
    /// By [`TopicId::index`].
    table: Vec<TopicState>,
    /// All partitions of all topics; a position in here is called a slot.
    pub(super) partitions: Vec<PartitionState>,
    pub(super) meta: PathBuf,
    /// Raised when slices are dropped, so that readers let go of their files.
    pub(super) drops: AtomicU64,
}

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredTopic {
    pub(super) partitions: u32,
    /// `None`: compacted.
    pub(super) retention: Option<Duration>,
}

struct TopicState {
    /// `None` until the topic is created.
    stored: Mutex<Option<StoredTopic>>,
    /// Partitions that exist; 0 until the topic is created. Beside `stored` for the hot path.
    existing: AtomicU32,
    first_slot: usize,
    slots: u32,
    /// Where records without a key go next.
    spread: AtomicU32,
}

/// A partition: the range of offsets it has, and the files they are in.
pub(super) struct PartitionState {
    pub(super) partition: Partition,
    pub(super) compacted: bool,
    pub(super) sql: Sql,
    /// Ascending; empty for compacted topics, which are in the meta file.
    segments: RwLock<Vec<Segment>>,
    start: AtomicI64,
    end: AtomicI64,
    listeners: Mutex<Vec<(Weak<News>, usize)>>,
}

/// The statements for a partition's table.
pub(super) struct Sql {
    /// Name of the table, `ringback.events.cdr/3`.
    pub(super) table: String,
    pub(super) create: String,
    pub(super) insert: String,
    pub(super) select: String,
    pub(super) delete_key: String,
    pub(super) find_key: String,
}

/// Records of one partition in one slice; they end where the next segment begins.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) slice: Arc<Slice>,
    pub(super) first: Offset,
}

/// A file with the records of a stretch of time.
pub(super) struct Slice {
    /// Ascending in the order of creation.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) dropped: AtomicBool,
}

impl State {
    pub(super) fn new(
        topics: Arc<Topics>,
        meta: PathBuf,
        stored: impl Fn(&str) -> Option<StoredTopic>,
    ) -> Self {
        let mut table = Vec::new();
        let mut partitions = Vec::new();
        for (topic, spec) in topics.iter() {
            let stored = stored(&spec.full_name);
            let existing = stored.as_ref().map_or(0, |stored| stored.partitions);
            let slots = existing.max(spec.partitions);
            table.push(TopicState {
                stored: Mutex::new(stored),
                existing: AtomicU32::new(existing),
                first_slot: partitions.len(),
                slots,
                spread: AtomicU32::new(0),
            });
            let compacted = spec.cleanup == Cleanup::Compact;
            partitions.extend((0..slots).map(|index| PartitionState {
                partition: Partition { topic, index },
                compacted,
                sql: Sql::new(&spec.full_name, index, compacted),
                segments: RwLock::default(),
                start: AtomicI64::new(0),
                end: AtomicI64::new(0),
                listeners: Mutex::default(),
            }));
        }
        Self {
            topics,
            table,
            partitions,
            meta,
            drops: AtomicU64::new(0),
        }
    }

    /// Partitions of this topic that exist; 0 until it is created.
    pub(super) fn existing(&self, topic: TopicId) -> u32 {
        self.table[topic.index()].existing.load(Ordering::Acquire)
    }

    pub(super) fn stored(&self, topic: TopicId) -> Option<StoredTopic> {
        self.table[topic.index()].stored.lock().clone()
    }

    pub(super) fn set_stored(&self, topic: TopicId, stored: StoredTopic) {
        let state = &self.table[topic.index()];
        let existing = stored.partitions.min(state.slots);
        *state.stored.lock() = Some(stored);
        state.existing.store(existing, Ordering::Release);
    }

    /// The slots of a topic's existing partitions.
    pub(super) fn slots(&self, topic: TopicId) -> std::ops::Range<usize> {
        let first = self.table[topic.index()].first_slot;
        first..first + self.existing(topic) as usize
    }

    /// The slot of a partition, or what is wrong with it.
    pub(super) fn slot(&self, partition: Partition) -> Result<usize, LogError> {
        let slots = self.slots(partition.topic);
        let slot = slots.start + partition.index as usize;
        if slots.contains(&slot) {
            return Ok(slot);
        }
        let name = &self.topics.spec(partition.topic).full_name;
        let reason = if slots.is_empty() {
            "the topic does not exist; create the topics first".to_owned()
        } else {
            format!("the topic has {} partitions", slots.len())
        };
        Err(LogError::permanent(
            format!("reading partition {} of {name}", partition.index),
            reason,
        ))
    }

    /// Where the next record without a key goes, of `partitions`.
    pub(super) fn spread(&self, topic: TopicId, partitions: u32) -> u32 {
        let next = self.table[topic.index()]
            .spread
            .fetch_add(1, Ordering::Relaxed);
        next % partitions.max(1)
    }

    /// The retention of each topic of the table that has one, by full name.
    pub(super) fn retention(&self, full_name: &str) -> Option<Duration> {
        let topic = self.topics.find_name(full_name)?;
        match self.topics.spec(topic).cleanup {
            Cleanup::Delete { retention } => Some(retention),
            Cleanup::Compact => None,
        }
    }
}

impl PartitionState {
    pub(super) fn start(&self) -> Offset {
        self.start.load(Ordering::Acquire)
    }

    /// The next offset to be written.
    pub(super) fn end(&self) -> Offset {
        self.end.load(Ordering::Acquire)
    }

    /// Makes records visible, up to `end`, and tells those who wait for them. `slice` is where they
    /// are, from `first` on; `None` for compacted topics.
    pub(super) fn publish(&self, slice: Option<&Arc<Slice>>, first: Offset, end: Offset) {
        if let Some(slice) = slice {
            let known = |segments: &[Segment]| {
                segments
                    .last()
                    .is_some_and(|last| last.slice.number == slice.number)
            };
            if !known(&self.segments.read()) {
                self.add_segment(Segment {
                    slice: slice.clone(),
                    first,
                });
            }
        }
        self.end.store(end, Ordering::Release);
        for (listener, tag) in self.listeners.lock().iter() {
            if let Some(news) = listener.upgrade() {
                news.mark(*tag);
            }
        }
    }

    /// The range the partition had when it was opened.
    pub(super) fn restore(&self, start: Offset, end: Offset) {
        self.start.store(start, Ordering::Release);
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn add_segment(&self, segment: Segment) {
        let mut segments = self.segments.write();
        if segments.is_empty() {
            self.start.store(segment.first, Ordering::Release);
        }
        segments.push(segment);
    }

    /// Whether no slice has records of it.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.read().is_empty()
    }

    /// Whether the slice has records of this partition.
    pub(super) fn is_in(&self, slice: &Slice) -> bool {
        let segments = self.segments.read();
        segments
            .iter()
            .any(|segment| segment.slice.number == slice.number)
    }

    /// Forgets the records of a slice, which is about to be removed.
    pub(super) fn forget(&self, slice: &Slice) {
        let mut segments = self.segments.write();
        segments.retain(|segment| segment.slice.number != slice.number);
        let start = segments
            .first()
            .map_or_else(|| self.end(), |first| first.first);
        self.start.store(start.max(self.start()), Ordering::Release);
    }

    /// The slice to read `from` in, and the segment that comes after it.
    pub(super) fn segment(&self, from: Offset) -> Option<(Segment, Option<Offset>)> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.first <= from);
        let index = after.saturating_sub(1);
        let segment = segments.get(index)?.clone();
        Some((segment, segments.get(index + 1).map(|next| next.first)))
    }

    /// From now on `news` is marked with `tag` when records arrive.
    pub(super) fn listen(&self, news: &Arc<News>, tag: usize) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|(listener, _)| listener.strong_count() > 0);
        listeners.push((Arc::downgrade(news), tag));
    }
}

impl Sql {
    fn new(topic: &str, index: u32, compacted: bool) -> Self {
        let name = format!("{topic}/{index}");
        let table = quoted(&name);
        // AUTOINCREMENT: an offset is not used twice, even when the newest record is compacted away.
        let columns = if compacted {
            "at INTEGER NOT NULL, key BLOB NOT NULL UNIQUE, headers BLOB NOT NULL, value BLOB"
        } else {
            "at INTEGER NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB"
        };
        let auto = if compacted { " AUTOINCREMENT" } else { "" };
        Self {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {table} (\"offset\" INTEGER PRIMARY KEY{auto}, {columns})"
            ),
            insert: format!("INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5)"),
            select: format!(
                "SELECT \"offset\", at, key, headers, value FROM {table} \
                 WHERE \"offset\" >= ?1 AND \"offset\" < ?2 ORDER BY \"offset\" LIMIT ?3"
            ),
            delete_key: format!("DELETE FROM {table} WHERE key = ?1"),
            find_key: format!(
                "SELECT \"offset\" FROM {table} WHERE key = ?1 AND value IS NOT NULL"
            ),
            table: name,
        }
    }
}
