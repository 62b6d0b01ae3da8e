//! The administration, asked whatever its own document allows, and what it does not: no answer is a server's
//! error, and every one is as the document says. `cargo xtask fuzz-api` asks for longer.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use ringback_tests::process::{Process, api};
use ringback_tests::rig::OPERATOR;
use ringback_tests::schemathesis;
use serde_json::json;

/// For each of the two who ask.
const SECONDS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_too_much_for_the_api() {
    let seconds = std::env::var("RINGBACK_FUZZ_API_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("up", dir.path(), &[]).await;
    let url = process.url("admin");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post =
        async |path: &str, body| api(&client, &format!("{url}/v1/{path}"), "POST", body).await;
    post("tenants", json!({ "id": "acme" })).await;
    let webhook = json!({ "preset": "cdr", "url": "https://crm.example.com/cdr" });
    post("tenants/acme/webhooks", webhook).await;
    let scopes = json!({ "tenant": "acme", "scopes": ["read", "write"] });
    let token = post("tokens", scopes).await["token"].take();
    for who in [token.as_str().unwrap().to_owned(), OPERATOR.to_owned()] {
        let asked = url.clone();
        let fuzzed = tokio::task::spawn_blocking(move || {
            schemathesis::prepare()?.fuzz(&asked, &who, Duration::from_secs(seconds))
        });
        if let Err(found) = fuzzed.await.unwrap() {
            panic!("{found}");
        }
    }
}
