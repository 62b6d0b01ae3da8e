//! `…/webhooks/{webhook}/test`: one event of our own to one webhook, through the whole pipeline, and
//! what came of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ringback_core::event::{Event, EventName, Source, Subject};
use ringback_core::log::{Log, Reader};
use ringback_core::record::{Attempt, DELIVERED, Delivery, HeaderLines, TEST_EVENT};
use ringback_core::time::{Timestamp, parse_duration};
use ringback_core::topics::Role;
use ringback_core::webhook::{Format, Webhook};
use ringback_log::batch::Batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::problem::Problem;
use crate::replay_work::{append, not_acknowledged};
use crate::request::Body;
use crate::schema::Moment;
use crate::state::{Admin, AdminState, key_of};
use crate::tail::Told;

/// Source of test events.
const SOURCE: &str = "ringback";
/// Longest message, in characters.
const MESSAGE_MAX: usize = 1000;
/// How long the answer is waited for, when the request does not say, and at most.
const WAIT: Duration = Duration::from_secs(20);
const WAIT_MAX: Duration = Duration::from_secs(45);

/// What to send.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestForm {
    /// Text that goes along, at most 1000 characters.
    message: Option<String>,
    /// How long to wait for what comes back: `20s`, at most `45s`; `0s` does not wait.
    wait: Option<String>,
}

/// A test event, and what came of it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TestSent {
    /// The event's id.
    event: Uuid,
    /// The webhook's id.
    webhook: Uuid,
    /// When the log took it: its attempts come no earlier.
    #[schemars(with = "Moment")]
    appended: Timestamp,
    /// Why it may not be sent.
    warnings: Vec<String>,
    /// The first attempt; null when it was not made in time.
    exchange: Option<Exchange>,
}

/// A request and its response.
#[derive(Serialize, JsonSchema)]
struct Exchange {
    request: SentRequest,
    /// Null when there was none.
    response: Option<GotResponse>,
    /// `status` when there was a response, else what went wrong.
    outcome: String,
    /// Whether it acknowledges the event.
    acknowledged: bool,
    /// What went wrong, for people.
    error: Option<String>,
    #[schemars(with = "Moment")]
    started: Timestamp,
    duration_ms: u64,
    /// What comes next: `delivered`, a tier (`retry.32s`), or why it was parked.
    next: String,
    /// When a retry comes: not before.
    #[schemars(with = "Option<Moment>")]
    next_at: Option<Timestamp>,
}

#[derive(Serialize, JsonSchema)]
struct SentRequest {
    method: String,
    url: String,
    /// Names and values; secrets are `(hidden)`.
    headers: HeaderLines,
    body: String,
}

#[derive(Serialize, JsonSchema)]
struct GotResponse {
    status: u16,
    /// Names and values; secrets are `(hidden)`.
    headers: HeaderLines,
    /// The beginning; what is not UTF-8 is replaced.
    body: String,
}

pub(crate) async fn send<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Body(form): Body<TestForm>,
) -> Result<Response, Problem> {
    let message = form
        .message
        .unwrap_or_else(|| "This is a test from Ringback.".to_owned());
    if message.chars().count() > MESSAGE_MAX {
        let detail = format!("the message has more than {MESSAGE_MAX} characters");
        return Err(Problem::field("message", detail));
    }
    let wait = read_wait(form.wait.as_deref())?;
    let shown = state.clone();
    let (mut sent, webhook, body, told) = state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            send_now(admin, webhook, &message, wait)
        })
        .await?;
    if let Some(told) = told {
        let attempt = tokio::time::timeout(wait, attempt_of(sent.event, told)).await;
        sent.exchange = attempt.ok().flatten().map(|attempt| {
            let mut attempt = Attempt::clone(&attempt);
            // The body is what the one who asks has written himself; the answer is not.
            shown.admin().redaction.attempt(&mut attempt);
            Exchange::of(&webhook, body, attempt)
        });
    }
    let status = match sent.exchange {
        Some(_) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
    };
    Ok((status, Json(sent)).into_response())
}

