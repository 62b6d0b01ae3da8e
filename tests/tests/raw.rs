//! `kill -9` of a producer that makes events of foreign records: none is lost, and what is repeated has
//! the id that it had.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use ringback_tests::kafka;
use ringback_tests::process::{Process, api};
use ringback_tests::receiver::Receiver;
use serde_json::{Value, json};
use uuid::Uuid;

/// Most records; normally the test ends long before.
const RECORDS_MAX: u64 = 20_000;
/// Every so many records one is none.
const BAD_EVERY: u64 = 500;

/// A PBX that writes its own records, unhurried, until it is told to stop; returns how many.
fn pbx(brokers: &str, topic: &str, stop: &AtomicBool) -> u64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true");
    let producer: ThreadedProducer<_> = config.create().unwrap();
    let mut count = 0;
    while count < RECORDS_MAX && !stop.load(Ordering::Acquire) {
        for _ in 0..50 {
            let record = match count % BAD_EVERY {
                0 => format!("no JSON {count}"),
                _ => json!({ "n": count }).to_string(),
            };
            let record = BaseRecord::<(), String>::to(topic).payload(&record);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            count += 1;
        }
        // Acknowledged, one small batch after another: the kill comes in mid-stream.
        producer.flush(Duration::from_secs(30)).unwrap();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_a_producer_with_raw_topics() {
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("raw{}.", Uuid::now_v7().simple());
    let settings = [
        "secrets.keys.test=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned(),
        "secrets.primary=test".to_owned(),
        "topics.event_partitions=2".to_owned(),
        "topics.work_partitions=1".to_owned(),
        "topics.replication=1".to_owned(),
        "log.engine=kafka".to_owned(),
        format!("log.kafka.bootstrap={}", server.bootstrap()),
        format!("log.kafka.group_prefix={prefix}"),
        format!("topics.prefix={prefix}"),
        r#"ingest.raw=[{source="pbx-1",mapping={type="cdr.completed",tenant="acme"}}]"#.to_owned(),
    ];
    let admin = Process::start("admin", dir.path(), &settings).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = |method: &'static str, path: &str, body| {
        let (client, url) = (client.clone(), format!("{}/v1/{path}", admin.url("admin")));
        async move { api(&client, &url, method, body).await }
    };
    let tenant = json!({ "id": "acme", "title": "Acme" });
    call("POST", "tenants", tenant).await;
    let webhook = json!({ "name": "cdr", "url": receiver.url("cdr") });
    call("POST", "tenants/acme/webhooks", webhook).await;
    let mut producer = Process::start("producer", dir.path(), &settings).await;
    let _dispatcher = Process::start("dispatcher", dir.path(), &settings).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::task::spawn_blocking({
        let (stop, topic) = (stop.clone(), format!("{prefix}raw.pbx-1"));
        move || pbx(server.bootstrap(), &topic, &stop)
    });
    receiver
        .wait("some arrived", |books| books.delivered() > 600)
        .await;
    producer.kill();
    producer.restart().await;
    stop.store(true, Ordering::Release);
    let count = writing.await.unwrap();
    let bad = count.div_ceil(BAD_EVERY);
    receiver
        .wait("every record arrived", |books| {
            books.delivered() as u64 >= count - bad
        })
        .await;
    let mut ids: HashMap<u64, HashSet<String>> = HashMap::new();
    for request in receiver.books(|books| books.at("cdr")) {
        let n = request.json()["data"]["n"].as_u64().unwrap();
        ids.entry(n).or_default().insert(request.id());
    }
    assert_eq!(ids.len() as u64, count - bad);
    assert!(
        ids.values().all(|ids| ids.len() == 1),
        "a repeat has another id"
    );
    let duplicates = receiver.books(|books| books.duplicates());
    println!("figure raw.records {count} records");
    println!("figure raw.duplicates {duplicates} events");
    // What is no JSON is where an operator finds it, each at least once.
    let mut places = HashSet::new();
    for _ in 0..600 {
        let parked = call("GET", "parked?limit=1000", Value::Null).await;
        let rows = parked["parked"].as_array().unwrap();
        places = rows.iter().map(|row| row["detail"].to_string()).collect();
        if places.len() as u64 >= bad {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(places.len() as u64, bad, "{places:?}");
    assert_eq!(
        producer.terminate().await,
        Some(0),
        "it drains and ends well"
    );
}
