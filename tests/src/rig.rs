//! The whole pipeline in this process, over any engine, with a receiver that keeps the books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_admin::AdminState;
use ringback_core::address::Opening;
use ringback_core::health::HealthPolicy;
use ringback_core::log::{Log, Revision};
use ringback_core::lookup::Lookup;
use ringback_core::schedule::Schedule;
use ringback_core::secret::KeyRing;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_dispatcher::{Dispatcher, Environment};
use ringback_log::directory::LiveDirectory;
use ringback_metrics::MetricsService;
use ringback_telemetry::{Health, Metrics};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::receiver::Receiver;

/// How long the admin may be behind the log.
const PATIENCE: Duration = Duration::from_secs(60);

/// The operator's token of every rig.
pub const OPERATOR: &str = "operator-token-of-the-tests";

/// Tiers for tests: the ladder of the contract, shortened.
pub fn short_schedule() -> Schedule {
    let tiers = [300, 400, 500, 600, 700].map(Duration::from_millis);
    Schedule::new(tiers.into(), Duration::from_secs(86_400)).unwrap()
}

/// A policy for tests: half a minute instead of days.
pub fn short_policy() -> HealthPolicy {
    HealthPolicy {
        window: Duration::from_secs(30),
        attempts: 8,
        silence: Duration::from_secs(3),
        slow_window: Duration::from_secs(600),
        ..HealthPolicy::default()
    }
}

/// A small table of topics with a prefix of its own.
pub fn topics(schedule: &Schedule) -> Arc<Topics> {
    Topics::new(&topics_config(), schedule.tiers())
}

/// Settings of such a table.
pub fn topics_config() -> TopicsConfig {
    TopicsConfig {
        prefix: format!("t{}.", Uuid::now_v7().simple()),
        event_partitions: 2,
        work_partitions: 1,
        replication: 1,
        ..TopicsConfig::default()
    }
}

