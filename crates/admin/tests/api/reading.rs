//! What was attempted, and what is parked.

use reqwest::StatusCode;
use ringback_core::log::Header;
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::replays::park;
use crate::rig::Rig;

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

pub(crate) fn attempt(rig: &Rig, webhook: &str, number: u128, status: u16) {
    let next = if status == 200 {
        "delivered"
    } else {
        "retry.32s"
    };
    let record = json!({
        "version": 1, "event": Uuid::from_u128(number), "type": "cdr.completed", "tenant": "acme",
        "webhook": webhook, "generation": 0, "run": 0, "attempt": 0,
        "started": "2026-11-21T09:30:00Z", "duration_ms": 12, "outcome": "status",
        "status": status, "response": "ok", "next": next, "dispatcher": "test", "new_field": 1,
    });
    rig.append(
        Role::Attempts,
        Some(webhook),
        &[],
        record.to_string().as_bytes(),
    );
}

pub(crate) fn events(answer: &Value, list: &str) -> Vec<u128> {
    let id = |entry: &Value| {
        Uuid::parse_str(entry["event"].as_str().unwrap())
            .unwrap()
            .as_u128()
    };
    answer[list].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_listed_newest_first_in_pages() {
    list_attempts(Rig::new().await, "log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_listed_from_a_projection_as_from_the_log() {
    list_attempts(Rig::projecting().await, "projection").await;
}

async fn list_attempts(rig: Rig, source: &str) {
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let none = rig.get(&format!("{CDR}/attempts")).await;
    assert_eq!(none.expect(StatusCode::OK).body["attempts"], json!([]));
    assert_eq!(none.body["cursor"], Value::Null);
    for number in 1..=30 {
        attempt(
            &rig,
            &webhook,
            number,
            if number % 3 == 0 { 503 } else { 200 },
        );
        // Of others, in the same topic.
        attempt(
            &rig,
            &Uuid::from_u128(number).to_string(),
            1000 + number,
            200,
        );
    }
    rig.append(Role::Attempts, Some(&webhook), &[], b"not JSON");

    let mut path = format!("{CDR}/attempts?limit=7");
    let mut seen = Vec::new();
    loop {
        let page = rig.get(&path).await;
        seen.extend(events(&page.expect(StatusCode::OK).body, "attempts"));
        match page.body["cursor"].as_str() {
            Some(cursor) => path = format!("{CDR}/attempts?limit=7&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=30).rev().collect::<Vec<_>>());

    let failed = rig.get(&format!("{CDR}/attempts?outcome=failed")).await;
    assert_eq!(
        events(&failed.body, "attempts"),
        (1..=10).rev().map(|n| n * 3).collect::<Vec<_>>()
    );
    assert_eq!(failed.body["source"], source);
    match source {
        "log" => assert_eq!(failed.body["unreadable"], 1),
        _ => assert_eq!(rig.get("/v1/projection").await.body["unreadable"], 1),
    }
    assert_eq!(failed.body["attempts"][0]["status"], 503);
    let delivered = rig.get(&format!("{CDR}/attempts?outcome=delivered")).await;
    assert_eq!(events(&delivered.body, "attempts").len(), 20);
    let one = rig
        .get(&format!("{CDR}/attempts?event={}", Uuid::from_u128(6)))
        .await;
    assert_eq!(events(&one.body, "attempts"), [6]);
    let later = rig
        .get(&format!("{CDR}/attempts?since=2999-01-01T00:00:00Z"))
        .await;
    assert_eq!(events(&later.body, "attempts"), [0; 0]);
    for wrong in [
        "outcome=odd",
        "cursor=x",
        "cursor=pX.1.1",
        "event=1",
        "since=today",
        "color=red",
    ] {
        let answer = rig.get(&format!("{CDR}/attempts?{wrong}")).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_deliveries_are_listed_with_their_reason() {
    list_parked(Rig::new().await, "log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_deliveries_are_listed_from_a_projection_as_from_the_log() {
    list_parked(Rig::projecting().await, "projection").await;
}

async fn list_parked(rig: Rig, source: &str) {
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    park(&rig, &webhook, 1, 0, "exhausted");
    park(&rig, &webhook, 2, 0, "paused");
    park(&rig, &Uuid::from_u128(9).to_string(), 3, 0, "removed");
    let list = rig.get(&format!("{CDR}/parked")).await;
    assert_eq!(events(&list.expect(StatusCode::OK).body, "parked"), [2, 1]);
    assert_eq!(list.body["source"], source);
    if source == "projection" {
        assert_eq!(list.body["counts"], json!({"exhausted": 1, "paused": 1}));
    }
    let newest = &list.body["parked"][0];
    assert_eq!(
        (&newest["reason"], &newest["replayed"]),
        (&json!("paused"), &json!(false))
    );
    assert_eq!(
        (&newest["detail"], &newest["data"]),
        (&json!("by a test"), &Value::Null)
    );
    let exhausted = rig.get(&format!("{CDR}/parked?reason=exhausted")).await;
    assert_eq!(events(&exhausted.body, "parked"), [1]);
    let one = rig
        .get(&format!("{CDR}/parked?event={}", Uuid::from_u128(1)))
        .await;
    assert_eq!(one.body["parked"][0]["data"], json!({"number": 1}));
    rig.get(&format!("{CDR}/parked?reason=bored"))
        .await
        .problem(400, "invalid_parameter");
    let removed = rig
        .get(&format!("/v1/parked?webhook={}", Uuid::from_u128(9)))
        .await;
    assert_eq!(events(&removed.body, "parked"), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_webhook_are_seen_by_the_operator() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    park(&rig, &webhook, 1, 0, "paused");
    for number in 0..5 {
        let text = format!("events.cdr/{number}");
        let headers = [
            Header {
                name: "rb_reason",
                value: b"undeliverable",
            },
            Header {
                name: "rb_detail",
                value: text.as_bytes(),
            },
            Header {
                name: "ce_id",
                value: b"not-a-uuid\xff",
            },
        ];
        rig.append(Role::Parked, None, &headers, b"{\"half\":");
    }
    let mut seen = Vec::new();
    let mut path = "/v1/parked?limit=2".to_owned();
    loop {
        let page = rig.get(&path).await;
        for entry in page.expect(StatusCode::OK).body["parked"]
            .as_array()
            .unwrap()
        {
            assert_eq!(entry["reason"], "undeliverable");
            assert_eq!(entry["data_preview"], "{\"half\":");
            assert_eq!(entry["headers"], json!({"ce_id": "not-a-uuid\u{fffd}"}));
            seen.push(entry["detail"].as_str().unwrap().to_owned());
        }
        match page.body["cursor"].as_str() {
            Some(cursor) => path = format!("/v1/parked?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(
        seen,
        (0..5)
            .map(|number| format!("events.cdr/{number}"))
            .collect::<Vec<_>>()
    );
}
