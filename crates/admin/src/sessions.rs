//! `/v1/session`: signing in and out, and one's own password.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_core::account::{Account, EndedSession, Key, Session, SignedInAs, Token, password};
use ringback_core::directory::Versioned;
use ringback_core::log::Log;
use ringback_core::secret::Secret;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_telemetry::Counter;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::{Access, Who, by_token, check_own_site};
use crate::authentication::fill_random;
use crate::client;
use crate::problem::Problem;
use crate::request::Body;
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;

/// Bytes of randomness of what a page shows with its requests.
const CSRF_BYTES: usize = 32;
/// Records of ended sessions that are of no use any more, removed with each that is written.
const SWEPT_MAX: usize = 20;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    login: Option<String>,
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
    #[schemars(with = "Option<String>")]
    token: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    #[schemars(with = "String")]
    current: Secret,
    #[schemars(with = "String")]
    new: Secret,
}

/// `POST /v1/session`.
pub(crate) async fn sign_in<L: Log>(
    State(state): State<AdminState<L>>,
    request: Request,
) -> Result<Response, Problem> {
    // Signing somebody in as another is an attack, too.
    check_own_site(request.headers(), request.uri())?;
    let proxies = &state.admin().config.trusted_proxies;
    let address = client::address(request.extensions(), request.headers(), proxies);
    let Body(form) = Body::from_request(request, &state).await?;
    let signed_in = match form {
        SignIn {
            login: Some(login),
            password: Some(password),
            token: None,
        } => by_password(&state, &login, password, address).await,
        SignIn {
            login: None,
            password: None,
            token: Some(token),
        } => by_shown_token(&state, &token, address),
        _ => {
            let detail = "send either \"login\" and \"password\", or \"token\"";
            return Err(Problem::field("login", detail));
        }
    };
    let result = if signed_in.is_ok() { "ok" } else { "refused" };
    state.metrics().inc(Counter::SignIns, &[result]);
    let (who, signed_in_as) = signed_in?;
    let session = begin(&state, signed_in_as)?;
    let access = Access::new(who, Some(Arc::new(session)));
    if !access.is_of_use() {
        let detail = "this opens nothing here: a token needs the scope read or write";
        return Err(Problem::new(StatusCode::FORBIDDEN, "no_such_scope", detail));
    }
    answer(&state, StatusCode::CREATED, &access)
}

async fn by_password<L: Log>(
    state: &AdminState<L>,
    login: &str,
    password: Secret,
    address: Option<IpAddr>,
) -> Result<(Who, SignedInAs), Problem> {
    let account = state.admin().directory()?.account(login).cloned();
    // Logins alone: an account's id is no secret, but nobody signs in as that.
    let account =
        account.filter(|account| account.value.login.as_str().eq_ignore_ascii_case(login));
    let account = account.map(|account| account.value);
    let expected = account.as_ref().map(|account| account.password.clone());
    let expected_of = account.as_ref().map(|account| account.login.clone());
    if !check(state, login, password, expected, address).await? {
        // What was typed as a login may be a password.
        let login = expected_of
            .as_ref()
            .map_or("unknown", |login| login.as_str());
        tracing::warn!(login, address = ?address, "signing in was refused");
        let detail = "the login or the password is wrong";
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "sign_in_refused",
            detail,
        ));
    }
    let account = account.ok_or_else(|| Problem::unavailable("busy", "try again"))?;
    tracing::info!(login = %account.login, address = ?address, "signed in");
    let signed_in = SignedInAs::account(&account);
    Ok((Who::Account(Arc::new(account)), signed_in))
}

/// Whether it is the password, as often as that may be asked.
async fn check<L: Log>(
    state: &AdminState<L>,
    login: &str,
    password: Secret,
    expected: Option<String>,
    address: Option<IpAddr>,
) -> Result<bool, Problem> {
    let admin = state.admin();
    let limits = &admin.sign_in_limits;
    limits.take(Some(login), address, admin.clock.steady())?;
    // Nothing that long was ever accepted, and it is not worth hashing.
    if password.expose().len() > password::BYTES_MAX {
        return Ok(false);
    }
    let right = admin.passwords.verify(password, expected).await?;
    if right {
        limits.give_back(Some(login), address);
    }
    Ok(right)
}

fn by_shown_token<L: Log>(
    state: &AdminState<L>,
    token: &Secret,
    address: Option<IpAddr>,
) -> Result<(Who, SignedInAs), Problem> {
    let admin = state.admin();
    let limits = &admin.sign_in_limits;
    limits.take(None, address, admin.clock.steady())?;
    let text = token.expose().trim();
    let who = by_token(state, text)?;
    limits.give_back(None, address);
    let signed_in = match &who {
        Who::Token(token) => SignedInAs::token(token),
        _ => SignedInAs::operator(text),
    };
    Ok((who, signed_in))
}

fn begin<L: Log>(state: &AdminState<L>, who: SignedInAs) -> Result<Session, Problem> {
    let mut csrf = [0; CSRF_BYTES];
    fill_random(&mut csrf)?;
    let now = state.admin().clock.now();
    Ok(Session {
        id: Uuid::new_v4(),
        who,
        csrf: URL_SAFE_NO_PAD.encode(csrf),
        ends: now + state.admin().config.session.absolute,
        seen: now,
    })
}

/// `GET /v1/session`.
pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
) -> Result<Json<Value>, Problem> {
    Ok(Json(view(&state, &access)))
}