/// Keys of every rig.
pub fn keys() -> KeyRing {
    KeyRing::new(
        "test",
        [("test", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")],
    )
    .unwrap()
}

/// A running pipeline.
pub struct Rig<L: Log> {
    pub log: L,
    pub receiver: Receiver,
    pub dispatcher: Option<Dispatcher<L>>,
    metrics_service: Option<MetricsService>,
    pub schedule: Schedule,
    pub client: reqwest::Client,
    pub admin: String,
    pub ingest: String,
    pub health: Health,
    /// Of everything that runs here.
    pub metrics: Metrics,
    /// Of the next dispatcher that is started.
    pub config: ringback_dispatcher::Config,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    stop: CancellationToken,
}

impl<L: Log> Rig<L> {
    /// Starts ingest, admin, metrics and a dispatcher over this log.
    pub async fn start(log: L, schedule: Schedule) -> Self {
        let config = ringback_dispatcher::Config {
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            drain: Duration::from_secs(5),
            ..Default::default()
        };
        Self::start_with(log, schedule, config).await
    }

    /// The same with other settings of the dispatcher.
    pub async fn start_with(
        log: L,
        schedule: Schedule,
        config: ringback_dispatcher::Config,
    ) -> Self {
        Self::start_resolving(log, schedule, config, None).await
    }

    /// The same; with this the names of webhooks are looked up when they are configured.
    pub async fn start_resolving(
        log: L,
        schedule: Schedule,
        mut config: ringback_dispatcher::Config,
        lookup: Option<Lookup>,
    ) -> Self {
        config.allow_networks.get_or_insert(vec![Opening::LOOPBACK]);
        let reach = config.reach();
        let problems = tokio::task::spawn_blocking({
            let log = log.clone();
            move || log.create_topics()
        });
        assert_eq!(problems.await.unwrap().unwrap(), []);
        // For the clients of the tests; the dispatcher chooses for itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stop = CancellationToken::new();
        let (metrics, health) = (Metrics::new(), Health::new());
        let roles = ringback_admin::ROLES;
        let directory = Arc::new(LiveDirectory::start(&log, &roles, || {}).unwrap());
        let loading = directory.clone();
        let loaded =
            tokio::task::spawn_blocking(move || loading.wait_fresh(Duration::from_secs(60)));
        assert!(loaded.await.unwrap(), "the configuration cannot be read");
        let (admin, listener) = listen().await;
        let admin_config = ringback_admin::Config {
            operator_token: OPERATOR.to_owned().into(),
            policy: short_policy(),
            reach,
            lookup,
            // Whatever the machine is busy with.
            lookup_within: Duration::from_secs(60),
            ..Default::default()
        };
        let state = AdminState::new(
            log.clone(),
            directory.clone(),
            keys(),
            admin_config,
            metrics.clone(),
        )
        .unwrap();
        let mut servers = vec![tokio::spawn(ringback_admin::serve(
            listener,
            state,
            None,
            stop.clone(),
        ))];
        let (ingest, listener) = listen().await;
        let state = ringback_producer::IngestState::new(
            &log,
            directory,
            ringback_producer::Config::default(),
            schedule.expires_after(),
            metrics.clone(),
        )
        .unwrap();
        servers.push(tokio::spawn(ringback_producer::serve(
            listener,
            state,
            None,
            stop.clone(),
        )));
        let environment = ringback_metrics::Environment {
            config: ringback_metrics::Config {
                policy: short_policy(),
                ..Default::default()
            },
            metrics: metrics.clone(),
            health: health.clone(),
            clock: ringback_log::system_clock(),
        };
        let metrics_service = MetricsService::start(&log, environment).unwrap();
        let mut rig = Self {
            metrics_service: Some(metrics_service),
            log,
            receiver: Receiver::start().await,
            dispatcher: None,
            schedule,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            admin,
            ingest,
            health,
            metrics,
            config,
            servers,
            stop,
        };
        rig.start_dispatcher();
        rig
    }

    /// Starts a dispatcher, when there is none.
    pub fn start_dispatcher(&mut self) {
        let environment = Environment {
            config: self.config.clone(),
            schedule: self.schedule.clone(),
            clock: ringback_log::system_clock(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
        };
        self.dispatcher = Some(Dispatcher::start(&self.log, environment, keys()).unwrap());
    }

    /// Calls the admin API; the answer must be a success. Asks again while the admin does not know
    /// whether it is up to date, which it does not when its machine stood still.
    pub async fn api(&self, method: &str, path: &str, body: Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let (status, answer) = loop {
            let (status, answer) = self.try_api(method, path, body.clone()).await;
            if answer["code"] != "configuration_stale" || Instant::now() >= deadline {
                break (status, answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        self.heard_of(&answer).await;
        answer
    }

    /// Waits until the dispatcher knows of a webhook's change: an event that is accepted within its
    /// first 2 s may still meet the webhook as it was (docs/contract.md).
    async fn heard_of(&self, changed: &Value) {
        let (Some(dispatcher), Some(revision)) = (&self.dispatcher, changed["revision"].as_i64())
        else {
            return;
        };
        if changed["subscription"].is_null() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let (directory, revision) = (dispatcher.directory(), Revision(revision));
        while !directory.wait_applied(Role::Webhooks, revision, Duration::ZERO) {
            assert!(Instant::now() < deadline, "not heard of {changed}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Calls the admin API.
    pub async fn try_api(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/v1/{path}", self.admin);
        let mut request = self
            .client
            .request(method.parse().unwrap(), url)
            .bearer_auth(OPERATOR);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Replaces what is there, whatever it is.
    pub async fn put(&self, path: &str, body: Value) {
        let url = format!("{}/v1/{path}", self.admin);
        let request = self.client.put(url).bearer_auth(OPERATOR);
        let response = request.header("if-match", "*").json(&body).send().await;
        let response = response.unwrap();
        let status = response.status();
        assert!(status.is_success(), "PUT {path}: {status}");
    }

    /// A fresh tenant with a token for it.
    pub async fn tenant(&self) -> TestTenant {
        let id = format!("t{}", Uuid::now_v7().simple());
        self.api("POST", "tenants", json!({ "id": id, "title": "Test" }))
            .await;
        let answer = self
            .api("POST", "tokens", json!({ "name": "test", "tenant": id }))
            .await;
        let token = answer["token"].as_str().unwrap().to_owned();
        TestTenant { id, token }
    }

    /// A webhook of a tenant that posts to a path of the receiver.
    pub async fn webhook(&self, tenant: &TestTenant, name: &str, patterns: &[&str], path: &str) {
        let url = self.receiver.url(path);
        self.webhook_with(
            tenant,
            name,
            json!({ "subscription": patterns, "url": url }),
        )
        .await;
    }

    /// A webhook with these fields.
    pub async fn webhook_with(&self, tenant: &TestTenant, name: &str, fields: Value) -> Value {
        let mut body = json!({ "name": name });
        for (key, value) in fields.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.api("POST", &format!("tenants/{}/webhooks", tenant.id), body)
            .await
    }

    /// Posts an event; returns its id. It must be accepted.
    pub async fn send(&self, tenant: &TestTenant, event: Value) -> String {
        let url = format!("{}/v1/events", self.ingest);
        let request = self
            .client
            .post(url)
            .bearer_auth(&tenant.token)
            .json(&event);
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status.as_u16(), 202, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Posts an event of this type with some data.
    pub async fn event(&self, tenant: &TestTenant, name: &str) -> String {
        self.send(tenant, json!({ "type": name, "data": { "n": 1 } }))
            .await
    }

    /// The attempts of an event on a webhook, oldest first, when there are at least `count`.
    pub async fn attempts(
        &self,
        tenant: &TestTenant,
        webhook: &str,
        event: &str,
        count: usize,
    ) -> Vec<Value> {
        let path = format!(
            "tenants/{}/webhooks/{webhook}/attempts?event={event}",
            tenant.id
        );
        self.list(&path, "attempts", count).await
    }

    /// The parked deliveries of a webhook, when there are at least `count`.
    pub async fn parked(&self, tenant: &TestTenant, webhook: &str, count: usize) -> Vec<Value> {
        let path = format!("tenants/{}/webhooks/{webhook}/parked", tenant.id);
        self.list(&path, "parked", count).await
    }

    /// The rows of a listing, oldest first, when there are at least `count`.
    pub async fn list(&self, path: &str, field: &str, count: usize) -> Vec<Value> {
        let mut seen = Value::Null;
        for _ in 0..600 {
            seen = self.api("GET", path, Value::Null).await;
            let mut rows = seen[field].as_array().cloned().unwrap_or_default();
            if rows.len() >= count {
                rows.reverse();
                return rows;
            }
            // The API has no push yet: ask again, a bounded number of times.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("waited in vain for {count} rows of {path}: {seen}");
    }

    /// Drains the dispatcher and stops the servers; the log is nobody's afterwards.
    pub async fn stop(mut self) {
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.drain().await;
        }
        if let Some(service) = self.metrics_service.take() {
            tokio::task::spawn_blocking(|| service.drain())
                .await
                .unwrap();
        }
        self.stop.cancel();
        // Kept connections of our own client would be waited for.
        self.client = reqwest::Client::new();
        for server in self.servers.drain(..) {
            server.await.unwrap().unwrap();
        }
    }
}

/// A tenant of a test.
pub struct TestTenant {
    pub id: String,
    pub token: String,
}

async fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (
        format!("http://{}", listener.local_addr().unwrap()),
        listener,
    )
}
