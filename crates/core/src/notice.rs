//! Notices: what is announced when the verdict on a webhook changes, as an event (`webhook.failing`,
//! `webhook.disabled`, `webhook.recovered`) of the webhook's tenant.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Event, EventName, InvalidEvent, Source, Subject, TenantId, derive_id};
use crate::health::State;
use crate::time::Timestamp;

/// Source of the notices.
const SOURCE: &str = "ringback";

/// A changed verdict, to be announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Whose webhook it is.
    pub tenant: TenantId,
    /// When the verdict changed.
    pub since: Timestamp,
    /// What it is now.
    pub about: About,
}

/// The data of a notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct About {
    /// Its id.
    pub webhook: Uuid,
    /// Its name, if it was known.
    #[serde(default)]
    pub name: Option<String>,
    /// Which life of it.
    pub generation: u64,
    /// The verdict.
    pub state: State,
    /// Why.
    pub reason: String,
}

impl Notice {
    /// The event that announces it. The same notice has the same id, however often a crash makes it be
    /// announced.
    pub fn event(&self) -> Result<Event, InvalidEvent> {
        let About {
            webhook,
            generation,
            state,
            ..
        } = &self.about;
        let kind = kind(*state);
        let source = Source::parse(SOURCE)?;
        let identity = format!("{webhook}/{generation}/{kind}/{}", self.since);
        let data = serde_json::to_vec(&self.about)
            .map_err(|error| InvalidEvent::DataNotObject(error.to_string()))?;
        Ok(Event {
            id: derive_id(&self.tenant, &source, &identity),
            name: EventName::parse(kind)?,
            time: self.since,
            tenant: self.tenant.clone(),
            source,
            subject: Some(Subject::parse(&format!("webhook/{webhook}"))?),
            data: Bytes::from(data),
            backfill: false,
            traceparent: None,
        })
    }

    /// Reads what [`Self::event`] wrote; `None` for any other event.
    pub fn read(event: &Event) -> Option<Self> {
        let about: About = serde_json::from_slice(&event.data).ok()?;
        (event.name.as_str() == kind(about.state)).then(|| Self {
            tenant: event.tenant.clone(),
            since: event.time,
            about,
        })
    }
}

/// The type of the event.
fn kind(state: State) -> &'static str {
    match state {
        State::Healthy => "webhook.recovered",
        State::Failing => "webhook.failing",
        State::Disabled => "webhook.disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            tenant: TenantId::parse("acme").unwrap(),
            since: Timestamp::from_millis(5),
            about: About {
                webhook: Uuid::from_u128(7),
                name: Some("cdr".to_owned()),
                generation: 2,
                state: State::Disabled,
                reason: "all of 12 attempts failed".to_owned(),
            },
        }
    }

    #[test]
    fn notices_are_events_with_stable_ids() {
        let event = notice().event().unwrap();
        assert_eq!(event.name.as_str(), "webhook.disabled");
        assert_eq!(
            event.subject.as_ref().unwrap().as_str(),
            "webhook/00000000-0000-0000-0000-000000000007"
        );
        let mut again = notice();
        again.about.name = None;
        assert_eq!(event.id, again.event().unwrap().id);
        again.about.generation = 3;
        assert_ne!(event.id, again.event().unwrap().id);
    }

    #[test]
    fn what_is_announced_is_what_is_read() {
        for state in [State::Healthy, State::Failing, State::Disabled] {
            let mut notice = notice();
            notice.about.state = state;
            assert_eq!(Notice::read(&notice.event().unwrap()), Some(notice));
        }
        let mut other = notice().event().unwrap();
        other.name = EventName::parse("webhook.test").unwrap();
        assert_eq!(Notice::read(&other), None);
        other.data = Bytes::from_static(b"{}");
        assert_eq!(Notice::read(&other), None);
    }
}
