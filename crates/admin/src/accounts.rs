//! `/v1/accounts`: people who sign in.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::account::{Account, AccountRole, Key, Login};
use ringback_core::directory::Versioned;
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::secret::Secret;
use ringback_core::topics::Role;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::{Access, Who, no_such_tenant};
use crate::page::{PAGE_MAX, page};
use crate::passwords;
use crate::problem::Problem;
use crate::request::{Body, Parameters, Precondition, etag};
use crate::sessions::{new_hash, with_password};
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;
use crate::tenants::check_title;

const VERSION: u32 = 1;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccount {
    login: String,
    name: Option<String>,
    #[schemars(with = "Option<String>")]
    role: Option<AccountRole>,
    tenant: Option<String>,
    /// One is made, and shown once, when it is not given.
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    name: Option<String>,
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
    /// A new one is made, and shown once.
    #[serde(default)]
    new_password: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    tenant: Option<String>,
    after: Option<String>,
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let directory = admin.directory()?;
            let after = parameters.after.as_deref();
            let tenant = parameters.tenant.as_deref();
            let accounts = directory
                .accounts()
                .filter(|account| access.may_know_of(account.value.tenant.as_ref()))
                .filter(|account| after.is_none_or(|after| account.value.login.as_str() > after))
                .filter(|account| {
                    let of = account.value.tenant.as_ref().map(TenantId::as_str);
                    tenant.is_none() || tenant == of
                });
            let (page, next) = page(accounts, PAGE_MAX, |account| account.value.login.clone());
            let page: Vec<_> = page.into_iter().map(view).collect();
            Ok(Json(json!({ "accounts": page, "next": next })))
        })
        .await
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| Ok(answer(StatusCode::OK, &find(admin, &access, &name)?, None)))
        .await
}

pub(crate) async fn add<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Body(form): Body<NewAccount>,
) -> Result<Response, Problem> {
    let login =
        Login::parse(&form.login).map_err(|error| Problem::field("login", error.to_string()))?;
    let own = access.tenant().map(TenantId::as_str);
    let (role, tenant) = standing(own, form.role, form.tenant.as_deref())?;
    let name = form.name.unwrap_or_else(|| login.to_string());
    check_title("name", &name)?;
    if let Some(tenant) = &tenant {
        state.admin().tenant(tenant)?;
    }
    let now = state.admin().clock.now();
    let mut account = Account {
        version: VERSION,
        id: Uuid::now_v7(),
        login,
        name,
        role,
        tenant: tenant.map(|tenant| TenantId::parse(&tenant)).transpose()?,
        password: String::new(),
        generation: 0,
        created: now,
        updated: now,
    };
    let (password, made) = given_or_made(form.password)?;
    account.password = hashed(&state, &password, &account).await?;
    state
        .run(move |admin| {
            let key = Key::of_account(&account.login);
            let revision = admin
                .put(Role::Accounts, &key, None, &account)
                .map_err(|error| {
                    error.or_conflict(|| {
                        let detail = format!("there already is an account {}", account.login);
                        Problem::conflict("account_exists", detail).with("field", "login")
                    })
                })?;
            // The tenant may have been removed meanwhile, after its accounts were.
            if let Some(tenant) = &account.tenant
                && let Err(gone) = admin.tenant(tenant.as_str())
            {
                let removed = admin.delete(Role::Accounts, &key, revision);
                if !matches!(removed, Ok(()) | Err(NotWritten::Conflict)) {
                    tracing::error!(key, "an account was left behind by its removed tenant");
                }
                return Err(gone);
            }
            tracing::info!(login = %account.login, "account added");
            let added = Versioned {
                value: account,
                revision,
            };
            Ok(answer(StatusCode::CREATED, &added, made.as_ref()))
        })
        .await
}

pub(crate) async fn change<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(changes): Body<Changes>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let found = find(state.admin(), &access, &name)?;
    let what = format!("account {}", found.value.login);
    precondition.check(&what, found.revision)?;
    if let Some(name) = &changes.name {
        check_title("name", name)?;
    }
    let (hash, made) = match (changes.password, changes.new_password) {
        (None, false) => (None, None),
        (Some(_), true) => {
            let detail = "give a password, or ask for a new one, not both";
            return Err(Problem::field("password", detail));
        }
        (given, _) => {
            let (password, made) = given_or_made(given)?;
            (Some(hashed(&state, &password, &found.value).await?), made)
        }
    };
    state
        .run(move |admin| {
            let now = admin.clock.now();
            let mut account = found.value;
            if let Some(hash) = hash {
                account = with_password(&account, hash, now);
            }
            if let Some(name) = changes.name {
                account = Account {
                    name,
                    updated: now,
                    ..account
                };
            }
            let key = Key::of_account(&account.login);
            let revision = admin
                .put(Role::Accounts, &key, Some(found.revision), &account)
                .map_err(|error| error.or_conflict(|| Problem::changed(&what)))?;
            tracing::info!(login = %account.login, "account changed");
            let changed = Versioned {
                value: account,
                revision,
            };
            Ok(answer(StatusCode::OK, &changed, made.as_ref()))
        })
        .await
}

