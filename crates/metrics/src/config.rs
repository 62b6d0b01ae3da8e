//! Settings of the metrics component.

use std::time::Duration;

use ringback_core::health::HealthPolicy;
use ringback_core::time::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[metrics]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When a webhook is failing, and when it is disabled.
    pub policy: HealthPolicy,
    /// How often windows that changed are written down. After a crash so much is read again;
    /// nothing is counted twice.
    #[serde(with = "DurationText")]
    pub snapshot_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            snapshot_interval: Duration::from_secs(5),
            policy: HealthPolicy::default(),
        }
    }
}

impl Config {
    /// What is wrong with these settings, each with the name of its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = self
            .policy
            .problems()
            .iter()
            .map(|problem| format!("policy.{problem}"))
            .collect();
        let interval = self.snapshot_interval;
        if interval < Duration::from_millis(10) || interval > Duration::from_secs(600) {
            problems.push("snapshot_interval: use 10ms to 10m".to_owned());
        }
        problems
    }
}
