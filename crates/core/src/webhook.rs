//! Tenants and webhooks as they are configured.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::catalogue::Preset;
use crate::custom_headers::CustomHeaders;
use crate::event::{EventName, TenantId};
use crate::mail_address::MailAddress;
use crate::secret::Sealed;
use crate::signing::{self, SigningKey};
use crate::time::Timestamp;
use crate::tls::{TLS_KEY, Tls};
use crate::verdict::Acknowledge;

/// The field that passwords are sealed with.
pub const PASSWORD: &str = "password";
/// The field that bearer tokens are sealed with.
pub const TOKEN: &str = "token";

/// Version of the configuration records written here.
pub const CONFIG_VERSION: u32 = 1;

/// A company on the PBX.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    /// Version of the record.
    pub version: u32,
    /// Its id, which is the record's key.
    pub id: TenantId,
    /// For people.
    pub title: String,
    /// Who gets mail about its webhooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<MailAddress>,
    /// When it was added.
    pub created: Timestamp,
    /// What a newer release wrote besides: nothing to us, and kept through our changes.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// A configured receiver of a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Webhook {
    /// Version of the record.
    pub version: u32,
    /// Its identity in deliveries, never used again after removal.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it; unique in the tenant.
    pub name: WebhookName,
    /// What it is subscribed to.
    pub subscription: Vec<Pattern>,
    /// Where to.
    pub url: String,
    /// How to authenticate.
    pub authentication: Authentication,
    /// The switch of contract R3. Off: deliveries are parked as `paused`.
    pub enabled: bool,
    /// Raised by every re-enabling, so that what belongs to an earlier life can be told apart.
    pub generation: u64,
    /// Which statuses acknowledge.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Events per second that it gets at most, over all dispatchers; without, as fast as it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NonZeroU32>,
    /// The waits before its retries instead of the deployment's, drawn from its tiers (contract R12).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::schedule::waits_text"
    )]
    pub schedule: Option<Vec<Duration>>,
    /// In which form events are sent.
    #[serde(default)]
    pub format: Format,
    /// What its requests are signed with, in the order of the signatures. A record of before there
    /// were signatures has none: its requests are not signed until it gets a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing: Vec<SigningKey>,
    /// Headers that its requests carry besides, checked by [`crate::custom_headers`].
    #[serde(default, skip_serializing_if = "CustomHeaders::is_empty")]
    pub headers: CustomHeaders,
    /// How its TLS differs from the deployment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What it authenticated with before, for a receiver that has not changed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_authentication: Option<PreviousAuthentication>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// What a newer release wrote besides: nothing to us, and kept through our changes.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Webhook {
    /// The key of its configuration record. It is made of what must be unique, so that
    /// compare-and-set on the key also keeps names unique.
    pub fn key(&self) -> String {
        config_key(&self.tenant, &self.name)
    }

    /// Everything sealed that it has, and the field that each is sealed with.
    pub fn secrets(&self) -> impl Iterator<Item = (&Sealed, &'static str)> {
        let tls = self.tls.as_ref().and_then(|tls| tls.key.as_ref());
        let signing = self.signing.iter().map(|key| (&key.secret, signing::FIELD));
        let previous = self.previous_authentication.as_ref();
        self.authentication
            .secret()
            .into_iter()
            .chain(previous.and_then(|previous| previous.authentication.secret()))
            .chain(tls.map(|key| (key, TLS_KEY)))
            .chain(signing)
    }

    /// What is tried at this time when the receiver refuses the authentication.
    pub fn previous_authentication(&self, now: Timestamp) -> Option<&PreviousAuthentication> {
        let previous = self.previous_authentication.as_ref();
        previous.filter(|previous| now < previous.until)
    }

    /// Whether it wants events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        self.subscription
            .iter()
            .any(|pattern| pattern.matches(event_type))
    }
}

/// The key of a webhook's configuration record.
pub fn config_key(tenant: &TenantId, name: &WebhookName) -> String {
    format!("{tenant}/{name}")
}

/// In which form a webhook gets events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object around the data (contract R5), see [`crate::event::Event::standard_body`].
    #[default]
    Standard,
    /// CloudEvents in HTTP's binary mode: the data alone in the body, the attributes in headers, see
    /// [`crate::cloudevent::http_headers`].
    CloudEvents,
    /// The data alone, byte for byte, with the headers that every request has.
    Raw,
}

