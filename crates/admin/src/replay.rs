//! `…/webhooks/{webhook}/replay` and `…/replays`: parked deliveries are sent again, as a new run with the
//! same event; as jobs, whose records say how far they are.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ringback_core::directory::Versioned;
use ringback_core::log::Log;
use ringback_core::record::Reason;
use ringback_core::replay_job::{
    EVENTS_MAX, JobCounts, JobFilter, JobState, ReplayJob, ReplayJobs,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::webhook::{Pattern, Webhook};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::access::{Access, Who};
use crate::problem::Problem;
use crate::projection::pages::{self, Replayed};
use crate::replay_runner::sum;
use crate::replay_work::{Pieces, reason_field};
use crate::request::Body;
use crate::schema::Moment;
use crate::state::{Admin, AdminState};

/// How long the request that asks for a replay works on it: small ones are done in its answer.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long a request that cancels waits for the end.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to replay. Filters add up; without any, `all` must be said.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayForm {
    /// Only this event.
    event: Option<Uuid>,
    /// Only these events, at most 500.
    #[serde(default)]
    deliveries: Vec<Uuid>,
    /// Only what was parked then or later.
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    /// Only what was parked before.
    #[schemars(with = "Option<Moment>")]
    until: Option<Timestamp>,
    /// Only what was parked for this: `paused`, `exhausted`, …
    reason: Option<String>,
    /// Only events of this type, or of this family (`call.*`).
    #[serde(rename = "type")]
    name: Option<String>,
    /// Everything that is parked.
    #[serde(default)]
    all: bool,
    /// Whether states (presence, queue status) go along: old ones may mislead more than they help.
    #[serde(default = "yes")]
    states: bool,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

/// A replay, as it is asked for and looked at.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ReplayAnswer {
    replay: ReplayView,
}

/// The replays of a webhook.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ReplayList {
    /// Newest first: the one that runs, and the last ten that have ended.
    replays: Vec<ReplayView>,
}

/// A replay: what it is about and how far it is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Replay")]
struct ReplayView {
    id: Uuid,
    /// `running`, `done`, `cancelled` or `failed`.
    state: String,
    /// It was asked to end, and has not done so yet.
    cancelling: bool,
    /// It only counts: nothing is sent.
    dry_run: bool,
    /// How much of what was parked is gone through, from 0 to 1.
    progress: f64,
    /// Parked deliveries that it is about, as far as it has got.
    found: u64,
    /// Of these, sent again.
    sent: u64,
    /// Of these, sent again before this replay.
    already: u64,
    /// Records that could not be read.
    unreadable: u64,
    /// Of what was sent, delivered so far. Null without a projection, or when it has forgotten.
    delivered: Option<u64>,
    /// Of what was sent, parked again so far; null likewise. The rest is on its way.
    failed: Option<u64>,
    #[schemars(with = "Moment")]
    started: Timestamp,
    #[schemars(with = "Option<Moment>")]
    ended: Option<Timestamp>,
    /// Who asked for it.
    by: String,
    /// Why it waits or has failed.
    error: Option<String>,
    filter: FilterView,
    /// Why what is sent will be parked again.
    warnings: Vec<String>,
}

/// What a replay is about.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReplayFilter")]
struct FilterView {
    /// Empty: all.
    deliveries: Vec<Uuid>,
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    #[schemars(with = "Option<Moment>")]
    until: Option<Timestamp>,
    reason: Option<String>,
    #[serde(rename = "type")]
    name: Option<String>,
    states: bool,
}

impl ReplayForm {
    fn filter(self) -> Result<JobFilter, Problem> {
        let mut events = self.deliveries;
        events.extend(self.event);
        let filter = JobFilter {
            reason: self.reason.as_deref().map(reason_field).transpose()?,
            events,
            since: self.since,
            until: self.until,
            name: self.name,
            without_states: !self.states,
        };
        if let Some(name) = &filter.name {
            Pattern::parse(name).map_err(|error| Problem::field("type", error.to_string()))?;
        }
        if filter.events.len() > EVENTS_MAX {
            let detail = format!("name at most {EVENTS_MAX} events at a time");
            return Err(Problem::field("deliveries", detail));
        }
        let anything = JobFilter {
            without_states: filter.without_states,
            ..JobFilter::default()
        };
        if filter == anything && !self.all {
            let detail = "say what to replay: \"deliveries\", \"since\", \"until\", \"reason\", \
                          \"type\", or \"all\": true";
            return Err(Problem::invalid("nothing_selected", detail).with("field", "all"));
        }
        Ok(filter)
    }
}

