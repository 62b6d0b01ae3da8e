//! `/v1/tenants/{tenant}/webhooks` and what is below.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::directory::Versioned;
use ringback_core::log::Log;
use ringback_core::topics::Role;
use ringback_core::webhook::Webhook;
use serde_json::{Value, json};

use crate::authentication::Vault;
use crate::problem::Problem;
use crate::request::{Body, Precondition, etag};
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;
use crate::webhook_form::{Making, NewWebhook, WebhookChange, view};
use crate::{sealed, signing};

/// Webhooks that one tenant may have.
const WEBHOOKS_MAX: usize = 1000;
/// How long one request seals secrets again; what is left is for the next.
const RESEAL_WITHIN: Duration = Duration::from_secs(20);
/// Webhooks that are named in an answer.
const NAMED_MAX: usize = 100;

type Found = Versioned<Arc<Webhook>>;

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&tenant)?.value.id;
            let directory = admin.directory()?;
            let now = admin.clock.now();
            let webhooks: Vec<_> = directory
                .webhooks(&tenant)
                .map(|webhook| view(webhook, &directory, now))
                .collect();
            Ok(Json(json!({ "webhooks": webhooks })))
        })
        .await
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| answer(admin, &admin.webhook(&tenant, &name)?, None))
        .await
}

pub(crate) async fn add<L: Log>(
    State(state): State<AdminState<L>>,
    Path(tenant): Path<String>,
    Body(form): Body<NewWebhook>,
) -> Result<Response, Problem> {
    add_to(state, tenant, form).await
}

async fn add_to<L: Log>(
    state: AdminState<L>,
    tenant: String,
    form: NewWebhook,
) -> Result<Response, Problem> {
    let warning = state.check_name(&tenant, None, &form.url).await?;
    state
        .run(move |admin| created(admin, &add_now(admin, &tenant, form)?, warning))
        .await
}

/// Adds with `If-None-Match: *`, replaces with `If-Match`.
pub(crate) async fn put<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(mut form): Body<NewWebhook>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    if precondition == Precondition::Absent {
        if form.name.as_ref().is_some_and(|in_body| *in_body != name) {
            let detail = "the name in the body differs from the one in the URL; leave it out";
            return Err(Problem::field("name", detail));
        }
        form.name = Some(name);
        return add_to(state, tenant, form).await;
    }
    require(precondition)?;
    let warning = state.check_name(&tenant, Some(&name), &form.url).await?;
    state
        .run(move |admin| {
            let current = admin.webhook(&tenant, &name)?;
            if form.name.is_some() && form.webhook_name()? != current.value.name {
                let detail = "a webhook keeps its name; add another one instead";
                return Err(Problem::field("name", detail));
            }
            let change = form.replacing(&current.value)?;
            let changed = change_now(admin, current, precondition, &change)?;
            answer(admin, &changed, warning)
        })
        .await
}

pub(crate) async fn change<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(change): Body<WebhookChange>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    require(precondition)?;
    let warning = match &change.url {
        Some(url) => state.check_name(&tenant, Some(&name), url).await?,
        None => None,
    };
    state
        .run(move |admin| {
            let current = admin.webhook(&tenant, &name)?;
            let changed = change_now(admin, current, precondition, &change)?;
            answer(admin, &changed, warning)
        })
        .await
}

pub(crate) async fn pause<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    switch(state, tenant, name, &headers, false).await
}

pub(crate) async fn resume<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    switch(state, tenant, name, &headers, true).await
}

async fn switch<L: Log>(
    state: AdminState<L>,
    tenant: String,
    name: String,
    headers: &HeaderMap,
    enabled: bool,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(headers);
    state
        .run(move |admin| {
            let what = what(&tenant, &name);
            // Whatever else is being changed: the switch is obeyed (contract R3), unless only what was
            // read may be changed.
            let switched = admin.retrying(&what, || {
                let current = admin.webhook(&tenant, &name)?;
                precondition.check(&what, current.revision)?;
                write(admin, current, &WebhookChange::switch(enabled))
            });
            let switched =
                switched.map_err(|problem| with_current(admin, &tenant, &name, problem))?;
            answer(admin, &switched, None)
        })
        .await
}

