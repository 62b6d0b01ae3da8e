//! `ringback webhook …`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::connection::Connection;
use super::replay::Afterwards;
use super::request_args::{self, RequestArgs};
use super::secret_input::AuthenticationArgs;
use super::table::{self, clean, fields, list, moment, text};
use super::webhook_health;
use super::webhook_secret::{self, SecretCommand};
use super::webhook_test::{self, TestArgs};
use crate::failure::Failure;

/// Commands about webhooks.
#[derive(Subcommand)]
pub(crate) enum WebhookCommand {
    /// Adds a webhook: `cdr` and `extension` are presets, other names need --subscribe
    Add(AddArgs),
    /// Lists the webhooks of a tenant
    List(ListArgs),
    /// Shows a webhook
    Show(NamedArgs),
    /// Changes a webhook; what is not given stays
    Set(SetArgs),
    /// Halts deliveries; they are parked and can be replayed
    Pause(NamedArgs),
    /// Lets deliveries flow again after a pause, and replays what was parked meanwhile
    Resume(ResumeArgs),
    /// Enables a webhook that was disabled for its error rate, and replays what was parked meanwhile
    Enable(ResumeArgs),
    /// Removes a webhook
    Remove(NamedArgs),
    /// What the receiver verifies signatures with, and its rotation
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Shows what is thought of it, why, and what to do
    Health(NamedArgs),
    /// Sends a test event, and shows what came back
    Test(TestArgs),
}

/// Which statuses acknowledge an event.
#[derive(Clone, Copy, ValueEnum)]
enum Acknowledge {
    #[value(name = "200")]
    Only200,
    #[value(name = "2xx")]
    Any2xx,
}

impl Acknowledge {
    fn as_str(self) -> &'static str {
        match self {
            Self::Only200 => "200",
            Self::Any2xx => "2xx",
        }
    }
}

/// In which form events are sent.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object around the data
    Standard,
    /// CloudEvents, binary mode: the data as body, the attributes as headers
    #[value(name = "cloudevents")]
    CloudEvents,
    /// The data alone
    Raw,
}

impl Format {
    fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::CloudEvents => "cloudevents",
            Self::Raw => "raw",
        }
    }
}

#[derive(Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// What was parked meanwhile, to be sent now; asked for at a terminal, otherwise `records`
    #[arg(long)]
    replay: Option<Afterwards>,
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Whose
    tenant: String,
    /// Its name: `cdr` (CDR Events), `extension` (Extension Events), or any other
    webhook: String,
    /// Where to: https://host/path
    #[arg(long)]
    url: String,
    /// Event types it wants: call.started, 'call.*' or '*'; may be repeated
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// Which statuses acknowledge an event
    #[arg(long, value_enum)]
    acknowledge: Option<Acknowledge>,
    #[command(flatten)]
    pace: PaceArgs,
    /// In which form it gets events
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Add it switched off
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    requests: Box<RequestArgs>,
    #[command(flatten)]
    authentication: AuthenticationArgs,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Whose
    tenant: String,
    /// Its name or id
    webhook: String,
    /// Where to: https://host/path
    #[arg(long)]
    url: Option<String>,
    /// Event types it wants instead of those so far; may be repeated
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// Which statuses acknowledge an event
    #[arg(long, value_enum)]
    acknowledge: Option<Acknowledge>,
    /// In which form it gets events
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    requests: Box<RequestArgs>,
    #[command(flatten)]
    authentication: AuthenticationArgs,
    #[command(flatten)]
    connection: Connection,
}

/// How fast and how often a webhook is asked.
#[derive(Args)]
struct PaceArgs {
    /// Most events per second that it gets, or `none`
    #[arg(long, value_name = "N", value_parser = rate_limit)]
    rate_limit: Option<Value>,
    /// Waits before its retries, drawn from the deployment's tiers (32s,4m), or `default`
    #[arg(long, value_name = "WAITS", value_parser = schedule)]
    schedule: Option<Value>,
}

fn rate_limit(text: &str) -> Result<Value, String> {
    match (text, text.parse::<u32>()) {
        ("none", _) => Ok(Value::Null),
        (_, Ok(limit)) => Ok(limit.into()),
        (_, Err(_)) => Err("use a number of events per second, or none".to_owned()),
    }
}

