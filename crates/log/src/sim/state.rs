//! What the simulated log holds, under one lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::{Append, Header, LogError, Offset, Record, TopicProblem};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Cleanup, Partition, Topics};

use super::appender::{Ack, Waiting};
use super::faults::{Faults, Seen};
use super::group::Group;
use super::watch::Watcher;

/// A partition, whichever table of topics it is called by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Place {
    /// Position in [`State::topics`].
    pub(super) topic: usize,
    pub(super) index: u32,
}

/// Everything there is.
#[derive(Default)]
pub(super) struct State {
    pub(super) seed: u64,
    pub(super) topics: Vec<Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    /// Handed over and not in the log yet.
    pub(super) waiting: VecDeque<Waiting>,
    /// Ends of appends that are not reported yet, by appender and partition, in order.
    pub(super) acks: BTreeMap<(u64, Place), VecDeque<Ack>>,
    pub(super) faults: Faults,
    pub(super) seen: Seen,
    /// Raised with every change that somebody may wait for.
    pub(super) version: u64,
    /// Raised when the clock is moved.
    pub(super) moved: u64,
    pub(super) stop: bool,
    /// Processes that stand still: nothing of theirs goes out, and they hear nothing.
    pub(super) suspended: BTreeSet<u64>,
    pub(super) watcher: Option<Box<dyn Watcher>>,
    pub(super) last_id: u64,
}

pub(super) struct Topic {
    pub(super) name: String,
    pub(super) cleanup: Cleanup,
    pub(super) partitions: Vec<Records>,
    /// Where the next record without a key goes.
    pub(super) spread: u32,
    /// Appends so far.
    pub(super) appends: u64,
    /// Records that are here once more, were reported as failed, or are read again.
    pub(super) repeats: u64,
    /// Compare-and-sets so far.
    pub(super) sets: u64,
    /// Followers see nothing beyond this, and do not know the end.
    pub(super) held_at: Option<Offset>,
}

/// The records of a partition.
#[derive(Default)]
pub(super) struct Records {
    /// Before the first that is kept.
    pub(super) start: Offset,
    /// The next to be given out.
    pub(super) end: Offset,
    newest: Timestamp,
    kept: VecDeque<Arc<Stored>>,
}

/// A record as it is kept.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) offset: Offset,
    pub(super) appended: Timestamp,
    pub(super) content: Arc<Content>,
}

#[derive(Debug)]
pub(super) struct Content {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) value: Option<Vec<u8>>,
}

impl Content {
    pub(super) fn of(record: &Append<'_>) -> Self {
        let headers = record.headers.iter();
        Self {
            key: record.key.map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.name.to_owned(), header.value.to_vec()))
                .collect(),
            value: record.value.map(<[u8]>::to_vec),
        }
    }
}

impl Stored {
    /// Lends the record to a handler.
    pub(super) fn lend(&self, partition: Partition, handler: &mut dyn FnMut(Record<'_>)) {
        let Content {
            key,
            headers,
            value,
        } = &*self.content;
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| Header { name, value })
            .collect();
        handler(Record {
            partition,
            offset: self.offset,
            appended: self.appended,
            key: key.as_deref(),
            headers: &headers,
            value: value.as_deref(),
        });
    }
}

impl Records {
    /// Appends; gives offset and time.
    pub(super) fn push(&mut self, content: Arc<Content>, now: Timestamp) -> (Offset, Timestamp) {
        // Append times of a partition do not go back, whatever the clock does.
        self.newest = self.newest.max(now);
        let (offset, appended) = (self.end, self.newest);
        self.kept.push_back(Arc::new(Stored {
            offset,
            appended,
            content,
        }));
        self.end += 1;
        (offset, appended)
    }

    /// At most `most` records from this offset on.
    pub(super) fn from(&self, offset: Offset, most: usize) -> Vec<Arc<Stored>> {
        let first = self.kept.partition_point(|stored| stored.offset < offset);
        self.kept.iter().skip(first).take(most).cloned().collect()
    }

    /// The newest record of a key.
    pub(super) fn newest_of(&self, key: &[u8]) -> Option<&Arc<Stored>> {
        let is_it = |stored: &&Arc<Stored>| stored.content.key.as_deref() == Some(key);
        self.kept.iter().rev().find(is_it)
    }

    /// Forgets what is before this offset; how many records that were.
    pub(super) fn forget_before(&mut self, offset: Offset) -> usize {
        let offset = offset.min(self.end);
        self.start = self.start.max(offset);
        let gone = self.kept.partition_point(|stored| stored.offset < offset);
        self.kept.drain(..gone);
        gone
    }

