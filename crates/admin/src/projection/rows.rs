//! What is kept of a record.

use std::collections::HashMap;

use ringback_core::erasure::about;
use ringback_core::event::TenantId;
use ringback_core::log::{Offset, Record};
use ringback_core::record::{Attempt, DELIVERED, Reason, decode_delivery, header};
use ringback_core::redaction::Redaction;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::verdict::Outcome;
use uuid::Uuid;

use super::erasing::Erasing;
use super::slice::Slice;
use crate::parked::{parked_view, reason_of, redact};

/// Bits of a row's key that are the offset; the others are the partition.
const OFFSET_BITS: u32 = 44;

/// Outcomes without a status, see [`ringback_core::verdict::Outcome::label`].
pub(crate) const LABELS: [&str; 8] = [
    "timeout", "refused", "reset", "dns", "resolver", "proxy", "tls", "protocol",
];

/// [`AttemptRow::code`] of the first label; statuses are below.
const FIRST_LABEL: i64 = 1000;

/// What is counted apart of a minute.
pub(crate) const CLASSES: [&str; 7] = [
    "delivered",
    "client_error",
    "server_error",
    "other_status",
    "timeout",
    "connection",
    "ours",
];

/// Upper bounds of durations that are counted together, in milliseconds; the last has none.
pub(crate) const BOUNDS_MS: [u64; 8] = [50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Topics that are projected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Topic {
    Attempts,
    Parked,
    Replay,
}

impl Topic {
    pub(crate) const ALL: [Self; 3] = [Self::Attempts, Self::Parked, Self::Replay];

    pub(crate) fn role(self) -> Role {
        match self {
            Self::Attempts => Role::Attempts,
            Self::Parked => Role::Parked,
            Self::Replay => Role::Replay,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Parked => "parked",
            Self::Replay => "replay",
        }
    }
}

/// Where a record is, in one number that orders a partition.
pub(crate) fn row_id(partition: u32, offset: Offset) -> i64 {
    (i64::from(partition) << OFFSET_BITS) | (offset & ((1 << OFFSET_BITS) - 1))
}

/// The partition and the offset again.
pub(crate) fn place(id: i64) -> (u32, Offset) {
    let partition = u32::try_from(id >> OFFSET_BITS).unwrap_or(0);
    (partition, id & ((1 << OFFSET_BITS) - 1))
}

/// What every row begins with.
pub(crate) struct Head {
    pub(crate) id: i64,
    pub(crate) appended: i64,
    pub(crate) webhook: Uuid,
    pub(crate) event: Uuid,
    pub(crate) tenant: String,
}

impl Head {
    fn new(record: &Record<'_>, webhook: Uuid, event: Uuid, tenant: &TenantId) -> Self {
        Self {
            id: row_id(record.partition.index, record.offset),
            appended: record.appended.as_micros(),
            webhook,
            event,
            tenant: tenant.to_string(),
        }
    }
}

pub(crate) struct AttemptRow {
    pub(crate) head: Head,
    pub(crate) failed: bool,
    pub(crate) code: i64,
    pub(crate) stands_for: i64,
    pub(crate) record: String,
}

pub(crate) struct ParkedRow {
    pub(crate) head: Head,
    pub(crate) run: i64,
    pub(crate) reason: String,
    pub(crate) record: String,
}

pub(crate) struct ReplayRow {
    pub(crate) head: Head,
    pub(crate) run: i64,
}

/// Attempts of a webhook, a minute and a class.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    pub(crate) n: i64,
    pub(crate) ms: i64,
    pub(crate) buckets: [i64; BOUNDS_MS.len() + 1],
}

impl Tally {
    pub(crate) fn add(&mut self, duration_ms: u64) {
        self.n += 1;
        let duration = i64::try_from(duration_ms).unwrap_or(i64::MAX);
        self.ms = self.ms.saturating_add(duration);
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < duration_ms);
        self.buckets[bucket] += 1;
    }
}

/// How far a partition was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// Where the batch begins; what says otherwise was written before.
    pub(crate) from: Offset,
    pub(crate) next: Offset,
    /// Since the last batch.
    pub(crate) lost: i64,
    pub(crate) unreadable: i64,
}

/// What is not shown, and so not kept.
pub(crate) struct Hidden<'a> {
    pub(crate) erased: &'a Erasing,
    pub(crate) redaction: &'a Redaction,
}

/// What is written to a slice in one transaction.
pub(crate) struct Batch {
    pub(crate) slice: Slice,
    pub(crate) attempts: Vec<AttemptRow>,
    pub(crate) parked: Vec<ParkedRow>,
    pub(crate) replays: Vec<ReplayRow>,
    /// By webhook, minute and class.
    pub(crate) minutes: HashMap<(Uuid, i64, usize), Tally>,
    pub(crate) parked_counts: HashMap<(Uuid, String), i64>,
    /// By replay, and whether it failed.
    pub(crate) replayed: HashMap<(Uuid, bool), i64>,
    pub(crate) positions: HashMap<(Topic, u32), Position>,
    /// Successes that were only counted.
    pub(crate) left_out: u64,
}

impl Batch {
    pub(crate) fn new(slice: Slice) -> Self {
        Self {
            slice,
            attempts: Vec::new(),
            parked: Vec::new(),
            replays: Vec::new(),
            minutes: HashMap::new(),
            parked_counts: HashMap::new(),
            replayed: HashMap::new(),
            positions: HashMap::new(),
            left_out: 0,
        }
    }