pub(crate) async fn begin<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path((tenant, name)): Path<(String, String)>,
    Body(form): Body<ReplayForm>,
) -> Result<(StatusCode, Json<ReplayAnswer>), Problem> {
    let dry_run = form.dry_run;
    let filter = form.filter()?;
    let by = match access.who() {
        Who::Operator => "operator".to_owned(),
        Who::Token(token) => format!("token {}", token.name),
        Who::Account(account) => account.login.to_string(),
    };
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            let (range, replays_from) = Pieces::new(admin, webhook.id)?.bounds()?;
            let job = ReplayJob {
                id: Uuid::now_v7(),
                state: JobState::Running,
                filter,
                dry_run,
                by,
                started: admin.clock.now(),
                ended: None,
                from: range.start,
                next: range.start,
                until: range.end,
                replays_from,
                counts: JobCounts::default(),
                piece: JobCounts::default(),
                owner: None,
                cancel: false,
                error: None,
            };
            let id = job.id;
            if !dry_run {
                admin.tell_of_webhook(
                    "webhook.replay",
                    &webhook,
                    json!({ "replay": id, "filter": job.filter }),
                )?;
            }
            ask_for(admin, &webhook, job)?;
            // It is in the log: whatever happens now, it is worked on.
            work_a_moment(admin, &webhook);
            let answer = find(admin, &webhook, id)?;
            Ok((StatusCode::ACCEPTED, Json(answer)))
        })
        .await
}

fn work_a_moment<L: Log>(admin: &Admin<L>, webhook: &Webhook) {
    if let Err(problem) = admin.work_on_replay(webhook.id, Some(AT_ONCE)) {
        tracing::warn!(webhook = %webhook.id, problem = problem.detail(), "a replay waits");
    }
}

/// Blocking: writes a new job, unless another one runs.
fn ask_for<L: Log>(admin: &Admin<L>, webhook: &Webhook, job: ReplayJob) -> Result<(), Problem> {
    let what = format!("the list of replays of webhook {}", webhook.name);
    admin.retrying(&what, || {
        let (mut jobs, revision) = match admin.jobs(webhook.id)? {
            Some(Versioned { value, revision }) => (value, Some(revision)),
            None => (ReplayJobs::new(webhook.id, webhook.tenant.clone()), None),
        };
        if !jobs.begin(job.clone()) {
            let running = jobs.running.as_ref().map(|running| running.id.to_string());
            let detail = "this webhook is being replayed already; wait for that replay to end, or \
                          cancel it";
            let problem = Problem::conflict("replay_running", detail);
            return Err(problem.with("replay", running).into());
        }
        admin.put(Role::Jobs, &webhook.id.to_string(), revision, &jobs)
    })?;
    Ok(())
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Json<ReplayList>, Problem> {
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            let warnings = warnings(admin, &webhook)?;
            let jobs = admin.jobs(webhook.id)?;
            let all: Vec<_> = jobs.iter().flat_map(|jobs| jobs.value.all()).collect();
            let outcomes = Outcomes::of(admin, &all);
            let views = all.into_iter();
            Ok(Json(ReplayList {
                replays: views
                    .map(|job| ReplayView::of(job, &outcomes, &warnings))
                    .collect(),
            }))
        })
        .await
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name, replay)): Path<(String, String, String)>,
) -> Result<Json<ReplayAnswer>, Problem> {
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            find(admin, &webhook, replay_id(&replay)?).map(Json)
        })
        .await
}

