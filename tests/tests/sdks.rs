//! CloudEvents and the SDKs that others wrote: what they send arrives, in every mode, over HTTP and
//! Kafka; and they read what is sent to webhooks that want CloudEvents.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ringback_core::cloudevent::id;
use ringback_core::event::{Source, TenantId};
use ringback_core::log::Log;
use ringback_core::topics::Role;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::rig::{Rig, TestTenant, short_schedule, topics};
use ringback_tests::sdks::Sdks;
use ringback_tests::{kafka, sdks};
use serde_json::{Value, json};

type Lines = Result<Vec<String>, String>;

/// Runs a producer against this rig; every event it says it sent must arrive as it was.
async fn arrives<L: Log>(
    rig: &Rig<L>,
    count: usize,
    produce: impl FnOnce(&Sdks, &str, &TestTenant) -> Lines + Send + 'static,
) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "sdk").await;
    let url = format!("{}/v1/events", rig.ingest);
    let (id_of_tenant, token) = (tenant.id.clone(), tenant.token.clone());
    let produce = move || {
        let sdks = sdks::prepare()?;
        let tenant = TestTenant {
            id: id_of_tenant,
            token,
        };
        produce(&sdks, &url, &tenant)
    };
    let sent = tokio::task::spawn_blocking(produce).await.unwrap().unwrap();
    assert_eq!(sent.len(), count, "{sent:?}");
    let source = Source::parse("/pbx/1").unwrap();
    let of_tenant = TenantId::parse(&tenant.id).unwrap();
    let uuid = |sent: &str| id(sent, &of_tenant, &source).unwrap().to_string();
    rig.receiver
        .wait("everything that was sent arrived", |books| {
            sent.iter().all(|sent| books.is_delivered(&uuid(sent)))
        })
        .await;
    let requests = rig.receiver.books(|books| books.at("sdk"));
    for sent in &sent {
        let request = requests.iter().find(|r| r.id() == uuid(sent)).unwrap();
        let body = request.json();
        assert_eq!(body["type"], "cdr.completed", "{sent}");
        assert_eq!(body["tenant"], tenant.id.as_str(), "{sent}");
        assert_eq!(body["source"], "/pbx/1", "{sent}");
        // Its SDK for JavaScript cannot put these letters into a header.
        let subject = match sent.as_str() {
            "javascript-http-binary" => "call/Zoe 1 100%",
            _ => "call/Zoë \"1\" 100%",
        };
        assert_eq!(body["subject"], subject, "{sent}");
        assert_eq!(
            body["data"],
            json!({ "text": "héllo €", "cost": 1.5 }),
            "{sent}"
        );
        assert!(
            request
                .header("traceparent")
                .contains("4bf92f3577b34da6a3ce929d0e0e4736")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sdk_for_javascript_over_http() {
    let schedule = short_schedule();
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log, schedule).await;
    arrives(&rig, 4, |sdks, ingest, tenant| {
        sdks.run("producer.cjs", &[ingest, &tenant.token], None)
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sdk_for_python_over_http_and_kafka() {
    let schedule = short_schedule();
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
    let topics = topics(&schedule);
    let cdr = ringback_core::catalogue::Family::Cdr;
    let topic = topics.spec(topics.find(Role::Events(cdr)).unwrap());
    let topic = topic.full_name.clone();
    let config = KafkaConfig {
        bootstrap: server.bootstrap().to_owned(),
        group_prefix: topic.replace("events.cdr", ""),
        ..KafkaConfig::default()
    };
    let rig = Rig::start(KafkaLog::open(config, topics).unwrap(), schedule).await;
    arrives(&rig, 6, move |sdks, ingest, tenant| {
        let args = [
            ingest,
            &tenant.token,
            &tenant.id,
            server.bootstrap(),
            &topic,
        ];
        sdks.run("producer.py", &args, None)
    })
    .await;
    rig.stop().await;
}

/// What a webhook of format `cloudevents` gets, read by both SDKs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sdks_as_receivers() {
    let schedule = short_schedule();
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log, schedule).await;
    let tenant = rig.tenant().await;
    let fields = json!({
        "subscription": ["*"], "url": rig.receiver.url("events"), "format": "cloudevents",
    });
    let added = rig.webhook_with(&tenant, "main", fields).await;
    assert_eq!(added["format"], "cloudevents");
    let event = json!({
        "type": "call.started", "time": "2026-11-21T03:19:59.731Z", "source": "/pbx/1",
        "subject": "call/Zoë \"1\" 100%", "data": { "text": "héllo €", "cost": 1.5 },
    });
    let url = format!("{}/v1/events?backfill=true", rig.ingest);
    let request = rig.client.post(url).bearer_auth(&tenant.token).json(&event);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let arrived = |books: &ringback_tests::receiver::Books| !books.requests.is_empty();
    rig.receiver.wait("it arrived", arrived).await;
    let request = rig.receiver.books(|books| books.at("events").remove(0));
    // The data alone, as it was sent (DL7).
    assert_eq!(request.body, event["data"].to_string());
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("webhook-id"), request.header("ce-id"));
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    let headers: serde_json::Map<String, Value> = headers.collect();
    let body = str::from_utf8(&request.body).unwrap();
    let file = dir.path().join("requests.json");
    let requests = json!([{ "headers": headers, "body": body }]);
    std::fs::write(&file, requests.to_string()).unwrap();
    let read = move || {
        let sdks = sdks::prepare().unwrap();
        ["receiver.py", "receiver.cjs"].map(|script| {
            let input = std::fs::File::open(&file).unwrap();
            sdks.run(script, &[], Some(input)).unwrap()
        })
    };
    for lines in tokio::task::spawn_blocking(read).await.unwrap() {
        let read: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(read["id"], answer["id"]);
        assert_eq!(read["tenant"], tenant.id.as_str());
        assert_eq!(read["time"], 1_795_231_199.731);
        for same in ["source", "type", "subject", "data"] {
            assert_eq!(read[same], event[same], "{same}");
        }
    }
    rig.stop().await;
}
