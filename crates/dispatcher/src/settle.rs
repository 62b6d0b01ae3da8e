//! Settling: what became of a delivery is appended to the log, and only when that is acknowledged is
//! the delivery done (invariants DL3, DL8).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringback_core::clock::LogClock;
use ringback_core::lane::rung_for;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Header, Log, LogError,
};
use ringback_core::record::{Attempt, DELIVERED, Delivery, HeaderBuf, Reason, VERSION, header};
use ringback_core::schedule::{Asked, Next, Schedule};
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{DEFER_RUNGS, Role, TopicId, Topics};
use ringback_core::verdict::Verdict;
use ringback_core::webhook::Webhook;
use ringback_telemetry::{Counter, Histogram, Metrics};
use tokio::sync::Notify;

use crate::partition::Work;
use crate::raw::RawRecord;
use crate::route::{Job, Parking};
use crate::send::Sent;
use crate::span;

/// Waits between tries of a failed append, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// An attempt that was made.
pub(crate) struct AttemptMade {
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) sent: Sent,
}

/// What a settler is made of.
pub(crate) struct Parts {
    pub(crate) linger: Duration,
    /// Appends that may wait for the log.
    pub(crate) queue: usize,
    pub(crate) schedule: Schedule,
    /// This dispatcher's name in attempt records.
    pub(crate) name: String,
    /// Learns the log's clock from acknowledgements.
    pub(crate) clock: Arc<Mutex<LogClock>>,
    pub(crate) our_clock: Clock,
    pub(crate) metrics: Metrics,
}

/// Appends what becomes of deliveries.
pub(crate) struct Settler<L: Log> {
    appender: L::Appender<Acknowledged>,
    topics: Arc<Topics>,
    schedule: Schedule,
    name: String,
    backlog: Arc<Backlog>,
    our_clock: Clock,
    metrics: Metrics,
}

/// One record on its way into the log.
pub(crate) struct Pending {
    /// Done when all its records are acknowledged; shared by the records of one delivery.
    settling: Arc<Settling>,
    topic: TopicId,
    key: Option<String>,
    content: Content,
    /// When it was last handed to the log, by our steady clock, in microseconds.
    handed: u64,
}

enum Content {
    /// An attempt record, as JSON.
    Attempt(Bytes),
    /// A delivery that goes on elsewhere, with its reason when it is parked.
    Delivery(Box<Delivery>, Option<Parking>),
    /// A record that cannot be read, as it was.
    Raw(Arc<RawRecord>),
}

struct Settling {
    work: Arc<Work>,
    unacknowledged: AtomicUsize,
}

/// Appends that failed and wait for another try. Bounded by the slots: a delivery has at most two
/// records.
#[derive(Default)]
pub(crate) struct Backlog {
    failed: Mutex<Vec<Pending>>,
    news: Notify,
}

impl Backlog {
    fn push(&self, pending: Pending) {
        self.failed.lock().push(pending);
        self.news.notify_one();
    }
}

/// Where the log's acknowledgements arrive.
pub(crate) struct Acknowledged {
    backlog: Arc<Backlog>,
    clock: Arc<Mutex<LogClock>>,
    our_clock: Clock,
    metrics: Metrics,
    /// When a failed append may be told of again, by the steady clock.
    told: Mutex<Duration>,
}

/// How often failed appends are told of: each is tried again and again, and counted.
const TOLD_EVERY: Duration = Duration::from_secs(10);

impl Acknowledged {
    fn tell(&self, error: &AppendError) {
        let now = self.our_clock.steady();
        let mut next = self.told.lock();
        if now >= *next {
            *next = now + TOLD_EVERY;
            drop(next);
            tracing::warn!(%error, "results are not in the log yet; trying again (ringback_appends_failed_total counts)");
        }
    }
}

impl Completion for Acknowledged {
    type Token = Pending;

    fn done(&self, pending: Pending, result: Result<Appended, AppendError>) {
        match result {
            Ok(appended) => {
                let now = self.our_clock.steady();
                let handed = Duration::from_micros(pending.handed);
                self.clock.lock().observe(appended.at, handed, now);
                let settling = pending.settling;
                if settling.unacknowledged.fetch_sub(1, Ordering::AcqRel) == 1 {
                    settling.work.settled();
                }
            }
            Err(error) => {
                self.metrics.inc(Counter::AppendsFailed, &[]);
                self.tell(&error);
                self.backlog.push(pending);
            }
        }
    }
}

