//! Benchmarks of the parts; each is a binary that prints lines `figure NAME VALUE UNIT`. Here is what
//! several of them set up alike.

// A bench that cannot be set up has nothing to print.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use ringback_core::account::Token;
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::webhook::{
    Authentication, CONFIG_VERSION, Pattern, Tenant, Webhook, WebhookName,
};
use ringback_log::directory::LiveDirectory;
use ringback_producer::IngestState;
use ringback_telemetry::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Writes one tenant whose webhooks share its events by type: webhook `n` has URL `n` and gets
/// `cdr.kind_n`. Returns a token for it.
pub fn configure<L: Log>(log: &L, urls: &[String]) -> String {
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
        created: now,
    };
    put(
        Role::Tenants,
        "bench",
        serde_json::to_value(&tenant).unwrap(),
    );
    for (n, url) in urls.iter().enumerate() {
        let pattern = format!("cdr.kind_{n}");
        let webhook = Webhook {
            version: CONFIG_VERSION,
            id: Uuid::now_v7(),
            tenant: id.clone(),
            name: WebhookName::parse(&format!("w{n}")).unwrap(),
            subscription: vec![Pattern::parse(&pattern).unwrap()],
            url: url.clone(),
            authentication: Authentication::None,
            enabled: true,
            generation: 0,
            acknowledge: Default::default(),
            format: Default::default(),
            rate_limit: None,
            schedule: None,
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
    let (token, text) = Token::issue(token_id, "bench".into(), Some(id), now, [7; 32]);
    put(
        Role::Accounts,
        &token_id.to_string(),
        serde_json::to_value(&token).unwrap(),
    );
    text.expose().to_owned()
}

/// Starts an ingest over this log; returns the URL of its events.
pub async fn ingest<L: Log>(log: &L, metrics: Metrics) -> String {
    let roles = [Role::Tenants, Role::Accounts];
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
        CancellationToken::new(),
    ));
    url
}
