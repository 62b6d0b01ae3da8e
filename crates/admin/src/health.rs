//! `…/webhooks/{webhook}/health`: what is thought of a webhook, from which figures, and what to do.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::health::{
    self, Failure, Figures, Health as Verdict, HealthPolicy, Snapshot, State as Verdicted, Window,
    charge,
};
use ringback_core::log::{Log, Offset, Reader};
use ringback_core::record::Attempt;
use ringback_core::time::{Timestamp, duration_label};
use ringback_core::topics::Role;
use ringback_core::webhook::Webhook;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::attempts::{AttemptView, last_failure};
use crate::problem::Problem;
use crate::projection::{CLASSES, pages};
use crate::reading::{BUDGET, Extent, newest_first};
use crate::schema::Moment;
use crate::state::{Admin, AdminState, key_of};

/// Offsets of `attempts` that are counted on top of a snapshot. Metrics writes one every few seconds.
const SINCE_SNAPSHOT_MAX: Offset = 10_000;

/// What is thought of a webhook, and why.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(crate) struct HealthView {
    state: Standing,
    /// Since when; null for a healthy webhook of which nothing else was ever known.
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    /// Why, for people.
    reason: Option<String>,
    /// What to do, for people.
    advice: String,
    window: WindowView,
    policy: PolicyView,
    /// The newest attempt that failed, if it is found quickly.
    last_failure: Option<AttemptView>,
}

/// How a webhook stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Nothing is sent until it is enabled again.
    Disabled,
    /// It will be disabled if it goes on like this.
    Failing,
    /// Nothing is sent until it is resumed.
    Paused,
    /// It works, or too little is known.
    Healthy,
}

/// The attempts that the first rule of the policy looks at.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HealthWindow")]
struct WindowView {
    /// Attempts within it that are charged to the webhook.
    attempts: u64,
    /// Of these, failed.
    failed: u64,
    /// Null without attempts.
    failure_ratio: Option<f64>,
    /// The first failure since the last success.
    #[schemars(with = "Option<Moment>")]
    first_failure: Option<Timestamp>,
    #[schemars(with = "Option<Moment>")]
    last_success: Option<Timestamp>,
    #[schemars(with = "Option<Moment>")]
    last_attempt: Option<Timestamp>,
    /// How far back it looks.
    span_seconds: u64,
}

/// The thresholds of disablement; docs/disablement.md explains them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HealthPolicy")]
struct PolicyView {
    /// How far back the first rule looks.
    window: String,
    failed_percent: u32,
    attempts: u32,
    /// For how long there must have been failures and no success.
    silence: String,
    /// How far back the second rule looks.
    slow_window: String,
    slow_attempts: u32,
}

impl Standing {
    pub(crate) fn of(webhook: &Webhook, verdict: Option<&Verdict>) -> Self {
        let verdict = verdict.map_or(Verdicted::Healthy, |verdict| verdict.state);
        match (verdict, webhook.enabled) {
            (Verdicted::Disabled, _) => Self::Disabled,
            (_, false) => Self::Paused,
            (Verdicted::Failing, true) => Self::Failing,
            (Verdicted::Healthy, true) => Self::Healthy,
        }
    }
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Json<HealthView>, Problem> {
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            view(admin, &webhook).map(Json)
        })
        .await
}

fn view<L: Log>(admin: &Admin<L>, webhook: &Arc<Webhook>) -> Result<HealthView, Problem> {
    let (verdict, off_since) = {
        let directory = admin.directory()?;
        (
            directory.health(webhook).cloned(),
            directory.off_since(webhook.id),
        )
    };
    let standing = Standing::of(webhook, verdict.as_ref());
    let state = verdict
        .as_ref()
        .map_or(Verdicted::Healthy, |verdict| verdict.state);
    let window = window(admin, webhook, verdict.as_ref())?;
    let since = match standing {
        Standing::Paused => off_since,
        _ => verdict.as_ref().map(|health| health.since),
    };
    let reason = match standing {
        Standing::Paused => Some("it was switched off".to_owned()),
        _ => verdict.map(|health| health.reason),
    };
    // Without them the rest is still worth knowing.
    let last_failure = last_failure(admin, webhook.id).unwrap_or_default();
    let failure = last_failure.as_ref().map(|failure| Failure {
        outcome: &failure.outcome,
        status: failure.status,
    });
    Ok(HealthView {
        state: standing,
        since,
        reason,
        advice: health::advice(state, !webhook.enabled, failure),
        window,
        policy: PolicyView::of(&admin.config.policy),
        last_failure,
    })
}

