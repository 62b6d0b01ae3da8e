//! Settings of the ingest.

use std::time::Duration;

use ringback_core::time::duration_text;
use serde::{Deserialize, Serialize};

/// `[ingest]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of `POST /v1/events`.
    pub listen: String,
    /// Source of events that name none (CloudEvents `source`).
    pub source: String,
    /// Largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// Most events in a batch.
    pub batch_events_max: usize,
    /// Bodies being worked on at a time, in bytes; beyond, 503.
    pub in_flight_bytes_max: usize,
    /// How long a request's head, and then its body, may take to arrive; an idle connection is
    /// closed after the same time.
    #[serde(with = "duration_text")]
    pub body_timeout: Duration,
    /// How long appends may wait for each other.
    #[serde(with = "duration_text")]
    pub linger: Duration,
    /// After how long without acknowledgement an event counts as not accepted.
    #[serde(with = "duration_text")]
    pub append_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            source: "pbx".to_owned(),
            body_bytes_max: 8 * 1024 * 1024,
            batch_events_max: 10_000,
            in_flight_bytes_max: 256 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            linger: Duration::from_millis(1),
            append_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// What is wrong with these settings, each with the name of its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let source = ringback_core::event::Source::parse(&self.source).is_ok();
        need(source, "source: use 1 to 256 bytes without white space");
        need(
            self.body_bytes_max >= 1024,
            "body_bytes_max: use at least 1024",
        );
        need(
            self.batch_events_max >= 1,
            "batch_events_max: use at least 1",
        );
        let room = self.in_flight_bytes_max >= self.body_bytes_max;
        need(room, "in_flight_bytes_max: use at least body_bytes_max");
        need(
            !self.body_timeout.is_zero(),
            "body_timeout: use more than 0ms",
        );
        need(
            !self.append_timeout.is_zero(),
            "append_timeout: use more than 0ms",
        );
        problems
    }
}
