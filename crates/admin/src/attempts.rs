//! `…/webhooks/{webhook}/attempts`: what was sent, and what came back.

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::log::Log;
use ringback_core::record::{Attempt, DELIVERED, HeaderLines};
use ringback_core::redaction::Redaction;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::Problem;
use crate::projection::{Entry, LABELS, Query, Wanted, code_of, pages};
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, Page, newest_first};
use crate::request::Parameters;
use crate::schema::Moment;
use crate::source::{ProjectionSource, Source};
use crate::state::{Admin, AdminState, key_of};

#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    cursor: Option<String>,
    event: Option<Uuid>,
    outcome: Option<String>,
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
}

/// Which attempts are wanted.
fn parse_outcome(text: Option<&str>) -> Result<Wanted, Problem> {
    match text {
        None => Ok(Wanted::All),
        Some("delivered") => Ok(Wanted::Delivered),
        Some("failed") => Ok(Wanted::Failed),
        Some(label) if LABELS.contains(&label) => Ok(Wanted::Code(code_of(None, label))),
        Some(text) => {
            let status: Option<u16> = text.parse().ok().filter(|status| *status < 1000);
            status
                .map(|status| Wanted::Code(status.into()))
                .ok_or_else(|| {
                    let labels = LABELS.join(", ");
                    let detail = format!(
                        "the outcome is delivered, failed, a status such as 503, or one of {labels}"
                    );
                    Problem::invalid("invalid_parameter", detail).with("field", "outcome")
                })
        }
    }
}

fn matches(wanted: Wanted, attempt: &Attempt) -> bool {
    match wanted {
        Wanted::All => true,
        Wanted::Delivered => attempt.next == DELIVERED,
        Wanted::Failed => attempt.next != DELIVERED,
        Wanted::Code(code) => code_of(attempt.status, &attempt.outcome) == code,
    }
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    let wanted = parse_outcome(parameters.outcome.as_deref())?;
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value.id;
            let answer = match admin.source(parameters.cursor.as_deref())? {
                Source::Log => list_from_log(admin, webhook, wanted, &parameters),
                Source::Projection(source) => {
                    list_from_projection(admin, &source, webhook, wanted, &parameters)
                }
            };
            answer.map(Json)
        })
        .await
}

fn list_from_projection<L: Log>(
    admin: &Admin<L>,
    source: &ProjectionSource<'_>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let page = read_projection(source, webhook, wanted, parameters)?;
    let attempts = page.entries.iter();
    let attempts: Vec<_> = attempts
        .filter_map(|entry| view(entry, &admin.redaction))
        .collect();
    Ok(json!({
        "attempts": attempts,
        "cursor": page.cursor.map(|cursor| cursor.to_string()),
        "source": "projection",
        "as_of": source.as_of,
    }))
}

fn read_projection(
    source: &ProjectionSource<'_>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<pages::Page, Problem> {
    let query = Query {
        webhook,
        event: parameters.event,
        since: parameters.since,
        below: source.below,
        limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
    };
    source.read(|session| pages::attempts(session, &query, wanted))
}

/// An attempt as the projection has it.
pub(crate) fn view(entry: &Entry, redaction: &Redaction) -> Option<AttemptView> {
    // Members that we do not know are not shown, as when the log is read.
    let attempt: Attempt = serde_json::from_str(&entry.record).ok()?;
    let stands_for = u64::try_from(entry.number)
        .ok()
        .filter(|stands_for| *stands_for > 1);
    Some(AttemptView {
        stands_for,
        ..AttemptView::of(attempt, redaction)
    })
}

