//! A member of a group, polled from one thread.
//!
//! Every partition has a queue of its own. A partition without room is simply not polled: pausing it
//! would throw away what was fetched. The main queue is always polled, which keeps the member in
//! its group and brings rebalances; those are answered by `rebalance`, in small steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use ringback_core::log::{Committed, Consumer, Handler, LogError, Offset, Record, Waker};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, TopicId};

use super::Shared;
use super::context::Member;
use super::error::log_error;
use super::raw;
use super::rebalance::Rebalance;
use super::signal::Signal;
use super::statistics::ClientKind;

/// All partition queues are looked at this often whether or not they announced anything: such an
/// announcement can get lost (rust-rdkafka #665, #840), and the main queue wants to be polled.
const SWEEP: Duration = Duration::from_secs(1);

/// At most this many records of one partition per poll, so that each gets its turn.
const TURN: usize = 1_024;

/// How long leaving the group may take when the brokers do not answer.
const LEAVE: Duration = Duration::from_secs(10);

/// How long the last commit may take, beyond what `drain` left.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// Consumes as a member of a group; see [`Consumer`].
pub struct KafkaConsumer {
    /// `Some` until it has left.
    member: Option<GroupMember>,
    waker: Waker,
}

impl KafkaConsumer {
    pub(super) fn new(
        shared: Arc<Shared>,
        group: &str,
        topics: &[TopicId],
    ) -> Result<Self, LogError> {
        let member = GroupMember::new(shared, group, topics)?;
        let (woken, signal) = (member.woken.clone(), member.signal.clone());
        let waker = Waker::new(move || {
            woken.store(true, Ordering::Release);
            signal.set();
        });
        Ok(Self {
            member: Some(member),
            waker,
        })
    }

    fn member(&mut self) -> Result<&mut GroupMember, LogError> {
        let left = || LogError::permanent("consuming", "this member has left its group");
        self.member.as_mut().ok_or_else(left)
    }
}

impl Consumer for KafkaConsumer {
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        self.member()?.poll(timeout, handler)
    }

    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        self.member()?.commit(positions)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn close(mut self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        match self.member.take() {
            Some(member) => member.close(drain, handler),
            None => Ok(()),
        }
    }
}

/// Dropped without `close`: nothing more is committed, but the group is told.
impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            member.leave();
        }
    }
}

/// The state behind a [`KafkaConsumer`].
pub(super) struct GroupMember {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    pub(super) client: Arc<BaseConsumer<Member>>,
    pub(super) owned: Vec<Owned>,
    pub(super) rebalance: Rebalance,
    pub(super) signal: Arc<Signal>,
    woken: Arc<AtomicBool>,
    swept: Instant,
    /// Whose turn it is first.
    turn: usize,
    /// How many commits were begun; the context counts those that ended.
    pub(super) commits_begun: u64,
}

/// A partition that is ours.
pub(super) struct Owned {
    pub(super) partition: Partition,
    /// Being given up: no more of it is handed over.
    pub(super) leaving: bool,
    queue: PartitionQueue<Member>,
    /// There may be something in the queue.
    ready: Arc<AtomicBool>,
    /// The offset after the last record that was handed over, or where reading begins.
    pub(super) next: Offset,
}

impl GroupMember {
    fn new(shared: Arc<Shared>, group: &str, topics: &[TopicId]) -> Result<Self, LogError> {
        let group_name = shared.config.group(group);
        let doing = format!("joining consumer group {group_name}");
        let context = Member::new(
            shared.config.tokens(),
            shared.commit_failures.clone(),
            shared.statistics.client(ClientKind::Consumer),
        );
        let mut client: BaseConsumer<Member> = shared
            .config
            .member(group)
            .create_with_context(context)
            .map_err(|error| log_error(&*doing, &error))?;
        raw::give_token(client.client(), &shared.config.tokens());
        let signal = Arc::new(Signal::default());
        client.set_nonempty_callback({
            let signal = signal.clone();
            move || signal.set()
        });
        let names: Vec<&str> = topics
            .iter()
            .map(|topic| shared.topics.spec(*topic).full_name.as_str())
            .collect();
        client
            .subscribe(&names)
            .map_err(|error| log_error(&*doing, &error))?;
        Ok(Self {
            shared,
            group: group_name,
            client: Arc::new(client),
            owned: Vec::new(),
            rebalance: Rebalance::default(),
            signal,
            woken: Arc::new(AtomicBool::new(false)),
            swept: Instant::now(),
            turn: 0,
            commits_begun: 0,
        })
    }