/// How a webhook's requests authenticate (contract R3). Secrets are sealed, see [`crate::secret`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Authentication {
    /// Not at all ("Disable" in the seeds).
    #[default]
    None,
    /// HTTP Basic (RFC 7617).
    Basic {
        /// Sent in clear, so it has no colon (RFC 7617 §2).
        username: String,
        /// Sealed with field `password`.
        password: Sealed,
    },
    /// HTTP Digest (RFC 7616), see [`crate::digest`].
    Digest {
        /// Without a colon: what is hashed ends the name with one (RFC 7616 §3.4.2).
        username: String,
        /// Sealed with field `password`.
        password: Sealed,
    },
    /// HTTP Bearer (RFC 6750 §2.1).
    Bearer {
        /// Sealed with field `token`.
        token: Sealed,
    },
}

impl Authentication {
    /// Its name for people and programs.
    pub fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic { .. } => "basic",
            Self::Digest { .. } => "digest",
            Self::Bearer { .. } => "bearer",
        }
    }

    /// Its secret, and the field that this is sealed with.
    pub fn secret(&self) -> Option<(&Sealed, &'static str)> {
        match self {
            Self::None => None,
            Self::Basic { password, .. } | Self::Digest { password, .. } => {
                Some((password, PASSWORD))
            }
            Self::Bearer { token } => Some((token, TOKEN)),
        }
    }

    /// The same with another secret in its place.
    #[must_use]
    pub fn with_secret(&self, secret: Sealed) -> Self {
        let mut with = self.clone();
        match &mut with {
            Self::None => {}
            Self::Basic { password, .. } | Self::Digest { password, .. } => *password = secret,
            Self::Bearer { token } => *token = secret,
        }
        with
    }
}

/// What a webhook authenticated with before a change. While it is good, a receiver that refuses the
/// present one with 401 is asked once more with this one, within the same attempt: so the two sides
/// need not change at the same moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PreviousAuthentication {
    /// Method and secret of then, sealed as they were.
    #[serde(flatten)]
    pub authentication: Authentication,
    /// From when on it is tried no more.
    pub until: Timestamp,
}

/// A piece of webhook configuration that is not allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} is not allowed: {rule}", presented(self.what, &self.value))]
pub struct InvalidWebhook {
    /// Which field.
    pub what: &'static str,
    /// Its value, shortened; empty where it is, or may not be shown.
    pub value: String,
    /// What is allowed.
    pub rule: &'static str,
}

fn presented(what: &str, value: &str) -> String {
    match value.is_empty() {
        true => format!("this {what}"),
        false => format!("{what} {value:?}"),
    }
}

pub(crate) fn invalid(what: &'static str, value: &str, rule: &'static str) -> InvalidWebhook {
    InvalidWebhook {
        what,
        value: value.chars().take(64).collect(),
        rule,
    }
}

/// The name of a webhook: like a tenant's id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookName(String);

impl WebhookName {
    /// Checks and wraps. The presets' names (`cdr`, `extension`) are names like any other.
    pub fn parse(text: &str) -> Result<Self, InvalidWebhook> {
        match TenantId::parse(text) {
            Ok(_) if Uuid::try_parse(text).is_err() => Ok(Self(text.to_owned())),
            _ => Err(invalid(
                "name",
                text,
                "use 1 to 64 lower-case letters, digits, '-', '_' and '.', but not a UUID",
            )),
        }
    }