/// What the steady clock says, in microseconds.
fn micros(clock: &Clock) -> u64 {
    u64::try_from(clock.steady().as_micros()).unwrap_or(u64::MAX)
}

impl<L: Log> Settler<L> {
    pub(crate) fn new(log: &L, parts: Parts) -> Result<Self, LogError> {
        let Parts {
            linger,
            queue,
            schedule,
            name,
            clock,
            our_clock,
            metrics,
        } = parts;
        let backlog = Arc::new(Backlog::default());
        let completion = Acknowledged {
            backlog: backlog.clone(),
            clock,
            our_clock: our_clock.clone(),
            metrics: metrics.clone(),
            told: Mutex::new(Duration::ZERO),
        };
        let options = AppenderOptions {
            linger,
            queue,
            ..AppenderOptions::default()
        };
        let appender = log.appender(options, completion)?;
        Ok(Self {
            appender,
            topics: log.topics().clone(),
            schedule,
            name,
            backlog,
            our_clock,
            metrics,
        })
    }

    /// Settles an attempt.
    pub(crate) fn attempted(&self, job: Job, made: AttemptMade) {
        let AttemptMade {
            webhook,
            started,
            ended,
            sent,
        } = made;
        let verdict = Verdict::on(sent.outcome, webhook.acknowledge);
        let began = job.delivery.began();
        let asked = Asked {
            waits: webhook.schedule.as_deref(),
            retry_after: match sent.outcome.status() {
                Some(429 | 503) => sent.retry_after,
                _ => None,
            },
        };
        let next = self
            .schedule
            .next_asked(verdict, job.delivery.attempt, began, ended, asked);
        self.count(&job, &sent, next, ended);
        let Job { work, delivery, .. } = job;
        let goes_on = self.goes_on(&delivery, next);
        let held = work.owned.hold();
        let (request_headers, response_headers) = match sent.headers {
            Some(headers) => (Some(headers.request), headers.response),
            None => (None, None),
        };
        let mut attempt = Attempt {
            version: VERSION,
            event: delivery.event.id,
            name: delivery.event.name.clone(),
            tenant: delivery.event.tenant.clone(),
            webhook: delivery.webhook,
            generation: webhook.generation,
            run: delivery.run,
            attempt: delivery.attempt,
            started,
            duration_ms: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
            outcome: sent.outcome.label().to_owned(),
            status: sent.outcome.status(),
            error: sent.error,
            response: sent.response,
            next: goes_on
                .as_ref()
                .map_or(DELIVERED.to_owned(), |(name, ..)| name.clone()),
            late: false,
            dispatcher: self.name.clone(),
            trace: delivery.event.traceparent.clone(),
            next_at: None,
            request_headers,
            response_headers,
            subject: delivery.event.subject.clone(),
            replay: delivery.replay,
        };
        if held.is_none() {
            // The partition was taken away in the meantime: its new owner decides what comes next.
            attempt.late = true;
            self.metrics.inc(Counter::LateResults, &[]);
        }
        if let Some((_, role, None)) = &goes_on {
            let delay = self
                .topics
                .find(*role)
                .map(|topic| self.topics.delay(topic));
            attempt.next_at = delay.map(|delay| ended + delay);
        }
        span::record(&delivery, &webhook, &attempt, ended);
        let Attempt {
            outcome,
            status,
            next,
            duration_ms,
            late,
            ..
        } = &attempt;
        tracing::debug!(outcome, status, next, duration_ms, late, "attempted");
        let records = 1 + usize::from(goes_on.is_some() && held.is_some());
        // A late result settles nothing: its count never gets to zero.
        let never = usize::from(held.is_none());
        let settling = Arc::new(Settling {
            work: work.clone(),
            unacknowledged: AtomicUsize::new(records + never),
        });
        if held.is_some()
            && let Some((_, role, parking)) = goes_on
        {
            let attempt = delivery.attempt.saturating_add(1);
            let delivery = Delivery {
                attempt,
                ..delivery
            };
            self.append_delivery(&settling, role, delivery, parking);
        }
        self.append_attempt(settling, &attempt);
    }