/// Ends a disablement (contract R14) by a new generation, which begins with an empty window. What is
/// not disabled stays as it is: asking twice does no harm.
pub(crate) async fn enable<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let what = what(&tenant, &name);
            let enabled = admin.retrying(&what, || {
                let current = admin.webhook(&tenant, &name)?;
                precondition.check(&what, current.revision)?;
                if !admin.directory()?.is_disabled(&current.value) {
                    return Ok(current);
                }
                let mut next = Webhook::clone(&current.value);
                next.generation += 1;
                next.updated = admin.clock.now();
                let revision =
                    admin.put(Role::Webhooks, &next.key(), Some(current.revision), &next)?;
                tracing::info!(webhook = %next.id, generation = next.generation, "webhook enabled");
                Ok(Versioned {
                    value: next.into(),
                    revision,
                })
            });
            let enabled =
                enabled.map_err(|problem| with_current(admin, &tenant, &name, problem))?;
            answer(admin, &enabled, None)
        })
        .await
}

pub(crate) async fn remove<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let what = what(&tenant, &name);
            let current = admin.webhook(&tenant, &name)?;
            let refused = |problem| with_current(admin, &tenant, &name, problem);
            precondition
                .check(&what, current.revision)
                .map_err(refused)?;
            let removed = view(&current, &*admin.directory()?, admin.clock.now());
            admin
                .delete(Role::Webhooks, &current.value.key(), current.revision)
                .map_err(|error| refused(error.or_conflict(|| Problem::changed(&what))))?;
            tracing::info!(webhook = %current.value.id, "webhook removed");
            Ok(Json(json!({ "removed": { "webhook": removed } })))
        })
        .await
}

/// Seals with the primary key what other keys have sealed, so that these can be given up.
pub(crate) async fn reseal_all<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<Json<Value>, Problem> {
    state.run(reseal_now).await.map(Json)
}

fn reseal_now<L: Log>(admin: &Admin<L>) -> Result<Value, Problem> {
    let until = admin.clock.steady() + RESEAL_WITHIN;
    let tenants: Vec<_> = admin
        .directory()?
        .tenants()
        .iter()
        .map(|tenant| tenant.value.id.clone())
        .collect();
    let (mut resealed, mut remaining, mut failed) = (0_u64, false, Vec::new());
    for tenant in tenants {
        let webhooks: Vec<Found> = admin.directory()?.webhooks(&tenant).cloned().collect();
        for webhook in webhooks {
            if admin.clock.steady() > until {
                remaining = true;
                break;
            }
            let vault = Vault {
                keys: &admin.keys,
                webhook: webhook.value.id,
            };
            let next = match sealed::under_primary(&webhook.value, &vault, admin.clock.now()) {
                Ok(None) => continue,
                Ok(Some(next)) => next,
                Err(_) => {
                    failed.push(webhook.value.key());
                    continue;
                }
            };
            let key = webhook.value.key();
            match admin.put(Role::Webhooks, &key, Some(webhook.revision), &next) {
                Ok(_) => resealed += 1,
                // Whoever changed it sealed with the primary key, or the next round does it.
                Err(NotWritten::Conflict) => remaining = true,
                Err(NotWritten::Failed(problem)) => return Err(problem.with("resealed", resealed)),
            }
        }
    }
    let failures = failed.len();
    failed.truncate(NAMED_MAX);
    tracing::info!(
        resealed,
        failures,
        key = admin.keys.primary(),
        "secrets sealed again"
    );
    Ok(json!({
        "key": admin.keys.primary(),
        "resealed": resealed,
        "remaining": remaining,
        "failures": failures,
        "failed": failed,
    }))
}

fn add_now<L: Log>(admin: &Admin<L>, tenant: &str, form: NewWebhook) -> Result<Found, Problem> {
    let tenant = admin.tenant(tenant)?.value.id;
    let webhook = Arc::new(form.build(tenant.clone(), &making(admin))?);
    if admin.directory()?.webhooks(&tenant).count() >= WEBHOOKS_MAX {
        let detail = format!("tenant {tenant} has {WEBHOOKS_MAX} webhooks, which is the most");
        return Err(Problem::conflict("too_many_webhooks", detail));
    }
    let key = webhook.key();
    let revision = admin
        .put(Role::Webhooks, &key, None, &*webhook)
        .map_err(|error| {
            error.or_conflict(|| {
                let detail = format!(
                    "tenant {tenant} already has a webhook {}; change it, or choose another name",
                    webhook.name
                );
                Problem::conflict("webhook_exists", detail)
            })
        })?;
    // The tenant may have been removed meanwhile, after its webhooks were: nobody would see this
    // one, but it would get events.
    if let Err(gone) = admin.tenant(tenant.as_str()) {
        if !matches!(
            admin.delete(Role::Webhooks, &key, revision),
            Ok(()) | Err(NotWritten::Conflict)
        ) {
            tracing::error!(key, "a webhook was left behind by its removed tenant");
        }
        return Err(gone);
    }
    tracing::info!(webhook = %webhook.id, "webhook added");
    Ok(Versioned {
        value: webhook,
        revision,
    })
}

