//! The administration's nouns on the command line. Each command makes requests to the API
//! (`docs/admin.md`) and shows their answers as text, or as the API's JSON with `--json`.

mod account;
mod attempts;
mod audit;
mod client;
mod connection;
mod erase;
mod listing;
mod parked;
mod projection;
mod replay;
mod replays;
mod request_args;
mod secret_input;
mod table;
mod tenant;
#[cfg(test)]
mod tests;
mod time;
mod token;
mod transfer;
mod webhook;
mod webhook_health;
mod webhook_secret;
mod webhook_test;

pub(crate) use account::AccountCommand;
pub(crate) use attempts::AttemptsCommand;
pub(crate) use audit::AuditCommand;
pub(crate) use client::Client;
pub(crate) use connection::Connection;
pub(crate) use erase::EraseArgs;
pub(crate) use parked::ParkedCommand;
pub(crate) use projection::ProjectionCommand;
pub(crate) use replay::ReplayArgs;
pub(crate) use replays::ReplaysCommand;
pub(crate) use table::{clean, list};
pub(crate) use tenant::TenantCommand;
pub(crate) use token::TokenCommand;
pub(crate) use transfer::{ExportArgs, ImportArgs};
pub(crate) use webhook::WebhookCommand;

use crate::failure::Failure;
use crate::out;

/// `ringback tenant …`
pub(crate) async fn tenant(command: TenantCommand) -> Result<(), Failure> {
    show(tenant::run(command).await)
}

/// `ringback webhook …`
pub(crate) async fn webhook(command: WebhookCommand) -> Result<(), Failure> {
    show(webhook::run(command).await)
}

/// `ringback token …`
pub(crate) async fn token(command: TokenCommand) -> Result<(), Failure> {
    show(token::run(command).await)
}

/// `ringback account …`
pub(crate) async fn account(command: AccountCommand) -> Result<(), Failure> {
    show(account::run(command).await)
}

/// `ringback attempts …`
pub(crate) async fn attempts(command: AttemptsCommand) -> Result<(), Failure> {
    show(attempts::run(command).await)
}

/// `ringback audit …`
pub(crate) async fn audit(command: AuditCommand) -> Result<(), Failure> {
    show(audit::run(command).await)
}

/// `ringback parked …`
pub(crate) async fn parked(command: ParkedCommand) -> Result<(), Failure> {
    show(parked::run(command).await)
}

/// `ringback projection …`
pub(crate) async fn projection(command: ProjectionCommand) -> Result<(), Failure> {
    show(projection::run(command).await)
}

/// `ringback replay …`
pub(crate) async fn replay(args: ReplayArgs) -> Result<(), Failure> {
    show(replay::run(args).await)
}

/// `ringback replays …`
pub(crate) async fn replays(command: ReplaysCommand) -> Result<(), Failure> {
    show(replays::run(command).await)
}

/// `ringback erase`
pub(crate) async fn erase(args: EraseArgs) -> Result<(), Failure> {
    show(erase::run(args).await)
}

/// `ringback export`
pub(crate) async fn export(args: ExportArgs) -> Result<(), Failure> {
    show(transfer::export(args).await)
}

/// `ringback import`
pub(crate) async fn import(args: ImportArgs) -> Result<(), Failure> {
    show(transfer::import(args).await)
}

fn show(text: Result<String, Failure>) -> Result<(), Failure> {
    out!("{}", text?.trim_end());
    Ok(())
}