fn schedule(text: &str) -> Result<Value, String> {
    let waits = || text.split(',').map(|wait| wait.trim().into()).collect();
    match text {
        "default" => Ok(Value::Null),
        "" => Err("use waits such as 32s,4m, or default".to_owned()),
        _ => Ok(Value::Array(waits())),
    }
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Whose
    tenant: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct NamedArgs {
    /// Whose
    tenant: String,
    /// Its name or id
    webhook: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: WebhookCommand) -> Result<String, Failure> {
    match command {
        WebhookCommand::Add(args) => add(args).await,
        WebhookCommand::List(args) => list_all(args).await,
        WebhookCommand::Show(args) => show(args).await,
        WebhookCommand::Set(args) => set(args).await,
        WebhookCommand::Pause(args) => pause(args).await,
        WebhookCommand::Resume(args) => resume(args).await,
        WebhookCommand::Enable(args) => enable(args).await,
        WebhookCommand::Remove(args) => remove(args).await,
        WebhookCommand::Secret(command) => webhook_secret::run(command).await,
        WebhookCommand::Health(args) => {
            webhook_health::run(&args.tenant, &args.webhook, &args.connection).await
        }
        WebhookCommand::Test(args) => webhook_test::run(args).await,
    }
}

/// What both adding and changing may say.
fn form(
    subscribe: &[String],
    acknowledge: Option<Acknowledge>,
    pace: PaceArgs,
    format: Option<Format>,
    requests: &RequestArgs,
    authentication: &AuthenticationArgs,
) -> Result<Map<String, Value>, Failure> {
    let mut form = Map::new();
    requests.add_to(&mut form)?;
    if let Some(format) = format {
        form.insert("format".to_owned(), format.as_str().into());
    }
    if !subscribe.is_empty() {
        form.insert("subscription".to_owned(), subscribe.into());
    }
    if let Some(acknowledge) = acknowledge {
        form.insert("acknowledge".to_owned(), acknowledge.as_str().into());
    }
    if let Some(limit) = pace.rate_limit {
        form.insert("rate_limit".to_owned(), limit);
    }
    if let Some(schedule) = pace.schedule {
        form.insert("schedule".to_owned(), schedule);
    }
    if let Some(authentication) = authentication.read()? {
        form.insert("authentication".to_owned(), authentication);
    }
    Ok(form)
}

async fn add(args: AddArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = form(
        &args.subscribe,
        args.acknowledge,
        args.pace,
        args.format,
        &args.requests,
        &args.authentication,
    )?;
    form.insert("name".to_owned(), args.webhook.into());
    form.insert("url".to_owned(), args.url.into());
    form.insert("enabled".to_owned(), (!args.paused).into());
    let webhook = client
        .post(&["tenants", &args.tenant, "webhooks"], &form.into())
        .await?
        .body;
    if args.connection.json {
        return Ok(table::json(&webhook));
    }
    let next = if args.paused { "resume" } else { "test" };
    Ok(format!(
        "Added {}: {} to {}.\n{}{}Next:\n  ringback webhook {next} {} {}",
        title(&webhook),
        text(&webhook["subscription"]),
        text(&webhook["url"]),
        warnings(&webhook),
        webhook_secret::first(&webhook),
        text(&webhook["tenant"]),
        text(&webhook["name"]),
    ))
}

async fn list_all(args: ListArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let body = client
        .get(&["tenants", &args.tenant, "webhooks"], &[])
        .await?
        .body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "webhooks")
        .iter()
        .map(|webhook| {
            let method = text(&webhook["authentication"]["method"]);
            let subscription = text(&webhook["subscription"]);
            let name = text(&webhook["name"]);
            [
                name,
                state(webhook).to_owned(),
                subscription,
                method,
                text(&webhook["url"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(format!(
            "Tenant {0} has no webhooks, so it gets nothing. Add one:\n  ringback webhook add {0} cdr --url https://…",
            clean(&args.tenant)
        ));
    }
    Ok(table::table(
        ["WEBHOOK", "STATE", "SUBSCRIPTION", "AUTH", "URL"],
        &rows,
    ))
}

async fn show(args: NamedArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook];
    let webhook = client.get(&path, &[]).await?.body;
    if args.connection.json {
        return Ok(table::json(&webhook));
    }
    let limit = match webhook["rate_limit"].as_u64() {
        Some(limit) => format!("{limit} events per second"),
        None => "none".to_owned(),
    };
    let retries = match webhook["schedule"].is_null() {
        true => "after the deployment's tiers".to_owned(),
        false if list(&webhook, "schedule").is_empty() => "none".to_owned(),
        false => format!("after {}", text(&webhook["schedule"])),
    };
    let shown = fields(&[
        ("name", text(&webhook["name"])),
        ("title", text(&webhook["title"])),
        ("tenant", text(&webhook["tenant"])),
        ("id", text(&webhook["id"])),
        ("state", state(&webhook).to_owned()),
        ("subscription", text(&webhook["subscription"])),
        ("url", text(&webhook["url"])),
        ("authentication", authentication(&webhook)),
        ("signed with", signed_with(&webhook)),
        ("acknowledged by", text(&webhook["acknowledge"])),
        ("health", health(&webhook)),
        ("rate limit", limit),
        ("retries", retries),
        ("format", text(&webhook["format"])),
        ("headers", request_args::headers(&webhook)),
        ("tls", request_args::tls(&webhook)),
        ("generation", text(&webhook["generation"])),
        ("created", moment(&webhook["created"])),
        ("updated", moment(&webhook["updated"])),
    ]);
    Ok(format!("{shown}{}", warnings(&webhook)))
}

async fn set(args: SetArgs) -> Result<String, Failure> {
    let mut form = form(
        &args.subscribe,
        args.acknowledge,
        args.pace,
        args.format,
        &args.requests,
        &args.authentication,
    )?;
    if let Some(url) = args.url {
        form.insert("url".to_owned(), url.into());
    }
    if form.is_empty() {
        return Err(Failure::usage(
            "say what to change: --url, --subscribe, --acknowledge, --format, --rate-limit, --schedule, or an option of the authentication (`ringback webhook set --help`)",
        ));
    }
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook];
    let current = client.get(&path, &[]).await?;
    // What we have not seen is not overwritten.
    let etag = current.etag.unwrap_or_default();
    if let Some(form) = form.get_mut("authentication") {
        args.authentication
            .fit(form, &current.body["authentication"]);
    }
    let webhook = client.patch(&path, &etag, &form.into()).await?.body;
    if args.connection.json {
        return Ok(table::json(&webhook));
    }
    let changed = match webhook["revision"] == current.body["revision"] {
        true => "Nothing to change in",
        false => "Changed",
    };
    let title = title(&webhook);
    Ok(format!(
        "{changed} {title}: {} to {}.\n{}",
        text(&webhook["subscription"]),
        text(&webhook["url"]),
        warnings(&webhook)
    ))
}

async fn switch(args: &NamedArgs, verb: &str) -> Result<Value, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook, verb];
    Ok(client.post(&path, &json!({})).await?.body)
}

