//! Replays and test events: what they append to topic `replay`.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use reqwest::StatusCode;
use ringback_admin::Config;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::log::Log as _;
use ringback_core::record::{Delivery, HeaderBuf, decode_delivery, header};
use ringback_core::replay_job::{JobCounts, JobFilter, JobState, ReplayJobs};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::{Failing, Rig, keys};

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

/// Parks a delivery of event `number`, and says when.
pub(crate) fn park(rig: &Rig, webhook: &str, number: u128, run: u32, reason: &str) -> Timestamp {
    park_of(rig, webhook, number, run, reason, None)
}

/// The same of a run that a replay asked for.
fn park_of(
    rig: &Rig,
    webhook: &str,
    number: u128,
    run: u32,
    reason: &str,
    replay: Option<Uuid>,
) -> Timestamp {
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
        replay,
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
    let replay = &body["replay"];
    let counts = [&replay["found"], &replay["sent"], &replay["already"]];
    assert_eq!(
        counts,
        [&json!(selected), &json!(replayed), &json!(already)],
        "{body}"
    );
    assert_eq!(
        (&replay["state"], &replay["progress"]),
        (&json!("done"), &json!(1.0)),
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
    let nothing = rig.post(&path, json!({})).await;
    nothing.problem(400, "nothing_selected");
    assert_eq!(nothing.body["field"], "all");
    let dry = rig.post(&path, json!({"all": true, "dry_run": true})).await;
    assert_counts(&dry.expect(StatusCode::ACCEPTED).body, 5, 0, 0);
    assert_eq!(replays(&rig), []);

    let one = rig.post(&path, json!({"event": Uuid::from_u128(3)})).await;
    assert_counts(&one.expect(StatusCode::ACCEPTED).body, 1, 1, 0);
    let all = rig.post(&path, json!({"all": true})).await;
    assert_counts(&all.expect(StatusCode::ACCEPTED).body, 5, 4, 1);
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
            &answer.expect(StatusCode::ACCEPTED).body,
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
        .problem(400, "invalid_field");
    let none = json!({"reason": "rejected", "event": Uuid::from_u128(1)});
    assert_counts(&rig.post(&path, none).await.body, 0, 0, 0);
    let typed = json!({"type": "call.*"});
    assert_counts(&rig.post(&path, typed).await.body, 0, 0, 0);
    let past = json!({"type": "cdr.*", "until": "2020-01-01T00:00:00Z"});
    assert_counts(&rig.post(&path, past).await.body, 0, 0, 0);
    let many = json!({"deliveries": vec![Uuid::nil(); 501]});
    rig.post(&path, many).await.problem(400, "invalid_field");
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
            StatusCode::ACCEPTED => replayed += answer.body["replay"]["sent"].as_u64().unwrap(),
            _ => answer.problem(409, "replay_running"),
        }
    }
    assert_eq!(replayed, 200);
    assert_eq!(
        replays(&rig),
        (1..=200).map(|number| (number, 1)).collect::<Vec<_>>()
    );
}

/// A replay that the log fails, or whose administration goes, is gone on with by whichever is left, and
/// nothing is sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn another_administration_goes_on_where_one_has_failed() {
    let rig = Rig::with(short()).await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=10 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    let failing = Failing {
        log: rig.log.clone(),
        // The audit, and four deliveries.
        after: Arc::new(AtomicI64::new(5)),
    };
    let broken = Rig::serving(rig.log.clone(), failing, short(), keys("first")).await;
    let begun = broken
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    let begun = &begun.expect(StatusCode::ACCEPTED).body["replay"];
    assert_eq!(
        (&begun["state"], &begun["sent"]),
        (&json!("running"), &json!(4)),
        "{begun}"
    );
    assert!(
        begun["error"]
            .as_str()
            .unwrap()
            .contains("no broker answers"),
        "{begun}"
    );
    let done = ended(&rig, begun["id"].as_str().unwrap()).await;
    let counts = ["state", "found", "sent", "already", "error"].map(|name| done[name].clone());
    assert_eq!(
        counts,
        [json!("done"), json!(10), json!(10), json!(0), Value::Null],
        "{done}"
    );
    assert_eq!(
        replays(&rig),
        (1..=10).map(|number| (number, 1)).collect::<Vec<_>>()
    );
    broken
        .post(&format!("{CDR}/test"), json!({}))
        .await
        .problem(503, "log_unavailable");
}

