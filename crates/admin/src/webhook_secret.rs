//! `/v1/tenants/{tenant}/webhooks/{webhook}/secret`: what a receiver verifies signatures with, and
//! its rotation.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use ringback_core::directory::Versioned;
use ringback_core::log::Log;
use ringback_core::signature::Kind;
use ringback_core::signing::{SigningKey, ended};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::webhook::Webhook;
use serde_json::json;

use crate::authentication::Vault;
use crate::problem::Problem;
use crate::request::{Body, Precondition, etag};
use crate::signing::{RotationForm, shown};
use crate::state::{Admin, AdminState};
use crate::webhooks::with_current;

type Found = Versioned<Arc<Webhook>>;

/// Shows the secrets, to whoever may change the webhook. Every look is in the audit.
pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?;
            admin.tell_of_webhook(
                "webhook.show_secret",
                &webhook.value,
                serde_json::Value::Null,
            )?;
            tracing::info!(webhook = %webhook.value.id, "signing secret shown");
            answer(admin, &webhook)
        })
        .await
}

/// A new key; those of its kind sign for some more time.
pub(crate) async fn rotate<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(form): Body<RotationForm>,
) -> Result<Response, Problem> {
    let rotation = form.read()?;
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let rotated = change(admin, &tenant, &name, precondition, |webhook, now| {
                rotation.apply(&webhook.signing, &vault(admin, webhook), now)
            })?;
            tracing::info!(
                webhook = %rotated.value.id,
                kind = rotation.kind().name(),
                grace = ?rotation.grace,
                "signing key rotated"
            );
            answer(admin, &rotated)
        })
        .await
}

/// Signs with Ed25519 no more; HMAC always signs.
pub(crate) async fn remove_ed25519<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let changed = change(admin, &tenant, &name, precondition, |webhook, now| {
                Ok(ended(&webhook.signing, Kind::Ed25519, Duration::ZERO, now))
            })?;
            tracing::info!(webhook = %changed.value.id, "signs with Ed25519 no more");
            answer(admin, &changed)
        })
        .await
}

/// Writes other keys, again when somebody else was faster, unless only the revision that was read
/// may be changed.
fn change<L: Log>(
    admin: &Admin<L>,
    tenant: &str,
    name: &str,
    precondition: Precondition,
    keys: impl Fn(&Webhook, Timestamp) -> Result<Vec<SigningKey>, Problem>,
) -> Result<Found, Problem> {
    let what = format!("webhook {name} of tenant {tenant}");
    let changed = admin.retrying(&what, || {
        let current = admin.webhook(tenant, name)?;
        precondition.check(&what, current.revision)?;
        let now = admin.clock.now();
        let signing = keys(&current.value, now)?;
        if signing == current.value.signing {
            return Ok(current);
        }
        let next = Webhook {
            signing,
            updated: now,
            ..Webhook::clone(&current.value)
        };
        let revision = admin.put(Role::Webhooks, &next.key(), Some(current.revision), &next)?;
        Ok(Versioned {
            value: next.into(),
            revision,
        })
    });
    changed.map_err(|problem| with_current(admin, tenant, name, problem))
}

fn vault<'a, L: Log>(admin: &'a Admin<L>, webhook: &Webhook) -> Vault<'a> {
    Vault {
        keys: &admin.keys,
        webhook: webhook.id,
    }
}

fn answer<L: Log>(admin: &Admin<L>, webhook: &Found) -> Result<Response, Problem> {
    let Versioned { value, revision } = webhook;
    let keys = shown(&value.signing, &vault(admin, value), admin.clock.now())?;
    let body = json!({
        "tenant": value.tenant, "name": value.name, "id": value.id, "signing": keys,
    });
    Ok((etag(*revision), Json(body)).into_response())
}
