//! What is not to be shown is not shown, whichever way it is asked for, and not kept in the projection.

use std::fs;
use std::path::Path;

use reqwest::{Method, StatusCode};
use ringback_admin::{Config, ProjectionConfig};
use ringback_core::log::Header;
use ringback_core::record::{decode_delivery, header};
use ringback_core::redaction::{Redaction, Rules};
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::Rig;

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";
/// In a hidden member, in a hidden header, and the beginning of a number.
const SECRETS: [&str; 3] = ["anna-secret", "header-secret", "491701"];

fn rules() -> Rules {
    Rules {
        fields: vec!["caller/name".to_owned()],
        headers: vec!["X-Caller".to_owned()],
        numbers: Some(3),
        responses: false,
    }
}

async fn rig() -> Rig {
    let config = Config {
        redact: rules(),
        ..Config::default()
    };
    Rig::with(config).await
}

fn data() -> Value {
    json!({ "caller": { "name": "anna-secret", "number": "+491701234567" }, "status": 200 })
}

fn attempt(rig: &Rig, webhook: &str, event: Uuid) {
    let lines = json!([["x-caller", "header-secret"], ["x-to", "+491701234567"]]);
    let record = json!({
        "version": 1, "event": event, "type": "cdr.completed", "tenant": "acme",
        "webhook": webhook, "generation": 0, "run": 0, "attempt": 0,
        "started": "2026-11-21T09:30:00Z", "duration_ms": 12, "outcome": "status",
        "status": 503, "error": "nobody wants 491701234567", "next": "retry.32s",
        // Cut off, as the first 4 KiB are.
        "response": json!({ "got": data().to_string() }).to_string().trim_end_matches("\"}"),
        "dispatcher": "test", "request_headers": lines, "response_headers": lines,
    });
    let record = record.to_string();
    rig.append(Role::Attempts, Some(webhook), &[], record.as_bytes());
}

fn park(rig: &Rig, webhook: &str, event: Uuid) {
    let id = event.to_string();
    let fields = [
        (header::ID, id.as_str()),
        (header::SOURCE, "pbx"),
        (header::TYPE, "cdr.completed"),
        (header::TIME, "2026-11-21T09:30:00Z"),
        (header::TENANT, "acme"),
        (header::SUBJECT, "number/+491701234567"),
        (header::WEBHOOK, webhook),
        (header::ATTEMPT, "6"),
        (header::RUN, "0"),
        (header::ACCEPTED, "2026-11-21T09:30:00Z"),
        (header::DEFERRALS, "0"),
        (header::REASON, "undeliverable"),
        (header::DETAIL, "not to 491701234567"),
        ("X-Caller", "header-secret"),
    ];
    let headers = fields.map(|(name, value)| Header {
        name,
        value: value.as_bytes(),
    });
    let value = data().to_string();
    rig.append(Role::Parked, Some(webhook), &headers, value.as_bytes());
    // Nobody's: headers and the beginning are shown.
    rig.append(Role::Parked, None, &headers, value.as_bytes());
}