/// One HTTP request for a delivery, and what came back.
#[derive(Serialize, JsonSchema, Debug)]
#[schemars(rename = "Attempt")]
pub(crate) struct AttemptView {
    /// Version of the record.
    pub(crate) version: u32,
    /// The event's id.
    pub(crate) event: Uuid,
    /// The event's type.
    #[serde(rename = "type")]
    pub(crate) name: String,
    /// What the event is about; null where that is not recorded.
    pub(crate) subject: Option<String>,
    /// Whose.
    pub(crate) tenant: String,
    /// The webhook's id.
    pub(crate) webhook: Uuid,
    /// Which of the webhook's lives: enabling it after a disablement begins another.
    pub(crate) generation: u64,
    /// 0 for the first passage, then one more for each replay.
    pub(crate) run: u32,
    /// Number of the attempt within its run, from 0.
    pub(crate) attempt: u8,
    /// When it started.
    #[schemars(with = "Moment")]
    pub(crate) started: Timestamp,
    /// How long it took.
    pub(crate) duration_ms: u64,
    /// How it ended: `status` when there was an answer, else what went wrong.
    pub(crate) outcome: String,
    /// The status that was answered.
    pub(crate) status: Option<u16>,
    /// What went wrong, for people.
    pub(crate) error: Option<String>,
    /// The beginning of the response body; what is not UTF-8 is replaced.
    pub(crate) response: Option<String>,
    /// What comes next: `delivered`, a tier (`retry.32s`), or why it was parked.
    pub(crate) next: String,
    /// When a retry comes: not before.
    #[schemars(with = "Option<Moment>")]
    pub(crate) next_at: Option<Timestamp>,
    /// Names and values, where they are recorded; secrets are `(hidden)`.
    pub(crate) request_headers: Option<HeaderLines>,
    /// The same of the response.
    pub(crate) response_headers: Option<HeaderLines>,
    /// Its partition was taken away meanwhile: another dispatcher decided what came next.
    pub(crate) late: bool,
    /// The dispatcher that made it.
    pub(crate) dispatcher: String,
    /// W3C trace context.
    pub(crate) trace: Option<String>,
    /// Of many successes only some are kept: how many this one stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stands_for: Option<u64>,
}

impl AttemptView {
    /// Without what is not to be shown.
    pub(crate) fn of(mut attempt: Attempt, redaction: &Redaction) -> Self {
        redaction.attempt(&mut attempt);
        Self {
            version: attempt.version,
            event: attempt.event,
            name: attempt.name.to_string(),
            subject: attempt.subject.map(|subject| subject.to_string()),
            tenant: attempt.tenant.to_string(),
            webhook: attempt.webhook,
            generation: attempt.generation,
            run: attempt.run,
            attempt: attempt.attempt,
            started: attempt.started,
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome,
            status: attempt.status,
            error: attempt.error,
            response: attempt.response,
            next: attempt.next,
            next_at: attempt.next_at,
            request_headers: attempt.request_headers,
            response_headers: attempt.response_headers,
            late: attempt.late,
            dispatcher: attempt.dispatcher,
            trace: attempt.trace,
            stands_for: None,
        }
    }
}

/// Blocking: the newest failed attempt of a webhook, among those that are found quickly.
pub(crate) fn last_failure<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
) -> Result<Option<AttemptView>, Problem> {
    let parameters = ListParameters {
        limit: Some(1),
        ..ListParameters::default()
    };
    Ok(match admin.source(None)? {
        Source::Log => {
            let page = read_log(admin, webhook, Wanted::Failed, &parameters)?.0;
            page.entries.into_iter().next()
        }
        Source::Projection(source) => {
            let page = read_projection(&source, webhook, Wanted::Failed, &parameters)?;
            let newest = page.entries.first();
            newest.and_then(|entry| view(entry, &admin.redaction))
        }
    })
}

fn list_from_log<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let (page, unreadable) = read_log(admin, webhook, wanted, parameters)?;
    Ok(json!({
        "attempts": page.entries,
        "cursor": page.cursor,
        "scanned": page.scanned,
        "unreadable": unreadable,
        "source": "log",
        "as_of": admin.clock.now(),
    }))
}

/// A page, and how many records could not be read.
fn read_log<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<(Page<AttemptView>, u64), Problem> {
    let partition = admin.partition(Role::Attempts, webhook)?;
    let key = key_of(webhook);
    let extent = Extent {
        limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
        budget: BUDGET,
        since: parameters.since,
    };
    let mut reader = admin.log.reader()?;
    let erased = admin.erasures()?;
    let cursor = parameters.cursor.as_deref();
    let mut unreadable = 0_u64;
    let page = newest_first(&mut reader, &[partition], cursor, &extent, |record| {
        if record.key != Some(key.as_bytes()) {
            return None;
        }
        let attempt = serde_json::from_slice(record.value.unwrap_or_default()).ok();
        let attempt = attempt.filter(|attempt: &Attempt| attempt.webhook == webhook);
        let Some(attempt) = attempt else {
            unreadable += 1;
            return None;
        };
        let of_event = parameters.event.is_none_or(|event| event == attempt.event);
        let subject = attempt.subject.as_ref();
        let hidden = erased.cover(&attempt.tenant, subject, record.appended);
        (of_event && !hidden && matches(wanted, &attempt))
            .then(|| AttemptView::of(attempt, &admin.redaction))
    })?;
    Ok((page, unreadable))
}
