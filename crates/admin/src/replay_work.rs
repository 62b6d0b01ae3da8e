//! The work of a replay: parked deliveries are read and asked for again, piece by piece, each once.
//!
//! Memory is bounded however much is parked: the parked partition is gone through in pieces, of which
//! only events and offsets are remembered, and the deliveries are read again a few at a time. What was
//! asked for already is looked up in `replay` itself, so that a piece can be begun again by anybody.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use ringback_core::catalogue::{Class, class_of};
use ringback_core::log::{Append, AppendError, Appender, Log, Offset, Reader, Record};
use ringback_core::record::{Delivery, HeaderBuf, Reason, decode_delivery, header};
use ringback_core::replay_job::{JobCounts, JobFilter, ReplayJob};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_core::webhook::Pattern;
use ringback_log::batch::{Acknowledgement, Batch};
use uuid::Uuid;

use crate::parked::{CLOCKS_DIFFER, event_and_run, reason_of};
use crate::problem::Problem;
use crate::state::{Admin, key_of};

/// Offsets of `parked` in one piece.
const PIECE: Offset = 50_000;
/// Offsets read at a time where only events and runs are remembered.
const WINDOW: Offset = 4096;
/// Offsets read at a time where whole deliveries are: at most 16 MiB of data.
const DELIVERIES: Offset = 64;

/// Why work ends before it is done.
pub(crate) enum Stop {
    /// It is not ours any more.
    Lost,
    /// Somebody cancelled it.
    Cancelled,
    /// The process ends, or its time is over.
    Paused,
    /// The log fails.
    Trouble(Problem),
}

impl<E: Into<Problem>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

/// Asked again and again, with what the piece has done so far: whether to go on.
pub(crate) type GoOn<'a> = dyn FnMut(&JobCounts) -> Result<(), Stop> + 'a;

/// What is wanted of what is parked.
struct Filter<'a> {
    wanted: &'a JobFilter,
    events: HashSet<Uuid>,
    name: Option<Pattern>,
}

/// Works through pieces.
pub(crate) struct Pieces<'a, L: Log> {
    admin: &'a Admin<L>,
    reader: L::Reader,
    key: String,
    parked: Partition,
    replays: Partition,
    topic: TopicId,
}

/// The deliveries of a piece that the filter wants: where the highest run of each event is.
type Selection = HashMap<Uuid, (u32, Offset)>;

impl<'a, L: Log> Pieces<'a, L> {
    /// Blocking.
    pub(crate) fn new(admin: &'a Admin<L>, webhook: Uuid) -> Result<Self, Problem> {
        Ok(Self {
            admin,
            reader: admin.log.reader()?,
            key: key_of(webhook),
            parked: admin.partition(Role::Parked, webhook)?,
            replays: admin.partition(Role::Replay, webhook)?,
            topic: admin.topic(Role::Replay)?,
        })
    }

    /// Blocking: the offsets of what is parked now, and the end of what was asked for.
    pub(crate) fn bounds(&mut self) -> Result<(Range<Offset>, Offset), Problem> {
        let parked = self.reader.bounds(self.parked)?;
        Ok((parked, self.reader.bounds(self.replays)?.end))
    }

    /// Blocking: does the next piece of a job; where the one after it begins, and what it did.
    pub(crate) fn next(
        &mut self,
        job: &ReplayJob,
        go_on: &mut GoOn<'_>,
    ) -> Result<(Offset, JobCounts), Stop> {
        let filter = Filter::of(&job.filter);
        let from = job.next.max(self.reader.bounds(self.parked)?.start);
        let to = job.until.min(from.saturating_add(PIECE));
        let mut counts = JobCounts::default();
        if from < to {
            let selection = self.select(&filter, from..to, job, &mut counts, go_on)?;
            if !job.dry_run {
                self.send(job.id, selection, &mut counts, go_on)?;
            }
        }
        Ok((to, counts))
    }

    /// Finds what the filter wants in a piece of `parked`, without what was asked for already.
    fn select(
        &mut self,
        filter: &Filter<'_>,
        piece: Range<Offset>,
        job: &ReplayJob,
        counts: &mut JobCounts,
        go_on: &mut GoOn<'_>,
    ) -> Result<Selection, Stop> {
        // Crashes leave several traces of one delivery, so runs are counted once.
        let mut wanted: HashMap<(Uuid, u32), Offset> = HashMap::new();
        let mut oldest = None::<Timestamp>;
        let erased = self.admin.erasures()?;
        for window in windows(piece) {
            go_on(counts)?;
            let key = self.key.as_bytes();
            self.reader.read(self.parked, window, &mut |record| {
                let is_wanted = record.key == Some(key) && filter.wants(&record);
                if !is_wanted || erased.cover_delivery(&record) {
                    return;
                }
                match event_and_run(&record) {
                    Some(found) if filter.wants_event(found.0) => {
                        wanted.insert(found, record.offset);
                        let earlier =
                            oldest.map_or(record.appended, |time| time.min(record.appended));
                        oldest = Some(earlier);
                    }
                    Some(_) => {}
                    None => counts.unreadable += 1,
                }
            })?;
        }
        counts.found += wanted.len() as u64;
        let mut highest: HashMap<Uuid, Asked> = HashMap::new();
        for (event, run) in wanted.keys() {
            let asked = highest.entry(*event).or_default();
            asked.highest = asked.highest.max(*run);
        }
        if let Some(oldest) = oldest {
            self.look_up(oldest, job.replays_from, &mut highest, &mut || {
                go_on(counts)
            })?;
        }
        let mut selection = Selection::new();
        for ((event, run), offset) in wanted {
            match highest.get(&event) {
                Some(asked) if asked.highest > run => match asked.by_job.contains(&(run + 1)) {
                    true => counts.sent += 1,
                    false => counts.already += 1,
                },
                _ => _ = selection.insert(event, (run, offset)),
            }
        }
        Ok(selection)
    }

