//! Carries records over, a piece at a time; a piece is over when all of it is acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log, LogError, Offset,
    Reader, Record,
};
use ringback_core::record::HeaderBuf;
use ringback_core::time::Clock;
use ringback_core::topics::{Partition, Role, TopicId};

use super::waiting::Place;
use super::{Environment, Kind, MoveError, Progress};

/// Records of a piece, at most.
const PIECE: usize = 500;
/// How long the target may take nothing at all before the move ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may take beyond that: only a broken engine lets us wait so long.
const ANSWER: Duration = Duration::from_secs(90);
/// How long to wait before what failed is handed over again.
const BACKOFF: Duration = Duration::from_millis(100);

/// Which of a piece, and what became of it.
type Ended = (Offset, Result<Appended, AppendError>);

/// Hands the target's word to the move.
struct Answers(SyncSender<Ended>);

impl Completion for Answers {
    type Token = Offset;

    fn done(&self, offset: Offset, result: Result<Appended, AppendError>) {
        // There is room for a whole piece; a move that has ended needs no answer.
        let _ = self.0.try_send((offset, result));
    }
}

/// Moves records of the source to the target.
pub(super) struct Carrier<'a, S: Log, T: Log> {
    source: &'a S,
    reader: S::Reader,
    appender: T::Appender<Answers>,
    answers: Receiver<Ended>,
    pub(super) progress: Progress,
    keep: &'a mut dyn FnMut(&Progress) -> Result<(), MoveError>,
    pub(super) clock: Clock,
}

impl<'a, S: Log, T: Log> Carrier<'a, S, T> {
    pub(super) fn new(
        source: &'a S,
        target: &'a T,
        environment: Environment<'a>,
    ) -> Result<Self, LogError> {
        let (sender, answers) = sync_channel(PIECE);
        Ok(Self {
            source,
            reader: source.reader()?,
            appender: target.appender(AppenderOptions::default(), Answers(sender))?,
            answers,
            progress: environment.progress,
            keep: environment.keep,
            clock: environment.clock,
        })
    }

    pub(super) fn keep(&mut self) -> Result<(), MoveError> {
        (self.keep)(&self.progress)
    }

