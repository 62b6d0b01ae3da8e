//! `ringback webhook health`: what is thought of a webhook, and why.

use serde_json::Value;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, fields, moment, text};
use crate::failure::Failure;

pub(super) async fn run(
    tenant: &str,
    webhook: &str,
    connection: &Connection,
) -> Result<String, Failure> {
    let client = Client::new(connection)?;
    let path = ["tenants", tenant, "webhooks", webhook, "health"];
    let health = client.get(&path, &[]).await?.body;
    Ok(match connection.json {
        true => table::json(&health),
        false => shown(&health),
    })
}

fn shown(health: &Value) -> String {
    let window = &health["window"];
    let span = window["span_seconds"].as_u64();
    let attempts = match window["attempts"].as_u64() {
        None => String::new(),
        Some(attempts) => format!(
            "{} of {attempts} failed{}",
            text(&window["failed"]),
            span.map_or_else(String::new, |span| format!(" within {span} s"))
        ),
    };
    fields(&[
        ("state", text(&health["state"])),
        ("since", moment(&health["since"])),
        ("why", text(&health["reason"])),
        ("attempts", attempts),
        ("first failure", moment(&window["first_failure"])),
        ("last success", moment(&window["last_success"])),
        ("what to do", text(&health["advice"])),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_and_why() {
        let health = json!({
            "state": "failing", "since": "2026-11-21T09:30:00.5Z", "reason": "slow",
            "advice": "look at the attempts",
            "window": { "attempts": 20, "failed": 19, "failure_ratio": 0.95, "first_failure": null,
                        "last_success": "2026-11-21T08:00:00Z", "span_seconds": 86400 },
        });
        let shown = shown(&health);
        for line in [
            "state          failing",
            "since          2026-11-21T09:30:00Z",
            "attempts       19 of 20 failed within 86400 s",
            "what to do     look at the attempts",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert!(!shown.contains("first failure"), "{shown}");
    }
}
