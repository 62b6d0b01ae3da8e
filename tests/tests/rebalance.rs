//! Dispatchers come and go in mid-stream, on real Kafka and by both protocols of groups: nothing
//! that was acknowledged is lost, and only a crash repeats anything, within the contract's bound.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringback_tests::kafka;
use ringback_tests::process::{Process, api, post_batch, until_routed};
use ringback_tests::receiver::Receiver;
use ringback_tests::uncommitted;
use serde_json::json;
use uuid::Uuid;

const BATCH: usize = 20;
/// Requests in flight to the one webhook, per dispatcher.
const CONCURRENCY: usize = 8;

/// An installation of its own on the shared broker.
fn settings(protocol: &str, prefix: &str) -> Vec<String> {
    // How soon a dead member is missed; by the brokers' protocol they have it in their settings.
    let missed = match protocol {
        "classic" => "log.kafka.properties.session.timeout.ms=6000",
        _ => "log.kafka.properties.group.remote.assignor=uniform",
    };
    [
        "secrets.keys.test=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "secrets.primary=test",
        "topics.event_partitions=4",
        "topics.work_partitions=1",
        "topics.replication=1",
        "log.engine=kafka",
        missed,
        &format!("dispatcher.concurrency={CONCURRENCY}"),
        &format!("topics.prefix={prefix}"),
        &format!("log.kafka.group_prefix={prefix}"),
        &format!("log.kafka.bootstrap={}", kafka::shared().bootstrap()),
        &format!("log.kafka.properties.group.protocol={protocol}"),
    ]
    .map(str::to_owned)
    .into()
}

/// A stream of events that goes on until told to stop; then all that were acknowledged.
struct Stream {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Stream {
    fn start(client: &reqwest::Client, ingest: String, token: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (client.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut pace = tokio::time::interval(Duration::from_millis(25));
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                let ids: Vec<_> = (0..BATCH).map(|_| Uuid::now_v7().to_string()).collect();
                acknowledged.extend(post_batch(&client, &ingest, &token, &ids).await);
            }
            acknowledged
        });
        Self { stop, task }
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// How many partitions of events a dispatcher owns, by its own metric: each is assigned once and
/// given up once.
async fn rebalances(process: &Process, event: &str) -> u64 {
    let url = format!("{}/metrics", process.url("telemetry"));
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let name = format!("ringback_rebalances_total{{event=\"{event}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn come_and_go(protocol: &'static str) {
    let prefix = format!("rebalance{}.", Uuid::now_v7().simple());
    let set = {
        let prefix = prefix.clone();
        move || settings(protocol, &prefix)
    };
    let settings = tokio::task::spawn_blocking(set).await.unwrap();
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let admin = Process::start("admin", dir.path(), &settings).await;
    let producer = Process::start("producer", dir.path(), &settings).await;
    let mut first = Process::start("dispatcher", dir.path(), &settings).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = |path: &str, body| {
        let url = format!("{}/v1/{path}", admin.url("admin"));
        let client = client.clone();
        async move { api(&client, &url, "POST", body).await }
    };
    call("tenants", json!({ "id": "acme", "title": "Acme" })).await;
    let webhook = json!({ "name": "cdr", "url": receiver.url("cdr") });
    call("tenants/acme/webhooks", webhook).await;
    let issued = call("tokens", json!({ "name": "t", "tenant": "acme" })).await;
    let token = issued["token"].as_str().unwrap().to_owned();
    until_routed(&client, &producer.url("ingest"), &token, &receiver).await;
    let stream = Stream::start(&client, producer.url("ingest"), token);
    let delivered = |more: usize| {
        let before = receiver.books(|books| books.delivered());
        let receiver = &receiver;
        async move {
            let enough =
                |books: &ringback_tests::receiver::Books| books.delivered() >= before + more;
            receiver.wait("more arrives", enough).await;
        }
    };
    delivered(200).await;

    // Join: some partitions move, nothing is repeated.
    let second = Process::start("dispatcher", dir.path(), &settings).await;
    eventually("they share", || async {
        rebalances(&second, "assigned").await > 0 && rebalances(&first, "revoked").await > 0
    })
    .await;
    delivered(200).await;
    // Leave: it drains, and its partitions move on.
    assert_eq!(first.terminate().await, Some(0), "it drains and ends well");
    delivered(200).await;
    let third = Process::start("dispatcher", dir.path(), &settings).await;
    eventually("they share again", || async {
        rebalances(&third, "assigned").await > 0
    })
    .await;
    delivered(200).await;
    let repeated = receiver.books(|books| books.duplicates());
    println!("figure rebalance.{protocol}.planned_duplicates {repeated} events");
    assert_eq!(repeated, 0, "who comes or leaves in order repeats nothing");

    // Crash: what was unfinished is repeated, no more.
    let mut second = second;
    second.kill();
    let look = move || uncommitted::kafka(kafka::shared().bootstrap(), &prefix, 4);
    let uncommitted = tokio::task::spawn_blocking(look).await.unwrap();
    let acknowledged = {
        delivered(400).await;
        stream.stop().await
    };
    let ids: HashSet<_> = acknowledged.iter().collect();
    receiver
        .wait("every acknowledged event arrived", |books| {
            ids.iter().all(|id| books.is_delivered(id))
        })
        .await;
    let (duplicates, strange) =
        receiver.books(|books| (books.duplicates(), books.duplicates_outside(&uncommitted)));
    println!("figure rebalance.{protocol}.events {} events", ids.len());
    println!("figure rebalance.{protocol}.crash_duplicates {duplicates} events");
    assert_eq!(strange, 0, "what was committed came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn by_the_cooperative_protocol() {
    come_and_go("classic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn by_the_brokers_protocol() {
    come_and_go("consumer").await;
}

/// A component does not run on topics that are not as they must be, and says which and why; nor
/// when nobody answers.
#[test]
fn a_start_without_topics_or_brokers_says_what_is_wrong() {
    let run = |command: &str, more: &str| {
        let mut process = std::process::Command::new(ringback_tests::process::binary());
        process
            .arg(command)
            .args(["--set", "telemetry.listen=127.0.0.1:0"]);
        for setting in settings("classic", &format!("rebalance{}.", Uuid::now_v7().simple())) {
            process.args(["--set", &setting]);
        }
        let output = process.args(["--set", more]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for command in ["dispatcher", "producer"] {
        let said = run(command, "telemetry.log=warn");
        assert!(said.contains(".events.cdr: it is missing"), "{said}");
        assert!(said.contains("the admin component creates"), "{said}");
    }
    let started = Instant::now();
    let said = run("dispatcher", "log.kafka.bootstrap=127.0.0.1:1");
    assert!(started.elapsed() < Duration::from_secs(40), "{said}");
    assert!(said.contains("log.kafka.bootstrap"), "{said}");
}