    /// The first offset that was appended at this time or later.
    pub(super) fn since(&self, time: Timestamp) -> Offset {
        let first = self.kept.iter().find(|stored| stored.appended >= time);
        first.map_or(self.end, |stored| stored.offset)
    }

    /// Keeps the newest record of each key.
    pub(super) fn compact(&mut self) {
        let mut newest = BTreeMap::new();
        for stored in &self.kept {
            newest.insert(stored.content.key.clone(), stored.offset);
        }
        self.kept
            .retain(|stored| newest.get(&stored.content.key) == Some(&stored.offset));
    }
}

impl State {
    /// A number that nothing else has.
    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic.name == name)
    }

    /// Where a partition of this table is.
    pub(super) fn place(&self, topics: &Topics, partition: Partition) -> Result<Place, LogError> {
        let name = &topics.spec(partition.topic).full_name;
        let index = partition.index;
        self.find(name)
            .map(|topic| Place { topic, index })
            .filter(|place| self.records(*place).is_some())
            .ok_or_else(|| {
                let doing = format!("looking up partition {index} of topic {name}");
                LogError::permanent(doing, "it does not exist; create the topics first")
            })
    }

    pub(super) fn records(&self, place: Place) -> Option<&Records> {
        let topic = self.topics.get(place.topic)?;
        topic.partitions.get(usize::try_from(place.index).ok()?)
    }

    pub(super) fn records_mut(&mut self, place: Place) -> Option<&mut Records> {
        let topic = self.topics.get_mut(place.topic)?;
        topic.partitions.get_mut(usize::try_from(place.index).ok()?)
    }

    /// Creates topics and partitions that are missing, and takes over a changed retention.
    pub(super) fn create(&mut self, topics: &Topics) {
        for (_, spec) in topics.iter() {
            let at = self.find(&spec.full_name).unwrap_or_else(|| {
                self.topics.push(Topic {
                    name: spec.full_name.clone(),
                    cleanup: spec.cleanup,
                    partitions: Vec::new(),
                    spread: 0,
                    appends: 0,
                    repeats: 0,
                    sets: 0,
                    held_at: None,
                });
                self.topics.len() - 1
            });
            let topic = &mut self.topics[at];
            topic.cleanup = spec.cleanup;
            let wanted = spec.partitions as usize;
            if topic.partitions.len() < wanted {
                topic.partitions.resize_with(wanted, Records::default);
            }
        }
        self.version += 1;
    }

    /// How the topics differ from a table.
    pub(super) fn problems(&self, topics: &Topics) -> Vec<TopicProblem> {
        let mut problems = Vec::new();
        for (_, spec) in topics.iter() {
            let mut differs = |setting: &str, expected: String, found: String| {
                if expected != found {
                    problems.push(TopicProblem {
                        topic: spec.full_name.clone(),
                        setting: setting.to_owned(),
                        expected,
                        found,
                    });
                }
            };
            let Some(at) = self.find(&spec.full_name) else {
                differs("it", "a topic".to_owned(), "missing".to_owned());
                continue;
            };
            let topic = &self.topics[at];
            let count = topic.partitions.len().to_string();
            differs("partitions", spec.partitions.to_string(), count);
            let cleanup = |cleanup: Cleanup| format!("{cleanup:?}");
            differs("cleanup", cleanup(spec.cleanup), cleanup(topic.cleanup));
        }
        problems
    }

    /// Forgets what is before this offset, and counts what a group had still to read (DL10).
    pub(super) fn forget_before(&mut self, place: Place, offset: Offset) {
        let unread: usize = self
            .groups
            .values()
            .filter(|group| group.reads(place))
            .map(|group| {
                let from = group.committed.get(&place).map_or(0, |last| last.offset);
                let records = self.records(place);
                let kept = records.map_or(Vec::new(), |records| records.from(from, usize::MAX));
                kept.iter().filter(|kept| kept.offset < offset).count()
            })
            .sum();
        self.seen.removed_unread += unread as u64;
        if let Some(records) = self.records_mut(place) {
            records.forget_before(offset);
        }
        self.version += 1;
    }

    /// Applies the retention of every topic.
    pub(super) fn retain(&mut self, now: Timestamp) {
        let over: Vec<(Place, Offset)> = self
            .topics
            .iter()
            .enumerate()
            .filter_map(|(topic, stored)| match stored.cleanup {
                Cleanup::Delete { retention } => Some((topic, stored, retention)),
                Cleanup::Compact => None,
            })
            .flat_map(|(topic, stored, retention): (usize, &Topic, Duration)| {
                (0u32..)
                    .zip(&stored.partitions)
                    .map(move |(index, records)| {
                        (Place { topic, index }, records.since(now - retention))
                    })
            })
            .collect();
        for (place, offset) in over {
            self.forget_before(place, offset);
        }
    }
}
