//! The mapping of `ringback send`: flags over a mapping file, and an id for every line.

use std::path::PathBuf;

use clap::Args;
use ringback_producer::mapping::{MappingConfig, Records, Unmappable};
use serde::Deserialize;
use uuid::Uuid;

use crate::failure::Failure;

/// The mapping as flags; the same names stand in a mapping file ([`MappingConfig`]).
#[derive(Args, Default, Clone, Debug)]
pub(crate) struct MappingArgs {
    /// Event type of every line
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Field that holds the event type (dotted path or JSON pointer)
    #[arg(long, value_name = "FIELD")]
    type_from: Option<String>,
    /// Tenant of every line; not needed with a tenant's token
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Field that holds the tenant
    #[arg(long, value_name = "FIELD")]
    tenant_from: Option<String>,
    /// Fields that together identify a line at its source; the event's id is derived from them, so
    /// that sending the same line again keeps it
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    id_from: Vec<String>,
    /// Field that holds what the event is about
    #[arg(long, value_name = "FIELD")]
    subject_from: Option<String>,
    /// Goes before the subject, such as `call/`
    #[arg(long, value_name = "TEXT")]
    subject_prefix: Option<String>,
    /// Field that holds the time: RFC 3339, `YYYY-MM-DD HH:MM:SS`, or Unix seconds or milliseconds
    #[arg(long, value_name = "FIELD")]
    time_from: Option<String>,
    /// Offset of times that name none
    #[arg(long, value_name = "+HH:MM")]
    time_zone: Option<String>,
    /// Source of the events
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// TOML file with these names as keys, and a table `[types]` from the values of `type-from` to
    /// event types (lines with other values are skipped); flags win
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
}

/// How lines become events.
#[derive(Clone, Debug)]
pub(crate) enum Mapping {
    /// They are events.
    Events,
    /// They are a PBX's own records, which become the data of events.
    Records(Box<Records>),
}

impl Mapping {
    /// The mapping that flags and file ask for.
    pub(crate) fn load(flags: &MappingArgs) -> Result<Self, Failure> {
        let file = match &flags.mapping {
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format!("reading the mapping {shown}: {error}"))
                })?;
                toml::from_str(&text).map_err(|error| {
                    Failure::usage(format!("reading the mapping {shown}: {error}"))
                })?
            }
            None => MappingConfig::default(),
        };
        Self::new(flags.clone().over(file))
    }

    /// A mapping from the text of a mapping file.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let file = toml::from_str(text)
            .map_err(|error| Failure::usage(format!("reading the mapping: {error}")))?;
        Self::new(file)
    }

    fn new(config: MappingConfig) -> Result<Self, Failure> {
        if config.is_empty() {
            return Ok(Self::Events);
        }
        if config.kind.is_none() && config.type_from.is_none() {
            return Err(Failure::usage(
                "the lines are mapped, but nothing says their event type: add --type or --type-from",
            ));
        }
        let records = Records::new(config)
            .map_err(|error| Failure::usage(format!("the mapping cannot be used: {error}")))?;
        Ok(Self::Records(Box::new(records)))
    }

    /// The event of a line, as a line; `None` when the mapping leaves it out.
    ///
    /// Every event has its id before it is sent: sent again after a lost answer, it is the same.
    pub(crate) fn event(&self, line: &[u8]) -> Result<Option<Vec<u8>>, Unmappable> {
        match self {
            Self::Events => Ok(Some(with_id(line))),
            Self::Records(records) if records.gives_ids() => records.event(line),
            Self::Records(records) => Ok(records.event(line)?.map(|event| with_id(&event))),
        }
    }
}

impl MappingArgs {
    /// Flags win. A constant on the command line also beats a field in the file.
    fn over(self, file: MappingConfig) -> MappingConfig {
        let pair = |constant: Option<String>, field: Option<String>, in_file| match constant
            .is_some()
            || field.is_some()
        {
            true => (constant, field),
            false => in_file,
        };
        let (kind, type_from) = pair(self.kind, self.type_from, (file.kind, file.type_from));
        let in_file = (file.tenant, file.tenant_from);
        let (tenant, tenant_from) = pair(self.tenant, self.tenant_from, in_file);
        MappingConfig {
            kind,
            type_from,
            tenant,
            tenant_from,
            id_from: match self.id_from.is_empty() {
                true => file.id_from,
                false => self.id_from,
            },
            subject_from: self.subject_from.or(file.subject_from),
            subject_prefix: self.subject_prefix.or(file.subject_prefix),
            time_from: self.time_from.or(file.time_from),
            time_zone: self.time_zone.or(file.time_zone),
            source: self.source.or(file.source),
            types: file.types,
        }
    }
}