    pub(super) fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
        self.reader.bounds(partition)
    }

    /// Counted anew at each attempt: configuration is compared, not appended blindly.
    pub(super) fn count_configuration(&mut self, role: Role, count: u64) {
        let topics = self.source.topics();
        if let Some(topic) = topics.find(role) {
            let name = topics.spec(topic).name.clone();
            self.progress.moved.entry(name).or_default().kept = count;
        }
    }

    /// Carries what `choose` gives a place to, of these offsets of a partition.
    pub(super) fn carry(
        &mut self,
        kind: Kind,
        from: Partition,
        range: Range<Offset>,
        mut choose: impl FnMut(&Record<'_>) -> Option<Place>,
    ) -> Result<(), MoveError> {
        let name = self.source.topics().spec(from.topic).name.clone();
        let begun = self.progress.next(kind, &name, from);
        let mut at = begun.unwrap_or(range.start).max(range.start);
        while at < range.end {
            let end = range.end.min(at.saturating_add(PIECE as Offset));
            let count = self.piece(from, at..end, &mut choose)?;
            self.progress.note(kind, &name, from, end, count);
            self.keep()?;
            at = end;
        }
        Ok(())
    }

    /// Hands a piece over until all of it is acknowledged; how many records that were.
    fn piece(
        &mut self,
        from: Partition,
        range: Range<Offset>,
        choose: &mut impl FnMut(&Record<'_>) -> Option<Place>,
    ) -> Result<u64, MoveError> {
        let carried = self.until_acknowledged(|reader, appender, piece| {
            reader.read(from, range.clone(), &mut |record| {
                if piece.wants(record.offset)
                    && let Some(place) = choose(&record)
                {
                    piece.handed(record.offset, append(appender, &record, place));
                }
            })
        });
        carried.map_err(|stuck| match stuck {
            Stuck::Log(error) => error.into(),
            Stuck::Append(offset, error) => MoveError::Append {
                topic: self.source.topics().spec(from.topic).full_name.clone(),
                partition: from.index,
                offset,
                reason: error.to_string(),
            },
        })
    }

    /// Writes records of a compacted topic, the newest of each key.
    pub(super) fn append_compacted(
        &mut self,
        topic: TopicId,
        records: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), MoveError> {
        let all: Vec<_> = records.iter().collect();
        for some in all.chunks(PIECE) {
            let written = self.until_acknowledged(|_, appender, piece| {
                for (index, (key, value)) in (0..).zip(some) {
                    if piece.wants(index) {
                        let record = Append {
                            topic,
                            key: Some(key),
                            headers: &[],
                            value: Some(value),
                        };
                        let ended = appender.append(record, index);
                        piece.handed(index, ended.map_err(|(_, error)| error));
                    }
                }
                Ok(())
            });
            written.map_err(|stuck| match stuck {
                Stuck::Log(error) => error.into(),
                Stuck::Append(_, error) => {
                    MoveError::Target(format!("writing to a compacted topic: {error}"))
                }
            })?;
        }
        Ok(())
    }

    /// Blocking: calls `hand_over` until everything it wants to hand over is acknowledged. What failed
    /// may be there all the same: then there are two of it.
    fn until_acknowledged(
        &mut self,
        mut hand_over: impl FnMut(
            &mut S::Reader,
            &T::Appender<Answers>,
            &mut Piece,
        ) -> Result<(), LogError>,
    ) -> Result<u64, Stuck> {
        let mut piece = Piece::default();
        let mut patience = Instant::now() + PATIENCE;
        loop {
            let before = piece.done.len();
            piece.handed = 0;
            hand_over(&mut self.reader, &self.appender, &mut piece).map_err(Stuck::Log)?;
            piece.wait(&self.answers)?;
            let Some((offset, error)) = piece.failed.take() else {
                return Ok(piece.done.len() as u64);
            };
            match piece.done.len() > before {
                true => patience = Instant::now() + PATIENCE,
                false => std::thread::park_timeout(BACKOFF),
            }
            if matches!(error, AppendError::Refused { .. }) || Instant::now() > patience {
                return Err(Stuck::Append(offset, error));
            }
        }
    }
}

/// Why a piece cannot be carried.
enum Stuck {
    Log(LogError),
    Append(Offset, AppendError),
}

/// What became of the records of a piece.
#[derive(Default)]
struct Piece {
    /// Acknowledged.
    done: HashSet<Offset>,
    /// Handed over in this round.
    handed: usize,
    /// One that failed in this round; nothing more is handed over when the queue was full.
    failed: Option<(Offset, AppendError)>,
}

impl Piece {
    fn wants(&self, offset: Offset) -> bool {
        let is_full = matches!(self.failed, Some((_, AppendError::QueueFull)));
        !is_full && !self.done.contains(&offset)
    }

    fn handed(&mut self, offset: Offset, result: Result<(), AppendError>) {
        match result {
            Ok(()) => self.handed += 1,
            Err(error) => self.failed = Some((offset, error)),
        }
    }

    /// Blocking: waits for everything that was handed over in this round.
    fn wait(&mut self, answers: &Receiver<Ended>) -> Result<(), Stuck> {
        for _ in 0..self.handed {
            match answers.recv_timeout(ANSWER) {
                Ok((offset, Ok(_))) => {
                    self.done.insert(offset);
                }
                Ok((offset, Err(error))) => self.failed = Some((offset, error)),
                // Late answers would be taken for those of another piece.
                Err(_) => {
                    let reason = "the log does not say what became of a record; try again";
                    let error = LogError::permanent("moving records", reason);
                    return Err(Stuck::Log(error));
                }
            }
        }
        Ok(())
    }
}

/// Hands one record over.
fn append<A: Appender<Answers>>(
    appender: &A,
    record: &Record<'_>,
    place: Place,
) -> Result<(), AppendError> {
    let mut buf = HeaderBuf::default();
    let (headers, value) = match &place.event {
        None => (record.headers.to_vec(), record.value),
        Some(event) => {
            buf.push_event(event);
            (buf.headers(), Some(event.data.as_ref()))
        }
    };
    let copy = Append {
        topic: place.topic,
        key: record.key,
        headers: &headers,
        value,
    };
    let ended = appender.append(copy, record.offset);
    ended.map_err(|(_, error)| error)
}
