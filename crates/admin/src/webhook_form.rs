//! Webhooks as they come in and go out: forms to add and to change, and the view.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::catalogue::Preset;
use ringback_core::custom_headers::{CustomHeaders, check_headers};
use ringback_core::directory::{Directory, Versioned};
use ringback_core::event::TenantId;
use ringback_core::health::State;
use ringback_core::schedule::check_waits;
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::target::Reach;
use ringback_core::time::{Timestamp, duration_label, parse_duration};
use ringback_core::verdict::Acknowledge;
use ringback_core::webhook::{
    Authentication, CONFIG_VERSION, Format, Pattern, Webhook, WebhookName,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::authentication::{self, AuthenticationForm, Vault};
use crate::certificates::check_validity;
use crate::openapi::{Acknowledged, AuthenticationFields, Formatted};
use crate::problem::Problem;
use crate::tls_form::{self, TlsForm};
use crate::{previous_authentication, signing};

/// Patterns that one subscription may have.
const PATTERNS_MAX: usize = 64;

/// A webhook to be added, or that replaces what was there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    pub(crate) name: Option<String>,
    preset: Option<String>,
    subscription: Option<Vec<String>>,
    pub(crate) url: String,
    #[schemars(with = "Option<AuthenticationFields>")]
    authentication: Option<AuthenticationForm>,
    #[serde(default)]
    #[schemars(with = "Acknowledged")]
    acknowledge: Acknowledge,
    rate_limit: Option<u32>,
    schedule: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(with = "Formatted")]
    format: Format,
    /// The caller's own, instead of one that is made.
    #[schemars(with = "Option<String>")]
    signing_secret: Option<Secret>,
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    headers: CustomHeaders,
    tls: Option<TlsForm>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// A change: what is absent stays.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    subscription: Option<Vec<String>>,
    pub(crate) url: Option<String>,
    #[schemars(with = "Option<AuthenticationFields>")]
    authentication: Option<AuthenticationForm>,
    #[schemars(with = "Option<Acknowledged>")]
    acknowledge: Option<Acknowledge>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<u32>")]
    rate_limit: Option<Option<u32>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Vec<String>>")]
    schedule: Option<Option<Vec<String>>>,
    #[schemars(with = "Option<Formatted>")]
    format: Option<Format>,
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    headers: Option<CustomHeaders>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<TlsForm>")]
    tls: Option<Option<TlsForm>>,
    enabled: Option<bool>,
}

/// Tells a field that is null from one that is absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What forms are checked against and made with.
pub(crate) struct Making<'a> {
    pub(crate) keys: &'a KeyRing,
    pub(crate) now: Timestamp,
    pub(crate) forbid_http: bool,
    /// Where it may lead.
    pub(crate) reach: &'a Reach,
    /// The waits that a webhook's own schedule is drawn from.
    pub(crate) tiers: &'a [Duration],
}

impl NewWebhook {
    /// The name it asks for: its own, or the preset's.
    pub(crate) fn webhook_name(&self) -> Result<WebhookName, Problem> {
        let preset = self.preset.as_deref().map(find_preset).transpose()?;
        match (&self.name, preset) {
            (Some(name), None) => Ok(WebhookName::parse(name)?),
            (None, Some(preset)) => Ok(WebhookName::preset(preset)),
            (Some(name), Some(preset)) if name == preset.name() => Ok(WebhookName::preset(preset)),
            (Some(_), Some(preset)) => {
                let preset = preset.name();
                let detail =
                    format!("the webhook of preset {preset} is called {preset}; leave name out");
                Err(Problem::field("name", detail))
            }
            (None, None) => {
                let detail = "a webhook needs a name, or a preset: cdr or extension";
                Err(Problem::field("name", detail))
            }
        }
    }

    /// The webhook that this asks for.
    pub(crate) fn build(
        mut self,
        tenant: TenantId,
        making: &Making<'_>,
    ) -> Result<Webhook, Problem> {
        let name = self.webhook_name()?;
        let id = Uuid::now_v7();
        let vault = Vault {
            keys: making.keys,
            webhook: id,
        };
        let secret = self.signing_secret.take();
        let empty = Webhook {
            version: CONFIG_VERSION,
            id,
            tenant,
            name,
            subscription: Vec::new(),
            url: String::new(),
            authentication: Authentication::None,
            enabled: false,
            generation: 0,
            acknowledge: Acknowledge::default(),
            rate_limit: None,
            schedule: None,
            format: Format::default(),
            headers: CustomHeaders::default(),
            tls: None,
            previous_authentication: None,
            created: making.now,
            updated: making.now,
            signing: vec![signing::first(secret.as_ref(), &vault, making.now)?],
            unknown: Default::default(),
        };
        self.replacing(&empty)?.apply(&empty, making)
    }

