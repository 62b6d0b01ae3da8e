//! `ringback doctor`: is everything as it must be, and what to do where it is not.

mod clocks;
mod installation;
mod report;
mod webhook;

use clap::Args;
use ringback_core::health;

use crate::cli::Connection;
use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;
use crate::out;
use report::Report;

/// Options of `ringback doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Create topics that do not exist
    #[arg(long)]
    create_topics: bool,
    /// Only show what the policy of disablement does to receivers of many kinds, by simulation
    #[arg(long, conflicts_with = "create_topics")]
    policy: bool,
    /// Also check the way to this webhook, which the administration is asked for; may be repeated
    #[arg(long, value_name = "TENANT/NAME", value_parser = webhook_name)]
    webhook: Vec<(String, String)>,
    /// Also check the way to every webhook
    #[arg(long, conflicts_with = "webhook")]
    webhooks: bool,
    /// Check the webhooks alone, not the installation
    #[arg(long)]
    only_webhooks: bool,
    #[command(flatten)]
    connection: Connection,
}

fn webhook_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((tenant, name)) if !tenant.is_empty() && !name.is_empty() => {
            Ok((tenant.to_owned(), name.to_owned()))
        }
        _ => Err("use TENANT/NAME, such as acme/cdr".to_owned()),
    }
}

/// Checks and says what it finds; success when no check fails.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    if args.policy {
        let table = health::table(&config.metrics.policy, &config.schedule);
        out!("{}", table.trim_end());
        return Ok(());
    }
    let mut report = Report::new(args.connection.json);
    report.ok("configuration", "no mistakes");
    if !args.only_webhooks {
        installation::check(&config, args.create_topics, &mut report).await?;
    }
    if args.webhooks || !args.webhook.is_empty() {
        webhook::check_all(&config, &args.connection, &args.webhook, &mut report).await?;
    }
    report.end()
}

#[cfg(test)]
mod tests {
    use ringback_core::schedule::Schedule;

    use super::*;

    #[test]
    fn the_page_shows_what_the_default_policy_does() {
        let page = include_str!("../../../../docs/disablement.md");
        let table = health::table(&health::HealthPolicy::default(), &Schedule::default());
        assert!(
            page.contains(&table),
            "docs/disablement.md lacks this table of `ringback doctor --policy`:\n{table}"
        );
    }
}
