//! `ringback webhook test`: a test event goes out, and we wait for its attempt.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::attempts::result;
use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, list, text};
use crate::failure::Failure;

/// How often we look for the attempt.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Whose
    tenant: String,
    /// Its name or id
    webhook: String,
    /// Text that goes along
    #[arg(long)]
    message: Option<String>,
    /// How long to wait for the attempt
    #[arg(long, default_value = "15s", value_parser = ringback_core::time::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: TestArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let path = ["tenants", &args.tenant, "webhooks", &args.webhook, "test"];
    let form = args
        .message
        .as_ref()
        .map_or(json!({}), |message| json!({ "message": message }));
    let sent = client.post(&path, &form).await?.body;
    let event = text(&sent["event"]);
    if let Some(warning) = list(&sent, "warnings").first() {
        let warning = text(warning);
        let verb = match warning.contains("disabled") {
            true => "enable",
            false => "resume",
        };
        return Err(Failure::new(format!(
            "event {event}: {warning}; `ringback webhook {verb}` switches it on"
        )));
    }
    let Some(attempt) = wait_for_attempt(&client, &args, &sent).await? else {
        return Err(Failure::new(format!(
            "test event {event} is in the log, but was not attempted within {} s; is a dispatcher running? Later: ringback attempts list {} {} --event {event}",
            args.wait.as_secs(),
            args.tenant,
            args.webhook
        )));
    };
    let took = text(&attempt["duration_ms"]);
    let next = text(&attempt["next"]);
    if next != "delivered" {
        let error = text(&attempt["error"]);
        let error = if error.is_empty() {
            error
        } else {
            format!(" ({error})")
        };
        return Err(Failure::new(format!(
            "test event {event} was not acknowledged: {}{error} after {took} ms; next: {next}",
            result(&attempt)
        )));
    }
    if args.connection.json {
        return Ok(table::json(&attempt));
    }
    let response = match text(&attempt["response"]).trim() {
        "" => String::new(),
        response => format!("\nIt answered: {response}"),
    };
    let note = match attempt["error"].as_str() {
        None => String::new(),
        Some(note) => format!("\nBut {}.", clean(note)),
    };
    Ok(format!(
        "Delivered: {} after {took} ms (event {event}).{note}{response}",
        result(&attempt)
    ))
}

async fn wait_for_attempt(
    client: &Client,
    args: &TestArgs,
    sent: &Value,
) -> Result<Option<Value>, Failure> {
    let path = [
        "tenants",
        &args.tenant,
        "webhooks",
        &args.webhook,
        "attempts",
    ];
    let query = [
        ("event", text(&sent["event"])),
        ("since", text(&sent["appended"])),
        ("limit", "1".to_owned()),
    ];
    let until = Instant::now() + args.wait;
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        looks.tick().await;
        let body = client.get(&path, &query).await?.body;
        if let Some(attempt) = list(&body, "attempts").first() {
            return Ok(Some(attempt.clone()));
        }
    }
    Ok(None)
}
