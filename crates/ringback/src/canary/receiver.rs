//! The canary's receiver: takes what is rightly signed, refuses the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use ringback_core::canary::event_type;
use ringback_core::catalogue::Family;
use ringback_core::signature::Signed;
use ringback_telemetry::{Counter, Histogram};
use serde::Deserialize;
use uuid::Uuid;

use super::Shared;

/// Its events are small.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What is looked at of the standard body.
#[derive(Deserialize)]
struct Event {
    id: Uuid,
    #[serde(rename = "type")]
    name: String,
}

/// Every path is the same to it.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(receive).with_state(shared)
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request<Body>) -> StatusCode {
    let began = shared.clock.steady();
    let status = judge(&shared, request).await;
    let took = shared.clock.steady().saturating_sub(began);
    let metrics = &shared.metrics;
    metrics.inc(Counter::HttpRequests, &["canary", status.as_str()]);
    metrics.observe(Histogram::HttpSeconds, &["canary"], took.as_secs_f64());
    status
}

async fn judge(shared: &Shared, request: Request<Body>) -> StatusCode {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE,
        Err(_) => return StatusCode::REQUEST_TIMEOUT,
    };
    let Some(id) = verified(shared, &parts.headers, &body) else {
        return match shared.keys.lock().is_empty() {
            // Of before a restart: it is sent again.
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::UNAUTHORIZED,
        };
    };
    let Ok(event) = serde_json::from_slice::<Event>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    if id.parse() != Ok(event.id) {
        return StatusCode::BAD_REQUEST;
    }
    let watches = |family: &Family| event_type(*family) == event.name;
    // A test event, say.
    let Some(family) = Family::ALL.into_iter().find(watches) else {
        return StatusCode::OK;
    };
    let now = shared.clock.steady();
    let took = shared.canary.lock().received(family, event.id, now);
    if let Some(took) = took {
        let labels = [&*family.to_string()];
        shared
            .metrics
            .observe(Histogram::CanarySeconds, &labels, took.as_secs_f64());
    }
    StatusCode::OK
}

/// The `webhook-id` of what is rightly signed.
fn verified<'a>(shared: &Shared, headers: &'a HeaderMap, body: &'a [u8]) -> Option<&'a str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let signed = Signed {
        id: text("webhook-id")?,
        timestamp: text("webhook-timestamp")?,
        signatures: text("webhook-signature")?,
        body,
    };
    let keys = shared.keys.lock().clone();
    let now = shared.clock.now();
    let is_right = keys.iter().any(|key| key.verify(signed, now).is_ok());
    is_right.then_some(signed.id)
}
