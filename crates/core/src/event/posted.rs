//! Events as producers post them, and what fills their gaps.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Event, EventName, InvalidEvent, Source, Subject, TenantId, attribute, check_data, copy,
    parse_id, parse_time, utf8,
};
use crate::cloudevent::{CloudEvent, traceparent};
use crate::time::Timestamp;

/// An event as producers post it: everything but `type` and `data` may be left out.
#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    name: Cow<'a, str>,
    #[serde(alias = "timestamp", borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What fills the gaps of a posted event.
pub struct Defaults<'a> {
    /// The tenant of the token that was used, if it has one.
    pub tenant: Option<&'a TenantId>,
    /// Used when the event names none.
    pub source: &'a Source,
    /// A fresh id (UUID version 7).
    pub id: Uuid,
    /// When it was received.
    pub now: Timestamp,
    /// How old it may be (contract R13); `None` when old events are meant (backfill).
    pub age_max: Option<Duration>,
}

impl Defaults<'_> {
    fn tenant(&self, named: Option<&str>) -> Result<TenantId, InvalidEvent> {
        match (named, self.tenant) {
            (Some(named), None) => TenantId::parse(named),
            (Some(named), Some(own)) if named == own.as_str() => Ok(own.clone()),
            (Some(named), Some(_)) => Err(attribute(
                "tenant",
                named,
                "this token belongs to another tenant",
            )),
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => Err(attribute("tenant", "", "this token needs it in each event")),
        }
    }

    fn time(&self, named: Option<&str>) -> Result<Timestamp, InvalidEvent> {
        let Some(text) = named else {
            return Ok(self.now);
        };
        Ok(parse_time(text)?.min(self.now))
    }
}

fn parse_subject(text: Option<&str>) -> Result<Option<Subject>, InvalidEvent> {
    text.map(Subject::parse).transpose()
}

impl Event {
    /// Reads an event as producers post it.
    ///
    /// The tenant it names must be the one of the token, where the token has one. A time in the
    /// future is clamped to `now`; one older than `age_max` is refused.
    pub fn parse_posted(text: &[u8], defaults: &Defaults<'_>) -> Result<Self, InvalidEvent> {
        let text = utf8(text)?;
        let posted: Posted<'_> =
            serde_json::from_str(text).map_err(|error| InvalidEvent::NotJson(error.to_string()))?;
        let tenant = defaults.tenant(posted.tenant.as_deref())?;
        let source = match posted.source {
            Some(source) => Source::parse(&source)?,
            None => defaults.source.clone(),
        };
        let id = match posted.id {
            Some(id) => parse_id(&id)?,
            None => defaults.id,
        };
        let data = posted.data.map(|data| data.get().as_bytes());
        Self {
            id,
            name: EventName::parse(&posted.name)?,
            time: defaults.time(posted.time.as_deref())?,
            tenant,
            source,
            subject: parse_subject(posted.subject.as_deref())?,
            data: data.map(Bytes::copy_from_slice).unwrap_or_default(),
            backfill: defaults.age_max.is_none(),
            traceparent: None,
        }
        .accepted(data.is_some(), defaults)
    }

    /// Takes a CloudEvent that was posted: the same rules as for [`Self::parse_posted`], but that id,
    /// source and version have no defaults, and the id need not be a UUID
    /// ([`crate::cloudevent::id`]). Whether an old event is meant, the caller knows (`age_max`), not
    /// the event.
    pub fn from_cloud_event(
        posted: CloudEvent<'_>,
        defaults: &Defaults<'_>,
    ) -> Result<Self, InvalidEvent> {
        posted.check()?;
        let tenant = defaults.tenant(posted.tenant.as_deref())?;
        let source = Source::parse(posted.source.as_deref().unwrap_or_default())?;
        let given = posted.data.is_some();
        Self {
            id: posted.event_id(&tenant, &source)?,
            name: EventName::parse(posted.name.as_deref().unwrap_or_default())?,
            time: defaults.time(posted.time.as_deref())?,
            tenant,
            source,
            subject: parse_subject(posted.subject.as_deref())?,
            data: posted.data.map(copy).unwrap_or_default(),
            backfill: defaults.age_max.is_none(),
            traceparent: posted.traceparent.as_deref().and_then(traceparent),
        }
        .accepted(given, defaults)
    }

    /// The last word on a posted event: its data and its age.
    fn accepted(self, has_data: bool, defaults: &Defaults<'_>) -> Result<Self, InvalidEvent> {
        if !has_data {
            return Err(InvalidEvent::DataNotObject("it is missing".to_owned()));
        }
        check_data(&self.data)?;
        self.check_age(defaults.now, defaults.age_max)?;
        Ok(self)
    }
}
