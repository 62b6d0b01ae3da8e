//! An event of the PBX: its parts, what is legal in them, and its two JSON forms (what producers
//! post, what receivers get).

mod posted;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::check_invariant;
use crate::time::Timestamp;

pub use posted::Defaults;

/// Largest `data`, in bytes.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// Longest tenant id, in bytes.
pub const TENANT_BYTES_MAX: usize = 64;
/// Longest event type, in bytes.
pub const TYPE_BYTES_MAX: usize = 128;
/// Longest source and subject, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// Namespace of ids derived from a source's own identity (UUID version 5).
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x7269_6e67_6261_636b_8000_6576_656e_7473);

/// Why an event is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// The text is not UTF-8.
    #[error("not UTF-8: the byte at position {at} cannot be read")]
    NotUtf8 {
        /// Position of the first wrong byte.
        at: usize,
    },
    /// The text is not JSON, or lacks a field, or has one of the wrong type.
    #[error("not a JSON event: {0}")]
    NotJson(String),
    /// `data` is missing or something else than an object.
    #[error("data must be a JSON object: {0}")]
    DataNotObject(String),
    /// `data` is larger than [`DATA_BYTES_MAX`].
    #[error("data is {bytes} bytes, at most {DATA_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// An attribute has a value that is not allowed.
    #[error("{attribute} {value:?} is not allowed: {rule}")]
    Attribute {
        /// Which one.
        attribute: &'static str,
        /// Its value, shortened.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// The event happened longer ago than it could still be delivered (contract R13).
    #[error(
        "the event is {age_hours} h old, older than {limit_hours} h; accept it as a backfill if it is meant"
    )]
    TooOld {
        /// Its age in whole hours.
        age_hours: u64,
        /// The limit in whole hours.
        limit_hours: u64,
    },
}

impl InvalidEvent {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson(_) => "not_json",
            Self::DataNotObject(_) => "data_not_object",
            Self::TooLarge { .. } => "too_large",
            Self::Attribute { .. } => "illegal_attribute",
            Self::TooOld { .. } => "too_old",
        }
    }
}

