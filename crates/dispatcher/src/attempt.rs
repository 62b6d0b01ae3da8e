//! One attempt: whether the delivery may still be sent, the request, and what it told.

use std::sync::Arc;
use std::time::Duration;

use ringback_core::lane::Signal;
use ringback_core::log::Log;
use ringback_core::record::Reason;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::verdict::Verdict;
use ringback_core::webhook::Webhook;
use ringback_log::directory::STALE_AFTER;
use ringback_telemetry::{Gauge, Histogram};

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
    // DL6: what is sent is sent on configuration that is known to be current.
    shared.fresh().await;
    let started = shared.now();
    let webhook = match sendable(shared, &job, started) {
        Ok(webhook) => webhook,
        Err(parking) if may_be_news(&job, &parking, started) => {
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
    match shared
        .transport
        .send(&webhook, &job.delivery, job.body(), started)
        .await
    {
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

/// Whether this was asked for so lately (a replay, a test) that its webhook may have been resumed,
/// enabled or made since we last looked. It is put off once, to the shortest rung.
fn may_be_news(job: &Job, parking: &Parking, now: Timestamp) -> bool {
    let reason = matches!(
        parking.reason,
        Reason::Removed | Reason::Paused | Reason::Disabled
    );
    let age = now.since(job.delivery.accepted);
    reason && job.work.owned.role == Role::Replay && age <= STALE_AFTER
}

/// The webhook as it is configured now, or why nothing may be sent to it.
fn sendable<L: Log, T: Transport>(
    shared: &Shared<L, T>,
    job: &Job,
    now: Timestamp,
) -> Result<Arc<Webhook>, Parking> {
    let directory = shared.directory.read();
    let Some(webhook) = directory.webhook_by_id(job.delivery.webhook) else {
        return Err(Parking::because(Reason::Removed));
    };
    // Only a corrupt record can say so, and one tenant's event must not become another's.
    let owner = &job.delivery.event.tenant;
    if webhook.tenant != *owner {
        let detail = format!("the event is of tenant {owner}, but its webhook is not");
        return Err(Parking {
            reason: Reason::Undeliverable,
            detail: Some(detail),
        });
    }
    if !webhook.enabled {
        return Err(Parking::because(Reason::Paused));
    }
    if directory.is_disabled(webhook) {
        return Err(Parking::because(Reason::Disabled));
    }
    if shared.schedule.expired(job.delivery.began(), now) {
        return Err(Parking::because(Reason::Expired));
    }
    Ok(webhook.clone())
}
