//! `…/webhooks/{webhook}/stats`: series for charts.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::log::Log;
use ringback_core::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::projection::{BOUNDS_MS, CLASSES, Tally, minute_start, pages};
use crate::request::Parameters;
use crate::schema::Moment;
use crate::state::AdminState;

/// What is shown when the request does not say.
const SINCE: Duration = Duration::from_secs(24 * 3600);
/// Points of a series.
const POINTS_MAX: i64 = 1500;
/// Steps in minutes of which the shortest that fits is taken when the request does not say.
const STEPS: [i64; 6] = [1, 5, 15, 60, 360, 1440];
/// Points that fit then.
const POINTS: i64 = 300;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatsParameters {
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    #[schemars(with = "Option<Moment>")]
    until: Option<Timestamp>,
    /// Seconds, whole minutes.
    step: Option<i64>,
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<StatsParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value.id;
            let until = parameters.until.unwrap_or_else(|| admin.clock.now());
            let since = parameters.since.unwrap_or(until - SINCE);
            let minute = |time: Timestamp| time.as_secs().div_euclid(60);
            let minutes = minute(since)..minute(until) + 1;
            let span = minutes.end - minutes.start;
            let step = step(span, parameters.step)?;
            let source = admin.projection_only()?;
            let first = minutes.start - minutes.start.rem_euclid(step);
            let series =
                source.read(|session| pages::series(session, webhook, first..minutes.end, step))?;
            let points: Vec<_> = series
                .iter()
                .map(|(minute, tallies)| point(*minute, tallies))
                .collect();
            Ok(Json(json!({
                "since": minute_start(first),
                "until": minute_start(minutes.end),
                "step": step * 60,
                "points": points,
                "as_of": source.as_of,
            })))
        })
        .await
}

/// The step in minutes.
fn step(span: i64, seconds: Option<i64>) -> Result<i64, Problem> {
    let wrong = |field: &str, detail: String| {
        Err(Problem::invalid("invalid_parameter", detail).with("field", field))
    };
    if span <= 0 {
        return wrong("since", "since is later than until".to_owned());
    }
    let step = match seconds {
        None => {
            let fits = STEPS.into_iter().find(|step| span / step <= POINTS);
            // Longer than any fits: whole days.
            fits.unwrap_or_else(|| (span / POINTS / 1440 + 1) * 1440)
        }
        Some(seconds) if seconds < 60 || seconds % 60 != 0 => {
            return wrong(
                "step",
                "step: use whole minutes, in seconds: 60, 300, 3600".to_owned(),
            );
        }
        Some(seconds) => seconds / 60,
    };
    if span / step > POINTS_MAX {
        return wrong(
            "step",
            format!(
                "there would be more than {POINTS_MAX} points; use a longer step or a shorter time"
            ),
        );
    }
    Ok(step)
}

/// A step in which there were attempts.
fn point(minute: i64, tallies: &[Tally; CLASSES.len()]) -> Value {
    let mut all = Tally::default();
    let mut classes = Map::new();
    for (class, tally) in CLASSES.iter().zip(tallies) {
        if tally.n > 0 {
            classes.insert((*class).to_owned(), tally.n.into());
        }
        all.n += tally.n;
        all.ms = all.ms.saturating_add(tally.ms);
        for (sum, bucket) in all.buckets.iter_mut().zip(tally.buckets) {
            *sum += bucket;
        }
    }
    json!({
        "at": minute_start(minute),
        "attempts": all.n,
        "delivered": tallies[0].n,
        "classes": classes,
        "mean_ms": all.ms / all.n.max(1),
        "p50_ms": pages::quantile(&all, 0.5),
        "p95_ms": pages::quantile(&all, 0.95),
        "durations": { "up_to_ms": BOUNDS_MS, "attempts": all.buckets },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_a_bounded_number_of_points() {
        for (span, seconds, expected) in [
            (60, None, Some(1)),
            (1441, None, Some(5)),
            (7 * 1440, None, Some(60)),
            (1440, Some(60), Some(1)),
            (10 * 1440, Some(60), None),
            (1440, Some(90), None),
            (1440, Some(0), None),
            (1440, Some(-60), None),
            (0, None, None),
            (-5, Some(60), None),
        ] {
            assert_eq!(step(span, seconds).ok(), expected, "{span} {seconds:?}");
        }
        let years = 4000 * 1440;
        assert!(years / step(years, None).unwrap() <= POINTS);
        assert!(step(i64::MAX / 120, None).is_ok());
    }
}