/// `DELETE /v1/session`.
pub(crate) async fn sign_out<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
) -> Result<Response, Problem> {
    let session = access.session().cloned();
    state
        .run(move |admin| match session {
            Some(session) => end(admin, &session),
            None => Ok(()),
        })
        .await?;
    let gone = [(header::SET_COOKIE, state.cookies().remove()?)];
    Ok((StatusCode::NO_CONTENT, gone).into_response())
}

/// Blocking: ends a session everywhere, and forgets those that are over anyway.
fn end<L: Log>(admin: &Admin<L>, session: &Session) -> Result<(), Problem> {
    let ended = EndedSession {
        version: 1,
        id: session.id,
        until: session.ends,
    };
    let key = Key::of_ended_session(session.id);
    match admin.put(Role::Accounts, &key, None, &ended) {
        // Ended twice.
        Ok(_) | Err(NotWritten::Conflict) => {}
        Err(NotWritten::Failed(problem)) => return Err(problem),
    }
    let now = admin.clock.now();
    let over: Vec<_> = admin
        .directory()?
        .ended_sessions()
        .filter(|ended| ended.value.until <= now)
        .take(SWEPT_MAX)
        .cloned()
        .collect();
    for Versioned { value, revision } in over {
        let key = Key::of_ended_session(value.id);
        match admin.forget(Role::Accounts, &key, revision) {
            Ok(()) | Err(NotWritten::Conflict) => {}
            Err(NotWritten::Failed(_)) => {
                tracing::warn!(key, "a session that is over anyway is forgotten later");
            }
        }
    }
    Ok(())
}

/// `PUT /v1/session/password`: other sessions of the account are over.
pub(crate) async fn change_password<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let proxies = &state.admin().config.trusted_proxies;
    let address = client::address(request.extensions(), &headers, proxies);
    let Body(NewPassword { current, new }) = Body::from_request(request, &state).await?;
    let (Who::Account(account), Some(session)) = (access.who(), access.session()) else {
        let detail = "a token has no password; sign in with a login, or add an account";
        return Err(Problem::conflict("no_password", detail));
    };
    let login = account.login.as_str();
    let expected = Some(account.password.clone());
    if !check(&state, login, current, expected, address).await? {
        let detail = "the current password is wrong";
        return Err(
            Problem::new(StatusCode::FORBIDDEN, "wrong_password", detail).with("field", "current"),
        );
    }
    let hash = new_hash(&state, &new, account)
        .await
        .map_err(|problem| problem.with("field", "new"))?;
    let before = account.clone();
    let changed = state
        .run(move |admin| {
            let what = "the account";
            admin.retrying(what, || {
                let found = admin.directory()?.account(before.login.as_str()).cloned();
                let Some(found) = found.filter(|found| found.value.id == before.id) else {
                    return Err(Problem::changed(what).into());
                };
                let changed = with_password(&found.value, hash.clone(), admin.clock.now());
                let key = Key::of_account(&changed.login);
                admin.put(Role::Accounts, &key, Some(found.revision), &changed)?;
                Ok(changed)
            })
        })
        .await?;
    tracing::info!(login = %changed.login, "password changed");
    // This session goes on.
    let session = Session {
        who: SignedInAs::account(&changed),
        ..Session::clone(session)
    };
    let access = Access::new(Who::Account(Arc::new(changed)), Some(Arc::new(session)));
    answer(&state, StatusCode::OK, &access)
}

/// The hash of a password that is good enough for this account.
pub(crate) async fn new_hash<L: Log>(
    state: &AdminState<L>,
    new: &Secret,
    account: &Account,
) -> Result<String, Problem> {
    password::check(new.expose(), &account.login)
        .map_err(|weak| Problem::invalid("weak_password", weak.to_string()))?;
    state.admin().passwords.hash(new.clone()).await
}

/// The account with another password, which ends the sessions of the one before.
pub(crate) fn with_password(account: &Account, hash: String, now: Timestamp) -> Account {
    Account {
        password: hash,
        generation: account.generation + 1,
        updated: now,
        ..account.clone()
    }
}

/// The session, and its cookie.
fn answer<L: Log>(
    state: &AdminState<L>,
    status: StatusCode,
    access: &Access,
) -> Result<Response, Problem> {
    let mut response = (status, Json(view(state, access))).into_response();
    if let Some(session) = access.session() {
        let cookie = state.cookies().set(session, state.admin().clock.now())?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn view<L: Log>(state: &AdminState<L>, access: &Access) -> Value {
    let idle = state.admin().config.session.idle;
    let session = access.session();
    json!({
        "account": match access.who() {
            Who::Operator => json!({
                "id": null, "login": null, "name": "operator token", "role": "operator", "tenant": null,
            }),
            Who::Token(token) => token_view(token),
            Who::Account(account) => json!({
                "id": account.id, "login": account.login, "name": account.name,
                "role": account.role, "tenant": account.tenant,
            }),
        },
        "scopes": access.scopes(),
        "csrf": session.map(|session| session.csrf.as_str()),
        "expires": session.map(|session| session.expires(idle)),
    })
}

/// A token that somebody signed in with stands for its tenant's administrator, as far as its scopes go.
fn token_view(token: &Token) -> Value {
    json!({
        "id": token.id, "login": null, "name": token.name, "role": "tenant_administrator",
        "tenant": token.tenant,
    })
}
