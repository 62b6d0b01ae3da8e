//! Settings of logs, metrics and health.

use ringback_core::trace::SampleRatio;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::logging;

/// `[telemetry]` in the configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    #[schemars(regex(pattern = ":[0-9]{1,5}$"))]
    pub listen: String,
    /// What is logged on standard error: a level (`off`, `error`, `warn`, `info`, `debug`,
    /// `trace`), or levels by module: `info,ringback_dispatcher=debug`.
    pub log: String,
    /// `"text"`, a line for people, or `"json"`, an object per line.
    pub format: Format,
    /// Where traces go.
    pub traces: Traces,
}

/// `[telemetry.traces]` in the configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Where traces go: the URL of a collector that speaks OTLP over HTTP (`http://127.0.0.1:4318`;
    /// `/v1/traces` is added). Headers for it are taken from `OTEL_EXPORTER_OTLP_HEADERS`. See
    /// [traces.md](traces.md).
    #[schemars(regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// The share of events that are recorded of those that come without a trace of their own, from
    /// 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub sample_ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 0.01,
        }
    }
}

impl Traces {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(endpoint) = &self.endpoint {
            let is_http = ["http://", "https://"].iter().any(|scheme| {
                let host = endpoint.strip_prefix(scheme);
                host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
            });
            if !is_http {
                problems.push(format!(
                    "traces.endpoint: {endpoint:?} is not the URL of a collector such as \"http://127.0.0.1:4318\""
                ));
            }
        }
        if SampleRatio::new(self.sample_ratio).is_none() {
            problems.push(format!(
                "traces.sample_ratio: {} is not a share from 0 to 1",
                self.sample_ratio
            ));
        }
        problems
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".into(),
            log: "info".into(),
            format: Format::Text,
            traces: Traces::default(),
        }
    }
}

impl Config {
    /// What is wrong with these settings, each with the name of its key.
    pub fn problems(&self) -> Vec<String> {
        let filter = logging::filter(&self.log);
        let filter = filter.err().map(|problem| format!("log: {problem}"));
        filter.into_iter().chain(self.traces.problems()).collect()
    }
}

/// Form of the logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_no_filter() {
        let problems = |log: &str| {
            let log = log.to_owned();
            Config {
                log,
                ..Config::default()
            }
            .problems()
        };
        for good in [
            "info",
            "WARN",
            "info,ringback_dispatcher=debug",
            "off",
            "info, hyper=warn",
        ] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
        for bad in ["inof", "info,ringback_log", "info=", "a=b=c", ""] {
            let problems = problems(bad);
            assert!(
                problems.len() == 1 && problems[0].starts_with("log: "),
                "{bad}: {problems:?}"
            );
        }
    }
}