/// A lease for tests, in which somebody is soon taken for gone.
fn short() -> Config {
    Config {
        replay_lease: std::time::Duration::from_millis(900),
        ..Config::default()
    }
}

/// A replay, once it has ended.
async fn ended(rig: &Rig, id: &str) -> Value {
    loop {
        let mut answer = rig.get(&format!("{CDR}/replays/{id}")).await;
        let replay = answer.body["replay"].take();
        if replay["state"] != "running" {
            return replay;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The record that a replay stands in.
pub(crate) fn record(rig: &Rig, webhook: &str, change: impl FnOnce(&mut ReplayJobs)) {
    let webhook = Uuid::parse_str(webhook).unwrap();
    let (mut jobs, revision) = {
        let directory = rig.directory.read();
        let jobs = directory.jobs(webhook).unwrap();
        (jobs.value.clone(), jobs.revision)
    };
    change(&mut jobs);
    let topic = rig.log.topics().find(Role::Jobs).unwrap();
    let value = serde_json::to_vec(&jobs).unwrap();
    let written =
        rig.log
            .compare_and_set(topic, &webhook.to_string(), Some(revision), Some(&value));
    let wait = std::time::Duration::from_secs(30);
    assert!(
        rig.directory
            .wait_applied(Role::Jobs, written.unwrap(), wait)
    );
}

/// As a crash leaves it: the record says that somebody works on it, and some of the piece is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_administration_has_crashed_is_gone_on_with() {
    let rig = Rig::with(short()).await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=5 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    let first = json!({"deliveries": [Uuid::from_u128(1), Uuid::from_u128(4)]});
    let first = rig.post(&format!("{CDR}/replay"), first).await;
    assert_counts(&first.expect(StatusCode::ACCEPTED).body, 2, 2, 0);
    let gone = Uuid::from_u128(99);
    record(&rig, &webhook, |jobs| {
        let mut job = jobs.ended.remove(0);
        job.state = JobState::Running;
        job.owner = Some(gone);
        job.ended = None;
        job.next = job.from;
        job.filter = JobFilter::default();
        job.counts = JobCounts::default();
        jobs.running = Some(job);
    });
    // Nobody else begins one meanwhile.
    let second = rig
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    let id = first.body["replay"]["id"].as_str().unwrap();
    if second.status != StatusCode::ACCEPTED {
        second.problem(409, "replay_running");
        assert_eq!(second.body["replay"], id);
    }
    let done = ended(&rig, id).await;
    // What the crashed one had sent counts as sent by the replay, and is not sent again.
    let counts = ["state", "found", "sent", "already"].map(|name| done[name].clone());
    assert_eq!(
        counts,
        [json!("done"), json!(5), json!(5), json!(0)],
        "{done}"
    );
    assert_eq!(replays(&rig), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_cancelled_whoever_works_on_it() {
    let rig = Rig::with(short()).await;
    let beside = rig.beside(short(), keys("first")).await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let done = rig
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    let id = done.body["replay"]["id"].as_str().unwrap().to_owned();
    // What has ended stays as it is.
    let again = rig.delete(&format!("{CDR}/replays/{id}")).await;
    assert_eq!(again.expect(StatusCode::OK).body["replay"]["state"], "done");
    park(&rig, &webhook, 1, 0, "exhausted");
    record(&rig, &webhook, |jobs| {
        let mut job = jobs.ended.remove(0);
        job.state = JobState::Running;
        job.owner = Some(Uuid::from_u128(99));
        job.ended = None;
        job.until = 1_000_000;
        job.cancel = true;
        jobs.running = Some(job);
    });
    let cancelled = beside.delete(&format!("{CDR}/replays/{id}")).await;
    cancelled.expect(StatusCode::OK);
    assert_eq!(ended(&rig, &id).await["state"], "cancelled");
    assert_eq!(replays(&rig), []);
    let list = rig.get(&format!("{CDR}/replays")).await;
    assert_eq!(
        list.body["replays"].as_array().unwrap().len(),
        1,
        "{}",
        list.text
    );
    for wrong in ["none", &Uuid::nil().to_string()] {
        let path = format!("{CDR}/replays/{wrong}");
        rig.get(&path).await.problem(404, "no_such_replay");
        rig.delete(&path).await.problem(404, "no_such_replay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_goes_to_the_webhook_alone() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    let answer = rig
        .post(
            &format!("{CDR}/test"),
            json!({"message": "hello", "wait": "0s"}),
        )
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

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_says_what_became_of_what_it_sent() {
    let rig = Rig::projecting().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=5 {
        park(&rig, &webhook, number, 0, "exhausted");
    }
    let sent = rig
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    let replay = &sent.expect(StatusCode::ACCEPTED).body["replay"];
    assert_eq!(
        (&replay["delivered"], &replay["failed"]),
        (&json!(0), &json!(0))
    );
    let id = Uuid::parse_str(replay["id"].as_str().unwrap()).unwrap();
    let carried = rig.records(Role::Replay, |record| {
        decode_delivery(&record).unwrap().replay
    });
    assert_eq!(carried, [Some(id); 5]);

    let attempt = |number: u128, next: &str, late: bool, of: Option<Uuid>| {
        let record = json!({
            "version": 1, "event": Uuid::from_u128(number), "type": "cdr.completed",
            "tenant": "acme", "webhook": webhook, "generation": 0, "run": 1, "attempt": 0,
            "started": "2026-11-21T09:30:00Z", "duration_ms": 12, "outcome": "status",
            "status": 200, "next": next, "late": late, "dispatcher": "test", "replay": of,
        });
        let record = record.to_string();
        rig.append(Role::Attempts, Some(&webhook), &[], record.as_bytes());
    };
    attempt(1, "delivered", false, Some(id));
    attempt(2, "delivered", false, Some(id));
    // Others decide about that one, these are no end, and those are no deliveries of this replay.
    attempt(3, "delivered", true, Some(id));
    attempt(4, "retry.32s", false, Some(id));
    attempt(6, "delivered", false, None);
    attempt(7, "delivered", false, Some(Uuid::from_u128(1)));
    park_of(&rig, &webhook, 5, 1, "exhausted", Some(id));
    let counts = async || {
        let shown = rig.get(&format!("{CDR}/replays/{id}")).await;
        let shown = &shown.expect(StatusCode::OK).body["replay"];
        let list = rig.get(&format!("{CDR}/replays")).await;
        let listed = &list.expect(StatusCode::OK).body["replays"][0];
        for name in ["delivered", "failed"] {
            assert_eq!(shown[name], listed[name]);
        }
        (
            shown["delivered"].as_u64().unwrap(),
            shown["failed"].as_u64().unwrap(),
        )
    };
    assert_eq!(counts().await, (2, 1));
    // Traces of a crash do not make more of it than was sent.
    for _ in 0..5 {
        attempt(1, "delivered", false, Some(id));
    }
    assert_eq!(counts().await, (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_projection_nobody_says_what_became_of_a_replay() {
    let rig = Rig::new().await;
    let webhook = rig.acme().await["id"].as_str().unwrap().to_owned();
    park(&rig, &webhook, 1, 0, "exhausted");
    let sent = rig
        .post(&format!("{CDR}/replay"), json!({"all": true}))
        .await;
    let replay = &sent.expect(StatusCode::ACCEPTED).body["replay"];
    assert_eq!(replay["sent"], 1);
    assert_eq!(
        (&replay["delivered"], &replay["failed"]),
        (&Value::Null, &Value::Null)
    );
}
