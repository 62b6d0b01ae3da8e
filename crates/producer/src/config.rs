//! Settings of the ingest.

use std::collections::HashSet;
use std::time::Duration;

use ringback_core::event::TenantId;
use ringback_core::time::DurationText;
use ringback_server::TlsConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mapping::{MappingConfig, Records};

/// Longest name of a source of foreign records: with the prefix, still a topic's name.
const SOURCE_BYTES_MAX: usize = 40;

/// `[ingest]` in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of `POST /v1/events`.
    #[schemars(regex(pattern = ":[0-9]{1,5}$"))]
    pub listen: String,
    /// Source of events that name none.
    #[schemars(regex(pattern = r"^\S{1,256}$"))]
    pub source: String,
    /// Largest body of a request, in bytes.
    #[schemars(range(min = 1024))]
    pub body_bytes_max: usize,
    /// Most events in a batch.
    #[schemars(range(min = 1))]
    pub batch_events_max: usize,
    /// Bodies being worked on at a time, in bytes; beyond, the answer is 503.
    #[schemars(range(min = 1024))]
    pub in_flight_bytes_max: usize,
    /// How long a request's body may take to arrive.
    #[serde(with = "DurationText")]
    pub body_timeout: Duration,
    /// How long events may wait for each other on their way to the log, at most 1s: latency against
    /// throughput.
    #[serde(with = "DurationText")]
    pub linger: Duration,
    /// After how long without the log's acknowledgement an event counts as not accepted.
    #[serde(with = "DurationText")]
    pub append_timeout: Duration,
    /// Most events per second that a tenant hands in, 0 for as many as it likes; beyond, 429
    /// `over_quota`. Each producer counts for itself.
    pub tenant_rate: u32,
    /// Most events of a tenant at once, after a rest; at least `ingest.tenant_rate`.
    pub tenant_burst: u32,
    /// Its certificate, when it speaks TLS.
    pub tls: TlsConfig,
    /// Topics of foreign records that are made events, each a table `[[ingest.raw]]` with `source`
    /// and `mapping`; see [raw topics](cloudevents.md#raw-topics-a-pbxs-own-records). `producer`
    /// reads them, `admin` creates them: both need the same list.
    pub raw: Vec<RawConfig>,
}

/// `[[ingest.raw]]`: a topic of foreign records.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Names the topic, `raw.<source>`, and is the source of its events unless the mapping names one.
    pub source: String,
    /// How its records become events.
    pub mapping: MappingConfig,
}

impl RawConfig {
    /// The mapping, if it can be used.
    pub(crate) fn records(&self) -> Result<Records, String> {
        let mut mapping = self.mapping.clone();
        if !mapping.has_tenant() {
            return Err("nothing says whose the events are: give tenant or tenant-from".to_owned());
        }
        if let Some(Err(error)) = mapping.tenant.as_deref().map(TenantId::parse) {
            return Err(error.to_string());
        }
        mapping.source.get_or_insert_with(|| self.source.clone());
        Records::new(mapping).map_err(|error| error.to_string())
    }
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
            tenant_rate: 0,
            tenant_burst: 10_000,
            tls: TlsConfig::default(),
            raw: Vec::new(),
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
        need(
            self.linger <= Duration::from_secs(1),
            "linger: use at most 1s",
        );
        need(
            self.tenant_burst >= self.tenant_rate,
            "tenant_burst: use at least ingest.tenant_rate",
        );
        let tls = self.tls.problems().into_iter();
        problems.extend(tls.map(|problem| format!("tls.{problem}")));
        let mut seen = HashSet::new();
        for raw in &self.raw {
            let source = &raw.source;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !(1..=SOURCE_BYTES_MAX).contains(&source.len()) || !source.chars().all(allowed) {
                problems.push(format!(
                    "raw: source {source:?} names a topic: use 1 to {SOURCE_BYTES_MAX} of the letters a-z, A-Z, 0-9, '.', '_' and '-'"
                ));
            }
            if !seen.insert(source) {
                problems.push(format!("raw: source {source:?} is there twice"));
            }
            if let Err(problem) = raw.records() {
                problems.push(format!("raw: mapping of source {source:?}: {problem}"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_sources_and_mappings_of_raw_topics_are_named() {
        let raw = |source: &str, kind: Option<&str>, tenant: Option<&str>| RawConfig {
            source: source.to_owned(),
            mapping: MappingConfig {
                kind: kind.map(str::to_owned),
                tenant: tenant.map(str::to_owned),
                ..MappingConfig::default()
            },
        };
        let problems = |raw: Vec<RawConfig>| {
            let config = Config {
                raw,
                ..Config::default()
            };
            config.problems().join("\n")
        };
        let (kind, tenant) = (Some("cdr.completed"), Some("acme"));
        let good = raw("asterisk-1", kind, tenant);
        assert_eq!(problems(vec![good.clone()]), "");
        for (sources, said) in [
            (vec![good.clone(), good], "twice"),
            (vec![raw("", kind, tenant)], "names a topic"),
            (vec![raw("a/b", kind, tenant)], "names a topic"),
            (vec![raw("a", None, tenant)], "event type"),
            (vec![raw("a", kind, None)], "whose"),
            (vec![raw("a", kind, Some("A B"))], "tenant"),
        ] {
            let problems = problems(sources);
            assert!(problems.contains(said), "{problems}");
        }
    }
}
