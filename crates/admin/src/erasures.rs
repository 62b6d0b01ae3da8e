//! `/v1/tenants/{tenant}/erasures`: a subject, or everything of a tenant, is no longer shown.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ringback_core::audit::Actor;
use ringback_core::erasure::{ERASURE_VERSION, Erasure, Erasures};
use ringback_core::event::{InvalidEvent, Subject};
use ringback_core::log::{Append, Log, LogError, Reader as _};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Cleanup, Role};
use ringback_log::batch::Batch;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::asker;
use crate::problem::Problem;
use crate::projection::Freshness;
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, newest_first};
use crate::request::{Body, Parameters};
use crate::state::{Admin, AdminState};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    subject: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    before: Option<String>,
}

/// What was erased, newest first.
pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path(tenant): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&tenant)?.value.id;
            let extent = Extent {
                limit: parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
                budget: BUDGET,
                since: None,
            };
            let topic = admin.topic(Role::Erasures)?;
            let partitions: Vec<_> = admin.log.topics().partitions(topic).collect();
            let mut reader = admin.log.reader()?;
            let before = parameters.before.as_deref();
            let page = newest_first(&mut reader, &partitions, before, &extent, |record| {
                let erasure = Erasure::read(record)?;
                (erasure.tenant == tenant).then(|| view(&erasure, record.appended))
            })?;
            Ok(Json(json!({
                "erasures": page.entries,
                "next": page.cursor,
                "log_keeps_seconds": longest_kept(admin)?,
            })))
        })
        .await
}

fn view(erasure: &Erasure, appended: Timestamp) -> Value {
    json!({
        "tenant": erasure.tenant,
        "subject": erasure.subject,
        "time": appended,
        "by": erasure.by.as_ref().map(|by| json!({ "kind": by.kind, "id": by.id, "name": by.name })),
    })
}

/// For how long the log itself has what was erased: replays are what it keeps longest of events.
fn longest_kept<L: Log>(admin: &Admin<L>) -> Result<Option<u64>, Problem> {
    let topics = admin.log.topics();
    Ok(match topics.spec(admin.topic(Role::Replay)?).cleanup {
        Cleanup::Delete { retention } => Some(retention.as_secs()),
        Cleanup::Compact => None,
    })
}

pub(crate) async fn add<L: Log>(
    State(state): State<AdminState<L>>,
    Path(tenant): Path<String>,
    Body(wish): Body<Wish>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let subject = match (wish.subject, wish.all) {
        (Some(subject), false) => {
            let wrong = |error: InvalidEvent| Problem::field("subject", error.to_string());
            Some(Subject::parse(&subject).map_err(wrong)?)
        }
        (None, true) => None,
        _ => {
            let detail = "name a subject, such as call/0195, or say \"all\": true for everything of the tenant";
            return Err(Problem::field("subject", detail));
        }
    };
    state
        .run(move |admin| {
            let tenant = admin.tenant(&tenant)?.value.id;
            let erasure = Erasure {
                version: ERASURE_VERSION,
                tenant,
                subject,
                by: Some(asker::current().map_or_else(Actor::ringback, |asker| asker.actor.clone())),
            };
            // Not what it is about: the audit would keep it.
            let what = json!({ "all": erasure.subject.is_none() });
            admin.tell_of_tenant("tenant.erase", &erasure.tenant, what)?;
            let appended = append(admin, &erasure)?;
            tracing::info!(tenant = %erasure.tenant, all = erasure.subject.is_none(), "an erasure was asked for");
            let projection = match admin.projection.get().map(|shown| shown.freshen()) {
                None => "none",
                Some(Freshness::AsOf(as_of)) if as_of >= appended => "erased",
                Some(_) => "pending",
            };
            Ok((
                StatusCode::ACCEPTED,
                Json(json!({
                    "erasure": view(&erasure, appended),
                    "projection": projection,
                })),
            ))
        })
        .await
}

fn append<L: Log>(admin: &Admin<L>, erasure: &Erasure) -> Result<Timestamp, Problem> {
    let value = serde_json::to_vec(erasure)
        .map_err(|error| Problem::invalid("invalid_body", error.to_string()))?;
    let unavailable = |reason: String| {
        let detail = format!("the erasure is not known to be in the log: {reason}; ask again");
        Problem::unavailable("log_unavailable", detail)
    };
    let mut batch = Batch::new(&admin.appender);
    let appended = batch.append(Append {
        topic: admin.topic(Role::Erasures)?,
        key: Some(erasure.tenant.as_str().as_bytes()),
        headers: &[],
        value: Some(&value),
    });
    appended.map_err(|error| unavailable(error.to_string()))?;
    match batch.finish() {
        Ok(Some(appended)) => Ok(appended.at),
        Ok(None) => Err(unavailable("nothing was acknowledged".to_owned())),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

impl<L: Log> Admin<L> {
    /// Blocking: what is not to be shown when the log itself is read. There are few.
    pub(crate) fn erasures(&self) -> Result<Erasures, LogError> {
        let mut erasures = Erasures::default();
        let topics = self.log.topics();
        let Some(topic) = topics.find(Role::Erasures) else {
            return Ok(erasures);
        };
        let mut reader = self.log.reader()?;
        for partition in topics.partitions(topic) {
            let bounds = reader.bounds(partition)?;
            if bounds.is_empty() {
                continue;
            }
            reader.read(partition, bounds, &mut |record| {
                if let Some(erasure) = Erasure::read(&record) {
                    erasures.add(&erasure, record.appended);
                }
            })?;
        }
        Ok(erasures)
    }
}