    /// Takes a record up. `sample` says, of a success, how many it stands for, or that it is only
    /// counted. Whether the record could be read.
    pub(crate) fn take(
        &mut self,
        topic: Topic,
        record: &Record<'_>,
        hidden: &Hidden<'_>,
        sample: impl FnOnce(bool) -> Option<i64>,
    ) -> bool {
        match topic {
            Topic::Attempts => self.take_attempt(record, hidden, sample),
            Topic::Parked => self.take_parked(record, hidden),
            Topic::Replay => self.take_replay(record, hidden.erased),
        }
        .is_some()
    }

    fn take_attempt(
        &mut self,
        record: &Record<'_>,
        hidden: &Hidden<'_>,
        sample: impl FnOnce(bool) -> Option<i64>,
    ) -> Option<()> {
        let text = std::str::from_utf8(record.value?).ok()?;
        let mut attempt: Attempt = serde_json::from_str(text).ok()?;
        (record.key? == attempt.webhook.as_hyphenated().to_string().as_bytes()).then_some(())?;
        let failed = attempt.next != DELIVERED;
        let minute = record.appended.as_secs().div_euclid(60);
        self.minutes
            .entry((attempt.webhook, minute, class_of(&attempt)))
            .or_default()
            .add(attempt.duration_ms);
        // What became of a late one, whoever owns the partition now says.
        if let (Some(replay), false, false) = (attempt.replay, failed, attempt.late) {
            *self.replayed.entry((replay, false)).or_default() += 1;
        }
        let subject = attempt.subject.as_ref();
        let erased = hidden.erased;
        if erased.covers(&attempt.tenant, subject, record.appended) {
            return Some(());
        }
        match sample(failed) {
            None => self.left_out += 1,
            Some(stands_for) => self.attempts.push(AttemptRow {
                head: Head::new(record, attempt.webhook, attempt.event, &attempt.tenant),
                failed,
                code: code_of(attempt.status, &attempt.outcome),
                stands_for,
                record: match hidden.redaction.is_empty() {
                    true => text.to_owned(),
                    false => {
                        hidden.redaction.attempt(&mut attempt);
                        serde_json::to_string(&attempt).ok()?
                    }
                },
            }),
        }
        Some(())
    }

    fn take_parked(&mut self, record: &Record<'_>, hidden: &Hidden<'_>) -> Option<()> {
        let delivery = decode_delivery(record).ok()?;
        (record.key? == delivery.webhook.as_hyphenated().to_string().as_bytes()).then_some(())?;
        let reason = reason_of(record).map_or("", Reason::as_str).to_owned();
        let count = self.parked_counts.entry((delivery.webhook, reason.clone()));
        *count.or_default() += 1;
        if let Some(replay) = delivery.replay {
            *self.replayed.entry((replay, true)).or_default() += 1;
        }
        let event = &delivery.event;
        let erased = hidden.erased;
        if erased.covers(&event.tenant, event.subject.as_ref(), record.appended) {
            return Some(());
        }
        let mut view = parked_view(record, &delivery);
        // Its subject stays: erasures find it by that.
        redact(hidden.redaction, &mut view, &["detail"]);
        self.parked.push(ParkedRow {
            head: Head::new(record, delivery.webhook, event.id, &event.tenant),
            run: i64::from(delivery.run),
            reason,
            record: view.to_string(),
        });
        Some(())
    }

    /// Only who and which run: the rest may be large, and is in the log.
    fn take_replay(&mut self, record: &Record<'_>, erased: &Erasing) -> Option<()> {
        let text = |name| std::str::from_utf8(record.header(name)?).ok();
        let (tenant, subject) = about(record)?;
        if erased.covers(&tenant, subject.as_ref(), record.appended) {
            return Some(());
        }
        let webhook = Uuid::try_parse(text(header::WEBHOOK)?).ok()?;
        let event = Uuid::try_parse(text(header::ID)?).ok()?;
        self.replays.push(ReplayRow {
            head: Head::new(record, webhook, event, &tenant),
            run: text(header::RUN)?.parse().ok().map(|run: u32| run.into())?,
        });
        Some(())
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows_by_table().iter().map(|(_, rows)| rows).sum()
    }

    pub(crate) fn rows_by_table(&self) -> [(&'static str, usize); 3] {
        [
            ("attempts", self.attempts.len()),
            ("parked", self.parked.len()),
            ("replays", self.replays.len()),
        ]
    }
}

/// The number under which an outcome is found.
pub(crate) fn code_of(status: Option<u16>, label: &str) -> i64 {
    let label = || LABELS.iter().position(|known| *known == label);
    match status {
        Some(status) => status.into(),
        None => FIRST_LABEL + label().and_then(|at| i64::try_from(at).ok()).unwrap_or(999),
    }
}

fn class_of(attempt: &Attempt) -> usize {
    match (attempt.status, attempt.outcome.as_str()) {
        _ if attempt.next == DELIVERED => 0,
        (Some(400..=499), _) => 1,
        (Some(500..=599), _) => 2,
        (Some(_), _) => 3,
        (None, "timeout") => 4,
        (None, label) if Outcome::is_ours(label) => 6,
        (None, _) => 5,
    }
}

/// The minute's first moment.
pub(crate) fn minute_start(minute: i64) -> Timestamp {
    Timestamp::from_micros(minute.saturating_mul(60_000_000))
}
