//! One attempt: whether the delivery may still be sent, the request, and what it told.

use std::time::Duration;

use ringback_core::check_invariant;
use ringback_core::invariant::{Invariant, count};
use ringback_core::lane::Signal;
use ringback_core::log::Log;
use ringback_core::record::{Delivery, Reason};
use ringback_core::schedule::Schedule;
use ringback_core::sendable::{may_be_news, sendable};
use ringback_core::time::Timestamp;
use ringback_core::verdict::Verdict;
use ringback_log::directory::STALE_AFTER;
use ringback_telemetry::{Gauge, Histogram, trace_id};
use tracing::Instrument as _;

use crate::dispatcher::Shared;
use crate::route::{Job, Parking};
use crate::send::Transport;
use crate::settle::AttemptMade;

/// No request was made.
const UNSENT: (Duration, Signal) = (Duration::ZERO, Signal::None);

/// One attempt, if the delivery may still be sent. Returns how long the receiver took, and what that
/// told about it.
pub(crate) async fn attempt<L: Log, T: Transport>(
    shared: &Shared<L, T>,
    job: Job,
) -> (Duration, Signal) {
    let about = about(&job.delivery);
    made(shared, job).instrument(about).await
}

/// What log lines within an attempt are about, whatever their level.
fn about(delivery: &Delivery) -> tracing::Span {
    let event = &delivery.event;
    tracing::error_span!(
        "attempt",
        event = %event.id,
        tenant = %event.tenant,
        webhook = %delivery.webhook,
        run = delivery.run,
        attempt = delivery.attempt,
        trace = trace_id(event),
    )
}

async fn made<L: Log, T: Transport>(shared: &Shared<L, T>, job: Job) -> (Duration, Signal) {
    // DL6: what is sent is sent on configuration that is known to be current.
    shared.fresh().await;
    let started = shared.now();
    let sendable = {
        let directory = shared.directory.read();
        sendable(&job.delivery, &directory, &shared.schedule, started).cloned()
    };
    let from = job.work.owned.role;
    let webhook = match sendable {
        Ok(webhook) => webhook,
        // Put off once, to the shortest rung.
        Err(parking) if may_be_news(&job.delivery, from, parking.reason, started, STALE_AFTER) => {
            shared.settler.defer(job, STALE_AFTER, started);
            return UNSENT;
        }
        Err(parking) => {
            shared.settler.park(job, parking);
            return UNSENT;
        }
    };
    if !job.work.owned.is_owned() {
        // Taken away before it was sent: the new owner sends it.
        return UNSENT;
    }
    check_in_time(&shared.schedule, &job.delivery, started);
    let by_log = shared.log_now();
    let ended = shared
        .transport
        .send(&webhook, &job.delivery, job.body(), started)
        .await;
    check_on(shared.directory.read().off_since(webhook.id), by_log);
    match ended {
        Ok(sent) => {
            let took = sent.took;
            let verdict = Verdict::on(sent.outcome, webhook.acknowledge);
            let signal = Signal::of(sent.outcome, verdict, sent.retry_after);
            let ended = shared.now();
            shared
                .metrics
                .observe(Histogram::AttemptSeconds, &[], took.as_secs_f64());
            shared
                .metrics
                .set(Gauge::InFlight, &[], shared.lanes.in_flight() as f64);
            shared.settler.attempted(
                job,
                AttemptMade {
                    webhook,
                    started,
                    ended,
                    sent,
                },
            );
            (took, signal)
        }
        Err(unsendable) => {
            let detail = Some(unsendable.to_string());
            shared.settler.park(
                job,
                Parking {
                    reason: Reason::Undeliverable,
                    detail,
                },
            );
            UNSENT
        }
    }
}

/// No attempt starts after the end of its run (contract R13).
fn check_in_time(schedule: &Schedule, delivery: &Delivery, started: Timestamp) {
    check_invariant!(
        DL4,
        !schedule.expired(delivery.began(), started),
        "an attempt started at {started}, for a run that began at {}",
        delivery.began()
    );
}

/// Nothing was sent later than it may take to know that a webhook is off. Times are the log's, of which
/// our estimate is never ahead. A process that stood still at the wrong moment may be too late: no panic.
fn check_on(off_since: Option<Timestamp>, started: Timestamp) {
    if let Some(since) = off_since
        && started > since + STALE_AFTER
    {
        count(Invariant::DL6);
        tracing::error!(%since, %started, "a webhook that is off was sent to (DL6)");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use ringback_core::event::{Event, EventName, Source, TenantId};
    use ringback_core::invariant::violations;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_attempt_beyond_its_run_is_counted() {
        let schedule = Schedule::default();
        let began = Timestamp::from_millis(0);
        let event = Event {
            id: Uuid::from_u128(7),
            name: EventName::parse("cdr.completed").unwrap(),
            time: began,
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        };
        let delivery = Delivery {
            event: Arc::new(event),
            webhook: Uuid::from_u128(1),
            attempt: 5,
            run: 0,
            accepted: began,
            deferrals: 0,
            replay: None,
        };
        let last = began + schedule.expires_after();
        check_in_time(&schedule, &delivery, last);
        let late = last + Duration::from_millis(1);
        let before = violations(Invariant::DL4);
        let check = || check_in_time(&schedule, &delivery, late);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err());
        assert_eq!(violations(Invariant::DL4), before + 1);
    }

    #[test]
    fn an_attempt_on_a_webhook_that_is_long_off_is_counted() {
        let off = Timestamp::from_millis(10_000);
        let before = violations(Invariant::DL6);
        check_on(None, off);
        check_on(Some(off), off + STALE_AFTER);
        assert_eq!(violations(Invariant::DL6), before);
        check_on(Some(off), off + STALE_AFTER + Duration::from_millis(1));
        assert_eq!(violations(Invariant::DL6), before + 1);
    }
}
