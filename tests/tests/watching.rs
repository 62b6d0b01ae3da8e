//! What whoever owns a webhook sees of it: what was sent and came back, as it happens, how the webhook
//! is, and what operators see of the pipeline.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use futures_util::StreamExt as _;
use ringback_core::log::{Append, Log as _};
use ringback_core::topics::{Role, group};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_telemetry::Metrics;
use ringback_telemetry::waiting::Waiting;
use ringback_tests::append::Records;
use ringback_tests::receiver::Answer;
use ringback_tests::rig::{OPERATOR, Rig, short_schedule, topics};
use serde_json::{Value, json};

/// For what takes milliseconds, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(dir: &tempfile::TempDir) -> Rig<LocalLog> {
    let schedule = short_schedule();
    let topics = topics(&schedule);
    let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
    Rig::start(log, schedule).await
}

fn header<'a>(headers: &'a Value, name: &str) -> Option<&'a str> {
    let headers = headers.as_array()?;
    headers.iter().find(|pair| pair[0] == name)?[1].as_str()
}

/// A running stream of attempts.
struct Stream {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = String>>>,
    text: String,
}

impl Stream {
    async fn open(rig: &Rig<LocalLog>, path: &str, token: &str, last: Option<&str>) -> Self {
        let url = format!("{}/v1/{path}/attempts/stream", rig.admin);
        let mut request = rig.client.get(url).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let media = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(media, "text/event-stream");
        let bytes = response.bytes_stream();
        let bytes = bytes.map(|chunk| String::from_utf8_lossy(&chunk.unwrap()).into_owned());
        Self {
            bytes: Box::pin(bytes),
            text: String::new(),
        }
    }

