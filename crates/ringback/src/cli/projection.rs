//! `ringback projection status|rebuild`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, moment, text};
use crate::failure::Failure;

/// Commands about the projection of attempts and parked deliveries.
#[derive(Subcommand)]
pub(crate) enum ProjectionCommand {
    /// How it is, and how far
    Status(ProjectionArgs),
    /// Drops everything and reads it again from the log, as far back as the log goes
    Rebuild(ProjectionArgs),
}

#[derive(Args)]
pub(crate) struct ProjectionArgs {
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: ProjectionCommand) -> Result<String, Failure> {
    match command {
        ProjectionCommand::Status(args) => {
            let client = Client::new(&args.connection)?;
            let body = client.get(&["projection"], &[]).await?.body;
            Ok(match args.connection.json {
                true => table::json(&body),
                false => status(&body),
            })
        }
        ProjectionCommand::Rebuild(args) => {
            let client = Client::new(&args.connection)?;
            let path = ["projection", "rebuild"];
            let body = client.post(&path, &json!({})).await?.body;
            Ok(match args.connection.json {
                true => table::json(&body),
                false => {
                    "It is being rebuilt. How far it is: ringback projection status".to_owned()
                }
            })
        }
    }
}

fn status(body: &Value) -> String {
    let state = match body["state"].as_str().unwrap_or_default() {
        "none" => return "There is none: pages are read from the log.".to_owned(),
        "projecting" => "projecting",
        "catching_up" => "catching up; pages are read from the log until then",
        "rebuilding" => "about to be rebuilt",
        "reading" => "reading; another process projects",
        "failing" => "FAILING; attempts and parked deliveries cannot be shown, deliveries go on",
        other => return clean(other),
    };
    let count = |name: &str| match body[name].as_u64() {
        Some(0) | None => String::new(),
        Some(count) => count.to_string(),
    };
    table::fields(&[
        ("state", state.to_owned()),
        ("database", text(&body["database"])),
        ("as of", moment(&body["as_of"])),
        ("still to read", count("behind")),
        ("lost to retention", count("lost")),
        ("unreadable", count("unreadable")),
        ("failing since", moment(&body["failing_since"])),
        ("error", text(&body["error"])),
        ("log", text(&body["log_error"])),
    ])
}
