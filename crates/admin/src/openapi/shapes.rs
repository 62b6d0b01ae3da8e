//! The shapes of answers that are put together by hand, and of what is read by hand. Tests hold every
//! answer against them.
#![allow(dead_code, reason = "only their shapes are used")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::attempts::AttemptView;
use crate::schema::Moment;

/// Why something is not done (RFC 9457).
#[derive(Serialize, JsonSchema)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// Stable, for programs; docs/admin.md lists them.
    code: String,
    /// The field at fault: its name, or a path to it such as `authentication.password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Of 412: what it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tenants {
    tenants: Vec<Tenant>,
    /// Send it as `after` for what comes next; null at the end.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tenant {
    id: String,
    title: String,
    /// Who gets mail about its webhooks.
    notify: Vec<String>,
    #[schemars(with = "Moment")]
    created: (),
    /// How many it has.
    webhooks: u64,
    revision: i64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedTenant {
    removed: RemovedWithTenant,
}

#[derive(Serialize, JsonSchema)]
struct RemovedWithTenant {
    tenant: String,
    webhooks: Vec<String>,
    tokens: Vec<NamedToken>,
    /// Their logins.
    accounts: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct NamedToken {
    id: Uuid,
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// A webhook as it is configured, and how it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Webhook {
    id: Uuid,
    tenant: String,
    name: String,
    title: String,
    preset: Option<String>,
    subscription: Vec<String>,
    url: String,
    authentication: Authentication,
    previous_authentication: Option<Authentication>,
    signing: Vec<SigningKey>,
    acknowledge: Acknowledged,
    rate_limit: Option<u32>,
    schedule: Option<Vec<String>>,
    format: Formatted,
    headers: BTreeMap<String, String>,
    tls: Option<Tls>,
    enabled: bool,
    generation: u64,
    health: WebhookHealth,
    #[schemars(with = "Moment")]
    created: (),
    #[schemars(with = "Moment")]
    updated: (),
    revision: i64,
    warnings: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    None,
    Basic,
    Digest,
    Bearer,
}

#[derive(Serialize, JsonSchema)]
struct Authentication {
    method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Set>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Set>,
    /// Of an earlier one: how long it is still good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Moment")]
    until: Option<()>,
}

/// A secret that is set, and not shown.
#[derive(Serialize, JsonSchema)]
struct Set {
    set: bool,
}

#[derive(Serialize, JsonSchema)]
struct SigningKey {
    /// `hmac` or `ed25519`.
    kind: String,
    #[schemars(with = "Moment")]
    created: (),
    /// From when on it signs no more.
    #[schemars(with = "Option<Moment>")]
    until: (),
    /// `whsec_…`, where secrets are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// `whpk_…`, where secrets are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Acknowledge")]
pub(crate) enum Acknowledged {
    #[serde(rename = "200")]
    Only200,
    #[serde(rename = "2xx")]
    Any2xx,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Format")]
pub(crate) enum Formatted {
    Standard,
    CloudEvents,
    Raw,
}

#[derive(Serialize, JsonSchema)]
struct Tls {
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<Set>,
}

#[derive(Serialize, JsonSchema)]
struct WebhookHealth {
    /// `healthy`, `failing` or `disabled`.
    state: String,
    #[schemars(with = "Option<Moment>")]
    since: (),
    reason: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedWebhook {
    removed: ThatWebhook,
}

#[derive(Serialize, JsonSchema)]
struct ThatWebhook {
    webhook: Webhook,
}

/// The keys that a webhook's requests are signed with.
#[derive(Serialize, JsonSchema)]
pub(super) struct SigningKeys {
    tenant: String,
    name: String,
    id: Uuid,
    signing: Vec<SigningKey>,
}

/// Where a page was read.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Source {
    Projection,
    Log,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Attempts {
    /// Newest first.
    attempts: Vec<AttemptView>,
    /// Leads on; null at the end.
    cursor: Option<String>,
    source: Source,
    /// Everything that the log had then is in it.
    #[schemars(with = "Option<Moment>")]
    as_of: (),
    /// Read from the log: offsets that were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u64>,
    /// Read from the log: records that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ParkedPage {
    /// Newest first.
    parked: Vec<Parked>,
    /// Leads on; null at the end.
    cursor: Option<String>,
    source: Source,
    #[schemars(with = "Option<Moment>")]
    as_of: (),
    /// Of the first page: how much was parked, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<u64>,
}

/// A delivery that ended without success.
#[derive(Serialize, JsonSchema)]
struct Parked {
    event: Uuid,
    #[serde(rename = "type")]
    name: String,
    tenant: String,
    source: String,
    subject: Option<String>,
    #[schemars(with = "Moment")]
    time: (),
    webhook: Uuid,
    run: u32,
    attempts: u8,
    #[schemars(with = "Moment")]
    accepted: (),
    #[schemars(with = "Moment")]
    parked: (),
    /// Why: `paused`, `exhausted`, …
    reason: Option<String>,
    detail: Option<String>,
    data_bytes: u64,
    /// Whether a later run was asked for; null: not known.
    replayed: Option<bool>,
    /// Its data, where one event is asked for and the log still has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// What no webhook can be read from, or with `webhook` what is parked for it.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum AllParked {
    OfWebhook(ParkedPage),
    Unreadable(UnreadablePage),
}

#[derive(Serialize, JsonSchema)]
pub(super) struct UnreadablePage {
    parked: Vec<UnreadableRecord>,
    cursor: Option<String>,
    scanned: u64,
}

#[derive(Serialize, JsonSchema)]
struct UnreadableRecord {
    partition: u32,
    offset: i64,
    #[schemars(with = "Moment")]
    parked: (),
    reason: Option<String>,
    detail: Option<String>,
    headers: BTreeMap<String, String>,
    data_bytes: Option<u64>,
    data_preview: Option<String>,
}

/// Series for charts.
#[derive(Serialize, JsonSchema)]
pub(super) struct Stats {
    #[schemars(with = "Moment")]
    since: (),
    #[schemars(with = "Moment")]
    until: (),
    /// Seconds.
    step: u64,
    /// Steps in which there were attempts.
    points: Vec<Point>,
    #[schemars(with = "Option<Moment>")]
    as_of: (),
}

#[derive(Serialize, JsonSchema)]
struct Point {
    #[schemars(with = "Moment")]
    at: (),
    attempts: u64,
    delivered: u64,
    /// By how they ended.
    classes: BTreeMap<String, u64>,
    mean_ms: u64,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    durations: Durations,
}

#[derive(Serialize, JsonSchema)]
struct Durations {
    up_to_ms: Vec<u64>,
    /// One more than bounds: the last are beyond.
    attempts: Vec<u64>,
}

/// An event with all its deliveries.
#[derive(Serialize, JsonSchema)]
pub(super) struct Event {
    event: Uuid,
    deliveries: Vec<Delivery>,
    /// There are more than are shown.
    truncated: bool,
    #[schemars(with = "Option<Moment>")]
    as_of: (),
}

#[derive(Serialize, JsonSchema)]
struct Delivery {
    webhook: Uuid,
    /// Null when it was removed.
    name: Option<String>,
    run: i64,
    /// `delivered`, `parked` or `waiting`.
    state: String,
    reason: Option<String>,
    detail: Option<String>,
    next: Option<String>,
    #[schemars(with = "Option<Moment>")]
    replay_asked: (),
    attempts: Vec<AttemptView>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    next: Option<Uuid>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Token {
    id: Uuid,
    name: String,
    /// Null: of all tenants.
    tenant: Option<String>,
    all_tenants: bool,
    scopes: Vec<String>,
    #[schemars(with = "Moment")]
    created: (),
    /// When it was used, about: of uses within ten minutes the first is noted. Null: not yet.
    #[schemars(with = "Option<Moment>")]
    last_used: (),
    /// The text, in the answer that adds it only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RemovedToken {
    removed: ThatToken,
}

#[derive(Serialize, JsonSchema)]
struct ThatToken {
    token: Token,
}

/// How the projection is.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProjectionStatus {
    /// `none`, `projecting`, `catching_up`, `reading`, `rebuilding` or `failing`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[schemars(with = "Option<Moment>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<u64>,
    #[schemars(with = "Option<Moment>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<()>,
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<()>,
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_error: Option<()>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Rebuilding {
    state: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Resealed {
    key: String,
    resealed: u64,
    remaining: bool,
    failures: u64,
    failed: Vec<String>,
}

/// A configuration, to be taken elsewhere.
#[derive(Serialize, JsonSchema)]
pub(super) struct Export {
    format: String,
    version: u32,
    #[schemars(with = "Moment")]
    exported: (),
    key: Value,
    tenants: Vec<Value>,
    webhooks: Vec<Value>,
    tokens: Vec<Value>,
    /// All of them, with the first page. The hashes of their passwords are sealed.
    accounts: Vec<Value>,
    next: Option<String>,
}

/// What became of the parts of a document.
#[derive(Serialize, JsonSchema)]
pub(super) struct Imported {
    #[serde(flatten)]
    counts: BTreeMap<String, Value>,
}

/// How a webhook authenticates. What is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthenticationFields {
    /// `none`, `basic`, `digest` or `bearer`.
    method: Option<String>,
    username: Option<String>,
    /// A text, or `{"set": true}` to keep what is set.
    password: Option<Value>,
    /// A text, or `{"set": true}` to keep what is set.
    token: Option<Value>,
    /// How long the earlier one stays good: `24h`.
    grace: Option<String>,
}

/// A rotation of signing keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotationFields {
    /// `hmac` or `ed25519`.
    kind: Option<String>,
    /// `whsec_…` or `whsk_…`; without, one is made.
    secret: Option<String>,
    /// How long those before still sign: `24h`; `0` for not at all.
    grace: Option<String>,
}
