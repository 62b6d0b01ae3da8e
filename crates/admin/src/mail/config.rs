//! `[admin.mail]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use ringback_core::mail_address::MailAddress;
use ringback_core::time::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How mail is sent, and to whom besides the recipients of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MailConfig {
    /// `host:port` of the SMTP server that takes [mail about webhooks](admin.md#mail); empty: no
    /// mail is sent.
    #[schemars(regex(pattern = "^(.+:[0-9]+)?$"))]
    pub server: String,
    /// How the connection to it is protected: `"starttls"` (insisted on), `"tls"` (from the first
    /// byte, usually port 465) or `"none"`.
    pub tls: MailTls,
    /// PEM file of the only authorities that its certificate may come from; none: the system's.
    /// Read at the start.
    pub ca_file: Option<PathBuf>,
    /// Whom it is told that we are. Not with `tls = "none"`, unless the server is on this machine.
    pub username: Option<String>,
    /// A file that holds the password for that. Read at the start.
    pub password_file: Option<PathBuf>,
    /// The sender's address.
    pub from: String,
    /// Addresses that get the notices of all tenants.
    pub operators: Vec<String>,
    /// How long notices are gathered for one mail: an address gets at most one in this time.
    #[serde(with = "DurationText")]
    pub gather: Duration,
}

/// How a connection to an SMTP server is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// In the clear until `STARTTLS`, which is insisted on.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self {
            server: String::new(),
            tls: MailTls::default(),
            ca_file: None,
            username: None,
            password_file: None,
            from: String::new(),
            operators: Vec::new(),
            gather: Duration::from_secs(300),
        }
    }
}

impl MailConfig {
    /// Whether mail is sent at all.
    pub fn is_on(&self) -> bool {
        !self.server.is_empty()
    }

    /// Host and port of the server.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.server.rsplit_once(':')?;
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let host = match host.strip_prefix('[') {
            Some(v6) => v6
                .strip_suffix(']')
                .filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
            None => Some(host).filter(|host| !host.is_empty() && host.chars().all(letter))?,
        };
        Some((host, port.parse().ok().filter(|port| *port != 0)?))
    }

    /// What cannot work, as `key: problem`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut add = |problem: String| problems.push(problem);
        if self.is_on() && self.host_and_port().is_none() {
            add("server: is not an address such as smtp.example.com:587".to_owned());
        }
        match self.from.is_empty() {
            true if self.is_on() => {
                add("from: name the sender's address; admin.mail.server needs it".to_owned());
            }
            true => {}
            false => {
                if let Err(error) = MailAddress::parse(&self.from) {
                    add(format!("from: {error}"));
                }
            }
        }
        for operator in &self.operators {
            if let Err(error) = MailAddress::parse(operator) {
                add(format!("operators: {error}"));
            }
        }
        match (&self.username, &self.password_file) {
            (Some(_), None) => add("username: needs admin.mail.password_file".to_owned()),
            (None, Some(_)) => add("password_file: needs admin.mail.username".to_owned()),
            _ => {}
        }
        if self.tls == MailTls::None && self.username.is_some() && !self.is_local() {
            add(
                "tls: the password would be readable on its way; use \"starttls\" or \"tls\""
                    .to_owned(),
            );
        }
        if self.gather < Duration::from_secs(1) || self.gather > Duration::from_secs(86_400) {
            add("gather: use 1s to 1d".to_owned());
        }
        problems
    }

    /// Whether the server is on this machine.
    fn is_local(&self) -> bool {
        self.host_and_port().is_some_and(|(host, _)| {
            host == "localhost"
                || host
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        })
    }
}
