//! What waits in the partitions of consumer groups: how far a process is behind, for how long the oldest
//! record has been due, and whether the partitions move at all. It only looks; nothing here is on the way
//! of a record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::log::{Log, LogError, Offset, Reader};
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{Partition, TopicId, Topics};

use crate::metrics::{Gauge, Metrics};

/// How often to look: what an age may be wrong by.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Ends of a partition that are remembered. With more, every second one is forgotten.
const ENDS_MAX: usize = 2048;

/// The partitions that a member of a group owns, with the lowest unfinished offset of each: told by who
/// works on them, for a [`Watch`] to look at.
#[derive(Clone, Default, Debug)]
pub struct Progress(Arc<Mutex<BTreeMap<Partition, Offset>>>);

impl Progress {
    /// These and no others are owned now.
    pub fn set(&self, owned: impl Iterator<Item = (Partition, Offset)>) {
        let mut known = self.0.lock();
        known.clear();
        known.extend(owned);
    }
}

/// Looks at the progress of a group's member every [`LOOK_EVERY`], on a thread of its own, until it is
/// dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches a member of `group` by `clock`, which should not be far from that of the log.
    ///
    /// # Errors
    ///
    /// The log cannot be used, or there is no thread for it.
    pub fn start<L: Log>(
        log: &L,
        group: &'static str,
        progress: Progress,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, WatchError> {
        let mut waiting = Waiting::new(log, vec![group], metrics)?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let look = move || {
            while !stopped.load(Ordering::Acquire) {
                let owned = progress.0.lock().clone();
                if let Err(error) = waiting.look(&owned, clock.now(), clock.steady()) {
                    // That the log is away is said by those who need it.
                    tracing::debug!(%error, group, "looking at what waits");
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("watch {group}"))
            .spawn(look)
            .map_err(WatchError::Thread)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that watches what waits panicked");
            }
        }
    }
}

/// Nobody watches what waits.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The log cannot be used.
    #[error("starting to watch what waits: {0}")]
    Log(#[from] LogError),
    /// The thread cannot be started.
    #[error("starting the thread that watches what waits: {0}")]
    Thread(std::io::Error),
}

/// What is known of the partitions that are owned, in all groups that this process is in.
pub struct Waiting<R> {
    groups: Vec<&'static str>,
    reader: R,
    topics: Arc<Topics>,
    metrics: Metrics,
    partitions: BTreeMap<Partition, Seen>,
}

impl<R: Reader> Waiting<R> {
    /// Nothing is known yet.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn new<L: Log<Reader = R>>(
        log: &L,
        groups: Vec<&'static str>,
        metrics: Metrics,
    ) -> Result<Self, LogError> {
        Ok(Self {
            groups,
            reader: log.reader()?,
            topics: log.topics().clone(),
            metrics,
            partitions: BTreeMap::new(),
        })
    }

    /// Blocking: looks once, and publishes what it sees. `owned` has the lowest unfinished offset of each
    /// partition; `now` is the log's time, `steady` never goes back.
    ///
    /// # Errors
    ///
    /// The log did not answer. What is published is then of the last look.
    pub fn look(
        &mut self,
        owned: &BTreeMap<Partition, Offset>,
        now: Timestamp,
        steady: Duration,
    ) -> Result<(), LogError> {
        self.partitions.retain(|known, _| owned.contains_key(known));
        let partitions: Vec<_> = owned.keys().copied().collect();
        let bounds = self.reader.all_bounds(&partitions)?;
        for ((partition, next), bounds) in owned.iter().zip(bounds) {
            // Retention may have been quicker.
            let next = (*next).max(bounds.start);
            let seen = self.partitions.entry(*partition).or_default();
            if seen.look(next, bounds.end, now, steady) {
                self.reader
                    .read(*partition, next..next + 1, &mut |record| {
                        seen.oldest = Some(record.appended);
                    })?;
            }
        }
        publish(
            &self.metrics,
            &self.topics,
            &self.groups,
            &self.partitions,
            now,
            steady,
        );
        Ok(())
    }
}

