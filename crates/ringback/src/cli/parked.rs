//! `ringback parked list`

use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use super::attempts::{Extent, pages, shown};
use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, list, moment, text};
use crate::failure::Failure;

/// Commands about parked deliveries.
#[derive(Subcommand)]
pub(crate) enum ParkedCommand {
    /// Lists parked deliveries, newest first; without a webhook: records that cannot be read at all
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Whose
    #[arg(requires = "webhook")]
    tenant: Option<String>,
    /// The webhook's name or id
    webhook: Option<String>,
    /// Those of a webhook that may have been removed, by its id
    #[arg(long, value_name = "ID", conflicts_with = "tenant")]
    webhook_id: Option<Uuid>,
    /// Only of this event, and with its data in the JSON
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// paused, disabled, exhausted, expired, rejected, undeliverable or removed
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: ParkedCommand) -> Result<String, Failure> {
    let ParkedCommand::List(args) = command;
    let client = Client::new(&args.connection)?;
    let mut query = Vec::new();
    query.extend(args.event.map(|event| ("event", event.to_string())));
    query.extend(args.reason.map(|reason| ("reason", reason)));
    query.extend(
        args.webhook_id
            .map(|webhook| ("webhook", webhook.to_string())),
    );
    let of_webhook = args.tenant.as_deref().zip(args.webhook.as_deref());
    let path = match of_webhook {
        Some((tenant, webhook)) => vec!["tenants", tenant, "webhooks", webhook, "parked"],
        None => vec!["parked"],
    };
    let body = pages(&client, &path, "parked", query, &args.extent).await?;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    if of_webhook.is_none() && args.webhook_id.is_none() {
        return Ok(unreadable(&body));
    }
    let parked = list(&body, "parked");
    let rows: Vec<_> = parked.iter().map(row).collect();
    let head = [
        "PARKED", "EVENT", "TYPE", "REASON", "ATTEMPTS", "REPLAYED", "DETAIL",
    ];
    let text = shown(&body, &rows, "Nothing is parked.", |rows| {
        table::table(head, rows)
    });
    let waiting = parked.iter().any(|parked| parked["replayed"] == false);
    Ok(match of_webhook {
        Some((tenant, webhook)) if waiting => format!(
            "{}\nTo send them again:\n  ringback replay {} {} --all",
            text.trim_end(),
            clean(tenant),
            clean(webhook)
        ),
        _ => text,
    })
}

fn row(parked: &Value) -> [String; 7] {
    let replayed = match parked["replayed"].as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    [
        moment(&parked["parked"]),
        text(&parked["event"]),
        text(&parked["type"]),
        text(&parked["reason"]),
        text(&parked["attempts"]),
        replayed.to_owned(),
        text(&parked["detail"]),
    ]
}

fn unreadable(body: &Value) -> String {
    let rows: Vec<_> = list(body, "parked")
        .iter()
        .map(|parked| {
            let at = format!("parked/{}@{}", parked["partition"], parked["offset"]);
            [
                moment(&parked["parked"]),
                at,
                text(&parked["reason"]),
                text(&parked["detail"]),
            ]
        })
        .collect();
    let empty = "No parked record is without a webhook. Those of a webhook: ringback parked list TENANT WEBHOOK";
    shown(body, &rows, empty, |rows| {
        table::table(["PARKED", "WHERE", "REASON", "DETAIL"], rows)
    })
}
