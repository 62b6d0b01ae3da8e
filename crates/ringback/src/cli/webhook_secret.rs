//! `ringback webhook secret …`: what a receiver verifies signatures with, and its rotation.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::client::Client;
use super::connection::Connection;
use super::secret_input::SigningSecretArgs;
use super::table::{self, list, moment, text};
use crate::failure::Failure;

/// Commands about the signing keys of a webhook.
#[derive(Subcommand)]
pub(crate) enum SecretCommand {
    /// Shows what the receiver verifies signatures with: whsec_… for HMAC, whpk_… for Ed25519
    Show(ShowArgs),
    /// Signs with a new key; the old one signs too for a while, so that the receiver can change over
    Rotate(RotateArgs),
    /// Signs with Ed25519 no more, at once; HMAC always signs
    RemoveEd25519(ShowArgs),
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Whose
    tenant: String,
    /// Its name or id
    webhook: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct RotateArgs {
    /// Whose
    tenant: String,
    /// Its name or id
    webhook: String,
    /// Rotate the Ed25519 key (v1a); the first one is added beside HMAC (v1)
    #[arg(long)]
    ed25519: bool,
    /// How long the old key still signs [default: 24h]; 0 ends it at once, as when it became known
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    #[command(flatten)]
    secret: SigningSecretArgs,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: SecretCommand) -> Result<String, Failure> {
    match command {
        SecretCommand::Show(args) => show(args).await,
        SecretCommand::Rotate(args) => rotate(args).await,
        SecretCommand::RemoveEd25519(args) => remove_ed25519(args).await,
    }
}

async fn show(args: ShowArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook, "secret"];
    let body = client.get(&path, &[]).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    if list(&body, "signing").is_empty() {
        let (tenant, name) = (text(&body["tenant"]), text(&body["name"]));
        return Ok(format!(
            "Nothing signs for webhook {name} of tenant {tenant} yet. Give it a key:\n  ringback webhook secret rotate {tenant} {name}"
        ));
    }
    Ok(keys(&body))
}

async fn rotate(args: RotateArgs) -> Result<String, Failure> {
    let mut form = Map::new();
    let secret = args.secret.read()?;
    let is_private = |secret: &String| secret.trim_start().starts_with("whsk_");
    let kind = match args.ed25519 || secret.as_ref().is_some_and(is_private) {
        true => "ed25519",
        false => "hmac",
    };
    if args.ed25519 {
        form.insert("kind".to_owned(), "ed25519".into());
    }
    if let Some(grace) = args.grace {
        form.insert("grace".to_owned(), grace.into());
    }
    if let Some(secret) = secret {
        form.insert("secret".to_owned(), secret.into());
    }
    let client = Client::new(&args.connection)?;
    let path = below_secret(&args.tenant, &args.webhook, "rotate");
    let body = client.post(&path, &form.into()).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let (tenant, name) = (text(&body["tenant"]), text(&body["name"]));
    // The newest of a kind is its first.
    let new = list(&body, "signing").iter();
    let new = new.filter(|key| key["kind"] == kind).map(verified_with);
    Ok(format!(
        "Requests to webhook {name} of tenant {tenant} are now signed with each of these keys.\n{}\nThe new one, for the receiver:\n  {}",
        keys(&body),
        new.take(1).collect::<String>()
    ))
}

fn below_secret<'a>(tenant: &'a str, webhook: &'a str, what: &'a str) -> [&'a str; 6] {
    ["tenants", tenant, "webhooks", webhook, "secret", what]
}

async fn remove_ed25519(args: ShowArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = below_secret(&args.tenant, &args.webhook, "ed25519");
    let body = client.delete(&path).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let (tenant, name) = (text(&body["tenant"]), text(&body["name"]));
    Ok(format!(
        "Nothing signs with Ed25519 for webhook {name} of tenant {tenant}.\n{}",
        keys(&body)
    ))
}

/// A table of the keys, as the API shows them.
fn keys(body: &Value) -> String {
    let rows: Vec<_> = list(body, "signing")
        .iter()
        .map(|key| {
            let until = match key["until"].is_null() {
                true => "-".to_owned(),
                false => moment(&key["until"]),
            };
            let created = moment(&key["created"]);
            [text(&key["kind"]), created, until, verified_with(key)]
        })
        .collect();
    table::table(
        ["KIND", "CREATED", "UNTIL", "THE RECEIVER VERIFIES WITH"],
        &rows,
    )
}

/// What the receiver needs of a key.
fn verified_with(key: &Value) -> String {
    match key["public_key"].is_null() {
        true => text(&key["secret"]),
        false => text(&key["public_key"]),
    }
}

/// What is said of a new webhook's key.
pub(super) fn first(webhook: &Value) -> String {
    let keys = list(webhook, "signing").iter();
    keys.map(|key| {
        format!(
            "Its requests are signed; the receiver verifies with:\n  {}\n",
            verified_with(key)
        )
    })
    .collect()
}
