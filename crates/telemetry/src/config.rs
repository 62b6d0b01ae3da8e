//! Settings of logs, metrics and health.

use serde::{Deserialize, Serialize};

use crate::logging;

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

impl Config {
    /// What is wrong with these settings, each with the name of its key.
    pub fn problems(&self) -> Vec<String> {
        let filter = logging::filter(&self.log);
        filter
            .err()
            .map(|problem| format!("log: {problem}"))
            .into_iter()
            .collect()
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
