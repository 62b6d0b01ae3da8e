//! Settings of the Kafka engine, and what librdkafka is told from them.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use ringback_core::log::{AppenderOptions, LogError};
use ringback_core::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::context::Plain;
use super::oauth::Tokens;
use super::security::{Mechanism, Sasl, Security, SecurityProtocol, Tls};
use super::statistics;

/// Settings of the Kafka engine (`[log.kafka]` in the configuration).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// The brokers to ask first, separated by commas.
    #[schemars(regex(pattern = r"^[^,]+:[0-9]+\s*(,[^,]+:[0-9]+\s*)*$"))]
    pub bootstrap: String,
    /// How this process names itself to the brokers; appears in their logs and quotas.
    pub client_id: String,
    /// Goes before the name of every consumer group and the `transactional.id`. Two installations
    /// on one cluster need different ones.
    pub group_prefix: String,
    /// How connections are protected: `"plaintext"`, `"ssl"` (TLS), `"sasl_ssl"` (user or token
    /// within TLS) or `"sasl_plaintext"`. See [kafka.md](kafka.md).
    pub security_protocol: SecurityProtocol,
    /// Certificates.
    pub tls: Tls,
    /// Who we are.
    pub sasl: Sasl,
    /// Further librdkafka properties by name, such as `"group.protocol" = "consumer"`. In variables
    /// `_` stands for a dot: `RINGBACK_LOG__KAFKA__PROPERTIES__GROUP_PROTOCOL`. Refused are those
    /// that the delivery promises depend on, and those with a key of their own.
    #[serde(serialize_with = "names_only")]
    #[schemars(with = "BTreeMap<String, Secret>")]
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".to_owned(),
            client_id: "ringback".to_owned(),
            group_prefix: "ringback.".to_owned(),
            security_protocol: SecurityProtocol::default(),
            tls: Tls::default(),
            sasl: Sasl::default(),
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
            .field("security_protocol", &self.security_protocol)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
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

/// Properties that the promises of the log depend on.
const RESERVED: [&str; 15] = [
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "isolation.level",
    "linger.ms",
    "message.timeout.ms",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "request.required.acks",
    "transactional.id",
    "message.send.max.retries",
    "retries",
];

