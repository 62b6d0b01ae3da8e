//! `[topics]` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DAY;
use crate::time::DurationText;

/// Settings of the table (`[topics]` in the configuration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Goes before the name of every topic.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{0,200}$"))]
    pub prefix: String,
    /// Partitions of each `events.*` and `raw.*` topic and of `attempts`: the most dispatchers that
    /// can share the work.
    #[schemars(range(min = 1, max = 10_000))]
    pub event_partitions: u32,
    /// Partitions of each other topic of work.
    #[schemars(range(min = 1, max = 10_000))]
    pub work_partitions: u32,
    /// Copies of each partition (Kafka).
    #[schemars(range(min = 1, max = 32))]
    pub replication: u16,
    /// How long events, waiting and parked deliveries are kept; replays twice as long. Must be
    /// longer than `schedule.expires_after` and an hour.
    #[serde(with = "DurationText")]
    pub retention: Duration,
    /// Names of the sources of foreign records, each a topic `raw.<source>`. They stand in the
    /// configuration of the component that reads them.
    #[serde(skip)]
    pub raw: Vec<String>,
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            prefix: "ringback.".to_owned(),
            event_partitions: 12,
            work_partitions: 6,
            replication: 3,
            retention: 7 * DAY,
            raw: Vec::new(),
        }
    }
}
