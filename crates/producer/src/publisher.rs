//! Events into the log, with acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::catalogue::Family;
use ringback_core::event::Event;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log, LogError,
};
use ringback_core::record::HeaderBuf;
use ringback_core::topics::{Role, Topics};
use tokio::sync::oneshot;

/// How long a publish waits for room in the queue in front of the log.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it looks for room.
const QUEUE_WAIT_STEP: Duration = Duration::from_millis(5);

/// How a [`Publisher`] appends.
pub type PublisherOptions = AppenderOptions;

/// An event was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log did not acknowledge. The event may be there all the same: sending it again with the
    /// same id makes a duplicate at worst, not sending it again may lose it.
    #[error("event {id} is not acknowledged: {reason}")]
    Unavailable {
        /// The event's id.
        id: uuid::Uuid,
        /// What the log said.
        reason: String,
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
    /// A publisher with a queue of its own.
    pub fn start(log: &L, options: PublisherOptions) -> Result<Self, LogError> {
        Ok(Self {
            appender: log.appender(options, Replies)?,
            topics: log.topics().clone(),
        })
    }

    /// Publishes an event; returns when the log has acknowledged it.
    pub async fn publish(&self, event: Event) -> Result<Appended, PublishError> {
        let waiting = self.hand_over(&event).await;
        finish(&event, waiting).await
    }

    /// Publishes events side by side; returns when every one has ended, in their order.
    pub async fn publish_batch(&self, events: &[Event]) -> Vec<Result<Appended, PublishError>> {
        let mut waiting = Vec::with_capacity(events.len());
        for event in events {
            waiting.push(self.hand_over(event).await);
        }
        let mut results = Vec::with_capacity(events.len());
        for (event, waiting) in events.iter().zip(waiting) {
            results.push(finish(event, waiting).await);
        }
        results
    }

    /// Hands an event to the log, waiting a little while its queue is full.
    async fn hand_over(&self, event: &Event) -> Result<Waiting, AppendError> {
        let family = Family::of(event.name.as_str());
        let Some(topic) = self.topics.find(Role::Events(family)) else {
            let (topic, reason) = (format!("events.{family}"), "no such topic".to_owned());
            return Err(AppendError::Refused { topic, reason });
        };
        let mut buf = HeaderBuf::default();
        buf.push_event(event);
        let key = key(event);
        let began = Instant::now();
        loop {
            let (reply, waiting) = oneshot::channel();
            let handed = {
                let headers = buf.headers();
                let key = Some(key.as_bytes());
                let record = Append {
                    topic,
                    key,
                    headers: &headers,
                    value: Some(&event.data),
                };
                self.appender
                    .append(record, reply)
                    .map_err(|(_, error)| error)
            };
            match handed {
                Ok(()) => return Ok(waiting),
                Err(AppendError::QueueFull) if began.elapsed() < QUEUE_WAIT_MAX => {
                    tokio::time::sleep(QUEUE_WAIT_STEP).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

type Waiting = oneshot::Receiver<Result<Appended, AppendError>>;

async fn finish(
    event: &Event,
    waiting: Result<Waiting, AppendError>,
) -> Result<Appended, PublishError> {
    let ended = match waiting {
        // A dropped reply is an append that nobody will finish: not acknowledged.
        Ok(waiting) => waiting.await.unwrap_or(Err(AppendError::Unavailable {
            topic: "events".to_owned(),
            reason: "the log was closed".to_owned(),
        })),
        Err(error) => Err(error),
    };
    ended.map_err(|error| match error {
        AppendError::Refused { reason, .. } => PublishError::Refused {
            id: event.id,
            reason,
        },
        other => PublishError::Unavailable {
            id: event.id,
            reason: other.to_string(),
        },
    })
}

/// One call's events stay in one partition. Events about nothing in particular are spread by their
/// id, so that a tenant without subjects does not fill one partition.
fn key(event: &Event) -> String {
    match &event.subject {
        Some(subject) => format!("{}/{subject}", event.tenant),
        None => format!("{}/{}", event.tenant, event.id.as_hyphenated()),
    }
}
