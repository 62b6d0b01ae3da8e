//! `…/webhooks/{webhook}/replay`: parked deliveries are sent again, as a new run with the same event.
//!
//! Memory is bounded however much is parked: the parked partition is gone through in pieces, of which
//! only events and offsets are remembered, and the deliveries are read again a few at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::catalogue::{Class, class_of};
use ringback_core::log::{Append, AppendError, Appender, Log, LogError, Offset, Reader, Record};
use ringback_core::record::{Delivery, HeaderBuf, Reason, decode_delivery, header};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_log::batch::{Acknowledgement, Batch};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::parked::{event_and_run, find_reason, raise_runs, reason_of};
use crate::problem::Problem;
use crate::request::Body;
use crate::state::{Admin, AdminState, key_of};

/// Offsets of `parked` in one piece.
const PIECE: Offset = 50_000;
/// Offsets read at a time where only events and runs are remembered.
const WINDOW: Offset = 4096;
/// Offsets read at a time where whole deliveries are: at most 16 MiB of data.
const DELIVERIES: Offset = 64;
/// After how long a request ends with a cursor; the next one goes on there.
const WITHIN: Duration = Duration::from_secs(10);

/// What to replay. Filters add up; without any, `all` must be said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayForm {
    event: Option<Uuid>,
    since: Option<Timestamp>,
    reason: Option<String>,
    #[serde(default)]
    all: bool,
    /// Whether states (presence, queue status) go along: old ones may mislead more than they help.
    #[serde(default = "yes")]
    states: bool,
    #[serde(default)]
    dry_run: bool,
    cursor: Option<String>,
}

fn yes() -> bool {
    true
}

struct Filter {
    states: bool,
    event: Option<Uuid>,
    since: Option<Timestamp>,
    reason: Option<Reason>,
}

/// What a request did.
#[derive(Default)]
struct Counts {
    /// Parked deliveries that the filter wants.
    selected: u64,
    /// Of these, acknowledged by the log as a new run.
    replayed: u64,
    /// Of these, with a later run already.
    already_replayed: u64,
    /// Of these, not readable any more.
    unreadable: u64,
}

impl Counts {
    fn add_to(&self, problem: Problem) -> Problem {
        problem
            .with("selected", self.selected)
            .with("replayed", self.replayed)
            .with("already_replayed", self.already_replayed)
    }
}

pub(crate) async fn replay<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Body(form): Body<ReplayForm>,
) -> Result<Json<Value>, Problem> {
    let filter = Filter {
        states: form.states,
        event: form.event,
        since: form.since,
        reason: form.reason.as_deref().map(find_reason).transpose()?,
    };
    let filtered = form.event.is_some() || form.since.is_some() || form.reason.is_some();
    if !filtered && !form.all {
        let detail = "say what to replay: \"event\", \"since\", \"reason\", or \"all\": true";
        return Err(Problem::invalid("nothing_selected", detail));
    }
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value;
            let _alone = Alone::begin(admin, webhook.id)?;
            let range = form.cursor.as_deref().map(parse_cursor).transpose()?;
            let (counts, cursor) = Replay::new(admin, webhook.id, form.dry_run)?.run(&filter, range)?;
            let Counts { selected, replayed, already_replayed, unreadable } = counts;
            tracing::info!(webhook = %webhook.id, selected, replayed, dry_run = form.dry_run, "replay");
            Ok(Json(json!({
                "selected": selected,
                "replayed": replayed,
                "already_replayed": already_replayed,
                "unreadable": unreadable,
                "dry_run": form.dry_run,
                "enabled": webhook.enabled,
                "disabled": admin.directory()?.is_disabled(&webhook),
                "cursor": cursor,
            })))
        })
        .await
}

/// The only replay of a webhook, as long as it lives.
struct Alone<'a, L: Log> {
    admin: &'a Admin<L>,
    webhook: Uuid,
}

impl<'a, L: Log> Alone<'a, L> {
    fn begin(admin: &'a Admin<L>, webhook: Uuid) -> Result<Self, Problem> {
        if !admin.replaying.lock().insert(webhook) {
            let detail = "this webhook is being replayed already; wait for that replay to end";
            return Err(Problem::conflict("replay_running", detail));
        }
        Ok(Self { admin, webhook })
    }
}

