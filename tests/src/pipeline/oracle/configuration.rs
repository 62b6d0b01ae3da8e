//! What was configured when: everything that somebody who looks at most so late could have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringback_core::event::TenantId;
use ringback_core::health::Health;
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use ringback_log::directory::STALE_AFTER;
use uuid::Uuid;

/// How late a change may be obeyed: the age that a directory may have, and its granularity.
pub(super) const OBEYED_WITHIN: Duration = STALE_AFTER.saturating_add(Duration::from_millis(2));

#[derive(Default)]
pub(super) struct Configuration {
    webhooks: BTreeMap<Uuid, History<Arc<Webhook>>>,
    health: BTreeMap<Uuid, History<Health>>,
    of_tenant: BTreeMap<TenantId, BTreeSet<Uuid>>,
    by_key: BTreeMap<String, Uuid>,
}

/// Values with the times at which they began to hold.
struct History<T>(Vec<(Timestamp, Option<T>)>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(vec![(Timestamp::EPOCH, None)])
    }
}

impl<T> History<T> {
    /// What held at some time from `from` on.
    fn since(&self, from: Timestamp) -> impl Iterator<Item = Option<&T>> {
        let after = self.0.partition_point(|(at, _)| *at <= from);
        let values = self.0.iter().skip(after.saturating_sub(1));
        values.map(|(_, value)| value.as_ref())
    }
}

impl Configuration {
    pub(super) fn webhook(&mut self, key: &str, at: Timestamp, new: Option<Webhook>) {
        let id = match &new {
            Some(webhook) => {
                self.by_key.insert(key.to_owned(), webhook.id);
                let of_tenant = self.of_tenant.entry(webhook.tenant.clone()).or_default();
                of_tenant.insert(webhook.id);
                webhook.id
            }
            None => match self.by_key.get(key) {
                Some(id) => *id,
                None => return,
            },
        };
        let history = self.webhooks.entry(id).or_default();
        history.0.push((at, new.map(Arc::new)));
    }

    pub(super) fn health(&mut self, webhook: Uuid, at: Timestamp, new: Option<Health>) {
        self.health.entry(webhook).or_default().0.push((at, new));
    }

    /// Webhooks that wanted this type of event all the time since then.
    pub(super) fn wanting(&self, tenant: &TenantId, name: &str, since: Timestamp) -> Vec<Uuid> {
        let webhooks = self.of_tenant.get(tenant).into_iter().flatten().copied();
        let wants = |webhook: &Uuid| {
            let versions = self.webhooks.get(webhook);
            versions.is_some_and(|versions| {
                let mut versions = versions.since(since - OBEYED_WITHIN);
                versions.all(|version| version.is_some_and(|webhook| webhook.wants(name)))
            })
        };
        webhooks.filter(wants).collect()
    }

    /// Why nothing may be sent to a webhook now; `None`: there is somebody who may think that it may.
    pub(super) fn forbids(&self, webhook: Uuid, now: Timestamp) -> Option<&'static str> {
        let Some(versions) = self.webhooks.get(&webhook) else {
            return Some("there is no such webhook");
        };
        let since = now - OBEYED_WITHIN;
        let mut why = "it was removed";
        for version in versions.since(since).flatten() {
            if !version.enabled {
                why = "it was paused";
                continue;
            }
            let disables = |health: Option<&Health>| {
                health.is_some_and(|health| health.disables(version.generation))
            };
            let health = self.health.get(&webhook);
            if !health.is_some_and(|health| health.since(since).all(disables)) {
                return None;
            }
            why = "it was disabled";
        }
        Some(why)
    }

    /// Whether the webhook has had this generation lately.
    pub(super) fn had_generation(&self, webhook: Uuid, generation: u64, now: Timestamp) -> bool {
        let versions = self.webhooks.get(&webhook);
        versions.is_some_and(|versions| {
            let mut versions = versions.since(now - OBEYED_WITHIN).flatten();
            versions.any(|version| version.generation == generation)
        })
    }
}