    /// Where a delivery goes after an attempt: the name of the next step, the topic, and why.
    fn goes_on(&self, delivery: &Delivery, next: Next) -> Option<(String, Role, Option<Parking>)> {
        match next {
            Next::Delivered => None,
            Next::Retry { tier } => {
                let role = Role::Retry(tier);
                let Some(topic) = self.topics.find(role) else {
                    let detail = Some(format!("tier {tier} has no topic"));
                    let parking = Parking {
                        reason: Reason::Undeliverable,
                        detail,
                    };
                    return Some((parking.reason.to_string(), Role::Parked, Some(parking)));
                };
                Some((self.topics.spec(topic).name.clone(), role, None))
            }
            Next::Park(reason) => {
                let detail = Some(format!(
                    "after {} attempts",
                    u16::from(delivery.attempt) + 1
                ));
                let parking = Parking { reason, detail };
                Some((reason.to_string(), Role::Parked, Some(parking)))
            }
        }
    }

    fn count(&self, job: &Job, sent: &Sent, next: Next, now: Timestamp) {
        let class = match sent.outcome.status() {
            Some(status) => ["other", "1xx", "2xx", "3xx", "4xx", "5xx"]
                .get(usize::from(status / 100))
                .copied()
                .unwrap_or("other"),
            None => sent.outcome.label(),
        };
        let attempt = job.delivery.attempt.min(99).to_string();
        self.metrics.inc(Counter::Attempts, &[class, &attempt]);
        match next {
            Next::Delivered => {
                self.metrics.inc(Counter::Delivered, &[]);
                let since = now.since(job.delivery.accepted).as_secs_f64();
                if job.delivery.attempt == 0 && job.delivery.deferrals == 0 {
                    self.metrics.observe(Histogram::DeliverySeconds, &[], since);
                }
            }
            Next::Retry { tier } => {
                self.metrics
                    .inc(Counter::Retried, &[self.name_of(Role::Retry(tier))]);
            }
            Next::Park(reason) => self.metrics.inc(Counter::Parked, &[reason.as_str()]),
        }
    }

    /// Parks a delivery that was not attempted.
    pub(crate) fn park(&self, job: Job, parking: Parking) {
        tracing::debug!(event = %job.delivery.event.id, webhook = %job.delivery.webhook, reason = %parking.reason, detail = parking.detail, "parked");
        self.metrics
            .inc(Counter::Parked, &[parking.reason.as_str()]);
        self.alone(job, Role::Parked, Some(parking));
    }

    /// Puts a delivery off that would have to wait for `wait`. Returns the rung, or `None` when it is
    /// parked because it would come back too late.
    pub(crate) fn defer(&self, mut job: Job, wait: Duration, now: Timestamp) -> Option<usize> {
        let until = job.delivery.began() + self.schedule.expires_after();
        let remaining = until.since(now);
        let rung = rung_for(wait, job.delivery.deferrals, remaining);
        if DEFER_RUNGS[rung] >= remaining {
            self.park(job, Parking::because(Reason::Expired));
            return None;
        }
        self.metrics
            .inc(Counter::Deferred, &[self.name_of(Role::Defer(rung))]);
        job.delivery.deferrals = job.delivery.deferrals.saturating_add(1);
        self.alone(job, Role::Defer(rung), None);
        Some(rung)
    }

    fn name_of(&self, role: Role) -> &str {
        self.topics
            .find(role)
            .map_or("", |topic| self.topics.spec(topic).name.as_str())
    }

    /// A delivery whose only record this is.
    fn alone(&self, job: Job, role: Role, parking: Option<Parking>) {
        let Job { work, delivery, .. } = job;
        let Some(_held) = work.owned.hold() else {
            return;
        };
        let unacknowledged = AtomicUsize::new(1);
        let settling = Arc::new(Settling {
            work: work.clone(),
            unacknowledged,
        });
        self.append_delivery(&settling, role, delivery, parking);
    }

    /// Parks a record that cannot be read, as it is.
    pub(crate) fn park_raw(&self, work: Arc<Work>, raw: RawRecord) {
        self.metrics
            .inc(Counter::Parked, &[Reason::Undeliverable.as_str()]);
        let Some(topic) = self.topics.find(Role::Parked) else {
            return;
        };
        let settling = Arc::new(Settling {
            work,
            unacknowledged: AtomicUsize::new(1),
        });
        self.append(Pending {
            handed: micros(&self.our_clock),
            settling,
            topic,
            key: None,
            content: Content::Raw(raw.into()),
        });
    }