impl<L: Log> Drop for Alone<'_, L> {
    fn drop(&mut self) {
        self.admin.replaying.lock().remove(&self.webhook);
    }
}

struct Replay<'a, L: Log> {
    admin: &'a Admin<L>,
    reader: L::Reader,
    key: String,
    parked: Partition,
    replays: Partition,
    topic: TopicId,
    dry_run: bool,
    counts: Counts,
}

/// The deliveries of a piece that the filter wants: where the highest run of each event is.
type Selection = HashMap<Uuid, (u32, Offset)>;

impl<'a, L: Log> Replay<'a, L> {
    fn new(admin: &'a Admin<L>, webhook: Uuid, dry_run: bool) -> Result<Self, Problem> {
        Ok(Self {
            admin,
            reader: admin.log.reader()?,
            key: key_of(webhook),
            parked: admin.partition(Role::Parked, webhook)?,
            replays: admin.partition(Role::Replay, webhook)?,
            topic: admin.topic(Role::Replay)?,
            dry_run,
            counts: Counts::default(),
        })
    }

    /// Blocking: goes through what is parked. The cursor says where to go on, if the time was over.
    ///
    /// The end is that of the first request: what is parked again in the meantime is not replayed
    /// again, or a receiver that refuses at once would keep this going for ever.
    fn run(
        mut self,
        filter: &Filter,
        range: Option<Range<Offset>>,
    ) -> Result<(Counts, Option<String>), Problem> {
        let until = self.admin.clock.steady() + WITHIN;
        let bounds = self.reader.bounds(self.parked)?;
        let range = range.unwrap_or_else(|| bounds.clone());
        let end = range.end.min(bounds.end);
        let mut from = range.start.max(bounds.start);
        while from < end {
            let to = end.min(from.saturating_add(PIECE));
            let done = self
                .select(filter, from..to)
                .and_then(|selection| self.send(selection));
            done.map_err(|problem| self.counts.add_to(problem))?;
            from = to;
            if self.admin.clock.steady() > until && from < end {
                return Ok((self.counts, Some(format!("{from}-{end}"))));
            }
        }
        Ok((self.counts, None))
    }

    /// Finds what the filter wants in a piece of `parked`, without what was replayed before.
    fn select(&mut self, filter: &Filter, piece: Range<Offset>) -> Result<Selection, Problem> {
        let Self {
            reader,
            key,
            counts,
            ..
        } = self;
        // Crashes leave several traces of one delivery, so runs are counted once.
        let mut wanted: HashMap<(Uuid, u32), Offset> = HashMap::new();
        let mut oldest = None::<Timestamp>;
        in_windows(reader, self.parked, piece, &mut |record| {
            if record.key != Some(key.as_bytes()) || !filter.wants(&record) {
                return;
            }
            match event_and_run(&record) {
                Some(found) if filter.event.is_none_or(|event| event == found.0) => {
                    wanted.insert(found, record.offset);
                    let earlier = oldest.map_or(record.appended, |time| time.min(record.appended));
                    oldest = Some(earlier);
                }
                Some(_) => {}
                None => counts.unreadable += 1,
            }
        })?;
        counts.selected += wanted.len() as u64;
        let mut highest: HashMap<Uuid, u32> = HashMap::new();
        for (event, run) in wanted.keys() {
            let highest = highest.entry(*event).or_default();
            *highest = run.max(highest).to_owned();
        }
        if let Some(oldest) = oldest {
            // All of it, whatever it costs: what is overlooked would be sent twice.
            raise_runs(reader, self.replays, key, oldest, u64::MAX, &mut highest)?;
        }
        let mut selection = Selection::new();
        for ((event, run), offset) in wanted {
            if highest.get(&event) == Some(&run) {
                selection.insert(event, (run, offset));
            } else {
                counts.already_replayed += 1;
            }
        }
        Ok(selection)
    }

