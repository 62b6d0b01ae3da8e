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
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, newest_first};
use crate::request::Parameters;
use crate::state::{AdminState, key_of};

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
enum Wanted {
    All,
    Delivered,
    Failed,
    Status(u16),
    Labelled(&'static str),
}

/// Outcomes without a status, see [`ringback_core::verdict::Outcome::label`].
const LABELS: [&str; 8] = [
    "timeout", "refused", "reset", "dns", "resolver", "proxy", "tls", "protocol",
];

impl Wanted {
    fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let labelled = |text| LABELS.into_iter().find(|label| *label == text);
        match text {
            None => Ok(Self::All),
            Some("delivered") => Ok(Self::Delivered),
            Some("failed") => Ok(Self::Failed),
            Some(text) => match (text.parse(), labelled(text)) {
                (Ok(status), _) => Ok(Self::Status(status)),
                (_, Some(label)) => Ok(Self::Labelled(label)),
                _ => {
                    let labels = LABELS.join(", ");
                    let detail = format!(
                        "the outcome is delivered, failed, a status such as 503, or one of {labels}"
                    );
                    Err(Problem::invalid("invalid_parameter", detail))
                }
            },
        }
    }

    fn matches(&self, attempt: &Attempt) -> bool {
        match self {
            Self::All => true,
            Self::Delivered => attempt.next == DELIVERED,
            Self::Failed => attempt.next != DELIVERED,
            Self::Status(status) => attempt.status == Some(*status),
            Self::Labelled(label) => attempt.outcome == *label,
        }
    }
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    let wanted = Wanted::parse(parameters.outcome.as_deref())?;
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value.id;
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
                (of_event && wanted.matches(&attempt)).then_some(attempt)
            })?;
            Ok(Json(json!({
                "attempts": page.entries,
                "cursor": page.cursor,
                "scanned": page.scanned,
                "unreadable": unreadable,
            })))
        })
        .await
}
