//! Whether a delivery may be sent now, by what is known of its webhook (contract R3, R13, R14).

use std::sync::Arc;
use std::time::Duration;

use crate::directory::Directory;
use crate::record::{Delivery, Reason};
use crate::schedule::Schedule;
use crate::time::Timestamp;
use crate::topics::Role;
use crate::webhook::Webhook;

/// Why a delivery is parked without an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parking {
    /// The reason in its record.
    pub reason: Reason,
    /// More of it, for people.
    pub detail: Option<String>,
}

impl Parking {
    /// For a reason that says it all.
    pub fn because(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

/// The webhook as it is configured now, or why nothing may be sent to it.
pub fn sendable<'a>(
    delivery: &Delivery,
    directory: &'a Directory,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<&'a Arc<Webhook>, Parking> {
    let Some(webhook) = directory.webhook_by_id(delivery.webhook) else {
        return Err(Parking::because(Reason::Removed));
    };
    // Only a corrupt record can say so, and one tenant's event must not become another's.
    let owner = &delivery.event.tenant;
    if webhook.tenant != *owner {
        let detail = format!("the event is of tenant {owner}, but its webhook is not");
        return Err(Parking {
            reason: Reason::Undeliverable,
            detail: Some(detail),
        });
    }
    if !webhook.enabled {
        return Err(Parking::because(Reason::Paused));
    }
    if directory.is_disabled(webhook) {
        return Err(Parking::because(Reason::Disabled));
    }
    if schedule.expired(delivery.began(), now) {
        return Err(Parking::because(Reason::Expired));
    }
    Ok(webhook)
}

/// Whether a delivery was asked for so lately (a replay, a test), at most `news` ago, that its webhook
/// may have been resumed, enabled or made since we last looked. It is put off rather than parked.
pub fn may_be_news(
    delivery: &Delivery,
    from: Role,
    reason: Reason,
    now: Timestamp,
    news: Duration,
) -> bool {
    let is_configured = matches!(reason, Reason::Removed | Reason::Paused | Reason::Disabled);
    is_configured && from == Role::Replay && now.since(delivery.accepted) <= news
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::event::{Event, EventName, Source, TenantId};
    use crate::log::Record;
    use crate::topics::{Partition, Topics, TopicsConfig};

    const WEBHOOK: Uuid = Uuid::from_u128(1);

    fn delivery(tenant: &str, accepted: Timestamp) -> Delivery {
        let event = Event {
            id: Uuid::from_u128(7),
            name: EventName::parse("cdr.completed").unwrap(),
            time: accepted,
            tenant: TenantId::parse(tenant).unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        };
        Delivery {
            event: Arc::new(event),
            webhook: WEBHOOK,
            attempt: 0,
            run: 1,
            accepted,
            deferrals: 0,
            replay: None,
        }
    }

    fn apply(directory: &mut Directory, role: Role, key: &str, value: Value) {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let value = value.to_string();
        let record = Record {
            partition: Partition {
                topic: topics.find(role).unwrap(),
                index: 0,
            },
            offset: 0,
            appended: Timestamp::EPOCH,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(value.as_bytes()),
        };
        directory.apply(role, &record).unwrap();
    }

    fn directory(enabled: bool, disabled: bool) -> Directory {
        let mut directory = Directory::default();
        let webhook = json!({
            "version": 1, "id": WEBHOOK, "tenant": "acme", "name": "cdr", "subscription": ["*"],
            "url": "http://x/", "authentication": {"method": "none"}, "enabled": enabled,
            "generation": 2, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
        });
        apply(&mut directory, Role::Webhooks, "acme/cdr", webhook);
        if disabled {
            let health = json!({
                "version": 1, "webhook": WEBHOOK, "tenant": "acme", "generation": 2,
                "state": "disabled", "since": Timestamp::EPOCH, "reason": "all failed",
            });
            apply(&mut directory, Role::Health, &WEBHOOK.to_string(), health);
        }
        directory
    }

    #[test]
    fn each_reason_at_its_place() {
        let schedule = Schedule::default();
        let accepted = Timestamp::from_millis(1_000);
        let last = accepted + schedule.expires_after();
        let reason = |delivery: &Delivery, directory: &Directory, now| {
            let parking = sendable(delivery, directory, &schedule, now).err()?;
            assert_eq!(
                parking.detail.is_some(),
                parking.reason == Reason::Undeliverable
            );
            Some(parking.reason)
        };
        let ours = delivery("acme", accepted);
        let open = directory(true, false);
        assert_eq!(reason(&ours, &open, last), None);
        let too_late = last + Duration::from_micros(1);
        assert_eq!(reason(&ours, &open, too_late), Some(Reason::Expired));
        let theirs = delivery("other", accepted);
        assert_eq!(reason(&theirs, &open, last), Some(Reason::Undeliverable));
        for (directory, expected) in [
            (directory(false, false), Reason::Paused),
            (directory(false, true), Reason::Paused),
            (directory(true, true), Reason::Disabled),
            (Directory::default(), Reason::Removed),
        ] {
            // Whoever resumes or enables it and replays gets it sent: it has not expired first.
            assert_eq!(reason(&ours, &directory, too_late), Some(expected));
        }
    }

    #[test]
    fn only_what_was_asked_for_just_now_may_be_news() {
        let asked = Timestamp::from_millis(10_000);
        let delivery = delivery("acme", asked);
        let news = Duration::from_secs(2);
        let is = |from, reason, now| may_be_news(&delivery, from, reason, now, news);
        let last = asked + news;
        for reason in Reason::ALL {
            let configured = [Reason::Removed, Reason::Paused, Reason::Disabled];
            assert_eq!(is(Role::Replay, reason, last), configured.contains(&reason));
            assert!(!is(Role::Retry(0), reason, last));
            assert!(!is(Role::Replay, reason, last + Duration::from_micros(1)));
        }
    }
}
