//! What becomes of foreign records, on its way into the log: appended again until it is acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use ringback_core::catalogue::Family;
use ringback_core::event::Event;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Header, Log, LogError,
    Offset, Waker,
};
use ringback_core::record::{HeaderBuf, Reason, header};
use ringback_core::topics::{Partition, Role, Topics};
use ringback_telemetry::traces::Accepting;

use crate::publisher::key;

/// Waits between tries of failed appends, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Bytes of records handed to the log and not acknowledged; beyond, nothing is read.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The outcome of one record.
pub(super) struct Outcome {
    /// Where the record was read.
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) what: What,
}

pub(super) enum What {
    /// With its place in its trace, if it is recorded.
    Event(Box<Event>, Option<Box<Accepting>>),
    /// A record that makes no event, as it was read.
    Parked(Box<Parked>),
}

pub(super) struct Parked {
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) value: Option<Bytes>,
    /// Where it was read and what is wrong with it.
    pub(super) detail: String,
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(event, _) => event.data.len(),
            Self::Parked(parked) => {
                let headers = parked
                    .headers
                    .iter()
                    .map(|(name, value)| name.len() + value.len());
                headers.sum::<usize>() + parked.value.as_ref().map_or(0, Bytes::len)
            }
        }
    }

    /// What is appended instead when the log refuses this for good: an event is parked, and what is
    /// too large even for that is parked without its value, which still stands on the raw topic.
    fn refused(self, place: &str, reason: &str) -> Self {
        let parked = match self {
            Self::Event(event, _) => {
                let mut buf = HeaderBuf::default();
                buf.push_event(&event);
                let headers = buf.headers().into_iter();
                Parked {
                    headers: headers
                        .map(|h| (h.name.to_owned(), h.value.to_vec()))
                        .collect(),
                    value: Some(event.data),
                    detail: format!("{place}: the log refuses the event: {reason}"),
                }
            }
            Self::Parked(mut parked) => {
                if let Some(value) = parked.value.take() {
                    let bytes = value.len();
                    parked.headers.clear();
                    parked
                        .detail
                        .push_str(&format!("; its {bytes} bytes are refused by the log"));
                }
                *parked
            }
        };
        Self::Parked(Box::new(parked))
    }
}

type Ended = (Outcome, Result<Appended, AppendError>);

/// Takes acknowledgements from the engine's thread to ours.
pub(super) struct Inbox {
    ended: Arc<Mutex<Vec<Ended>>>,
    waker: Waker,
}

impl Completion for Inbox {
    type Token = Outcome;

    fn done(&self, outcome: Outcome, result: Result<Appended, AppendError>) {
        self.ended.lock().push((outcome, result));
        self.waker.wake();
    }
}

/// The way into the log. Bounded by what is read: the caller reads nothing while there is no
/// [`room`](Self::has_room).
pub(super) struct Appends<L: Log> {
    appender: L::Appender<Inbox>,
    topics: Arc<Topics>,
    ended: Arc<Mutex<Vec<Ended>>>,
    /// Failed, to be appended again, in this order.
    backlog: VecDeque<Outcome>,
    backoff: Duration,
    retry_at: Option<Instant>,
    bytes: usize,
}

impl<L: Log> Appends<L> {
    pub(super) fn start(log: &L, options: AppenderOptions, waker: Waker) -> Result<Self, LogError> {
        let ended = Arc::<Mutex<Vec<Ended>>>::default();
        let inbox = Inbox {
            ended: ended.clone(),
            waker,
        };
        Ok(Self {
            appender: log.appender(options, inbox)?,
            topics: log.topics().clone(),
            ended,
            backlog: VecDeque::new(),
            backoff: BACKOFF_MIN,
            retry_at: None,
            bytes: 0,
        })
    }

    /// Whether more can be handed over. While something failed nothing overtakes it.
    pub(super) fn has_room(&self) -> bool {
        self.backlog.is_empty() && self.bytes < BYTES_MAX
    }

