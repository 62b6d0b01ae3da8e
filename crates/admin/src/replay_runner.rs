//! Who works on replays: the administration that was asked, for a moment; then whichever has time, and
//! another one when that one is gone.
//!
//! A job is in the hands of whoever wrote so into its record by compare-and-set. Whoever has it writes the
//! record again every few seconds, and asks for nothing when it could not for a third of the lease. When
//! a record does not change for the whole lease, its holder is gone and another one takes it. See
//! docs/adr/0012.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::directory::Versioned;
use ringback_core::log::{Log, Revision};
use ringback_core::replay_job::{JobCounts, JobState, ReplayJob, ReplayJobs};
use ringback_core::topics::Role;
use tokio::sync::{Notify, Semaphore};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::problem::Problem;
use crate::replay_work::{Pieces, Stop};
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;

/// Replays that one process works on at a time.
const WORKING_MAX: usize = 4;
/// How often is looked for replays that nobody works on.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a replay that the log failed rests.
const REST: Duration = Duration::from_secs(2);
/// How often what is kept of removed webhooks is removed, and how many of them at a time.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_MAX: usize = 100;
/// How long an ending process waits for its replays to be put down.
const PUT_DOWN: Duration = Duration::from_secs(15);

pub(crate) struct Runner {
    /// This administration.
    pub(crate) me: Uuid,
    /// Told when a replay waits for somebody.
    pub(crate) news: Notify,
    slots: Semaphore,
    /// Running replays of others, and since when their records have not changed, by the steady clock.
    watched: Mutex<HashMap<Uuid, (Revision, Duration)>>,
}

impl Runner {
    pub(crate) fn new() -> Self {
        Self {
            me: Uuid::new_v4(),
            news: Notify::new(),
            slots: Semaphore::new(WORKING_MAX),
            watched: Mutex::default(),
        }
    }
}

/// Works on replays until the server ends, then puts down what it has.
pub(crate) async fn run<L: Log>(state: AdminState<L>) {
    let runner = &state.admin().runner;
    let closing = state.admin().closing.clone();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = tokio::time::interval(FORGET_EVERY);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            () = runner.news.notified() => {}
            _ = look.tick() => {}
            _ = forget.tick() => {
                // What was not removed is removed the next time.
                let _ = state.run(Admin::forget_removed).await;
                let _ = state.run(Admin::forget_uses).await;
            }
        }
        for webhook in state.admin().replays_to_take() {
            let Ok(permit) = runner.slots.try_acquire() else {
                break;
            };
            permit.forget();
            let state = state.clone();
            let work = move || {
                let admin = state.admin();
                if let Err(problem) = admin.work_on_replay(webhook, None) {
                    tracing::warn!(%webhook, problem = problem.detail(), "a replay waits");
                }
                admin.runner.slots.add_permits(1);
            };
            drop(tokio::task::spawn_blocking(work));
        }
    }
    let all = u32::try_from(WORKING_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(PUT_DOWN, runner.slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("a replay was not put down in time; it goes on when its lease is over");
    }
}

impl<L: Log> AdminState<L> {
    /// Blocking: works on replays that nobody works on, until they are done; for whoever has no server,
    /// which does that by itself.
    pub fn work_on_replays(&self) {
        for webhook in self.admin().replays_to_take() {
            if let Err(problem) = self.admin().work_on_replay(webhook, None) {
                tracing::debug!(%webhook, problem = problem.detail(), "a replay waits");
            }
        }
    }
}

impl<L: Log> Admin<L> {
    /// Webhooks whose replay nobody works on.
    fn replays_to_take(&self) -> Vec<Uuid> {
        let Ok(directory) = self.directory() else {
            return Vec::new();
        };
        let now = self.clock.steady();
        let mut watched = self.runner.watched.lock();
        let mut running = HashMap::new();
        let mut free = Vec::new();
        for jobs in directory.all_jobs() {
            let Some(job) = &jobs.value.running else {
                continue;
            };
            let webhook = jobs.value.webhook;
            let since = match watched.get(&webhook) {
                Some((revision, since)) if *revision == jobs.revision => *since,
                _ => now,
            };
            running.insert(webhook, (jobs.revision, since));
            let silent = now.saturating_sub(since);
            let rested = job.error.is_none() || silent >= REST;
            let mut looked = jobs.value.clone();
            if rested
                && looked
                    .claim(self.runner.me, silent, self.config.replay_lease)
                    .is_some()
            {
                free.push(webhook);
            }
        }
        *watched = running;
        free
    }

