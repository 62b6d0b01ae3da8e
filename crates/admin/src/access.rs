//! Who asks, and what he may: an operator everything, a tenant's administrator everything of his tenant
//! that is not the operators' alone, a token what its scopes open of its tenant.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ringback_core::account::{
    Account, AccountRole, Scope, Session, SignedInAs, Token, bearer, same_secret,
};
use ringback_core::audit::{Actor, ActorKind};
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use uuid::Uuid;

use crate::asker::{self, Asker};
use crate::client;
use crate::problem::Problem;
use crate::state::AdminState;

/// Shown with every request of a session that changes something.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// What a route needs of who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing: anybody may.
    Public,
    /// To have signed in; it is about the session itself.
    Session,
    /// To be an operator; to anybody else the route is not there.
    Operator,
    /// To have this scope for the tenant of the path, or to be an operator. Without a tenant in the
    /// path, the handler shows and touches nothing but what is the asker's.
    Tenant(Scope),
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    who: Who,
    /// He has signed in.
    session: Option<Arc<Session>>,
}

/// By what somebody is known.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// The operator token.
    Operator,
    /// A tenant's token.
    Token(Arc<Token>),
    /// A person's account.
    Account(Arc<Account>),
}

/// How far something opens.
enum Opens<'a> {
    Everything,
    Of(&'a TenantId, BTreeSet<Scope>),
    Nothing,
}

impl Access {
    pub(crate) fn new(who: Who, session: Option<Arc<Session>>) -> Self {
        Self { who, session }
    }

    pub(crate) fn who(&self) -> &Who {
        &self.who
    }

    /// As the audit tells of him.
    fn actor(&self) -> Actor {
        let (kind, id, name) = match &self.who {
            Who::Operator => (ActorKind::OperatorToken, None, "operator token"),
            Who::Token(token) => (ActorKind::Token, Some(token.id), token.name.as_str()),
            Who::Account(account) => (ActorKind::Account, Some(account.id), account.login.as_str()),
        };
        Actor {
            kind,
            id,
            name: name.to_owned(),
        }
    }

    /// The session of who has signed in; `None` for a token with the request.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    fn opens(&self) -> Opens<'_> {
        match &self.who {
            Who::Operator => Opens::Everything,
            Who::Token(token) => match &token.tenant {
                Some(tenant) => Opens::Of(tenant, token.scopes.clone()),
                None => Opens::Nothing,
            },
            Who::Account(account) => match (account.role, &account.tenant) {
                (AccountRole::Operator, _) => Opens::Everything,
                (AccountRole::TenantAdministrator, Some(tenant)) => {
                    Opens::Of(tenant, [Scope::Read, Scope::Write].into())
                }
                _ => Opens::Nothing,
            },
        }
    }

    /// The scopes that it comes to, for the portal.
    pub(crate) fn scopes(&self) -> BTreeSet<Scope> {
        match self.opens() {
            Opens::Everything => [Scope::Read, Scope::Write].into(),
            Opens::Of(_, scopes) => scopes,
            Opens::Nothing => BTreeSet::new(),
        }
    }

    /// Whether anything is open at all.
    pub(crate) fn is_of_use(&self) -> bool {
        let scopes = self.scopes();
        scopes.contains(&Scope::Read) || scopes.contains(&Scope::Write)
    }

    /// The one tenant whose things are shown; `None`: all.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        match self.opens() {
            Opens::Of(tenant, _) => Some(tenant),
            // Who may nothing gets past no check.
            Opens::Everything | Opens::Nothing => None,
        }
    }

    /// Whether who asks may know of what belongs to this tenant, or to none.
    pub(crate) fn may_know_of(&self, tenant: Option<&TenantId>) -> bool {
        self.tenant().is_none_or(|own| tenant == Some(own))
    }

    /// Refuses what is another tenant's as if it did not exist.
    fn check(&self, needs: Needs, tenant: Option<&str>) -> Result<(), Problem> {
        let scope = match needs {
            Needs::Public => return Ok(()),
            Needs::Session => return self.session().map(|_| ()).ok_or_else(not_signed_in),
            Needs::Operator => None,
            Needs::Tenant(scope) => Some(scope),
        };
        let (own, scopes) = match self.opens() {
            Opens::Everything => return Ok(()),
            Opens::Of(tenant, scopes) => (tenant, scopes),
            Opens::Nothing => return Err(no_such_route()),
        };
        let Some(scope) = scope else {
            return Err(no_such_route());
        };
        if let Some(tenant) = tenant
            && own.as_str() != tenant
        {
            return Err(no_such_tenant(tenant));
        }
        // Who may write may read.
        let open =
            scopes.contains(&scope) || (scope == Scope::Read && scopes.contains(&Scope::Write));
        match open {
            true => Ok(()),
            false => Err(no_such_scope(scope)),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A request for any route that is not public has passed `authorise`.
        parts.extensions.get().cloned().ok_or_else(unauthorized)
    }
}

