//! Calls of real PBXs, one to one: live SIP calls through Kamailio, and recordings.

// Test code: a broken expectation should panic, and what is skipped is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use ringback_tests::process::{Process, api, binary};
use ringback_tests::receiver::{Books, Receiver, Request};
use ringback_tests::sip;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A whole Ringback with a tenant whose webhooks post to a receiver: CDRs and calls.
struct Installation {
    ringback: Process,
    receiver: Receiver,
    token: String,
    _dir: TempDir,
}

impl Installation {
    async fn start() -> Self {
        let receiver = Receiver::start().await;
        let dir = tempfile::tempdir().unwrap();
        let ringback = Process::start("up", dir.path(), &[]).await;
        let client = reqwest::Client::new();
        let admin = format!("{}/v1", ringback.url("admin"));
        let post = async |path: &str, body: Value| {
            api(&client, &format!("{admin}/{path}"), "POST", body).await
        };
        post("tenants", json!({ "id": "acme", "title": "Test" })).await;
        for (name, pattern) in [("cdr", "cdr.*"), ("calls", "call.*")] {
            let url = receiver.url(name);
            let body = json!({ "name": name, "url": url, "subscription": [pattern] });
            post("tenants/acme/webhooks", body).await;
            let path = format!("tenants/acme/webhooks/{name}/test");
            post(&path, json!({})).await;
        }
        // When the tests have arrived, events will.
        let known = |books: &Books| books.delivered() == 2;
        receiver.wait("the webhooks are known", known).await;
        receiver.forget();
        let token = post("tokens", json!({ "name": "pbx", "tenant": "acme" })).await;
        Self {
            token: token["token"].as_str().unwrap().to_owned(),
            ringback,
            receiver,
            _dir: dir,
        }
    }

