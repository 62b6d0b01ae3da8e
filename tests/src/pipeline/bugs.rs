//! Planted bugs: a log that does for one process what a broken dispatcher would do, or shows it what
//! makes it do so. Each is there to prove that a checker can fail.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Consumer, Follower, GroupView, Handler, Log, LogError, Offset, Record, Revision, TopicProblem,
    Waker, WriteError,
};
use ringback_core::record::Attempt;
use ringback_core::topics::{Partition, Role, TopicId, Topics};
use ringback_log::sim::{Sim, SimAppender, SimClock, SimConsumer, SimFollower, SimLog, SimReader};

use super::oracle::Check;

/// What is wrong with a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Commits everything that was read.
    CommitPastFailure,
    /// Commits what it committed before.
    CommitBack,
    /// Commits partitions that were taken away.
    CommitAfterRevoke,
    /// Takes an append for done when it is handed over.
    SettleBeforeAcknowledgement,
    /// Puts every retry on the first tier.
    WrongTier,
    /// Takes records of delay topics for older than they are.
    DueTooEarly,
    /// Goes on with what was taken away.
    RewriteAfterRevoke,
    /// Does not hear that a webhook was paused.
    SendWhilePaused,
    /// Does not know one of the webhooks.
    DropOfFanOut,
    /// Says that it sent what it did not send.
    ClaimUnsent,
    /// Sends other bytes.
    AlterBytes,
    /// Writes other data into retries.
    AlterData,
    /// Has more requests in flight than it may.
    ExceedCap,
    /// Records attempts as of another generation.
    StaleGeneration,
    /// Metrics gives its verdicts on the next generation.
    VerdictOnNextGeneration,
    /// The producer accepts before the log has acknowledged.
    AcceptUnacknowledged,
    /// Does not see that records were lost.
    HideLoss,
}

impl Bug {
    /// Each with the checker that is to find it.
    pub const ALL: [(Self, Check); 17] = [
        (Self::CommitPastFailure, Check::DL2),
        (Self::CommitBack, Check::DL2),
        (Self::CommitAfterRevoke, Check::DL8),
        (Self::SettleBeforeAcknowledgement, Check::DL3),
        (Self::WrongTier, Check::DL4),
        (Self::DueTooEarly, Check::DL4),
        (Self::RewriteAfterRevoke, Check::DL8),
        (Self::SendWhilePaused, Check::DL6),
        (Self::DropOfFanOut, Check::DL1),
        (Self::ClaimUnsent, Check::DL1),
        (Self::AlterBytes, Check::DL7),
        (Self::AlterData, Check::DL7),
        (Self::ExceedCap, Check::DL5),
        (Self::StaleGeneration, Check::R14),
        (Self::VerdictOnNextGeneration, Check::R14),
        (Self::AcceptUnacknowledged, Check::DL1),
        (Self::HideLoss, Check::DL10),
    ];
}

/// A process's log, with its bug if it has one.
#[derive(Clone)]
pub struct Planted {
    pub log: SimLog,
    pub clock: SimClock,
    pub bug: Option<Bug>,
}

impl Planted {
    /// A process's log on this simulated one.
    pub fn new(sim: &Sim, log: SimLog, bug: Option<Bug>) -> Self {
        let clock = sim.clock().clone();
        Self { log, clock, bug }
    }
}

impl Log for Planted {
    type Appender<C: Completion> = PlantedAppender<C>;
    type Consumer = PlantedConsumer;
    type Follower = PlantedFollower;
    type Reader = SimReader;