/// An event with an id: its own, or a new one. What is no event goes as it is: the ingest says what
/// is wrong with it.
fn with_id(line: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct HasId {
        // Any value, `null` too: a second `id` would make the event illegal.
        #[serde(default, deserialize_with = "any")]
        id: bool,
    }
    fn any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
    }
    let event = serde_json::from_slice::<HasId>(line);
    match (event, line.split_first()) {
        (Ok(HasId { id: false }), Some((b'{', rest))) => {
            let comma = if rest.trim_ascii_start().starts_with(b"}") {
                ""
            } else {
                ","
            };
            let id = format!("{{\"id\":\"{}\"{comma}", Uuid::now_v7().as_hyphenated());
            [id.as_bytes(), rest].concat()
        }
        _ => line.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const ASTERISK: &str = r#"
        type = "cdr.completed"
        id-from = ["uniqueid", "sequence"]
        subject-from = "linkedid"
        subject-prefix = "call/"
        time-from = "end"
        source = "asterisk"
    "#;

    fn event(mapping: &Mapping, line: &str) -> Value {
        serde_json::from_slice(&mapping.event(line.as_bytes()).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn recorded_cdrs_become_events_with_stable_ids() {
        let mapping = Mapping::parse(ASTERISK).unwrap();
        let fixture = include_str!("../../fixtures/asterisk-cdr.jsonl");
        let mut ids = std::collections::HashSet::new();
        for line in fixture.lines() {
            let made = event(&mapping, line);
            assert_eq!(made["type"], "cdr.completed");
            assert!(made["subject"].as_str().unwrap().starts_with("call/1795"));
            assert!(made["time"].as_str().unwrap().starts_with("2026-11-21T03:"));
            assert_eq!(made["data"], serde_json::from_str::<Value>(line).unwrap());
            assert_eq!(made["id"], event(&mapping, line)["id"]);
            ids.insert(made["id"].to_string());
        }
        assert_eq!(ids.len(), 178);
    }

    #[test]
    fn events_keep_their_bytes_and_get_an_id() {
        let line = r#"{ "type":"a.b" , "data":{"n":1.50}}"#;
        let sent = Mapping::Events.event(line.as_bytes()).unwrap().unwrap();
        let text = String::from_utf8(sent).unwrap();
        assert!(text.ends_with(&line[1..]), "{text}");
        assert!(event(&Mapping::Events, line)["id"].is_string());
        assert!(event(&Mapping::Events, "{}")["id"].is_string());
        for own in [r#"{"id":"x","type":"a.b"}"#, r#"{"id":null,"type":"a.b"}"#] {
            let sent = Mapping::Events.event(own.as_bytes()).unwrap().unwrap();
            assert_eq!(sent, own.as_bytes());
        }
        assert_eq!(
            Mapping::Events.event(b"nonsense").unwrap().unwrap(),
            b"nonsense"
        );
    }

    #[test]
    fn types_are_translated_and_others_left_out() {
        let text = "type-from = \"eventtype\"\n[types]\nANSWER = \"call.leg.answered\"\n";
        let mapping = Mapping::parse(text).unwrap();
        assert_eq!(
            event(&mapping, r#"{"eventtype":"ANSWER"}"#)["type"],
            "call.leg.answered"
        );
        assert_eq!(mapping.event(br#"{"eventtype":"SURVEY"}"#).unwrap(), None);
        let error = mapping.event(b"{}").unwrap_err();
        assert_eq!(error.code, "illegal_attribute");
    }

    #[test]
    fn bad_lines_and_bad_mappings_are_named() {
        let mapping = Mapping::parse(ASTERISK).unwrap();
        let code = |line: &[u8]| mapping.event(line).unwrap_err().code;
        assert_eq!(code(b"\xff"), "not_utf8");
        assert_eq!(code(b"{"), "not_json");
        assert_eq!(code(b"[]"), "data_not_object");
        assert_eq!(code(b"{}"), "illegal_attribute");
        assert!(Mapping::parse("typ = \"a\"").is_err());
        for untyped in [
            "id-from = [\"a\"]",
            "source = \"pbx-1\"",
            "[types]\nA = \"a\"",
        ] {
            assert!(Mapping::parse(untyped).is_err(), "{untyped}");
        }
        assert!(Mapping::parse("type = \"a\"\ntime-zone = \"CET\"").is_err());
    }
}
