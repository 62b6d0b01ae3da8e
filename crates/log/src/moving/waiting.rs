//! Where a waiting record goes, and in what form.
//!
//! A record is appended as it is, key, headers and value, with two consequences of its new append time
//! taken care of:
//! - What waits on a tier or rung is due by append time. It goes to the topic with the shortest delay
//!   that is not shorter than the rest of its time: never early (DL4), and not a whole tier late.
//! - An event without a time of its own, or with one in the future, has that of its append
//!   (`core::record::decode_event`), which must stay what it was (contract R6, R13): it is written out.

use std::sync::Arc;

use ringback_core::event::Event;
use ringback_core::log::Record;
use ringback_core::record::{decode_event, header};
use ringback_core::time::Timestamp;
use ringback_core::topics::TopicId;

/// Where a record goes.
pub(super) struct Place {
    pub(super) topic: TopicId,
    /// What is written instead of the record.
    pub(super) event: Option<Arc<Event>>,
}

impl Place {
    pub(super) fn as_it_is(topic: TopicId) -> Self {
        Self { topic, event: None }
    }

    pub(super) fn with_own_time(mut self, record: &Record<'_>) -> Self {
        let time = record.header(header::TIME);
        let time = time.and_then(|time| std::str::from_utf8(time).ok());
        let time = time.and_then(|time| Timestamp::parse(time).ok());
        if time.is_none_or(|time| time > record.appended) {
            // What cannot be read is parked there as it would have been here.
            self.event = decode_event(record).ok().map(Arc::new);
        }
        self
    }
}
