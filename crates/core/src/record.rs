//! Records: the form in which events, deliveries and attempts stand in the log.
//!
//! Events and deliveries are CloudEvents in the Kafka protocol binding's binary mode: attributes in
//! `ce_` headers, data in the value. On `events.*` structured mode is read as well. What we add for a delivery stands in `rb_` headers, which mean
//! nothing on `events.*`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloudevent::{
    CloudEvent, MEDIA_TYPE_JSON, SPEC_VERSION, is_media_type, is_structured, traceparent,
};
use crate::event::{
    Event, EventName, InvalidEvent, Source, Subject, TenantId, copy, parse_id, parse_time,
};
use crate::log::{Header, Record};
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// Version of the records written here. A reader ignores what it does not know.
pub const VERSION: u32 = 1;

/// Names of headers.
pub mod header {
    /// Media type of the value.
    pub const CONTENT_TYPE: &str = "content-type";
    /// CloudEvents `specversion`.
    pub const SPECVERSION: &str = "ce_specversion";
    /// CloudEvents `id`: a bare UUID where we wrote it.
    pub const ID: &str = "ce_id";
    /// CloudEvents `source`.
    pub const SOURCE: &str = "ce_source";
    /// CloudEvents `type`.
    pub const TYPE: &str = "ce_type";
    /// CloudEvents `time`.
    pub const TIME: &str = "ce_time";
    /// CloudEvents `subject`.
    pub const SUBJECT: &str = "ce_subject";
    /// CloudEvents extension: the tenant.
    pub const TENANT: &str = "ce_tenant";
    /// CloudEvents extension: W3C trace context.
    pub const TRACEPARENT: &str = "ce_traceparent";
    /// CloudEvents extension: `true` when an old event was accepted on purpose.
    pub const BACKFILL: &str = "ce_backfill";
    /// Version of our headers.
    pub const VERSION: &str = "rb_version";
    /// The webhook's id.
    pub const WEBHOOK: &str = "rb_webhook";
    /// Number of the attempt that comes next; in `parked` the number of attempts made.
    pub const ATTEMPT: &str = "rb_attempt";
    /// 0 for the first passage, then one more for each replay.
    pub const RUN: &str = "rb_run";
    /// When the run was accepted: the event's append time, or when a person asked for the replay.
    pub const ACCEPTED: &str = "rb_accepted";
    /// How often the delivery was put off without an attempt.
    pub const DEFERRALS: &str = "rb_deferrals";
    /// The replay that asked for the run, if one did.
    pub const REPLAY: &str = "rb_replay";
    /// Why it was parked.
    pub const REASON: &str = "rb_reason";
    /// More about the reason, for people.
    pub const DETAIL: &str = "rb_detail";
}

/// Type of the events that somebody sends to one webhook to try it.
pub const TEST_EVENT: &str = "webhook.test";

/// [`Attempt::next`] of an attempt that succeeded.
pub const DELIVERED: &str = "delivered";

/// Why a delivery was parked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The webhook is switched off (contract R3).
    Paused,
    /// The webhook was disabled for its error rate (contract R14).
    Disabled,
    /// The last retry failed (contract R12).
    Exhausted,
    /// No attempt may start any more (contract R13).
    Expired,
    /// The receiver answered 404 (contract R10).
    Rejected,
    /// It can never be sent.
    Undeliverable,
    /// Its webhook was removed.
    Removed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Paused,
        Self::Disabled,
        Self::Exhausted,
        Self::Expired,
        Self::Rejected,
        Self::Undeliverable,
        Self::Removed,
    ];

    /// Its name in records, metrics and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Undeliverable => "undeliverable",
            Self::Removed => "removed",
        }
    }

    /// The reason with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Headers being put together, in one buffer.
#[derive(Default)]
pub struct HeaderBuf {
    text: String,
    ends: Vec<(&'static str, usize)>,
}

impl HeaderBuf {
    /// Adds a header.
    pub fn push(&mut self, name: &'static str, value: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        self.ends.push((name, self.text.len()));
    }

    /// The attributes of an event.
    pub fn push_event(&mut self, event: &Event) {
        self.text.reserve(320);
        self.ends.reserve(16);
        self.push(header::CONTENT_TYPE, "application/json");
        self.push(header::SPECVERSION, "1.0");
        self.push(header::ID, event.id.as_hyphenated());
        self.push(header::SOURCE, &event.source);
        self.push(header::TYPE, &event.name);
        self.push(header::TIME, event.time);
        self.push(header::TENANT, &event.tenant);
        if let Some(subject) = &event.subject {
            self.push(header::SUBJECT, subject);
        }
        if let Some(traceparent) = &event.traceparent {
            self.push(header::TRACEPARENT, traceparent);
        }
        if event.backfill {
            self.push(header::BACKFILL, true);
        }
    }

