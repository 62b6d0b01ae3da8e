//! An installation of real processes on Kafka, and a stream of events whose fates are kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::process::{Process, api, logged};
use crate::receiver::Receiver;

/// Requests in flight to the one webhook, per dispatcher.
pub const CONCURRENCY: usize = 8;
/// Positions are committed every 100 ms. Much more than that, because machines are shared: what is
/// exact is in `uncommitted`.
pub const SINCE_COMMIT: Duration = Duration::from_secs(2);
/// How long something may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(90);
/// Posts under way at a time.
const POSTS: usize = 64;
/// Between two posts of a stream.
const PACE: Duration = Duration::from_millis(20);

/// One tenant with one webhook, an admin and a producer. Dispatchers are started by the test.
pub struct Installation {
    pub receiver: Receiver,
    pub admin: Process,
    pub producer: Process,
    pub client: reqwest::Client,
    pub token: String,
    /// Goes before the names of its topics and groups.
    pub prefix: String,
    settings: Vec<String>,
    dir: TempDir,
}

impl Installation {
    /// On brokers at `bootstrap`, with further settings (`key=value`).
    pub async fn start(bootstrap: &str, further: &[&str]) -> Self {
        let prefix = format!("i{}.", Uuid::now_v7().simple());
        let mut settings: Vec<String> = [
            "secrets.keys.test=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "secrets.primary=test",
            "topics.event_partitions=4",
            "topics.work_partitions=1",
            "topics.replication=1",
            "log.engine=kafka",
            &format!("log.kafka.bootstrap={bootstrap}"),
            &format!("log.kafka.group_prefix={prefix}"),
            &format!("topics.prefix={prefix}"),
            &format!("dispatcher.concurrency={CONCURRENCY}"),
        ]
        .map(str::to_owned)
        .into();
        settings.extend(further.iter().map(|setting| (*setting).to_owned()));
        let receiver = Receiver::start().await;
        let dir = tempfile::tempdir().unwrap();
        let admin = Process::start("admin", dir.path(), &settings).await;
        let producer = Process::start("producer", dir.path(), &settings).await;
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
        Self {
            receiver,
            admin,
            producer,
            client,
            token,
            prefix,
            settings,
            dir,
        }
    }

    /// One more dispatcher. It knows the webhook before it is ready.
    pub async fn dispatcher(&self) -> Process {
        self.component("dispatcher").await
    }

    /// One more component of the installation.
    pub async fn component(&self, command: &'static str) -> Process {
        Process::start(command, self.dir.path(), &self.settings).await
    }

    /// What its processes of this kind have logged, with the setting [`LOGS_JSON`](crate::process::LOGS_JSON).
    pub fn logged(&self, command: &str) -> Vec<Value> {
        logged(self.dir.path(), command)
    }

    /// Posts one event.
    pub async fn post(&self, data: Value) -> Posted {
        let (client, ingest) = (&self.client, self.producer.url("ingest"));
        post(client, &ingest, &self.token, data).await
    }

    /// A stream of small events.
    pub fn stream(&self) -> Stream {
        let fates = Arc::<Mutex<Vec<Posted>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (client, token) = (self.client.clone(), self.token.clone());
        let ingest = self.producer.url("ingest");
        let (noted, stopped) = (fates.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(POSTS));
            let mut pace = tokio::time::interval(PACE);
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                let place = room.clone().acquire_owned().await.unwrap();
                let (client, token, ingest) = (client.clone(), token.clone(), ingest.clone());
                let noted = noted.clone();
                tokio::spawn(async move {
                    let posted = post(&client, &ingest, &token, json!({ "n": 1 })).await;
                    noted.lock().push(posted);
                    drop(place);
                });
            }
            // All that are under way.
            drop(room.acquire_many(POSTS as u32).await.unwrap());
        });
        Stream { fates, stop, task }
    }
}

/// How a post ended: 202, or 503 with a time to come back; anything else is a panic.
#[derive(Clone, Debug)]
pub struct Posted {
    pub id: String,
    pub began: Instant,
    pub took: Duration,
    pub accepted: bool,
    /// The answer's text.
    pub said: String,
}

async fn post(client: &reqwest::Client, ingest: &str, token: &str, data: Value) -> Posted {
    let (id, began) = (Uuid::now_v7().to_string(), Instant::now());
    let event = json!({ "id": id, "type": "cdr.completed", "data": data });
    let request = client
        .post(format!("{ingest}/v1/events"))
        .bearer_auth(token)
        .json(&event);
    let response = request.send().await.expect("the ingest answers");
    let status = response.status().as_u16();
    let told = response.headers().contains_key("retry-after");
    let said = response.text().await.unwrap();
    match status {
        202 => assert!(said.contains(&id), "{said}"),
        503 => assert!(told, "503 without Retry-After: {said}"),
        _ => panic!("{status}: {said}"),
    }
    Posted {
        id,
        began,
        took: began.elapsed(),
        accepted: status == 202,
        said,
    }
}

/// A stream of events that goes on until it is stopped.
pub struct Stream {
    fates: Arc<Mutex<Vec<Posted>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Stream {
    /// How many of those that were begun since then ended like this.
    pub fn count(&self, since: Instant, accepted: bool) -> usize {
        let fates = self.fates.lock();
        let like = |posted: &&Posted| posted.began >= since && posted.accepted == accepted;
        fates.iter().filter(like).count()
    }

    /// Waits until so many of those that are begun from now on ended like this.
    pub async fn more(&self, count: usize, accepted: bool) {
        let since = Instant::now();
        let what = if accepted { "accepted" } else { "refused" };
        eventually(what, async || self.count(since, accepted) >= count).await;
    }

    /// Stops, and tells all fates.
    pub async fn stop(self) -> Vec<Posted> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every post ends as it should");
        std::mem::take(&mut self.fates.lock())
    }
}

/// The books of a stream: every event that was accepted arrives, and nothing arrives that was not
/// posted. Returns how many came again.
pub async fn settle(receiver: &Receiver, posted: &[Posted]) -> usize {
    let ids: HashSet<_> = posted.iter().map(|posted| posted.id.clone()).collect();
    let accepted: Vec<_> = posted.iter().filter(|posted| posted.accepted).collect();
    receiver
        .wait("every accepted event arrived", |books| {
            accepted.iter().all(|posted| books.is_delivered(&posted.id))
        })
        .await;
    receiver.books(|books| {
        let strange = books.requests.iter().find(|r| !ids.contains(&r.id()));
        assert!(strange.is_none(), "nobody posted {strange:?}");
        books.duplicates()
    })
}

/// Waits until this holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
