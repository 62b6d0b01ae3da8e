//! `/v1/tokens`: who may publish events, read or write.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ringback_core::account::{Scope, TOKEN_BYTES, Token};
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::topics::Role;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::{Access, no_such_tenant};
use crate::authentication::fill_random;
use crate::problem::Problem;
use crate::request::{Body, Parameters};
use crate::state::AdminState;
use crate::store::NotWritten;
use crate::tenants::check_title;

/// Tokens in one answer.
const PAGE_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    name: Option<String>,
    tenant: Option<String>,
    /// Said explicitly, so that a forgotten tenant does not open all of them.
    #[serde(default)]
    all_tenants: bool,
    /// What it opens; `publish` alone when it is not said.
    scopes: Option<BTreeSet<Scope>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    tenant: Option<String>,
    after: Option<Uuid>,
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let directory = admin.directory()?;
            let tenant = parameters.tenant.as_deref();
            let mut tokens = directory
                .tokens()
                .map(|token| &token.value)
                .filter(|token| is_open_to(&access, token))
                .filter(|token| parameters.after.is_none_or(|after| token.id > after))
                .filter(|token| match (tenant, &token.tenant) {
                    (Some(wanted), Some(own)) => wanted == own.as_str(),
                    (Some(_), None) => false,
                    (None, _) => true,
                });
            let page: Vec<_> = tokens.by_ref().take(PAGE_MAX).collect();
            let more = tokens.next().is_some();
            let next = page.last().filter(|_| more).map(|token| token.id);
            let page: Vec<_> = page.into_iter().map(view).collect();
            Ok(Json(json!({ "tokens": page, "next": next })))
        })
        .await
}

pub(crate) async fn add<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Body(form): Body<NewToken>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| {
            let own = access.tenant().map(TenantId::as_str);
            if let (Some(own), Some(asked)) = (own, form.tenant.as_deref())
                && own != asked
            {
                return Err(no_such_tenant(asked));
            }
            let tenant = match (form.tenant.as_deref().or(own), form.all_tenants) {
                (Some(tenant), false) => Some(admin.tenant(tenant)?.value.id),
                (None, true) => None,
                _ => {
                    let detail =
                        "say for whom the token is: either \"tenant\", or \"all_tenants\": true";
                    return Err(Problem::invalid("invalid_field", detail));
                }
            };
            let scopes = read_scopes(form.scopes, tenant.is_none())?;
            let name = form.name.unwrap_or_else(|| "publisher".to_owned());
            check_title(&name)?;
            let mut random = [0; TOKEN_BYTES];
            fill_random(&mut random)?;
            let id = Uuid::now_v7();
            let (token, text) = Token::issue(id, name, tenant, scopes, admin.clock.now(), random);
            let key = id.to_string();
            let revision = admin
                .put(Role::Accounts, &key, None, &token)
                .map_err(|error| {
                    error.or_conflict(|| Problem::conflict("token_exists", "repeat the request"))
                })?;
            // The tenant may have been removed meanwhile, after its tokens were.
            if let Some(tenant) = &token.tenant
                && let Err(gone) = admin.tenant(tenant.as_str())
            {
                let removed = admin.delete(Role::Accounts, &key, revision);
                if !matches!(removed, Ok(()) | Err(NotWritten::Conflict)) {
                    tracing::error!(key, "a token was left behind by its removed tenant");
                }
                return Err(gone);
            }
            tracing::info!(token = key, "token added");
            let mut shown = view(&token);
            shown["token"] = text.expose().into();
            Ok((StatusCode::CREATED, Json(shown)).into_response())
        })
        .await
}

pub(crate) async fn remove<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let found = match Uuid::try_parse(&id) {
                Ok(id) => admin.directory()?.token(id).cloned(),
                Err(_) => None,
            };
            let missing = || {
                // It may be a token's text by mistake, so it is not repeated.
                Problem::not_found("no_such_token", "there is no token with this id")
            };
            let token = found
                .filter(|token| is_open_to(&access, &token.value))
                .ok_or_else(missing)?;
            let key = token.value.id.to_string();
            admin
                .delete(Role::Accounts, &key, token.revision)
                .map_err(|error| error.or_conflict(missing))?;
            tracing::info!(token = key, "token removed");
            Ok(Json(json!({ "removed": { "token": view(&token.value) } })))
        })
        .await
}

/// Whether who asks may know of this token.
fn is_open_to(access: &Access, token: &Token) -> bool {
    access
        .tenant()
        .is_none_or(|own| token.tenant.as_ref() == Some(own))
}

fn read_scopes(
    asked: Option<BTreeSet<Scope>>,
    all_tenants: bool,
) -> Result<BTreeSet<Scope>, Problem> {
    let scopes = asked.unwrap_or_else(|| [Scope::Publish].into());
    if scopes.is_empty() || scopes.contains(&Scope::Unknown) {
        let detail = "the scopes are publish, read and write; a token has at least one";
        return Err(Problem::invalid("invalid_field", detail));
    }
    if all_tenants && scopes != BTreeSet::from([Scope::Publish]) {
        let detail = "a token of all tenants can only publish; whoever reads or writes for all of them uses the operator token";
        return Err(Problem::invalid("invalid_field", detail));
    }
    Ok(scopes)
}

/// Without its hash, which is nobody's business.
fn view(token: &Token) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "tenant": token.tenant,
        "all_tenants": token.tenant.is_none(),
        "scopes": token.scopes,
        "created": token.created,
    })
}