pub(crate) async fn remove<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let precondition = Precondition::of(&headers);
    state
        .run(move |admin| {
            let found = find(admin, &access, &name)?;
            let account = &found.value;
            let what = format!("account {}", account.login);
            precondition.check(&what, found.revision)?;
            if matches!(access.who(), Who::Account(own) if own.id == account.id) {
                let detail = "this is your own account; let somebody else remove it, so that nobody locks himself out";
                return Err(Problem::conflict("own_account", detail));
            }
            admin
                .delete(Role::Accounts, &Key::of_account(&account.login), found.revision)
                .map_err(|error| error.or_conflict(|| Problem::changed(&what)))?;
            tracing::info!(login = %account.login, "account removed");
            Ok(Json(json!({ "removed": { "account": view(&found) } })))
        })
        .await
}

/// What an account is for, and whose it is: those of a tenant add accounts of that tenant.
fn standing(
    own: Option<&str>,
    role: Option<AccountRole>,
    tenant: Option<&str>,
) -> Result<(AccountRole, Option<String>), Problem> {
    if let (Some(own), Some(asked)) = (own, tenant)
        && own != asked
    {
        return Err(no_such_tenant(asked).with("field", "tenant"));
    }
    let tenant = tenant.or(own).map(str::to_owned);
    match (role, tenant) {
        (Some(AccountRole::Operator), _) if own.is_some() => {
            let detail = "only an operator adds operators";
            Err(Problem::new(StatusCode::FORBIDDEN, "operators_only", detail).with("field", "role"))
        }
        (Some(AccountRole::Operator), None) => Ok((AccountRole::Operator, None)),
        (None | Some(AccountRole::TenantAdministrator), Some(tenant)) => {
            Ok((AccountRole::TenantAdministrator, Some(tenant)))
        }
        (Some(AccountRole::Operator), Some(_)) => Err(Problem::field(
            "tenant",
            "an operator is of no tenant; leave it out",
        )),
        (Some(AccountRole::Unknown), _) => Err(Problem::field(
            "role",
            "use operator or tenant_administrator",
        )),
        (_, None) => Err(Problem::field(
            "tenant",
            "say which tenant the account administers, or \"role\": \"operator\"",
        )),
    }
}

/// A password, and itself once more when it was made here and must be shown.
fn given_or_made(given: Option<Secret>) -> Result<(Secret, Option<Secret>), Problem> {
    match given {
        Some(given) => Ok((given, None)),
        None => {
            let made = passwords::make()?;
            Ok((made.clone(), Some(made)))
        }
    }
}

async fn hashed<L: Log>(
    state: &AdminState<L>,
    password: &Secret,
    account: &Account,
) -> Result<String, Problem> {
    let hash = new_hash(state, password, account).await;
    hash.map_err(|problem| problem.with("field", "password"))
}

/// An account that must exist for who asks, by its login or id.
fn find<L: Log>(
    admin: &Admin<L>,
    access: &Access,
    name: &str,
) -> Result<Versioned<Account>, Problem> {
    let found = admin.directory()?.account(name).cloned();
    found
        .filter(|account| access.may_know_of(account.value.tenant.as_ref()))
        .ok_or_else(|| {
            // It is not repeated: what is taken for a login may be a password.
            Problem::not_found(
                "no_such_account",
                "there is no account with this login or id",
            )
        })
}

/// Without the hash of the password, which is nobody's business.
pub(crate) fn view(account: &Versioned<Account>) -> Value {
    let Versioned { value, revision } = account;
    json!({
        "id": value.id,
        "login": value.login,
        "name": value.name,
        "role": value.role,
        "tenant": value.tenant,
        "created": value.created,
        "updated": value.updated,
        "revision": revision.0,
    })
}

fn answer(status: StatusCode, account: &Versioned<Account>, made: Option<&Secret>) -> Response {
    let mut body = view(account);
    if let Some(made) = made {
        body["password"] = made.expose().into();
    }
    let location = [(
        header::LOCATION,
        format!("/v1/accounts/{}", account.value.login),
    )];
    (status, etag(account.revision), location, Json(body)).into_response()
}
