//! `[canary]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use ringback_core::event::TenantId;
use ringback_core::secret::{Secret, serialize_hidden};
use ringback_core::time::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// The shortest and the longest time between two events: alerts look at minutes.
const EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// Settings of the canary.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CanaryConfig {
    /// Whether `ringback up` runs it too.
    pub(crate) enabled: bool,
    /// Where it reaches the administration; none: that of its own process, and of `ringback canary`
    /// `http://127.0.0.1:8081`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub(crate) admin_url: Option<String>,
    /// Where it reaches the ingest; none: that of its own process, and of `ringback canary`
    /// `http://127.0.0.1:8080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub(crate) ingest_url: Option<String>,
    /// Address of its receiver.
    #[schemars(regex(pattern = ":[0-9]{1,5}$"))]
    pub(crate) listen: String,
    /// Where dispatchers reach that receiver, best the way they reach any customer's; none:
    /// `canary.listen`. A private address has to be opened by `dispatcher.allow_networks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub(crate) url: Option<String>,
    /// How often it sends an event of each family; 100ms to 1m.
    #[serde(with = "DurationText")]
    pub(crate) every: Duration,
    /// Its tenant, which it makes. Each canary needs one of its own.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub(crate) tenant: String,
    /// What it gets into the administration with: the operator's token; or one of its tenant with
    /// the scope `write`, and then an operator adds the tenant. None: `admin.operator_token`.
    #[serde(
        serialize_with = "serialize_hidden",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) token: Option<Secret>,
    /// A file that holds it instead; read whenever it is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of the only authorities that the certificates of administration and ingest may come
    /// from; none: the system's. Read at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            admin_url: None,
            ingest_url: None,
            listen: "127.0.0.1:8091".to_owned(),
            url: None,
            every: Duration::from_secs(10),
            tenant: "canary".to_owned(),
            token: None,
            token_file: None,
            ca_file: None,
        }
    }
}

impl CanaryConfig {
    /// What cannot work, as `key: problem`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let bases = [
            ("admin_url", &self.admin_url),
            ("ingest_url", &self.ingest_url),
            ("url", &self.url),
        ];
        for (key, url) in bases {
            if url.as_deref().is_some_and(|url| !is_address(url)) {
                // The address itself is not shown: it might hold a password.
                problems.push(format!(
                    "{key}: use an address such as https://host:port, without user, query and fragment"
                ));
            }
        }
        if !EVERY.contains(&self.every) {
            problems.push("every: use 100ms to 1m".to_owned());
        }
        if let Err(error) = TenantId::parse(&self.tenant) {
            problems.push(format!("tenant: {error}"));
        }
        if self.token.is_some() && self.token_file.is_some() {
            problems.push("token_file: give this or canary.token, not both".to_owned());
        }
        problems
    }
}

fn is_address(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}
