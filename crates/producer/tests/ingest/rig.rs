//! An ingest on the local log, whose failures are made to order.

use std::sync::Arc;
use std::time::Duration;

use ringback_core::account::{Scope, Token};
use ringback_core::catalogue::Family;
use ringback_core::event::TenantId;
use ringback_core::log::{Log, Reader, Record};
use ringback_core::record::decode_event;
use ringback_core::schedule::Schedule;
use ringback_core::secret::Secret;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_core::webhook::Tenant;
use ringback_log::directory::LiveDirectory;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_producer::{Config, IngestState, serve};
use ringback_telemetry::Metrics;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::faults::{Faults, FaultyLog};

pub(crate) const JSON: &str = "application/json";
pub(crate) const LINES: &str = "application/x-ndjson";

pub(crate) struct Rig {
    pub(crate) log: FaultyLog,
    pub(crate) faults: Faults,
    pub(crate) url: String,
    /// A token of tenant `acme`.
    pub(crate) own: Secret,
    /// A token of tenant `acme` for the administration alone.
    pub(crate) manager: Secret,
    /// A token for every tenant.
    pub(crate) all: Secret,
    pub(crate) metrics: Metrics,
    pub(crate) directory: Arc<LiveDirectory>,
    pub(crate) config: Config,
    pub(crate) client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    /// Tenants `acme` and `other`, a token for `acme` and one for all.
    pub(crate) async fn start_with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let topics = TopicsConfig {
            event_partitions: 2,
            work_partitions: 1,
            raw: config.raw.iter().map(|raw| raw.source.clone()).collect(),
            ..Default::default()
        };
        let topics = Topics::new(&topics, Schedule::default().tiers());
        let local = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
        let faults = Faults::default();
        let log = FaultyLog::new(local, faults.clone());
        assert_eq!(log.create_topics().unwrap(), []);
        for id in ["acme", "other"] {
            let id = TenantId::parse(id).unwrap();
            let title = String::new();
            let tenant = Tenant {
                version: 1,
                id: id.clone(),
                title,
                notify: Vec::new(),
                created: Timestamp::EPOCH,
                unknown: serde_json::Map::new(),
            };
            put(&log, Role::Tenants, id.as_str(), &tenant);
        }
        let kinds = [
            ("acme", Scope::Publish),
            ("", Scope::Publish),
            ("acme", Scope::Write),
        ];
        let mut tokens = kinds.into_iter().zip(1..).map(|((tenant, scope), n)| {
            let id = Uuid::from_u128(n);
            let random = [u8::try_from(n).unwrap(); 32];
            let tenant = TenantId::parse(tenant).ok();
            let (scopes, now) = ([scope].into(), Timestamp::EPOCH);
            let (token, text) = Token::issue(id, "test".into(), tenant, scopes, now, random);
            put(&log, Role::Tokens, &id.to_string(), &token);
            text
        });
        let mut next = || tokens.next().unwrap();
        let (own, all, manager) = (next(), next(), next());
        drop(tokens);
        let roles = [Role::Tenants, Role::Tokens];
        let directory = Arc::new(LiveDirectory::start(&log, &roles, || {}).unwrap());
        assert!(directory.wait_fresh(Duration::from_secs(30)));
        let metrics = Metrics::new();
        let age_max = Duration::from_secs(86_400);
        let state = IngestState::new(
            &log,
            directory.clone(),
            config.clone(),
            age_max,
            metrics.clone(),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, state, None, CancellationToken::new()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            log,
            faults,
            url,
            own,
            all,
            manager,
            metrics,
            directory,
            config,
            client,
            _dir: dir,
        }
    }

    pub(crate) async fn post(
        &self,
        token: &Secret,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.post_to(&self.url, token, kind, body).await
    }

    pub(crate) async fn post_to(
        &self,
        url: &str,
        token: &Secret,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let request = self.client.post(url).bearer_auth(token.expose());
        let response = request
            .header("content-type", kind)
            .body(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().contains_key("retry-after");
        let body = response.json().await.unwrap();
        Answer {
            status,
            retry_after,
            body,
        }
    }

    /// Ids in the log, of all events.
    pub(crate) fn accepted(&self) -> Vec<Uuid> {
        let mut ids = Vec::new();
        let mut reader = self.log.reader().unwrap();
        for family in Family::ALL {
            let topic = self.log.topics().find(Role::Events(family)).unwrap();
            for partition in self.log.topics().partitions(topic) {
                let bounds = reader.bounds(partition).unwrap();
                let take = &mut |record: Record<'_>| {
                    ids.push(decode_event(&record).unwrap().id);
                };
                reader.read(partition, bounds, take).unwrap();
            }
        }
        ids
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: bool,
    pub(crate) body: Value,
}

fn put(log: &FaultyLog, role: Role, key: &str, value: &impl serde::Serialize) {
    let topic = log.topics().find(role).unwrap();
    let value = serde_json::to_vec(value).unwrap();
    log.compare_and_set(topic, key, None, Some(&value)).unwrap();
}
