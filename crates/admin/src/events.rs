//! `/v1/tenants/{tenant}/events/{event}`: an event with all its deliveries.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::log::Log;
use ringback_core::record::{DELIVERED, Reason};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::attempts;
use crate::parked::{REDACTED, redact};
use crate::problem::Problem;
use crate::projection::{EventRows, pages};
use crate::state::{Admin, AdminState};

/// What is known of one run to one webhook, oldest first.
#[derive(Default)]
struct Run {
    attempts: Vec<Value>,
    parked: Option<Value>,
    asked: Option<Value>,
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, event)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&tenant)?.value.id;
            let id = Uuid::try_parse(&event).map_err(|_| no_such_event(&event))?;
            let source = admin.projection_only()?;
            let found = source.read(|session| pages::event(session, tenant.as_str(), id))?;
            let truncated = found.truncated;
            let runs = runs(admin, found);
            if runs.is_empty() {
                return Err(no_such_event(&event).with("as_of", json!(source.as_of)));
            }
            let deliveries: Vec<_> = runs
                .into_iter()
                .map(|((webhook, run), known)| known.view(admin, webhook, run))
                .collect();
            Ok(Json(json!({
                "event": id,
                "deliveries": deliveries,
                "truncated": truncated,
                "as_of": source.as_of,
            })))
        })
        .await
}

/// By webhook and run.
fn runs<L: Log>(admin: &Admin<L>, found: EventRows) -> BTreeMap<(Uuid, i64), Run> {
    let mut runs: BTreeMap<_, Run> = BTreeMap::new();
    for entry in &found.attempts {
        let Some(view) = attempts::view(entry, &admin.redaction) else {
            continue;
        };
        runs.entry((entry.webhook, view.run.into()))
            .or_default()
            .attempts
            .push(json!(view));
    }
    for entry in &found.parked {
        let mut parked = serde_json::from_str(&entry.record).unwrap_or_default();
        redact(&admin.redaction, &mut parked, &REDACTED);
        runs.entry((entry.webhook, entry.number))
            .or_default()
            .parked = Some(parked);
    }
    for (webhook, run, asked) in found.replays {
        runs.entry((webhook, run)).or_default().asked = Some(json!(asked));
    }
    runs
}

impl Run {
    fn view<L: Log>(self, admin: &Admin<L>, webhook: Uuid, run: i64) -> Value {
        let parked = self.parked.unwrap_or_default();
        let is_delivered = |attempt: &Value| attempt["next"] == DELIVERED;
        let last = self.attempts.last().map(|last| last["next"].clone());
        let next = last.unwrap_or_default();
        let reason = match &parked["reason"] {
            // The attempt says so before the parked record is read.
            Value::Null => next.as_str().and_then(Reason::find).map(Reason::as_str),
            reason => reason.as_str(),
        };
        let state = match self.attempts.iter().any(is_delivered) {
            true => "delivered",
            false if reason.is_some() || !parked.is_null() => "parked",
            false => "waiting",
        };
        let name = admin.directory().ok().and_then(|directory| {
            let webhook = directory.webhook_by_id(webhook)?;
            Some(webhook.name.to_string())
        });
        json!({
            "webhook": webhook,
            "name": name,
            "run": run,
            "state": state,
            "reason": if state == "parked" { json!(reason) } else { Value::Null },
            "detail": if state == "parked" { parked["detail"].clone() } else { Value::Null },
            "next": if state == "waiting" { next } else { Value::Null },
            "replay_asked": self.asked,
            "attempts": self.attempts,
        })
    }
}

fn no_such_event(id: &str) -> Problem {
    let after = ": nothing was tried for it yet, or it is older than what is kept";
    Problem::none_called("no_such_event", "nothing is known of an event", id, after)
}