    /// When failed appends are due to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn add(&mut self, outcome: Outcome, now: Instant) {
        self.bytes += outcome.what.bytes();
        match self.backlog.is_empty() {
            true => self.append(outcome, now),
            false => self.backlog.push_back(outcome),
        }
    }

    /// Hands over what was acknowledged since, and tries again what failed. What belongs to a
    /// partition that is not `owned` any more is its new owner's.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        owned: impl Fn(Partition) -> bool,
        mut acknowledged: impl FnMut(Outcome),
    ) {
        let ended = std::mem::take(&mut *self.ended.lock());
        for (outcome, result) in ended {
            match result {
                Ok(_) => {
                    self.bytes -= outcome.what.bytes();
                    self.backoff = BACKOFF_MIN;
                    acknowledged(outcome);
                }
                Err(error) => self.failed(outcome, &error, now),
            }
        }
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        self.retry_at = None;
        for outcome in std::mem::take(&mut self.backlog) {
            if owned(outcome.partition) {
                self.append_in_order(outcome, now);
            } else {
                self.bytes -= outcome.what.bytes();
            }
        }
    }

    /// What follows a failure waits behind it.
    fn append_in_order(&mut self, outcome: Outcome, now: Instant) {
        match self.retry_at {
            None => self.append(outcome, now),
            Some(_) => self.backlog.push_back(outcome),
        }
    }

    fn append(&mut self, outcome: Outcome, now: Instant) {
        if let Err((outcome, error)) = self.try_append(outcome) {
            self.failed(outcome, &error, now);
        }
    }

    fn failed(&mut self, outcome: Outcome, error: &AppendError, now: Instant) {
        let outcome = match error {
            AppendError::Refused { reason, .. } => {
                let Outcome {
                    partition,
                    offset,
                    what,
                } = outcome;
                let topic = &self.topics.spec(partition.topic).full_name;
                tracing::error!(%error, topic, partition = partition.index, offset, "a record's outcome is refused by the log; parking what can be parked");
                self.bytes -= what.bytes();
                let what = what.refused(&format!("{topic}/{}@{offset}", partition.index), reason);
                self.bytes += what.bytes();
                Outcome {
                    partition,
                    offset,
                    what,
                }
            }
            AppendError::QueueFull => outcome,
            AppendError::Unavailable { .. } => {
                if self.retry_at.is_none() {
                    tracing::warn!(%error, "records of the raw topics wait for the log");
                }
                outcome
            }
        };
        self.backlog.push_back(outcome);
        if self.retry_at.is_none() {
            self.retry_at = Some(now + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn try_append(&self, outcome: Outcome) -> Result<(), (Outcome, AppendError)> {
        let mut buf = HeaderBuf::default();
        let mut foreign: &[(String, Vec<u8>)] = &[];
        // Cheap: the bytes are shared. The outcome itself travels as the token.
        let copied;
        let (role, key, value) = match &outcome.what {
            What::Event(event, _) => {
                buf.push_event(event);
                let family = Family::of(event.name.as_str());
                (
                    Role::Events(family),
                    Some(key(event)),
                    Some(event.data.clone()),
                )
            }
            What::Parked(parked) => {
                buf.push(header::REASON, Reason::Undeliverable);
                buf.push(header::DETAIL, &parked.detail);
                copied = parked.headers.clone();
                foreign = &copied;
                (Role::Parked, None, parked.value.clone())
            }
        };
        let Some(topic) = self.topics.find(role) else {
            return Err((outcome, no_topic(role)));
        };
        let mut headers = buf.headers();
        headers.extend(foreign.iter().map(|(name, value)| Header { name, value }));
        let append = Append {
            topic,
            key: key.as_deref().map(str::as_bytes),
            headers: &headers,
            value: value.as_deref(),
        };
        self.appender.append(append, outcome)
    }
}

/// Cannot be: every table has these rows.
fn no_topic(role: Role) -> AppendError {
    AppendError::Unavailable {
        topic: format!("{role:?}"),
        reason: "the table of topics has no such topic".to_owned(),
    }
}
