//! `kill -9` in mid-stream: nothing that was acknowledged is lost, and duplicates stay within the
//! contract's bound: what was unfinished, plus what finished since the last commit.

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
use serde_json::json;
use uuid::Uuid;

const EVENTS: usize = 6000;
const BATCH: usize = 50;
/// Requests in flight to the one webhook.
const CONCURRENCY: usize = 16;
/// Positions are committed every 100 ms; the local log makes them durable within 50 ms more. Twice
/// that, because this machine is shared.
const SINCE_COMMIT: Duration = Duration::from_millis(300);

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

    /// Checks the books after a kill at `killed`; `again` as [`check`] has it.
    async fn check(self, name: &str, killed: Instant, again: usize) {
        let acknowledged = self.sending.await.unwrap();
        check(name, &self.receiver, acknowledged, killed, again).await;
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

/// Checks the books after a kill at `killed`. The sender itself may have sent `again` events twice,
/// when the answer to a batch was lost.
async fn check(
    name: &str,
    receiver: &Receiver,
    acknowledged: Vec<String>,
    killed: Instant,
    again: usize,
) {
    let ids: HashSet<_> = acknowledged.into_iter().collect();
    assert_eq!(ids.len(), EVENTS);
    receiver
        .wait("every acknowledged event arrived", |books| {
            books.delivered() >= EVENTS && ids.iter().all(|id| books.is_delivered(id))
        })
        .await;
    let (duplicates, recent) = receiver.books(|books| {
        let since = killed - SINCE_COMMIT;
        let recent = books
            .requests
            .iter()
            .filter(|r| r.at > since && r.at <= killed)
            .count();
        (books.duplicates(), recent)
    });
    let bound = recent + CONCURRENCY + again;
    println!("figure crash.{name}.lost 0 events");
    println!("figure crash.{name}.duplicates {duplicates} events");
    println!("figure crash.{name}.duplicates_bound {bound} events");
    assert!(
        duplicates <= bound,
        "{duplicates} duplicates, at most {bound} expected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Process::start("up", dir.path(), &settings()).await;
    let stream = Stream::start(&up.url("admin"), up.url("ingest")).await;
    let killed = Instant::now();
    up.kill();
    up.restart().await;
    stream.check("up", killed, BATCH).await;
    assert_eq!(up.terminate().await, Some(0), "it drains and ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_a_dispatcher_on_kafka() {
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
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
    let killed = Instant::now();
    first.kill();
    let mut second = Process::start("dispatcher", dir.path(), &settings).await;
    stream.check("dispatcher", killed, 0).await;
    assert_eq!(second.terminate().await, Some(0), "it drains and ends well");
}