/// Who asks, and the session as it is renewed by that.
type Authenticated = (Access, Option<Session>);

/// Reads who asks from the `Authorization` header, or else from the session's cookie.
fn authenticate<L: Log>(
    state: &AdminState<L>,
    request: &Request,
) -> Result<Authenticated, Problem> {
    let headers = request.headers();
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let token = given.to_str().ok().and_then(bearer);
        let who = by_token(state, token.ok_or_else(unauthorized)?)?;
        return Ok((Access::new(who, None), None));
    }
    if !state.cookies().is_there(headers) {
        return Err(unauthorized());
    }
    let session = state.cookies().read(headers).ok_or_else(not_signed_in)?;
    let (access, renewed) = by_session(state, session)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        check_own_site(headers, request.uri())?;
        check_csrf(headers, &access)?;
    }
    Ok((access, renewed))
}

/// Who has this token, if it opens anything here.
pub(crate) fn by_token<L: Log>(state: &AdminState<L>, text: &str) -> Result<Who, Problem> {
    if state.is_operator(text) {
        return Ok(Who::Operator);
    }
    // One that was removed, or is not known yet, must not be judged by an old directory.
    let token = state.admin().directory()?.verify_token(text).cloned();
    match token {
        // Of every tenant are publishers and operators alone.
        Some(token) if token.tenant.is_some() => {
            state.note_use(token.id);
            Ok(Who::Token(Arc::new(token)))
        }
        _ => {
            let detail = "this is neither the operator token nor a tenant's";
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                detail,
            ))
        }
    }
}

/// Who has this session, if it is not over. Another password or a removed token ends it as well.
fn by_session<L: Log>(state: &AdminState<L>, session: Session) -> Result<Authenticated, Problem> {
    let admin = state.admin();
    let directory = admin.directory()?;
    let renewed = session.used(admin.clock.now(), admin.config.session.idle);
    let renewed = renewed.map_err(|_| not_signed_in())?;
    let who = match &session.who {
        _ if directory.has_ended(session.id) => None,
        SignedInAs::Operator { .. } => state.is_operator_session(&session).then_some(Who::Operator),
        SignedInAs::Token { id } => {
            let token = directory.token(*id).map(|token| token.value.clone());
            if let Some(token) = &token {
                state.note_use(token.id);
            }
            token.map(|token| Who::Token(Arc::new(token)))
        }
        SignedInAs::Account { login, .. } => {
            let account = directory.account(login.as_str());
            let account = account.map(|account| account.value.clone());
            let same = account.filter(|account| session.who.is_account(account));
            same.map(|account| Who::Account(Arc::new(account)))
        }
    };
    let who = who.ok_or_else(not_signed_in)?;
    Ok((Access::new(who, Some(Arc::new(session))), renewed))
}

