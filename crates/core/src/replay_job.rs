//! Replays as jobs: what was asked for, and how far it is. The record of a webhook is written by
//! compare-and-set alone, so that of several administrations one works on it at a time.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::TenantId;
use crate::log::Offset;
use crate::record::Reason;
use crate::time::Timestamp;

/// Version of the records written here.
pub const JOBS_VERSION: u32 = 1;
/// Jobs that have ended and are still shown, of each webhook.
pub const ENDED_MAX: usize = 10;
/// Events that one job may name.
pub const EVENTS_MAX: usize = 500;

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Somebody works on it, or will.
    Running,
    /// Everything that it was about is sent.
    Done,
    /// Somebody ended it before.
    Cancelled,
    /// It cannot go on.
    Failed,
}

/// What of the parked deliveries is replayed. What is said adds up; nothing said is everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFilter {
    /// Only these events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Uuid>,
    /// Only what was parked then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what was parked before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only what was parked for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Only events of this type, or of this family (`call.*`).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Without states (presence, queue status).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_states: bool,
}

/// What a job has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobCounts {
    /// Parked deliveries that the filter wants.
    pub found: u64,
    /// Of these, asked for again.
    pub sent: u64,
    /// Of these, asked for before the job began.
    pub already: u64,
    /// Records that could not be read.
    pub unreadable: u64,
}

/// One replay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayJob {
    /// Its id.
    pub id: Uuid,
    /// How it stands.
    pub state: JobState,
    /// What it is about.
    pub filter: JobFilter,
    /// It only counts.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asked for it, for people.
    pub by: String,
    /// When.
    pub started: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Timestamp>,
    /// The first offset of the webhook's partition of `parked` that it is about.
    pub from: Offset,
    /// Where it goes on: all before is done, and in the counts.
    pub next: Offset,
    /// The end of that partition when it began. What is parked later is not its business, or a receiver
    /// that refuses at once would keep it going for ever.
    pub until: Offset,
    /// The end of the webhook's partition of `replay` when it began: what is asked for from there on was
    /// asked for by this job.
    pub replays_from: Offset,
    /// What it has done before `next`.
    #[serde(default)]
    pub counts: JobCounts,
    /// What it has done since; not counted on when somebody goes on at `next`.
    #[serde(default)]
    pub piece: JobCounts,
    /// The administration that works on it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<Uuid>,
    /// Somebody wants it to end.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cancel: bool,
    /// Why it waits or failed, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The replays of one webhook: a record of topic `jobs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayJobs {
    /// Version of the record.
    pub version: u32,
    /// The webhook's id, which is the record's key.
    pub webhook: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The one that runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<ReplayJob>,
    /// Those that have ended, newest first.
    #[serde(default)]
    pub ended: Vec<ReplayJob>,
}

impl ReplayJobs {
    /// A webhook that nothing was replayed of yet.
    pub fn new(webhook: Uuid, tenant: TenantId) -> Self {
        Self {
            version: JOBS_VERSION,
            webhook,
            tenant,
            running: None,
            ended: Vec::new(),
        }
    }

    /// All of them, newest first.
    pub fn all(&self) -> impl Iterator<Item = &ReplayJob> {
        self.running.iter().chain(&self.ended)
    }

    /// One of them.
    pub fn find(&self, id: Uuid) -> Option<&ReplayJob> {
        self.all().find(|job| job.id == id)
    }

    /// Begins a job. `false` while another one runs: two at once would send everything twice.
    pub fn begin(&mut self, job: ReplayJob) -> bool {
        if self.running.is_some() {
            return false;
        }
        self.running = Some(job);
        true
    }

    /// The running job in somebody's hands. `None` when there is none, or it is in another's who has
    /// not been silent for long enough to be gone.
    ///
    /// `silent`: for how long the record has not changed, as the asker has watched it. Whoever works on a
    /// job writes its record far more often than `lease`, and does nothing when it could not: so the one
    /// who is silent for that long does nothing any more either.
    pub fn claim(
        &mut self,
        by: Uuid,
        silent: std::time::Duration,
        lease: std::time::Duration,
    ) -> Option<&ReplayJob> {
        let job = self.running.as_mut()?;
        let is_free = match job.owner {
            None => true,
            Some(owner) => owner != by && silent >= lease,
        };
        if !is_free {
            return None;
        }
        job.owner = Some(by);
        Some(job)
    }

