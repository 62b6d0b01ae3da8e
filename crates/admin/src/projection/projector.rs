//! Reads `attempts`, `parked` and `replay` and writes what is shown of them. It is a reader of the log,
//! nothing else: nobody waits for it.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use ringback_core::log::{Log, LogError, Offset, Reader};
use ringback_core::redaction::Redaction;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role};
use ringback_telemetry::{Counter, Gauge, Metrics};

use super::engine::{GONE, Session, StoreError};
use super::erasing::Erasing;
use super::rows::{Batch, Hidden, Position, Topic};
use super::sampling::Sampling;
use super::slice::Slice;
use super::write::{self, Positions, Written};
use super::{Projection, Told};

/// Offsets that are read of a partition in one turn. A parked record has its event's data, which is
/// read and left.
const ATTEMPTS: Offset = 4096;
const OTHERS: Offset = 256;
/// Rows of a transaction, about.
const BATCH_ROWS: usize = 8192;
/// How often old slices are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How often others are told how far everything is, when nothing else is written.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What comes after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// There is more to read.
    More,
    /// Everything was read.
    AtEnd,
    /// Another process projects.
    Standby,
    /// It did not work; another try may.
    Failed,
}

enum Failure {
    Log(LogError),
    Store(StoreError),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Turns belong on a thread of their own.
pub(crate) struct Projector<R: Reader> {
    projection: Projection,
    pub(crate) metrics: Metrics,
    /// When this was made.
    began: Timestamp,
    reader: R,
    partitions: Vec<(Topic, Partition)>,
    session: Option<Box<dyn Session>>,
    /// What the database has. `None`: it is to be asked.
    next: Option<HashMap<(Topic, u32), Offset>>,
    told: Told,
    /// The slice that has all positions.
    current: Option<Slice>,
    open: Option<Batch>,
    sampling: Sampling,
    erasing: Erasing,
    redaction: Redaction,
    swept: Option<Duration>,
    /// When `as_of` was written last.
    heartbeat: Duration,
}

impl<R: Reader> Projector<R> {
    pub(crate) fn new<L: Log<Reader = R>>(
        projection: Projection,
        log: &L,
        metrics: Metrics,
    ) -> Result<Self, LogError> {
        let mut partitions = Vec::new();
        for topic in Topic::ALL {
            let Some(id) = log.topics().find(topic.role()) else {
                let doing = format!("finding the topic {}", topic.name());
                return Err(LogError::permanent(
                    doing,
                    "it is not in the table of topics",
                ));
            };
            partitions.extend(log.topics().partitions(id).map(|part| (topic, part)));
        }
        let erasures = log.topics().find(Role::Erasures);
        let erasures = erasures.and_then(|topic| log.topics().partitions(topic).next());
        let reader = log.reader()?;
        let projector = Self::of(projection, reader, partitions, erasures);
        Ok(Self {
            metrics,
            ..projector
        })
    }

    /// Of these partitions; erasures are in that one.
    pub(crate) fn of(
        projection: Projection,
        reader: R,
        partitions: Vec<(Topic, Partition)>,
        erasures: Option<Partition>,
    ) -> Self {
        let sampling = Sampling::new(projection.config().full_rate);
        let redaction = projection.config().redaction.clone();
        Self {
            began: projection.now(),
            projection,
            metrics: Metrics::new(),
            reader,
            partitions,
            session: None,
            next: None,
            told: Told::default(),
            current: None,
            open: None,
            sampling,
            erasing: Erasing::new(erasures),
            redaction,
            swept: None,
            heartbeat: Duration::ZERO,
        }
    }

    /// Blocking: reads a piece of every partition and writes it.
    pub(crate) fn turn(&mut self) -> Turn {
        let rebuild = self.projection.begin();
        let (turn, log_error, store_error) = match self.work(rebuild) {
            Ok(turn) => (turn, None, None),
            Err(failure) => {
                // What is open is read again.
                (self.open, self.next, self.current) = (None, None, None);
                match failure {
                    Failure::Log(error) => (Turn::Failed, Some(error), None),
                    Failure::Store(error) => {
                        self.session = None;
                        (Turn::Failed, None, Some(error))
                    }
                }
            }
        };
        self.measure(turn, log_error.is_some(), store_error.is_some());
        let done = rebuild && store_error.is_none() && turn != Turn::Standby;
        let told = self.told.clone();
        self.projection
            .end(turn, told, log_error, store_error, done);
        turn
    }

