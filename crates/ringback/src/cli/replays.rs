//! `ringback replays …`: replays that run in the administration, or have run.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, fields, list, moment, text};
use crate::failure::Failure;

/// Commands about replays.
#[derive(Subcommand)]
pub(crate) enum ReplaysCommand {
    /// Lists the replays of a webhook
    List(ListArgs),
    /// Shows a replay and how far it is
    Show(NamedArgs),
    /// Ends a replay; what it has sent stays sent
    Cancel(NamedArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Whose
    tenant: String,
    /// The webhook's name or id
    webhook: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct NamedArgs {
    /// Whose
    tenant: String,
    /// The webhook's name or id
    webhook: String,
    /// The replay's id
    replay: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: ReplaysCommand) -> Result<String, Failure> {
    match command {
        ReplaysCommand::List(args) => list_all(args).await,
        ReplaysCommand::Show(args) => one(args, false).await,
        ReplaysCommand::Cancel(args) => one(args, true).await,
    }
}

async fn list_all(args: ListArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = [
        "tenants",
        &args.tenant,
        "webhooks",
        &args.webhook,
        "replays",
    ];
    let body = client.get(&path, &[]).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let cells = ["id", "state", "found", "sent", "delivered", "failed", "by"];
    let rows: Vec<_> = list(&body, "replays")
        .iter()
        .map(|replay| {
            let [id, state, found, sent, delivered, failed, by] =
                cells.map(|name| text(&replay[name]));
            [
                id,
                state,
                found,
                sent,
                delivered,
                failed,
                moment(&replay["started"]),
                by,
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok("There are no replays.".to_owned());
    }
    let head = [
        "REPLAY",
        "STATE",
        "FOUND",
        "SENT",
        "DELIVERED",
        "FAILED",
        "STARTED",
        "BY",
    ];
    Ok(table::table(head, &rows))
}

async fn one(args: NamedArgs, cancel: bool) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let (tenant, webhook) = (args.tenant.as_str(), args.webhook.as_str());
    let path = [
        "tenants",
        tenant,
        "webhooks",
        webhook,
        "replays",
        &args.replay,
    ];
    let body = match cancel {
        true => client.delete(&path).await?.body,
        false => client.get(&path, &[]).await?.body,
    };
    if args.connection.json {
        return Ok(table::json(&body));
    }
    Ok(shown(if body["replay"].is_object() {
        &body["replay"]
    } else {
        &body
    }))
}

fn shown(replay: &Value) -> String {
    let names = ["id", "state", "found", "sent", "delivered", "failed", "by"];
    let [id, state, found, sent, delivered, failed, by] = names.map(|name| text(&replay[name]));
    fields(&[
        ("replay", id),
        ("state", state),
        ("found", found),
        ("sent", sent),
        ("delivered", delivered),
        ("failed", failed),
        ("started", moment(&replay["started"])),
        ("ended", moment(&replay["ended"])),
        ("by", by),
    ])
}
