//! Settings of the dispatcher.

use std::path::PathBuf;
use std::time::Duration;

use ringback_core::address::{AddressPolicy, Opening};
use ringback_core::target::Reach;
use ringback_core::time::duration_text;
use serde::{Deserialize, Serialize};

/// `[dispatcher]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this instance in attempt records; empty: made of host name and process id.
    pub name: String,
    /// Deliveries taken in and not settled yet, in the whole process.
    pub slots: usize,
    /// Requests in flight at a time to one webhook.
    pub concurrency: usize,
    /// A delivery that would wait longer than this for its webhook is deferred.
    #[serde(with = "duration_text")]
    pub lane_wait: Duration,
    /// What is open to webhooks besides the internet; `None`: what [`Config::reach`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_networks: Option<Vec<Opening>>,
    /// Ports that are open to webhooks although they belong to other services.
    pub allow_ports: Vec<u16>,
    /// PEM file of authorities that are trusted besides the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy that all requests go through, `http://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// How long connecting may take.
    #[serde(with = "duration_text")]
    pub connect_timeout: Duration,
    /// How long a whole request may take, connecting and the answer included.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// How long a kept connection may be idle.
    #[serde(with = "duration_text")]
    pub idle_timeout: Duration,
    /// Idle connections kept per webhook host.
    pub idle_per_host: usize,
    /// Idle connections kept in all, about: so many are opened before those that are idle are closed.
    pub idle_max: usize,
    /// How often positions are committed: after a crash, what finished since is repeated.
    #[serde(with = "duration_text")]
    pub commit_interval: Duration,
    /// How long appends of results may wait for each other.
    #[serde(with = "duration_text")]
    pub linger: Duration,
    /// How long a drain waits for what is in flight.
    #[serde(with = "duration_text")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            slots: 4096,
            concurrency: 16,
            lane_wait: Duration::from_secs(2),
            allow_networks: None,
            allow_ports: Vec::new(),
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(90),
            idle_per_host: 4096,
            idle_max: 8192,
            commit_interval: Duration::from_millis(100),
            linger: Duration::from_millis(20),
            drain: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// What webhooks may reach. Without `allow_networks` that is the internet alone: whoever runs
    /// everything on one machine opens that machine first.
    pub fn reach(&self) -> Reach {
        let opened = self.allow_networks.clone().unwrap_or_default();
        Reach::new(AddressPolicy::opening(opened), self.allow_ports.clone())
    }

    /// What is wrong with these settings, each with the name of its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        need(
            (16..=1_000_000).contains(&self.slots),
            "slots: use 16 to 1000000",
        );
        need(
            (1..=10_000).contains(&self.concurrency),
            "concurrency: use 1 to 10000",
        );
        let within = |time: Duration, most| !time.is_zero() && time <= Duration::from_secs(most);
        need(within(self.timeout, 600), "timeout: use 1ms to 10m");
        need(
            within(self.connect_timeout, 600),
            "connect_timeout: use 1ms to 10m",
        );
        need(
            self.idle_max >= 16,
            "idle_max: use at least 16; fewer would close connections that are used",
        );
        need(
            self.proxy.as_deref().is_none_or(is_proxy),
            "proxy: use http://host:port, without user name or path",
        );
        // Longer, and results would wait longer for each other than for the log.
        need(
            self.linger <= Duration::from_secs(1),
            "linger: use at most 1s",
        );
        need(
            self.lane_wait <= Duration::from_secs(600),
            "lane_wait: use at most 10m; what waits takes room from others",
        );
        need(
            self.commit_interval >= Duration::from_millis(1),
            "commit_interval: use at least 1ms",
        );
        need(
            self.commit_interval <= Duration::from_secs(10),
            "commit_interval: use at most 10s",
        );
        problems
    }
}

/// An HTTP proxy in plain text: faults of TLS are then always the receiver's.
fn is_proxy(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    url.scheme() == "http"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}