    fn measure(&self, turn: Turn, log_failed: bool, store_failed: bool) {
        for (what, failed) in [("log", log_failed), ("database", store_failed)] {
            self.metrics
                .add(Counter::ProjectionErrors, &[what], failed.into());
        }
        let age = self.projection.now();
        let age = age.since(self.told.as_of.unwrap_or(self.began));
        let age = age.as_secs_f64();
        self.metrics.set(Gauge::ProjectionAge, &[], age);
        // What fails does not know it.
        match turn {
            Turn::Failed => {}
            Turn::Standby => self.metrics.set(Gauge::ProjectionLag, &[], 0.0),
            Turn::More | Turn::AtEnd => {
                let behind = self.told.behind as f64;
                self.metrics.set(Gauge::ProjectionLag, &[], behind);
            }
        }
    }

    fn work(&mut self, rebuild: bool) -> Result<Turn, Failure> {
        let began = self.projection.now();
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.projection.database().open()?,
        };
        let turn = self.work_with(session.as_mut(), began, rebuild)?;
        self.session = Some(session);
        Ok(turn)
    }

    fn work_with(
        &mut self,
        session: &mut dyn Session,
        began: Timestamp,
        rebuild: bool,
    ) -> Result<Turn, Failure> {
        if !session.lead()? {
            (self.next, self.current) = (None, None);
            self.erasing.apply_again();
            let found = write::positions(session)?;
            self.told.set(&found);
            return Ok(Turn::Standby);
        }
        if let Some(current) = self.current
            && !session.slices()?.contains(&current)
        {
            self.told = Told::default();
            let doing = format!("looking for slice {current}");
            return Err(StoreError::new(doing, GONE).into());
        }
        if rebuild {
            self.drop_all(session)?;
        }
        if self.next.is_none() {
            let mut found = write::positions(session)?;
            // Positions in another log mean nothing in this one.
            if found.logs.iter().any(|log| log != self.projection.log()) {
                self.drop_all(session)?;
                found = Positions::default();
            }
            self.told.set(&found);
            self.next = Some(found.next);
            self.current = None;
        }
        self.sweep(session, began)?;
        self.erasing.read(&mut self.reader)?;
        self.erasing.apply(session)?;
        let (mut more, mut behind) = (false, 0);
        let all: Vec<_> = self.partitions.iter().map(|(_, each)| *each).collect();
        let bounds = self.reader.all_bounds(&all)?;
        for (at, bounds) in bounds.into_iter().enumerate() {
            let left = self.read(session, at, bounds, began)?;
            more |= left > 0;
            behind += u64::try_from(left).unwrap_or(0);
        }
        self.flush(session, began, more)?;
        self.told.behind = behind;
        Ok(if more { Turn::More } else { Turn::AtEnd })
    }

    fn drop_all(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        // Nobody takes what is left of it for all there is.
        self.projection.forget();
        let all = session.slices()?;
        session.drop_slices(&all)?;
        (self.next, self.current) = (None, None);
        self.told = Told::default();
        tracing::info!("the projection is built anew from the log");
        Ok(())
    }

    /// Reads a piece of a partition, and writes when there is enough. How many offsets are left.
    fn read(
        &mut self,
        session: &mut dyn Session,
        at: usize,
        bounds: Range<Offset>,
        now: Timestamp,
    ) -> Result<Offset, Failure> {
        let (topic, partition) = self.partitions[at];
        let key = (topic, partition.index);
        let known = self.next.as_ref().and_then(|next| next.get(&key)).copied();
        if known.is_some_and(|known| known > bounds.end) {
            let doing = format!("projecting {}/{}", topic.name(), partition.index);
            let reason = format!(
                "the log ends at {}, before what was read already: it is another log, or has lost \
                 records; build the projection anew with: ringback projection rebuild",
                bounds.end
            );
            return Err(StoreError::new(doing, reason).into());
        }
        let start = known.unwrap_or(bounds.start).max(bounds.start);
        let lost = known.map_or(0, |known| start - known);
        let piece = match topic {
            Topic::Attempts => ATTEMPTS,
            Topic::Parked | Topic::Replay => OTHERS,
        };
        let end = bounds.end.min(start.saturating_add(piece));
        let mut position = Position {
            from: known.unwrap_or(start),
            next: start,
            lost,
            unreadable: 0,
        };
        let config = self.projection.config();
        let (length, oldest) = (config.slice, now - config.retention);
        let (open, sampling) = (&mut self.open, &mut self.sampling);
        let hidden = Hidden {
            erased: &self.erasing,
            redaction: &self.redaction,
        };
        let mut full = Vec::new();
        if start < end {
            self.reader.read(partition, start..end, &mut |record| {
                let slice = Slice::of(record.appended, length);
                if slice.start() + length <= oldest {
                    return;
                }
                if open.as_ref().is_none_or(|open| open.slice != slice)
                    && let Some(mut before) = open.replace(Batch::new(slice))
                {
                    position.next = record.offset;
                    before.positions.insert(key, position);
                    position = Position {
                        from: record.offset,
                        next: record.offset,
                        lost: 0,
                        unreadable: 0,
                    };
                    full.push(before);
                }
                let Some(batch) = open else { return };
                let second = record.appended.as_secs();
                let read = batch.take(topic, &record, &hidden, |failed| {
                    sampling.keep(second, failed)
                });
                position.unreadable += i64::from(!read);
            })?;
        }
        position.next = end;
        for batch in full {
            self.write(session, batch, None)?;
        }
        if position.next > position.from {
            let slice = Slice::of(now, length);
            let open = self.open.get_or_insert_with(|| Batch::new(slice));
            open.positions.insert(key, position);
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.rows() >= BATCH_ROWS)
            && let Some(batch) = self.open.take()
        {
            self.write(session, batch, None)?;
        }
        Ok(bounds.end - end)
    }

