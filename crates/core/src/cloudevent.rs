//! CloudEvents 1.0: the attributes that a producer gave, and what becomes of them.
//!
//! All forms end here: the JSON event format (structured mode, in HTTP bodies and Kafka values) and
//! the headers of binary mode, which HTTP and Kafka write differently. The same event gives the same
//! [`Event`], whichever way it comes.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{Event, InvalidEvent, Source, TenantId, attribute, derive_id, utf8};

/// Media types that begin like this are structured mode (Kafka binding 3.2, HTTP binding 3).
const MEDIA_TYPE: &str = "application/cloudevents";
/// The JSON event format.
pub const MEDIA_TYPE_JSON: &str = "application/cloudevents+json";
/// The JSON batch format.
pub const MEDIA_TYPE_BATCH: &str = "application/cloudevents-batch+json";
/// The one version there is of the attributes' meaning.
pub const SPEC_VERSION: &str = "1.0";

/// A media type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether a content type says that the whole event, not only its data, is in the body.
pub fn is_structured(content_type: &str) -> bool {
    let start = content_type.trim_start().get(..MEDIA_TYPE.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Whether a content type is this media type.
pub fn is_media_type(content_type: &str, media_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case(media_type)
}

/// Whether a content type is JSON: `application/json`, `text/json`, `…+json`.
pub fn is_json(content_type: &str) -> bool {
    let (_, subtype) = essence(content_type).split_once('/').unwrap_or_default();
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    suffix.eq_ignore_ascii_case("json")
}

/// A CloudEvent as it was given; nothing of it is checked yet. Extensions that mean nothing to us are
/// left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CloudEvent<'a> {
    /// `specversion`
    pub spec_version: Option<Cow<'a, str>>,
    /// `id`: any text that is unique within the source.
    pub id: Option<Cow<'a, str>>,
    /// `source`
    pub source: Option<Cow<'a, str>>,
    /// `type`
    pub name: Option<Cow<'a, str>>,
    /// `time`
    pub time: Option<Cow<'a, str>>,
    /// `subject`
    pub subject: Option<Cow<'a, str>>,
    /// `datacontenttype`
    pub content_type: Option<Cow<'a, str>>,
    /// Extension: the tenant.
    pub tenant: Option<Cow<'a, str>>,
    /// Extension: W3C trace context.
    pub traceparent: Option<Cow<'a, str>>,
    /// Extension: an old event is meant.
    pub backfill: bool,
    /// The bytes of the data, as they were given.
    pub data: Option<Cow<'a, [u8]>>,
}

impl<'a> CloudEvent<'a> {
    /// Reads the JSON event format. `data` keeps its bytes (invariant DL7).
    pub fn parse_json(text: &'a [u8]) -> Result<Self, InvalidEvent> {
        let text = utf8(text)?;
        let json: Json<'a> =
            serde_json::from_str(text).map_err(|error| InvalidEvent::NotJson(error.to_string()))?;
        let data = match (json.data, json.data_base64) {
            (Some(_), Some(_)) => {
                let reason = "both data and data_base64 are given";
                return Err(InvalidEvent::DataNotObject(reason.to_owned()));
            }
            (Some(data), None) => Some(Cow::Borrowed(data.get().as_bytes())),
            (None, Some(base64)) => {
                let bytes = STANDARD.decode(base64.as_bytes()).map_err(|error| {
                    InvalidEvent::DataNotObject(format!("data_base64 is not Base64: {error}"))
                })?;
                Some(Cow::Owned(bytes))
            }
            (None, None) => None,
        };
        Ok(Self {
            spec_version: json.specversion,
            id: json.id,
            source: json.source,
            name: json.name,
            time: json.time,
            subject: json.subject,
            content_type: json.datacontenttype,
            tenant: json.tenant,
            traceparent: json.traceparent,
            backfill: json.backfill.is_some_and(|Flag(set)| set),
            data,
        })
    }

    /// Refuses other versions and data that says it is not JSON.
    pub fn check(&self) -> Result<(), InvalidEvent> {
        let version = self.spec_version.as_deref().unwrap_or_default();
        if version != SPEC_VERSION {
            return Err(attribute("specversion", version, "use 1.0"));
        }
        match self.content_type.as_deref() {
            Some(text) if !is_json(text) => {
                let rule = "data is a JSON object: use application/json, or leave it out";
                Err(attribute("datacontenttype", text, rule))
            }
            _ => Ok(()),
        }
    }

    /// Its id as a UUID, see [`id`].
    pub fn event_id(&self, tenant: &TenantId, source: &Source) -> Result<Uuid, InvalidEvent> {
        id(self.id.as_deref().unwrap_or_default(), tenant, source)
    }
}

/// The UUID of a CloudEvent's `id`: a UUID is taken as it is; anything else gives a version 5 UUID of
/// tenant, source and id (design: "v5 when derived from a source's own identity"), so that the same
/// event sent again keeps it.
pub fn id(text: &str, tenant: &TenantId, source: &Source) -> Result<Uuid, InvalidEvent> {
    if text.is_empty() {
        let rule = "use a text that is unique within the source, best a UUID";
        return Err(attribute("id", text, rule));
    }
    Ok(derive_id(tenant, source, text))
}

/// A W3C `traceparent` if it is one, otherwise nothing: a malformed one must be ignored (W3C Trace
/// Context 3.2).
pub fn traceparent(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().is_some_and(|part| {
            let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            part.len() == length && part.bytes().all(digit)
        })
    };
    let whole = hex(2) && hex(32) && hex(16) && hex(2) && parts.next().is_none();
    whole.then(|| text.to_owned())
}