/// Whether who was let in would be let in again, for answers that go on for long.
pub(crate) fn let_in_again<L: Log>(state: &AdminState<L>, access: &Access) -> Result<(), Problem> {
    match (&access.session, &access.who) {
        (Some(session), _) => by_session(state, Session::clone(session)).map(|_| ()),
        (None, Who::Token(token)) => match state.admin().directory()?.token(token.id) {
            Some(_) => Ok(()),
            None => Err(unauthorized()),
        },
        (None, _) => Ok(()),
    }
}

/// Refuses what a browser says was begun by another site's page. Browsers say so; where it is not by
/// TLS, only by `Origin`.
pub(crate) fn check_own_site(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text("host").or(uri.authority().map(|authority| authority.as_str()));
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some() && authority == host
        }
        (None, None) => true,
    };
    match own {
        true => Ok(()),
        false => {
            let detail = "the request was begun by a page of another site; open the portal itself";
            Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
        }
    }
}

fn check_csrf(headers: &HeaderMap, access: &Access) -> Result<(), Problem> {
    let shown = headers
        .get(CSRF_HEADER)
        .and_then(|value| value.to_str().ok());
    let session = access.session.as_ref();
    match shown
        .zip(session)
        .is_some_and(|(shown, session)| same_secret(shown, &session.csrf))
    {
        true => Ok(()),
        false => {
            let detail = format!(
                "send the header {CSRF_HEADER} with what GET /v1/session calls csrf; a page that is open since before the sign-in must be loaded again"
            );
            Err(Problem::new(StatusCode::FORBIDDEN, "csrf", detail))
        }
    }
}

/// What stands in front of a route: the state, and what the route needs.
pub(crate) struct Gate<L: Log> {
    pub(crate) state: AdminState<L>,
    pub(crate) needs: Needs,
}

impl<L: Log> Clone for Gate<L> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            needs: self.needs,
        }
    }
}

/// Around each route: whether who asks may.
pub(crate) async fn authorise<L: Log>(
    State(gate): State<Gate<L>>,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let Gate { state, needs } = gate;
    if needs == Needs::Public {
        return next.run(request).await;
    }
    let tenant = parameters.iter().find(|(name, _)| *name == "tenant");
    let authorised = authenticate(&state, &request).and_then(|(access, renewed)| {
        access.check(needs, tenant.map(|(_, tenant)| tenant))?;
        Ok((access, renewed))
    });
    let (access, renewed) = match authorised {
        Ok(authorised) => authorised,
        Err(problem) => return problem.into_response(),
    };
    let proxies = &state.admin().config.trusted_proxies;
    let asker = Asker {
        actor: access.actor(),
        request: Uuid::now_v7(),
        client: client::address(request.extensions(), request.headers(), proxies),
    };
    let id = HeaderValue::try_from(asker.request.to_string());
    request.extensions_mut().insert(access);
    let mut response = asker::working(asker, next.run(request)).await;
    let headers = response.headers_mut();
    // The audit names it.
    if let Ok(id) = id {
        headers.insert("x-request-id", id);
    }
    // What the handler says of the cookie itself is newer.
    if let Some(session) = renewed
        && !headers.contains_key(header::SET_COOKIE)
        && let Ok(cookie) = state.cookies().set(&session, state.admin().clock.now())
    {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// For what is no route: only who may ask at all is told so.
pub(crate) fn refuse<L: Log>(state: &AdminState<L>, request: &Request, why: Problem) -> Problem {
    authenticate(state, request).err().unwrap_or(why)
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
    Problem::none_called("no_such_tenant", "there is no tenant", id, "")
}

fn no_such_scope(scope: Scope) -> Problem {
    let detail = format!(
        "this token may not do that: it lacks the scope {}",
        scope.as_str()
    );
    Problem::new(StatusCode::FORBIDDEN, "no_such_scope", detail)
}

fn unauthorized() -> Problem {
    let detail = "sign in, or send the operator token or one of the tenant's as: Authorization: Bearer TOKEN";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

fn not_signed_in() -> Problem {
    let detail = "the session is over, or there is none; sign in";
    Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", detail)
}
