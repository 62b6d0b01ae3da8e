//! One attempt: whether the delivery may still be sent, the request, and what it told.

use std::time::Duration;

use ringback_core::lane::Signal;
use ringback_core::log::Log;
use ringback_core::record::Reason;
use ringback_core::sendable::{may_be_news, sendable};
use ringback_core::verdict::Verdict;
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
