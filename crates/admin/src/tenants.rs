//! `/v1/tenants`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::account::{Account, Key, Login};
use ringback_core::directory::Versioned;
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::topics::Role;
use ringback_core::webhook::{CONFIG_VERSION, Tenant};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::Access;
use crate::page::{PAGE_MAX, page};
use crate::problem::Problem;
use crate::request::{Body, Parameters, Precondition, etag};
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;

/// Longest title, in characters.
const TITLE_MAX: usize = 200;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    id: Option<String>,
    title: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    after: Option<String>,
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    let limit = parameters.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let after = parameters.after.unwrap_or_default();
    state
        .run(move |admin| {
            let directory = admin.directory()?;
            let tenants = match access.tenant() {
                Some(own) => directory.tenant(own).into_iter().collect(),
                None => directory.tenants(),
            };
            let begin =
                tenants.partition_point(|tenant| tenant.value.id.as_str() <= after.as_str());
            let (page, next) = page(&tenants[begin..], limit, |tenant| tenant.value.id.clone());
            let page: Vec<_> = page
                .iter()
                .map(|tenant| view(tenant, directory.webhooks(&tenant.value.id).count()))
                .collect();
            Ok(Json(json!({ "tenants": page, "next": next })))
        })
        .await
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&id)?;
            let webhooks = admin.directory()?.webhooks(&tenant.value.id).count();
            Ok(answer(StatusCode::OK, &tenant, webhooks))
        })
        .await
}

pub(crate) async fn add<L: Log>(
    State(state): State<AdminState<L>>,
    Body(form): Body<NewTenant>,
) -> Result<Response, Problem> {
    let Some(id) = form.id else {
        return Err(Problem::field("id", "a tenant needs an id"));
    };
    add_new(state, id, form.title).await
}

pub(crate) async fn put<L: Log>(
    State(state): State<AdminState<L>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(form): Body<NewTenant>,
) -> Result<Response, Problem> {
    if Precondition::of(&headers) != Precondition::Absent {
        let detail = "PUT only adds a tenant: send If-None-Match: *";
        let status = StatusCode::PRECONDITION_REQUIRED;
        return Err(Problem::new(status, "precondition_required", detail));
    }
    if form.id.as_ref().is_some_and(|in_body| *in_body != id) {
        let detail = "the id in the body differs from the one in the URL; leave it out";
        return Err(Problem::field("id", detail));
    }
    add_new(state, id, form.title).await
}

async fn add_new<L: Log>(
    state: AdminState<L>,
    id: String,
    title: Option<String>,
) -> Result<Response, Problem> {
    let id = TenantId::parse(&id).map_err(|error| Problem::field("id", error.to_string()))?;
    let title = title.unwrap_or_else(|| id.to_string());
    check_title("title", &title)?;
    state
        .run(move |admin| {
            // Asked first, so that a stale directory refuses instead of adding.
            drop(admin.directory()?);
            let created = admin.clock.now();
            let tenant = Tenant {
                version: CONFIG_VERSION,
                id,
                title,
                notify: Vec::new(),
                created,
                unknown: serde_json::Map::new(),
            };
            let key = tenant.id.as_str();
            let revision = admin
                .put(Role::Tenants, key, None, &tenant)
                .map_err(|error| {
                    error.or_conflict(|| {
                        Problem::conflict(
                            "tenant_exists",
                            format!("there already is a tenant {key}"),
                        )
                    })
                })?;
            tracing::info!(tenant = key, "tenant added");
            Ok(answer(
                StatusCode::CREATED,
                &Versioned {
                    value: tenant,
                    revision,
                },
                0,
            ))
        })
        .await
}

