//! Settings of the Kafka engine, and what librdkafka is told from them.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use ringback_core::log::{AppenderOptions, LogError};
use serde::{Deserialize, Serialize, Serializer};

/// Settings of the Kafka engine (`[log.kafka]` in the configuration).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port,host:port`.
    pub bootstrap: String,
    /// How this process names itself to the brokers (`client.id`); appears in their logs and quotas.
    pub client_id: String,
    /// Goes before the name of every consumer group and before the `transactional.id`. Two
    /// installations on one cluster need different ones.
    pub group_prefix: String,
    /// Further librdkafka properties (`security.protocol`, `sasl.username`, …), passed on as they
    /// are. Their values may be secret and are never shown.
    #[serde(serialize_with = "names_only")]
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".to_owned(),
            client_id: "ringback".to_owned(),
            group_prefix: "ringback.".to_owned(),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("group_prefix", &self.group_prefix)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Which property holds a secret is librdkafka's knowledge and grows with it, so none is shown.
fn names_only<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(properties.keys().map(|name| (name, "(hidden)")))
}

/// Properties that the promises of the log depend on, and those with a setting of their own.
const RESERVED: [&str; 17] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "linger.ms",
    "message.timeout.ms",
    "metadata.broker.list",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transactional.id",
    "queue.buffering.max.ms",
];

impl KafkaConfig {
    /// Refuses what cannot work, as far as it shows without asking a broker.
    pub(super) fn validate(&self) -> Result<(), LogError> {
        let doing = "reading the settings of Kafka";
        if self.bootstrap.trim().is_empty() {
            let reason = "bootstrap is empty; give the brokers as host:port,host:port";
            return Err(LogError::permanent(doing, reason));
        }
        for name in self.properties.keys() {
            if RESERVED.contains(&name.as_str()) {
                let reason = format!(
                    "property {name} cannot be set: the delivery promises depend on it, or it \
                     has a setting of its own"
                );
                return Err(LogError::permanent(doing, reason));
            }
            // Checked one by one, because librdkafka repeats a refused value in its message.
            let mut one = ClientConfig::new();
            one.set(name, &self.properties[name]);
            if one.create_native_config().is_err() {
                let reason = format!(
                    "librdkafka does not take property {name} with this value (it is not shown), or \
                     was built without it; see librdkafka's CONFIGURATION.md"
                );
                return Err(LogError::permanent(doing, reason));
            }
        }
        Ok(())
    }

    /// The full name of a consumer group.
    pub(super) fn group(&self, name: &str) -> String {
        format!("{}{name}", self.group_prefix)
    }

    /// What every client has in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", &self.client_id)
            // A broker that comes back is found again in at most this time (default 10 s).
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// Appends: idempotent, so that librdkafka's own retries neither repeat nor reorder.
    pub(super) fn appender(&self, options: &AppenderOptions) -> ClientConfig {
        let timeout = options.timeout.as_millis().clamp(1, 2_147_483_647);
        let linger = options.linger.as_secs_f64() * 1_000.0;
        // librdkafka refuses a linger that is not shorter than the timeout.
        let linger = linger.min(timeout as f64 - 1.0).clamp(0.0, 900_000.0);
        let queue = options.queue.clamp(1, 10_000_000);
        let mut config = self.client();
        let mut default = |name: &str, value: String| {
            if !self.properties.contains_key(name) {
                config.set(name, value);
            }
        };
        // Built into librdkafka, cheap, and JSON shrinks to a third.
        default("compression.type", "lz4".to_owned());
        // Bounds memory where records are large; the default is 1 GiB.
        default("queue.buffering.max.kbytes", "131072".to_owned());
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", format!("{linger:.3}"))
            .set("message.timeout.ms", timeout.to_string())
            .set("queue.buffering.max.messages", queue.to_string());
        config
    }

    /// What every consumer has in common: bounded prefetch without librdkafka's one-second pause.
    fn fetching(&self) -> ClientConfig {
        let mut config = self.client();
        for (name, value) in [
            // With split queues these count per partition. A thousand records are more than the
            // dispatcher keeps unfinished per partition, and 1 MiB more than a round trip's worth.
            ("queued.min.messages", "1000"),
            ("queued.max.messages.kbytes", "1024"),
            ("fetch.message.max.bytes", "524288"),
            ("fetch.max.bytes", "16777216"),
            // A partition that was full is asked for again this soon (default 1 s).
            ("fetch.queue.backoff.ms", "50"),
            // A fetch is answered at once when there is anything; this bounds how long a partition
            // that got room again waits for the fetch before it (default 500 ms).
            ("fetch.wait.max.ms", "100"),
        ] {
            if !self.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed");
        config
    }

    /// A member of a group.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.fetching();
        config
            .set("group.id", self.group(group))
            .set("enable.partition.eof", "false");
        let new_protocol = self
            .properties
            .get("group.protocol")
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"));
        // With the newer protocol the broker decides these, and librdkafka refuses them.
        if !new_protocol {
            for (name, value) in [
                ("partition.assignment.strategy", "cooperative-sticky"),
                // A member that died without a word is missed for this long (default 45 s).
                // Heartbeats come from librdkafka's own thread, so a busy process does not miss any.
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
            ] {
                if !self.properties.contains_key(name) {
                    config.set(name, value);
                }
            }
        }
        config
    }

    /// Reads assigned partitions, outside of any group: the group's name is only there because
    /// librdkafka does not assign without one.
    pub(super) fn reading(&self) -> ClientConfig {
        let mut config = self.fetching();
        config
            .set("group.id", self.group("reader"))
            // Tells how far there is nothing: markers and compacted records have no other trace.
            .set("enable.partition.eof", "true");
        for name in [
            "group.protocol",
            "group.remote.assignor",
            "group.instance.id",
        ] {
            config.remove(name);
        }
        config
    }

    /// Writes configuration records: one writer per installation, see `config_writer`.
    pub(super) fn config_writer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("transactional.id", self.group("config"))
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "10000")
            .set("linger.ms", "0");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> KafkaConfig {
        let mut config = KafkaConfig::default();
        config.properties.insert(name.to_owned(), value.to_owned());
        config
    }

    #[test]
    fn librdkafka_takes_every_setting() {
        for config in [
            KafkaConfig::default(),
            with("group.protocol", "consumer"),
            with("fetch.wait.max.ms", "7"),
        ] {
            config.validate().unwrap();
            for client in [
                config.appender(&AppenderOptions::default()),
                config.member("group"),
                config.reading(),
                config.config_writer(),
            ] {
                client.create_native_config().unwrap();
            }
        }
        let config = with("fetch.wait.max.ms", "7").member("group");
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn promises_cannot_be_configured_away() {
        for name in RESERVED {
            let error = with(name, "1").validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut config = KafkaConfig::default();
        config.bootstrap.clear();
        config.validate().unwrap_err();
    }

    #[test]
    fn values_of_properties_are_never_shown() {
        let secret = "hunter2";
        let config = with("sasl.password", secret);
        assert!(!format!("{config:?}").contains(secret));
        for name in ["no.such.property", "socket.timeout.ms"] {
            let error = with(name, secret).validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}