/// Properties that have a key of their own.
const OWN: [(&str, &str); 12] = [
    ("bootstrap.servers", "bootstrap"),
    ("metadata.broker.list", "bootstrap"),
    ("client.id", "client_id"),
    ("group.id", "group_prefix"),
    ("security.protocol", "security_protocol"),
    ("ssl.ca.location", "tls.ca"),
    ("ssl.certificate.location", "tls.certificate"),
    ("ssl.key.location", "tls.key"),
    ("ssl.key.password", "tls.key_password"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
];

/// Why a property cannot be given, if so.
fn property_problem(name: &str, value: &str) -> Option<String> {
    if name == "sasl.password" {
        return Some("has a key of its own: log.kafka.sasl.password or .password_file".to_owned());
    }
    if let Some((_, key)) = OWN.iter().find(|(property, _)| *property == name) {
        return Some(format!("has a key of its own: log.kafka.{key}"));
    }
    if RESERVED.contains(&name) {
        return Some("cannot be set: the delivery promises depend on it".to_owned());
    }
    // Checked one by one, because librdkafka repeats a refused value in its message.
    let mut one = ClientConfig::new();
    one.set(name, value);
    one.create_native_config().is_err().then(|| {
        "librdkafka does not take it with this value (it is not shown), or was built without it; \
         see librdkafka's CONFIGURATION.md"
            .to_owned()
    })
}

impl KafkaConfig {
    /// What cannot work, as `key: problem`, as far as it shows without looking at files or brokers.
    /// No value is repeated.
    pub fn problems(&self) -> Vec<String> {
        let properties = self.properties.iter().filter_map(|(name, value)| {
            Some(format!(
                "properties.{name}: {}",
                property_problem(name, value)?
            ))
        });
        let mut problems: Vec<String> = properties.collect();
        problems.extend(self.security().problems());
        problems
    }

    /// The same for what shows on this machine only: files of certificates, passwords and tokens,
    /// and settings that librdkafka takes alone but not together. Empty while
    /// [`problems`](Self::problems) is not: the first things first.
    pub fn problems_here(&self) -> Vec<String> {
        if !self.problems().is_empty() {
            return Vec::new();
        }
        let problems = self.security().file_problems();
        if !problems.is_empty() {
            return problems;
        }
        match self.clone().resolve_checked() {
            Ok(_) => Vec::new(),
            Err((key, problem)) => vec![format!("{key}: {problem}")],
        }
    }

    /// Refuses what cannot work and takes the password out of its file.
    pub(super) fn resolve(self) -> Result<Self, LogError> {
        let doing = "reading the settings of Kafka";
        let permanent = |reason: String| LogError::permanent(doing, reason);
        if self.bootstrap.trim().is_empty() {
            let reason = "bootstrap is empty; give the brokers as host:port,host:port";
            return Err(permanent(reason.to_owned()));
        }
        let mut problems = self.problems();
        if problems.is_empty() {
            problems = self.security().file_problems();
        }
        match problems.is_empty() {
            true => self
                .resolve_checked()
                .map_err(|(key, problem)| permanent(format!("log.kafka.{key}: {problem}"))),
            false => Err(permanent(format!(
                "log.kafka.{}",
                problems.join("; log.kafka.")
            ))),
        }
    }

    fn resolve_checked(mut self) -> Result<Self, (&'static str, String)> {
        let unread = |problem| ("sasl.password_file", problem);
        self.sasl.resolve().map_err(unread)?;
        // librdkafka opens certificates and keys when a client is made; it connects later.
        let trial = self.member("trial");
        match BaseConsumer::from_config_and_context(&trial, Plain::default()) {
            Ok(_) => Ok(self),
            Err(KafkaError::ClientConfig(_, _, name, _)) => Err((
                "properties",
                format!("librdkafka refuses the value of {name}"),
            )),
            Err(KafkaError::ClientCreation(reason)) => {
                let key = match reason.contains("ssl") {
                    true => "tls",
                    false => "properties",
                };
                Err((key, reason))
            }
            Err(error) => Err(("properties", error.to_string())),
        }
    }

    fn security(&self) -> Security<'_> {
        Security {
            protocol: self.security_protocol,
            tls: &self.tls,
            sasl: &self.sasl,
        }
    }

    /// Where clients get their tokens.
    pub(super) fn tokens(&self) -> Tokens {
        let used = self.sasl.mechanism == Some(Mechanism::Oauthbearer);
        Tokens(self.sasl.token_file.clone().filter(|_| used))
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
        self.security().apply(&mut config);
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
        default("statistics.interval.ms", statistics::INTERVAL_MS.to_owned());
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
        if !self.properties.contains_key("statistics.interval.ms") {
            config.set("statistics.interval.ms", statistics::INTERVAL_MS);
        }
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

    /// Follows a topic to its end, and stays there: with few requests while nothing comes. Longer, and the
    /// question where the end is, which waits behind the fetch, would take too much of the time within
    /// which staleness must be noticed.
    pub(super) fn following(&self) -> ClientConfig {
        let mut config = self.reading();
        if !self.properties.contains_key("fetch.wait.max.ms") {
            config.set("fetch.wait.max.ms", "200");
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
    use ringback_core::secret::Secret;

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
            config.clone().resolve().unwrap();
            for client in [
                config.appender(&AppenderOptions::default()),
                config.member("group"),
                config.reading(),
                config.following(),
                config.config_writer(),
            ] {
                client.create_native_config().unwrap();
            }
        }
        let config = with("fetch.wait.max.ms", "7").member("group");
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        let config = with("fetch.wait.max.ms", "7").following();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn promises_cannot_be_configured_away() {
        for name in RESERVED {
            let problems = with(name, "1").problems();
            assert!(problems[0].starts_with(&format!("properties.{name}: cannot be set")));
        }
        for (name, key) in OWN {
            let problems = with(name, "1").problems();
            assert!(problems[0].ends_with(key), "{problems:?}");
        }
        let mut config = KafkaConfig::default();
        config.bootstrap.clear();
        config.resolve().unwrap_err();
    }

    #[test]
    fn values_of_properties_are_never_shown() {
        let secret = "hunter2";
        let mut config = with("ssl.keystore.password", secret);
        config.sasl.password = Some(Secret::new(secret));
        config.tls.key_password = Some(Secret::new(secret));
        let shown = format!("{config:?} {:?}", config.problems());
        assert!(!shown.contains(secret), "{shown}");
        for name in ["no.such.property", "socket.timeout.ms"] {
            let problems = with(name, secret).problems();
            assert!(problems[0].contains(name), "{problems:?}");
            assert!(!problems[0].contains(secret), "{problems:?}");
            let error = with(name, secret).resolve().unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains(secret), "{error}");
        }
    }

    fn sasl(mechanism: Mechanism) -> KafkaConfig {
        KafkaConfig {
            security_protocol: SecurityProtocol::SaslSsl,
            sasl: Sasl {
                mechanism: Some(mechanism),
                username: Some("user".to_owned()),
                password: Some(Secret::new("hunter2")),
                ..Sasl::default()
            },
            ..KafkaConfig::default()
        }
    }

    #[test]
    fn every_mechanism_is_built_in() {
        for mechanism in [
            Mechanism::Plain,
            Mechanism::ScramSha256,
            Mechanism::ScramSha512,
        ] {
            assert_eq!(sasl(mechanism).problems(), Vec::<String>::new());
            sasl(mechanism).resolve().unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        // {"sub":"a","exp":4102444800}
        std::fs::write(&token, "e30.eyJzdWIiOiJhIiwiZXhwIjo0MTAyNDQ0ODAwfQ.\n").unwrap();
        let mut config = sasl(Mechanism::Oauthbearer);
        config.sasl = Sasl {
            mechanism: Some(Mechanism::Oauthbearer),
            token_file: Some(token),
            ..Sasl::default()
        };
        config.resolve().unwrap();
    }

    #[test]
    fn contradictions_are_all_named() {
        let config = KafkaConfig {
            tls: Tls {
                ca: Some("ca.pem".into()),
                certificate: Some("cert.pem".into()),
                ..Tls::default()
            },
            sasl: Sasl {
                mechanism: Some(Mechanism::Plain),
                ..Sasl::default()
            },
            ..KafkaConfig::default()
        };
        let keys = |config: &KafkaConfig| -> Vec<String> {
            let problems = config.problems().into_iter();
            let keys = problems.map(|problem| problem.split(": ").next().unwrap().to_owned());
            keys.collect()
        };
        assert_eq!(
            keys(&config),
            [
                "tls.ca",
                "tls.certificate",
                "tls.certificate",
                "sasl.mechanism"
            ]
        );
        let mut config = sasl(Mechanism::ScramSha512);
        config.sasl.username = None;
        config.sasl.password_file = Some("too".into());
        config.sasl.token_file = Some("too".into());
        assert_eq!(
            keys(&config),
            ["sasl.username", "sasl.password", "sasl.token_file"]
        );
        config.sasl = Sasl::default();
        assert_eq!(keys(&config), ["sasl.mechanism"]);
        let mut config = sasl(Mechanism::Oauthbearer);
        assert_eq!(keys(&config), ["sasl.token_file", "sasl.username"]);
        config.security_protocol = SecurityProtocol::Ssl;
        assert_eq!(
            keys(&config),
            ["sasl.mechanism", "sasl.username", "sasl.password"]
        );
    }

    #[test]
    fn bad_files_are_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "hunter2").unwrap();
            path
        };
        let mut config = sasl(Mechanism::Plain);
        config.tls.ca = Some(dir.path().join("missing.pem"));
        config.sasl.password = None;
        config.sasl.password_file = Some(dir.path().join("missing"));
        let problems = config.problems_here();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("tls.ca: "), "{problems:?}");
        assert!(
            problems[1].starts_with("sasl.password_file: "),
            "{problems:?}"
        );
        config.sasl.password_file = Some(file("password"));
        config.tls.ca = Some(file("ca.pem"));
        let problems = config.problems_here();
        assert!(problems[0].starts_with("tls: "), "{problems:?}");
        assert!(problems[0].contains("ssl.ca.location"), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}