/// What was seen of a partition.
#[derive(Default)]
struct Seen {
    /// The lowest unfinished offset.
    next: Offset,
    /// The offset after the last record.
    end: Offset,
    /// Since when `next` has been the same, by the steady clock.
    since: Duration,
    /// When the record at `next` was appended, if there is one and it is known.
    oldest: Option<Timestamp>,
    /// Where the log ended, and when that was last seen, ascending: tells of records that came since when
    /// they came, without reading them.
    ends: VecDeque<(Offset, Timestamp)>,
}

impl Seen {
    /// Takes in where the partition is; whether the record at `next` must be read to know its time.
    fn look(&mut self, next: Offset, end: Offset, now: Timestamp, steady: Duration) -> bool {
        if next != self.next || self.ends.is_empty() {
            self.since = steady;
            self.oldest = None;
        }
        (self.next, self.end) = (next, end);
        match self.ends.back_mut() {
            // Still: what comes next came later than this.
            Some((known, at)) if *known == end => *at = now,
            Some((known, _)) if *known > end => {}
            _ => self.ends.push_back((end, now)),
        }
        // Of those at or before `next`, only the last bounds when the next record came.
        while self.ends.get(1).is_some_and(|(known, _)| *known <= next) {
            self.ends.pop_front();
        }
        if self.ends.len() > ENDS_MAX {
            let mut keep = false;
            self.ends.retain(|_| {
                keep = !keep;
                keep
            });
        }
        if next >= end {
            self.oldest = None;
            return false;
        }
        if self.oldest.is_some() {
            return false;
        }
        // It came between two looks; the earlier is told, so that no age is too small.
        match self.ends.front() {
            Some((known, at)) if *known <= next => {
                self.oldest = Some(*at);
                false
            }
            // It was there before the first look.
            _ => true,
        }
    }

    fn lag(&self) -> Offset {
        (self.end - self.next).max(0)
    }

    /// For how long the oldest record has been due.
    fn overdue(&self, delay: Duration, now: Timestamp) -> Duration {
        let waited = self.oldest.map_or(Duration::ZERO, |at| now.since(at));
        waited.saturating_sub(delay)
    }
}

/// Publishes what was seen, also of topics of which nothing is owned (any more).
fn publish(
    metrics: &Metrics,
    topics: &Topics,
    groups: &[&str],
    partitions: &BTreeMap<Partition, Seen>,
    now: Timestamp,
    steady: Duration,
) {
    for &group in groups {
        let (mut all, mut owned, mut stalled) = (0, 0, Duration::ZERO);
        for (topic, spec) in topics
            .iter()
            .filter(|(_, spec)| spec.role.group() == Some(group))
        {
            let (mut lag, mut oldest) = (0, Duration::ZERO);
            for seen in of_topic(partitions, topic) {
                let overdue = seen.overdue(topics.delay(topic), now);
                lag += seen.lag();
                oldest = oldest.max(overdue);
                // Only what is due can stand still.
                stalled = stalled.max(overdue.min(steady.saturating_sub(seen.since)));
                owned += 1;
            }
            let labels = [group, spec.name.as_str()];
            metrics.set(Gauge::LagRecords, &labels, lag as f64);
            metrics.set(Gauge::OldestWaiting, &labels, oldest.as_secs_f64());
            all += spec.partitions;
        }
        let group = [group];
        metrics.set(Gauge::Partitions, &group, f64::from(all));
        metrics.set(Gauge::PartitionsOwned, &group, f64::from(owned));
        metrics.set(Gauge::PartitionStalled, &group, stalled.as_secs_f64());
    }
}

fn of_topic(partitions: &BTreeMap<Partition, Seen>, topic: TopicId) -> impl Iterator<Item = &Seen> {
    let of = partitions.iter().filter(move |(of, _)| of.topic == topic);
    of.map(|(_, seen)| seen)
}