    /// Blocking: removes what is kept of webhooks that were removed.
    fn forget_removed(&self) -> Result<(), Problem> {
        let removed: Vec<_> = {
            let directory = self.directory()?;
            let is_over = |jobs: &&Versioned<ReplayJobs>| {
                let webhook = directory.webhook_by_id(jobs.value.webhook);
                webhook.is_none() && jobs.value.running.is_none()
            };
            let removed = directory.all_jobs().filter(is_over).take(FORGET_MAX);
            removed
                .map(|jobs| (jobs.value.webhook, jobs.revision))
                .collect()
        };
        for (webhook, revision) in removed {
            match self.delete(Role::Jobs, &webhook.to_string(), revision) {
                Ok(()) | Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(problem)) => return Err(problem),
            }
        }
        Ok(())
    }

    /// For how long this record has not changed, as far as this process has seen.
    fn silent(&self, webhook: Uuid, revision: Revision) -> Duration {
        match self.runner.watched.lock().get(&webhook) {
            Some((watched, since)) if *watched == revision => {
                self.clock.steady().saturating_sub(*since)
            }
            _ => Duration::ZERO,
        }
    }

    /// Blocking: works on a webhook's replay, if it is free; until it is done, or for about so long.
    pub(crate) fn work_on_replay(
        &self,
        webhook: Uuid,
        within: Option<Duration>,
    ) -> Result<(), Problem> {
        let Some(mut hold) = Hold::take(self, webhook)? else {
            return Ok(());
        };
        hold.until = within.map(|within| self.clock.steady() + within);
        let (state, error) = match hold.work() {
            Ok(()) => (JobState::Done, None),
            Err(Stop::Lost) => return Ok(()),
            Err(Stop::Cancelled) => (JobState::Cancelled, None),
            Err(Stop::Paused) => return hold.put_down(None),
            Err(Stop::Trouble(problem)) => return hold.put_down(Some(problem)),
        };
        hold.end(state, error)
    }

    /// The replays of a webhook as they are known now.
    pub(crate) fn jobs(&self, webhook: Uuid) -> Result<Option<Versioned<ReplayJobs>>, Problem> {
        Ok(self.directory()?.jobs(webhook).cloned())
    }
}

/// A replay in our hands.
struct Hold<'a, L: Log> {
    admin: &'a Admin<L>,
    jobs: ReplayJobs,
    revision: Revision,
    id: Uuid,
    /// When the record was last written, or a little before, by the steady clock.
    written: Duration,
    /// When it is put down, if there is time for only a part.
    until: Option<Duration>,
}

impl<'a, L: Log> Hold<'a, L> {
    /// Takes a replay that nobody works on. `None`: there is none, or somebody was faster.
    fn take(admin: &'a Admin<L>, webhook: Uuid) -> Result<Option<Self>, Problem> {
        let Some(Versioned {
            value: mut jobs,
            revision,
        }) = admin.jobs(webhook)?
        else {
            return Ok(None);
        };
        let silent = admin.silent(webhook, revision);
        let Some(job) = jobs.claim(admin.runner.me, silent, admin.config.replay_lease) else {
            return Ok(None);
        };
        let id = job.id;
        let written = admin.clock.steady();
        match admin.put(Role::Jobs, &webhook.to_string(), Some(revision), &jobs) {
            Ok(revision) => Ok(Some(Self {
                admin,
                jobs,
                revision,
                id,
                written,
                until: None,
            })),
            Err(NotWritten::Conflict) => Ok(None),
            Err(NotWritten::Failed(problem)) => Err(problem),
        }
    }

    /// Goes through all pieces that are left.
    fn work(&mut self) -> Result<(), Stop> {
        let webhook = self.jobs.webhook;
        let mut pieces = Pieces::new(self.admin, webhook)?;
        loop {
            let Some(job) = self.job().cloned() else {
                return Err(Stop::Lost);
            };
            if self.admin.directory()?.webhook_by_id(webhook).is_none() {
                let detail = "its webhook was removed";
                return Err(Stop::Trouble(Problem::not_found("no_such_webhook", detail)));
            }
            if job.next >= job.until {
                return Ok(());
            }
            let (next, counts) = pieces.next(&job, &mut |so_far| self.go_on(so_far))?;
            if let Some(job) = self.job_mut() {
                job.next = next;
                job.counts = sum(&job.counts, &counts);
                job.piece = JobCounts::default();
            }
            // The last piece is written down with the end.
            if next < job.until {
                self.write()?;
            }
        }
    }

    fn job(&self) -> Option<&ReplayJob> {
        self.jobs.running.as_ref()
    }

    fn job_mut(&mut self) -> Option<&mut ReplayJob> {
        self.jobs.running.as_mut()
    }

