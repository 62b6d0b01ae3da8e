//! The configuration: `ringback.toml` < environment < `--set`, every mistake reported at once.
//!
//! Each component owns its section; this composes them. A key is checked by itself, where it was
//! given, so that a report names file and line, variable or flag of every mistake.

#[cfg(test)]
mod bad_values;
mod check;
mod keys;
mod merge;
pub(crate) mod reference;
mod schema;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use ringback_core::address::Opening;
use ringback_core::schedule::Schedule;
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::topics::TopicsConfig;
use ringback_log::kafka::KafkaConfig;
use schemars::JsonSchema;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::canary::CanaryConfig;
use crate::config::keys::Place;
use crate::config::merge::{HIDDEN, Merged};
use crate::config::source::Layers;
use crate::failure::Failure;

/// Where configuration comes from, besides the environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: ringback.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets a key, over file and environment: `--set log.engine=kafka`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Everything that can be configured. The comments of sections and keys, here and in the crates, are what
/// people read about them: `ringback config-reference`, its tables in `docs/configuration.md`, editors.
/// Their links are relative to `docs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The log that everything travels through.
    pub(crate) log: LogConfig,
    /// Names, partitions and retention of topics. All components of an installation need the same.
    pub(crate) topics: TopicsConfig,
    /// When deliveries are tried again.
    pub(crate) schedule: Schedule,
    /// The ingest of events.
    pub(crate) ingest: ringback_producer::Config,
    /// The administration: API and portal.
    pub(crate) admin: ringback_admin::Config,
    /// The delivery to webhooks.
    pub(crate) dispatcher: ringback_dispatcher::Config,
    /// The verdicts on webhooks, by which they are disabled.
    pub(crate) metrics: ringback_metrics::Config,
    /// A customer of its own that watches all of it from outside.
    pub(crate) canary: CanaryConfig,
    /// Logs, metrics, health and traces.
    pub(crate) telemetry: ringback_telemetry::Config,
    /// The keys that seal the secrets of webhooks. All components need the same.
    pub(crate) secrets: Secrets,
}

/// `[log]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// What carries the log: `"local"` (SQLite in this process, for one machine) or `"kafka"`.
    pub(crate) engine: Engine,
    /// Settings of the local engine.
    pub(crate) local: LocalConfig,
    /// Settings of the Kafka engine.
    pub(crate) kafka: KafkaConfig,
}

/// Which engine carries the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// SQLite in this process: one machine, no Kafka.
    #[default]
    Local,
    /// Apache Kafka.
    Kafka,
}

/// `[log.local]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LocalConfig {
    /// The data directory. One process at a time uses it.
    #[schemars(length(min = 1))]
    pub(crate) dir: PathBuf,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("ringback-data"),
        }
    }
}

/// `[secrets]`: the master keys, see [`KeyRing`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Secrets {
    /// Id of the key that seals.
    pub(crate) primary: String,
    /// The keys by id: each the base64 of 32 bytes, as `openssl rand -base64 32` makes them. All of
    /// them open. Ids given by variables are in small letters.
    #[serde(serialize_with = "ids_only")]
    pub(crate) keys: BTreeMap<String, Secret>,
}

fn ids_only<S: Serializer>(
    keys: &BTreeMap<String, Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(keys.keys().map(|id| (id, HIDDEN)))
}

impl Secrets {
    /// Uses this one key, base64 of 32 bytes.
    pub(crate) fn set_only_key(&mut self, id: &str, key: String) {
        self.primary = id.to_owned();
        self.keys = BTreeMap::from([(id.to_owned(), Secret::new(key))]);
    }
}

impl Config {
    /// Reads file, environment and flags.
    pub(crate) fn load(args: &ConfigArgs) -> Result<Self, Failure> {
        Self::read(args, std::env::vars_os())
    }

    /// The configuration that file, these variables and flags make, or all that is wrong with them.
    fn read(
        args: &ConfigArgs,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Failure> {
        let root = Place::of::<Self>();
        let layers = Layers::read(args, environment, &root.keys());
        let mut mistakes = layers.mistakes;
        let Merged {
            table,
            origins,
            mistakes: wrong,
        } = Merged::of(layers.entries, &root);
        mistakes.extend(wrong);
        let config = match Self::deserialize(toml::Value::Table(table)) {
            Ok(config) => config,
            // Each key is right by itself, so this names what they are together.
            Err(error) => {
                mistakes.push(error.message().to_owned());
                return Err(report(&mistakes));
            }
        };
        for (key, problem) in check::problems(&config) {
            mistakes.push(match origins.get(key.as_str()) {
                Some(origin) => format!("{origin}: {key}: {problem}"),
                // What was given elsewhere does not go with it.
                None if root.keys().contains(&key) => {
                    format!("{key}, by its default: {problem}")
                }
                None => format!("{key}: {problem}"),
            });
        }
        match mistakes.is_empty() {
            true => Ok(config),
            false => Err(report(&mistakes)),
        }
    }

    /// On the local log everything is on one machine, webhooks to try it with included: unless it is
    /// configured otherwise, they may be. Tells whether that is so by default.
    pub(crate) fn open_own_machine(&mut self) -> bool {
        let opens = self.log.engine == Engine::Local && self.dispatcher.allow_networks.is_none();
        if opens {
            self.dispatcher.allow_networks = Some(vec![Opening::LOOPBACK]);
        }
        opens
    }

    /// Settings of the table of topics.
    pub(crate) fn topics(&self) -> TopicsConfig {
        let sources = self.ingest.raw.iter().map(|raw| raw.source.clone());
        TopicsConfig {
            raw: sources.collect(),
            ..self.topics.clone()
        }
    }

    /// The keys that seal the secrets of webhooks.
    pub(crate) fn key_ring(&self) -> Result<KeyRing, Failure> {
        let Secrets { primary, keys } = &self.secrets;
        if keys.is_empty() {
            return Err(Failure::usage(
                "there is no key to seal secrets of webhooks with; set secrets.primary and \
                 secrets.keys, see docs/configuration.md",
            ));
        }
        let keys = keys.iter().map(|(id, key)| (id.as_str(), key.expose()));
        KeyRing::new(primary, keys).map_err(|error| Failure::usage(format!("secrets: {error}")))
    }
}

/// The configuration as TOML, with secrets hidden.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = toml::Table::try_from(self).map_err(|_| fmt::Error)?;
        merge::hide_secrets(&mut table);
        let text = toml::to_string(&table).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

fn report(mistakes: &[String]) -> Failure {
    let count = match mistakes.len() {
        1 => "a mistake".to_owned(),
        several => format!("{several} mistakes"),
    };
    let list = mistakes.join("\n  ");
    Failure::usage(format!(
        "the configuration has {count}:\n  {list}\ndocs/configuration.md describes every key"
    ))
}
