//! One request: who sends, what it holds, and the verdict on it.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::account::{Scope, Token, bearer};
use ringback_core::cloudevent::{
    CloudEvent, MEDIA_TYPE_BATCH, MEDIA_TYPE_JSON, essence, is_json, is_media_type, is_structured,
    traceparent as traceparent_of,
};
use ringback_core::event::{Defaults, Event, InvalidEvent};
use ringback_core::log::Log;
use ringback_telemetry::{Counter, Histogram};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::problem::Problem;
use super::{IngestState, Inner, batch, cloudevents};
use crate::publisher::PublishError;

#[derive(Deserialize)]
pub(super) struct Options {
    /// Old events are meant.
    #[serde(default)]
    backfill: bool,
}

/// The forms in which events come.
enum Form {
    /// One of ours.
    One,
    /// Several of ours, one per line.
    Lines,
    /// A CloudEvent whose attributes are in headers.
    Binary,
    /// A CloudEvent.
    Structured,
    /// An array of CloudEvents.
    Batch,
}

/// `POST /v1/events`
pub(super) async fn post_events<L: Log>(
    State(state): State<IngestState<L>>,
    options: Result<Query<Options>, QueryRejection>,
    request: Request<Body>,
) -> Response {
    let began = Instant::now();
    let response = match handle(&state.0, options, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16().to_string();
    let metrics = &state.0.metrics;
    metrics.inc(Counter::HttpRequests, &["ingest", &status]);
    metrics.observe(
        Histogram::HttpSeconds,
        &["ingest"],
        began.elapsed().as_secs_f64(),
    );
    response
}

async fn handle<L: Log>(
    state: &Inner<L>,
    options: Result<Query<Options>, QueryRejection>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let token = authenticate(state, &parts.headers)?;
    let Query(options) = options.map_err(|error| {
        let detail = format!("{}; the one option is ?backfill=true", error.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "illegal_query", detail)
    })?;
    let form = form(&parts.headers)?;
    let (body, _room) = read(state, &parts.headers, body).await?;
    let traceparent = parts.headers.get("traceparent");
    let intake = Intake {
        state,
        token,
        backfill: options.backfill,
        traceparent: traceparent.and_then(|text| traceparent_of(text.to_str().ok()?)),
    };
    match form {
        Form::One => one(&intake, intake.judge(&body)).await,
        Form::Lines => batch::lines(&intake, &body).await,
        Form::Binary => {
            let event = cloudevents::binary(&parts.headers, &body);
            one(
                &intake,
                event.and_then(|event| intake.judge_cloud_event(event)),
            )
            .await
        }
        Form::Structured => one(&intake, intake.judge_structured(&body)).await,
        Form::Batch => batch::cloud_events(&intake, &body).await,
    }
}

/// What decides about the events of one request.
pub(super) struct Intake<'a, L: Log> {
    pub(super) state: &'a Inner<L>,
    token: Token,
    backfill: bool,
    /// The trace that the request belongs to, and with it the events that bring none of their own.
    traceparent: Option<String>,
}

/// An event that is not accepted: a stable word, and the reason for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) reason: String,
    /// After how long it may be sent again as it is.
    pub(super) wait: Option<Duration>,
}

impl From<InvalidEvent> for Refusal {
    fn from(error: InvalidEvent) -> Self {
        Self {
            code: error.code(),
            reason: error.to_string(),
            wait: None,
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Reserved { .. } => "illegal_attribute",
            PublishError::Unavailable { .. } => UNAVAILABLE,
            PublishError::Refused { .. } => "refused_by_log",
        };
        Self {
            code,
            reason: error.to_string(),
            wait: None,
        }
    }
}

/// Code of what may be sent again as it is.
pub(super) const UNAVAILABLE: &str = "unavailable";
/// The same, but later: the tenant hands in too much.
pub(super) const OVER_QUOTA: &str = "over_quota";

/// As `Retry-After` says it: rounded up.
pub(super) fn in_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

impl<L: Log> Intake<'_, L> {
    /// Reads and judges one event.
    pub(super) fn judge(&self, text: &[u8]) -> Result<Event, Refusal> {
        self.judge_by(|defaults| Event::parse_posted(text, defaults))
    }

    /// Reads and judges one CloudEvent in the JSON event format.
    pub(super) fn judge_structured(&self, text: &[u8]) -> Result<Event, Refusal> {
        self.judge_cloud_event(CloudEvent::parse_json(text)?)
    }

    fn judge_cloud_event(&self, event: CloudEvent<'_>) -> Result<Event, Refusal> {
        self.judge_by(|defaults| Event::from_cloud_event(event, defaults))
    }

    fn judge_by(
        &self,
        take: impl FnOnce(&Defaults<'_>) -> Result<Event, InvalidEvent>,
    ) -> Result<Event, Refusal> {
        let state = self.state;
        let mut event = take(&Defaults {
            tenant: self.token.tenant.as_ref(),
            source: &state.source,
            id: Uuid::now_v7(),
            now: state.clock.now(),
            age_max: (!self.backfill).then_some(state.age_max),
        })?;
        if state.directory.read().tenant(&event.tenant).is_none() {
            let reason = format!("there is no tenant {}; add it first", event.tenant);
            return Err(Refusal {
                code: "unknown_tenant",
                reason,
                wait: None,
            });
        }
        state.quota.take(&event.tenant, state.clock.steady()).map_err(|wait| Refusal {
            code: OVER_QUOTA,
            reason: format!(
                "tenant {} hands in more events than ingest.tenant_rate and tenant_burst allow; send this one again in {} s",
                event.tenant,
                in_seconds(wait)
            ),
            wait: Some(wait),
        })?;
        if event.traceparent.is_none() {
            event.traceparent.clone_from(&self.traceparent);
        }
        Ok(event)
    }

    /// Counts what became of an event.
    pub(super) fn count(&self, name: Option<&str>, refusal: Option<&Refusal>) {
        let metrics = &self.state.metrics;
        if let Some(refusal) = refusal {
            metrics.inc(Counter::EventsRefused, &[refusal.code]);
        } else if let Some(name) = name {
            let family = ringback_core::catalogue::Family::of(name);
            metrics.inc(Counter::EventsAccepted, &[&family.to_string()]);
        }
    }
}

