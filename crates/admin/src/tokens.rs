//! `/v1/tokens`: who may publish events, read or write.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ringback_core::account::uses::TokenUse;
use ringback_core::account::{Scope, TOKEN_BYTES, Token};
use ringback_core::directory::Versioned;
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::{Access, no_such_tenant};
use crate::authentication::fill_random;
use crate::page::{PAGE_MAX, page};
use crate::problem::Problem;
use crate::request::{Body, Parameters};
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;
use crate::tenants::check_title;

/// Uses of removed tokens that are forgotten at a time.
const FORGET_MAX: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    name: Option<String>,
    tenant: Option<String>,
    /// Said explicitly, so that a forgotten tenant does not open all of them.
    #[serde(default)]
    all_tenants: bool,
    /// What it opens; `publish` alone when it is not said.
    #[schemars(with = "Option<Vec<String>>")]
    scopes: Option<BTreeSet<Scope>>,
}

#[derive(Deserialize, JsonSchema)]
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
            let tokens = directory
                .tokens()
                .map(|token| &token.value)
                .filter(|token| access.may_know_of(token.tenant.as_ref()))
                .filter(|token| parameters.after.is_none_or(|after| token.id > after))
                .filter(|token| match (tenant, &token.tenant) {
                    (Some(wanted), Some(own)) => wanted == own.as_str(),
                    (Some(_), None) => false,
                    (None, _) => true,
                });
            let (page, next) = page(tokens, PAGE_MAX, |token| token.id);
            let page: Vec<_> = page
                .into_iter()
                .map(|token| view(token, directory.last_use(token.id)))
                .collect();
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
                    return Err(Problem::field("tenant", detail));
                }
            };
            let scopes = read_scopes(form.scopes, tenant.is_none())?;
            let name = form.name.unwrap_or_else(|| "publisher".to_owned());
            check_title("name", &name)?;
            let mut random = [0; TOKEN_BYTES];
            fill_random(&mut random)?;
            let id = Uuid::now_v7();
            let (token, text) = Token::issue(id, name, tenant, scopes, admin.clock.now(), random);
            let key = id.to_string();
            let revision = admin
                .put(Role::Tokens, &key, None, &token)
                .map_err(|error| {
                    error.or_conflict(|| Problem::conflict("token_exists", "repeat the request"))
                })?;
            // The tenant may have been removed meanwhile, after its tokens were.
            if let Some(tenant) = &token.tenant
                && let Err(gone) = admin.tenant(tenant.as_str())
            {
                let removed = admin.delete(Role::Tokens, &key, revision);
                if !matches!(removed, Ok(()) | Err(NotWritten::Conflict)) {
                    tracing::error!(key, "a token was left behind by its removed tenant");
                }
                return Err(gone);
            }
            tracing::info!(token = key, "token added");
            let mut shown = view(&token, None);
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
                .filter(|token| access.may_know_of(token.value.tenant.as_ref()))
                .ok_or_else(missing)?;
            let key = token.value.id.to_string();
            admin
                .delete(Role::Tokens, &key, token.revision)
                .map_err(|error| error.or_conflict(missing))?;
            tracing::info!(token = key, "token removed");
            let used = admin.directory()?.last_use(token.value.id);
            Ok(Json(
                json!({ "removed": { "token": view(&token.value, used) } }),
            ))
        })
        .await
}

impl<L: Log> Admin<L> {
    /// Blocking: removes what is known of the use of tokens that were removed.
    pub(crate) fn forget_uses(&self) -> Result<(), Problem> {
        let removed: Vec<_> = {
            let directory = self.directory()?;
            let is_over = |used: &&Versioned<TokenUse>| directory.token(used.value.token).is_none();
            let removed = directory.uses().filter(is_over).take(FORGET_MAX);
            removed
                .map(|used| (used.value.token, used.revision))
                .collect()
        };
        for (token, revision) in removed {
            match self.forget(Role::Uses, &token.to_string(), revision) {
                Ok(()) | Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(problem)) => return Err(problem),
            }
        }
        Ok(())
    }
}

fn read_scopes(
    asked: Option<BTreeSet<Scope>>,
    all_tenants: bool,
) -> Result<BTreeSet<Scope>, Problem> {
    let scopes = asked.unwrap_or_else(|| [Scope::Publish].into());
    if scopes.is_empty() || scopes.contains(&Scope::Unknown) {
        let detail = "the scopes are publish, read and write; a token has at least one";
        return Err(Problem::field("scopes", detail));
    }
    if all_tenants && scopes != BTreeSet::from([Scope::Publish]) {
        let detail = "a token of all tenants can only publish; whoever reads or writes for all of them uses the operator token";
        return Err(Problem::field("scopes", detail));
    }
    Ok(scopes)
}

/// Without its hash, which is nobody's business.
fn view(token: &Token, last_used: Option<Timestamp>) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "tenant": token.tenant,
        "all_tenants": token.tenant.is_none(),
        "scopes": token.scopes,
        "created": token.created,
        "last_used": last_used,
    })
}
