//! Replays and test events: what they append to topic `replay`.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use reqwest::StatusCode;
use ringback_admin::Config;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::record::{Delivery, HeaderBuf, decode_delivery, header};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::{Failing, Rig, keys};

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

/// Parks a delivery of event `number`, and says when.
pub(crate) fn park(rig: &Rig, webhook: &str, number: u128, run: u32, reason: &str) -> Timestamp {
    let event = Event {
        id: Uuid::from_u128(number),
        name: EventName::parse("cdr.completed").unwrap(),
        time: Timestamp::from_millis(1_700_000_000_000),
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("pbx").unwrap(),
        subject: None,
        data: format!("{{\"number\":{number}}}").into(),
        backfill: false,
        traceparent: None,
    };
    let delivery = Delivery {
        event: event.into(),
        webhook: Uuid::parse_str(webhook).unwrap(),
        attempt: 6,
        run,
        accepted: Timestamp::from_millis(1_700_000_000_500),
        deferrals: 3,
    };
    let mut buf = HeaderBuf::default();
    buf.push_delivery(&delivery);
    buf.push(header::REASON, reason);
    buf.push(header::DETAIL, "by a test");
    rig.append(
        Role::Parked,
        Some(webhook),
        &buf.headers(),
        &delivery.event.data,
    )
    .at
}

/// What stands in `replay`, as (event, run), sorted.
fn replays(rig: &Rig) -> Vec<(u128, u32)> {
    let mut runs = rig.records(Role::Replay, |record| {
        let delivery = decode_delivery(&record).unwrap();
        assert_eq!((delivery.attempt, delivery.deferrals), (0, 0));
        assert_eq!(record.key, Some(delivery.webhook.to_string().as_bytes()));
        assert!(delivery.accepted > Timestamp::from_millis(1_700_000_000_500));
        let number = delivery.event.id.as_u128();
        assert_eq!(delivery.event.data, format!("{{\"number\":{number}}}"));
        (number, delivery.run)
    });
    runs.sort_unstable();
    runs
}

