//! `[admin]` of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ringback_core::address::Opening;
use ringback_core::health::HealthPolicy;
use ringback_core::lookup::Lookup;
use ringback_core::redaction::Rules;
use ringback_core::secret::Secret;
use ringback_core::target::Reach;
use ringback_core::time::DurationText;
use ringback_server::TlsConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::MailConfig;
use crate::projection::ProjectionConfig;
use crate::state::StartError;

/// Shortest operator token, in bytes. It opens everything, so it must not be guessable.
const TOKEN_BYTES_MIN: usize = 16;

/// Settings of the administration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the administration.
    #[schemars(regex(pattern = ":[0-9]{1,5}$"))]
    pub listen: String,
    /// The bearer token of operators, at least 16 visible ASCII characters. On the local log
    /// `ringback up` makes one if none is given.
    pub operator_token: OperatorToken,
    /// A file that holds the operator token instead.
    pub operator_token_file: Option<PathBuf>,
    /// Refuse webhooks with plain `http://` addresses; otherwise they are accepted with a warning.
    pub forbid_http: bool,
    /// Its certificate, when it speaks TLS.
    pub tls: TlsConfig,
    /// Proxies in front (`"10.0.0.0/8"`, `"192.0.2.7"`, `"loopback"`) whose `X-Forwarded-For` is
    /// believed, for the limits of signing in and for the audit.
    pub trusted_proxies: Vec<Opening>,
    /// Sessions of those who sign in.
    pub session: SessionConfig,
    /// Where people find the administration, such as `https://ringback.example.com`: mail links to
    /// the pages of webhooks below it (`/portal/tenants/…`).
    #[schemars(regex(pattern = "^https?://"))]
    pub public_url: Option<String>,
    /// Mail about webhooks that fail.
    pub mail: MailConfig,
    /// What of attempts and parked deliveries is not shown.
    pub redact: Rules,
    /// What attempts and parked deliveries are shown from.
    pub projection: ProjectionConfig,
    /// What webhooks are disabled by: that of metrics, which whoever starts both hands over.
    #[serde(skip)]
    pub policy: HealthPolicy,
    /// When whoever works on a replay is taken for gone.
    #[serde(skip)]
    pub replay_lease: Duration,
    /// Where webhooks may lead: the dispatcher's policy, which whoever starts both hands over.
    #[serde(skip)]
    pub reach: Reach,
    /// How their names are looked up when they are configured; `None`: they are not, because a proxy
    /// resolves them.
    #[serde(skip)]
    pub lookup: Option<Lookup>,
    /// How long somebody who configures a webhook waits for that.
    #[serde(skip)]
    pub lookup_within: Duration,
}

/// `[admin.session]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// How long who has signed in stays so without doing anything.
    #[serde(with = "DurationText")]
    pub idle: Duration,
    /// The same in all, at most 30d.
    #[serde(with = "DurationText")]
    pub absolute: Duration,
    /// Browsers reach the administration by TLS only, that of a proxy in front: the session's
    /// cookie is then for TLS alone.
    pub secure: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            absolute: Duration::from_secs(12 * 3600),
            secure: false,
        }
    }
}

