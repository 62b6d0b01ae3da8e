//! How we reach the brokers: encryption (TLS) and authentication (SASL).
//!
//! Secrets and files are named here, given to librdkafka in one place, and never shown.

use std::fs;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use ringback_core::secret::{Secret, serialize_hidden};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oauth;
use crate::secret_file;

/// How connections to the brokers are protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated: for one machine, and closed networks.
    #[default]
    Plaintext,
    /// TLS; with a client certificate the brokers know who we are by it.
    Ssl,
    /// SASL without encryption: only where the network is trusted.
    SaslPlaintext,
    /// SASL within TLS.
    SaslSsl,
}

impl SecurityProtocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// `[log.kafka.tls]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities that may sign the brokers' certificates; none: the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of our own certificate and its chain, for brokers that ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// What that key is encrypted with, if it is.
    #[serde(
        serialize_with = "serialize_hidden",
        skip_serializing_if = "Option::is_none"
    )]
    pub key_password: Option<Secret>,
}

/// How we prove who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// User and password, as they are: only within TLS.
    Plain,
    /// User and password; the password does not travel.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The same with the longer hash.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    /// A token (JWT) that somebody else keeps fresh in a file.
    Oauthbearer,
}

impl Mechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }
}

/// `[log.kafka.sasl]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sasl {
    /// `"plain"`, `"scram-sha-256"`, `"scram-sha-512"` or `"oauthbearer"`.
    pub mechanism: Option<Mechanism>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    #[serde(
        serialize_with = "serialize_hidden",
        skip_serializing_if = "Option::is_none"
    )]
    pub password: Option<Secret>,
    /// A file that holds the password instead; read at the start.
    pub password_file: Option<PathBuf>,
    /// For `"oauthbearer"`, a file that holds the token (JWT); read again whenever a new one is
    /// needed.
    pub token_file: Option<PathBuf>,
}

/// The three together, as librdkafka takes them.
#[derive(Clone, Copy)]
pub(super) struct Security<'c> {
    pub(super) protocol: SecurityProtocol,
    pub(super) tls: &'c Tls,
    pub(super) sasl: &'c Sasl,
}

impl Security<'_> {
    /// What contradicts itself or is missing, as `key: problem`.
    pub(super) fn problems(self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, key: &str, problem: &str| {
            if !holds {
                problems.push(format!("{key}: {problem}"));
            }
        };
        let Self {
            protocol,
            tls,
            sasl,
        } = self;
        let without_tls = "needs log.kafka.security_protocol = \"ssl\" or \"sasl_ssl\"";
        for (key, given) in [
            ("tls.ca", tls.ca.is_some()),
            ("tls.certificate", tls.certificate.is_some()),
            ("tls.key", tls.key.is_some()),
            ("tls.key_password", tls.key_password.is_some()),
        ] {
            need(!given || protocol.has_tls(), key, without_tls);
        }
        let both = "give tls.certificate and tls.key together, or neither";
        match (tls.certificate.is_some(), tls.key.is_some()) {
            (true, false) => need(false, "tls.certificate", both),
            (false, true) => need(false, "tls.key", both),
            _ => {}
        }
        let encrypts = tls.key_password.is_none() || tls.key.is_some();
        need(
            encrypts,
            "tls.key_password",
            "needs log.kafka.tls.key, the key it is for",
        );
        let without_sasl = "needs log.kafka.security_protocol = \"sasl_ssl\" or \"sasl_plaintext\"";
        for (key, given) in [
            ("sasl.mechanism", sasl.mechanism.is_some()),
            ("sasl.username", sasl.username.is_some()),
            ("sasl.password", sasl.password.is_some()),
            ("sasl.password_file", sasl.password_file.is_some()),
            ("sasl.token_file", sasl.token_file.is_some()),
        ] {
            need(!given || protocol.has_sasl(), key, without_sasl);
        }
        if !protocol.has_sasl() {
            return problems;
        }
        let passwords = [sasl.password.is_some(), sasl.password_file.is_some()];
        let passwords = passwords.into_iter().filter(|given| *given).count();
        let empty = |secret: &Option<Secret>| matches!(secret, Some(s) if s.expose().is_empty());
        need(!empty(&sasl.password), "sasl.password", "is empty");
        match sasl.mechanism {
            None => need(
                false,
                "sasl.mechanism",
                "choose plain, scram-sha-256, scram-sha-512 or oauthbearer",
            ),
            Some(Mechanism::Oauthbearer) => {
                need(
                    sasl.token_file.is_some(),
                    "sasl.token_file",
                    "oauthbearer needs a file with the token",
                );
                let none = sasl.username.is_none() && passwords == 0;
                need(
                    none,
                    "sasl.username",
                    "oauthbearer takes no user or password",
                );
            }
            Some(_) => {
                let user = sasl
                    .username
                    .as_deref()
                    .is_some_and(|user| !user.is_empty());
                need(user, "sasl.username", "this mechanism needs a user");
                need(
                    passwords == 1,
                    "sasl.password",
                    "give this or sasl.password_file, and not both",
                );
                need(
                    sasl.token_file.is_none(),
                    "sasl.token_file",
                    "only oauthbearer takes a token",
                );
            }
        }
        problems
    }

    /// Files that are missing or cannot be read, as `key: problem`.
    pub(super) fn file_problems(self) -> Vec<String> {
        let Self { tls, sasl, .. } = self;
        let mut problems = Vec::new();
        for (key, path) in [
            ("tls.ca", &tls.ca),
            ("tls.certificate", &tls.certificate),
            ("tls.key", &tls.key),
        ] {
            if let Some(Err(error)) = path.as_deref().map(fs::read) {
                problems.push(format!("{key}: {}", unreadable(path, &error)));
            }
        }
        if let Some(Err(problem)) = sasl.password_file.as_deref().map(secret_file::read) {
            problems.push(format!("sasl.password_file: {problem}"));
        }
        if let Some(Err(problem)) = sasl.token_file.as_deref().map(oauth::Token::read) {
            problems.push(format!("sasl.token_file: {problem}"));
        }
        problems
    }

    /// Tells librdkafka.
    pub(super) fn apply(self, config: &mut ClientConfig) {
        let Self {
            protocol,
            tls,
            sasl,
        } = self;
        config.set("security.protocol", protocol.as_str());
        if protocol.has_tls() {
            for (name, path) in [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ] {
                if let Some(path) = path {
                    config.set(name, path.to_string_lossy());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.expose());
            }
        }
        if protocol.has_sasl() {
            if let Some(mechanism) = sasl.mechanism {
                config.set("sasl.mechanism", mechanism.as_str());
            }
            if let Some(user) = &sasl.username {
                config.set("sasl.username", user);
            }
            if let Some(password) = &sasl.password {
                config.set("sasl.password", password.expose());
            }
        }
    }
}

impl Sasl {
    /// Takes the password out of its file, if it is in one.
    pub(super) fn resolve(&mut self) -> Result<(), String> {
        if let Some(path) = &self.password_file {
            self.password = Some(secret_file::read(path)?);
        }
        Ok(())
    }
}

fn unreadable(path: &Option<PathBuf>, error: &std::io::Error) -> String {
    let path = path.as_deref().unwrap_or(Path::new(""));
    format!("{} cannot be read: {error}", path.display())
}