    /// Sends a recording; every line must be accepted.
    fn send(&self, recording: &Path, mapping: &Path) {
        let output = Command::new(binary())
            .args(["send", "--backfill", "--to", &self.ringback.url("ingest")])
            .arg("--mapping")
            .arg(mapping)
            .arg(recording)
            .env("RINGBACK_TOKEN", &self.token)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// Ends it in good order: what was accepted and is due has been sent. The requests by path.
    async fn end(mut self) -> BTreeMap<String, Vec<Request>> {
        assert_eq!(self.ringback.terminate().await, Some(0));
        let mut by_path: BTreeMap<String, Vec<Request>> = BTreeMap::new();
        let requests = self.receiver.books(|books| books.requests.clone());
        for request in requests {
            by_path
                .entry(request.path.clone())
                .or_default()
                .push(request);
        }
        by_path
    }
}

/// What one request says: type, Call-ID and outcome.
fn facts(request: &Request) -> (String, String, String) {
    let body = request.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let data = &body["data"];
    assert_eq!(body["type"], data["event"], "{body}");
    assert_eq!(body["source"], "/kamailio/1", "{body}");
    (
        text(&body["type"]),
        text(&data["call_id"]),
        text(&data["outcome"]),
    )
}

/// What these calls should make.
fn expected(calls: &[(&str, &str, usize)]) -> BTreeSet<(String, String, String)> {
    let mut expected = BTreeSet::new();
    for (kind, group, count) in calls {
        let events: &[&str] = match *kind {
            "answered" => &["call.leg.answered", "call.leg.ended", "cdr.completed"],
            _ => &["call.leg.failed", "cdr.completed"],
        };
        for number in 1..=*count {
            let call = format!("{kind}-{group}-{number}");
            let fact = |event: &&str| ((*event).to_owned(), call.clone(), (*kind).to_owned());
            expected.extend(events.iter().map(fact));
        }
    }
    expected
}

/// Each fact once, each with an id of its own, at the webhook that is subscribed to it.
fn check(requests: &BTreeMap<String, Vec<Request>>, calls: &[(&str, &str, usize)]) {
    let expected = expected(calls);
    let mut ids = BTreeSet::new();
    let mut seen = Vec::new();
    for (path, requests) in requests {
        for request in requests {
            let facts = facts(request);
            let at = if facts.0.starts_with("cdr.") {
                "cdr"
            } else {
                "calls"
            };
            assert_eq!(path, at, "{facts:?}");
            assert!(
                ids.insert(request.id()),
                "two events with one id: {facts:?}"
            );
            seen.push(facts);
        }
    }
    seen.sort();
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_calls_are_delivered_one_to_one() {
    let sip = match tokio::task::spawn_blocking(sip::prepare).await.unwrap() {
        Ok(sip) => sip,
        Err(missing) => {
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
            assert!(!in_ci, "{missing}");
            eprintln!("SKIPPED, no live calls: {missing}");
            return;
        }
    };
    let mut installation = Installation::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (ingest, token) = (
        installation.ringback.url("ingest"),
        installation.token.clone(),
    );
    let start = || sip.start(dir.path(), &ingest, &token);
    let pbx = tokio::task::block_in_place(start);
    let call = |kind, group, calls| tokio::task::block_in_place(|| pbx.call(kind, group, calls));
    let mut calls = vec![
        ("answered", "a", 8),
        ("busy", "a", 4),
        ("cancelled", "a", 4),
    ];
    for (kind, group, count) in &calls {
        call(*kind, *group, *count);
    }
    let all = |calls: &[_]| expected(calls).len();
    let wanted = all(&calls);
    installation
        .receiver
        .wait("all calls are there", |books| books.delivered() >= wanted)
        .await;
    // While nobody takes events, Kamailio keeps them and posts them again.
    assert_eq!(installation.ringback.terminate().await, Some(0));
    let away = [
        ("answered", "b", 2),
        ("busy", "b", 1),
        ("cancelled", "b", 1),
    ];
    for (kind, group, count) in away {
        call(kind, group, count);
    }
    calls.extend(away);
    installation.ringback.restart().await;
    let wanted = all(&calls);
    installation
        .receiver
        .wait("those made meanwhile as well", |books| {
            books.delivered() >= wanted
        })
        .await;
    let said = pbx.log();
    assert!(!said.contains("Ringback refuses"), "{said}");
    drop(pbx);
    check(&installation.end().await, &calls);
}

fn pbx(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pbx").join(file)
}

/// The same without Kamailio: a recorded run, sent twice. What is sent again is known by its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn recorded_calls_are_delivered_one_to_one() {
    let installation = Installation::start().await;
    let calls = [
        ("answered", "a", 8),
        ("busy", "a", 4),
        ("cancelled", "a", 4),
    ];
    let wanted = expected(&calls).len();
    let send = || {
        installation.send(
            &pbx("kamailio/recorded.jsonl"),
            &pbx("kamailio/mapping.toml"),
        )
    };
    tokio::task::block_in_place(send);
    installation
        .receiver
        .wait("all calls are there", |books| books.delivered() >= wanted)
        .await;
    let first = installation.receiver.books(|books| books.delivered());
    tokio::task::block_in_place(send);
    installation
        .receiver
        .wait("all came again", |books| books.requests.len() >= 2 * wanted)
        .await;
    let again = installation.receiver.books(|books| books.delivered());
    assert_eq!((first, again), (wanted, wanted), "the same ids");
    let mut requests = installation.end().await;
    for requests in requests.values_mut() {
        let mut seen = BTreeMap::new();
        for request in &*requests {
            *seen.entry(request.id()).or_insert(0) += 1;
        }
        assert!(seen.values().all(|count| *count == 2), "{seen:?}");
        let mut ids = BTreeSet::new();
        requests.retain(|request| ids.insert(request.id()));
    }
    check(&requests, &calls);
}

/// Several CDRs for a call come from Asterisk's Local channels: each is an event of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_cdrs_of_an_asterisk_are_delivered_one_to_one() {
    let installation = Installation::start().await;
    let recording = pbx("asterisk/cdr.jsonl");
    let text = std::fs::read_to_string(&recording).unwrap();
    let cdr = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let key = |cdr: &Value| (cdr["uniqueid"].to_string(), cdr["sequence"].to_string());
    let cdrs: BTreeMap<_, _> = text.lines().map(cdr).map(|cdr| (key(&cdr), cdr)).collect();
    assert_eq!(
        cdrs.len(),
        text.lines().count(),
        "each has a key of its own"
    );
    tokio::task::block_in_place(|| installation.send(&recording, &pbx("asterisk/mapping.toml")));
    installation
        .receiver
        .wait("all are there", |books| books.delivered() >= cdrs.len())
        .await;
    let requests = installation.end().await;
    let requests = &requests["cdr"];
    assert_eq!(requests.len(), cdrs.len(), "and no more");
    for request in requests {
        let body = request.json();
        assert_eq!(body["data"], cdrs[&key(&body["data"])], "{body}");
        assert_eq!(body["type"], "cdr.completed");
        let linked = body["data"]["linkedid"].as_str().unwrap();
        assert_eq!(body["subject"], format!("call/{linked}"));
    }
}
