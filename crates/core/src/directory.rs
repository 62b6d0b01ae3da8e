//! The directory: tenants, webhooks, tokens and accounts, folded from the configuration topics, and the
//! verdicts on webhooks. Every component that needs configuration keeps one; it can be rebuilt from the
//! log at any time.

mod accounts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::event::TenantId;
use crate::health::Health;
use crate::log::{Record, Revision};
use crate::replay_job::ReplayJobs;
use crate::time::Timestamp;
use crate::topics::Role;
use crate::webhook::{Tenant, Webhook, WebhookName, config_key};

#[cfg(test)]
mod tests;

/// A value and the revision it was read at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// For compare-and-set.
    pub revision: Revision,
}

/// A configuration record that cannot be used. What it said before stays in force.
#[derive(Debug, thiserror::Error)]
#[error("configuration record {key:?} of {topic} cannot be read: {reason}")]
pub struct InvalidConfig {
    /// Which kind.
    pub topic: &'static str,
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Tenants, webhooks, tokens and accounts as of some moment.
#[derive(Default, Debug)]
pub struct Directory {
    tenants: HashMap<TenantId, TenantEntry>,
    by_id: HashMap<Uuid, Arc<Webhook>>,
    accounts: accounts::Accounts,
    health: HashMap<Uuid, Health>,
    /// Webhooks that are paused or disabled, and since when by the log's clock.
    off: HashMap<Uuid, Timestamp>,
    /// The replays of webhooks, by webhook.
    jobs: HashMap<Uuid, Versioned<ReplayJobs>>,
    /// Keys whose newest record cannot be used.
    unreadable: HashSet<(Role, Vec<u8>)>,
}

#[derive(Default, Debug)]
struct TenantEntry {
    tenant: Option<Versioned<Tenant>>,
    webhooks: BTreeMap<WebhookName, Versioned<Arc<Webhook>>>,
}

impl Directory {
    /// Takes over one record of a configuration topic; a record without a value removes. One that
    /// cannot be used changes nothing, and counts until another of its key takes its place.
    pub fn apply(&mut self, role: Role, record: &Record<'_>) -> Result<(), InvalidConfig> {
        let applied = self.apply_readable(role, record);
        let of = (role, record.key.unwrap_or_default().to_vec());
        // What is removed is not there, under whatever key.
        match applied.is_err() && record.value.is_some() {
            true => self.unreadable.insert(of),
            false => self.unreadable.remove(&of),
        };
        applied
    }

    /// Configuration records that cannot be used and are the newest of their keys.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    fn apply_readable(&mut self, role: Role, record: &Record<'_>) -> Result<(), InvalidConfig> {
        let key = String::from_utf8_lossy(record.key.unwrap_or_default());
        let revision = Revision(record.offset);
        let topic = match role {
            Role::Tenants => "tenants",
            Role::Webhooks => "webhooks",
            Role::Tokens => "tokens",
            Role::Uses => "uses",
            Role::Accounts => "accounts",
            Role::Health => "health",
            Role::Jobs => "jobs",
            _ => return Ok(()),
        };
        let invalid = |reason: String| InvalidConfig {
            topic,
            key: key.clone().into(),
            reason,
        };
        match role {
            Role::Tenants => {
                let id = TenantId::parse(&key).map_err(|error| invalid(error.to_string()))?;
                let tenant: Option<Versioned<Tenant>> = read(record, revision, &invalid)?;
                is_about(
                    tenant.as_ref().map(|tenant| &tenant.value.id),
                    &id,
                    &invalid,
                )?;
                self.tenants.entry(id.clone()).or_default().tenant = tenant;
                self.forget_if_empty(&id);
            }
            Role::Webhooks => {
                let (id, name) = key
                    .split_once('/')
                    .ok_or_else(|| invalid("no '/'".into()))?;
                let id = TenantId::parse(id).map_err(|error| invalid(error.to_string()))?;
                let name = WebhookName::parse(name).map_err(|error| invalid(error.to_string()))?;
                let new: Option<Versioned<Arc<Webhook>>> = read(record, revision, &invalid)?;
                let about = new.as_ref().map(|new| new.value.key());
                is_about(about.as_ref(), &config_key(&id, &name), &invalid)?;
                let webhooks = self.webhook(&id, name.as_str());
                let before = webhooks.map(|webhook| webhook.value.id);
                let now = new.as_ref().map(|webhook| webhook.value.id);
                self.put_webhook(id, name, new);
                for webhook in before.into_iter().chain(now) {
                    self.note_off(webhook, record.appended);
                }
            }
            Role::Health => {
                let id = Uuid::try_parse(&key).map_err(|error| invalid(error.to_string()))?;
                let health: Option<Versioned<Health>> = read(record, revision, &invalid)?;
                is_about(
                    health.as_ref().map(|health| &health.value.webhook),
                    &id,
                    &invalid,
                )?;
                match health {
                    Some(health) => self.health.insert(id, health.value),
                    None => self.health.remove(&id),
                };
                self.note_off(id, record.appended);
            }
            Role::Jobs => {
                let id = Uuid::try_parse(&key).map_err(|error| invalid(error.to_string()))?;
                let jobs: Option<Versioned<ReplayJobs>> = read(record, revision, &invalid)?;
                is_about(jobs.as_ref().map(|jobs| &jobs.value.webhook), &id, &invalid)?;
                match jobs {
                    Some(jobs) => self.jobs.insert(id, jobs),
                    None => self.jobs.remove(&id),
                };
            }
            Role::Tokens => self.accounts.apply_token(&key, record, &invalid)?,
            Role::Uses => self.accounts.apply_use(&key, record, &invalid)?,
            _ => self.accounts.apply(&key, record, &invalid)?,
        }
        Ok(())
    }

