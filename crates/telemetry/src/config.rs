//! Settings of logs, metrics and health.

use serde::{Deserialize, Serialize};

/// `[telemetry]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: String,
    /// What is logged: a level, or a filter such as `info,ringback_dispatcher=debug`.
    pub log: String,
    /// How it is logged.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".into(),
            log: "info".into(),
            format: Format::Text,
        }
    }
}

/// Form of the logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}