fn change_now<L: Log>(
    admin: &Admin<L>,
    current: Found,
    precondition: Precondition,
    change: &WebhookChange,
) -> Result<Found, Problem> {
    let (tenant, name) = (current.value.tenant.clone(), current.value.name.clone());
    let what = what(tenant.as_str(), name.as_str());
    precondition
        .check(&what, current.revision)
        .map_err(|problem| with_current(admin, tenant.as_str(), name.as_str(), problem))?;
    write(admin, current, change).map_err(|error| {
        let problem = error.or_conflict(|| Problem::changed(&what));
        with_current(admin, tenant.as_str(), name.as_str(), problem)
    })
}

/// Whoever is refused because somebody else was faster sees what there is now.
pub(crate) fn with_current<L: Log>(
    admin: &Admin<L>,
    tenant: &str,
    name: &str,
    problem: Problem,
) -> Problem {
    let current = admin.webhook(tenant, name);
    match current.and_then(|current| view_with(admin, &current, None)) {
        Ok(current) => problem.with_current(current),
        Err(_) => problem,
    }
}

/// Writes what a change makes of a webhook, unless it changes nothing.
fn write<L: Log>(
    admin: &Admin<L>,
    current: Found,
    change: &WebhookChange,
) -> Result<Found, NotWritten> {
    let next = change.apply(&current.value, &making(admin))?;
    if next == *current.value {
        return Ok(current);
    }
    let revision = admin.put(Role::Webhooks, &next.key(), Some(current.revision), &next)?;
    tracing::info!(webhook = %next.id, enabled = next.enabled, "webhook changed");
    Ok(Versioned {
        value: next.into(),
        revision,
    })
}

fn making<L: Log>(admin: &Admin<L>) -> Making<'_> {
    Making {
        keys: &admin.keys,
        now: admin.clock.now(),
        forbid_http: admin.config.forbid_http,
        reach: &admin.config.reach,
        tiers: admin.log.topics().tiers(),
    }
}

/// A change must say what it changes, so that nobody overwrites what they have not seen.
fn require(precondition: Precondition) -> Result<(), Problem> {
    match precondition {
        Precondition::Nothing => {
            let detail = "send If-Match with the ETag of the webhook as you read it (or *), or If-None-Match: * with PUT to add it";
            Err(Problem::new(
                StatusCode::PRECONDITION_REQUIRED,
                "precondition_required",
                detail,
            ))
        }
        _ => Ok(()),
    }
}

fn what(tenant: &str, name: &str) -> String {
    format!("webhook {name} of tenant {tenant}")
}

/// `warning`: what this request came upon, besides what always shows.
fn answer<L: Log>(
    admin: &Admin<L>,
    webhook: &Found,
    warning: Option<String>,
) -> Result<Response, Problem> {
    let view = view_with(admin, webhook, warning)?;
    Ok((etag(webhook.revision), Json(view)).into_response())
}

fn view_with<L: Log>(
    admin: &Admin<L>,
    webhook: &Found,
    warning: Option<String>,
) -> Result<Value, Problem> {
    let mut view = view(webhook, &*admin.directory()?, admin.clock.now());
    if let Value::Array(warnings) = &mut view["warnings"] {
        warnings.extend(warning.map(Value::String));
    }
    Ok(view)
}

fn created<L: Log>(
    admin: &Admin<L>,
    webhook: &Found,
    warning: Option<String>,
) -> Result<Response, Problem> {
    let Webhook {
        tenant,
        name,
        id,
        signing,
        ..
    } = &*webhook.value;
    let location = [(
        header::LOCATION,
        format!("/v1/tenants/{tenant}/webhooks/{name}"),
    )];
    let mut view = view_with(admin, webhook, warning)?;
    // The receiver needs it to begin with; afterwards it is shown on request only.
    let vault = Vault {
        keys: &admin.keys,
        webhook: *id,
    };
    view["signing"] = signing::shown(signing, &vault, admin.clock.now())?;
    let status = StatusCode::CREATED;
    Ok((status, location, etag(webhook.revision), Json(view)).into_response())
}