    /// The change that turns `current` into what this asks for. Authentication that is absent stays,
    /// because nobody can read its secrets to send them back; signing keys only change by rotation,
    /// because a receiver must know of it.
    pub(crate) fn replacing(self, current: &Webhook) -> Result<WebhookChange, Problem> {
        if self.signing_secret.is_some() {
            let detail = "signing_secret is for a new webhook; change it with POST …/secret/rotate";
            return Err(Problem::field("signing_secret", detail));
        }
        let preset = Preset::find(current.name.as_str());
        let subscription = match (self.subscription, preset) {
            (Some(patterns), _) => patterns,
            (None, Some(preset)) => preset
                .patterns()
                .iter()
                .map(|&text| text.to_owned())
                .collect(),
            (None, None) => {
                let detail =
                    "a webhook that is no preset needs a subscription, such as [\"call.*\"]";
                return Err(Problem::field("subscription", detail));
            }
        };
        Ok(WebhookChange {
            subscription: Some(subscription),
            url: Some(self.url),
            authentication: self.authentication,
            acknowledge: Some(self.acknowledge),
            rate_limit: Some(self.rate_limit),
            schedule: Some(self.schedule),
            format: Some(self.format),
            headers: Some(self.headers),
            tls: Some(self.tls),
            enabled: Some(self.enabled),
        })
    }
}

impl WebhookChange {
    /// Switches on or off, and changes nothing else.
    pub(crate) fn switch(enabled: bool) -> Self {
        Self {
            enabled: Some(enabled),
            ..Self::default()
        }
    }

    /// The webhook after this change.
    pub(crate) fn apply(&self, current: &Webhook, making: &Making<'_>) -> Result<Webhook, Problem> {
        let mut next = current.clone();
        if let Some(patterns) = &self.subscription {
            next.subscription = read_patterns(patterns, &current.name)?;
        }
        if let Some(url) = &self.url {
            next.url = making.reach.check(url)?.into();
        }
        let vault = Vault {
            keys: making.keys,
            webhook: current.id,
        };
        if let Some(form) = &self.authentication {
            next.authentication = form.apply(&current.authentication, &vault)?;
        }
        if self.authentication.is_some() || self.url.is_some() {
            let grace = self.authentication.as_ref().map(|form| form.grace());
            let grace = grace.transpose()?.flatten();
            next.previous_authentication =
                previous_authentication::after_change(current, &next, grace, &vault, making.now)?;
        }
        next.acknowledge = self.acknowledge.unwrap_or(current.acknowledge);
        if let Some(limit) = self.rate_limit {
            next.rate_limit = limit.map(read_rate_limit).transpose()?;
        }
        if let Some(waits) = &self.schedule {
            let read = |waits: &Vec<String>| read_waits(waits, making.tiers);
            next.schedule = waits.as_ref().map(read).transpose()?;
        }
        if let Some(headers) = &self.headers {
            next.headers = check_headers(headers)?;
        }
        if let Some(tls) = &self.tls {
            let apply = |form: &TlsForm| form.apply(current.tls.as_ref(), &vault);
            next.tls = tls.as_ref().map(apply).transpose()?.flatten();
        }
        next.format = self.format.unwrap_or(current.format);
        next.enabled = self.enabled.unwrap_or(current.enabled);
        let is_set = next.url != current.url || (next.enabled && !current.enabled);
        if making.forbid_http && is_set && is_plain(&next.url) {
            let detail =
                "plain http URLs are forbidden here; use https (admin.forbid_http says so)";
            return Err(Problem::invalid("http_forbidden", detail).with("field", "url"));
        }
        if next != *current {
            next.updated = making.now;
        }
        Ok(next)
    }
}

