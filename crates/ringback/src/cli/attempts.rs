//! `ringback attempts list`, and reading lists that come in pages.

use clap::{Args, Subcommand};
use ringback_core::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, list, moment, text};
use super::time::parse_since;
use crate::failure::Failure;

/// Requests that one command makes for a page. Each looks at a bounded piece of the log, which may
/// hold little of what is wanted.
const REQUESTS_MAX: usize = 50;

/// Commands about attempts.
#[derive(Subcommand)]
pub(crate) enum AttemptsCommand {
    /// Lists attempts, newest first
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Whose
    tenant: String,
    /// The webhook's name or id
    webhook: String,
    /// Only of this event
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// delivered, failed, a status such as 503, or timeout, refused, reset, dns, resolver, proxy, tls, protocol
    #[arg(long)]
    outcome: Option<String>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

/// How much of a list.
#[derive(Args)]
pub(crate) struct Extent {
    /// Only since then: 2h, 7d or 2026-11-21T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Go on where an earlier list ended
    #[arg(long)]
    cursor: Option<String>,
}

pub(super) async fn run(command: AttemptsCommand) -> Result<String, Failure> {
    let AttemptsCommand::List(args) = command;
    let client = Client::new(&args.connection)?;
    let mut query = Vec::new();
    query.extend(args.event.map(|event| ("event", event.to_string())));
    query.extend(args.outcome.map(|outcome| ("outcome", outcome)));
    let path = [
        "tenants",
        &args.tenant,
        "webhooks",
        &args.webhook,
        "attempts",
    ];
    let body = pages(&client, &path, "attempts", query, &args.extent).await?;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "attempts")
        .iter()
        .map(|attempt| {
            let run = match attempt["run"].as_u64() {
                Some(0) | None => String::new(),
                Some(run) => format!(" (replay {run})"),
            };
            let number = text(&attempt["attempt"]);
            [
                moment(&attempt["started"]),
                text(&attempt["event"]),
                text(&attempt["type"]),
                format!("{number}{run}"),
                result(attempt),
                format!("{} ms", text(&attempt["duration_ms"])),
                text(&attempt["next"]),
                attempt["error"].as_str().map(clean).unwrap_or_default(),
            ]
        })
        .collect();
    let head = [
        "STARTED", "EVENT", "TYPE", "ATTEMPT", "RESULT", "TOOK", "NEXT", "WHY",
    ];
    Ok(shown(&body, &rows, "No attempts.", |rows| {
        table::table(head, rows)
    }))
}

/// What came back: a status, or what went wrong.
pub(super) fn result(attempt: &Value) -> String {
    match &attempt["status"] {
        Value::Null => text(&attempt["outcome"]),
        status => text(status),
    }
}

/// Reads until the limit is reached or there is nothing more.
pub(super) async fn pages(
    client: &Client,
    path: &[&str],
    name: &str,
    mut query: Vec<(&str, String)>,
    extent: &Extent,
) -> Result<Value, Failure> {
    query.extend(extent.since.map(|since| ("since", since.to_string())));
    let limit = usize::from(extent.limit);
    let mut cursor = extent.cursor.clone();
    let mut entries = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let mut query = query.clone();
        query.push(("limit", (limit - entries.len()).to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut body = client.get(path, &query).await?.body;
        if let Value::Array(page) = body[name].take() {
            entries.extend(page);
        }
        cursor = body["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || entries.len() >= limit {
            break;
        }
    }
    Ok(json!({ name: entries, "cursor": cursor }))
}

/// A list as text, with how to go on.
pub(super) fn shown<const N: usize>(
    body: &Value,
    rows: &[[String; N]],
    empty: &str,
    table: impl FnOnce(&[[String; N]]) -> String,
) -> String {
    let list = if rows.is_empty() {
        format!("{empty}\n")
    } else {
        table(rows)
    };
    match body["cursor"].as_str() {
        Some(cursor) => format!("{list}There is more: add --cursor {}", table::clean(cursor)),
        None => list,
    }
}
