//! The span of an attempt (OpenTelemetry's conventions for HTTP clients).

use std::borrow::Cow;

use ringback_core::record::{Attempt, DELIVERED, Delivery};
use ringback_core::time::Timestamp;
use ringback_core::trace::of_attempt;
use ringback_core::webhook::Webhook;
use ringback_telemetry::traces::{self, KeyValue, Span, SpanKind, of_event};
use url::Url;

/// Records an attempt, if its event is recorded.
pub(crate) fn record(delivery: &Delivery, webhook: &Webhook, attempt: &Attempt, ended: Timestamp) {
    if !traces::is_on() {
        return;
    }
    let Some(step) = of_attempt(delivery) else {
        return;
    };
    let mut attributes = of_event(&delivery.event);
    attributes.extend([
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.request.resend_count", i64::from(delivery.attempt)),
        KeyValue::new(
            "ringback.webhook",
            delivery.webhook.as_hyphenated().to_string(),
        ),
        KeyValue::new("ringback.run", i64::from(delivery.run)),
        KeyValue::new("ringback.outcome", attempt.outcome.clone()),
        KeyValue::new("ringback.next", attempt.next.clone()),
    ]);
    // Of the URL only this: path and query may be secret.
    if let Ok(url) = Url::parse(&webhook.url) {
        let host = url.host_str().map(str::to_owned);
        attributes.extend(host.map(|host| KeyValue::new("server.address", host)));
        let port = url.port_or_known_default().map(i64::from);
        attributes.extend(port.map(|port| KeyValue::new("server.port", port)));
    }
    let mut kind = attempt.outcome.clone();
    if let Some(status) = attempt.status {
        attributes.push(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        kind = status.to_string();
    }
    let error = (attempt.next != DELIVERED).then(|| {
        attributes.push(KeyValue::new("error.type", kind.clone()));
        attempt.error.clone().unwrap_or(kind)
    });
    traces::ended(Span {
        name: Cow::Borrowed("deliver"),
        kind: SpanKind::Client,
        step,
        started: attempt.started,
        ended,
        attributes,
        error,
    });
}
