//! Notes when tokens are used, beside the requests they are used for.

use parking_lot::Mutex;
use ringback_core::account::uses::{Noted, TokenUse, USE_VERSION};
use ringback_core::log::{Append, Appender, Completion};
use ringback_core::time::Clock;
use ringback_core::topics::{Role, TopicId, Topics};
use uuid::Uuid;

/// What is noted of one process.
pub struct UseNotes {
    topic: Option<TopicId>,
    noted: Mutex<Noted>,
}

impl UseNotes {
    /// For a log with these topics.
    pub fn new(topics: &Topics) -> Self {
        Self {
            topic: topics.find(Role::Uses),
            noted: Mutex::default(),
        }
    }

    /// Notes that a token, which exists, is used now. It does not wait for the log, and what the log does
    /// not take is not noted again before another use is due: a use is no event that must not be lost.
    pub fn note<C: Completion>(
        &self,
        appender: &impl Appender<C>,
        reply: C::Token,
        token: Uuid,
        clock: &Clock,
    ) {
        let Some(topic) = self.topic else { return };
        if !self.noted.lock().is_due(token, clock.steady()) {
            return;
        }
        let used = TokenUse {
            version: USE_VERSION,
            token,
            used: clock.now(),
        };
        let key = token.as_hyphenated().to_string();
        let Ok(value) = serde_json::to_vec(&used) else {
            return;
        };
        let record = Append {
            topic,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(&value),
        };
        if let Err((_, error)) = appender.append(record, reply) {
            tracing::debug!(%error, "the use of a token is not noted");
        }
    }
}