    /// Appends a new run of everything selected.
    fn send(&mut self, selection: Selection) -> Result<(), Problem> {
        if self.dry_run {
            return Ok(());
        }
        let mut offsets: Vec<_> = selection.into_values().map(|(_, offset)| offset).collect();
        offsets.sort_unstable();
        let mut batch = Batch::new(&self.admin.appender);
        let sent = send_in_order(
            &mut self.reader,
            self.parked,
            &offsets,
            &mut self.counts.unreadable,
            &mut |delivery| append(&mut batch, self.topic, &self.key, &delivery),
            self.admin,
        );
        // Whatever happened, what is on its way is waited for and counted.
        let finished = batch.finish();
        self.counts.replayed += batch.acknowledged();
        sent?;
        finished.map(|_| ()).map_err(not_acknowledged)
    }
}

/// Reads the deliveries at these offsets, a few at a time, and hands over their next runs.
fn send_in_order<L: Log>(
    reader: &mut L::Reader,
    parked: Partition,
    mut offsets: &[Offset],
    unreadable: &mut u64,
    send: &mut dyn FnMut(Delivery) -> Result<(), AppendError>,
    admin: &Admin<L>,
) -> Result<(), Problem> {
    while let Some(&first) = offsets.first() {
        let end = first.saturating_add(DELIVERIES);
        let (now, later) = offsets.split_at(offsets.partition_point(|offset| *offset < end));
        offsets = later;
        let last = now.last().copied().unwrap_or(first);
        let mut deliveries = Vec::new();
        reader.read(parked, first..last + 1, &mut |record| {
            if now.binary_search(&record.offset).is_ok() {
                match decode_delivery(&record) {
                    Ok(delivery) => deliveries.push(delivery),
                    Err(_) => *unreadable += 1,
                }
            }
        })?;
        for delivery in deliveries {
            send(next_run(delivery, admin.clock.now())).map_err(not_acknowledged)?;
        }
    }
    Ok(())
}

impl Filter {
    fn wants(&self, record: &Record<'_>) -> bool {
        self.since.is_none_or(|since| record.appended >= since)
            && (self.reason.is_none() || self.reason == reason_of(record))
            && (self.states || !is_state(record))
    }
}

/// Whether a record holds an event that says how something is, rather than what happened.
fn is_state(record: &Record<'_>) -> bool {
    let name = record
        .header(header::TYPE)
        .and_then(|name| std::str::from_utf8(name).ok());
    name.is_some_and(|name| class_of(name) == Class::State)
}

/// The same event to the same webhook, with a new ladder (contract R13).
fn next_run(parked: Delivery, now: Timestamp) -> Delivery {
    Delivery {
        event: Arc::clone(&parked.event),
        webhook: parked.webhook,
        attempt: 0,
        run: parked.run.saturating_add(1),
        accepted: now,
        deferrals: 0,
    }
}

/// Appends a delivery to `replay`.
pub(crate) fn append<A: Appender<Acknowledgement>>(
    batch: &mut Batch<'_, A>,
    topic: TopicId,
    key: &str,
    delivery: &Delivery,
) -> Result<(), AppendError> {
    let mut buf = HeaderBuf::default();
    buf.push_delivery(delivery);
    batch.append(Append {
        topic,
        key: Some(key.as_bytes()),
        headers: &buf.headers(),
        value: Some(&delivery.event.data),
    })
}

/// The problem of an append that the log did not acknowledge.
pub(crate) fn not_acknowledged(error: AppendError) -> Problem {
    let detail = format!("{error}; what is not acknowledged can be asked for again");
    Problem::unavailable("log_unavailable", detail)
}

fn in_windows(
    reader: &mut impl Reader,
    partition: Partition,
    range: Range<Offset>,
    handler: &mut dyn FnMut(Record<'_>),
) -> Result<(), LogError> {
    let mut from = range.start;
    while from < range.end {
        let to = range.end.min(from.saturating_add(WINDOW));
        reader.read(partition, from..to, handler)?;
        from = to;
    }
    Ok(())
}

fn parse_cursor(text: &str) -> Result<Range<Offset>, Problem> {
    let parts = text
        .split_once('-')
        .and_then(|(from, end)| Some(from.parse::<Offset>().ok()?..end.parse::<Offset>().ok()?));
    parts.filter(|range| range.start >= 0).ok_or_else(|| {
        let detail = "the cursor is not one of ours; leave it out to begin anew";
        Problem::invalid("invalid_cursor", detail)
    })
}
