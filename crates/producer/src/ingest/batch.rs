//! A batch: one event per line or element, one verdict for each. A bad one does not hurt its
//! neighbours.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::cloudevent::parse_batch;
use ringback_core::event::Event;
use ringback_core::log::Log;
use serde::Serialize;
use serde_json::value::RawValue;

use super::events::{Intake, Refusal, UNAVAILABLE, in_seconds};
use super::problem::{Problem, retry_after};

/// The verdicts on a batch.
#[derive(Serialize, Debug, Default)]
struct Verdicts {
    /// How long to wait for the first that was too much for its tenant.
    #[serde(skip)]
    wait: Option<Duration>,
    /// How many events the log has acknowledged.
    accepted: usize,
    /// Every line or element that is not accepted. Those with code `unavailable` or `over_quota`
    /// may be sent again as they are.
    refused: Vec<Refused>,
}

#[derive(Serialize, Debug)]
struct Refused {
    /// Number of the line or element, from 0; empty lines count.
    index: usize,
    code: &'static str,
    reason: String,
}

/// Takes newline-delimited events.
pub(super) async fn lines<L: Log>(
    intake: &Intake<'_, L>,
    body: &[u8],
) -> Result<Response, Problem> {
    let limit = intake.state.config.batch_events_max;
    // One more than allowed tells that there are too many; millions would only cost memory.
    let lines: Vec<_> = split(body).take(limit.saturating_add(1)).collect();
    if lines.len() > limit {
        return Err(too_many(limit));
    }
    if lines.is_empty() {
        let detail = "the batch has no events: one JSON object per line";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "empty_batch", detail));
    }
    let judged = lines
        .into_iter()
        .map(|(index, line)| (index, intake.judge(line)));
    Ok(publish(intake, judged).await)
}

/// Takes an array of CloudEvents. An empty one is legal (JSON format 4).
pub(super) async fn cloud_events<L: Log>(
    intake: &Intake<'_, L>,
    body: &[u8],
) -> Result<Response, Problem> {
    let limit = intake.state.config.batch_events_max;
    let (events, more) = parse_batch(body, limit).map_err(|error| {
        // Where one element ends is not known any more: nothing of it is taken.
        Problem::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
    })?;
    if more > 0 {
        return Err(too_many(limit));
    }
    let judge = |event: &RawValue| intake.judge_structured(event.get().as_bytes());
    let judged = events.into_iter().map(judge).enumerate();
    Ok(publish(intake, judged).await)
}

fn too_many(limit: usize) -> Problem {
    let detail = format!("the batch has more than {limit} events; send less at a time");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", detail)
}

/// Publishes what was judged good, and tells what became of each.
async fn publish<L: Log>(
    intake: &Intake<'_, L>,
    judged: impl Iterator<Item = (usize, Result<Event, Refusal>)>,
) -> Response {
    let mut verdicts = Verdicts::default();
    let mut refuse = |index, refusal: Refusal| {
        intake.count(None, Some(&refusal));
        let Refusal { code, reason, wait } = refusal;
        verdicts.wait = verdicts.wait.or(wait);
        verdicts.refused.push(Refused {
            index,
            code,
            reason,
        });
    };
    let mut indices = Vec::new();
    let mut events = Vec::new();
    for (index, judged) in judged {
        match judged {
            Ok(event) => {
                indices.push(index);
                events.push(event);
            }
            Err(refusal) => refuse(index, refusal),
        }
    }
    let results = intake.state.publisher.publish_batch(&mut events).await;
    let mut accepted = 0;
    for ((index, event), result) in indices.into_iter().zip(&events).zip(results) {
        match result {
            Ok(_) => {
                accepted += 1;
                intake.count(Some(event.name.as_str()), None);
            }
            Err(error) => refuse(index, error.into()),
        }
    }
    verdicts.accepted = accepted;
    verdicts.refused.sort_by_key(|refused| refused.index);
    answer(&verdicts)
}

fn answer(verdicts: &Verdicts) -> Response {
    if verdicts
        .refused
        .iter()
        .any(|refused| refused.code == UNAVAILABLE)
    {
        let headers = [(header::RETRY_AFTER, retry_after())];
        return (StatusCode::SERVICE_UNAVAILABLE, headers, Json(verdicts)).into_response();
    }
    if let Some(wait) = verdicts.wait {
        let headers = [(header::RETRY_AFTER, HeaderValue::from(in_seconds(wait)))];
        return (StatusCode::TOO_MANY_REQUESTS, headers, Json(verdicts)).into_response();
    }
    let status = match verdicts.accepted == 0 && !verdicts.refused.is_empty() {
        true => StatusCode::BAD_REQUEST,
        false => StatusCode::ACCEPTED,
    };
    (status, Json(verdicts)).into_response()
}

/// The lines that are not blank, with their numbers.
fn split(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    body.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_count_but_hold_nothing() {
        let lines: Vec<_> = split(b"{}\r\n\n  \n{\"a\":1}\n").collect();
        assert_eq!(lines, [(0, &b"{}"[..]), (3, &b"{\"a\":1}"[..])]);
        assert_eq!(split(b"\n \n").count(), 0);
    }
}