    fn append_delivery(
        &self,
        settling: &Arc<Settling>,
        role: Role,
        delivery: Delivery,
        parking: Option<Parking>,
    ) {
        let Some(topic) = self.topics.find(role) else {
            return;
        };
        settling.work.owned.check_written();
        let key = parking
            .is_some()
            .then(|| delivery.webhook.as_hyphenated().to_string());
        let content = Content::Delivery(Box::new(delivery), parking);
        self.append(Pending {
            handed: micros(&self.our_clock),
            settling: settling.clone(),
            topic,
            key,
            content,
        });
    }

    fn append_attempt(&self, settling: Arc<Settling>, attempt: &Attempt) {
        let Some(topic) = self.topics.find(Role::Attempts) else {
            return;
        };
        // Text, numbers and times: it always becomes JSON.
        let json = serde_json::to_vec(attempt).unwrap_or_default();
        let key = Some(attempt.webhook.as_hyphenated().to_string());
        self.append(Pending {
            handed: micros(&self.our_clock),
            settling,
            topic,
            key,
            content: Content::Attempt(json.into()),
        });
    }

    fn append(&self, pending: Pending) {
        if let Err(pending) = self.try_append(pending) {
            self.backlog.push(pending);
        }
    }

    /// Hands a record to the log; gives it back when the log's queue is full.
    fn try_append(&self, pending: Pending) -> Result<(), Pending> {
        let mut buf = HeaderBuf::default();
        let mut raw = None;
        let value: Option<Bytes> = match &pending.content {
            Content::Attempt(json) => {
                buf.push(header::CONTENT_TYPE, "application/json");
                buf.push(header::VERSION, VERSION);
                Some(json.clone())
            }
            Content::Delivery(delivery, parking) => {
                buf.push_delivery(delivery);
                if let Some(parking) = parking {
                    buf.push(header::REASON, parking.reason);
                    if let Some(detail) = &parking.detail {
                        buf.push(header::DETAIL, detail);
                    }
                }
                Some(delivery.event.data.clone())
            }
            Content::Raw(record) => {
                buf.push(header::REASON, Reason::Undeliverable);
                buf.push(header::DETAIL, &record.detail);
                raw = Some(record.clone());
                record.value.clone()
            }
        };
        let mut headers = buf.headers();
        if let Some(raw) = &raw {
            headers.extend(
                raw.headers
                    .iter()
                    .map(|(name, value)| Header { name, value }),
            );
        }
        let key = pending.key.clone();
        let append = Append {
            topic: pending.topic,
            key: key.as_deref().map(str::as_bytes),
            headers: &headers,
            value: value.as_deref(),
        };
        self.appender
            .append(append, pending)
            .map_err(|(pending, error)| {
                tracing::debug!(%error, "a result waits for the log");
                pending
            })
    }

    /// Tries failed appends again until they succeed or their partition is taken away. The POST is
    /// never repeated for them.
    pub(crate) async fn retry_failed(&self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            self.backlog.news.notified().await;
            // Not at once: what just failed would fail again.
            tokio::time::sleep(backoff).await;
            let failed = std::mem::take(&mut *self.backlog.failed.lock());
            let tried = failed.len();
            for mut pending in failed {
                // A late attempt record is not worth the queue of those that matter.
                let work = pending.settling.work.clone();
                let Some(_held) = work.owned.hold() else {
                    continue;
                };
                self.metrics.inc(Counter::AppendsRetried, &[]);
                pending.handed = micros(&self.our_clock);
                if let Err(pending) = self.try_append(pending) {
                    self.backlog.push(pending);
                }
            }
            let still = self.backlog.failed.lock().len();
            backoff = if still * 2 > tried {
                (backoff * 2).min(BACKOFF_MAX)
            } else {
                BACKOFF_MIN
            };
        }
    }

    /// Whether no result waits for another try.
    pub(crate) fn is_settled(&self) -> bool {
        self.backlog.failed.lock().is_empty()
    }

    /// Blocking: waits for what was handed to the log.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        self.appender.flush(timeout)
    }
}