/// Asks it to end, and waits a moment for that. What was sent is sent.
pub(crate) async fn cancel<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name, replay)): Path<(String, String, String)>,
) -> Result<Json<ReplayAnswer>, Problem> {
    let until = tokio::time::Instant::now() + CANCELLED_WITHIN;
    let asked = (tenant.clone(), name.clone(), replay.clone());
    state
        .run(move |admin| cancel_now(admin, &asked.0, &asked.1, &asked.2))
        .await?;
    loop {
        let asked = (tenant.clone(), name.clone(), replay.clone());
        let answer = state
            .run(move |admin| {
                let webhook = admin.webhook(&asked.0, &asked.1)?.value;
                find(admin, &webhook, replay_id(&asked.2)?)
            })
            .await?;
        if answer.replay.state != "running" || tokio::time::Instant::now() > until {
            return Ok(Json(answer));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn cancel_now<L: Log>(
    admin: &Admin<L>,
    tenant: &str,
    name: &str,
    replay: &str,
) -> Result<(), Problem> {
    let webhook = admin.webhook(tenant, name)?.value;
    let id = replay_id(replay)?;
    let running = admin.jobs(webhook.id)?.and_then(|jobs| jobs.value.running);
    if running.is_some_and(|job| job.id == id) {
        admin.tell_of_webhook("webhook.cancel_replay", &webhook, json!({ "replay": id }))?;
    }
    let what = format!("the list of replays of webhook {}", webhook.name);
    admin.retrying(&what, || {
        let mut jobs = admin
            .jobs(webhook.id)?
            .filter(|jobs| jobs.value.find(id).is_some())
            .ok_or_else(|| no_such_replay(replay))?;
        if let Some(job) = jobs.value.running.as_mut().filter(|job| job.id == id) {
            job.cancel = true;
            let key = webhook.id.to_string();
            admin.put(Role::Jobs, &key, Some(jobs.revision), &jobs.value)?;
        }
        Ok(())
    })?;
    // When nobody works on it, there is nobody else to end it.
    work_a_moment(admin, &webhook);
    Ok(())
}

fn replay_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| no_such_replay(text))
}

fn no_such_replay(id: &str) -> Problem {
    let after = ", or no longer: the last ten are kept";
    Problem::none_called("no_such_replay", "this webhook has no replay", id, after)
}

fn find<L: Log>(admin: &Admin<L>, webhook: &Webhook, id: Uuid) -> Result<ReplayAnswer, Problem> {
    let jobs = admin.jobs(webhook.id)?;
    let job = jobs.as_ref().and_then(|jobs| jobs.value.find(id));
    let job = job.ok_or_else(|| no_such_replay(&id.to_string()))?;
    Ok(ReplayAnswer {
        replay: ReplayView::of(
            job,
            &Outcomes::of(admin, &[job]),
            &warnings(admin, webhook)?,
        ),
    })
}

/// What became of what replays have sent, as the projection has counted.
struct Outcomes {
    counted: Option<HashMap<Uuid, Replayed>>,
    /// What was sent before is forgotten, or will be while it is counted.
    since: Timestamp,
}

impl Outcomes {
    /// Blocking. That it is not known keeps nobody from seeing the rest.
    fn of<L: Log>(admin: &Admin<L>, jobs: &[&ReplayJob]) -> Self {
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let source = admin.projection_only();
        let counted = source.and_then(|source| source.read(|on| pages::replayed(on, &ids)));
        Self {
            counted: counted.ok(),
            since: admin.clock.now() - admin.config.projection.retention,
        }
    }

    fn find(&self, job: &ReplayJob, sent: u64) -> Option<Replayed> {
        if job.started < self.since {
            return None;
        }
        let found = self.counted.as_ref()?.get(&job.id).copied()?;
        // A crash leaves several traces of one delivery.
        let delivered = found.delivered.min(sent);
        Some(Replayed {
            delivered,
            failed: found.failed.min(sent - delivered),
        })
    }
}

fn warnings<L: Log>(admin: &Admin<L>, webhook: &Webhook) -> Result<Vec<String>, Problem> {
    let mut warnings = Vec::new();
    if !webhook.enabled {
        warnings.push("the webhook is paused: what is replayed is parked again".to_owned());
    }
    if admin.directory()?.is_disabled(webhook) {
        warnings.push("the webhook is disabled: what is replayed is parked again".to_owned());
    }
    Ok(warnings)
}

impl ReplayView {
    fn of(job: &ReplayJob, outcomes: &Outcomes, warnings: &[String]) -> Self {
        let counts = sum(&job.counts, &job.piece);
        let outcome = outcomes.find(job, counts.sent);
        let state = match job.state {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            JobState::Failed => "failed",
        };
        let filter = &job.filter;
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let progress = match (job.state, job.until - job.from) {
            (JobState::Done, _) => 1.0,
            (_, ..=0) => 0.0,
            (_, all) => ((job.next - job.from) as f64 / all as f64).clamp(0.0, 1.0),
        };
        Self {
            id: job.id,
            state: state.to_owned(),
            cancelling: job.cancel && job.state == JobState::Running,
            dry_run: job.dry_run,
            progress,
            found: counts.found,
            sent: counts.sent,
            already: counts.already,
            unreadable: counts.unreadable,
            delivered: outcome.map(|outcome| outcome.delivered),
            failed: outcome.map(|outcome| outcome.failed),
            started: job.started,
            ended: job.ended,
            by: job.by.clone(),
            error: job.error.clone(),
            filter: FilterView {
                deliveries: filter.events.clone(),
                since: filter.since,
                until: filter.until,
                reason: filter.reason.map(Reason::as_str).map(str::to_owned),
                name: filter.name.clone(),
                states: !filter.without_states,
            },
            warnings: warnings.to_vec(),
        }
    }
}
