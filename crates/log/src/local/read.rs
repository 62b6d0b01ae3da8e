//! Reading a partition across its slices, through connections that never block the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringback_core::log::{LogError, Offset, Record};
use ringback_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::state::{PartitionState, Slice, State};
use super::{codec, file};

/// Files that a reader keeps open: the active ones of each retention, and some of a backlog.
const OPEN_MAX: usize = 8;

/// The read connections of one consumer, follower or reader.
pub(super) struct Reads {
    state: Arc<State>,
    meta: Option<Connection>,
    /// The last one was used last.
    slices: Vec<(Arc<Slice>, Connection)>,
    drops: u64,
}

impl Reads {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            meta: None,
            slices: Vec::new(),
            drops: 0,
        }
    }

    /// Lets go of files that retention has removed; their space is free only then.
    pub(super) fn refresh(&mut self) {
        let drops = self.state.drops.load(Ordering::Acquire);
        if std::mem::replace(&mut self.drops, drops) != drops {
            self.slices
                .retain(|(slice, _)| !slice.dropped.load(Ordering::Acquire));
        }
    }

    /// Hands over at most `max` records of a slot with offsets from `from` to before `to`, and moves
    /// `from` behind them. Fewer than `max` means that there were no more when it looked.
    pub(super) fn read(
        &mut self,
        slot: usize,
        from: &mut Offset,
        to: Offset,
        max: usize,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<usize, LogError> {
        let state = self.state.clone();
        let partition = &state.partitions[slot];
        if *from >= partition.end() {
            return Ok(0);
        }
        if partition.compacted {
            let connection = self.meta()?;
            return rows(connection, partition, from, to, max, handler)
                .map_err(|error| file::failed("reading", &state.meta, error));
        }
        let mut count = 0;
        while count < max && *from < partition.end() {
            let Some((segment, next)) = partition.segment(*from) else {
                break;
            };
            *from = (*from).max(segment.first);
            let until = next.map_or(to, |next| next.min(to));
            if *from >= until {
                break;
            }
            let read = self
                .slice(&segment.slice)
                .and_then(|slice| rows(slice, partition, from, until, max - count, handler));
            match read {
                Ok(read) => {
                    let all = read < max - count;
                    count += read;
                    match next {
                        Some(next) if all && next < to => *from = (*from).max(next),
                        _ if all => break,
                        _ => {}
                    }
                }
                // Retention was quicker; the index knows what is left.
                Err(_) if segment.slice.dropped.load(Ordering::Acquire) => self.refresh(),
                Err(error) => return Err(file::failed("reading", &segment.slice.path, error)),
            }
        }
        Ok(count)
    }

    pub(super) fn meta(&mut self) -> Result<&Connection, LogError> {
        match &mut self.meta {
            Some(connection) => Ok(connection),
            none => {
                let connection = file::open_for_reading(&self.state.meta)
                    .map_err(|error| file::failed("opening", &self.state.meta, error))?;
                Ok(none.insert(connection))
            }
        }
    }

    fn slice(&mut self, slice: &Arc<Slice>) -> rusqlite::Result<&Connection> {
        let known = self
            .slices
            .iter()
            .position(|(open, _)| open.number == slice.number);
        let entry = match known {
            Some(index) => self.slices.remove(index),
            None => {
                if self.slices.len() >= OPEN_MAX {
                    self.slices.remove(0);
                }
                (slice.clone(), file::open_for_reading(&slice.path)?)
            }
        };
        Ok(&self.slices.push_mut(entry).1)
    }
}

fn rows(
    connection: &Connection,
    partition: &PartitionState,
    from: &mut Offset,
    to: Offset,
    max: usize,
    handler: &mut dyn FnMut(Record<'_>),
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(&partition.sql.select)?;
    let mut rows = statement.query(params![*from, to, i64::try_from(max).unwrap_or(i64::MAX)])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let offset = row.get(0)?;
        let headers = row.get_ref(3)?.as_blob()?;
        let headers = codec::decode(headers).ok_or_else(|| {
            rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(format!(
                    "the headers of offset {offset} of {}",
                    partition.sql.table
                )),
            )
        })?;
        handler(Record {
            partition: partition.partition,
            offset,
            appended: Timestamp::from_micros(row.get(1)?),
            key: row.get_ref(2)?.as_blob_or_null()?,
            headers: &headers,
            value: row.get_ref(4)?.as_blob_or_null()?,
        });
        *from = offset + 1;
        count += 1;
    }
    Ok(count)
}
