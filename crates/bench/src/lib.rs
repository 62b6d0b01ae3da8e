//! Benchmarks of the parts; each is a binary that prints lines `figure NAME VALUE UNIT`. Here is what
//! several of them set up alike: an engine, one tenant with its webhooks, the way from the ingest to a
//! dispatcher, and the receiver at its end.

// A bench that cannot be set up has nothing to print.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ringback_core::account::{Scope, Token};
use ringback_core::address::Opening;
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::schedule::Schedule;
use ringback_core::secret::{NONCE_BYTES, Secret};
use ringback_core::signature::{Kind, generate};
use ringback_core::signing::{FIELD, SigningKey};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_core::webhook::{
    Authentication, CONFIG_VERSION, PASSWORD, Pattern, Tenant, Webhook, WebhookName,
};
use ringback_dispatcher::{Dispatcher, Environment, Http};
use ringback_log::directory::LiveDirectory;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_producer::IngestState;
use ringback_telemetry::{Health, Metrics};
use ringback_tests::kafka::{KafkaOptions, KafkaServer};
use ringback_tests::rig::keys;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What runs on an engine of the user's choice.
pub trait Measurement {
    /// Measures on this log, which is empty; `engine` is its name.
    fn run<L: Log>(self, log: L, engine: &str) -> impl Future<Output = ()>;
}

/// Runs a measurement on `local` or `kafka`, with the default topics and their defaults.
pub fn on_engine(engine: &str, measurement: impl Measurement) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = TopicsConfig {
        replication: 1,
        ..TopicsConfig::default()
    };
    let topics = Topics::new(&config, Schedule::default().tiers());
    // The first makes the TLS provider that all clients of this process use.
    let _ = Http::new(&Default::default(), keys());
    match engine {
        "kafka" => {
            let options = KafkaOptions {
                perf: true,
                ..Default::default()
            };
            let server = KafkaServer::start_with(&options).unwrap();
            let config = KafkaConfig {
                bootstrap: server.bootstrap().to_owned(),
                ..Default::default()
            };
            let log = KafkaLog::open(config, topics).unwrap();
            runtime.block_on(measurement.run(log, engine));
        }
        "local" => {
            let dir = tempfile::tempdir().unwrap();
            let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
            runtime.block_on(measurement.run(log, engine));
        }
        other => panic!("{other:?} is no engine: use local or kafka"),
    }
    runtime.shutdown_background();
}

/// One tenant, the ingest and a dispatcher over a log.
pub struct Pipeline<L: Log> {
    /// The URL of the ingest's events.
    pub ingest: String,
    /// A token of the one tenant.
    pub token: String,
    /// Of ingest and dispatcher.
    pub metrics: Metrics,
    /// The one dispatcher.
    pub dispatcher: Dispatcher<L>,
}

impl<L: Log> Pipeline<L> {
    /// Creates the topics and starts all of it, with these URLs as webhooks, webhook `n` gets
    /// `cdr.kind_n`.
    pub async fn start(log: &L, urls: &[String]) -> Self {
        let problems = tokio::task::spawn_blocking({
            let log = log.clone();
            move || log.create_topics()
        });
        assert_eq!(problems.await.unwrap().unwrap(), []);
        let token = configure(log, urls);
        let metrics = Metrics::new();
        let environment = Environment {
            config: ringback_dispatcher::Config {
                allow_networks: Some(vec![Opening::LOOPBACK]),
                ..Default::default()
            },
            schedule: Schedule::default(),
            clock: ringback_log::system_clock(),
            metrics: metrics.clone(),
            health: Health::new(),
        };
        let dispatcher = Dispatcher::start(log, environment, keys()).unwrap();
        Self {
            ingest: ingest(log, metrics.clone()).await,
            token,
            metrics,
            dispatcher,
        }
    }
}

