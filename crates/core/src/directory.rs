//! The directory: tenants, webhooks and tokens, folded from the configuration topics, and the verdicts
//! on webhooks. Every component
//! that needs configuration keeps one; it can be rebuilt from the log at any time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::account::Token;
use crate::event::TenantId;
use crate::health::Health;
use crate::log::{Record, Revision};
use crate::time::Timestamp;
use crate::topics::Role;
use crate::webhook::{Tenant, Webhook, WebhookName, config_key};

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

/// Tenants, webhooks and tokens as of some moment.
#[derive(Default, Debug)]
pub struct Directory {
    tenants: HashMap<TenantId, TenantEntry>,
    by_id: HashMap<Uuid, Arc<Webhook>>,
    tokens: BTreeMap<Uuid, Versioned<Token>>,
    health: HashMap<Uuid, Health>,
    /// Webhooks that are paused or disabled, and since when by the log's clock.
    off: HashMap<Uuid, Timestamp>,
    unreadable: u64,
}

#[derive(Default, Debug)]
struct TenantEntry {
    tenant: Option<Versioned<Tenant>>,
    webhooks: BTreeMap<WebhookName, Versioned<Arc<Webhook>>>,
}

impl Directory {
    /// Takes over one record of a configuration topic; a record without a value removes. One that
    /// cannot be used changes nothing, and is counted.
    pub fn apply(&mut self, role: Role, record: &Record<'_>) -> Result<(), InvalidConfig> {
        let applied = self.apply_readable(role, record);
        self.unreadable += u64::from(applied.is_err());
        applied
    }

