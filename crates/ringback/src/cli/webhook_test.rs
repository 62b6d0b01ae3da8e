//! `ringback webhook test`: a test event goes out, and we wait for its attempt.

use std::time::Duration;

use clap::Args;
use ringback_core::record::DELIVERED;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::attempts::result;
use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, list, text};
use crate::failure::Failure;
use crate::out;

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
    // The attempt is looked for below, for as long as was asked.
    let mut form = json!({ "wait": "0s" });
    if let Some(message) = &args.message {
        form["message"] = message.as_str().into();
    }
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
    if sent["exchange"].is_object() {
        return exchanged(&event, &sent, args.connection.json);
    }
    let Some(attempt) = wait_for_attempt(&client, &args, &sent).await? else {
        return Err(Failure::new(format!(
            "test event {event} is in the log, but was not attempted within {} s; is a dispatcher running? Later: ringback attempts list {} {} --event {event}",
            args.wait.as_secs(),
            args.tenant,
            args.webhook
        )));
    };
    if args.connection.json && text(&attempt["next"]) != DELIVERED {
        // What came back is asked for all the more.
        out!("{}", table::json(&attempt));
    }
    let took = text(&attempt["duration_ms"]);
    let next = text(&attempt["next"]);
    if next != DELIVERED {
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

/// The whole exchange, as the administration saw it; a failure when it was not acknowledged.
fn exchanged(event: &str, sent: &Value, as_json: bool) -> Result<String, Failure> {
    let exchange = &sent["exchange"];
    let shown = match as_json {
        true => table::json(sent),
        false => shown(exchange),
    };
    let (outcome, took) = (text(&exchange["outcome"]), text(&exchange["duration_ms"]));
    if exchange["acknowledged"] == true {
        return Ok(match as_json {
            true => shown,
            false => format!("{shown}\nDelivered after {took} ms (event {event})."),
        });
    }
    out!("{}", shown.trim_end());
    let error = match text(&exchange["error"]) {
        none if none.is_empty() => none,
        some => format!(" ({some})"),
    };
    Err(Failure::new(format!(
        "test event {event} was not acknowledged: {outcome}{error} after {took} ms"
    )))
}

/// As it went over the wire, but for what a terminal would obey.
fn shown(exchange: &Value) -> String {
    let mut lines = Vec::new();
    let request = &exchange["request"];
    lines.push(format!(
        "> {} {}",
        text(&request["method"]),
        text(&request["url"])
    ));
    part(&mut lines, "> ", request);
    let response = &exchange["response"];
    if response.is_object() {
        lines.push(format!("< {}", text(&response["status"])));
        part(&mut lines, "< ", response);
    }
    lines.join("\n")
}

fn part(lines: &mut Vec<String>, mark: &str, message: &Value) {
    for header in list(message, "headers") {
        lines.push(format!("{mark}{}: {}", text(&header[0]), text(&header[1])));
    }
    lines.push(mark.trim_end().to_owned());
    for line in message["body"].as_str().unwrap_or_default().lines() {
        lines.push(format!("{mark}{}", clean(line)));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_shown_whole_and_a_refusal_fails() {
        let mut sent = json!({ "event": "e", "exchange": {
            "request": { "method": "POST", "url": "https://crm.example.com/",
                         "headers": [["content-type", "application/json"]], "body": "{\"n\":1}" },
            "response": { "status": 200, "headers": [["x", "\u{1b}[31m"]], "body": "a\nb" },
            "outcome": "status", "acknowledged": true, "error": null, "duration_ms": 12,
        }});
        let shown = exchanged("e", &sent, false).unwrap();
        assert_eq!(
            shown,
            "> POST https://crm.example.com/\n> content-type: application/json\n>\n> {\"n\":1}\n\
             < 200\n< x:  [31m\n<\n< a\n< b\nDelivered after 12 ms (event e)."
        );
        sent["exchange"]["outcome"] = "timeout".into();
        sent["exchange"]["acknowledged"] = false.into();
        sent["exchange"]["response"] = Value::Null;
        let failure = exchanged("e", &sent, false).unwrap_err();
        assert!(
            failure
                .message
                .contains("not acknowledged: timeout after 12 ms")
        );
    }
}
