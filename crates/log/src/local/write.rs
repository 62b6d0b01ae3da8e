//! One transaction: what the writer does to a file, all or nothing.

use ringback_core::log::{Offset, Revision, WriteError};
use ringback_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::codec;
use super::inbox::CompareAndSet;
use super::queue::Waiting;
use super::state::{PartitionState, State};

/// The slots that a transaction appends to: slot, first new offset, end.
#[derive(Default)]
pub(super) struct Touched(pub(super) Vec<(usize, Offset, Offset)>);

impl Touched {
    /// The offset of the next record, and whether it is the first one for its partition.
    pub(super) fn next(&mut self, slot: usize, partition: &PartitionState) -> (Offset, bool) {
        // Few at a time, and mostly the same ones in turn: a search beats a map.
        if let Some((_, _, end)) = self.0.iter_mut().find(|(touched, ..)| *touched == slot) {
            *end += 1;
            return (*end - 1, false);
        }
        let first = partition.end();
        self.0.push((slot, first, first + 1));
        (first, true)
    }
}

/// Runs `work` and commits it. On an error everything is undone; the second value says whether the
/// connection is usable then.
pub(super) fn in_transaction(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), (rusqlite::Error, bool)> {
    let run = |sql| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
    };
    let written = run("BEGIN IMMEDIATE")
        .and_then(|_| work(connection))
        .and_then(|()| run("COMMIT"));
    match written {
        Ok(_) => Ok(()),
        Err(error) => {
            // Some errors have rolled back already.
            if !connection.is_autocommit() {
                let _ = run("ROLLBACK");
            }
            Err((error, connection.is_autocommit()))
        }
    }
}

pub(super) fn insert(
    connection: &Connection,
    partition: &PartitionState,
    offset: Offset,
    at: Timestamp,
    record: &Waiting,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&partition.sql.insert)?
        .execute(params![
            offset,
            at.as_micros(),
            record.key(),
            record.headers(),
            record.value()
        ])
        .map(|_| ())
}

pub(super) fn remove_key(
    connection: &Connection,
    partition: &PartitionState,
    key: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&partition.sql.delete_key)?
        .execute([key])
        .map(|_| ())
}

/// The revision of what is there now.
pub(super) fn current(
    connection: &Connection,
    state: &State,
    set: &CompareAndSet,
) -> rusqlite::Result<Option<Revision>> {
    connection
        .prepare_cached(&state.partitions[set.slot].sql.find_key)?
        .query_row([set.key.as_bytes()], |row| row.get(0).map(Revision))
        .optional()
}

pub(super) fn compare_and_set(
    connection: &Connection,
    state: &State,
    set: &CompareAndSet,
    at: Timestamp,
    touched: &mut Touched,
) -> rusqlite::Result<Result<Revision, WriteError>> {
    let partition = &state.partitions[set.slot];
    let key = set.key.as_bytes();
    let current = current(connection, state, set)?;
    if current != set.expected {
        return Ok(Err(WriteError::Conflict { current }));
    }
    remove_key(connection, partition, key)?;
    let (offset, _) = touched.next(set.slot, partition);
    let mut headers = Vec::new();
    codec::encode(&[], &mut headers);
    connection
        .prepare_cached(&partition.sql.insert)?
        .execute(params![
            offset,
            at.as_micros(),
            key,
            headers,
            set.value.as_deref()
        ])?;
    Ok(Ok(Revision(offset)))
}
