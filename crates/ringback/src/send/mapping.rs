//! From a PBX's own JSON line to an event: where type, tenant, id, subject and time come from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ringback_core::event::{Source, TenantId, derive_id};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fields::{Field, parse_time};
use crate::failure::Failure;

/// The mapping as flags; the same names stand in a mapping file.
#[derive(Args, Deserialize, Default, Clone, Debug)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MappingArgs {
    /// Event type of every line
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type")]
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
    #[serde(skip)]
    mapping: Option<PathBuf>,
    #[arg(skip)]
    types: BTreeMap<String, String>,
}

/// How lines become events.
#[derive(Clone, Debug)]
pub(crate) enum Mapping {
    /// They are events.
    Events,
    /// They are a PBX's own records, which become the data of events.
    Records(Box<Records>),
}

#[derive(Clone, Debug)]
pub(crate) struct Records {
    kind: From,
    types: BTreeMap<String, String>,
    tenant: Option<From>,
    id: Vec<Field>,
    subject: Option<Field>,
    subject_prefix: String,
    time: Option<Field>,
    zone: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum From {
    Constant(String),
    Field(Field),
}

/// A line that makes no event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unmappable {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

fn unmappable(code: &'static str, reason: impl Into<String>) -> Unmappable {
    Unmappable {
        code,
        reason: reason.into(),
    }
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
            None => MappingArgs::default(),
        };
        Self::new(flags.clone(), file)
    }

    /// A mapping from the text of a mapping file.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let file = toml::from_str(text)
            .map_err(|error| Failure::usage(format!("reading the mapping: {error}")))?;
        Self::new(MappingArgs::default(), file)
    }

    fn new(flags: MappingArgs, file: MappingArgs) -> Result<Self, Failure> {
        let either = |flag: Option<String>, key: Option<String>| flag.or(key);
        // A constant on the command line also beats a field in the file.
        let from = |constant: Option<String>, field: Option<String>| {
            constant
                .map(From::Constant)
                .or(field.map(|field| From::Field(Field::new(&field))))
        };
        let kind = from(flags.kind, flags.type_from).or(from(file.kind, file.type_from));
        let tenant = from(flags.tenant, flags.tenant_from).or(from(file.tenant, file.tenant_from));
        let id = if flags.id_from.is_empty() {
            file.id_from
        } else {
            flags.id_from
        };
        let subject = either(flags.subject_from, file.subject_from);
        let time = either(flags.time_from, file.time_from);
        let Some(kind) = kind else {
            let texts = [
                &flags.subject_prefix,
                &flags.time_zone,
                &flags.source,
                &file.subject_prefix,
                &file.time_zone,
                &file.source,
            ];
            let mapped = [tenant.is_some(), subject.is_some(), time.is_some()];
            if mapped.contains(&true)
                || !id.is_empty()
                || !file.types.is_empty()
                || texts.iter().any(|text| text.is_some())
            {
                return Err(Failure::usage(
                    "the lines are mapped, but nothing says their event type: add --type or --type-from",
                ));
            }
            return Ok(Self::Events);
        };
        let zone = either(flags.time_zone, file.time_zone).unwrap_or_else(|| "Z".to_owned());
        if parse_time("2026-01-01 00:00:00", &zone).is_none() {
            return Err(Failure::usage(format!(
                "--time-zone {zone:?}: use Z or an offset such as +02:00"
            )));
        }
        let source = either(flags.source, file.source).unwrap_or_else(|| "pbx".to_owned());
        let source = Source::parse(&source).map_err(Failure::usage)?;
        Ok(Self::Records(Box::new(Records {
            kind,
            types: file.types,
            tenant,
            id: id.iter().map(|field| Field::new(field)).collect(),
            subject: subject.map(|field| Field::new(&field)),
            subject_prefix: either(flags.subject_prefix, file.subject_prefix).unwrap_or_default(),
            time: time.map(|field| Field::new(&field)),
            zone,
            source,
        })))
    }

    /// The event of a line, as a line; `None` when the mapping leaves it out.
    ///
    /// Every event has its id before it is sent: sent again after a lost answer, it is the same.
    pub(crate) fn event(&self, line: &[u8]) -> Result<Option<Vec<u8>>, Unmappable> {
        match self {
            Self::Events => Ok(Some(with_id(line))),
            Self::Records(records) => records.event(line),
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

impl Records {
    fn event(&self, line: &[u8]) -> Result<Option<Vec<u8>>, Unmappable> {
        let text = std::str::from_utf8(line).map_err(|error| {
            unmappable(
                "not_utf8",
                format!("not UTF-8 from byte {} on", error.valid_up_to()),
            )
        })?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| unmappable("not_json", format!("not JSON: {error}")))?;
        let value: Value = serde_json::from_str(text)
            .map_err(|error| unmappable("not_json", format!("not JSON: {error}")))?;
        if !value.is_object() {
            return Err(unmappable(
                "data_not_object",
                "the line is not a JSON object",
            ));
        }
        let Some(kind) = self.kind(&value)? else {
            return Ok(None);
        };
        let mut event = serde_json::Map::new();
        event.insert("type".to_owned(), kind.into());
        let tenant = self
            .tenant
            .as_ref()
            .map(|tenant| take(tenant, &value))
            .transpose()?;
        event.insert("id".to_owned(), self.id(tenant.as_deref(), &value)?.into());
        if let Some(tenant) = tenant {
            event.insert("tenant".to_owned(), tenant.into());
        }
        event.insert("source".to_owned(), self.source.as_str().into());
        if let Some(field) = &self.subject {
            let subject = need(field, &value)?;
            event.insert(
                "subject".to_owned(),
                format!("{}{subject}", self.subject_prefix).into(),
            );
        }
        if let Some(field) = &self.time {
            let text = need(field, &value)?;
            let time = parse_time(&text, &self.zone).ok_or_else(|| {
                let reason = format!("the time {text:?} in {} cannot be read", field.name());
                unmappable("illegal_attribute", reason)
            })?;
            event.insert("time".to_owned(), time.to_string().into());
        }
        let mut out = Value::Object(event).to_string().into_bytes();
        // The data goes in as it stands in the line, byte for byte.
        out.pop();
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(raw.get().as_bytes());
        out.push(b'}');
        Ok(Some(out))
    }

    fn kind(&self, value: &Value) -> Result<Option<String>, Unmappable> {
        let kind = take(&self.kind, value)?;
        if self.types.is_empty() || matches!(self.kind, From::Constant(_)) {
            return Ok(Some(kind));
        }
        Ok(self.types.get(&kind).cloned())
    }

    fn id(&self, tenant: Option<&str>, value: &Value) -> Result<String, Unmappable> {
        if self.id.is_empty() {
            return Ok(Uuid::now_v7().as_hyphenated().to_string());
        }
        let parts: Result<Vec<_>, _> = self.id.iter().map(|field| need(field, value)).collect();
        // With a tenant's own token the tenant is not in the line; its id need not be either.
        let tenant = TenantId::parse(tenant.unwrap_or("own"))
            .map_err(|error| unmappable("illegal_attribute", error.to_string()))?;
        Ok(derive_id(&tenant, &self.source, &parts?.join("/"))
            .as_hyphenated()
            .to_string())
    }
}

fn take(from: &From, value: &Value) -> Result<String, Unmappable> {
    match from {
        From::Constant(text) => Ok(text.clone()),
        From::Field(field) => need(field, value),
    }
}

fn need(field: &Field, value: &Value) -> Result<String, Unmappable> {
    field.text(value).ok_or_else(|| {
        unmappable(
            "illegal_attribute",
            format!("the field {} is missing or empty", field.name()),
        )
    })
}

#[cfg(test)]
mod tests {
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
