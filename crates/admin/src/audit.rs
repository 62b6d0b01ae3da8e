//! `/v1/audit`: who changed what. Entries of configuration are written with the change itself, those of
//! what else is done before it is done: nothing is without its entry.

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::account::Key;
use ringback_core::audit::{Actor, Entry, Target, VERSION, shown};
use ringback_core::directory::Directory;
use ringback_core::event::TenantId;
use ringback_core::log::{Append, Log, Revision};
use ringback_core::topics::Role;
use ringback_core::webhook::{Webhook, WebhookName};
use ringback_log::batch::Batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::asker;
use crate::problem::Problem;
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, newest_first};
use crate::request::Parameters;
use crate::state::{Admin, AdminState};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    before: Option<String>,
    /// For operators: of this tenant, also when it was removed.
    tenant: Option<String>,
}

/// `GET /v1/audit`.
pub(crate) async fn list_all<L: Log>(
    State(state): State<AdminState<L>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state.run(move |admin| list(admin, parameters)).await
}

/// `GET /v1/tenants/{tenant}/audit`.
pub(crate) async fn list_tenants<L: Log>(
    State(state): State<AdminState<L>>,
    Path(tenant): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&tenant)?.value.id.to_string();
            let parameters = ListParameters {
                tenant: Some(tenant),
                ..parameters
            };
            list(admin, parameters)
        })
        .await
}

fn list<L: Log>(admin: &Admin<L>, parameters: ListParameters) -> Result<Json<Value>, Problem> {
    let extent = Extent {
        limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
        budget: BUDGET,
        since: None,
    };
    let topic = admin.topic(Role::Audit)?;
    let partitions: Vec<_> = admin.log.topics().partitions(topic).collect();
    let tenant = parameters.tenant.as_deref();
    let mut reader = admin.log.reader()?;
    let before = parameters.before.as_deref();
    let page = newest_first(&mut reader, &partitions, before, &extent, |record| {
        if tenant.is_some_and(|tenant| record.key != Some(tenant.as_bytes())) {
            return None;
        }
        let entry: Entry = serde_json::from_slice(record.value?).ok()?;
        // The key says whose partition it is, the entry whose it is.
        let of = entry.tenant.as_ref().map(TenantId::as_str);
        (tenant.is_none() || tenant == of).then(|| json!(entry))
    })?;
    Ok(Json(
        json!({ "entries": page.entries, "next": page.cursor }),
    ))
}

/// What a change of a configuration record is about.
struct About {
    tenant: Option<TenantId>,
    target: Target,
    before: Option<Value>,
    /// Other than adding, changing or removing.
    action: Option<&'static str>,
}

impl<L: Log> Admin<L> {
    /// The entry that tells of a change from this revision of a configuration record.
    pub(crate) fn entry_of_change(
        &self,
        role: Role,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
    ) -> Entry {
        let after: Option<Value> = value.and_then(|value| serde_json::from_slice(value).ok());
        let about = about(&self.live().read(), role, key, expected, after.as_ref());
        let verb = match (expected, value) {
            (None, _) => "add",
            (Some(_), Some(_)) => "change",
            (Some(_), None) => "remove",
        };
        let action = match about.action {
            Some(action) => action.to_owned(),
            None => format!("{}.{verb}", about.target.kind),
        };
        let (before, after) = shown(about.before.as_ref(), after.as_ref());
        self.entry(action, about.tenant, about.target, before, after)
    }

    fn entry(
        &self,
        action: String,
        tenant: Option<TenantId>,
        target: Target,
        before: Value,
        after: Value,
    ) -> Entry {
        let asker = asker::current();
        let asker = asker.as_deref();
        Entry {
            version: VERSION,
            id: Uuid::now_v7(),
            time: self.clock.now(),
            actor: asker.map_or_else(Actor::ringback, |asker| asker.actor.clone()),
            action,
            tenant,
            target,
            before,
            after,
            request: asker.map(|asker| asker.request),
            client: asker.and_then(|asker| asker.client),
        }
    }

    /// Blocking: tells of what is about to be done to a webhook. It is done only when that is durable.
    pub(crate) fn tell_of_webhook(
        &self,
        action: &str,
        webhook: &Webhook,
        what: Value,
    ) -> Result<(), Problem> {
        let target = target_of(webhook);
        self.tell(action, Some(webhook.tenant.clone()), target, what)
    }

    /// Blocking: tells of what is about to be done that belongs to no tenant.
    pub(crate) fn tell_of(&self, action: &str, kind: &str, what: Value) -> Result<(), Problem> {
        let target = Target {
            kind: kind.to_owned(),
            id: None,
            name: kind.to_owned(),
        };
        self.tell(action, None, target, what)
    }

