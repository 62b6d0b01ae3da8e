//! Handing an event in, as any customer does.

use std::time::Duration;

use reqwest::StatusCode;
use ringback_core::canary::event_type;
use ringback_core::catalogue::Family;
use ringback_core::secret::Secret;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::api::{describe, read};

/// How long the ingest may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why the ingest does not have an event, as far as is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: String,
    /// It may be that tenant or token are not there any more.
    pub(super) by_judgement: bool,
}

/// Hands in one event; done is that the ingest answers 202.
pub(super) async fn post(
    http: &reqwest::Client,
    url: &Url,
    token: &Secret,
    family: Family,
    id: Uuid,
) -> Result<(), Refused> {
    let refused = |why: String| Refused {
        why,
        by_judgement: false,
    };
    // A subject of its own each time: they take turns on all partitions.
    let event = json!({
        "id": id,
        "type": event_type(family),
        "subject": format!("canary/{id}"),
        "data": { "sent_by": "ringback canary" },
    });
    let request = http
        .post(url.clone())
        .timeout(TIMEOUT)
        .bearer_auth(token.expose())
        .json(&event);
    let response = request.send().await.map_err(|error| {
        let said = describe(&error);
        refused(format!(
            "the ingest at {url} does not answer: {said}; check canary.ingest_url"
        ))
    })?;
    let status = response.status();
    if status == StatusCode::ACCEPTED {
        return Ok(());
    }
    let text = read(response, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("no word why");
    Err(Refused {
        why: format!("the ingest at {url} answers {status}: {detail}"),
        by_judgement: status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS,
    })
}