    fn put_webhook(
        &mut self,
        tenant: TenantId,
        name: WebhookName,
        new: Option<Versioned<Arc<Webhook>>>,
    ) {
        let webhooks = &mut self.tenants.entry(tenant.clone()).or_default().webhooks;
        let old = match new {
            Some(new) => {
                self.by_id.insert(new.value.id, new.value.clone());
                let id = new.value.id;
                webhooks.insert(name, new).filter(|old| old.value.id != id)
            }
            None => webhooks.remove(&name),
        };
        // Unless another record has claimed its id since: that one stays.
        if let Some(old) = old
            && self
                .by_id
                .get(&old.value.id)
                .is_some_and(|now| now.key() == old.value.key())
        {
            self.by_id.remove(&old.value.id);
        }
        self.forget_if_empty(&tenant);
    }

    /// Notes whether nothing may be sent to a webhook since the record that was appended `at`.
    fn note_off(&mut self, id: Uuid, at: Timestamp) {
        let is_on = |webhook: &Arc<Webhook>| webhook.enabled && !self.is_disabled(webhook);
        if self.by_id.get(&id).is_none_or(is_on) {
            self.off.remove(&id);
        } else {
            self.off.entry(id).or_insert(at);
        }
    }

    /// Since when a webhook is paused or disabled, by the log's clock; `None` when it is not.
    pub fn off_since(&self, webhook: Uuid) -> Option<Timestamp> {
        self.off.get(&webhook).copied()
    }

    fn forget_if_empty(&mut self, id: &TenantId) {
        let empty = |entry: &TenantEntry| entry.tenant.is_none() && entry.webhooks.is_empty();
        if self.tenants.get(id).is_some_and(empty) {
            self.tenants.remove(id);
        }
    }

    /// A tenant.
    pub fn tenant(&self, id: &TenantId) -> Option<&Versioned<Tenant>> {
        self.tenants.get(id)?.tenant.as_ref()
    }

    /// All tenants, by id.
    pub fn tenants(&self) -> Vec<&Versioned<Tenant>> {
        let mut all: Vec<_> = self
            .tenants
            .values()
            .filter_map(|t| t.tenant.as_ref())
            .collect();
        all.sort_by(|a, b| a.value.id.cmp(&b.value.id));
        all
    }

    /// The webhooks of a tenant, by name.
    pub fn webhooks(&self, tenant: &TenantId) -> impl Iterator<Item = &Versioned<Arc<Webhook>>> {
        self.tenants
            .get(tenant)
            .into_iter()
            .flat_map(|entry| entry.webhooks.values())
    }

    /// A webhook by its name, or by its id in text form.
    pub fn webhook(&self, tenant: &TenantId, name: &str) -> Option<&Versioned<Arc<Webhook>>> {
        let webhooks = &self.tenants.get(tenant)?.webhooks;
        match Uuid::try_parse(name) {
            Ok(id) => webhooks.values().find(|webhook| webhook.value.id == id),
            Err(_) => webhooks.get(&WebhookName::parse(name).ok()?),
        }
    }

    /// A webhook by its id. `None`: it was removed.
    pub fn webhook_by_id(&self, id: Uuid) -> Option<&Arc<Webhook>> {
        self.by_id.get(&id)
    }

    /// The verdict on a webhook as it is configured now; `None`: nothing is known to its discredit.
    /// One on an earlier generation says nothing about this one (contract R14).
    pub fn health(&self, webhook: &Webhook) -> Option<&Health> {
        let health = self.health.get(&webhook.id)?;
        (health.generation == webhook.generation).then_some(health)
    }

    /// Whether a webhook is disabled.
    pub fn is_disabled(&self, webhook: &Webhook) -> bool {
        self.health(webhook)
            .is_some_and(|health| health.disables(webhook.generation))
    }

    /// The replays of a webhook, where there were some.
    pub fn jobs(&self, webhook: Uuid) -> Option<&Versioned<ReplayJobs>> {
        self.jobs.get(&webhook)
    }

    /// The replays of all webhooks.
    pub fn all_jobs(&self) -> impl Iterator<Item = &Versioned<ReplayJobs>> {
        self.jobs.values()
    }

    /// The webhooks that want an event of this type of this tenant.
    pub fn subscribed<'a>(
        &'a self,
        tenant: &TenantId,
        event_type: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Webhook>> {
        self.webhooks(tenant)
            .map(|webhook| &webhook.value)
            .filter(|w| w.wants(event_type))
    }

    /// How many webhooks there are.
    pub fn webhook_count(&self) -> usize {
        self.by_id.len()
    }
}

fn read<T: serde::de::DeserializeOwned>(
    record: &Record<'_>,
    revision: Revision,
    invalid: &impl Fn(String) -> InvalidConfig,
) -> Result<Option<Versioned<T>>, InvalidConfig> {
    record
        .value
        .map(|value| {
            serde_json::from_slice(value)
                .map(|value| Versioned { value, revision })
                .map_err(|error| invalid(error.to_string()))
        })
        .transpose()
}

/// Whether a value is about what its key says; a removal has none.
fn is_about<T: PartialEq + std::fmt::Display>(
    value: Option<&T>,
    key: &T,
    invalid: &impl Fn(String) -> InvalidConfig,
) -> Result<(), InvalidConfig> {
    match value {
        Some(about) if about != key => Err(invalid(format!("it is about {about}"))),
        _ => Ok(()),
    }
}