    /// The attributes of a delivery.
    pub fn push_delivery(&mut self, delivery: &Delivery) {
        self.push_event(&delivery.event);
        self.push(header::VERSION, VERSION);
        self.push(header::WEBHOOK, delivery.webhook.as_hyphenated());
        self.push(header::ATTEMPT, delivery.attempt);
        self.push(header::RUN, delivery.run);
        self.push(header::ACCEPTED, delivery.accepted);
        self.push(header::DEFERRALS, delivery.deferrals);
        if let Some(replay) = delivery.replay {
            self.push(header::REPLAY, replay.as_hyphenated());
        }
    }

    /// As the log takes them.
    pub fn headers(&self) -> Vec<Header<'_>> {
        let mut start = 0;
        self.ends
            .iter()
            .map(|&(name, end)| {
                let value = &self.text.as_bytes()[start..end];
                start = end;
                Header { name, value }
            })
            .collect()
    }
}

/// One event on its way to one webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The event.
    pub event: std::sync::Arc<Event>,
    /// The webhook's id.
    pub webhook: Uuid,
    /// Number of the attempt that comes next, from 0.
    pub attempt: u8,
    /// 0 for the first passage, then one more for each replay.
    pub run: u32,
    /// When the run was accepted.
    pub accepted: Timestamp,
    /// How often it was put off without an attempt.
    pub deferrals: u8,
    /// The replay that asked for this run.
    pub replay: Option<Uuid>,
}

impl Delivery {
    /// When the 24 hours of contract R13 began: when the event was triggered, never later than its
    /// acceptance; for a replay or a backfill, when it was asked for.
    pub fn began(&self) -> Timestamp {
        if self.run > 0 || self.event.backfill {
            self.accepted
        } else {
            self.event.time.min(self.accepted)
        }
    }
}

/// A record that is not what its topic should hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidRecord {
    /// A header is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header cannot be read.
    #[error("header {name} {value:?} cannot be read")]
    Unreadable {
        /// Which one.
        name: &'static str,
        /// Its value, shortened, with what is not UTF-8 replaced.
        value: String,
    },
    /// The event in it is not allowed.
    #[error(transparent)]
    Event(#[from] InvalidEvent),
    /// There is no value.
    #[error("the record has no value")]
    NoValue,
}

fn text<'a>(record: &Record<'a>, name: &'static str) -> Result<Option<&'a str>, InvalidRecord> {
    match record.header(name) {
        None => Ok(None),
        Some(value) => std::str::from_utf8(value)
            .map(Some)
            .map_err(|_| unreadable(name, value)),
    }
}

fn required<'a>(record: &Record<'a>, name: &'static str) -> Result<&'a str, InvalidRecord> {
    text(record, name)?.ok_or(InvalidRecord::Missing(name))
}

fn number<T: std::str::FromStr>(
    record: &Record<'_>,
    name: &'static str,
) -> Result<T, InvalidRecord> {
    let value = required(record, name)?;
    value
        .parse()
        .map_err(|_| unreadable(name, value.as_bytes()))
}

fn unreadable(name: &'static str, value: &[u8]) -> InvalidRecord {
    let value = String::from_utf8_lossy(value).chars().take(64).collect();
    InvalidRecord::Unreadable { name, value }
}

/// Reads the event of a record of `events.*`, in either mode of the CloudEvents Kafka binding. The
/// data is copied, but not looked at: see [`crate::event::check_data`].
///
/// A missing `time` is the append time, and one in the future is clamped to it. An id that is no UUID
/// gives one, see [`crate::cloudevent::id`].
pub fn decode_event(record: &Record<'_>) -> Result<Event, InvalidRecord> {
    match text(record, header::CONTENT_TYPE)? {
        Some(form) if is_media_type(form, MEDIA_TYPE_JSON) => {
            let value = record.value.ok_or(InvalidRecord::NoValue)?;
            accept(CloudEvent::parse_json(value)?, record)
        }
        // Another format, or a batch, of which the Kafka binding knows nothing.
        Some(form) if is_structured(form) => Err(unreadable(header::CONTENT_TYPE, form.as_bytes())),
        form => accept(binary(record, form)?, record),
    }
}

