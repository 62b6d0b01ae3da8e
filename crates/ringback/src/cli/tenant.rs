//! `ringback tenant …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Connection;
use super::table::{self, count, fields, list, moment, text};
use crate::failure::Failure;

/// Commands about tenants.
#[derive(Subcommand)]
pub(crate) enum TenantCommand {
    /// Adds a tenant
    Add(AddArgs),
    /// Lists the tenants
    List(ListArgs),
    /// Shows a tenant
    Show(NamedArgs),
    /// Says who gets mail when its webhooks fail, are disabled or recover
    Notify(NotifyArgs),
    /// Removes a tenant, with its webhooks and tokens
    Remove(NamedArgs),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Its id: lower-case letters, digits, '-', '_' and '.'
    tenant: String,
    /// Its name for people [default: its id]
    #[arg(long)]
    title: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct NamedArgs {
    /// Its id
    tenant: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct NotifyArgs {
    /// Its id
    tenant: String,
    /// A mail address, instead of those so far; may be repeated
    #[arg(long, value_name = "ADDRESS", required_unless_present = "nobody")]
    to: Vec<String>,
    /// Nobody gets mail
    #[arg(long, conflicts_with = "to")]
    nobody: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: TenantCommand) -> Result<String, Failure> {
    match command {
        TenantCommand::Add(args) => add(args).await,
        TenantCommand::List(args) => list_all(args).await,
        TenantCommand::Show(args) => show(args).await,
        TenantCommand::Notify(args) => notify(args).await,
        TenantCommand::Remove(args) => remove(args).await,
    }
}

async fn add(args: AddArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = json!({ "id": args.tenant });
    if let Some(title) = args.title {
        form["title"] = title.into();
    }
    let tenant = client.post(&["tenants"], &form).await?.body;
    if args.connection.json {
        return Ok(table::json(&tenant));
    }
    let id = text(&tenant["id"]);
    Ok(format!(
        "Added tenant {id}. Nothing is delivered until it has a webhook:\n  ringback webhook add {id} cdr --url https://…"
    ))
}

async fn list_all(args: ListArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let body = client.all(&["tenants"], "tenants", &[]).await?;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "tenants")
        .iter()
        .map(|tenant| {
            let cell = |name: &str| text(&tenant[name]);
            [
                cell("id"),
                cell("title"),
                cell("webhooks"),
                moment(&tenant["created"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok("There are no tenants yet. Add one:\n  ringback tenant add NAME".to_owned());
    }
    Ok(table::table(
        ["TENANT", "TITLE", "WEBHOOKS", "CREATED"],
        &rows,
    ))
}

async fn show(args: NamedArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let tenant = client.get(&["tenants", &args.tenant], &[]).await?.body;
    if args.connection.json {
        return Ok(table::json(&tenant));
    }
    Ok(fields(&[
        ("tenant", text(&tenant["id"])),
        ("title", text(&tenant["title"])),
        ("webhooks", text(&tenant["webhooks"])),
        ("mail to", text(&tenant["notify"])),
        ("created", moment(&tenant["created"])),
    ]))
}

async fn notify(args: NotifyArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "notify"];
    let tenant = client.put(&path, &json!({ "notify": args.to })).await?.body;
    if args.connection.json {
        return Ok(table::json(&tenant));
    }
    let id = text(&tenant["id"]);
    Ok(match list(&tenant, "notify") {
        [] => format!("Nobody gets mail about webhooks of {id}, but operators."),
        _ => format!(
            "Mail about webhooks of {id} goes to {}.",
            text(&tenant["notify"])
        ),
    })
}

async fn remove(args: NamedArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let body = client.delete(&["tenants", &args.tenant]).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let removed = &body["removed"];
    let names = |values: &[Value]| match values.is_empty() {
        true => String::new(),
        false => format!(
            ": {}",
            values.iter().map(text).collect::<Vec<_>>().join(", ")
        ),
    };
    let webhooks = list(removed, "webhooks");
    let tokens: Vec<_> = list(removed, "tokens")
        .iter()
        .map(|token| token["name"].clone())
        .collect();
    Ok(format!(
        "Removed tenant {}, with {}{} and {}{}. What is still on its way to them is parked as removed.",
        text(&removed["tenant"]),
        count(webhooks.len() as u64, "webhook"),
        names(webhooks),
        count(tokens.len() as u64, "token"),
        names(&tokens),
    ))
}
