//! CloudEvents from SDKs that others wrote: what they send arrives, in every mode, over HTTP and Kafka.

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
use serde_json::json;

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
        sdks.javascript(&[ingest, &tenant.token])
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
        let brokers = server.bootstrap();
        sdks.python(&[ingest, &tenant.token, &tenant.id, brokers, &topic])
    })
    .await;
    rig.stop().await;
}
