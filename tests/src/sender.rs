//! Single attempts by the dispatcher's own HTTP, without the pipeline around it.

use bytes::Bytes;
use ringback_core::address::Opening;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::record::Delivery;
use ringback_core::secret::{NONCE_BYTES, Secret};
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use ringback_dispatcher::{Config, Http, Sent, Transport as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::keys;

/// Makes attempts, and keeps what is kept between them.
pub struct Sender {
    http: Http,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    pub fn new() -> Self {
        Self::with(&Config::default())
    }

    /// With these settings; this machine is open unless they say otherwise.
    pub fn with(config: &Config) -> Self {
        let mut config = config.clone();
        config.allow_networks.get_or_insert(vec![Opening::LOOPBACK]);
        let http = Http::new(&config, keys()).unwrap();
        Self { http }
    }

    /// A webhook that authenticates like this; secrets are given in clear, and sealed here.
    pub fn webhook(&self, url: &str, authentication: Value) -> Webhook {
        let id = Uuid::now_v7();
        let authentication = sealed(id, authentication);
        webhook(url, json!({ "id": id, "authentication": authentication }))
    }

    /// The same webhook with another authentication.
    pub fn change(&self, webhook: &Webhook, authentication: Value) -> Webhook {
        let authentication = sealed(webhook.id, authentication);
        Webhook {
            authentication: serde_json::from_value(authentication).unwrap(),
            ..webhook.clone()
        }
    }

    /// One attempt to deliver a new event.
    pub async fn send(&self, webhook: &Webhook) -> Sent {
        let now = ringback_log::system_clock().now();
        let delivery = delivery(webhook.id, now, Bytes::from_static(b"{}"));
        let body = delivery.event.standard_body().into();
        let sent = self.http.send(webhook, &delivery, body, now).await;
        sent.unwrap()
    }
}

fn sealed(webhook: Uuid, mut authentication: Value) -> Value {
    for field in ["password", "token"] {
        if let Some(secret) = authentication.get(field) {
            let secret = Secret::new(secret.as_str().unwrap());
            let sealed = keys().seal(&secret, webhook, field, [7; NONCE_BYTES]);
            authentication[field] = json!(sealed.unwrap());
        }
    }
    authentication
}

/// A webhook with these fields besides its URL; always the same one, unless they say which.
pub fn webhook(url: &str, fields: Value) -> Webhook {
    let mut record = json!({
        "version": 1, "id": Uuid::from_u128(8), "tenant": "acme", "name": "cdr", "subscription": ["*"],
        "url": url, "authentication": { "method": "none" }, "enabled": true, "generation": 1,
        "created": "2026-11-21T00:00:00Z", "updated": "2026-11-21T00:00:00Z",
    });
    for (key, value) in fields.as_object().unwrap() {
        record[key] = value.clone();
    }
    serde_json::from_value(record).unwrap()
}

/// The delivery of a new event to this webhook.
pub fn delivery(webhook: Uuid, now: Timestamp, data: Bytes) -> Delivery {
    let event = Event {
        id: Uuid::now_v7(),
        name: EventName::parse("cdr.completed").unwrap(),
        time: now,
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("test").unwrap(),
        subject: None,
        data,
        backfill: false,
        traceparent: None,
    };
    Delivery {
        event: event.into(),
        webhook,
        attempt: 0,
        run: 0,
        accepted: now,
        deferrals: 0,
        replay: None,
    }
}