async fn pause(args: NamedArgs) -> Result<String, Failure> {
    let webhook = switch(&args, "pause").await?;
    if args.connection.json {
        return Ok(table::json(&webhook));
    }
    let (tenant, name) = (text(&webhook["tenant"]), text(&webhook["name"]));
    Ok(format!(
        "Paused {}. Its deliveries are parked; afterwards:\n  ringback webhook resume {tenant} {name}",
        title(&webhook)
    ))
}

async fn resume(args: ResumeArgs) -> Result<String, Failure> {
    let webhook = switch(&args.named, "resume").await?;
    let mut said = format!("Resumed {}.", title(&webhook));
    if webhook["health"]["state"] == "disabled" {
        said = format!(
            "{said} But it is disabled for its error rate, so nothing is sent until:\n  ringback webhook enable {} {}\n",
            text(&webhook["tenant"]),
            text(&webhook["name"])
        );
    }
    args.afterwards(&webhook, "paused", said).await
}

async fn enable(args: ResumeArgs) -> Result<String, Failure> {
    let NamedArgs {
        connection,
        tenant,
        webhook,
    } = &args.named;
    let client = Client::new(connection)?;
    let path = ["tenants", tenant, "webhooks", webhook];
    let before = client.get(&path, &[]).await?.body;
    let webhook = switch(&args.named, "enable").await?;
    let title = title(&webhook);
    if before["generation"] == webhook["generation"] {
        return match args.named.connection.json {
            true => Ok(table::json(&webhook)),
            false => Ok(format!("Nothing to do: {title} is not disabled.")),
        };
    }
    args.afterwards(&webhook, "disabled", format!("Enabled {title}."))
        .await
}