/// As the API shows a webhook, with the verdict on it. Nothing secret is in it.
pub(crate) fn view(
    webhook: &Versioned<Arc<Webhook>>,
    directory: &Directory,
    now: Timestamp,
) -> Value {
    let revision = webhook.revision;
    let health = directory.health(&webhook.value);
    let webhook = &webhook.value;
    let preset = Preset::find(webhook.name.as_str());
    json!({
        "id": webhook.id,
        "tenant": webhook.tenant,
        "name": webhook.name,
        "title": preset.map_or(webhook.name.as_str(), |preset| preset.title()),
        "preset": preset,
        "subscription": webhook.subscription,
        "url": webhook.url,
        "authentication": authentication::view(&webhook.authentication),
        "previous_authentication": previous_authentication::view(webhook, now),
        "signing": signing::view(&webhook.signing, now),
        "acknowledge": webhook.acknowledge,
        "rate_limit": webhook.rate_limit,
        "schedule": webhook.schedule.as_ref().map(|waits| labels(waits)),
        "format": webhook.format,
        "headers": webhook.headers,
        "tls": tls_form::view(webhook.tls.as_ref()),
        "enabled": webhook.enabled,
        "generation": webhook.generation,
        "health": {
            "state": health.map_or(State::Healthy, |health| health.state),
            "since": health.map(|health| health.since),
            "reason": health.map(|health| &health.reason),
        },
        "created": webhook.created,
        "updated": webhook.updated,
        "revision": revision.0,
        "warnings": warnings(webhook, now),
    })
}

fn warnings(webhook: &Webhook, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    if webhook.signing.is_empty() {
        warnings.push("requests are not signed: give the webhook a key (POST …/secret/rotate, or `ringback webhook secret rotate`)".to_owned());
    }
    if is_plain(&webhook.url) {
        let warning = match webhook.authentication {
            // Digest keeps the password to itself.
            Authentication::None | Authentication::Digest { .. } => {
                "the URL is plain http: events travel unencrypted; use https"
            }
            _ => "the URL is plain http: events and the credentials travel unencrypted; use https",
        };
        warnings.push(warning.to_owned());
    }
    let certificate = webhook
        .tls
        .as_ref()
        .and_then(|tls| tls.certificate.as_ref());
    warnings.extend(certificate.and_then(|pem| check_validity(pem, now)));
    warnings
}

fn is_plain(url: &str) -> bool {
    url.starts_with("http:")
}

fn find_preset(name: &str) -> Result<Preset, Problem> {
    Preset::find(name).ok_or_else(|| {
        let names: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        Problem::field("preset", format!("the presets are {}", names.join(" and ")))
    })
}