    /// Writes what is open. At the end of everything it says so.
    fn flush(
        &mut self,
        session: &mut dyn Session,
        began: Timestamp,
        more: bool,
    ) -> Result<(), StoreError> {
        let as_of = Some(began).filter(|_| !more);
        let steady = self.projection.steady();
        let is_due = self.projection.database().is_shared()
            && as_of.is_some()
            && steady.saturating_sub(self.heartbeat) >= HEARTBEAT;
        let open = match self.open.take() {
            None if is_due => Some(Batch::new(Slice::of(began, self.projection.config().slice))),
            open => open,
        };
        if let Some(batch) = open {
            self.write(session, batch, as_of)?;
            self.heartbeat = steady;
        }
        self.told.as_of = as_of.or(self.told.as_of);
        Ok(())
    }

    fn write(
        &mut self,
        session: &mut dyn Session,
        mut batch: Batch,
        as_of: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let next = self.next.get_or_insert_default();
        if self.current != Some(batch.slice) {
            // Older slices will be dropped, and what they know with them.
            for (key, next) in &*next {
                batch.positions.entry(*key).or_insert(Position {
                    from: *next,
                    next: *next,
                    lost: 0,
                    unreadable: 0,
                });
            }
        }
        match write::write(session, &batch, self.projection.log(), as_of)? {
            Written::Now => {}
            Written::Before => {
                let doing = format!("writing to slice {}", batch.slice);
                let reason = "it was written before, or by another process; it is read again";
                return Err(StoreError::new(doing, reason));
            }
        }
        self.current = Some(batch.slice);
        for (table, rows) in batch.rows_by_table() {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            self.metrics.add(Counter::ProjectionRows, &[table], rows);
        }
        let left_out = batch.left_out;
        self.metrics
            .add(Counter::ProjectionSampledOut, &[], left_out);
        for (key, position) in &batch.positions {
            next.insert(*key, position.next);
            if position.lost > 0 {
                let ((topic, partition), lost) = (key, position.lost);
                let count = u64::try_from(lost).unwrap_or(0);
                self.metrics.add(Counter::ProjectionLost, &[], count);
                let topic = topic.name();
                tracing::warn!(
                    topic,
                    partition,
                    lost,
                    "retention dropped records before they were projected"
                );
            }
            self.told.lost += u64::try_from(position.lost).unwrap_or(0);
            self.told.unreadable += u64::try_from(position.unreadable).unwrap_or(0);
        }
        Ok(())
    }

    /// Drops slices that are older than the retention.
    fn sweep(&mut self, session: &mut dyn Session, now: Timestamp) -> Result<(), StoreError> {
        let steady = self.projection.steady();
        if self
            .swept
            .is_some_and(|swept| steady.saturating_sub(swept) < SWEEP)
        {
            return Ok(());
        }
        let config = self.projection.config();
        let (length, oldest) = (config.slice, now - config.retention);
        let mut old = session.slices()?;
        old.retain(|slice| slice.start() + length <= oldest);
        if !old.is_empty() {
            // They may be the only ones that know how far everything is.
            self.current = None;
            self.write(session, Batch::new(Slice::of(now, length)), None)?;
            session.drop_slices(&old)?;
            tracing::info!(slices = old.len(), "dropped slices of the projection");
        }
        self.swept = Some(steady);
        Ok(())
    }
}