/// The events of a JSON batch, each as it stands there, at most `limit`; and how many more there are.
pub fn parse_batch(text: &[u8], limit: usize) -> Result<(Vec<&RawValue>, usize), InvalidEvent> {
    let text = utf8(text)?;
    let not_json = |error: serde_json::Error| InvalidEvent::NotJson(error.to_string());
    let mut json = serde_json::Deserializer::from_str(text);
    let batch = Batch { limit }.deserialize(&mut json).map_err(not_json)?;
    json.end().map_err(not_json)?;
    Ok(batch)
}

/// The `ce-` headers of an event in HTTP's binary mode. Values are percent-encoded (HTTP binding
/// 3.1.3.2), so that each is a legal header.
pub fn http_headers(event: &Event) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("ce-specversion", SPEC_VERSION.to_owned()),
        ("ce-id", event.id.as_hyphenated().to_string()),
        ("ce-source", percent_encode(event.source.as_str())),
        ("ce-type", event.name.to_string()),
        ("ce-time", event.time.to_string()),
        ("ce-tenant", event.tenant.to_string()),
    ];
    if let Some(subject) = &event.subject {
        headers.push(("ce-subject", percent_encode(subject.as_str())));
    }
    if let Some(traceparent) = event.traceparent.as_deref().and_then(traceparent) {
        headers.push(("ce-traceparent", traceparent));
    }
    headers
}

/// Encodes space, double quote, percent, and all that is not printable ASCII.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"%".contains(&byte) => encoded.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// The JSON event format. An attribute that is `null` is not given (JSON format 2.2).
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    datacontenttype: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    backfill: Option<Flag>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

/// A Boolean attribute: JSON's own, or its text. Anything else means nothing.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(
            value.as_bool() == Some(true) || value.as_str() == Some("true"),
        ))
    }
}

/// Collects a bounded number of elements.
struct Batch {
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Batch {
    type Value = (Vec<&'de RawValue>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Batch {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        let mut more = 0;
        while events.len() < self.limit {
            match seq.next_element::<&RawValue>()? {
                Some(event) => events.push(event),
                None => return Ok((events, 0)),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        Ok((events, more))
    }
}

#[cfg(test)]
mod tests;
