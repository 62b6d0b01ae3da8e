//! Events into the log, with acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use ringback_core::catalogue::Family;
use ringback_core::event::{Event, EventName};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log, LogError,
};
use ringback_core::record::HeaderBuf;
use ringback_core::time::Clock;
use ringback_core::topics::{Role, Topics};
use ringback_telemetry::trace_id;
use ringback_telemetry::traces::{self, Accepting};
use tokio::sync::oneshot;

/// How long a publish waits for room in the queue in front of the log.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it looks for room: soon at first, then ever more rarely.
const QUEUE_LOOK_MIN: Duration = Duration::from_millis(1);
const QUEUE_LOOK_MAX: Duration = Duration::from_millis(50);
/// When to try again after [`PublishError::Unavailable`].
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How a [`Publisher`] appends.
pub type PublisherOptions = AppenderOptions;

/// An event was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublishError {
    /// The type is one of Ringback's own notices, which nobody else may send.
    #[error("event {id} is refused: type {name} is reserved for notices of Ringback itself")]
    Reserved {
        /// The event's id.
        id: uuid::Uuid,
        /// Its type.
        name: EventName,
    },
    /// The log did not acknowledge. The event may be there all the same: sending it again with the
    /// same id makes a duplicate at worst, not sending it again may lose it.
    #[error("event {id} is not acknowledged: {reason}")]
    Unavailable {
        /// The event's id.
        id: uuid::Uuid,
        /// What the log said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The log refuses it for good.
    #[error("event {id} is refused by the log: {reason}")]
    Refused {
        /// The event's id.
        id: uuid::Uuid,
        /// What the log said.
        reason: String,
    },
}

/// Publishes events; clones share one queue.
#[derive(Clone)]
pub struct Publisher<L: Log> {
    appender: L::Appender<Replies>,
    topics: Arc<Topics>,
    clock: Clock,
    internal: bool,
}

/// Tells each publish how its append ended.
pub struct Replies;

type Reply = oneshot::Sender<Result<Appended, AppendError>>;

impl Completion for Replies {
    type Token = Reply;

    fn done(&self, reply: Reply, result: Result<Appended, AppendError>) {
        // Nobody waits any more when a client has gone away; the event is in the log all the same.
        let _ = reply.send(result);
    }
}

impl<L: Log> Publisher<L> {
    /// A publisher with a queue of its own. Ringback's own notices (`webhook.*`, `source.gap`) are
    /// refused.
    pub fn start(log: &L, options: PublisherOptions) -> Result<Self, LogError> {
        Ok(Self {
            appender: log.appender(options, Replies)?,
            topics: log.topics().clone(),
            clock: ringback_log::system_clock(),
            internal: false,
        })
    }

    /// A publisher for parts of Ringback itself, which may also send its notices.
    pub fn start_internal(log: &L, options: PublisherOptions) -> Result<Self, LogError> {
        let publisher = Self::start(log, options)?;
        Ok(Self {
            internal: true,
            ..publisher
        })
    }

    /// Publishes an event; returns when the log has acknowledged it.
    pub async fn publish(&self, mut event: Event) -> Result<Appended, PublishError> {
        let traced = self.traced(&mut event);
        let waiting = self.hand_over(&event, &mut { QUEUE_WAIT_MAX }).await;
        self.finish(&event, waiting, traced).await
    }

    /// Publishes events side by side; returns when every one has ended, in their order. Each is given
    /// its place in its trace.
    pub async fn publish_batch(&self, events: &mut [Event]) -> Vec<Result<Appended, PublishError>> {
        let mut patience = QUEUE_WAIT_MAX;
        let mut waiting = Vec::with_capacity(events.len());
        for event in &mut *events {
            let traced = self.traced(event);
            waiting.push((self.hand_over(event, &mut patience).await, traced));
        }
        let mut results = Vec::with_capacity(events.len());
        for (event, (waiting, traced)) in events.iter().zip(waiting) {
            results.push(self.finish(event, waiting, traced).await);
        }
        results
    }