pub(crate) fn attribute(attribute: &'static str, value: &str, rule: &'static str) -> InvalidEvent {
    InvalidEvent::Attribute {
        attribute,
        value: value.chars().take(64).collect(),
        rule,
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $attribute:literal, $rule:literal, $legal:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Checks and wraps.
            pub fn parse(text: &str) -> Result<Self, InvalidEvent> {
                let legal: fn(&str) -> bool = $legal;
                if legal(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(attribute($attribute, text, $rule))
                }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A tenant's id: lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or
    /// digit, at most 64 bytes.
    TenantId,
    "tenant",
    "use 1 to 64 lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit",
    |text| {
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
        (1..=TENANT_BYTES_MAX).contains(&text.len())
            && text.bytes().all(legal)
            && !text.starts_with(['-', '_', '.'])
    }
);

name_type!(
    /// An event type: dotted segments of ASCII letters, digits and `_`, at most 128 bytes
    /// (`cdr.completed`; Standard Webhooks, "event types").
    EventName,
    "type",
    "use dotted segments of letters, digits and '_', such as cdr.completed, at most 128 bytes",
    |text| {
        text.len() <= TYPE_BYTES_MAX
            && text.split('.').all(|segment| {
                !segment.is_empty()
                    && segment.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
            })
    }
);

name_type!(
    /// Where an event comes from (CloudEvents `source`): 1 to 256 bytes without white space or
    /// control characters.
    Source,
    "source",
    "use 1 to 256 bytes without white space and control characters",
    |text| {
        (1..=TEXT_BYTES_MAX).contains(&text.len())
            && !text.chars().any(|c| c.is_whitespace() || c.is_control())
    }
);

name_type!(
    /// What an event is about (CloudEvents `subject`), such as `call/7f3a`: 1 to 256 bytes without
    /// control characters.
    Subject,
    "subject",
    "use 1 to 256 bytes without control characters",
    |text| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
);

/// Something that happened in the PBX.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Stays the same over every retry and replay (contract R6).
    pub id: Uuid,
    /// Its type.
    pub name: EventName,
    /// When it was triggered.
    pub time: Timestamp,
    /// Whose event it is.
    pub tenant: TenantId,
    /// Where it comes from.
    pub source: Source,
    /// What it is about.
    pub subject: Option<Subject>,
    /// A JSON object; its bytes are delivered as they were accepted (invariant DL7).
    pub data: Bytes,
    /// Accepted although it is old: its 24 hours (contract R13) count from its acceptance.
    pub backfill: bool,
    /// The W3C `traceparent` it came with.
    pub traceparent: Option<String>,
}

/// The id of an event whose source has an identity of its own: a UUID is taken as it is, anything
/// else gives a version 5 UUID that is the same whenever the same tenant, source and identity are
/// seen again.
pub fn derive_id(tenant: &TenantId, source: &Source, identity: &str) -> Uuid {
    match Uuid::try_parse(identity) {
        // The nil UUID identifies nothing by itself, and is no event's id.
        Ok(id) if !id.is_nil() => id,
        _ => Uuid::new_v5(
            &ID_NAMESPACE,
            format!("{tenant}\n{source}\n{identity}").as_bytes(),
        ),
    }
}

/// The id of an event made of a record that has no identity but its place in the log: the same
/// whenever the record is read again. The append time keeps apart what a topic that was removed and
/// made anew has at the same place.
pub fn id_of_place(topic: &str, partition: u32, offset: i64, appended: Timestamp) -> Uuid {
    let place = format!("{topic}/{partition}@{offset}\n{appended}");
    Uuid::new_v5(&ID_NAMESPACE, place.as_bytes())
}

impl Event {
    /// Refuses an event that is older than `age_max`.
    pub fn check_age(&self, now: Timestamp, age_max: Option<Duration>) -> Result<(), InvalidEvent> {
        let age = now.since(self.time);
        match age_max {
            Some(limit) if age > limit => Err(InvalidEvent::TooOld {
                age_hours: age.as_secs() / 3600,
                limit_hours: limit.as_secs() / 3600,
            }),
            _ => Ok(()),
        }
    }

    /// The body that receivers get (format `standard`), written around the untouched data bytes.
    pub fn standard_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.data.len() + 256);
        let mut text = |name: &str, value: &str| {
            body.push(if body.is_empty() { b'{' } else { b',' });
            push_json_text(&mut body, name);
            body.push(b':');
            push_json_text(&mut body, value);
        };
        text("id", &self.id.as_hyphenated().to_string());
        text("type", self.name.as_str());
        text("timestamp", &self.time.to_string());
        text("tenant", self.tenant.as_str());
        text("source", self.source.as_str());
        match &self.subject {
            Some(subject) => text("subject", subject.as_str()),
            None => body.extend_from_slice(b",\"subject\":null"),
        }
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(&self.data);
        body.push(b'}');
        check_invariant!(
            DL7,
            ends_with_data(&body, &self.data),
            "the body of event {} does not carry its data",
            self.id
        );
        body
    }
}

/// Whether a body ends with these data bytes, untouched.
fn ends_with_data(body: &[u8], data: &[u8]) -> bool {
    let before = body.strip_suffix(b"}");
    let before = before.and_then(|body| body.strip_suffix(data));
    before.is_some_and(|before| before.ends_with(b"\"data\":"))
}

/// An event's time.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, InvalidEvent> {
    Timestamp::parse(text)
        .map_err(|_| attribute("time", text, "use RFC 3339: 2026-11-21T09:30:00Z"))
}

/// Borrowed data is part of something larger that must not be kept.
pub(crate) fn copy(data: Cow<'_, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(data) => Bytes::copy_from_slice(data),
        Cow::Owned(data) => data.into(),
    }
}

/// An event id in the one form we write: a bare, hyphenated UUID.
pub fn parse_id(text: &str) -> Result<Uuid, InvalidEvent> {
    const RULE: &str = "use a UUID such as 01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e";
    let id = Uuid::try_parse(text).map_err(|_| attribute("id", text, RULE))?;
    if id.is_nil() {
        Err(attribute("id", text, RULE))
    } else {
        Ok(id)
    }
}

/// Checks that `data` is one JSON object in UTF-8 and not too large, without building a tree.
pub fn check_data(data: &[u8]) -> Result<(), InvalidEvent> {
    if data.len() > DATA_BYTES_MAX {
        return Err(InvalidEvent::TooLarge { bytes: data.len() });
    }
    let text = utf8(data)?;
    serde_json::from_str::<AnyObject>(text)
        .map(|_| ())
        .map_err(|error| InvalidEvent::DataNotObject(error.to_string()))
}

pub(crate) fn utf8(text: &[u8]) -> Result<&str, InvalidEvent> {
    std::str::from_utf8(text).map_err(|error| InvalidEvent::NotUtf8 {
        at: error.valid_up_to(),
    })
}