#[track_caller]
fn assert_counts(body: &Value, selected: u64, replayed: u64, already: u64) {
    let counts = [
        &body["selected"],
        &body["replayed"],
        &body["already_replayed"],
    ];
    assert_eq!(
        counts,
        [&json!(selected), &json!(replayed), &json!(already)],
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_replayed_once() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=5 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    // A second trace of the same delivery, as a crash leaves it.
    park(&rig, &webhook, 5, 0, "exhausted");
    park(&rig, &Uuid::from_u128(9).to_string(), 77, 0, "removed");

    let path = format!("{CDR}/replay");
    rig.post(&path, json!({}))
        .await
        .problem(400, "nothing_selected");
    let dry = rig.post(&path, json!({"all": true, "dry_run": true})).await;
    assert_counts(&dry.expect(StatusCode::OK).body, 5, 0, 0);
    assert_eq!(replays(&rig), []);

    let one = rig.post(&path, json!({"event": Uuid::from_u128(3)})).await;
    assert_counts(&one.expect(StatusCode::OK).body, 1, 1, 0);
    let all = rig.post(&path, json!({"all": true})).await;
    assert_counts(&all.expect(StatusCode::OK).body, 5, 4, 1);
    assert_eq!(all.body["cursor"], Value::Null);
    assert_eq!(replays(&rig), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    let again = rig.post(&path, json!({"all": true})).await;
    assert_counts(&again.body, 5, 0, 5);

    let listed = rig.get(&format!("{CDR}/parked")).await;
    let replayed = |entry: &Value| entry["replayed"] == true;
    assert!(
        listed.body["parked"]
            .as_array()
            .unwrap()
            .iter()
            .all(replayed),
        "{}",
        listed.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_again_is_replayed_as_the_next() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let path = format!("{CDR}/replay");
    for run in 0..3 {
        park(&rig, &webhook, 1, run, "rejected");
        let answer = rig.post(&path, json!({"all": true})).await;
        assert_counts(
            &answer.expect(StatusCode::OK).body,
            u64::from(run) + 1,
            1,
            run.into(),
        );
    }
    assert_eq!(replays(&rig), [(1, 1), (1, 2), (1, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_add_up() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    park(&rig, &webhook, 1, 0, "exhausted");
    park(&rig, &webhook, 2, 0, "rejected");
    let path = format!("{CDR}/replay");
    let future = json!({"since": "2999-01-01T00:00:00Z", "all": true});
    assert_counts(&rig.post(&path, future).await.body, 0, 0, 0);
    rig.post(&path, json!({"reason": "bored"}))
        .await
        .problem(400, "invalid_parameter");
    rig.post(&path, json!({"all": true, "cursor": "x"}))
        .await
        .problem(400, "invalid_cursor");
    let none = json!({"reason": "rejected", "event": Uuid::from_u128(1)});
    assert_counts(&rig.post(&path, none).await.body, 0, 0, 0);
    let rejected = json!({"reason": "rejected", "since": "2020-01-01T00:00:00Z"});
    assert_counts(&rig.post(&path, rejected).await.body, 1, 1, 0);
    assert_eq!(replays(&rig), [(2, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_of_one_webhook_at_the_same_time_send_nothing_twice() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=200 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    let requests: Vec<_> = (0..6)
        .map(|_| {
            let request = rig.request(reqwest::Method::POST, &format!("{CDR}/replay"));
            tokio::spawn(crate::rig::send(request.json(&json!({"all": true}))))
        })
        .collect();
    let mut replayed = 0;
    for request in requests {
        let answer = request.await.unwrap();
        match answer.status {
            StatusCode::OK => replayed += answer.body["replayed"].as_u64().unwrap(),
            _ => answer.problem(409, "replay_running"),
        }
    }
    assert_eq!(replayed, 200);
    assert_eq!(
        replays(&rig),
        (1..=200).map(|number| (number, 1)).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_fails_says_how_many_were_replayed() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=10 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    let failing = Failing {
        log: rig.log.clone(),
        after: Arc::new(AtomicI64::new(4)),
    };
    let broken = Rig::serving(rig.log.clone(), failing, Config::default(), keys("first")).await;
    let answer = broken
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    answer.problem(503, "log_unavailable");
    assert_counts(&answer.body, 10, 4, 0);
    assert_eq!(replays(&rig).len(), 4);
    broken
        .post(&format!("{CDR}/test"), json!({}))
        .await
        .problem(503, "log_unavailable");
    // Asking again where the log works replays the rest, and nothing twice.
    let rest = rig
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    assert_counts(&rest.expect(StatusCode::OK).body, 10, 6, 4);
    assert_eq!(
        replays(&rig),
        (1..=10).map(|number| (number, 1)).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_goes_to_the_webhook_alone() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let answer = rig
        .post(&format!("{CDR}/test"), json!({"message": "hello"}))
        .await;
    let id = answer.expect(StatusCode::ACCEPTED).body["event"]
        .as_str()
        .unwrap();
    let deliveries = rig.records(Role::Replay, |record| decode_delivery(&record).unwrap());
    assert_eq!(deliveries.len(), 1);
    let delivery = &deliveries[0];
    assert_eq!(
        (delivery.event.id.to_string(), delivery.run),
        (id.to_owned(), 0)
    );
    assert_eq!(delivery.event.name.as_str(), "webhook.test");
    assert_eq!(delivery.webhook.to_string(), webhook);
    let data: Value = serde_json::from_slice(&delivery.event.data).unwrap();
    assert_eq!(data, json!({"message": "hello", "webhook": "cdr"}));
    assert_eq!(answer.body["warnings"], json!([]));
    rig.post(&format!("{CDR}/pause"), json!({}))
        .await
        .expect(StatusCode::OK);
    let paused = rig.post(&format!("{CDR}/test"), json!({})).await;
    assert_eq!(paused.body["warnings"].as_array().unwrap().len(), 1);
}