    /// The id and the attempt of the next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::trim)
                };
                if field("event:") != Some("attempt") {
                    continue;
                }
                let data = serde_json::from_str(field("data:").unwrap()).unwrap();
                return Some((field("id:").unwrap().to_owned(), data));
            }
            let more = tokio::time::timeout(PATIENCE, self.bytes.next()).await;
            self.text.push_str(&more.unwrap()?);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_answers_the_whole_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let rig = start(&dir).await;
    let tenant = rig.tenant().await;
    let fields = json!({
        "subscription": ["call.*"], "url": rig.receiver.url("shop?key=1"),
        "authentication": { "method": "bearer", "token": "hunter2hunter2" },
        "headers": { "x-shop": "7", "x-shop-token": "hunter3" },
    });
    rig.webhook_with(&tenant, "shop", fields).await;
    let path = format!("tenants/{}/webhooks/shop", tenant.id);
    let form = json!({ "message": "hello", "wait": "45s" });
    let sent = rig.api("POST", &format!("{path}/test"), form.clone()).await;
    let exchange = &sent["exchange"];
    assert_eq!(exchange["acknowledged"], true, "{sent}");
    assert_eq!(exchange["response"]["status"], 200);
    assert_eq!(exchange["error"], Value::Null);
    let request = &exchange["request"];
    assert_eq!(
        (&request["method"], &request["url"]),
        (&json!("POST"), &json!(rig.receiver.url("shop?key=1")))
    );
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&body["id"], &body["data"]["message"]),
        (&sent["event"], &json!("hello"))
    );
    let got = rig
        .receiver
        .books(|books| books.at("shop").last().unwrap().clone());
    assert_eq!(got.body, request["body"].as_str().unwrap().as_bytes());
    // What is shown is what was sent, but for secrets.
    for (name, value) in &got.headers {
        let shown = header(&request["headers"], name.as_str());
        match name.as_str() {
            "authorization" | "x-shop-token" => assert_eq!(shown, Some("(hidden)"), "{name}"),
            "accept" => {}
            _ => assert_eq!(shown, value.to_str().ok(), "{name}"),
        }
    }
    assert!(!sent.to_string().contains("hunter"), "{sent}");
    assert!(
        header(&exchange["response"]["headers"], "content-length").is_some(),
        "{sent}"
    );
    // A refusal is an exchange too, and a retry is announced.
    rig.receiver.behave("shop", |_, _, _| Answer::Status(503));
    let sent = rig.api("POST", &format!("{path}/test"), form.clone()).await;
    let exchange = &sent["exchange"];
    assert_eq!(exchange["acknowledged"], false, "{sent}");
    assert_eq!(exchange["response"]["status"], 503);
    assert_eq!(exchange["next"], "retry.300ms");
    assert!(
        exchange["next_at"].as_str() > exchange["started"].as_str(),
        "{sent}"
    );
    // Parked: nothing is waited for.
    rig.api("POST", &format!("{path}/pause"), json!({})).await;
    let (status, parked) = rig.try_api("POST", &format!("{path}/test"), form).await;
    assert_eq!(
        (status, &parked["exchange"]),
        (202, &Value::Null),
        "{parked}"
    );
    assert_eq!(parked["warnings"].as_array().unwrap().len(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_failures_are_kept_and_those_of_successes_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let rig = start(&dir).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "shop", &["call.*"], "shop").await;
    rig.receiver.first("shop", vec![Answer::Status(500)]);
    let event = rig.event(&tenant, "call.started").await;
    let attempts = rig.attempts(&tenant, "shop", &event, 2).await;
    let [failed, delivered] = &attempts[..] else {
        panic!("{attempts:?}")
    };
    let id = header(&failed["request_headers"], "webhook-id");
    assert_eq!(id, Some(event.as_str()), "{failed}");
    assert!(
        header(&failed["response_headers"], "content-length").is_some(),
        "{failed}"
    );
    assert_eq!(failed["next"], "retry.300ms");
    assert!(
        failed["next_at"].as_str() <= delivered["started"].as_str(),
        "{attempts:?}"
    );
    for none in ["request_headers", "response_headers", "next_at"] {
        assert_eq!(delivered[none], Value::Null, "{delivered}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_told_as_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let rig = start(&dir).await;
    let tenant = rig.tenant().await;
    for name in ["shop", "other"] {
        rig.webhook(&tenant, name, &["call.*"], name).await;
    }
    let path = format!("tenants/{}/webhooks/shop", tenant.id);
    let before = rig.event(&tenant, "call.started").await;
    rig.attempts(&tenant, "shop", &before, 1).await;
    let form = json!({ "tenant": tenant.id, "scopes": ["read"] });
    let token = rig.api("POST", "tokens", form).await;
    let mut stream = Stream::open(&rig, &path, token["token"].as_str().unwrap(), None).await;
    let (first, second) = (
        rig.event(&tenant, "call.started").await,
        rig.event(&tenant, "call.ended").await,
    );
    // Nothing of before, nothing of another webhook, and as the list has it.
    let (id, told) = stream.next().await.unwrap();
    assert!(
        [&first, &second].contains(&&told["event"].as_str().unwrap().to_owned()),
        "{told}"
    );
    let event = told["event"].as_str().unwrap();
    assert_eq!(told, rig.attempts(&tenant, "shop", event, 1).await[0]);
    let (_, next) = stream.next().await.unwrap();
    assert_ne!(next["event"], told["event"]);
    // Whoever comes back goes on where it was.
    let mut again = Stream::open(&rig, &path, OPERATOR, Some(&id)).await;
    assert_eq!(again.next().await.unwrap().1, next);
    // It ends with what let its reader in, and with its webhook.
    let path_of_token = format!("tokens/{}", token["id"].as_str().unwrap());
    rig.api("DELETE", &path_of_token, Value::Null).await;
    assert_eq!(stream.next().await, None);
    rig.api("DELETE", &path, Value::Null).await;
    assert_eq!(again.next().await, None);
    rig.stop().await;
}

async fn until(
    rig: &Rig<LocalLog>,
    path: &str,
    what: &str,
    done: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let seen = rig.api("GET", path, Value::Null).await;
        if done(&seen) {
            return seen;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain for {what}: {seen}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_why_since_when_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let rig = start(&dir).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "shop", &["call.*"], "shop").await;
    let path = format!("tenants/{}/webhooks/shop", tenant.id);
    let of = format!("{path}/health");
    let fresh = rig.api("GET", &of, Value::Null).await;
    assert_eq!(
        (&fresh["state"], &fresh["window"]["attempts"]),
        (&json!("healthy"), &json!(0))
    );
    assert_eq!(fresh["window"]["failure_ratio"], Value::Null);
    assert_eq!(fresh["policy"]["attempts"], 8);
    let delivered = rig.event(&tenant, "call.started").await;
    rig.attempts(&tenant, "shop", &delivered, 1).await;
    let healthy = until(&rig, &of, "the success", |health| {
        health["window"]["attempts"] == 1
    })
    .await;
    assert_eq!(healthy["window"]["failed"], 0);
    assert!(healthy["window"]["last_success"].is_string(), "{healthy}");
    rig.receiver.behave("shop", |_, _, _| Answer::Status(401));
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut refused = 0;
    let disabled = loop {
        // Its failures must go on for longer than the policy's silence.
        rig.event(&tenant, "call.started").await;
        refused += 1;
        let health = rig.api("GET", &of, Value::Null).await;
        if health["state"] == "disabled" {
            break health;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "not disabled: {health}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let window = &disabled["window"];
    assert!(window["failed"].as_u64() >= Some(8), "{disabled}");
    assert!(window["failure_ratio"].as_f64() > Some(0.8), "{disabled}");
    assert!(
        window["first_failure"].as_str() > window["last_success"].as_str(),
        "{disabled}"
    );
    assert!(disabled["since"].is_string() && disabled["reason"].is_string());
    let advice = disabled["advice"].as_str().unwrap();
    assert!(
        advice.contains("credentials") && advice.contains("enable"),
        "{advice}"
    );
    assert_eq!(disabled["last_failure"]["status"], 401);
    // The operator sees it too, and nothing that works.
    let worst = rig.api("GET", "operations/webhooks", Value::Null).await;
    let ours = &worst["webhooks"][0];
    assert_eq!(
        (&ours["tenant"], &ours["state"]),
        (&json!(tenant.id), &json!("disabled")),
        "{worst}"
    );
    assert_eq!(worst["counts"]["disabled"], 1);
    // What still waits would be tried in the new life, too.
    let parked = format!("{path}/parked?limit=500");
    rig.list(&parked, "parked", refused).await;
    rig.api("POST", &format!("{path}/enable"), json!({})).await;
    let enabled = rig.api("GET", &of, Value::Null).await;
    assert_eq!(
        (&enabled["state"], &enabled["window"]["attempts"]),
        (&json!("healthy"), &json!(0))
    );
    rig.api("POST", &format!("{path}/pause"), json!({})).await;
    let paused = rig.api("GET", &of, Value::Null).await;
    assert_eq!(paused["state"], "paused");
    assert!(paused["since"].is_string(), "{paused}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_lag_members_and_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = start(&dir).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "shop", &["call.*"], "shop").await;
    let events = |lag: &Value| {
        let mut stages = lag["stages"].as_array().unwrap().clone();
        stages.retain(|stage| stage["topic"] == "events.resource");
        stages.remove(0)
    };
    let members = rig.api("GET", "operations/dispatchers", Value::Null).await;
    let groups = members["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 7, "{members}");
    for group in groups {
        assert_eq!(
            (
                &group["unowned"],
                group["members"].as_array().unwrap().len()
            ),
            (&json!(0), 1),
            "{group}"
        );
    }
    // Without dispatchers events wait, and that is seen.
    rig.dispatcher.take().unwrap().drain().await;
    for _ in 0..3 {
        rig.event(&tenant, "call.started").await;
    }
    let lag = rig.api("GET", "operations/lag", Value::Null).await;
    let stage = events(&lag);
    assert_eq!(
        (&stage["records"], &stage["members"]),
        (&json!(3), &json!(0)),
        "{lag}"
    );
    assert!(stage["oldest_seconds"].is_u64(), "{lag}");
    let members = rig.api("GET", "operations/dispatchers", Value::Null).await;
    assert!(
        members["groups"][0]["unowned"].as_u64() > Some(0),
        "{members}"
    );
    rig.start_dispatcher();
    let done = until(&rig, "operations/lag", "the events", |lag| {
        events(lag)["records"] == 0
    })
    .await;
    assert_eq!(events(&done)["oldest_seconds"], Value::Null);
    let partitions = rig.api("GET", "operations/partitions", Value::Null).await;
    let topics = partitions["topics"].as_array().unwrap();
    let of_events = topics
        .iter()
        .find(|topic| topic["topic"] == "events.resource")
        .unwrap();
    let ends = of_events["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["end"].as_i64().unwrap());
    assert_eq!(ends.sum::<i64>(), 3, "{of_events}");
    rig.stop().await;
}

/// Not only dispatchers fall behind: verdicts do when their group stands still.
#[test]
fn what_waits_for_verdicts_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let topics = topics(&short_schedule());
    let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    let attempts = log.topics().find(Role::Attempts).unwrap();
    let records = Records::of(&log);
    let appended: Vec<_> = (0..3)
        .map(|_| {
            records.append(Append {
                topic: attempts,
                key: Some(b"webhook"),
                headers: &[],
                value: Some(b"{}"),
            })
        })
        .collect();
    let (first, last) = (&appended[0], &appended[2]);
    let metrics = Metrics::new();
    let mut waiting = Waiting::new(&log, vec![group::ATTEMPTS], metrics.clone()).unwrap();
    let mut look = |next, seconds: u64| {
        let owned = [(first.partition, next)].into();
        let passed = Duration::from_secs(seconds);
        waiting.look(&owned, first.at + passed, passed).unwrap();
        metrics.expose()
    };
    let shows = |text: &str, line: &str| assert!(text.contains(line), "{line}\n{text}");
    let lag = r#"ringback_lag_records{group="metrics.attempts",topic="attempts"}"#;
    let oldest = r#"ringback_oldest_waiting_seconds{group="metrics.attempts",topic="attempts"}"#;
    let stalled = r#"ringback_partition_stalled_seconds{group="metrics.attempts"}"#;
    look(first.offset, 0);
    let text = look(first.offset, 200);
    shows(&text, &format!("{lag} 3\n"));
    shows(&text, &format!("{oldest} 200\n"));
    shows(&text, &format!("{stalled} 200\n"));
    let text = look(last.offset + 1, 205);
    for gauge in [lag, oldest, stalled] {
        shows(&text, &format!("{gauge} 0\n"));
    }
}

/// The service of verdicts tells of itself without being asked.
#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let rig = start(&dir).await;
    let all = rig.log.topics().find(Role::Attempts);
    let all = rig.log.topics().partitions(all.unwrap()).count();
    let owned = r#"ringback_partitions_owned{group="metrics.attempts"}"#;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !rig.metrics.expose().contains(&format!("{owned} {all}\n")) {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            rig.metrics.expose()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
