//! `[admin.projection]` of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ringback_core::redaction::Redaction;
use ringback_core::secret::Secret;
use ringback_core::time::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::postgres;

const HOUR: Duration = Duration::from_secs(3600);

/// Where attempts and parked deliveries are kept for reading.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionConfig {
    /// What attempts and parked deliveries are shown from: `"sqlite"`, files of this process;
    /// `"postgres"`, a server that all administrations share; or `"none"`, the log itself. See [the
    /// projection](admin.md#the-projection).
    pub engine: Engine,
    /// The directory of the files; none: `projection` in `log.local.dir`, also with Kafka. Each
    /// `admin` needs its own, on a disk that lasts if not everything shall be read again at each
    /// start; one without a disk uses another engine.
    #[schemars(length(min = 1))]
    pub dir: Option<PathBuf>,
    /// `postgresql://USER:PASSWORD@HOST/DATABASE`, with `engine = "postgres"`.
    pub url: Url,
    /// How the way to PostgreSQL is protected: `"verify-full"`, by TLS, with a certificate that is
    /// valid for the host in the URL; `"require"`, by TLS, whoever answers; `"disable"`, not at
    /// all, for a server on the same machine or a network of its own. A server that does not speak
    /// TLS is refused unless it is `"disable"`. Sockets
    /// (`postgresql://USER@%2Frun%2Fpostgresql/DATABASE`) have no TLS.
    pub sslmode: SslMode,
    /// PEM file of the only authorities that its certificate may come from; none: the system's.
    /// Read for each connection.
    #[schemars(length(min = 1))]
    pub ca_file: Option<PathBuf>,
    /// How long it keeps what it shows.
    #[serde(with = "DurationText")]
    pub retention: Duration,
    /// What is dropped as a whole when it is older than that; whole hours, at most 31d.
    #[serde(with = "DurationText")]
    pub slice: Duration,
    /// Attempts per second from which on successes are only sampled. Failures are always kept, and
    /// all are counted.
    #[schemars(range(min = 1))]
    pub full_rate: u32,
    /// What is not kept, since it is not shown: whoever starts it hands over the administration's.
    #[serde(skip)]
    pub redaction: Redaction,
}

/// Which database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Files of this process.
    #[default]
    Sqlite,
    /// A server's, shared by all administrations.
    Postgres,
    /// None.
    None,
}

/// How the way to a server is protected, in the words of its own clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Not at all.
    Disable,
    /// By TLS, whoever answers.
    Require,
    /// By TLS, and the server's certificate is checked with its name.
    #[default]
    VerifyFull,
}

/// The URL of a server, with its password. It never shows itself.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
pub struct Url(Secret);

impl Url {
    /// Whether it is not given.
    pub fn is_empty(&self) -> bool {
        self.0.expose().is_empty()
    }

    /// The password in it, for whoever sees that it does not show.
    pub(crate) fn password(&self) -> Option<String> {
        let config = self.parse().ok()?;
        let password = config.get_password()?;
        Some(String::from_utf8_lossy(password).into_owned())
    }

    pub(crate) fn parse(&self) -> Result<::postgres::Config, String> {
        postgres::parse(self.0.expose())
    }
}

impl Default for Url {
    fn default() -> Self {
        Self(Secret::new(""))
    }
}

impl From<String> for Url {
    fn from(text: String) -> Self {
        Self(Secret::new(text.trim()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "[not set]"
        } else {
            "[secret]"
        })
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "[secret]" })
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            dir: None,
            url: Url::default(),
            sslmode: SslMode::default(),
            ca_file: None,
            retention: 7 * 24 * HOUR,
            slice: 24 * HOUR,
            full_rate: 2000,
            redaction: Redaction::default(),
        }
    }
}

impl ProjectionConfig {
    /// What cannot work, as `key: problem`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let whole = self.slice.as_nanos().is_multiple_of(HOUR.as_nanos());
        if !whole || self.slice < HOUR || self.slice > 31 * 24 * HOUR {
            problems.push("slice: use whole hours, from 1h to 31d".to_owned());
        }
        if self.retention < HOUR || self.retention > 3660 * 24 * HOUR {
            problems.push("retention: use 1h to 3660d".to_owned());
        }
        if self.full_rate == 0 {
            problems.push("full_rate: use at least 1".to_owned());
        }
        let empty = |dir: &PathBuf| dir.as_os_str().is_empty();
        if self.dir.as_ref().is_some_and(empty) {
            problems.push("dir: is empty; name a directory, or leave it out".to_owned());
        }
        if self.ca_file.as_ref().is_some_and(empty) {
            problems.push("ca_file: is empty; name a file, or leave it out".to_owned());
        } else if self.ca_file.is_some() && self.sslmode != SslMode::VerifyFull {
            problems.push(
                "ca_file: is looked at with sslmode = \"verify-full\" only; use that, or leave it out"
                    .to_owned(),
            );
        }
        match self.url.is_empty() {
            true if self.engine == Engine::Postgres => {
                problems.push(
                    "url: name the server; admin.projection.engine = \"postgres\" needs it"
                        .to_owned(),
                );
            }
            true => {}
            false => problems.extend(self.url.parse().err().map(|error| format!("url: {error}"))),
        }
        problems
    }
}
