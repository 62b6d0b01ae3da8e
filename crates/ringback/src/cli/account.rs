//! `ringback account …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Connection;
use super::listing::ListArgs;
use super::secret_input::AccountPasswordArgs;
use super::table::{self, list, moment, text};
use crate::failure::Failure;

/// Commands about accounts of people, who sign in to the portal and the API.
#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Adds an account; without a password one is made, and shown this once
    Add(AddArgs),
    /// Lists the accounts
    List(ListArgs),
    /// Shows an account
    Show(NameArgs),
    /// Changes the name or the password; a new password ends the account's sessions
    Set(SetArgs),
    /// Removes an account, and ends its sessions
    Remove(NameArgs),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// What its owner signs in as: letters, digits and . _ + - @
    login: String,
    /// For the administrator of this tenant
    #[arg(long, value_name = "NAME", required_unless_present = "operator")]
    tenant: Option<String>,
    /// For an operator, who may do everything
    #[arg(long, conflicts_with = "tenant")]
    operator: bool,
    /// Its owner's name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    password: AccountPasswordArgs,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct NameArgs {
    /// Its login or id
    account: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Its login or id
    account: String,
    /// Its owner's name
    #[arg(long)]
    name: Option<String>,
    /// Make a new password, and show it this once
    #[arg(long, group = "password_source")]
    new_password: bool,
    #[command(flatten)]
    password: AccountPasswordArgs,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: AccountCommand) -> Result<String, Failure> {
    match command {
        AccountCommand::Add(args) => add(args).await,
        AccountCommand::List(args) => list_all(args).await,
        AccountCommand::Show(args) => show(args).await,
        AccountCommand::Set(args) => set(args).await,
        AccountCommand::Remove(args) => remove(args).await,
    }
}

async fn add(args: AddArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = json!({ "login": args.login });
    match (args.tenant, args.operator) {
        (Some(tenant), _) => form["tenant"] = tenant.into(),
        (None, _) => form["role"] = "operator".into(),
    }
    if let Some(name) = args.name {
        form["name"] = name.into();
    }
    if let Some(password) = args.password.read()? {
        form["password"] = password.into();
    }
    let account = client.post(&["accounts"], &form).await?.body;
    if args.connection.json {
        return Ok(table::json(&account));
    }
    let added = format!(
        "Added account {} for {}.",
        text(&account["login"]),
        whose(&account)
    );
    Ok(added + &made(&account))
}

async fn list_all(args: ListArgs) -> Result<String, Failure> {
    let body = args.ask("accounts").await?;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let rows: Vec<_> = list(&body, "accounts").iter().map(row).collect();
    if rows.is_empty() {
        return Ok(
            "There are no accounts. Add one:\n  ringback account add LOGIN --tenant NAME"
                .to_owned(),
        );
    }
    Ok(table::table(HEADINGS, &rows))
}

const HEADINGS: [&str; 5] = ["LOGIN", "FOR", "NAME", "CREATED", "CHANGED"];

fn row(account: &Value) -> [String; 5] {
    [
        text(&account["login"]),
        whose(account),
        text(&account["name"]),
        moment(&account["created"]),
        moment(&account["updated"]),
    ]
}

async fn show(args: NameArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let account = client.get(&["accounts", &args.account], &[]).await?.body;
    match args.connection.json {
        true => Ok(table::json(&account)),
        false => Ok(table::table(HEADINGS, &[row(&account)])),
    }
}

async fn set(args: SetArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = json!({});
    if let Some(name) = args.name {
        form["name"] = name.into();
    }
    if args.new_password {
        form["new_password"] = true.into();
    }
    if let Some(password) = args.password.read()? {
        form["password"] = password.into();
    }
    if form.as_object().is_none_or(|form| form.is_empty()) {
        return Err(Failure::usage(
            "say what to change: --name, --new-password, --password-file, --password-stdin or --ask-password",
        ));
    }
    let account = client
        .patch(&["accounts", &args.account], "*", &form)
        .await?
        .body;
    if args.connection.json {
        return Ok(table::json(&account));
    }
    let changed = format!("Changed account {}.", text(&account["login"]));
    Ok(changed + &made(&account))
}

async fn remove(args: NameArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let body = client.delete(&["accounts", &args.account]).await?.body;
    if args.connection.json {
        return Ok(table::json(&body));
    }
    let account = &body["removed"]["account"];
    Ok(format!(
        "Removed account {} for {}.",
        text(&account["login"]),
        whose(account)
    ))
}

fn whose(account: &Value) -> String {
    match account["tenant"].as_str() {
        Some(tenant) => format!("tenant {tenant}"),
        None => "operators".to_owned(),
    }
}

/// The password, if it was made.
fn made(account: &Value) -> String {
    match account["password"].as_str() {
        Some(password) => format!(" Its password is shown this once only:\n\n  {password}"),
        None => String::new(),
    }
}