fn read_patterns(texts: &[String], name: &WebhookName) -> Result<Vec<Pattern>, Problem> {
    if !(1..=PATTERNS_MAX).contains(&texts.len()) {
        let detail = format!(
            "a subscription has 1 to {PATTERNS_MAX} patterns, not {}",
            texts.len()
        );
        return Err(Problem::field("subscription", detail));
    }
    if let Some(preset) = Preset::find(name.as_str())
        && let Some(text) = texts.iter().find(|text| !is_within(text, preset))
    {
        // Contract R2 says what these two are; a wider one would be something else under their name.
        let detail = format!(
            "webhook {} is {} and may be narrowed, not widened to {text:?}; add one with another name",
            preset.name(),
            preset.title()
        );
        return Err(Problem::field("subscription", detail));
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for text in texts {
        let pattern = Pattern::parse(text)?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(patterns)
}

/// The largest rate limit: beyond, a limit means nothing.
const RATE_LIMIT_MAX: u32 = 1_000_000;

fn read_rate_limit(per_second: u32) -> Result<NonZeroU32, Problem> {
    NonZeroU32::new(per_second)
        .filter(|limit| limit.get() <= RATE_LIMIT_MAX)
        .ok_or_else(|| {
            let detail = format!(
                "rate_limit {per_second} is not allowed: use 1 to {RATE_LIMIT_MAX} events per second, or null for none; to halt the webhook, pause it"
            );
            Problem::field("rate_limit", detail)
        })
}

fn read_waits(texts: &[String], tiers: &[Duration]) -> Result<Vec<Duration>, Problem> {
    let wrong = |error: &dyn std::fmt::Display| {
        let allowed = labels(tiers).join(", ");
        let detail = format!(
            "the schedule cannot be used: {error}; a webhook's waits are drawn from this deployment's tiers: {allowed}"
        );
        Problem::field("schedule", detail)
    };
    let waits: Vec<_> = texts
        .iter()
        .map(|text| parse_duration(text).map_err(|error| wrong(&error)))
        .collect::<Result<_, _>>()?;
    check_waits(&waits, tiers).map_err(|error| wrong(&error))?;
    Ok(waits)
}

fn labels(waits: &[Duration]) -> Vec<String> {
    waits.iter().map(|wait| duration_label(*wait)).collect()
}

fn is_within(text: &str, preset: Preset) -> bool {
    preset.patterns().iter().any(|pattern| {
        pattern
            .strip_suffix('*')
            .is_some_and(|below| text.starts_with(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIERS: [Duration; 2] = [Duration::from_secs(32), Duration::from_secs(240)];

    fn build(form: Value, forbid_http: bool) -> Result<Webhook, Problem> {
        let keys = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let making = Making {
            keys: &keys.unwrap(),
            now: Timestamp::from_millis(1000),
            forbid_http,
            reach: &Reach::default(),
            tiers: &TIERS,
        };
        let form: NewWebhook = serde_json::from_value(form).unwrap();
        form.build(TenantId::parse("acme").unwrap(), &making)
    }

    #[test]
    fn presets_bring_their_name_and_subscription() {
        let url = "https://crm.example.com/";
        for form in [
            json!({"preset": "cdr", "url": url}),
            json!({"name": "cdr", "url": url}),
        ] {
            let webhook = build(form, true).unwrap();
            assert_eq!(webhook.key(), "acme/cdr");
            assert!(webhook.wants("cdr.completed") && !webhook.wants("call.started"));
            assert!(webhook.enabled);
        }
        let narrowed = json!({"name": "cdr", "url": url, "subscription": ["cdr.updated"]});
        assert!(!build(narrowed, true).unwrap().wants("cdr.completed"));
        for wrong in [
            json!({"name": "crm", "preset": "cdr", "url": url}),
            json!({"preset": "everything", "url": url}),
            json!({"name": "cdr", "url": url, "subscription": ["*"]}),
            json!({"name": "crm", "url": url}),
            json!({"name": "crm", "url": url, "subscription": []}),
            json!({"url": url}),
        ] {
            assert!(build(wrong.clone(), true).is_err(), "{wrong}");
        }
    }

    /// R3: plain HTTP is accepted with a visible warning, and a deployment can forbid it.
    #[test]
    fn plain_http_warns_or_is_forbidden() {
        let form = || json!({"preset": "cdr", "url": "http://crm.example.com/"});
        let webhook = build(form(), false).unwrap();
        assert_eq!(warnings(&webhook, webhook.updated).len(), 1);
        assert!(build(form(), true).is_err());
        let off = WebhookChange::switch(false);
        let keys = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let making = Making {
            keys: &keys.unwrap(),
            now: webhook.created,
            forbid_http: true,
            reach: &Reach::default(),
            tiers: &TIERS,
        };
        let paused = off.apply(&webhook, &making).unwrap();
        assert!(WebhookChange::switch(true).apply(&paused, &making).is_err());
    }
    /// A limit and a schedule are set, kept by a change that does not name them, and taken away by null.
    #[test]
    fn limits_and_schedules_are_set_kept_and_taken_away() {
        let form = json!({
            "preset": "cdr", "url": "https://crm.example.com/",
            "rate_limit": 20, "schedule": ["4m", "32s", "4m"],
        });
        let webhook = build(form, false).unwrap();
        let shown = view(
            &Versioned {
                value: Arc::new(webhook.clone()),
                revision: ringback_core::log::Revision(1),
            },
            &Directory::default(),
            webhook.created,
        );
        assert_eq!(shown["rate_limit"], 20);
        assert_eq!(shown["schedule"], json!(["4m", "32s", "4m"]));
        let keys = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let making = Making {
            keys: &keys.unwrap(),
            now: webhook.created,
            forbid_http: false,
            reach: &Reach::default(),
            tiers: &TIERS,
        };
        let change = |body: Value| serde_json::from_value::<WebhookChange>(body).unwrap();
        let same = change(json!({})).apply(&webhook, &making).unwrap();
        assert_eq!(same, webhook);
        let none = json!({ "rate_limit": null, "schedule": null });
        let none = change(none).apply(&webhook, &making).unwrap();
        assert_eq!((none.rate_limit, none.schedule), (None, None));
        for wrong in [
            json!({ "rate_limit": 0 }),
            json!({ "rate_limit": 2_000_000 }),
            json!({ "schedule": ["1m"] }),
            json!({ "schedule": ["soon"] }),
        ] {
            assert!(
                change(wrong.clone()).apply(&webhook, &making).is_err(),
                "{wrong}"
            );
        }
    }
}