/// Deserialises from any JSON object, keeping nothing.
struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyObjectVisitor;
        impl<'de> Visitor<'de> for AnyObjectVisitor {
            type Value = AnyObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyObject, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }
        deserializer.deserialize_map(AnyObjectVisitor)
    }
}

/// Appends `text` as a JSON string.
fn push_json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if u32::from(c) < 0x20 => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    fn parse(text: &str) -> Result<Event, InvalidEvent> {
        parse_as(text.as_bytes(), Some("acme"))
    }

    fn parse_as(text: &[u8], tenant: Option<&str>) -> Result<Event, InvalidEvent> {
        let tenant = tenant.map(|tenant| TenantId::parse(tenant).unwrap());
        let source = Source::parse("pbx").unwrap();
        let id = Uuid::from_u128(7);
        let age_max = Some(Duration::from_secs(86_400));
        let defaults = Defaults {
            tenant: tenant.as_ref(),
            source: &source,
            id,
            now: NOW,
            age_max,
        };
        Event::parse_posted(text, &defaults)
    }

    fn code(text: &str) -> &'static str {
        parse(text).unwrap_err().code()
    }

    #[test]
    fn gaps_are_filled() {
        let event = parse(r#"{"type":"cdr.completed","data":{"a":1}}"#).unwrap();
        assert_eq!(event.id, Uuid::from_u128(7));
        assert_eq!(event.time, NOW);
        assert_eq!(event.tenant.as_str(), "acme");
        assert_eq!(event.source.as_str(), "pbx");
        assert_eq!(event.subject, None);
        assert_eq!(&event.data[..], br#"{"a":1}"#);
    }

    #[test]
    fn bad_events_are_named() {
        assert_eq!(code("nonsense"), "not_json");
        assert_eq!(code("[1]"), "not_json");
        assert_eq!(code(r#"{"data":{}}"#), "not_json");
        assert_eq!(code(r#"{"type":"cdr.completed"}"#), "data_not_object");
        assert_eq!(
            code(r#"{"type":"cdr.completed","data":[]}"#),
            "data_not_object"
        );
        assert_eq!(
            code(r#"{"type":"cdr..completed","data":{}}"#),
            "illegal_attribute"
        );
        assert_eq!(
            code(r#"{"type":"cdr.x","id":"7","data":{}}"#),
            "illegal_attribute"
        );
        assert_eq!(
            code(r#"{"type":"cdr.x","subject":"a\nb","data":{}}"#),
            "illegal_attribute"
        );
        assert_eq!(
            code(r#"{"type":"cdr.x","time":"today","data":{}}"#),
            "illegal_attribute"
        );
        assert_eq!(
            code(r#"{"type":"cdr.x","tenant":"other","data":{}}"#),
            "illegal_attribute"
        );
        assert_eq!(
            code(r#"{"type":"cdr.x","time":"2020-01-01T00:00:00Z","data":{}}"#),
            "too_old"
        );
        assert_eq!(
            parse_as(b"{\"type\":\"\xff\"}", None).unwrap_err().code(),
            "not_utf8"
        );
        // 256 KiB with what stands around the text: `{"x":""}`.
        let of = |bytes: usize| {
            let text = "x".repeat(bytes - 8);
            format!(r#"{{"type":"a","data":{{"x":"{text}"}}}}"#)
        };
        assert_eq!(parse(&of(262_144)).unwrap().data.len(), 262_144);
        assert_eq!(code(&of(262_145)), "too_large");
        let deep = format!(r#"{{"type":"a","data":{{"x":{}}}}}"#, "[".repeat(100_000));
        assert_eq!(code(&deep), "not_json");
    }

    /// Records are read again with the same id, by this release and by later ones.
    #[test]
    fn a_place_has_one_id_for_ever() {
        let id = id_of_place("ringback.raw.plain", 3, 17, NOW);
        assert_eq!(id.to_string(), "34dc1e58-ad4c-5aff-9383-20a9f0d2201d");
        let others = [
            id_of_place("ringback.raw.other", 3, 17, NOW),
            id_of_place("ringback.raw.plain", 4, 17, NOW),
            id_of_place("ringback.raw.plain", 3, 18, NOW),
            id_of_place("ringback.raw.plain", 3, 17, NOW + Duration::from_millis(1)),
        ];
        assert!(!others.contains(&id));
    }

    #[test]
    fn a_token_for_all_tenants_needs_the_tenant_in_the_event() {
        let named = parse_as(br#"{"type":"cdr.x","tenant":"b","data":{}}"#, None).unwrap();
        assert_eq!(named.tenant.as_str(), "b");
        assert!(parse_as(br#"{"type":"cdr.x","data":{}}"#, None).is_err());
    }

    #[test]
    fn a_time_in_the_future_is_clamped() {
        let event = parse(r#"{"type":"a","time":"2099-01-01T00:00:00Z","data":{}}"#).unwrap();
        assert_eq!(event.time, NOW);
    }

    #[test]
    fn derived_ids_are_stable_and_apart() {
        let tenant = |text| TenantId::parse(text).unwrap();
        let source = Source::parse("asterisk").unwrap();
        let id = derive_id(&tenant("a"), &source, "1795231199.1");
        assert_eq!(id, derive_id(&tenant("a"), &source, "1795231199.1"));
        assert_ne!(id, derive_id(&tenant("b"), &source, "1795231199.1"));
        assert_ne!(id, derive_id(&tenant("a"), &source, "1795231199.2"));
        assert_eq!(id.get_version_num(), 5);
        let own = Uuid::from_u128(99);
        assert_eq!(derive_id(&tenant("a"), &source, &own.to_string()), own);
    }

    proptest! {
        /// DL7 and R5: the body is one JSON object whose fields read back, around untouched data.
        #[test]
        fn the_body_is_json_around_the_data(subject in "\\PC{1,60}", text in any::<String>(), micros in 0i64..2_000_000_000_000_000) {
            let data = serde_json::to_vec(&json!({ "text": text })).unwrap();
            let event = Event {
                id: Uuid::from_u128(1),
                name: EventName::parse("call.started").unwrap(),
                time: Timestamp::from_micros(micros),
                tenant: TenantId::parse("acme").unwrap(),
                source: Source::parse("a/\"b\\c").unwrap(),
                subject: Some(Subject::parse(&subject).unwrap_or_else(|_| Subject::parse("x").unwrap())),
                data: data.clone().into(),
                backfill: false,
                traceparent: None,
            };
            let body = event.standard_body();
            let read: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&read["data"]["text"], &Value::from(text));
            prop_assert_eq!(&read["source"], "a/\"b\\c");
            prop_assert_eq!(read["subject"].as_str(), event.subject.as_ref().map(Subject::as_str));
            prop_assert_eq!(&read["timestamp"], &Value::from(event.time.to_string()));
            let end = [&data[..], b"}"].concat();
            prop_assert!(body.ends_with(&end));
        }

        /// Nothing that is posted can make the parser panic.
        #[test]
        fn any_bytes_are_refused_or_accepted(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_as(&bytes, None);
        }
    }

    #[test]
    fn a_body_without_its_data_is_noticed() {
        let data = br#"{"a": 1}"#;
        assert!(ends_with_data(br#"{"id":"x","data":{"a": 1}}"#, data));
        for body in [
            &br#"{"id":"x","data":{"a":1}}"#[..],
            br#"{"id":"x","data":{"a": 1}"#,
            br#"{"id":"x","dat":{"a": 1}}"#,
            b"",
        ] {
            assert!(!ends_with_data(body, data));
        }
    }

    #[test]
    fn an_event_is_as_old_as_is_allowed() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let event = Event {
            id: Uuid::from_u128(7),
            name: EventName::parse("cdr.completed").unwrap(),
            time: Timestamp::EPOCH,
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        };
        let at = |age| event.check_age(Timestamp::EPOCH + age, Some(hours(5)));
        assert_eq!(at(hours(5)), Ok(()));
        assert_eq!(event.check_age(Timestamp::EPOCH + hours(500), None), Ok(()));
        let refused = Err(InvalidEvent::TooOld {
            age_hours: 7,
            limit_hours: 5,
        });
        assert_eq!(at(hours(7) + Duration::from_secs(60)), refused);
        assert!(at(hours(5) + Duration::from_micros(1)).is_err());
    }

    #[test]
    fn what_json_does_not_hold_is_escaped() {
        let mut out = Vec::new();
        push_json_text(&mut out, "a\u{1f} \u{7f}\0\"\\é");
        let expected = "\"a\\u001f \u{7f}\\u0000\\\"\\\\é\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let error = serde_json::from_str::<AnyObject>("[]").err().unwrap();
        assert!(error.to_string().contains("a JSON object"), "{error}");
    }
}