/// Writes one tenant whose webhooks share its events by type. Returns a token for it.
fn configure<L: Log>(log: &L, urls: &[String]) -> String {
    let put = |role, key: &str, value: serde_json::Value| {
        let topic = log.topics().find(role).unwrap();
        let value = value.to_string();
        log.compare_and_set(topic, key, None, Some(value.as_bytes()))
            .unwrap();
    };
    let id = TenantId::parse("bench").unwrap();
    let now = Timestamp::EPOCH;
    let tenant = Tenant {
        version: CONFIG_VERSION,
        id: id.clone(),
        title: String::new(),
        notify: Vec::new(),
        created: now,
        unknown: serde_json::Map::new(),
    };
    put(
        Role::Tenants,
        "bench",
        serde_json::to_value(&tenant).unwrap(),
    );
    for (n, url) in urls.iter().enumerate() {
        let pattern = format!("cdr.kind_{n}");
        let webhook_id = Uuid::now_v7();
        let seal =
            |secret: &Secret, field| keys().seal(secret, webhook_id, field, [9; NONCE_BYTES]);
        let webhook = Webhook {
            version: CONFIG_VERSION,
            id: webhook_id,
            tenant: id.clone(),
            name: WebhookName::parse(&format!("w{n}")).unwrap(),
            subscription: vec![Pattern::parse(&pattern).unwrap()],
            url: url.clone(),
            authentication: Authentication::Basic {
                username: "bench".to_owned(),
                password: seal(&Secret::new("a password"), PASSWORD).unwrap(),
            },
            enabled: true,
            generation: 0,
            acknowledge: Default::default(),
            format: Default::default(),
            headers: Default::default(),
            tls: None,
            previous_authentication: None,
            rate_limit: None,
            schedule: None,
            // As every new webhook has one.
            signing: vec![SigningKey {
                kind: Kind::Hmac,
                secret: seal(&generate(Kind::Hmac, [9; 32]), FIELD).unwrap(),
                created: now,
                until: None,
            }],
            created: now,
            updated: now,
            unknown: Default::default(),
        };
        put(
            Role::Webhooks,
            &webhook.key(),
            serde_json::to_value(&webhook).unwrap(),
        );
    }
    let token_id = Uuid::now_v7();
    let scopes = [Scope::Publish].into();
    let (token, text) = Token::issue(token_id, "bench".into(), Some(id), scopes, now, [7; 32]);
    put(
        Role::Tokens,
        &token_id.to_string(),
        serde_json::to_value(&token).unwrap(),
    );
    text.expose().to_owned()
}

/// Starts an ingest over this log; returns the URL of its events.
async fn ingest<L: Log>(log: &L, metrics: Metrics) -> String {
    let roles = [Role::Tenants, Role::Tokens];
    let directory = Arc::new(LiveDirectory::start(log, &roles, || {}).unwrap());
    let loading = directory.clone();
    let loaded = tokio::task::spawn_blocking(move || loading.wait_fresh(Duration::from_secs(60)));
    assert!(loaded.await.unwrap());
    let age_max = Duration::from_secs(86_400);
    let state = IngestState::new(log, directory, Default::default(), age_max, metrics).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    tokio::spawn(ringback_producer::serve(
        listener,
        state,
        None,
        CancellationToken::new(),
    ));
    url
}

/// What receives the deliveries.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections that were accepted so far.
    pub connections: Arc<AtomicU64>,
}

impl Receiver {
    /// Answers every request with 200 when `handle` is done with its path and body.
    pub async fn start<F: Future<Output = ()> + Send>(
        handle: impl Fn(String, Bytes) -> F + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicU64>::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let handle = handle.clone();
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let handle = handle.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        handle(path, body).await;
                        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
                    }
                });
                let io = TokioIo::new(stream);
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(io, service));
            }
        });
        Self {
            address,
            connections,
        }
    }
}

/// The number that ends the data, which ends the body: `…"n":123}}`.
pub fn number(body: &[u8]) -> usize {
    let digits = body
        .trim_ascii_end()
        .strip_suffix(b"}}")
        .unwrap_or_default();
    let start = digits.iter().rposition(|c| !c.is_ascii_digit());
    let digits = &digits[start.map_or(0, |at| at + 1)..];
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}