/// Blocking: the figures of the window that metrics keeps: its last snapshot and what was attempted
/// since. Snapshots of others bury that of a webhook which is quiet for long; then what its verdict was
/// made from is shown, or what the projection has counted.
fn window<L: Log>(
    admin: &Admin<L>,
    webhook: &Webhook,
    verdict: Option<&Verdict>,
) -> Result<WindowView, Problem> {
    let policy = &admin.config.policy;
    let now = admin.clock.now();
    if let Some(window) = from_snapshot(admin, webhook)? {
        return Ok(WindowView::of(window.figures(policy, now), policy));
    }
    if let Some(figures) = verdict.and_then(|verdict| verdict.figures) {
        return Ok(WindowView::of(figures, policy));
    }
    let counted = counted(admin, webhook.id, now).unwrap_or_default();
    Ok(WindowView::of(counted, policy))
}

fn from_snapshot<L: Log>(admin: &Admin<L>, webhook: &Webhook) -> Result<Option<Window>, Problem> {
    let key = key_of(webhook.id);
    let mut reader = admin.log.reader()?;
    let snapshots = admin.partition(Role::Windows, webhook.id)?;
    let extent = Extent {
        limit: 1,
        budget: BUDGET,
        since: None,
    };
    let page = newest_first(&mut reader, &[snapshots], None, &extent, |record| {
        let ours = record.key == Some(key.as_bytes());
        let value = record.value.filter(|_| ours)?;
        serde_json::from_slice::<Snapshot>(value).ok()
    })?;
    let Some(snapshot) = page.entries.into_iter().next() else {
        return Ok(None);
    };
    let mut window = match snapshot.window.generation == webhook.generation {
        true => snapshot.window,
        false => Window::new(webhook.generation),
    };
    let attempts = admin.partition(Role::Attempts, webhook.id)?;
    let end = reader.bounds(attempts)?.end;
    let from = snapshot.next.max(end.saturating_sub(SINCE_SNAPSHOT_MAX));
    reader.read(attempts, from..end, &mut |record| {
        if record.key != Some(key.as_bytes()) {
            return;
        }
        let attempt = serde_json::from_slice::<Attempt>(record.value.unwrap_or_default());
        if let Ok(attempt) = attempt
            && attempt.generation == webhook.generation
            && let Some(succeeded) = charge(&attempt)
        {
            window.count(succeeded, record.appended, &admin.config.policy);
        }
    })?;
    Ok(Some(window))
}

/// What the projection has counted within the policy's window, if there is a projection.
fn counted<L: Log>(admin: &Admin<L>, webhook: Uuid, now: Timestamp) -> Option<Figures> {
    let source = admin.projection_only().ok()?;
    let minute = |time: Timestamp| time.as_secs().div_euclid(60);
    let minutes = minute(now - admin.config.policy.window)..minute(now) + 1;
    let step = minutes.end - minutes.start;
    let series = source.read(|session| pages::series(session, webhook, minutes, step));
    let mut figures = Figures::default();
    for tallies in series.ok()?.values() {
        for (class, tally) in CLASSES.iter().zip(tallies) {
            let attempts = u64::try_from(tally.n).unwrap_or(0);
            match *class {
                // Faults of our own are charged to nobody.
                "ours" => {}
                "delivered" => figures.attempts += attempts,
                _ => {
                    figures.attempts += attempts;
                    figures.failed += attempts;
                }
            }
        }
    }
    Some(figures)
}

impl WindowView {
    fn of(figures: Figures, policy: &HealthPolicy) -> Self {
        let Figures {
            attempts, failed, ..
        } = figures;
        Self {
            attempts,
            failed,
            #[allow(clippy::cast_precision_loss, reason = "counts")]
            failure_ratio: (attempts > 0).then(|| failed as f64 / attempts as f64),
            first_failure: figures.first_failure,
            last_success: figures.last_success,
            last_attempt: figures.last_attempt,
            span_seconds: policy.window.as_secs(),
        }
    }
}

impl PolicyView {
    fn of(policy: &HealthPolicy) -> Self {
        Self {
            window: duration_label(policy.window),
            failed_percent: policy.failed_percent,
            attempts: policy.attempts,
            silence: duration_label(policy.silence),
            slow_window: duration_label(policy.slow_window),
            slow_attempts: policy.slow_attempts,
        }
    }
}