/// The event of a record in binary mode. `specversion` was never asked of direct producers; what is
/// there must be right.
fn binary<'a>(
    record: &Record<'a>,
    content_type: Option<&'a str>,
) -> Result<CloudEvent<'a>, InvalidRecord> {
    let optional = |name| text(record, name).map(|text| text.map(Cow::Borrowed));
    let needed = |name| required(record, name).map(|text| Some(Cow::Borrowed(text)));
    Ok(CloudEvent {
        spec_version: Some(
            text(record, header::SPECVERSION)?
                .unwrap_or(SPEC_VERSION)
                .into(),
        ),
        id: needed(header::ID)?,
        source: needed(header::SOURCE)?,
        name: needed(header::TYPE)?,
        time: optional(header::TIME)?,
        subject: optional(header::SUBJECT)?,
        content_type: content_type.map(Cow::Borrowed),
        tenant: needed(header::TENANT)?,
        traceparent: optional(header::TRACEPARENT)?,
        backfill: text(record, header::BACKFILL)? == Some("true"),
        data: record.value.map(Cow::Borrowed),
    })
}

fn accept(event: CloudEvent<'_>, record: &Record<'_>) -> Result<Event, InvalidRecord> {
    event.check()?;
    let time = match event.time.as_deref() {
        None => record.appended,
        Some(time) => parse_time(time)?.min(record.appended),
    };
    let tenant = TenantId::parse(event.tenant.as_deref().unwrap_or_default())?;
    let source = Source::parse(event.source.as_deref().unwrap_or_default())?;
    Ok(Event {
        id: event.event_id(&tenant, &source)?,
        name: EventName::parse(event.name.as_deref().unwrap_or_default())?,
        time,
        tenant,
        source,
        subject: event.subject.as_deref().map(Subject::parse).transpose()?,
        data: event.data.map(copy).ok_or(InvalidRecord::NoValue)?,
        backfill: event.backfill,
        traceparent: event.traceparent.as_deref().and_then(traceparent),
    })
}

/// Reads a delivery from `retry.*`, `defer.*`, `replay` or `parked`. The data is not looked at, as in
/// [`decode_event`].
///
/// Nothing is accepted later than the record of it was appended: what says so is clamped, or a time
/// in the far future would take the 24 hours of contract R13 with it.
pub fn decode_delivery(record: &Record<'_>) -> Result<Delivery, InvalidRecord> {
    let webhook = required(record, header::WEBHOOK)?;
    let accepted = required(record, header::ACCEPTED)?;
    // Written by us: an id that is none is damage, and must not become another event's.
    parse_id(required(record, header::ID)?)?;
    Ok(Delivery {
        webhook: Uuid::try_parse(webhook)
            .map_err(|_| unreadable(header::WEBHOOK, webhook.as_bytes()))?,
        attempt: number(record, header::ATTEMPT)?,
        run: number(record, header::RUN)?,
        accepted: Timestamp::parse(accepted)
            .map_err(|_| unreadable(header::ACCEPTED, accepted.as_bytes()))?
            .min(record.appended),
        deferrals: number(record, header::DEFERRALS)?,
        // It is only counted by: what cannot be read keeps no delivery from being made.
        replay: text(record, header::REPLAY)
            .ok()
            .flatten()
            .and_then(|replay| Uuid::try_parse(replay).ok()),
        event: decode_event(record)?.into(),
    })
}

/// The record of one attempt, in topic `attempts`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// Version of the record.
    pub version: u32,
    /// The event's id.
    pub event: Uuid,
    /// The event's type.
    #[serde(rename = "type")]
    pub name: EventName,
    /// Whose.
    pub tenant: TenantId,
    /// The webhook's id.
    pub webhook: Uuid,
    /// The webhook's generation when the attempt started.
    pub generation: u64,
    /// The delivery's run.
    pub run: u32,
    /// Number of the attempt, from 0.
    pub attempt: u8,
    /// When it started.
    pub started: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// [`crate::verdict::Outcome::label`].
    pub outcome: String,
    /// The status that was answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// What went wrong, for people; without secrets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The first 4 KiB of the response body; what is not UTF-8 is replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response: Option<String>,
    /// What comes next: [`DELIVERED`], a tier's topic (`retry.32s`), or a parked reason.
    pub next: String,
    /// The partition was taken away in the meantime: somebody else decides what comes next.
    #[serde(default)]
    pub late: bool,
    /// The dispatcher that made it.
    pub dispatcher: String,
    /// The W3C trace id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<String>,
    /// Where a retry comes next: not before then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_at: Option<Timestamp>,
    /// What the request said, without secrets; only of attempts whose headers are recorded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_headers: Option<HeaderLines>,
    /// What the response said, without secrets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_headers: Option<HeaderLines>,
    /// What the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The replay that asked for the delivery's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Uuid>,
}

/// Names and values of headers, in the order in which they are shown.
pub type HeaderLines = Vec<(String, String)>;