    fn topics(&self) -> &Arc<Topics> {
        self.log.topics()
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<PlantedAppender<C>, LogError> {
        let completion = Arc::new(completion);
        let inner = self.log.appender(options, Ends(completion.clone()))?;
        Ok(PlantedAppender {
            planted: self.clone(),
            inner,
            completion,
        })
    }

    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<PlantedConsumer, LogError> {
        Ok(PlantedConsumer {
            inner: self.log.consumer(group, topics)?,
            planted: self.clone(),
            read: BTreeMap::new(),
            committed: BTreeMap::new(),
            commits: 0,
        })
    }

    fn follower(&self, topic: TopicId) -> Result<PlantedFollower, LogError> {
        Ok(PlantedFollower {
            inner: self.log.follower(topic)?,
            planted: self.clone(),
        })
    }

    fn reader(&self) -> Result<SimReader, LogError> {
        self.log.reader()
    }

    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError> {
        self.log.group(group, topics)
    }

    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        self.log
            .compare_and_set_beside(topic, key, expected, value, beside)
    }

    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        self.log.create_topics()
    }

    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        self.log.check_topics()
    }
}

/// Ends appends that have not ended early.
pub struct Ends<C>(Arc<C>);

impl<C: Completion> Completion for Ends<C> {
    type Token = Option<C::Token>;

    fn done(&self, token: Option<C::Token>, result: Result<Appended, AppendError>) {
        if let Some(token) = token {
            self.0.done(token, result);
        }
    }
}

pub struct PlantedAppender<C: Completion> {
    planted: Planted,
    inner: SimAppender<Ends<C>>,
    completion: Arc<C>,
}

impl<C: Completion> Clone for PlantedAppender<C> {
    fn clone(&self) -> Self {
        Self {
            planted: self.planted.clone(),
            inner: self.inner.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<C: Completion> Appender<C> for PlantedAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        let topics = self.planted.topics();
        let role = topics.spec(record.topic).role;
        let mut record = record;
        let changed;
        match (self.planted.bug, role) {
            (Some(Bug::WrongTier), Role::Retry(_)) => {
                record.topic = topics.find(Role::Retry(0)).unwrap();
            }
            (Some(Bug::AlterData), Role::Retry(_)) => record.value = Some(b"{}"),
            (Some(Bug::StaleGeneration), Role::Attempts) => {
                changed = record.value.map(|value| {
                    let mut attempt: Attempt = serde_json::from_slice(value).unwrap();
                    attempt.generation += 1;
                    serde_json::to_vec(&attempt).unwrap()
                });
                record.value = changed.as_deref();
            }
            (Some(Bug::VerdictOnNextGeneration), Role::Health) => {
                changed = record.value.map(|value| {
                    let mut health: ringback_core::health::Health =
                        serde_json::from_slice(value).unwrap();
                    health.generation += 1;
                    serde_json::to_vec(&health).unwrap()
                });
                record.value = changed.as_deref();
            }
            (
                Some(Bug::SettleBeforeAcknowledgement),
                Role::Attempts | Role::Retry(_) | Role::Defer(_) | Role::Parked,
            )
            | (Some(Bug::AcceptUnacknowledged), Role::Events(_)) => {
                let handed = self.inner.append(record, None);
                let partition = Partition {
                    topic: record.topic,
                    index: 0,
                };
                let appended = Appended {
                    partition,
                    offset: 0,
                    at: self.planted.clock.now(),
                };
                return match handed {
                    Ok(()) => {
                        self.completion.done(token, Ok(appended));
                        Ok(())
                    }
                    Err((_, error)) => Err((token, error)),
                };
            }
            _ => {}
        }
        let handed = self.inner.append(record, Some(token));
        // It comes back as it was handed over.
        handed.map_err(|(token, error)| (token.unwrap(), error))
    }

    fn work(&self) {
        self.inner.work();
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.inner.flush(timeout)
    }
}

pub struct PlantedConsumer {
    inner: SimConsumer,
    planted: Planted,
    /// Behind the last record of each partition that was read.
    read: BTreeMap<Partition, Offset>,
    /// What was committed first, and last.
    committed: BTreeMap<Partition, (Committed, Committed)>,
    commits: u64,
}

impl Consumer for PlantedConsumer {
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let mut handler = PlantedHandler {
            inner: handler,
            planted: &self.planted,
            read: &mut self.read,
        };
        self.inner.poll(timeout, &mut handler)
    }

    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        self.commits += 1;
        let mut positions = positions.to_vec();
        match self.planted.bug {
            Some(Bug::CommitPastFailure) => {
                for (partition, committed) in &mut positions {
                    if let Some(read) = self.read.get(partition) {
                        committed.offset = *read;
                        committed.metadata.clear();
                    }
                }
            }
            Some(Bug::CommitBack) if self.commits.is_multiple_of(7) => {
                for (partition, committed) in &mut positions {
                    if let Some((first, _)) = self.committed.get(partition) {
                        *committed = first.clone();
                    }
                }
            }
            Some(Bug::CommitAfterRevoke) => {
                let owned: Vec<_> = positions.iter().map(|(partition, _)| *partition).collect();
                let more = self.committed.iter();
                let more = more.filter(|(partition, _)| !owned.contains(partition));
                positions.extend(more.map(|(partition, (_, last))| (*partition, last.clone())));
            }
            _ => {}
        }
        for (partition, committed) in &positions {
            let both = (committed.clone(), committed.clone());
            self.committed.entry(*partition).or_insert(both).1 = committed.clone();
        }
        self.inner.commit(&positions)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn close(mut self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let mut handler = PlantedHandler {
            inner: handler,
            planted: &self.planted,
            read: &mut self.read,
        };
        self.inner.close(drain, &mut handler)
    }
}

