//! What is wrong with values that their types allow.

use std::time::Duration;

use ringback_core::secret::KeyRing;
use ringback_core::time::duration_label;

use crate::config::{Config, Engine};

/// Longest name of a topic that Kafka takes, less our longest name behind the prefix.
const PREFIX_BYTES_MAX: usize = 200;

/// Every problem, with the dotted name of its key.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut problems = Problems(Vec::new());
    problems.log(config);
    problems.topics(config);
    if let Err(error) = config.schedule.check() {
        problems.add("schedule.tiers", error);
    }
    problems.secrets(config);
    problems.address("ingest.listen", &config.ingest.listen);
    problems.address("admin.listen", &config.admin.listen);
    problems.address("canary.listen", &config.canary.listen);
    problems.address("telemetry.listen", &config.telemetry.listen);
    problems.need(
        !config.schedule.expires_after().is_zero(),
        "schedule.expires_after",
        "use more than 0ms, or nothing is ever sent",
    );
    problems.section("admin", config.admin.problems());
    problems.section("log.kafka", config.log.kafka.problems());
    if config.log.engine == Engine::Kafka {
        problems.section("log.kafka", config.log.kafka.problems_here());
    }
    problems.section("ingest", config.ingest.problems());
    problems.section("dispatcher", config.dispatcher.problems());
    problems.section("metrics", config.metrics.problems());
    problems.section("canary", config.canary.problems());
    problems.section("telemetry", config.telemetry.problems());
    problems.0
}

struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, key: &str, problem: impl ToString) {
        self.0.push((key.to_owned(), problem.to_string()));
    }

    fn need(&mut self, holds: bool, key: &str, problem: &str) {
        if !holds {
            self.add(key, problem);
        }
    }

    /// Problems of a section, each text beginning with its key.
    fn section(&mut self, section: &str, problems: Vec<String>) {
        for text in problems {
            let (key, problem) = text.split_once(": ").unwrap_or(("", &text));
            self.add(&format!("{section}.{key}"), problem);
        }
    }

    fn address(&mut self, key: &str, address: &str) {
        let right = is_host_and_port(address);
        self.need(
            right,
            key,
            "is not an address such as 127.0.0.1:8080 or [::]:8080",
        );
    }

    fn log(&mut self, config: &Config) {
        let log = &config.log;
        let dir = !log.local.dir.as_os_str().is_empty();
        self.need(dir, "log.local.dir", "is empty; name the data directory");
        let brokers = log.kafka.bootstrap.split(',').map(str::trim);
        for broker in brokers.filter(|broker| !is_host_and_port(broker)) {
            self.add(
                "log.kafka.bootstrap",
                format!(
                    "{broker:?} is not a broker such as kafka-1:9092; separate several by commas"
                ),
            );
        }
    }

    fn topics(&mut self, config: &Config) {
        let topics = &config.topics;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let prefix = topics.prefix.len() <= PREFIX_BYTES_MAX && topics.prefix.chars().all(allowed);
        self.need(
            prefix,
            "topics.prefix",
            "use at most 200 of the letters a-z, A-Z, 0-9, '.', '_' and '-'",
        );
        let count = |partitions| (1..=10_000).contains(&partitions);
        let say = "use 1 to 10000";
        self.need(
            count(topics.event_partitions),
            "topics.event_partitions",
            say,
        );
        self.need(count(topics.work_partitions), "topics.work_partitions", say);
        self.need(
            (1..=32).contains(&topics.replication),
            "topics.replication",
            "use 1 to 32",
        );
        // A delivery that waits must not be dropped before its last attempt may start.
        let longest = config
            .schedule
            .tiers()
            .iter()
            .max()
            .copied()
            .unwrap_or_default();
        let waits = longest.max(config.schedule.expires_after()) + Duration::from_secs(3600);
        if topics.retention < waits {
            self.add(
                "topics.retention",
                format!(
                    "use at least {}, an hour more than schedule.expires_after and the longest of \
                     schedule.tiers: waiting deliveries would be lost",
                    duration_label(waits)
                ),
            );
        }
    }

    fn secrets(&mut self, config: &Config) {
        let secrets = &config.secrets;
        let primary = &secrets.primary;
        for (id, key) in &secrets.keys {
            // Alone in a ring of its own, so that every bad key is named.
            if KeyRing::new(id, [(id.as_str(), key.expose())]).is_err() {
                self.add(
                    &format!("secrets.keys.{id}"),
                    "is not the base64 of 32 bytes; make one with: openssl rand -base64 32",
                );
            }
        }
        match (primary.is_empty(), secrets.keys.contains_key(primary)) {
            // Not every component needs keys, and `ringback up` makes its own.
            (true, _) if secrets.keys.is_empty() => {}
            (true, _) => self.add("secrets.primary", "name the key of secrets.keys that seals"),
            (false, false) => {
                self.add(
                    "secrets.primary",
                    format!("there is no secrets.keys.{primary}"),
                );
            }
            (false, true) => {}
        }
    }
}

fn is_host_and_port(text: &str) -> bool {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host = !host.is_empty() && host.chars().all(letter);
        host && port.parse::<u16>().is_ok()
    })
}
