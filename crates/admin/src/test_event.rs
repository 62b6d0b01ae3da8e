//! `…/webhooks/{webhook}/test`: one event of our own to one webhook, through the whole pipeline.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ringback_core::event::{Event, EventName, Source, Subject};
use ringback_core::log::Log;
use ringback_core::record::Delivery;
use ringback_core::topics::Role;
use ringback_log::batch::Batch;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::problem::Problem;
use crate::replay::{append, not_acknowledged};
use crate::request::Body;
use crate::state::{AdminState, key_of};

/// Type and source of test events.
const TYPE: &str = "webhook.test";
const SOURCE: &str = "ringback";
/// Longest message, in characters.
const MESSAGE_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestForm {
    message: Option<String>,
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
        return Err(Problem::invalid("invalid_field", detail));
    }
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            let now = admin.clock.now();
            let data = json!({ "message": message, "webhook": webhook.name });
            let event = Event {
                id: Uuid::now_v7(),
                name: EventName::parse(TYPE)?,
                time: now,
                tenant: webhook.tenant.clone(),
                source: Source::parse(SOURCE)?,
                subject: Some(Subject::parse(&format!("webhook/{}", webhook.name))?),
                data: Bytes::from(data.to_string()),
                backfill: false,
                traceparent: None,
            };
            let id = event.id;
            let delivery = Delivery {
                event: event.into(),
                webhook: webhook.id,
                attempt: 0,
                run: 0,
                accepted: now,
                deferrals: 0,
            };
            let topic = admin.topic(Role::Replay)?;
            let mut batch = Batch::new(&admin.appender);
            append(&mut batch, topic, &key_of(webhook.id), &delivery).map_err(not_acknowledged)?;
            let appended = batch.finish().map_err(not_acknowledged)?;
            let mut warnings = Vec::new();
            if !webhook.enabled {
                warnings.push("the webhook is paused: the test is parked, not sent");
            }
            if admin.directory()?.is_disabled(&webhook) {
                warnings.push("the webhook is disabled: the test is parked, not sent");
            }
            let answer = json!({
                "event": id,
                "webhook": webhook.id,
                // By the log's clock: its attempts are appended no earlier.
                "appended": appended.map_or(now, |appended| appended.at),
                "warnings": warnings,
            });
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        })
        .await
}