async fn one<L: Log>(
    intake: &Intake<'_, L>,
    judged: Result<Event, Refusal>,
) -> Result<Response, Problem> {
    let result = match judged {
        Ok(event) => {
            let (id, name) = (event.id, event.name.clone());
            let published = intake.state.publisher.publish(event).await;
            published.map(|_| (id, name)).map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok((id, name)) => {
            intake.count(Some(name.as_str()), None);
            let body = Json(json!({ "id": id.as_hyphenated().to_string() }));
            Ok((StatusCode::ACCEPTED, body).into_response())
        }
        Err(refusal) => {
            intake.count(None, Some(&refusal));
            if refusal.code == UNAVAILABLE {
                return Err(Problem::unavailable(refusal.reason));
            }
            let status = match refusal.code {
                "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
                OVER_QUOTA => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::BAD_REQUEST,
            };
            let mut problem = Problem::new(status, refusal.code, refusal.reason);
            problem.retry_after = refusal.wait.map(in_seconds);
            Err(problem)
        }
    }
}

fn authenticate<L: Log>(state: &Inner<L>, headers: &HeaderMap) -> Result<Token, Problem> {
    // A token that was removed, or is not known yet, must not be judged by an old directory.
    if !state.directory.is_fresh() {
        return Err(Problem::unavailable(
            "the configuration is not current; try again",
        ));
    }
    let text = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.to_str().ok()?));
    let directory = state.directory.read();
    let token = text
        .and_then(|text| directory.verify_token(text))
        .ok_or_else(|| {
            let detail = "send a token as Authorization: Bearer …; `ringback token add` makes one";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        })?;
    let (unheard, _) = oneshot::channel();
    let appender = state.publisher.appender();
    state.uses.note(appender, unheard, token.id, &state.clock);
    match token.allows(Scope::Publish) {
        true => Ok(token.clone()),
        false => {
            let detail = "this token does not hand in events: it lacks the scope publish";
            Err(Problem::new(StatusCode::FORBIDDEN, "no_such_scope", detail))
        }
    }
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let text = text.unwrap_or("application/json");
    let refused = |detail: String| {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        ))
    };
    if is_media_type(text, MEDIA_TYPE_JSON) {
        return Ok(Form::Structured);
    }
    if is_media_type(text, MEDIA_TYPE_BATCH) {
        return Ok(Form::Batch);
    }
    if is_structured(text) {
        return refused(format!(
            "{text:?} is not understood; of the formats of CloudEvents, use {MEDIA_TYPE_JSON} or {MEDIA_TYPE_BATCH}"
        ));
    }
    if cloudevents::is_binary(headers) {
        return match is_json(text) {
            true => Ok(Form::Binary),
            false => refused(format!(
                "{text:?} is not understood; the data of a CloudEvent is JSON: use application/json"
            )),
        };
    }
    match essence(text).to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::One),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Lines),
        other => refused(format!(
            "{other:?} is not understood; use application/json for one event or application/x-ndjson for several"
        )),
    }
}

/// Reads a body to its limit, within its time, when there is room for it.
async fn read<L: Log>(
    state: &Inner<L>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let limit = state.config.body_bytes_max;
    let too_large = || {
        let detail = format!("the body is larger than {limit} bytes; send less at a time");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(too_large());
    }
    let kib = announced.unwrap_or(limit) / 1024 + 1;
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let room = state
        .room
        .clone()
        .try_acquire_many_owned(kib)
        .map_err(|_| Problem::unavailable("too much is being taken in at the moment; try again"))?;
    let read = axum::body::to_bytes(body, limit);
    match tokio::time::timeout(state.config.body_timeout, read).await {
        Ok(Ok(bytes)) => Ok((bytes, room)),
        Ok(Err(error)) if is_limit(&error) => Err(too_large()),
        Ok(Err(error)) => {
            let detail = format!("the body broke off: {error}");
            Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "body_incomplete",
                detail,
            ))
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                detail,
            ))
        }
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>())
}
