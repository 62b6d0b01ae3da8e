//! Corrupt records: what is said of each and where it goes, and that nobody else suffers.
//!
//! Decoding is tested in `core`; here whole components meet the records on the simulated log.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deliveries;
mod listings;
mod verdicts;

use std::time::Duration;

use ringback_core::log::{Append, Header, Log};
use ringback_core::topics::Topics;
use ringback_tests::append::append_one;

/// A record to be written as it stands.
#[derive(Clone, Default)]
struct Raw {
    key: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    value: Option<Vec<u8>>,
}

impl Raw {
    /// A record of a configuration topic or of attempts.
    fn keyed(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.to_owned()),
            headers: Vec::new(),
            value: Some(value.into()),
        }
    }

    /// Appends it to the topic of this name (without prefix); its place, as it is told to people.
    fn append<L: Log>(&self, log: &L, topic: &str) -> String {
        let (topic, full_name) = find(log.topics(), topic);
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| Header { name, value })
            .collect();
        let record = Append {
            topic,
            key: self.key.as_deref().map(str::as_bytes),
            headers: &headers,
            value: self.value.as_deref(),
        };
        let at = append_one(log, record);
        format!("{full_name}/{}@{}", at.partition.index, at.offset)
    }
}

fn find(topics: &Topics, name: &str) -> (ringback_core::topics::TopicId, String) {
    let found = topics.iter().find(|(_, spec)| spec.name == name);
    let (topic, spec) = found.expect("a topic of the table");
    (topic, spec.full_name.clone())
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}
