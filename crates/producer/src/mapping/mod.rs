//! From a PBX's own JSON record to an event: where type, tenant, id, subject and time come from.
//!
//! Both ways in use it: `ringback send` for lines, [`crate::RawIntake`] for records of a topic.

mod fields;

use std::collections::BTreeMap;

use ringback_core::event::{Source, TenantId, derive_id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use fields::{Field, parse_time};

/// A mapping as it is written in a mapping file or under `[ingest.raw.mapping]`. Fields are dotted
/// paths (`call.id`) or JSON pointers (`/call/id`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MappingConfig {
    /// Event type of every record.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Field that holds the event type.
    pub type_from: Option<String>,
    /// Tenant of every record.
    pub tenant: Option<String>,
    /// Field that holds the tenant.
    pub tenant_from: Option<String>,
    /// Fields that together identify a record at its source: the event's id is derived from them.
    pub id_from: Vec<String>,
    /// Field that holds what the event is about.
    pub subject_from: Option<String>,
    /// Goes before the subject, such as `call/`.
    pub subject_prefix: Option<String>,
    /// Field that holds the time: RFC 3339, `YYYY-MM-DD HH:MM:SS`, or Unix seconds or milliseconds.
    pub time_from: Option<String>,
    /// Offset of times that name none: `Z` (the default) or `+02:00`.
    pub time_zone: Option<String>,
    /// Source of the events.
    pub source: Option<String>,
    /// From the values of `type-from` to event types; records with other values are left out. Empty:
    /// the values are the types.
    pub types: BTreeMap<String, String>,
}

impl MappingConfig {
    /// Whether nothing is mapped at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it says whose the events are.
    pub fn has_tenant(&self) -> bool {
        self.tenant.is_some() || self.tenant_from.is_some()
    }
}

/// A mapping that cannot be used: which key is wrong, and how.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMapping(String);

/// How a PBX's own records become events.
#[derive(Clone, Debug)]
pub struct Records {
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

impl From {
    /// A constant beats a field.
    fn either(constant: Option<String>, field: Option<String>) -> Option<Self> {
        let field = field.map(|field| Self::Field(Field::new(&field)));
        constant.map(Self::Constant).or(field)
    }
}

/// A record that makes no event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unmappable {
    /// A stable word for programs.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

fn unmappable(code: &'static str, reason: impl Into<String>) -> Unmappable {
    Unmappable {
        code,
        reason: reason.into(),
    }
}

impl Records {
    /// A mapping, if it can be one.
    pub fn new(config: MappingConfig) -> Result<Self, InvalidMapping> {
        let Some(kind) = From::either(config.kind, config.type_from) else {
            return Err(InvalidMapping(
                "nothing says the event type: give type or type-from".to_owned(),
            ));
        };
        let zone = config.time_zone.unwrap_or_else(|| "Z".to_owned());
        if parse_time("2026-01-01 00:00:00", &zone).is_none() {
            return Err(InvalidMapping(format!(
                "time-zone {zone:?}: use Z or an offset such as +02:00"
            )));
        }
        let source = config.source.unwrap_or_else(|| "pbx".to_owned());
        let source = Source::parse(&source).map_err(|error| InvalidMapping(error.to_string()))?;
        Ok(Self {
            kind,
            types: config.types,
            tenant: From::either(config.tenant, config.tenant_from),
            id: config
                .id_from
                .iter()
                .map(|field| Field::new(field))
                .collect(),
            subject: config.subject_from.map(|field| Field::new(&field)),
            subject_prefix: config.subject_prefix.unwrap_or_default(),
            time: config.time_from.map(|field| Field::new(&field)),
            zone,
            source,
        })
    }

    /// Whether the events have ids, derived from their records.
    pub fn gives_ids(&self) -> bool {
        !self.id.is_empty()
    }

    /// The event of a record, as JSON; `None` when the mapping leaves it out. It has an id only when
    /// the mapping says where a record's identity is. The record goes in as it stands, byte for byte.
    pub fn event(&self, record: &[u8]) -> Result<Option<Vec<u8>>, Unmappable> {
        let text = std::str::from_utf8(record).map_err(|error| {
            unmappable(
                "not_utf8",
                format!("not UTF-8 from byte {} on", error.valid_up_to()),
            )
        })?;
        let value: Value = serde_json::from_str(text)
            .map_err(|error| unmappable("not_json", format!("not JSON: {error}")))?;
        if !value.is_object() {
            return Err(unmappable("data_not_object", "not a JSON object"));
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
        if let Some(id) = self.id(tenant.as_deref(), &value)? {
            event.insert("id".to_owned(), id.into());
        }
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
        out.pop();
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(text.trim().as_bytes());
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

    fn id(&self, tenant: Option<&str>, value: &Value) -> Result<Option<String>, Unmappable> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let parts: Result<Vec<_>, _> = self.id.iter().map(|field| need(field, value)).collect();
        // With a tenant's own token the tenant is not in the record; its id need not be either.
        let tenant = TenantId::parse(tenant.unwrap_or("own"))
            .map_err(|error| unmappable("illegal_attribute", error.to_string()))?;
        let id = derive_id(&tenant, &self.source, &parts?.join("/"));
        Ok(Some(id.as_hyphenated().to_string()))
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