    /// Takes a partition's records out of the common queue. Before `assign`, or its first records
    /// go to the common queue nevertheless.
    pub(super) fn split(&self, partition: Partition) -> Option<Owned> {
        let topic = &self.shared.topics.spec(partition.topic).full_name;
        let index = i32::try_from(partition.index).ok()?;
        let mut queue = self.client.split_partition_queue(topic, index)?;
        let ready = Arc::new(AtomicBool::new(true));
        queue.set_nonempty_callback({
            let (ready, signal) = (ready.clone(), self.signal.clone());
            move || {
                ready.store(true, Ordering::Release);
                signal.set();
            }
        });
        Some(Owned {
            partition,
            leaving: false,
            queue,
            ready,
            next: 0,
        })
    }

    /// Empties the main queue: rebalances, ends of commits, errors.
    pub(super) fn serve_main(&mut self) -> Result<(), LogError> {
        let mut result = Ok(());
        loop {
            let before = self.client.context().events.load(Ordering::Relaxed);
            match self.client.poll(Duration::ZERO) {
                None => {
                    if self.client.context().events.load(Ordering::Relaxed) == before {
                        return result;
                    }
                }
                Some(Ok(message)) => self.put_back(&message),
                Some(Err(error)) => {
                    if let Some(error) = Self::complaint(&self.group, &error) {
                        result = Err(error);
                    }
                }
            }
        }
    }

    /// A record that went past its partition's queue is fetched again, in its turn.
    fn put_back(&self, message: &BorrowedMessage<'_>) {
        let topic = message.topic();
        let (partition, offset) = (message.partition(), message.offset());
        tracing::warn!(
            target: "ringback::kafka",
            "a record of {topic} [{partition}] went past its queue; reading on from {offset}"
        );
        let offset = KafkaOffset::Offset(offset);
        let result = self
            .client
            .seek(topic, partition, offset, Duration::from_secs(1));
        if let Err(error) = result {
            tracing::error!(target: "ringback::kafka", "seeking in {topic} [{partition}]: {error}");
        }
    }

    /// What the user has to hear of. librdkafka gets over a lost connection by itself.
    fn complaint(group: &str, error: &KafkaError) -> Option<LogError> {
        use rdkafka::error::RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code()?;
        let passing = matches!(
            code,
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::PollExceeded
                | Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::RebalanceInProgress
        );
        if passing {
            tracing::debug!(target: "ringback::kafka", "group {group}: {error}");
            return None;
        }
        let doing = format!("consuming as group {group}");
        let mut complaint = log_error(doing, error);
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            complaint.retriable = false;
        }
        Some(complaint)
    }

    /// Hands over what there is room for, giving every partition a turn. Returns how many.
    fn serve_partitions(&mut self, handler: &mut impl Handler) -> Result<usize, LogError> {
        let now = Instant::now();
        let sweep = now.duration_since(self.swept) >= SWEEP;
        if sweep {
            self.swept = now;
        }
        let count = self.owned.len();
        self.turn = if count == 0 {
            0
        } else {
            (self.turn + 1) % count
        };
        let mut taken = 0;
        let mut result = Ok(());
        for step in 0..count {
            let owned = &mut self.owned[(self.turn + step) % count];
            if owned.leaving || !(sweep || owned.ready.load(Ordering::Acquire)) {
                continue;
            }
            let room = handler.room(owned.partition).min(TURN);
            if room == 0 {
                continue;
            }
            // Cleared before looking, so that what arrives meanwhile sets it again.
            owned.ready.store(false, Ordering::Release);
            for served in 1..=room {
                match owned.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        taken += 1;
                        if message.offset() > owned.next {
                            let next = owned.next;
                            report_gap(&self.client, owned.partition, next, &message, handler);
                        }
                        owned.next = message.offset() + 1;
                        hand_over(owned.partition, &message, handler);
                    }
                    Some(Err(error)) => {
                        if let Some(error) = Self::complaint(&self.group, &error) {
                            result = Err(error);
                        }
                    }
                }
                if served == room {
                    owned.ready.store(true, Ordering::Release);
                }
            }
        }
        if taken > 0 {
            Ok(taken)
        } else {
            result.map(|()| 0)
        }
    }

    /// When to look again at the latest.
    fn wake_at(&self, deadline: Instant) -> Instant {
        let soon = self.rebalance.look_again(Instant::now());
        let sweep = self.swept + SWEEP;
        let next = soon.map_or(sweep, |soon| soon.min(sweep));
        next.min(deadline)
    }
}

