//! `…/webhooks/{webhook}/attempts/stream`: attempts as they are made, as server-sent events.
//!
//! It ends with the webhook, with what its reader was let in by, and with the server. A browser then
//! asks again, says which attempt it saw last, and goes on there or is told why it may not.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ringback_core::erasure::Erasures;
use ringback_core::log::{Log, Offset, Reader};
use ringback_core::topics::Role;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use uuid::Uuid;

use crate::access::{self, Access};
use crate::attempts::AttemptView;
use crate::problem::Problem;
use crate::reading::BUDGET;
use crate::state::{Admin, AdminState};
use crate::tail::Told;

/// How often something is said, so that nobody on the way takes the connection for dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How often it is asked whether its reader still may.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// What a reader sends to go on where it was.
const LAST_EVENT_ID: &str = "last-event-id";

/// One reader.
struct Reading<L: Log> {
    state: AdminState<L>,
    tenant: String,
    name: String,
    webhook: Uuid,
    partition: u32,
    access: Access,
    told: mpsc::Receiver<Told>,
    check: tokio::time::Interval,
    said: Instant,
    /// What is said first: that attempts are missing in front.
    gap: bool,
    /// Not told, though the log still has it.
    erased: Erasures,
}

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    access: Access,
    Path((tenant, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (whose, called) = (tenant.clone(), name.clone());
    let last = headers.get(LAST_EVENT_ID).cloned();
    let (webhook, partition, told, gap, erased) = state
        .run(move |admin| {
            let webhook = admin.webhook(&whose, &called)?.value.id;
            let last = last.as_ref().and_then(|last| last.to_str().ok());
            let partition = admin.partition(Role::Attempts, webhook)?;
            let (next, gap) = begin(admin, webhook, last)?;
            let told = admin.tail.subscribe(admin, (webhook, partition), next)?;
            Ok((webhook, partition.index, told, gap, admin.erasures()?))
        })
        .await?;
    let now = Instant::now();
    let mut check = interval_at(now + CHECK_EVERY, CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reading = Reading {
        state,
        tenant,
        name,
        webhook,
        partition,
        access,
        told,
        check,
        said: now,
        gap,
        erased,
    };
    let events = stream::unfold(reading, |mut reading| async move {
        let event = reading.next().await?;
        Some((Ok::<_, Infallible>(event), reading))
    });
    Ok(Sse::new(events).into_response())
}

/// Blocking: the offset to begin at, and whether that leaves attempts out.
fn begin<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    last: Option<&str>,
) -> Result<(Offset, bool), Problem> {
    let partition = admin.partition(Role::Attempts, webhook)?;
    let bounds = admin.log.reader()?.bounds(partition)?;
    let Some(last) = last else {
        return Ok((bounds.end, false));
    };
    let Some(next) = parse_id(last).filter(|(index, _)| *index == partition.index) else {
        return Ok((bounds.end, true));
    };
    let budget = Offset::try_from(BUDGET).unwrap_or(Offset::MAX);
    let oldest = bounds.start.max(bounds.end.saturating_sub(budget));
    match next.1.saturating_add(1) {
        next if (oldest..=bounds.end).contains(&next) => Ok((next, false)),
        _ => Ok((bounds.end, true)),
    }
}

/// Partition and offset of the id of an attempt.
fn parse_id(text: &str) -> Option<(u32, Offset)> {
    let (partition, offset) = text.split_once('-')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

impl<L: Log> Reading<L> {
    /// What to say next; `None` ends it.
    async fn next(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.gap) {
            return Some(Event::default().event("gap").data("{}"));
        }
        let closing = self.state.admin().closing.clone();
        loop {
            tokio::select! {
                () = closing.cancelled() => return None,
                told = self.told.recv() => {
                    let told = told?;
                    let (tenant, subject) = (&told.attempt.tenant, told.attempt.subject.as_ref());
                    if self.erased.cover(tenant, subject, told.appended) {
                        continue;
                    }
                    self.said = Instant::now();
                    let attempt = AttemptView::of((*told.attempt).clone(), &self.state.admin().redaction);
                    let id = format!("{}-{}", self.partition, told.offset);
                    let data = json!(attempt).to_string();
                    return Some(Event::default().event("attempt").id(id).data(data));
                }
                now = self.check.tick() => {
                    if !self.may_read_on() {
                        return None;
                    }
                    if now.duration_since(self.said) >= COMMENT_EVERY {
                        self.said = now;
                        return Some(Event::default().comment("nothing new"));
                    }
                }
            }
        }
    }

    /// Whether who reads still may, and there still is what it reads about. While that is not known, it
    /// goes on.
    fn may_read_on(&self) -> bool {
        let let_in = access::let_in_again(&self.state, &self.access);
        if let_in.is_err_and(|problem| problem.status() == StatusCode::UNAUTHORIZED) {
            return false;
        }
        match self.state.admin().webhook(&self.tenant, &self.name) {
            Ok(webhook) => webhook.value.id == self.webhook,
            Err(problem) => problem.status() != StatusCode::NOT_FOUND,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_places() {
        assert_eq!(parse_id("3-17"), Some((3, 17)));
        for wrong in ["", "3", "3-", "-17", "x-1", "3-17-1"] {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
    }
}
