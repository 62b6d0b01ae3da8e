//! The ingest over HTTP, on the local log: one verdict per event, and 202 only for what is durable.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod cloudevents;
mod faults;
mod log_away;
mod peers;
mod publisher;
mod raw;
mod rig;

use ringback_core::account::uses::TokenUse;
use ringback_core::log::{Log, Reader};
use ringback_core::secret::Secret;
use ringback_core::topics::Role;
use ringback_producer::Config;
use ringback_telemetry::Counter;
use serde_json::json;
use uuid::Uuid;

use rig::{Answer, JSON, LINES, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_accepted_when_it_is_durable() {
    let rig = Rig::start().await;
    let event = r#"{"type":"cdr.completed","subject":"call/1","data":{"a":1}}"#;
    let answer = rig.post(&rig.own, JSON, event).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id: Uuid = answer.body["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(rig.accepted(), [id]);
    assert_eq!(rig.metrics.count(Counter::EventsAccepted, &["cdr"]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_a_token_is_noted_once_in_a_while() {
    let rig = Rig::start().await;
    let event = r#"{"type":"cdr.completed","data":{}}"#;
    for _ in 0..3 {
        assert_eq!(rig.post(&rig.own, JSON, event).await.status, 202);
    }
    assert_eq!(rig.post(&rig.manager, JSON, event).await.status, 403);
    let uses = || {
        let topic = rig.log.topics().find(Role::Uses).unwrap();
        let partition = rig.log.topics().partitions(topic).next().unwrap();
        let mut reader = rig.log.reader().unwrap();
        let mut uses = Vec::new();
        let bounds = reader.bounds(partition).unwrap();
        reader
            .read(partition, bounds, &mut |record| {
                let used: TokenUse = serde_json::from_slice(record.value.unwrap()).unwrap();
                uses.push(used.token);
            })
            .unwrap();
        uses
    };
    // Nobody waits for that.
    while uses().len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(uses(), [Uuid::from_u128(1), Uuid::from_u128(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_send_what() {
    let rig = Rig::start().await;
    let event = r#"{"type":"call.started","data":{}}"#;
    let wrong = Secret::new("rbk_nonsense");
    let answer = rig.post(&wrong, JSON, event).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (401, &json!("unauthorized"))
    );
    let manages = rig.post(&rig.manager, JSON, event).await;
    assert_eq!(
        (manages.status, &manages.body["code"]),
        (403, &json!("no_such_scope"))
    );
    let named =
        |tenant: &str| format!(r#"{{"type":"call.started","tenant":"{tenant}","data":{{}}}}"#);
    // A tenant's token speaks for its tenant only.
    assert_eq!(rig.post(&rig.own, JSON, named("acme")).await.status, 202);
    assert_eq!(rig.post(&rig.own, JSON, named("other")).await.status, 400);
    // A token for all needs the tenant named, and it must exist.
    assert_eq!(rig.post(&rig.all, JSON, named("other")).await.status, 202);
    assert_eq!(
        rig.post(&rig.all, JSON, event).await.body["code"],
        "illegal_attribute"
    );
    assert_eq!(
        rig.post(&rig.all, JSON, named("nobody")).await.body["code"],
        "unknown_tenant"
    );
    // Our own notices cannot be forged.
    let forged = r#"{"type":"webhook.disabled","data":{}}"#;
    assert_eq!(
        rig.post(&rig.own, JSON, forged).await.body["code"],
        "illegal_attribute"
    );
    assert_eq!(rig.accepted().len(), 2);
}

/// Who hands in too much is told when to go on; it costs nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_hands_in_too_much_is_slowed_down() {
    let config = Config {
        tenant_rate: 1,
        tenant_burst: 3,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    let event =
        |tenant: &str| format!(r#"{{"type":"call.started","tenant":"{tenant}","data":{{}}}}"#);
    let lines = (0..20)
        .map(|_| event("acme"))
        .collect::<Vec<_>>()
        .join("\n");
    let answer = rig.post(&rig.all, LINES, lines).await;
    assert_eq!(
        (answer.status, answer.retry_after),
        (429, true),
        "{}",
        answer.body
    );
    let accepted = answer.body["accepted"].as_u64().unwrap();
    // On a busy machine some come back meanwhile.
    assert!((3..20).contains(&accepted), "{}", answer.body);
    let refused = answer.body["refused"].as_array().unwrap();
    assert!(
        refused
            .iter()
            .all(|refused| refused["code"] == "over_quota"),
        "{}",
        answer.body
    );
    let one = loop {
        let one = rig.post(&rig.own, JSON, event("acme")).await;
        if one.status != 202 {
            break one;
        }
    };
    assert_eq!((one.status, one.retry_after), (429, true));
    assert_eq!(one.body["code"], "over_quota");
    assert_eq!(rig.post(&rig.all, JSON, event("other")).await.status, 202);
}

/// Every kind of bad line is named with its index and reason; its neighbours are accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_does_not_hurt_its_neighbours() {
    let rig = Rig::start().await;
    let good = |n: u32| format!(r#"{{"type":"cdr.completed","data":{{"n":{n}}}}}"#).into_bytes();
    let large = format!(r#"{{"type":"a","data":{{"x":"{}"}}}}"#, "x".repeat(300_000));
    let old = r#"{"type":"cdr.completed","time":"2020-01-01T00:00:00Z","data":{}}"#;
    let lines: Vec<(Vec<u8>, Option<&str>)> = vec![
        (good(0), None),
        (b"nonsense".to_vec(), Some("not_json")),
        (b"[1,2]".to_vec(), Some("not_json")),
        (good(3), None),
        (
            br#"{"type":"cdr.completed","data":[]}"#.to_vec(),
            Some("data_not_object"),
        ),
        (b"{\"type\":\"\xff\"}".to_vec(), Some("not_utf8")),
        (b"".to_vec(), None),
        (large.into_bytes(), Some("too_large")),
        (
            br#"{"type":"bad type","data":{}}"#.to_vec(),
            Some("illegal_attribute"),
        ),
        (old.into(), Some("too_old")),
        (good(10), None),
    ];
    let body = lines
        .iter()
        .map(|(line, _)| line.clone())
        .collect::<Vec<_>>()
        .join(&b'\n');
    let answer = rig.post(&rig.own, LINES, body.clone()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["accepted"], 3);
    let refused: Vec<_> = answer.body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            (
                r["index"].as_u64().unwrap(),
                r["code"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected: Vec<_> = (0u64..)
        .zip(&lines)
        .filter_map(|(index, (_, code))| Some((index, (*code)?.to_owned())))
        .collect();
    assert_eq!(refused, expected);
    for refused in answer.body["refused"].as_array().unwrap() {
        assert!(refused["reason"].as_str().unwrap().len() > 10, "{refused}");
    }
    assert_eq!(rig.accepted().len(), 3);
    // The old one is accepted when it is meant.
    let url = format!("{}?backfill=true", rig.url);
    assert_eq!(
        rig.post_to(&url, &rig.own, LINES, old).await.body["accepted"],
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_told_so() {
    let config = Config {
        body_bytes_max: 2048,
        batch_events_max: 3,
        in_flight_bytes_max: 4096,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    let code = |answer: &Answer| answer.body["code"].as_str().unwrap().to_owned();
    let answer = rig.post(&rig.own, "text/xml", "<a/>").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (415, "unsupported_media_type".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "\n\n").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (400, "empty_batch".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "{}\n{}\n{}\n{}").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (413, "too_many_events".to_owned())
    );
    let answer = rig.post(&rig.own, JSON, "x".repeat(3000)).await;
    assert_eq!(
        (answer.status, code(&answer)),
        (413, "too_large".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "nonsense").await;
    assert_eq!((answer.status, &answer.body["accepted"]), (400, &json!(0)));
    let url = format!("{}?backfill=maybe", rig.url);
    let answer = rig.post_to(&url, &rig.own, JSON, "{}").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (400, "illegal_query".to_owned())
    );
    let response = rig.client.get(&rig.url).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever is posted, every line that is not blank is accepted or refused, exactly once.
        #[test]
        fn every_line_has_its_verdict(lines in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>().prop_filter("no newline", |b| *b != b'\n'), 0..40),
                Just(br#"{"type":"cdr.completed","data":{}}"#.to_vec()),
            ],
            1..20,
        )) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (answer, accepted) = runtime.block_on(async {
                let rig = Rig::start().await;
                let answer = rig.post(&rig.own, LINES, lines.join(&b'\n')).await;
                (answer, rig.accepted().len())
            });
            let held = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
            if held > 0 {
                let refused = answer.body["refused"].as_array().unwrap().len();
                prop_assert_eq!(answer.body["accepted"].as_u64().unwrap(), accepted as u64);
                prop_assert_eq!(accepted + refused, held);
            }
        }
    }
}