fn read_wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(WAIT) };
    parse_duration(text)
        .ok()
        .filter(|wait| *wait <= WAIT_MAX)
        .ok_or_else(|| {
            let most = WAIT_MAX.as_secs();
            Problem::field(
                "wait",
                format!("use a duration such as 20s, at most {most}s"),
            )
        })
}

/// What was sent, to whom, the body of its request, and where its attempt will be told.
type Sent = (TestSent, Arc<Webhook>, String, Option<mpsc::Receiver<Told>>);

fn send_now<L: Log>(
    admin: &Admin<L>,
    webhook: Arc<Webhook>,
    message: &str,
    wait: Duration,
) -> Result<Sent, Problem> {
    let now = admin.clock.now();
    let data = json!({ "message": message, "webhook": webhook.name });
    let event = Event {
        id: Uuid::now_v7(),
        name: EventName::parse(TEST_EVENT)?,
        time: now,
        tenant: webhook.tenant.clone(),
        source: Source::parse(SOURCE)?,
        subject: Some(Subject::parse(&format!("webhook/{}", webhook.name))?),
        data: Bytes::from(data.to_string()),
        backfill: false,
        traceparent: None,
    };
    let id = event.id;
    let body = match webhook.format {
        Format::Standard => event.standard_body(),
        Format::CloudEvents | Format::Raw => event.data.to_vec(),
    };
    let mut warnings = Vec::new();
    if !webhook.enabled {
        warnings.push("the webhook is paused: the test is parked, not sent".to_owned());
    }
    if admin.directory()?.is_disabled(&webhook) {
        warnings.push("the webhook is disabled: the test is parked, not sent".to_owned());
    }
    let told = match warnings.is_empty() && !wait.is_zero() {
        false => None,
        // From before it is sent, so that its attempt is not missed.
        true => {
            let partition = admin.partition(Role::Attempts, webhook.id)?;
            let end = admin.log.reader()?.bounds(partition)?.end;
            Some(admin.tail.subscribe(admin, (webhook.id, partition), end)?)
        }
    };
    let delivery = Delivery {
        event: event.into(),
        webhook: webhook.id,
        attempt: 0,
        run: 0,
        accepted: now,
        deferrals: 0,
        replay: None,
    };
    admin.tell_of_webhook("webhook.test", &webhook, json!({ "event": id }))?;
    let topic = admin.topic(Role::Replay)?;
    let mut batch = Batch::new(&admin.appender);
    append(&mut batch, topic, &key_of(webhook.id), &delivery).map_err(not_acknowledged)?;
    let appended = batch.finish().map_err(not_acknowledged)?;
    let sent = TestSent {
        event: id,
        webhook: webhook.id,
        // By the log's clock.
        appended: appended.map_or(now, |appended| appended.at),
        warnings,
        exchange: None,
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((sent, webhook, body, told))
}

/// The first attempt of an event; `None` when nothing is told any more.
async fn attempt_of(event: Uuid, mut told: mpsc::Receiver<Told>) -> Option<Arc<Attempt>> {
    loop {
        let Told { attempt, .. } = told.recv().await?;
        if attempt.event == event {
            return Some(attempt);
        }
    }
}

impl Exchange {
    fn of(webhook: &Webhook, body: String, attempt: Attempt) -> Self {
        let response = attempt.status.map(|status| GotResponse {
            status,
            headers: attempt.response_headers.unwrap_or_default(),
            body: attempt.response.unwrap_or_default(),
        });
        Self {
            request: SentRequest {
                method: "POST".to_owned(),
                url: webhook.url.clone(),
                headers: attempt.request_headers.unwrap_or_default(),
                body,
            },
            response,
            outcome: attempt.outcome,
            acknowledged: attempt.next == DELIVERED,
            error: attempt.error,
            started: attempt.started,
            duration_ms: attempt.duration_ms,
            next: attempt.next,
            next_at: attempt.next_at,
        }
    }
}