    /// Blocking: the same of a tenant.
    pub(crate) fn tell_of_tenant(
        &self,
        action: &str,
        tenant: &TenantId,
        what: Value,
    ) -> Result<(), Problem> {
        let target = Target {
            kind: "tenant".to_owned(),
            id: None,
            name: tenant.to_string(),
        };
        self.tell(action, Some(tenant.clone()), target, what)
    }

    fn tell(
        &self,
        action: &str,
        tenant: Option<TenantId>,
        target: Target,
        what: Value,
    ) -> Result<(), Problem> {
        let entry = self.entry(action.to_owned(), tenant, target, Value::Null, what);
        let record = Told::new(&entry)?;
        let mut batch = Batch::new(&self.appender);
        let appended = batch.append(record.append(self.topic(Role::Audit)?));
        let appended = appended.and_then(|()| batch.finish().map(|_| ()));
        appended.map_err(|error| {
            let detail = format!(
                "nothing was done, because it could not be written to the audit: {error}; try again in a moment"
            );
            Problem::unavailable("log_unavailable", detail)
        })
    }
}

/// An entry as a record.
pub(crate) struct Told {
    key: Option<String>,
    value: Vec<u8>,
}

impl Told {
    pub(crate) fn new(entry: &Entry) -> Result<Self, Problem> {
        let value = serde_json::to_vec(entry).map_err(|error| {
            let detail = format!("the audit's entry cannot be written as JSON: {error}");
            Problem::invalid("invalid_body", detail)
        })?;
        Ok(Self {
            key: entry.tenant.as_ref().map(TenantId::to_string),
            value,
        })
    }

    pub(crate) fn append(&self, topic: ringback_core::topics::TopicId) -> Append<'_> {
        Append {
            topic,
            key: self.key.as_deref().map(str::as_bytes),
            headers: &[],
            value: Some(&self.value),
        }
    }
}

fn target_of(webhook: &Webhook) -> Target {
    Target {
        kind: "webhook".to_owned(),
        id: Some(webhook.id.to_string()),
        name: webhook.name.to_string(),
    }
}

/// Reads from the directory what is there before the change.
fn about(
    directory: &Directory,
    role: Role,
    key: &str,
    expected: Option<Revision>,
    after: Option<&Value>,
) -> About {
    let (kind, before) = match role {
        Role::Tenants => {
            let id = TenantId::parse(key).ok();
            let tenant = id.and_then(|id| directory.tenant(&id));
            (
                "tenant",
                tenant.map(|found| (found.revision, record(&found.value))),
            )
        }
        Role::Webhooks => {
            let found = key.split_once('/').and_then(|(tenant, name)| {
                let tenant = TenantId::parse(tenant).ok()?;
                // By its name: what looks like an id is none here.
                WebhookName::parse(name).ok()?;
                directory.webhook(&tenant, name)
            });
            (
                "webhook",
                found.map(|found| (found.revision, record(&*found.value))),
            )
        }
        Role::Tokens => {
            let found = Uuid::try_parse(key).ok();
            let found = found.and_then(|id| directory.token(id));
            (
                "token",
                found.map(|found| (found.revision, record(&found.value))),
            )
        }
        _ => match Key::parse(key) {
            Ok(Key::Account(login)) => {
                let found = directory.account(login.as_str());
                (
                    "account",
                    found.map(|found| (found.revision, record(&found.value))),
                )
            }
            Ok(Key::EndedSession(_)) => ("session", None),
            _ => ("record", None),
        },
    };
    // Of another revision the change is not made.
    let before = before.filter(|(revision, _)| Some(*revision) == expected);
    let before = before.and_then(|(_, value)| value);
    let is = after.or(before.as_ref());
    let text = |name: &str| is.and_then(|is| is.get(name)?.as_str()).map(str::to_owned);
    let tenant = match role {
        Role::Tenants => Some(key.to_owned()),
        _ => text("tenant"),
    };
    let name = match kind {
        "account" => text("login"),
        "tenant" => text("title"),
        _ => text("name"),
    };
    About {
        tenant: tenant.and_then(|tenant| TenantId::parse(&tenant).ok()),
        target: Target {
            kind: kind.to_owned(),
            id: text("id"),
            name: name.unwrap_or_else(|| key.to_owned()),
        },
        before,
        action: (kind == "session").then_some("session.end"),
    }
}

fn record<T: Serialize>(value: &T) -> Option<Value> {
    serde_json::to_value(value).ok()
}
