//! Webhooks as they come in and go out: forms to add and to change, and the view.

use std::sync::Arc;

use ringback_core::catalogue::Preset;
use ringback_core::directory::Versioned;
use ringback_core::event::TenantId;
use ringback_core::secret::KeyRing;
use ringback_core::time::Timestamp;
use ringback_core::verdict::Acknowledge;
use ringback_core::webhook::{
    Authentication, CONFIG_VERSION, Format, Pattern, Webhook, WebhookName, check_url,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::authentication::{self, AuthenticationForm, Vault};
use crate::problem::Problem;

/// Patterns that one subscription may have.
const PATTERNS_MAX: usize = 64;

/// A webhook to be added, or that replaces what was there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    pub(crate) name: Option<String>,
    preset: Option<String>,
    subscription: Option<Vec<String>>,
    url: String,
    authentication: Option<AuthenticationForm>,
    #[serde(default)]
    acknowledge: Acknowledge,
    #[serde(default)]
    format: Format,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// A change: what is absent stays.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    subscription: Option<Vec<String>>,
    url: Option<String>,
    authentication: Option<AuthenticationForm>,
    acknowledge: Option<Acknowledge>,
    format: Option<Format>,
    enabled: Option<bool>,
}

/// What forms are checked against and made with.
pub(crate) struct Making<'a> {
    pub(crate) keys: &'a KeyRing,
    pub(crate) now: Timestamp,
    pub(crate) forbid_http: bool,
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
                Err(Problem::invalid("invalid_field", detail))
            }
            (None, None) => {
                let detail = "a webhook needs a name, or a preset: cdr or extension";
                Err(Problem::invalid("invalid_field", detail))
            }
        }
    }

    /// The webhook that this asks for.
    pub(crate) fn build(self, tenant: TenantId, making: &Making<'_>) -> Result<Webhook, Problem> {
        let name = self.webhook_name()?;
        let empty = Webhook {
            version: CONFIG_VERSION,
            id: Uuid::now_v7(),
            tenant,
            name,
            subscription: Vec::new(),
            url: String::new(),
            authentication: Authentication::None,
            enabled: false,
            generation: 0,
            acknowledge: Acknowledge::default(),
            format: Format::default(),
            created: making.now,
            updated: making.now,
        };
        self.replacing(&empty)?.apply(&empty, making)
    }

    /// The change that turns `current` into what this asks for. Authentication that is absent stays,
    /// because nobody can read its secrets to send them back.
    pub(crate) fn replacing(self, current: &Webhook) -> Result<WebhookChange, Problem> {
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
                return Err(Problem::invalid("invalid_field", detail));
            }
        };
        Ok(WebhookChange {
            subscription: Some(subscription),
            url: Some(self.url),
            authentication: self.authentication,
            acknowledge: Some(self.acknowledge),
            format: Some(self.format),
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
            next.url = check_url(url)?.into();
        }
        if let Some(form) = &self.authentication {
            let vault = Vault {
                keys: making.keys,
                webhook: current.id,
            };
            next.authentication = form.apply(&current.authentication, &vault)?;
        }
        next.acknowledge = self.acknowledge.unwrap_or(current.acknowledge);
        next.format = self.format.unwrap_or(current.format);
        next.enabled = self.enabled.unwrap_or(current.enabled);
        let is_set = next.url != current.url || (next.enabled && !current.enabled);
        if making.forbid_http && is_set && is_plain(&next.url) {
            let detail =
                "plain http URLs are forbidden here; use https (admin.forbid_http says so)";
            return Err(Problem::invalid("http_forbidden", detail));
        }
        if next != *current {
            next.updated = making.now;
        }
        Ok(next)
    }
}

/// As the API shows a webhook. Nothing secret is in it.
pub(crate) fn view(webhook: &Versioned<Arc<Webhook>>) -> Value {
    let revision = webhook.revision;
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
        "acknowledge": webhook.acknowledge,
        "format": webhook.format,
        "enabled": webhook.enabled,
        "generation": webhook.generation,
        "created": webhook.created,
        "updated": webhook.updated,
        "revision": revision.0,
        "warnings": warnings(webhook),
    })
}

fn warnings(webhook: &Webhook) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if is_plain(&webhook.url) {
        warnings.push(match webhook.authentication {
            Authentication::None => "the URL is plain http: events travel unencrypted; use https",
            _ => "the URL is plain http: events and the credentials travel unencrypted; use https",
        });
    }
    warnings
}

fn is_plain(url: &str) -> bool {
    url.starts_with("http:")
}

fn find_preset(name: &str) -> Result<Preset, Problem> {
    Preset::find(name).ok_or_else(|| {
        let names: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        Problem::invalid(
            "invalid_field",
            format!("the presets are {}", names.join(" and ")),
        )
    })
}

fn read_patterns(texts: &[String], name: &WebhookName) -> Result<Vec<Pattern>, Problem> {
    if !(1..=PATTERNS_MAX).contains(&texts.len()) {
        let detail = format!(
            "a subscription has 1 to {PATTERNS_MAX} patterns, not {}",
            texts.len()
        );
        return Err(Problem::invalid("invalid_field", detail));
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
        return Err(Problem::invalid("invalid_field", detail));
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

    fn build(form: Value, forbid_http: bool) -> Result<Webhook, Problem> {
        let keys = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let making = Making {
            keys: &keys.unwrap(),
            now: Timestamp::from_millis(1000),
            forbid_http,
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
        assert_eq!(warnings(&webhook).len(), 1);
        assert!(build(form(), true).is_err());
        let off = WebhookChange::switch(false);
        let keys = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let making = Making {
            keys: &keys.unwrap(),
            now: webhook.created,
            forbid_http: true,
        };
        let paused = off.apply(&webhook, &making).unwrap();
        assert!(WebhookChange::switch(true).apply(&paused, &making).is_err());
    }
}
