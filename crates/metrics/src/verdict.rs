//! A verdict on its way into the log: the record that dispatchers obey, and the notice that people
//! and programs can subscribe to.

use bytes::Bytes;
use ringback_core::event::{Event, EventName, InvalidEvent, Source, Subject, TenantId, derive_id};
use ringback_core::health::{HEALTH_VERSION, Health, State};
use ringback_core::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

/// Source of the notices.
const SOURCE: &str = "ringback";

/// A changed verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub(crate) webhook: Uuid,
    pub(crate) tenant: TenantId,
    pub(crate) generation: u64,
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    pub(crate) reason: String,
}

impl Verdict {
    /// The record for topic `health`.
    pub fn record(&self) -> Health {
        Health {
            version: HEALTH_VERSION,
            webhook: self.webhook,
            tenant: self.tenant.clone(),
            generation: self.generation,
            state: self.state,
            since: self.since,
            reason: self.reason.clone(),
        }
    }

    /// The notice for `events.system`. The same verdict has the same id, however often a crash
    /// makes it be announced.
    pub(crate) fn notice(&self, name: Option<&str>) -> Result<Event, InvalidEvent> {
        let kind = match self.state {
            State::Healthy => "webhook.recovered",
            State::Failing => "webhook.failing",
            State::Disabled => "webhook.disabled",
        };
        let source = Source::parse(SOURCE)?;
        let (webhook, generation) = (self.webhook, self.generation);
        let identity = format!("{webhook}/{generation}/{kind}/{}", self.since);
        let data = json!({
            "webhook": webhook,
            "name": name,
            "generation": generation,
            "state": self.state,
            "reason": self.reason,
        });
        Ok(Event {
            id: derive_id(&self.tenant, &source, &identity),
            name: EventName::parse(kind)?,
            time: self.since,
            tenant: self.tenant.clone(),
            source,
            subject: Some(Subject::parse(&format!("webhook/{webhook}"))?),
            data: Bytes::from(data.to_string()),
            backfill: false,
            traceparent: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_events_with_stable_ids() {
        let verdict = Verdict {
            webhook: Uuid::from_u128(7),
            tenant: TenantId::parse("acme").unwrap(),
            generation: 2,
            state: State::Disabled,
            since: Timestamp::from_millis(5),
            reason: "all of 12 attempts failed".to_owned(),
        };
        let notice = verdict.notice(Some("cdr")).unwrap();
        assert_eq!(notice.name.as_str(), "webhook.disabled");
        assert_eq!(notice.id, verdict.notice(None).unwrap().id);
        let later = Verdict {
            generation: 3,
            ..verdict.clone()
        };
        assert_ne!(notice.id, later.notice(None).unwrap().id);
        assert!(verdict.record().disables(2) && !verdict.record().disables(3));
    }
}