    /// Finds the runs of these events in `replay`. All of it since `oldest`, whatever it costs: what is
    /// overlooked would be sent twice.
    fn look_up(
        &mut self,
        oldest: Timestamp,
        replays_from: Offset,
        events: &mut HashMap<Uuid, Asked>,
        go_on: &mut dyn FnMut() -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let bounds = self.reader.bounds(self.replays)?;
        let since = oldest - CLOCKS_DIFFER;
        let mut older = false;
        let mut end = bounds.end;
        while end > bounds.start && !older {
            go_on()?;
            let from = bounds.start.max(end - WINDOW);
            let key = self.key.as_bytes();
            self.reader.read(self.replays, from..end, &mut |record| {
                older |= record.appended < since;
                if record.key == Some(key)
                    && let Some((event, run)) = event_and_run(&record)
                    && let Some(asked) = events.get_mut(&event)
                {
                    asked.highest = asked.highest.max(run);
                    if record.offset >= replays_from {
                        asked.by_job.push(run);
                    }
                }
            })?;
            end = from;
        }
        Ok(())
    }

    /// Asks for a new run of everything selected.
    fn send(
        &mut self,
        job: Uuid,
        selection: Selection,
        counts: &mut JobCounts,
        go_on: &mut GoOn<'_>,
    ) -> Result<(), Stop> {
        let mut offsets: Vec<_> = selection.into_values().map(|(_, offset)| offset).collect();
        offsets.sort_unstable();
        let before = counts.sent;
        let mut batch = Batch::new(&self.admin.appender);
        let mut sent = Ok(());
        let mut offsets = offsets.as_slice();
        while let (Ok(()), Some(&first)) = (&sent, offsets.first()) {
            let end = first.saturating_add(DELIVERIES);
            let (now, later) = offsets.split_at(offsets.partition_point(|offset| *offset < end));
            offsets = later;
            counts.sent = before + batch.acknowledged();
            sent = go_on(counts).and_then(|()| {
                let deliveries = self.read_at(now, &mut counts.unreadable)?;
                for delivery in deliveries {
                    let next = next_run(delivery, job, self.admin.clock.now());
                    append(&mut batch, self.topic, &self.key, &next).map_err(not_acknowledged)?;
                }
                Ok(())
            });
        }
        // Whatever happened, what is on its way is waited for and counted.
        let finished = batch.finish();
        counts.sent = before + batch.acknowledged();
        let told = go_on(counts);
        sent?;
        finished.map_err(not_acknowledged)?;
        told
    }

    /// The deliveries at these offsets, which are close together.
    fn read_at(&mut self, offsets: &[Offset], unreadable: &mut u64) -> Result<Vec<Delivery>, Stop> {
        let mut deliveries = Vec::new();
        let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
            return Ok(deliveries);
        };
        self.reader
            .read(self.parked, first..last + 1, &mut |record| {
                if offsets.binary_search(&record.offset).is_ok() {
                    match decode_delivery(&record) {
                        Ok(delivery) => deliveries.push(delivery),
                        Err(_) => *unreadable += 1,
                    }
                }
            })?;
        Ok(deliveries)
    }
}

/// What was asked for of one event.
#[derive(Default)]
struct Asked {
    /// The highest run that is known.
    highest: u32,
    /// Runs that this job asked for.
    by_job: Vec<u32>,
}

fn windows(range: Range<Offset>) -> impl Iterator<Item = Range<Offset>> {
    let mut from = range.start;
    std::iter::from_fn(move || {
        let window = from..range.end.min(from.saturating_add(WINDOW));
        from = window.end;
        (!window.is_empty()).then_some(window)
    })
}

impl<'a> Filter<'a> {
    fn of(wanted: &'a JobFilter) -> Self {
        Self {
            wanted,
            events: wanted.events.iter().copied().collect(),
            // What does not parse was refused when the job was asked for.
            name: wanted
                .name
                .as_deref()
                .and_then(|name| Pattern::parse(name).ok()),
        }
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        let JobFilter {
            since,
            until,
            reason,
            without_states,
            ..
        } = *self.wanted;
        let name = || std::str::from_utf8(record.header(header::TYPE)?).ok();
        since.is_none_or(|since| record.appended >= since)
            && until.is_none_or(|until| record.appended < until)
            && (reason.is_none() || reason == reason_of(record))
            && (!without_states || name().is_none_or(|name| class_of(name) != Class::State))
            && (self.name.as_ref())
                .is_none_or(|pattern| name().is_some_and(|name| pattern.matches(name)))
    }

    fn wants_event(&self, event: Uuid) -> bool {
        self.events.is_empty() || self.events.contains(&event)
    }
}

/// The same event to the same webhook, with a new ladder (contract R13).
fn next_run(parked: Delivery, job: Uuid, now: Timestamp) -> Delivery {
    Delivery {
        event: Arc::clone(&parked.event),
        webhook: parked.webhook,
        attempt: 0,
        run: parked.run.saturating_add(1),
        accepted: now,
        deferrals: 0,
        replay: Some(job),
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

/// The reason with this name, for a filter.
pub(crate) fn reason_field(name: &str) -> Result<Reason, Problem> {
    Reason::find(name).ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::field(
            "reason",
            format!("the reason is one of {}", names.join(", ")),
        )
    })
}