pub(crate) async fn remove<L: Log>(
    State(state): State<AdminState<L>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let tenant = admin.tenant(&id)?;
            let id = &tenant.value.id;
            let what = format!("tenant {id}");
            precondition.check(&what, tenant.revision).map_err(|problem| {
                let webhooks = admin.directory().map(|directory| directory.webhooks(id).count());
                problem.with_current(view(&tenant, webhooks.unwrap_or_default()))
            })?;
            let mut removed = Removed::default();
            removed.sweep(admin, id)?;
            admin
                .delete(Role::Tenants, id.as_str(), tenant.revision)
                .map_err(|error| error.or_conflict(|| Problem::changed(&what)))?;
            // What was added while we were removing.
            removed.sweep(admin, id)?;
            let Removed { webhooks, tokens, accounts } = removed;
            tracing::info!(
                tenant = %id,
                webhooks = webhooks.len(),
                tokens = tokens.len(),
                accounts = accounts.len(),
                "tenant removed"
            );
            let removed =
                json!({ "tenant": id, "webhooks": webhooks, "tokens": tokens, "accounts": accounts });
            Ok(Json(json!({ "removed": removed })))
        })
        .await
}

/// What went with a tenant.
#[derive(Default)]
struct Removed {
    webhooks: Vec<String>,
    tokens: Vec<Value>,
    accounts: Vec<Login>,
}

impl Removed {
    /// Removes the webhooks of a tenant, then the tokens and accounts that belong to it.
    fn sweep<L: Log>(&mut self, admin: &Admin<L>, tenant: &TenantId) -> Result<(), Problem> {
        let what = format!("a webhook, token or account of tenant {tenant}");
        loop {
            let removed = admin.retrying(&what, || {
                let found = admin.directory()?.webhooks(tenant).next().cloned();
                let Some(webhook) = found else {
                    return Ok(None);
                };
                admin.delete(Role::Webhooks, &webhook.value.key(), webhook.revision)?;
                Ok::<_, NotWritten>(Some(webhook.value.name.to_string()))
            })?;
            match removed {
                Some(name) => self.webhooks.push(name),
                None => break,
            }
        }
        let tokens: Vec<_> = admin
            .directory()?
            .tokens()
            .filter(|token| token.value.tenant.as_ref() == Some(tenant))
            .cloned()
            .collect();
        for token in tokens {
            match admin.delete(Role::Tokens, &token.value.id.to_string(), token.revision) {
                Ok(()) => {
                    self.tokens
                        .push(json!({ "id": token.value.id, "name": token.value.name }));
                }
                // Tokens never change: somebody else has removed it.
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(problem)) => return Err(problem),
            }
        }
        loop {
            let removed = admin.retrying(&what, || {
                let directory = admin.directory()?;
                let of =
                    |account: &&Versioned<Account>| account.value.tenant.as_ref() == Some(tenant);
                let Some(account) = directory.accounts().find(of).cloned() else {
                    return Ok(None);
                };
                drop(directory);
                let login = account.value.login;
                admin.delete(Role::Accounts, &Key::of_account(&login), account.revision)?;
                Ok::<_, NotWritten>(Some(login))
            })?;
            match removed {
                Some(login) => self.accounts.push(login),
                None => return Ok(()),
            }
        }
    }
}

/// Refuses what would spoil a line of output.
pub(crate) fn check_title(field: &str, text: &str) -> Result<(), Problem> {
    let legal = !text.trim().is_empty() && !text.chars().any(char::is_control);
    match legal && text.chars().count() <= TITLE_MAX {
        true => Ok(()),
        false => {
            let detail = format!("use 1 to {TITLE_MAX} characters, no control characters");
            Err(Problem::field(field, detail))
        }
    }
}

pub(crate) fn view(tenant: &Versioned<Tenant>, webhooks: usize) -> Value {
    json!({
        "id": tenant.value.id,
        "title": tenant.value.title,
        "notify": tenant.value.notify,
        "created": tenant.value.created,
        "webhooks": webhooks,
        "revision": tenant.revision.0,
    })
}

pub(crate) fn answer(status: StatusCode, tenant: &Versioned<Tenant>, webhooks: usize) -> Response {
    let location = [(header::LOCATION, format!("/v1/tenants/{}", tenant.value.id))];
    (
        status,
        etag(tenant.revision),
        location,
        Json(view(tenant, webhooks)),
    )
        .into_response()
}