    /// The running job, while it is this one and in these hands.
    pub fn held(&mut self, id: Uuid, by: Uuid) -> Option<&mut ReplayJob> {
        let job = self.running.as_mut()?;
        (job.id == id && job.owner == Some(by)).then_some(job)
    }

    /// Ends the running job.
    pub fn end(&mut self, state: JobState, at: Timestamp) {
        let Some(mut job) = self.running.take() else {
            return;
        };
        job.state = state;
        job.ended = Some(at);
        job.owner = None;
        self.ended.insert(0, job);
        self.ended.truncate(ENDED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEASE: Duration = Duration::from_secs(45);

    fn job(number: u128) -> ReplayJob {
        ReplayJob {
            id: Uuid::from_u128(number),
            state: JobState::Running,
            filter: JobFilter::default(),
            dry_run: false,
            by: "operator".to_owned(),
            started: Timestamp::EPOCH,
            ended: None,
            from: 3,
            next: 3,
            until: 9,
            replays_from: 0,
            counts: JobCounts::default(),
            piece: JobCounts::default(),
            owner: None,
            cancel: false,
            error: None,
        }
    }

    fn jobs() -> ReplayJobs {
        ReplayJobs::new(Uuid::from_u128(1), TenantId::parse("acme").unwrap())
    }

    #[test]
    fn one_runs_at_a_time_and_the_last_ones_are_kept() {
        let mut jobs = jobs();
        for number in 0..ENDED_MAX as u128 + 3 {
            assert!(jobs.begin(job(number)));
            assert!(!jobs.begin(job(99)), "two at once");
            assert_eq!(jobs.all().next().unwrap().id, Uuid::from_u128(number));
            jobs.end(JobState::Done, Timestamp::from_millis(5));
        }
        assert_eq!(jobs.ended.len(), ENDED_MAX);
        let newest = &jobs.ended[0];
        assert_eq!((newest.state, newest.owner), (JobState::Done, None));
        assert_eq!(newest.ended, Some(Timestamp::from_millis(5)));
        assert!(jobs.find(newest.id).is_some());
        assert!(jobs.find(Uuid::from_u128(0)).is_none(), "forgotten");
        jobs.end(JobState::Done, Timestamp::EPOCH);
        assert_eq!(jobs.ended.len(), ENDED_MAX);
    }

    #[test]
    fn a_job_is_taken_from_nobody_who_may_still_work_on_it() {
        let (me, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let mut jobs = jobs();
        assert_eq!(jobs.claim(me, LEASE, LEASE), None, "there is none");
        jobs.begin(job(1));
        assert!(jobs.held(Uuid::from_u128(1), me).is_none(), "nobody's");
        assert!(jobs.claim(other, Duration::ZERO, LEASE).is_some());
        let nearly = LEASE - Duration::from_nanos(1);
        assert_eq!(jobs.claim(me, nearly, LEASE), None);
        assert_eq!(jobs.claim(other, LEASE, LEASE), None, "it has it already");
        assert!(jobs.held(Uuid::from_u128(1), other).is_some());
        assert!(
            jobs.held(Uuid::from_u128(2), other).is_none(),
            "another job"
        );
        assert!(jobs.claim(me, LEASE, LEASE).is_some());
        assert!(jobs.held(Uuid::from_u128(1), other).is_none(), "taken over");
    }

    #[test]
    fn records_keep_what_they_say() {
        let mut jobs = jobs();
        jobs.begin(ReplayJob {
            filter: JobFilter {
                events: vec![Uuid::from_u128(4)],
                reason: Some(Reason::Paused),
                name: Some("call.*".to_owned()),
                without_states: true,
                ..JobFilter::default()
            },
            cancel: true,
            error: Some("the log is away".to_owned()),
            ..job(2)
        });
        let json = serde_json::to_string(&jobs).unwrap();
        assert_eq!(serde_json::from_str::<ReplayJobs>(&json).unwrap(), jobs);
        let grown = json.replacen('{', "{\"of_the_future\":1,", 1);
        assert_eq!(serde_json::from_str::<ReplayJobs>(&grown).unwrap(), jobs);
    }
}