/// Offsets without a record are normal (markers of transactions); what stood before the log's start
/// was a record that retention dropped before we read it (DL10).
fn report_gap(
    client: &BaseConsumer<Member>,
    partition: Partition,
    next: Offset,
    message: &BorrowedMessage<'_>,
    handler: &mut impl Handler,
) {
    let start = raw::log_start(client, message.topic(), message.partition());
    let end = start.map_or(next, |start| start.min(message.offset()));
    if end > next {
        handler.gap(partition, next..end);
    }
}

fn hand_over(partition: Partition, message: &BorrowedMessage<'_>, handler: &mut impl Handler) {
    let headers = raw::headers(message);
    handler.record(Record {
        partition,
        offset: message.offset(),
        appended: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key(),
        headers: &headers,
        value: message.payload(),
    });
}

impl GroupMember {
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut result = self.serve_main();
            let mut changed = self.tell_failed_commits(handler);
            match self.advance(handler) {
                Ok(news) => changed |= news,
                Err(error) => {
                    result = Err(error);
                    changed = true;
                }
            }
            let taken = match self.serve_partitions(handler) {
                Ok(taken) => taken,
                Err(error) => {
                    result = Err(error);
                    0
                }
            };
            let woken = self.woken.swap(false, Ordering::AcqRel);
            if result.is_err() || changed || taken > 0 || woken || Instant::now() >= deadline {
                return result;
            }
            self.signal.wait_until(self.wake_at(deadline));
        }
    }

    fn close(mut self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let deadline = Instant::now() + drain;
        self.give_up_all(handler, deadline);
        self.drop_lost(handler);
        let all: Vec<Partition> = self.owned.iter().map(|o| o.partition).collect();
        let result = self.last_commit(&all, handler, deadline.max(Instant::now() + LAST_COMMIT));
        self.owned.clear();
        self.leave();
        result
    }

    /// Leaves the group, on a thread of its own so that brokers that are away cannot hold us.
    fn leave(self) {
        let Self {
            client,
            group,
            owned,
            mut rebalance,
            ..
        } = self;
        drop(owned);
        client.context().closing.store(true, Ordering::Release);
        let changes = std::mem::take(&mut *client.context().changes.lock());
        for change in rebalance.unanswered().iter().chain(&changes) {
            if let Err(error) = super::context::answer(&client, change) {
                tracing::debug!(target: "ringback::kafka", "answering a rebalance on close: {error}");
            }
        }
        let (done, closed) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("kafka-leave".to_owned())
            .spawn(move || {
                drop(client);
                let _ = done.send(());
            });
        match thread {
            Ok(_) if closed.recv_timeout(LEAVE).is_err() => tracing::warn!(
                target: "ringback::kafka",
                "leaving group {group} takes more than {} s; its partitions are free when its \
                 session ends",
                LEAVE.as_secs()
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(target: "ringback::kafka", "leaving group {group}: {error}");
            }
        }
    }
}