impl ResumeArgs {
    /// Replays what was parked for this reason, and says so after `said`.
    async fn afterwards(
        &self,
        webhook: &Value,
        reason: &str,
        said: String,
    ) -> Result<String, Failure> {
        let connection = &self.named.connection;
        let client = Client::new(connection)?;
        let (tenant, name) = (text(&webhook["tenant"]), text(&webhook["name"]));
        let what = match self.replay {
            Some(what) => what,
            None if connection.json => Afterwards::Records,
            None => Afterwards::choose(&said, &client, &tenant, &name, reason).await?,
        };
        let replayed = what.replay(&client, &tenant, &name, reason).await?;
        Ok(match connection.json {
            true => table::json(webhook),
            false => format!("{said} {replayed}"),
        })
    }
}

async fn remove(args: NamedArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook];
    let body = client.delete(&path).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let webhook = &body["removed"]["webhook"];
    Ok(format!(
        "Removed {} ({}). What is still on its way to it is parked as removed:\n  ringback parked list --webhook-id {}",
        title(webhook),
        text(&webhook["url"]),
        text(&webhook["id"])
    ))
}

/// `webhook cdr of tenant acme (CDR Events)`
fn title(webhook: &Value) -> String {
    let (name, tenant) = (text(&webhook["name"]), text(&webhook["tenant"]));
    match webhook["preset"].is_null() {
        true => format!("webhook {name} of tenant {tenant}"),
        false => format!(
            "webhook {name} of tenant {tenant} ({})",
            text(&webhook["title"])
        ),
    }
}

fn state(webhook: &Value) -> &'static str {
    let health = webhook["health"]["state"].as_str();
    match (webhook["enabled"] == true, health) {
        (false, _) => "paused",
        (true, Some("disabled")) => "disabled",
        (true, Some("failing")) => "failing",
        (true, _) => "on",
    }
}

/// `disabled since …: 50 of 50 attempts failed`
fn health(webhook: &Value) -> String {
    let health = &webhook["health"];
    match health["since"].is_null() {
        true => text(&health["state"]),
        false => format!(
            "{} since {}: {}",
            text(&health["state"]),
            moment(&health["since"]),
            text(&health["reason"])
        ),
    }
}

/// `basic, as pbx; if refused, bearer until …`
fn authentication(webhook: &Value) -> String {
    let shown = |authentication: &Value| {
        let method = text(&authentication["method"]);
        match authentication["username"].as_str() {
            Some(username) => format!("{method}, as {}", clean(username)),
            None => method,
        }
    };
    let present = shown(&webhook["authentication"]);
    let previous = &webhook["previous_authentication"];
    match previous.is_null() {
        true => present,
        false => format!(
            "{present}; if refused, {} until {}",
            shown(previous),
            moment(&previous["until"])
        ),
    }
}

/// `hmac, hmac until …, ed25519`
fn signed_with(webhook: &Value) -> String {
    let keys = list(webhook, "signing").iter().map(|key| {
        let kind = text(&key["kind"]);
        match key["until"].is_null() {
            true => kind,
            false => format!("{kind} until {}", moment(&key["until"])),
        }
    });
    match keys.len() {
        0 => "nothing".to_owned(),
        _ => keys.collect::<Vec<_>>().join(", "),
    }
}

fn warnings(webhook: &Value) -> String {
    let warnings = list(webhook, "warnings").iter();
    warnings
        .map(|warning| format!("Warning: {}\n", text(warning)))
        .collect()
}
