//! `…/webhooks/{webhook}/attempts`: what was sent, and what came back.

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::log::Log;
use ringback_core::record::{Attempt, DELIVERED};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::Problem;
use crate::projection::{Entry, LABELS, Query, Wanted, code_of, pages};
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, newest_first};
use crate::request::Parameters;
use crate::source::{ProjectionSource, Source};
use crate::state::{Admin, AdminState, key_of};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    cursor: Option<String>,
    event: Option<Uuid>,
    outcome: Option<String>,
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
                    Problem::invalid("invalid_parameter", detail)
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
                    list_from_projection(&source, webhook, wanted, &parameters)
                }
            };
            answer.map(Json)
        })
        .await
}

fn list_from_projection(
    source: &ProjectionSource<'_>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let query = Query {
        webhook,
        event: parameters.event,
        since: parameters.since,
        below: source.below,
        limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
    };
    let page = source.read(|session| pages::attempts(session, &query, wanted))?;
    let attempts: Vec<_> = page.entries.iter().map(view).collect();
    Ok(json!({
        "attempts": attempts,
        "cursor": page.cursor.map(|cursor| cursor.to_string()),
        "source": "projection",
        "as_of": source.as_of,
    }))
}

/// An attempt as the projection has it.
pub(crate) fn view(entry: &Entry) -> Value {
    // Members that we do not know are not shown, as when the log is read.
    let attempt: Option<Attempt> = serde_json::from_str(&entry.record).ok();
    let mut view = json!(attempt);
    if entry.number > 1 {
        view["stands_for"] = entry.number.into();
    }
    view
}

fn list_from_log<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    wanted: Wanted,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let partition = admin.partition(Role::Attempts, webhook)?;
    let key = key_of(webhook);
    let extent = Extent {
        limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
        budget: BUDGET,
        since: parameters.since,
    };
    let mut reader = admin.log.reader()?;
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
        (of_event && matches(wanted, &attempt)).then_some(attempt)
    })?;
    Ok(json!({
        "attempts": page.entries,
        "cursor": page.cursor,
        "scanned": page.scanned,
        "unreadable": unreadable,
        "source": "log",
        "as_of": admin.clock.now(),
    }))
}
