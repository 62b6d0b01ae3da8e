//! A log that refuses, delays or loses appends, or fails commits, on command; everything else is the
//! local log's.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Committed, Completion, Consumer,
    Follower, GroupView, Handler, Log, LogError, Offset, Record, Revision, TopicProblem, Waker,
    WriteError,
};
use ringback_core::topics::{Partition, Role, TopicId, Topics};
use ringback_log::local::LocalLog;

/// What becomes of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It goes to the log.
    None,
    QueueFull,
    /// It is taken, and not acknowledged.
    Unacknowledged,
    /// It is taken, and nothing is heard of it any more.
    Forgotten,
    Refused,
}

/// The faults of a log. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Of the next appends.
    next: Mutex<VecDeque<Fault>>,
    /// Of the appends after these.
    always: Mutex<Option<Fault>>,
    appends: AtomicUsize,
    configuration_away: AtomicBool,
    commits_fail: AtomicBool,
    /// Those that begin well fail, too.
    commits_fail_later: AtomicBool,
    /// Retention overtakes whoever reads: told at the next poll.
    gap: Mutex<Option<(Partition, Range<Offset>)>>,
}

impl Faults {
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.next.lock().unwrap().extend(faults);
    }

    pub(crate) fn always(&self, fault: Fault) {
        *self.0.always.lock().unwrap() = Some(fault);
    }

    /// How many appends were tried.
    pub(crate) fn appends(&self) -> usize {
        self.0.appends.load(Ordering::SeqCst)
    }

    pub(crate) fn configuration_away(&self) {
        self.0.configuration_away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn commits_fail(&self, fail: bool) {
        self.0.commits_fail.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn gap(&self, partition: Partition, lost: Range<Offset>) {
        *self.0.gap.lock().unwrap() = Some((partition, lost));
    }

    pub(crate) fn commits_fail_later(&self, fail: bool) {
        self.0.commits_fail_later.store(fail, Ordering::SeqCst);
    }

    fn take(&self) -> Fault {
        self.0.appends.fetch_add(1, Ordering::SeqCst);
        let next = self.0.next.lock().unwrap().pop_front();
        next.or(*self.0.always.lock().unwrap())
            .unwrap_or(Fault::None)
    }
}

#[derive(Clone)]
pub(crate) struct FaultyLog {
    log: LocalLog,
    faults: Faults,
}

impl FaultyLog {
    pub(crate) fn new(log: LocalLog, faults: Faults) -> Self {
        Self { log, faults }
    }

    /// The log as others see it, without faults.
    pub(crate) fn local(&self) -> &LocalLog {
        &self.log
    }
}

pub(crate) struct Shared<C>(Arc<C>);

impl<C: Completion> Completion for Shared<C> {
    type Token = C::Token;

    fn done(&self, token: C::Token, result: Result<Appended, AppendError>) {
        self.0.done(token, result);
    }
}

pub(crate) struct FaultyAppender<C: Completion> {
    appender: <LocalLog as Log>::Appender<Shared<C>>,
    completion: Arc<C>,
    faults: Faults,
    /// Nobody waits for what is appended here: no fault is meant for it.
    uses: Option<TopicId>,
}

impl<C: Completion> Clone for FaultyAppender<C> {
    fn clone(&self) -> Self {
        Self {
            appender: self.appender.clone(),
            completion: self.completion.clone(),
            faults: self.faults.clone(),
            uses: self.uses,
        }
    }
}

impl<C: Completion> Appender<C> for FaultyAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        let topic = "events".to_owned();
        let reason = "on command".to_owned();
        if Some(record.topic) == self.uses {
            return self.appender.append(record, token);
        }
        match self.faults.take() {
            Fault::None => self.appender.append(record, token),
            Fault::QueueFull => Err((token, AppendError::QueueFull)),
            Fault::Refused => Err((token, AppendError::Refused { topic, reason })),
            Fault::Unacknowledged => {
                let error = AppendError::Unavailable { topic, reason };
                self.completion.done(token, Err(error));
                Ok(())
            }
            Fault::Forgotten => {
                drop(token);
                Ok(())
            }
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.appender.flush(timeout)
    }
}

pub(crate) struct FaultyConsumer {
    consumer: <LocalLog as Log>::Consumer,
    faults: Faults,
    not_committed: Vec<Partition>,
}

impl Consumer for FaultyConsumer {
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let gap = self.faults.0.gap.lock().unwrap().take();
        if let Some((partition, lost)) = gap {
            handler.gap(partition, lost);
        }
        for partition in self.not_committed.drain(..) {
            handler.commit_failed(partition);
        }
        self.consumer.poll(timeout, handler)
    }

    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        if self.faults.0.commits_fail.load(Ordering::SeqCst) {
            return Err(LogError::retriable("committing", "on command"));
        }
        if self.faults.0.commits_fail_later.load(Ordering::SeqCst) {
            self.not_committed = positions.iter().map(|(partition, _)| *partition).collect();
            return Ok(());
        }
        self.consumer.commit(positions)
    }

    fn waker(&self) -> Waker {
        self.consumer.waker()
    }

    fn close(self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        self.consumer.close(drain, handler)
    }
}

pub(crate) struct FaultyFollower {
    follower: <LocalLog as Log>::Follower,
    faults: Faults,
}

impl Follower for FaultyFollower {
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError> {
        if self.faults.0.configuration_away.load(Ordering::SeqCst) {
            return Err(LogError::retriable("following", "on command"));
        }
        self.follower.poll(timeout, handler)
    }
}

impl Log for FaultyLog {
    type Appender<C: Completion> = FaultyAppender<C>;
    type Consumer = FaultyConsumer;
    type Follower = FaultyFollower;
    type Reader = <LocalLog as Log>::Reader;

    fn topics(&self) -> &Arc<Topics> {
        self.log.topics()
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<FaultyAppender<C>, LogError> {
        let completion = Arc::new(completion);
        Ok(FaultyAppender {
            appender: self.log.appender(options, Shared(completion.clone()))?,
            completion,
            faults: self.faults.clone(),
            uses: self.log.topics().find(Role::Uses),
        })
    }

    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<Self::Consumer, LogError> {
        Ok(FaultyConsumer {
            consumer: self.log.consumer(group, topics)?,
            faults: self.faults.clone(),
            not_committed: Vec::new(),
        })
    }

    fn follower(&self, topic: TopicId) -> Result<FaultyFollower, LogError> {
        Ok(FaultyFollower {
            follower: self.log.follower(topic)?,
            faults: self.faults.clone(),
        })
    }

    fn reader(&self) -> Result<Self::Reader, LogError> {
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
