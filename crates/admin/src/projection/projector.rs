//! Reads `attempts`, `parked` and `replay` and writes what is shown of them. It is a reader of the log,
//! nothing else: nobody waits for it.

use std::collections::HashMap;
use std::time::Duration;

use ringback_core::log::{Log, LogError, Offset, Reader};
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;

use super::engine::{Session, StoreError};
use super::rows::{Batch, Position, Topic};
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
    swept: Option<Duration>,
    /// When `as_of` was written last.
    heartbeat: Duration,
}

impl<R: Reader> Projector<R> {
    pub(crate) fn new<L: Log<Reader = R>>(
        projection: Projection,
        log: &L,
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
        Ok(Self::of(projection, log.reader()?, partitions))
    }

    /// Of these partitions.
    pub(crate) fn of(
        projection: Projection,
        reader: R,
        partitions: Vec<(Topic, Partition)>,
    ) -> Self {
        let sampling = Sampling::new(projection.config().full_rate);
        Self {
            projection,
            reader,
            partitions,
            session: None,
            next: None,
            told: Told::default(),
            current: None,
            open: None,
            sampling,
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
                (self.open, self.next) = (None, None);
                match failure {
                    Failure::Log(error) => (Turn::Failed, Some(error), None),
                    Failure::Store(error) => {
                        self.session = None;
                        (Turn::Failed, None, Some(error))
                    }
                }
            }
        };
        let done = rebuild && store_error.is_none() && turn != Turn::Standby;
        let told = self.told.clone();
        self.projection
            .end(turn, told, log_error, store_error, done);
        turn
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
            let found = write::positions(session)?;
            self.told.set(&found);
            return Ok(Turn::Standby);
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
        let (mut more, mut behind) = (false, 0);
        for at in 0..self.partitions.len() {
            let left = self.read(session, at, began)?;
            more |= left > 0;
            behind += u64::try_from(left).unwrap_or(0);
        }
        self.flush(session, began, more)?;
        self.told.behind = behind;
        Ok(if more { Turn::More } else { Turn::AtEnd })
    }

    fn drop_all(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
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
        now: Timestamp,
    ) -> Result<Offset, Failure> {
        let (topic, partition) = self.partitions[at];
        let key = (topic, partition.index);
        let bounds = self.reader.bounds(partition)?;
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
        if lost > 0 {
            let (topic, partition) = (topic.name(), partition.index);
            tracing::warn!(
                topic,
                partition,
                lost,
                "retention dropped records before they were projected"
            );
        }
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
                let read = batch.take(topic, &record, |failed| sampling.keep(second, failed));
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
        for (key, position) in &batch.positions {
            next.insert(*key, position.next);
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
