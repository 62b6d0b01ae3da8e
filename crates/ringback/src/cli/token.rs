//! `ringback token …`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::client::Client;
use super::connection::Connection;
use super::listing::ListArgs;
use super::table::{self, list, moment, text};
use crate::failure::Failure;

/// Commands about tokens: for publishing events, and for a tenant's part of the administration.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Adds a token, and shows it this once
    Add(AddArgs),
    /// Lists the tokens, without their text
    List(ListArgs),
    /// Removes a token; whoever uses it is refused from then on
    Remove(RemoveArgs),
}

/// What a token opens.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Handing in events
    Publish,
    /// Looking at the tenant's webhooks, attempts and parked deliveries
    Read,
    /// Changing them, replaying, and tokens
    Write,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// For this tenant only
    #[arg(long, value_name = "NAME", required_unless_present = "all_tenants")]
    tenant: Option<String>,
    /// For events of every tenant; each event must name its own
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// What it opens; may be repeated
    #[arg(long, value_enum, default_value = "publish")]
    scope: Vec<Scope>,
    /// Its name for people
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// Its id, as `ringback token list` shows it
    token: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: TokenCommand) -> Result<String, Failure> {
    match command {
        TokenCommand::Add(args) => add(args).await,
        TokenCommand::List(args) => list_all(args).await,
        TokenCommand::Remove(args) => remove(args).await,
    }
}

async fn add(args: AddArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let scopes: Vec<_> = args.scope.iter().map(|scope| scope.as_str()).collect();
    let mut form = json!({ "all_tenants": args.all_tenants, "scopes": scopes });
    if let Some(tenant) = args.tenant {
        form["tenant"] = tenant.into();
    }
    if let Some(name) = args.name {
        form["name"] = name.into();
    }
    let token = client.post(&["tokens"], &form).await?.body;
    if args.connection.json {
        return Ok(table::json(&token));
    }
    // The variable in which commands look for it.
    let variable = match args.scope.contains(&Scope::Publish) {
        true => "RINGBACK_TOKEN",
        false => "RINGBACK_OPERATOR_TOKEN",
    };
    Ok(format!(
        "Added token {} for {}: {}. It is shown this once only:\n\n  export {variable}={}\n\nIts id is {}.",
        text(&token["name"]),
        whose(&token),
        text(&token["scopes"]),
        text(&token["token"]),
        text(&token["id"])
    ))
}

async fn list_all(args: ListArgs) -> Result<String, Failure> {
    let body = args.ask("tokens").await?;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "tokens")
        .iter()
        .map(|token| {
            let tenant = match token["all_tenants"] == true {
                true => "(all)".to_owned(),
                false => text(&token["tenant"]),
            };
            [
                text(&token["id"]),
                tenant,
                text(&token["name"]),
                text(&token["scopes"]),
                moment(&token["created"]),
                moment(&token["last_used"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok("There are no tokens. Add one:\n  ringback token add --tenant NAME".to_owned());
    }
    Ok(table::table(
        ["ID", "TENANT", "NAME", "SCOPES", "CREATED", "LAST USED"],
        &rows,
    ))
}

async fn remove(args: RemoveArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let body = client.delete(&["tokens", &args.token]).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let token = &body["removed"]["token"];
    let name = text(&token["name"]);
    Ok(format!(
        "Removed token {name} ({}) for {}.",
        text(&token["id"]),
        whose(token)
    ))
}

fn whose(token: &serde_json::Value) -> String {
    match token["all_tenants"] == true {
        true => "all tenants".to_owned(),
        false => format!("tenant {}", text(&token["tenant"])),
    }
}
