//! A verdict on its way into the log: the record that dispatchers obey, and the notice that people
//! and programs can subscribe to.

use ringback_core::event::TenantId;
use ringback_core::health::{Figures, HEALTH_VERSION, Health, State};
use ringback_core::notice::{About, Notice};
use ringback_core::time::Timestamp;
use uuid::Uuid;

/// A changed verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub(crate) webhook: Uuid,
    pub(crate) tenant: TenantId,
    pub(crate) generation: u64,
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    pub(crate) reason: String,
    pub(crate) figures: Figures,
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
            figures: Some(self.figures),
        }
    }

    /// The notice for `events.system`.
    pub(crate) fn notice(&self, name: Option<String>) -> Notice {
        Notice {
            tenant: self.tenant.clone(),
            since: self.since,
            about: About {
                webhook: self.webhook,
                name,
                generation: self.generation,
                state: self.state,
                reason: self.reason.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_and_notice_say_the_same() {
        let verdict = Verdict {
            webhook: Uuid::from_u128(7),
            tenant: TenantId::parse("acme").unwrap(),
            generation: 2,
            state: State::Disabled,
            since: Timestamp::from_millis(5),
            reason: "all of 12 attempts failed".to_owned(),
            figures: Figures::default(),
        };
        let (record, notice) = (verdict.record(), verdict.notice(None));
        assert!(record.disables(2) && !record.disables(3));
        assert_eq!(notice.since, record.since);
        assert_eq!(notice.about.state, record.state);
        assert_eq!(notice.about.reason, record.reason);
    }
}
