//! `ringback audit …`

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, list, moment, text};
use crate::failure::Failure;

/// Commands about the audit: who changed what.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Lists what was done, newest first; secrets are never in it
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only what belongs to this tenant; without, everything, for operators
    tenant: Option<String>,
    /// Entries to show
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Where an earlier list ended (its `next`)
    #[arg(long, value_name = "CURSOR")]
    before: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: AuditCommand) -> Result<String, Failure> {
    let AuditCommand::List(args) = command;
    let client = Client::new(&args.connection)?;
    let path: Vec<_> = match &args.tenant {
        Some(tenant) => vec!["tenants", tenant, "audit"],
        None => vec!["audit"],
    };
    let mut query = vec![("limit", args.limit.to_string())];
    if let Some(before) = args.before {
        query.push(("before", before));
    }
    let body = client.get(&path, &query).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "entries").iter().map(row).collect();
    let mut shown = match rows.is_empty() {
        true => "Nothing was done.".to_owned(),
        false => table::table(["TIME", "WHO", "WHAT", "TENANT", "TO", "CHANGES"], &rows),
    };
    if let Some(next) = body["next"].as_str() {
        shown += &format!("\n\nThere may be more: --before {next}");
    }
    Ok(shown)
}

fn row(entry: &Value) -> [String; 6] {
    [
        moment(&entry["time"]),
        text(&entry["actor"]["name"]),
        text(&entry["action"]),
        text(&entry["tenant"]),
        text(&entry["target"]["name"]),
        changes(&entry["before"], &entry["after"]),
    ]
}

/// What differs, member by member; what came or went as a whole is said by the action.
fn changes(before: &Value, after: &Value) -> String {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else {
        return String::new();
    };
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let one = |value: Option<&Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let told: Vec<_> = names
        .into_iter()
        .map(|name| {
            format!(
                "{name}: {} → {}",
                one(before.get(name)),
                one(after.get(name))
            )
        })
        .collect();
    told.join(", ")
}