#[cfg(test)]
mod tests {
    use ringback_core::schedule::Schedule;
    use ringback_core::topics::{Role, TopicsConfig, group};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn steady(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_there_before_is_read_and_what_comes_is_known_by_when_it_came() {
        let mut seen = Seen::default();
        assert!(seen.look(10, 20, at(100), steady(0)), "nothing known of 10");
        seen.oldest = Some(at(40));
        assert_eq!(seen.lag(), 10);
        assert_eq!(seen.overdue(Duration::ZERO, at(100)), steady(60));
        assert_eq!(seen.overdue(steady(50), at(100)), steady(10));
        // Known until it is done.
        assert!(!seen.look(10, 25, at(105), steady(5)));
        assert!(
            seen.look(19, 30, at(110), steady(10)),
            "19 was there before"
        );
        // 20 came after the first look, 25 after the second.
        assert!(!seen.look(20, 30, at(115), steady(15)));
        assert_eq!(seen.oldest, Some(at(100)));
        assert!(!seen.look(27, 30, at(120), steady(20)));
        assert_eq!(seen.oldest, Some(at(105)));
        assert!(!seen.look(30, 30, at(125), steady(25)));
        assert_eq!((seen.lag(), seen.oldest), (0, None));
        assert!(!seen.look(30, 31, at(130), steady(30)));
        assert_eq!(
            seen.oldest,
            Some(at(125)),
            "when the log was last seen to end there"
        );
    }

    /// However long nothing had come before.
    #[test]
    fn what_comes_after_a_pause_has_not_waited_for_as_long_as_that() {
        let mut seen = Seen::default();
        for look in 0..100 {
            seen.look(7, 7, at(5 * look), steady(0));
        }
        assert!(!seen.look(7, 8, at(500), steady(500)));
        assert_eq!(seen.overdue(Duration::ZERO, at(500)), steady(5));
        assert!(!seen.look(7, 9, at(505), steady(505)));
        assert_eq!(seen.overdue(Duration::ZERO, at(505)), steady(10));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for look in 0..10_000 {
            seen.look(0, look, at(look), steady(0));
        }
        assert!(seen.ends.len() <= ENDS_MAX);
        // What is left still tells about when.
        assert!(!seen.look(9_000, 10_000, at(10_000), steady(0)));
        let oldest = seen.oldest.unwrap();
        assert!((at(8_900)..=at(9_000)).contains(&oldest), "{oldest:?}");
    }

    #[test]
    fn only_what_is_due_stands_still() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let partition = |role| Partition {
            topic: topics.find(role).unwrap(),
            index: 0,
        };
        let seen = |oldest, since| Seen {
            next: 5,
            end: 8,
            since: steady(since),
            oldest: Some(at(oldest)),
            ends: VecDeque::new(),
        };
        let partitions = BTreeMap::from([
            // Due for 10 s, the same for 400 s.
            (partition(Role::Retry(0)), seen(958, 600)),
            // Not due for long.
            (partition(Role::Retry(4)), seen(500, 0)),
        ]);
        let metrics = Metrics::new();
        publish(
            &metrics,
            &topics,
            &group::DISPATCHER,
            &partitions,
            at(1000),
            steady(1000),
        );
        let text = metrics.expose();
        for line in [
            r#"ringback_lag_records{group="dispatcher.retries",topic="retry.32s"} 3"#,
            r#"ringback_oldest_waiting_seconds{group="dispatcher.retries",topic="retry.32s"} 10"#,
            r#"ringback_oldest_waiting_seconds{group="dispatcher.retries",topic="retry.2h"} 0"#,
            r#"ringback_lag_records{group="dispatcher.events.cdr",topic="events.cdr"} 0"#,
            r#"ringback_partition_stalled_seconds{group="dispatcher.retries"} 10"#,
            r#"ringback_partition_stalled_seconds{group="dispatcher.events.cdr"} 0"#,
            r#"ringback_partitions_owned{group="dispatcher.retries"} 2"#,
            r#"ringback_partitions{group="dispatcher.retries"} 30"#,
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
    }
}