    /// Configuration records that could not be used.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn apply_readable(&mut self, role: Role, record: &Record<'_>) -> Result<(), InvalidConfig> {
        let key = String::from_utf8_lossy(record.key.unwrap_or_default());
        let revision = Revision(record.offset);
        let topic = match role {
            Role::Tenants => "tenants",
            Role::Webhooks => "webhooks",
            Role::Accounts => "accounts",
            Role::Health => "health",
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
            _ => {
                let id = Uuid::try_parse(&key).map_err(|error| invalid(error.to_string()))?;
                let token: Option<Versioned<Token>> = read(record, revision, &invalid)?;
                is_about(token.as_ref().map(|token| &token.value.id), &id, &invalid)?;
                match token {
                    Some(token) => self.tokens.insert(id, token),
                    None => self.tokens.remove(&id),
                };
            }
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

    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = &Versioned<Token>> {
        self.tokens.values()
    }

    /// The token with this text.
    pub fn verify_token(&self, text: &str) -> Option<&Token> {
        let token = &self.tokens.get(&Token::id_of(text)?)?.value;
        token.verify(text).then_some(token)
    }

    /// A token by its id.
    pub fn token(&self, id: Uuid) -> Option<&Versioned<Token>> {
        self.tokens.get(&id)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schedule::Schedule;
    use crate::topics::{Partition, Topics, TopicsConfig};

    fn apply(
        directory: &mut Directory,
        role: Role,
        key: &str,
        value: Option<serde_json::Value>,
    ) -> Result<(), InvalidConfig> {
        apply_at(directory, role, key, value, 0)
    }

    fn apply_at(
        directory: &mut Directory,
        role: Role,
        key: &str,
        value: Option<serde_json::Value>,
        second: i64,
    ) -> Result<(), InvalidConfig> {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let value = value.map(|value| value.to_string());
        let record = Record {
            partition: Partition {
                topic: topics.find(role).unwrap(),
                index: 0,
            },
            offset: 3,
            appended: Timestamp::from_millis(second * 1000),
            key: Some(key.as_bytes()),
            headers: &[],
            value: value.as_deref().map(str::as_bytes),
        };
        directory.apply(role, &record)
    }

    fn webhook(id: u128, tenant: &str, name: &str, pattern: &str) -> serde_json::Value {
        json!({
            "version": 1, "id": Uuid::from_u128(id), "tenant": tenant, "name": name,
            "subscription": [pattern], "url": "http://x/", "authentication": {"method": "none"},
            "enabled": true, "generation": 0, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
            "a_field_of_the_future": 1,
        })
    }

    fn subscribed(directory: &Directory, tenant: &str, name: &str) -> Vec<u128> {
        let tenant = TenantId::parse(tenant).unwrap();
        directory
            .subscribed(&tenant, name)
            .map(|webhook| webhook.id.as_u128())
            .collect()
    }

    /// R1, R4: nothing until configured, then by pattern, and never across tenants.
    #[test]
    fn subscription_by_tenant_and_pattern() {
        let mut directory = Directory::default();
        assert!(subscribed(&directory, "a", "cdr.completed").is_empty());
        for (id, tenant, name, pattern) in [
            (1, "a", "cdr", "cdr.*"),
            (2, "a", "all", "*"),
            (3, "b", "cdr", "cdr.*"),
        ] {
            let value = webhook(id, tenant, name, pattern);
            apply(
                &mut directory,
                Role::Webhooks,
                &format!("{tenant}/{name}"),
                Some(value),
            )
            .unwrap();
        }
        assert_eq!(subscribed(&directory, "a", "cdr.completed"), [2, 1]);
        assert_eq!(subscribed(&directory, "a", "call.started"), [2]);
        assert_eq!(subscribed(&directory, "b", "cdr.completed"), [3]);
        assert!(subscribed(&directory, "b", "call.started").is_empty());
        apply(&mut directory, Role::Webhooks, "a/all", None).unwrap();
        assert!(subscribed(&directory, "a", "call.started").is_empty());
        assert!(directory.webhook_by_id(Uuid::from_u128(2)).is_none());
    }

    #[test]
    fn a_webhook_that_is_made_again_has_a_new_identity() {
        let mut directory = Directory::default();
        for id in [1, 2] {
            let value = webhook(id, "a", "cdr", "cdr.*");
            apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
        }
        assert!(directory.webhook_by_id(Uuid::from_u128(1)).is_none());
        assert!(directory.webhook_by_id(Uuid::from_u128(2)).is_some());
        assert_eq!(directory.webhook_count(), 1);
    }

    /// R14: a verdict holds for its own generation only.
    #[test]
    fn verdicts_do_not_outlive_their_generation() {
        let mut directory = Directory::default();
        let id = Uuid::from_u128(1);
        for (generation, disabled) in [(3, true), (2, false), (4, false)] {
            let mut value = webhook(1, "a", "cdr", "cdr.*");
            value["generation"] = generation.into();
            apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
            let health = json!({
                "version": 1, "webhook": id, "tenant": "a", "generation": 3, "state": "disabled",
                "since": Timestamp::EPOCH, "reason": "all failed",
            });
            apply(&mut directory, Role::Health, &id.to_string(), Some(health)).unwrap();
            let configured = directory.webhook_by_id(id).unwrap();
            assert_eq!(directory.is_disabled(configured), disabled, "{generation}");
        }
        apply(&mut directory, Role::Health, &id.to_string(), None).unwrap();
        assert!(directory.health.is_empty());
    }

    /// DL6: from the record that paused or disabled it, until it is neither.
    #[test]
    fn since_when_a_webhook_is_off() {
        let mut directory = Directory::default();
        let id = Uuid::from_u128(1);
        let configured = |enabled: bool, generation: u64| {
            let mut value = webhook(1, "a", "cdr", "*");
            value["enabled"] = enabled.into();
            value["generation"] = generation.into();
            ("a/cdr".to_owned(), Role::Webhooks, Some(value))
        };
        let verdict = |state: &str| {
            let value = json!({
                "version": 1, "webhook": id, "tenant": "a", "generation": 0, "state": state,
                "since": Timestamp::EPOCH, "reason": "",
            });
            (id.to_string(), Role::Health, Some(value))
        };
        let steps = [
            (configured(true, 0), None),
            (configured(false, 0), Some(1)),
            (verdict("disabled"), Some(1)),
            (configured(true, 0), Some(1)),
            (verdict("healthy"), None),
            (verdict("disabled"), Some(5)),
            (configured(true, 1), None),
            (configured(false, 1), Some(7)),
            (("a/cdr".to_owned(), Role::Webhooks, None), None),
        ];
        for (second, ((key, role, value), off)) in (0..).zip(steps) {
            apply_at(&mut directory, role, &key, value, second).unwrap();
            let since = off.map(|second: i64| Timestamp::from_millis(second * 1000));
            assert_eq!(directory.off_since(id), since, "{second}");
        }
        assert!(directory.off.is_empty());
    }

    #[test]
    fn tokens_are_found_by_id_and_text() {
        let mut directory = Directory::default();
        let id = Uuid::from_u128(5);
        let scopes = [crate::account::Scope::Publish].into();
        let (token, text) = Token::issue(
            id,
            "ops".to_owned(),
            None,
            scopes,
            Timestamp::EPOCH,
            [7; 32],
        );
        let value = serde_json::to_value(&token).unwrap();
        apply(&mut directory, Role::Accounts, &id.to_string(), Some(value)).unwrap();
        assert_eq!(directory.token(id).unwrap().value, token);
        assert_eq!(directory.verify_token(text.expose()), Some(&token));
        let other = text.expose().replace('7', "8");
        assert_eq!(directory.verify_token(&other), None);
    }

    /// A tenant is there as long as it or one of its webhooks is; either is found by all its names.
    #[test]
    fn tenants_and_webhooks_are_found_and_forgotten() {
        let mut directory = Directory::default();
        let id = TenantId::parse("a").unwrap();
        let tenant = json!({
            "version": 1, "id": "a", "title": "A", "created": Timestamp::EPOCH,
            "updated": Timestamp::EPOCH,
        });
        apply(&mut directory, Role::Tenants, "a", Some(tenant)).unwrap();
        for (number, name) in [(1, "cdr"), (2, "all")] {
            let value = webhook(number, "a", name, "*");
            apply(
                &mut directory,
                Role::Webhooks,
                &format!("a/{name}"),
                Some(value),
            )
            .unwrap();
        }
        assert_eq!(directory.tenant(&id).unwrap().value.id, id);
        let found = |text: &str| {
            let webhook = directory.webhook(&id, text)?;
            Some(webhook.value.id.as_u128())
        };
        assert_eq!(found("cdr"), Some(1));
        assert_eq!(found(&Uuid::from_u128(2).to_string()), Some(2));
        assert_eq!(found(&Uuid::from_u128(3).to_string()), None);
        assert_eq!(directory.webhook_count(), 2);
        apply(&mut directory, Role::Tenants, "a", None).unwrap();
        assert!(directory.tenant(&id).is_none());
        for name in ["cdr", "all"] {
            assert_eq!(directory.tenants.len(), 1);
            apply(&mut directory, Role::Webhooks, &format!("a/{name}"), None).unwrap();
        }
        assert!(directory.tenants.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_changes_nothing() {
        let mut directory = Directory::default();
        let value = webhook(1, "a", "cdr", "cdr.*");
        apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
        for (key, value) in [
            ("a/cdr", json!({"version": 1})),
            ("a/cdr", webhook(9, "b", "cdr", "*")),
            ("nonsense", json!({})),
            ("a/cdr", json!([])),
        ] {
            assert!(apply(&mut directory, Role::Webhooks, key, Some(value)).is_err());
        }
        assert_eq!(subscribed(&directory, "a", "cdr.completed"), [1]);
        assert!(apply(&mut directory, Role::Accounts, "x", None).is_err());
        assert_eq!(directory.unreadable(), 5);
    }

    /// What a record is about stands in its key and in its value: where they differ, neither is
    /// believed.
    #[test]
    fn a_record_about_something_else_than_its_key_is_refused() {
        let (one, two) = (
            Uuid::from_u128(1).to_string(),
            Uuid::from_u128(2).to_string(),
        );
        let tenant = |id: &str| {
            json!({ "version": 1, "id": id, "title": "T", "created": Timestamp::EPOCH,
                    "updated": Timestamp::EPOCH })
        };
        let token = |id: &str| {
            json!({ "version": 1, "id": id, "name": "pbx", "tenant": "a", "hash": "00",
                    "created": Timestamp::EPOCH })
        };
        let health = |id: &str| {
            json!({ "version": 1, "webhook": id, "tenant": "a", "generation": 0,
                    "state": "disabled", "since": Timestamp::EPOCH, "reason": "" })
        };
        let mut directory = Directory::default();
        for (role, key, right, wrong) in [
            (Role::Tenants, "a", tenant("a"), tenant("b")),
            (Role::Accounts, &*one, token(&one), token(&two)),
            (Role::Health, &one, health(&one), health(&two)),
        ] {
            apply(&mut directory, role, key, Some(right)).unwrap();
            let error = apply(&mut directory, role, key, Some(wrong)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(key) && text.contains("it is about"), "{text}");
        }
        assert_eq!(directory.tenants()[0].value.id.as_str(), "a");
        assert_eq!(directory.tokens().count(), 1);
        assert_eq!(
            directory.health[&Uuid::from_u128(1)].webhook.to_string(),
            one
        );
        assert_eq!(directory.unreadable(), 3);
    }

    /// Two records that claim one id: removing the one leaves the other.
    #[test]
    fn a_claimed_id_is_not_removed_with_its_claimant() {
        let mut directory = Directory::default();
        for name in ["first", "second"] {
            let value = webhook(1, "a", name, "*");
            apply(
                &mut directory,
                Role::Webhooks,
                &format!("a/{name}"),
                Some(value),
            )
            .unwrap();
        }
        apply(&mut directory, Role::Webhooks, "a/first", None).unwrap();
        assert_eq!(
            directory
                .webhook_by_id(Uuid::from_u128(1))
                .unwrap()
                .name
                .as_str(),
            "second"
        );
    }
}