struct PlantedHandler<'a, H> {
    inner: &'a mut H,
    planted: &'a Planted,
    read: &'a mut BTreeMap<Partition, Offset>,
}

impl<H: Handler> Handler for PlantedHandler<'_, H> {
    fn assigned(&mut self, mut assignment: Assignment) {
        if self.planted.bug == Some(Bug::HideLoss)
            && let Some(committed) = &mut assignment.committed
        {
            committed.offset = committed.offset.max(assignment.log_start);
        }
        self.inner.assigned(assignment);
    }

    fn room(&mut self, partition: Partition) -> usize {
        self.inner.room(partition)
    }

    fn record(&mut self, mut record: Record<'_>) {
        self.read.insert(record.partition, record.offset + 1);
        let role = self.planted.topics().spec(record.partition.topic).role;
        // Not the first tier: an event must not seem to be younger than its record.
        let later = matches!(role, Role::Retry(tier) if tier > 0);
        if self.planted.bug == Some(Bug::DueTooEarly) && later {
            record.appended = record.appended - Duration::from_secs(5);
        }
        self.inner.record(record);
    }

    fn revoking(&mut self, partition: Partition) -> bool {
        self.inner.revoking(partition)
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        match self.planted.bug {
            Some(Bug::RewriteAfterRevoke) => None,
            _ => self.inner.revoked(partition),
        }
    }

    fn lost(&mut self, partition: Partition) {
        if self.planted.bug != Some(Bug::RewriteAfterRevoke) {
            self.inner.lost(partition);
        }
    }

    fn gap(&mut self, partition: Partition, lost: Range<Offset>) {
        self.inner.gap(partition, lost);
    }

    fn commit_failed(&mut self, partition: Partition) {
        self.inner.commit_failed(partition);
    }
}

pub struct PlantedFollower {
    inner: SimFollower,
    planted: Planted,
}

impl Follower for PlantedFollower {
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError> {
        let bug = self.planted.bug;
        let says = |record: &Record<'_>, text: &str| {
            let value = record.value.unwrap_or_default();
            String::from_utf8_lossy(value).contains(text)
        };
        self.inner.poll(timeout, &mut |record| {
            let hidden = match bug {
                Some(Bug::SendWhilePaused) => says(&record, "\"enabled\":false"),
                Some(Bug::DropOfFanOut) => says(&record, "\"name\":\"hook2\""),
                _ => false,
            };
            if !hidden {
                handler(record);
            }
        })
    }
}
