//! Settings of the dispatcher.

use std::path::PathBuf;
use std::time::Duration;

use ringback_core::address::{AddressPolicy, Opening};
use ringback_core::lookup::Lookup;
use ringback_core::secret::{Secret, serialize_hidden};
use ringback_core::target::Reach;
use ringback_core::time::DurationText;
use ringback_log::secret_file;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::send::resolver;

/// Each class of work has room for an event of the largest size.
const IN_FLIGHT_BYTES_MIN: usize = 8 << 20;

/// `[dispatcher]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this instance in attempt records; empty: host name and process id.
    pub name: String,
    /// Deliveries taken in and not settled yet, in the whole process.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub slots: usize,
    /// Data of the events of these deliveries, in bytes; what is beyond waits in the log. It bounds the
    /// memory that large events take.
    #[schemars(range(min = 8_388_608))]
    pub in_flight_bytes_max: usize,
    /// Most requests in flight to one webhook; how many it is at the moment is learned from its
    /// answers, between 1 and this.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: usize,
    /// A delivery that would wait longer than this for its webhook is put off. At most 10m.
    #[serde(with = "DurationText")]
    pub lane_wait: Duration,
    /// What is open to webhooks besides the internet: networks (`"10.1.0.0/16"`, `"fd00:1::/32"`,
    /// `"10.1.2.3"`) and kinds (`"loopback"`, `"private"`, `"link-local"`, `"carrier-nat"`); see
    /// [addresses.md](addresses.md). None: nothing; on the local log loopback. `admin` and the
    /// dispatchers need the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_networks: Option<Vec<Opening>>,
    /// Ports that are open to webhooks although they belong to other services, such as 5060; see
    /// [addresses.md](addresses.md#ports). `admin` and the dispatchers need the same.
    #[schemars(inner(range(min = 1)))]
    pub allow_ports: Vec<u16>,
    /// PEM file of authorities that are trusted besides the platform's, for receivers with a
    /// private CA. Read at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy that all requests go through, `http://host:port`; see
    /// [addresses.md](addresses.md#a-proxy).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^http://"))]
    pub proxy: Option<String>,
    /// Whom that proxy is told that we are (Basic), together with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_username: Option<String>,
    /// The password for that.
    #[serde(
        serialize_with = "serialize_hidden",
        skip_serializing_if = "Option::is_none"
    )]
    pub proxy_password: Option<Secret>,
    /// A file that holds the password instead. Read at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password_file: Option<PathBuf>,
    /// How long connecting may take, at most 10m.
    #[serde(with = "DurationText")]
    pub connect_timeout: Duration,
    /// How long a whole request may take, connecting and the answer included; at most 10m.
    #[serde(with = "DurationText")]
    pub timeout: Duration,
    /// How long an idle connection is kept.
    #[serde(with = "DurationText")]
    pub idle_timeout: Duration,
    /// Idle connections kept per host. Fewer than are used at a time means that they are closed and
    /// made again and again.
    pub idle_per_host: usize,
    /// Idle connections kept in all, about: when so many were opened, those that are idle are
    /// closed, and made again when they are needed. The process needs about `slots` + 2 ×
    /// `idle_max` open files (`ulimit -n`).
    #[schemars(range(min = 16))]
    pub idle_max: usize,
    /// How often positions are committed: after a crash, what finished since is repeated.
    #[serde(with = "DurationText")]
    pub commit_interval: Duration,
    /// How often a dispatcher compares the topics with what they must be
    /// (`ringback_topics_differing`), 1s to 1d; it looks for whether it is time every 5s.
    #[serde(with = "DurationText")]
    pub topic_check_interval: Duration,
    /// How long results may wait for each other on their way to the log, at most 1s.
    #[serde(with = "DurationText")]
    pub linger: Duration,
    /// Of which attempts the headers of request and response are recorded: `"failures"`, `"all"` or
    /// `"none"`; those of test events always are. Authentication, cookies and what is named like a
    /// secret are hidden.
    pub record_headers: RecordHeaders,
    /// How long a stopping process waits for what is in flight.
    #[serde(with = "DurationText")]
    pub drain: Duration,
}

/// Of which attempts the headers of request and response are recorded. Those of test events always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordHeaders {
    /// Of those that fail: successes, which are many, cost no more than before.
    #[default]
    Failures,
    /// Of all.
    All,
    /// Of none.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            slots: 4096,
            in_flight_bytes_max: 256 * 1024 * 1024,
            concurrency: 16,
            lane_wait: Duration::from_secs(2),
            allow_networks: None,
            allow_ports: Vec::new(),
            ca_file: None,
            proxy: None,
            proxy_username: None,
            proxy_password: None,
            proxy_password_file: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(90),
            idle_per_host: 4096,
            idle_max: 8192,
            commit_interval: Duration::from_millis(100),
            topic_check_interval: Duration::from_secs(300),
            linger: Duration::from_millis(20),
            drain: Duration::from_secs(20),
            record_headers: RecordHeaders::default(),
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

    /// How the names of webhooks are looked up; `None` where the proxy does it.
    pub fn lookup(&self) -> Option<Lookup> {
        self.proxy.is_none().then(resolver::system)
    }

    /// The proxy's password, wherever it is.
    pub(crate) fn read_proxy_password(&self) -> Result<Option<Secret>, String> {
        match &self.proxy_password_file {
            None => Ok(self.proxy_password.clone()),
            Some(path) => secret_file::read(path)
                .map(Some)
                .map_err(|problem| format!("dispatcher.proxy_password_file: {problem}")),
        }
    }

    fn need_proxy_login(&self, need: &mut impl FnMut(bool, &str)) {
        let (name, password) = (&self.proxy_username, &self.proxy_password);
        let passwords = [password.is_some(), self.proxy_password_file.is_some()];
        need(
            passwords != [true, true],
            "proxy_password_file: give this or dispatcher.proxy_password, not both",
        );
        need(
            name.is_none() || self.proxy.is_some(),
            "proxy_username: needs dispatcher.proxy",
        );
        need(
            name.is_none() || passwords.contains(&true),
            "proxy_username: needs dispatcher.proxy_password or dispatcher.proxy_password_file",
        );
        for (given, problem) in passwords.into_iter().zip([
            "proxy_password: needs dispatcher.proxy_username",
            "proxy_password_file: needs dispatcher.proxy_username",
        ]) {
            need(!given || name.is_some(), problem);
        }
        // RFC 7617 §2.
        let is_name =
            |name: &String| !name.is_empty() && !name.chars().any(|c| c == ':' || c.is_control());
        need(
            name.as_ref().is_none_or(is_name),
            "proxy_username: use a name without colon and control characters",
        );
        let is_password = |password: &Secret| {
            !password.expose().is_empty() && !password.expose().chars().any(char::is_control)
        };
        need(
            password.as_ref().is_none_or(is_password),
            "proxy_password: use a password, without control characters",
        );
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
            self.in_flight_bytes_max >= IN_FLIGHT_BYTES_MIN,
            "in_flight_bytes_max: use at least 8388608; with less a class of work might have no room for one event",
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
            "proxy: use http://host:port; a user and a password are dispatcher.proxy_username and dispatcher.proxy_password",
        );
        self.need_proxy_login(&mut need);
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
        let checked = self.topic_check_interval.as_secs_f64();
        need(
            (1.0..=86_400.0).contains(&checked),
            "topic_check_interval: use 1s to 1d",
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
