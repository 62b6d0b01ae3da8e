//! The headers of a request (contract R3, R5, R6).

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ringback_core::cloudevent::http_headers;
use ringback_core::record::Delivery;
use ringback_core::time::Timestamp;
use ringback_core::trace::of_attempt;
use ringback_core::webhook::{Format, Webhook};
use ringback_telemetry::traces;

use super::{Http, Unsendable};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Http {
    pub(super) fn headers(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<HeaderMap, Unsendable> {
        let mut headers = HeaderMap::with_capacity(8 + webhook.headers.len());
        // Before our own, which win should a record hold what nobody may set.
        for (name, text) in &webhook.headers {
            let name =
                HeaderName::try_from(name).map_err(|_| Unsendable::Header("name of a header"))?;
            headers.insert(name, value(text.clone(), "text of a header")?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if webhook.format == Format::CloudEvents {
            for (name, text) in http_headers(&delivery.event) {
                headers.insert(HeaderName::from_static(name), value(text, "attribute")?);
            }
        }
        let id = delivery.event.id.as_hyphenated().to_string();
        headers.insert(WEBHOOK_ID, value(id, "event id")?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_secs()));
        headers.insert(
            WEBHOOK_ATTEMPT,
            HeaderValue::from(u16::from(delivery.attempt)),
        );
        if let Some(traceparent) = traceparent(delivery)
            && let Ok(value) = HeaderValue::try_from(traceparent)
        {
            headers.insert(TRACEPARENT, value);
        }
        Ok(headers)
    }
}

/// The attempt itself is what the receiver's trace follows from, where it is recorded.
fn traceparent(delivery: &Delivery) -> Option<String> {
    let recorded = traces::is_on().then(|| of_attempt(delivery)).flatten();
    match recorded {
        Some(step) => Some(step.context.to_string()),
        None => delivery.event.traceparent.clone(),
    }
}

/// A header's value; `what` names it in the error.
pub(super) fn value(text: String, what: &'static str) -> Result<HeaderValue, Unsendable> {
    HeaderValue::try_from(text).map_err(|_| Unsendable::Header(what))
}