    fn traced(&self, event: &mut Event) -> Option<Accepting> {
        traces::accepting(event, || self.clock.now())
    }

    /// Where else something is appended that nobody waits for.
    pub(crate) fn appender(&self) -> &L::Appender<Replies> {
        &self.appender
    }

    /// Hands an event to the log, waiting while its queue is full for at most `patience`. What was
    /// waited in vain is gone for the rest of a batch: a log that is stuck must not be waited for
    /// once per event.
    async fn hand_over(
        &self,
        event: &Event,
        patience: &mut Duration,
    ) -> Result<Waiting, PublishError> {
        if !self.internal && is_reserved(&event.name) {
            let (id, name) = (event.id, event.name.clone());
            return Err(PublishError::Reserved { id, name });
        }
        let family = Family::of(event.name.as_str());
        let Some(topic) = self.topics.find(Role::Events(family)) else {
            let reason = format!("there is no topic events.{family}");
            return Err(PublishError::Refused {
                id: event.id,
                reason,
            });
        };
        let mut buf = HeaderBuf::default();
        buf.push_event(event);
        let key = key(event);
        let (mut reply, waiting) = oneshot::channel();
        let mut look = QUEUE_LOOK_MIN;
        loop {
            // The borrowed headers must not live across the wait: they are gathered per try.
            let handed = self.appender.append(
                Append {
                    topic,
                    key: Some(key.as_bytes()),
                    headers: &buf.headers(),
                    value: Some(&event.data),
                },
                reply,
            );
            match handed {
                Ok(()) => {
                    if !patience.is_zero() {
                        *patience = QUEUE_WAIT_MAX;
                    }
                    return Ok(waiting);
                }
                Err((again, AppendError::QueueFull)) if !patience.is_zero() => {
                    reply = again;
                    let wait = look.min(*patience);
                    tokio::time::sleep(wait).await;
                    *patience -= wait;
                    look = (look * 2).min(QUEUE_LOOK_MAX);
                }
                Err((_, error)) => return Err(publish_error(event, error)),
            }
        }
    }

    async fn finish(
        &self,
        event: &Event,
        waiting: Result<Waiting, PublishError>,
        traced: Option<Accepting>,
    ) -> Result<Appended, PublishError> {
        let result = match waiting {
            // A dropped reply is an append that nobody will finish: not acknowledged.
            Ok(waiting) => waiting
                .await
                .unwrap_or_else(|_| {
                    Err(AppendError::Unavailable {
                        topic: format!("events.{}", Family::of(event.name.as_str())),
                        reason: "the log was closed".to_owned(),
                    })
                })
                .map_err(|error| publish_error(event, error)),
            Err(error) => Err(error),
        };
        if result.is_ok() {
            tracing::debug!(event = %event.id, tenant = %event.tenant, trace = trace_id(event), "accepted");
        }
        if let Some(traced) = traced {
            let error = result.as_ref().err().map(ToString::to_string);
            traced.ended(event, self.clock.now(), error);
        }
        result
    }
}

type Waiting = oneshot::Receiver<Result<Appended, AppendError>>;

fn publish_error(event: &Event, error: AppendError) -> PublishError {
    match error {
        AppendError::Refused { reason, .. } => PublishError::Refused {
            id: event.id,
            reason,
        },
        AppendError::QueueFull | AppendError::Unavailable { .. } => PublishError::Unavailable {
            id: event.id,
            reason: error.to_string(),
            retry_after: RETRY_AFTER,
        },
    }
}

/// Whether a type is one of Ringback's own notices.
pub(crate) fn is_reserved(name: &EventName) -> bool {
    name.as_str().starts_with("webhook.") || name.as_str() == "source.gap"
}

/// One call's events stay in one partition. Events about nothing in particular are spread by their
/// id, so that a tenant without subjects does not fill one partition.
pub(crate) fn key(event: &Event) -> String {
    match &event.subject {
        Some(subject) => format!("{}/{subject}", event.tenant),
        None => format!("{}/{}", event.tenant, event.id.as_hyphenated()),
    }
}
