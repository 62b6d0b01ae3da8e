//! `kill -9` in mid-stream: nothing that was acknowledged is lost, and duplicates stay within the
//! contract's bound: what was unfinished, plus what finished since the last commit. Which events these
//! are is read off the log after the kill.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ringback_tests::kafka;
use ringback_tests::process::{Process, api, post_batch, until_routed};
use ringback_tests::receiver::Receiver;
use ringback_tests::uncommitted;
use serde_json::json;
use uuid::Uuid;

const EVENTS: usize = 6000;
const BATCH: usize = 50;
/// Requests in flight to the one webhook.
const CONCURRENCY: usize = 16;

fn settings() -> Vec<String> {
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    vec![
        format!("secrets.keys.test={key}"),
        "secrets.primary=test".to_owned(),
        format!("dispatcher.concurrency={CONCURRENCY}"),
        "topics.event_partitions=2".to_owned(),
        "topics.work_partitions=1".to_owned(),
        "topics.replication=1".to_owned(),
    ]
}

/// The installation under a stream of events.
struct Stream {
    receiver: Receiver,
    sending: tokio::task::JoinHandle<Vec<String>>,
}

impl Stream {
    /// Makes one tenant with one webhook, and sends all events; a third of them have arrived.
    async fn start(admin: &str, ingest: String) -> Self {
        let receiver = Receiver::start().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let call = |path: &str, body| {
            let (client, url) = (client.clone(), format!("{admin}/v1/{path}"));
            async move { api(&client, &url, "POST", body).await }
        };
        call("tenants", json!({ "id": "acme", "title": "Acme" })).await;
        let webhook = json!({ "name": "cdr", "url": receiver.url("cdr") });
        call("tenants/acme/webhooks", webhook).await;
        let issued = call("tokens", json!({ "name": "t", "tenant": "acme" })).await;
        let token = issued["token"].as_str().unwrap().to_owned();
        until_routed(&client, &ingest, &token, &receiver).await;
        let sending = tokio::spawn(async move { send_all(&client, &ingest, &token).await });
        receiver
            .wait("a third arrived", |books| books.delivered() > EVENTS / 3)
            .await;
        Self { receiver, sending }
    }

    /// Checks the books after a kill that found these events not committed; `again` as [`check`] has
    /// it.
    async fn check(self, name: &str, uncommitted: HashSet<String>, again: usize) {
        let receiver = &self.receiver;
        let (open, delivered) =
            receiver.books(|books| (books.delivered_of(&uncommitted), books.delivered()));
        println!("figure crash.{name}.delivered_uncommitted {open} events");
        assert!(open < delivered, "nothing was committed of {delivered}");
        let acknowledged = self.sending.await.unwrap();
        check(name, receiver, acknowledged, &uncommitted, again).await;
    }
}

/// Sends all events, each until it is acknowledged; returns them.
async fn send_all(client: &reqwest::Client, ingest: &str, token: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let ids: Vec<_> = (0..EVENTS).map(|_| Uuid::now_v7().to_string()).collect();
    for batch in ids.chunks(BATCH) {
        let mut open = batch.to_vec();
        let deadline = Instant::now() + Duration::from_secs(90);
        while !open.is_empty() {
            assert!(Instant::now() < deadline, "the ingest does not come back");
            let kept = post_batch(client, ingest, token, &open).await;
            if kept.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            open.retain(|id| !kept.contains(id));
            acknowledged.extend(kept);
        }
    }
    acknowledged
}

/// Checks the books: nothing is lost, and what was committed did not come again. The sender itself
/// may have sent `again` events twice, when the answer to a batch was lost.
async fn check(
    name: &str,
    receiver: &Receiver,
    acknowledged: Vec<String>,
    uncommitted: &HashSet<String>,
    again: usize,
) {
    let ids: HashSet<_> = acknowledged.into_iter().collect();
    assert_eq!(ids.len(), EVENTS);
    receiver
        .wait("every acknowledged event arrived", |books| {
            books.delivered() >= EVENTS && ids.iter().all(|id| books.is_delivered(id))
        })
        .await;
    let (duplicates, strange) =
        receiver.books(|books| (books.duplicates(), books.duplicates_outside(uncommitted)));
    println!("figure crash.{name}.lost 0 events");
    println!("figure crash.{name}.duplicates {duplicates} events");
    assert!(
        strange <= again,
        "{strange} that were committed came again, at most {again} were sent again"
    );
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Process::start("up", dir.path(), &settings()).await;
    let stream = Stream::start(&up.url("admin"), up.url("ingest")).await;
    up.kill();
    let data = dir.path().join("ringback-data/log");
    let uncommitted = blocking(move || uncommitted::local(&data)).await;
    up.restart().await;
    stream.check("up", uncommitted, BATCH).await;
    assert_eq!(up.terminate().await, Some(0), "it drains and ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_a_dispatcher_on_kafka() {
    let server = blocking(kafka::shared).await;
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("crash{}.", Uuid::now_v7().simple());
    let mut settings = settings();
    settings.extend([
        "log.engine=kafka".to_owned(),
        format!("log.kafka.bootstrap={}", server.bootstrap()),
        format!("log.kafka.group_prefix={prefix}"),
        format!("topics.prefix={prefix}"),
    ]);
    let admin = Process::start("admin", dir.path(), &settings).await;
    let producer = Process::start("producer", dir.path(), &settings).await;
    let mut first = Process::start("dispatcher", dir.path(), &settings).await;
    let stream = Stream::start(&admin.url("admin"), producer.url("ingest")).await;
    first.kill();
    let uncommitted = blocking(move || uncommitted::kafka(server.bootstrap(), &prefix, 2)).await;
    let mut second = Process::start("dispatcher", dir.path(), &settings).await;
    stream.check("dispatcher", uncommitted, 0).await;
    assert_eq!(second.terminate().await, Some(0), "it drains and ends well");
}