    /// The name of a preset's webhook.
    pub fn preset(preset: Preset) -> Self {
        Self(preset.name().to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebhookName {
    type Error = InvalidWebhook;

    fn try_from(text: String) -> Result<Self, InvalidWebhook> {
        Self::parse(&text)
    }
}

impl From<WebhookName> for String {
    fn from(name: WebhookName) -> Self {
        name.0
    }
}

impl fmt::Display for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a webhook is subscribed to: an event type (`cdr.completed`), everything below a prefix
/// (`queue.*`, any number of segments), or everything (`*`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pattern {
    /// With a trailing dot for a prefix.
    text: String,
    kind: PatternKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum PatternKind {
    Exact,
    Below,
    All,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidWebhook> {
        const RULE: &str = "use an event type (cdr.completed), a prefix (queue.*) or *";
        if text == "*" {
            return Ok(Self {
                text: String::new(),
                kind: PatternKind::All,
            });
        }
        let (name, kind) = match text.strip_suffix(".*") {
            Some(prefix) => (prefix, PatternKind::Below),
            None => (text, PatternKind::Exact),
        };
        EventName::parse(name).map_err(|_| invalid("pattern", text, RULE))?;
        let dot = if kind == PatternKind::Below { "." } else { "" };
        Ok(Self {
            text: format!("{name}{dot}"),
            kind,
        })
    }

    /// Whether an event type is meant.
    pub fn matches(&self, event_type: &str) -> bool {
        match self.kind {
            PatternKind::Exact => event_type == self.text,
            PatternKind::Below => event_type.starts_with(&self.text),
            PatternKind::All => true,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.kind == PatternKind::Exact {
            ""
        } else {
            "*"
        })
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_names_the_value_unless_it_has_none() {
        let shown = |value| invalid("url", value, "use https").to_string();
        assert_eq!(shown("x"), "url \"x\" is not allowed: use https");
        assert_eq!(shown(""), "this url is not allowed: use https");
    }

    /// Every kind is there, each under its own field; the earlier authentication while it is good.
    #[test]
    fn a_webhook_names_all_that_is_sealed_in_it() {
        let ring = [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
        let ring = crate::secret::KeyRing::new("k", ring).unwrap();
        let id = Uuid::from_u128(8);
        let seal = |text: &str, field| {
            let secret = crate::secret::Secret::new(text);
            ring.seal(&secret, id, field, [7; 24]).unwrap()
        };
        let until = Timestamp::from_millis(5000);
        let webhook: Webhook = serde_json::from_value(serde_json::json!({
            "version": 1, "id": id, "tenant": "acme", "name": "cdr", "subscription": ["cdr.*"],
            "url": "https://crm.example.com/", "enabled": true, "generation": 1,
            "authentication": { "method": "bearer", "token": seal("a", TOKEN) },
            "previous_authentication": {
                "method": "digest", "username": "pbx", "password": seal("b", PASSWORD), "until": until,
            },
            "tls": { "certificate": "", "key": seal("c", TLS_KEY) },
            "signing": [{ "kind": "hmac", "secret": seal("d", signing::FIELD), "created": until }],
            "created": until, "updated": until,
        }))
        .unwrap();
        let open = |(sealed, field)| ring.open(sealed, id, field).unwrap().expose().to_owned();
        let opened: Vec<_> = webhook.secrets().map(open).collect();
        assert_eq!(opened, ["a", "b", "c", "d"]);
        let method = |millis| {
            let previous = webhook.previous_authentication(Timestamp::from_millis(millis));
            previous.map(|previous| previous.authentication.method())
        };
        assert_eq!(method(4999), Some("digest"));
        assert_eq!(method(5000), None);
        assert_eq!(method(5001), None);
    }

    /// What a newer release wrote is kept (docs/upgrading.md), and adds nothing where there is none.
    #[test]
    fn unknown_fields_survive() {
        let mut record = serde_json::json!({
            "version": 2,
            "id": "00000000-0000-0000-0000-000000000008",
            "tenant": "acme",
            "name": "cdr",
            "subscription": ["cdr.*"],
            "url": "https://crm.example.com/",
            "authentication": { "method": "none" },
            "enabled": true,
            "generation": 1,
            "acknowledge": "200",
            "rate_limit": 7,
            "schedule": ["32s"],
            "format": "standard",
            "created": "2026-11-21T00:00:00Z",
            "updated": "2026-11-21T00:00:00Z",
        });
        let read = |record| serde_json::from_value::<Webhook>(record).unwrap();
        let plain = read(record.clone());
        assert!(plain.unknown.is_empty() && plain.signing.is_empty());
        assert_eq!(serde_json::to_value(&plain).unwrap(), record);
        record["signing"] = serde_json::json!([{
            "kind": "hmac",
            "secret": { "key": "k", "nonce": "AA==", "sealed": "AA==" },
            "created": "2026-11-21T00:00:00Z",
            "until": "2026-11-22T00:00:00Z",
        }]);
        assert_eq!(read(record.clone()).signing.len(), 1);
        record["quota"] = serde_json::json!({ "per_day": 5 });
        let known = read(record.clone());
        assert_eq!((known.generation, known.rate_limit), (1, plain.rate_limit));
        assert_eq!(serde_json::to_value(&known).unwrap(), record);
    }

    #[test]
    fn patterns() {
        let matches = |pattern, name| Pattern::parse(pattern).unwrap().matches(name);
        assert!(matches("*", "anything"));
        assert!(matches("cdr.completed", "cdr.completed"));
        assert!(!matches("cdr.completed", "cdr.completed.x"));
        assert!(matches("call.*", "call.leg.ringing"));
        assert!(!matches("call.*", "call"));
        assert!(!matches("call.*", "callback.started"));
        for bad in ["", "**", "*.x", "call.*.x", "call*", ".*", "call.", "a b"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names() {
        WebhookName::parse("crm-1").unwrap();
        assert!(WebhookName::parse("a/b").is_err());
        assert!(WebhookName::parse(&Uuid::from_u128(1).to_string()).is_err());
    }

    proptest! {
        #[test]
        fn patterns_read_back(text in "([a-z_]{1,8}\\.){0,3}([a-z_]{1,8}|\\*)") {
            let pattern = Pattern::parse(&text).unwrap();
            prop_assert_eq!(pattern.to_string(), text);
        }
    }
}