    /// Keeps the record fresh, and says whether to go on.
    fn go_on(&mut self, so_far: &JobCounts) -> Result<(), Stop> {
        if let Some(job) = self.job_mut() {
            job.piece = *so_far;
        }
        let lease = self.admin.config.replay_lease;
        let age = |hold: &Self| hold.admin.clock.steady().saturating_sub(hold.written);
        if age(self) > lease / 8 || self.is_news() {
            match self.write() {
                // There is some time left to get through.
                Err(Stop::Trouble(_)) if age(self) < lease / 3 => {}
                other => other?,
            }
        }
        if self.job().is_some_and(|job| job.cancel) {
            return Err(Stop::Cancelled);
        }
        let is_over = self
            .until
            .is_some_and(|until| self.admin.clock.steady() > until);
        match is_over || self.admin.closing.is_cancelled() {
            true => Err(Stop::Paused),
            false => Ok(()),
        }
    }

    /// Whether somebody else has written.
    fn is_news(&self) -> bool {
        let known = self.admin.live().read();
        let known = known.jobs(self.jobs.webhook);
        known.is_some_and(|known| known.revision > self.revision)
    }

    /// Blocking: writes how far it is. What somebody else wished meanwhile is taken over.
    fn write(&mut self) -> Result<(), Stop> {
        loop {
            let before = self.admin.clock.steady();
            let key = self.jobs.webhook.to_string();
            match self
                .admin
                .put(Role::Jobs, &key, Some(self.revision), &self.jobs)
            {
                Ok(revision) => {
                    self.revision = revision;
                    self.written = before;
                    return Ok(());
                }
                Err(NotWritten::Failed(problem)) => return Err(Stop::Trouble(problem)),
                Err(NotWritten::Conflict) => self.adopt()?,
            }
        }
    }

    /// Takes over what the record says now, if it still is ours.
    fn adopt(&mut self) -> Result<(), Stop> {
        let Some(mut now) = self.admin.jobs(self.jobs.webhook)? else {
            return Err(Stop::Lost);
        };
        if now.revision <= self.revision {
            let detail =
                "the record of a replay was written by somebody else, and cannot be read yet";
            return Err(Problem::unavailable("configuration_stale", detail).into());
        }
        let Some(theirs) = now.value.held(self.id, self.admin.runner.me) else {
            return Err(Stop::Lost);
        };
        let cancel = theirs.cancel;
        if let Some(job) = self.job_mut() {
            job.cancel |= cancel;
        }
        self.revision = now.revision;
        Ok(())
    }

    /// Leaves it to whoever comes next, from the last whole piece on.
    fn put_down(mut self, why: Option<Problem>) -> Result<(), Problem> {
        let removed = why
            .as_ref()
            .is_some_and(|why| why.code() == "no_such_webhook");
        if removed {
            return self.end(JobState::Failed, why);
        }
        if let Some(job) = self.job_mut() {
            job.owner = None;
            job.error = why.as_ref().map(|why| why.detail().to_owned());
        }
        let written = self.write();
        self.admin.runner.news.notify_one();
        match (written, why) {
            (_, Some(why)) => Err(why),
            (Err(Stop::Trouble(problem)), None) => Err(problem),
            _ => Ok(()),
        }
    }

    fn end(mut self, state: JobState, error: Option<Problem>) -> Result<(), Problem> {
        let now = self.admin.clock.now();
        let ended = |jobs: &mut ReplayJobs| {
            if let Some(job) = &mut jobs.running {
                job.counts = sum(&job.counts, &job.piece);
                job.piece = JobCounts::default();
                job.error = error.as_ref().map(|error| error.detail().to_owned());
            }
            jobs.end(state, now);
        };
        loop {
            let mut jobs = self.jobs.clone();
            ended(&mut jobs);
            let key = jobs.webhook.to_string();
            match self.admin.put(Role::Jobs, &key, Some(self.revision), &jobs) {
                Ok(_) => break,
                Err(NotWritten::Failed(problem)) => return Err(problem),
                Err(NotWritten::Conflict) => match self.adopt() {
                    Ok(()) => {}
                    Err(Stop::Trouble(problem)) => return Err(problem),
                    Err(_) => return Ok(()),
                },
            }
        }
        let counts = self
            .job()
            .map(|job| sum(&job.counts, &job.piece))
            .unwrap_or_default();
        let JobCounts { found, sent, .. } = counts;
        tracing::info!(webhook = %self.jobs.webhook, found, sent, ?state, "replay ended");
        Ok(())
    }
}

pub(crate) fn sum(a: &JobCounts, b: &JobCounts) -> JobCounts {
    JobCounts {
        found: a.found + b.found,
        sent: a.sent + b.sent,
        already: a.already + b.already,
        unreadable: a.unreadable + b.unreadable,
    }
}