impl SessionConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let minute = Duration::from_secs(60);
        if self.idle < minute {
            problems.push("idle: use at least 1m".to_owned());
        }
        if self.absolute < self.idle || self.absolute > minute * 60 * 24 * 30 {
            problems.push("absolute: use at least admin.session.idle, and at most 30d".to_owned());
        }
        problems
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8081".to_owned(),
            operator_token: OperatorToken::default(),
            operator_token_file: None,
            forbid_http: false,
            trusted_proxies: Vec::new(),
            tls: TlsConfig::default(),
            session: SessionConfig::default(),
            public_url: None,
            mail: MailConfig::default(),
            projection: ProjectionConfig::default(),
            redact: Rules::default(),
            policy: HealthPolicy::default(),
            replay_lease: Duration::from_secs(45),
            reach: Reach::default(),
            lookup: None,
            lookup_within: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Whether an operator token is configured, here or by a file.
    pub fn has_operator_token(&self) -> bool {
        !self.operator_token.is_empty() || self.operator_token_file.is_some()
    }

    /// What cannot work, as `key: problem`. A token in a file is looked at where it is read: other
    /// components may have the same configuration, and not that file.
    pub fn problems(&self) -> Vec<String> {
        let within = |section: &str, problems: Vec<String>| {
            let named = problems
                .iter()
                .map(|problem| format!("{section}.{problem}"));
            named.collect::<Vec<_>>()
        };
        let mut problems = within("projection", self.projection.problems());
        problems.extend(within("mail", self.mail.problems()));
        problems.extend(within("redact", self.redact.problems()));
        problems.extend(within("session", self.session.problems()));
        problems.extend(within("tls", self.tls.problems()));
        if self
            .public_url
            .as_ref()
            .is_some_and(|url| !is_public_url(url))
        {
            let problem = "public_url: is not an address such as https://ringback.example.com";
            problems.push(problem.to_owned());
        }
        let token = self.operator_token.0.expose();
        if !token.is_empty() && self.operator_token_file.is_some() {
            let problem = "operator_token_file: give this or admin.operator_token, not both";
            problems.push(problem.to_owned());
        } else if !token.is_empty() && !is_strong(token) {
            problems.push(format!(
                "operator_token: use at least {TOKEN_BYTES_MIN} visible ASCII characters"
            ));
        }
        problems
    }

    /// The operator token, read and checked.
    pub(crate) fn read_operator_token(&self) -> Result<Secret, StartError> {
        let token = match &self.operator_token_file {
            Some(_) if !self.operator_token.is_empty() => return Err(StartError::TwoTokens),
            Some(path) => {
                let unreadable = |error: std::io::Error| StartError::TokenFile {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                };
                Secret::new(std::fs::read_to_string(path).map_err(unreadable)?.trim())
            }
            None => self.operator_token.0.clone(),
        };
        let text = token.expose();
        if text.is_empty() {
            return Err(StartError::NoToken);
        }
        if !is_strong(text) {
            return Err(StartError::WeakToken);
        }
        Ok(token)
    }
}

/// Where browsers go: no user, query or fragment in it, and nothing that ends a line of a mail.
fn is_public_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
            && !rest.contains(['?', '#', '@', '"', '<', '>', '\\'])
    })
}

fn is_strong(token: &str) -> bool {
    token.len() >= TOKEN_BYTES_MIN && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The operator token as configured; empty when it is not given. It never shows itself.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(extend("pattern" = r"^\s*([!-~]{16,}\s*)?$"))]
pub struct OperatorToken(Secret);

impl OperatorToken {
    /// Whether it is not given.
    pub fn is_empty(&self) -> bool {
        self.0.expose().is_empty()
    }

    /// The token itself, for those who call the administration with it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Default for OperatorToken {
    fn default() -> Self {
        Self(Secret::new(""))
    }
}

impl From<String> for OperatorToken {
    fn from(text: String) -> Self {
        Self(Secret::new(text.trim()))
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "[not set]"
        } else {
            "[secret]"
        })
    }
}

impl Serialize for OperatorToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "[secret]" })
    }
}

impl<'de> Deserialize<'de> for OperatorToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(token: &str) -> Config {
        Config {
            operator_token: token.to_owned().into(),
            ..Config::default()
        }
    }

    #[test]
    fn no_token_or_a_weak_one_is_refused() {
        assert!(matches!(
            Config::default().read_operator_token(),
            Err(StartError::NoToken)
        ));
        for weak in [
            "short",
            "white space in the token",
            "fünfzehn-ä-zeichen-lang",
        ] {
            let refused = with_token(weak).read_operator_token();
            assert!(matches!(refused, Err(StartError::WeakToken)), "{weak}");
        }
        with_token("0123456789abcdef")
            .read_operator_token()
            .unwrap();
    }

    #[test]
    fn a_token_comes_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let mut config = Config {
            operator_token_file: Some(path),
            ..Config::default()
        };
        assert!(config.has_operator_token());
        assert_eq!(
            config.read_operator_token().unwrap().expose(),
            "0123456789abcdef"
        );
        config.operator_token = "0123456789abcdef".to_owned().into();
        assert!(matches!(
            config.read_operator_token(),
            Err(StartError::TwoTokens)
        ));
        config = Config {
            operator_token_file: Some("/nowhere".into()),
            ..Config::default()
        };
        assert!(matches!(
            config.read_operator_token(),
            Err(StartError::TokenFile { .. })
        ));
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let config = with_token("hunter2-hunter2-hunter2");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