#[track_caller]
fn says_nothing(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Whether a file of the projection has this text.
fn kept(dir: &Path, text: &str) -> bool {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.is_file());
    files.into_iter().any(|path| {
        let bytes = fs::read(path).unwrap();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_from_the_log_say_nothing_that_is_hidden() {
    let rig = rig().await;
    ask_everywhere(&rig).await;
    let raw = rig.get("/v1/parked").await;
    says_nothing(&raw.expect(StatusCode::OK).text);
    let entry = &raw.body["parked"][0];
    assert_eq!(entry["headers"]["X-Caller"], "(hidden)");
    assert_eq!(entry["detail"], "not to *********567");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_does_not_have_what_is_hidden() {
    let redaction = Redaction::new(&rules());
    let rig = projecting(redaction).await;
    let files = rig.files();
    assert!(kept(&files, "nobody wants *********567"));
    for secret in SECRETS {
        // The subject of what is parked is kept, for erasures.
        assert!(secret == "491701" || !kept(&files, secret), "{secret}");
    }
}

/// Rules that came later are obeyed at once.
#[tokio::test(flavor = "multi_thread")]
async fn lists_from_a_projection_say_nothing_of_it_that_is_hidden() {
    let rig = projecting(Redaction::default()).await;
    assert!(kept(&rig.files(), "header-secret"));
}

/// A projection that has left out this much.
async fn projecting(redaction: Redaction) -> Rig {
    let mut rig = rig().await;
    let files = rig.files();
    let config = ProjectionConfig {
        redaction,
        ..ProjectionConfig::default()
    };
    rig.project_as(&config, &files);
    rig.until("projecting").await;
    ask_everywhere(&rig).await;
    let event = format!("/v1/tenants/acme/events/{}", Uuid::from_u128(1));
    let shown = rig.get(&event).await;
    says_nothing(&shown.expect(StatusCode::OK).text);
    let delivery = &shown.body["deliveries"][0];
    assert_eq!(delivery["detail"], "not to *********567");
    rig
}

async fn ask_everywhere(rig: &Rig) {
    let webhook = rig.acme().await;
    let webhook = webhook["id"].as_str().unwrap();
    let event = Uuid::from_u128(1);
    attempt(rig, webhook, event);
    park(rig, webhook, event);

    let list = rig.get(&format!("{CDR}/attempts")).await;
    says_nothing(&list.expect(StatusCode::OK).text);
    let attempt = &list.body["attempts"][0];
    assert_eq!(attempt["error"], "nobody wants *********567");
    let lines = json!([["x-caller", "(hidden)"], ["x-to", "+*********567"]]);
    assert_eq!(attempt["request_headers"], lines);
    assert_eq!(attempt["response_headers"], lines);
    let response = attempt["response"].as_str().unwrap();
    assert!(response.contains("+*********567"), "{response}");
    assert!(response.contains("(hidden)"), "{response}");
    let health = rig.get(&format!("{CDR}/health")).await;
    says_nothing(&health.expect(StatusCode::OK).text);

    let parked = rig.get(&format!("{CDR}/parked?event={event}")).await;
    says_nothing(&parked.expect(StatusCode::OK).text);
    let parked = &parked.body["parked"][0];
    assert_eq!(parked["subject"], "number/+*********567");
    let shown = json!({
        "caller": { "name": "(hidden)", "number": "+*********567" }, "status": 200
    });
    assert_eq!(parked["data"], shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_as_it_happens_says_nothing_that_is_hidden() {
    let rig = rig().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let stream = rig.request(Method::GET, &format!("{CDR}/attempts/stream"));
    let mut stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    attempt(&rig, &webhook, Uuid::from_u128(1));
    let mut said = String::new();
    while !said.contains("\n\n") {
        let chunk = stream.chunk().await.unwrap().unwrap();
        said.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    says_nothing(&said);
    assert!(said.contains("nobody wants *********567"), "{said}");

    // What came back of a test is somebody else's word, too; what was sent is one's own.
    let form = json!({ "message": "for 491701234567" });
    let sent = rig
        .request(Method::POST, &format!("{CDR}/test"))
        .json(&form);
    let sent = tokio::spawn(sent.send());
    let event = loop {
        let events = rig.records(Role::Replay, |record| {
            decode_delivery(&record).unwrap().event.id
        });
        match events.first() {
            Some(event) => break *event,
            None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    attempt(&rig, &webhook, event);
    let sent = sent.await.unwrap().unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
    let sent: Value = sent.json().await.unwrap();
    let mut exchange = sent["exchange"].clone();
    let body = exchange["request"]["body"].take();
    assert!(
        body.as_str().unwrap().contains("for 491701234567"),
        "{body}"
    );
    says_nothing(&exchange.to_string());
}
