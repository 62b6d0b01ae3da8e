//! Who asks, and what he may: the operator everything, a token what its scopes open of its tenant.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ringback_core::account::{Scope, Token};
use ringback_core::event::TenantId;
use ringback_core::log::Log;

use crate::problem::Problem;
use crate::state::AdminState;

/// What a route needs of who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// To be an operator; to anybody else the route is not there.
    Operator,
    /// To be the tenant of the path, or an operator. Without a tenant in the path, the handler shows
    /// and touches nothing but what is the asker's.
    Tenant(Right),
}

/// Looking, or changing too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Changes nothing and shows no secret.
    Read,
    /// Everything else.
    Write,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    Operator,
    Token(Arc<Token>),
}

impl Access {
    /// The one tenant whose things are shown; `None`: all.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Operator => None,
            Self::Token(token) => token.tenant.as_ref(),
        }
    }

    /// Refuses what is another tenant's as if it did not exist.
    fn check(&self, needs: Needs, tenant: Option<&str>) -> Result<(), Problem> {
        let Self::Token(token) = self else {
            return Ok(());
        };
        let right = match needs {
            Needs::Operator => return Err(no_such_route()),
            Needs::Tenant(right) => right,
        };
        if let Some(tenant) = tenant
            && token
                .tenant
                .as_ref()
                .is_none_or(|own| own.as_str() != tenant)
        {
            return Err(no_such_tenant(tenant));
        }
        let (scope, name) = match right {
            Right::Read => (Scope::Read, "read"),
            Right::Write => (Scope::Write, "write"),
        };
        match token.allows(scope) {
            true => Ok(()),
            false => {
                let detail = format!("this token may not do that: it lacks the scope {name}");
                Err(Problem::new(StatusCode::FORBIDDEN, "no_such_scope", detail))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every request has passed `authenticate`.
        parts.extensions.get().cloned().ok_or_else(unauthorized)
    }
}

/// Reads who asks from the `Authorization` header.
pub(crate) fn authenticate<L: Log>(
    state: &AdminState<L>,
    request: &Request,
) -> Result<Access, Problem> {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, text)) = given else {
        return Err(unauthorized());
    };
    let text = text.trim();
    if state.is_operator(text) {
        return Ok(Access::Operator);
    }
    // One that was removed, or is not known yet, must not be judged by an old directory.
    let token = state.admin().directory()?.verify_token(text).cloned();
    match token {
        // Of every tenant are publishers and operators alone.
        Some(token) if token.tenant.is_some() => Ok(Access::Token(Arc::new(token))),
        _ => {
            let detail = "this is neither the operator token nor a tenant's";
            let status = StatusCode::UNAUTHORIZED;
            Err(Problem::new(status, "unauthorized", detail))
        }
    }
}

/// Around each route: whether who asks may.
pub(crate) async fn authorise(
    State(needs): State<Needs>,
    access: Access,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let tenant = parameters.iter().find(|(name, _)| *name == "tenant");
    match access.check(needs, tenant.map(|(_, tenant)| tenant)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Nothing is there, or nothing that who asks may know of.
pub(crate) fn no_such_route() -> Problem {
    Problem::not_found(
        "no_such_route",
        "there is nothing here; the API is described in docs/admin.md",
    )
}

/// The same of a tenant.
pub(crate) fn no_such_tenant(id: &str) -> Problem {
    let id: String = id.chars().take(64).collect();
    Problem::not_found("no_such_tenant", format!("there is no tenant {id:?}"))
}

fn unauthorized() -> Problem {
    let detail = "send the operator token, or one of the tenant's, as: Authorization: Bearer TOKEN";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}
