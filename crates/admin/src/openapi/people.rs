//! The shapes of answers about those who ask: sessions, accounts, and what they did.
#![allow(dead_code, reason = "only their shapes are used")]

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::schema::Moment;

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AccountRole {
    Operator,
    TenantAdministrator,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Publish,
    Read,
    Write,
}

/// Who has signed in, until when, and what he may.
#[derive(Serialize, JsonSchema)]
pub(super) struct Session {
    account: SignedIn,
    scopes: Vec<Scope>,
    /// Send it as `x-csrf-token` with whatever changes something.
    csrf: String,
    #[schemars(with = "Moment")]
    expires: (),
}

#[derive(Serialize, JsonSchema)]
struct SignedIn {
    /// Null: the operator token.
    id: Option<Uuid>,
    /// Null: a token.
    login: Option<String>,
    name: String,
    role: AccountRole,
    tenant: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Accounts {
    accounts: Vec<Account>,
    /// Send it as `after` for what comes next; null at the end.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Account {
    id: Uuid,
    login: String,
    name: String,
    role: AccountRole,
    tenant: Option<String>,
    #[schemars(with = "Moment")]
    created: (),
    #[schemars(with = "Moment")]
    updated: (),
    revision: i64,
    /// One that was made here, in this answer only.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedAccount {
    removed: RemovedAlone,
}

#[derive(Serialize, JsonSchema)]
struct RemovedAlone {
    account: Account,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Audit {
    entries: Vec<Entry>,
    /// Send it as `before` for what is older; null at the end.
    next: Option<String>,
}

/// Something that was done.
#[derive(Serialize, JsonSchema)]
struct Entry {
    version: u32,
    id: Uuid,
    #[schemars(with = "Moment")]
    time: (),
    actor: Actor,
    /// `webhook.change`, say.
    action: String,
    tenant: Option<String>,
    target: Target,
    /// How it was, without secrets.
    before: Value,
    /// How it is.
    after: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Uuid>,
    /// The address it was asked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Actor {
    kind: ActorKind,
    id: Option<Uuid>,
    name: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ActorKind {
    OperatorToken,
    Token,
    Account,
    Ringback,
}

#[derive(Serialize, JsonSchema)]
struct Target {
    kind: String,
    id: Option<String>,
    name: String,
}

/// Who gets mail about a tenant's webhooks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Notify {
    notify: Vec<String>,
    /// Whether this installation sends mail at all.
    mailed: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Erasure {
    erasure: Erased,
    projection: InProjection,
}

#[derive(Serialize, JsonSchema)]
struct Erased {
    tenant: String,
    /// Null: all of the tenant.
    subject: Option<String>,
    #[schemars(with = "Moment")]
    time: (),
    /// Null: an earlier release did not say.
    by: Option<Actor>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Erasures {
    /// Newest first.
    erasures: Vec<Erased>,
    /// Send it as `before` for what comes next; null at the end.
    next: Option<String>,
    /// Whatever was erased is gone from the log itself after this.
    log_keeps_seconds: Option<u64>,
}

/// Whether it is out of the projection already.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum InProjection {
    Erased,
    Pending,
    None,
}
