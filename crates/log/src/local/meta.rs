//! The `meta` file: which topics exist, what groups have committed, the compacted topics, and the
//! ends of partitions whose slices may be gone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use ringback_core::log::{Committed, LogError, Offset};
use ringback_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::file::{self, Kind};
use super::state::{PartitionState, StoredTopic};

const TABLES: &str = r#"
    CREATE TABLE topics (
        name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, retention_ms INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE ends (partition TEXT PRIMARY KEY, "end" INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE positions (
        member_group TEXT NOT NULL, partition TEXT NOT NULL, "offset" INTEGER NOT NULL,
        metadata TEXT NOT NULL, PRIMARY KEY (member_group, partition)
    ) WITHOUT ROWID;
"#;

/// How long a removal stays readable for those who follow; Kafka's `delete.retention.ms`.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(86_400);

/// The file, open for writing.
pub(super) struct Meta {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Meta {
    pub(super) fn open(path: PathBuf) -> Result<Self, LogError> {
        let (connection, kind) = file::open(&path)?;
        let meta = Self { connection, path };
        if kind == Kind::Fresh {
            file::initialise(&meta.connection, TABLES).map_err(|e| meta.failed("creating", e))?;
        }
        Ok(meta)
    }

    pub(super) fn failed(&self, what: &str, error: rusqlite::Error) -> LogError {
        file::failed(what, &self.path, error)
    }

    /// The topics that exist, by full name.
    pub(super) fn topics(&self) -> Result<HashMap<String, StoredTopic>, LogError> {
        let read = || {
            let mut statement = self.connection.prepare("SELECT * FROM topics")?;
            let rows = statement.query_map([], |row| {
                let retention: Option<i64> = row.get(2)?;
                let stored = StoredTopic {
                    partitions: row.get(1)?,
                    retention: retention.map(millis),
                };
                Ok((row.get(0)?, stored))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed("reading the topics in", error))
    }

    /// Writes a topic down, and makes the tables of its partitions if it is compacted.
    pub(super) fn store_topic<'a>(
        &self,
        name: &str,
        stored: &StoredTopic,
        partitions: impl Iterator<Item = &'a PartitionState>,
    ) -> Result<(), LogError> {
        let write = || {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO topics VALUES (?1, ?2, ?3)",
                params![name, stored.partitions, stored.retention.map(as_millis)],
            )?;
            for partition in partitions.filter(|partition| partition.compacted) {
                transaction.execute_batch(&partition.sql.create)?;
            }
            transaction.commit()
        };
        write().map_err(|error| self.failed(&format!("creating topic {name} in"), error))
    }

    /// The end that was recorded for a partition when its last slice was sealed.
    pub(super) fn recorded_end(&self, partition: &PartitionState) -> Result<Offset, LogError> {
        self.connection
            .prepare_cached(r#"SELECT "end" FROM ends WHERE partition = ?1"#)
            .and_then(|mut statement| {
                statement
                    .query_row([&partition.sql.table], |row| row.get(0))
                    .optional()
            })
            .map(|end| end.unwrap_or(0))
            .map_err(|error| self.failed("reading the ends in", error))
    }

    /// Records the ends of partitions, so that their slices can be dropped without going back to 0.
    pub(super) fn record_ends<'a>(
        &self,
        partitions: impl Iterator<Item = &'a PartitionState>,
    ) -> Result<(), LogError> {
        let write = || {
            let transaction = self.connection.unchecked_transaction()?;
            for partition in partitions {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO ends VALUES (?1, ?2)")?
                    .execute(params![partition.sql.table, partition.end()])?;
            }
            transaction.commit()
        };
        write().map_err(|error| self.failed("recording the ends of partitions in", error))
    }

    /// The next offset of a compacted partition and its newest append time.
    pub(super) fn compacted_end(
        &self,
        partition: &PartitionState,
    ) -> Result<(Offset, Timestamp), LogError> {
        let table = file::quoted(&partition.sql.table);
        let read = || {
            let last: Option<Offset> = self
                .connection
                .query_row(
                    "SELECT seq FROM sqlite_sequence WHERE name = ?1",
                    [&partition.sql.table],
                    |row| row.get(0),
                )
                .optional()?;
            let at: Option<i64> = self
                .connection
                .query_row(
                    &format!(r#"SELECT at FROM {table} ORDER BY "offset" DESC LIMIT 1"#),
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            Ok((
                last.map_or(0, |last| last + 1),
                Timestamp::from_micros(at.unwrap_or(0)),
            ))
        };
        read().map_err(|error| self.failed("reading the compacted topics in", error))
    }

    /// Removes the removals that everybody has seen by now.
    pub(super) fn forget_tombstones(
        &self,
        partition: &PartitionState,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let table = file::quoted(&partition.sql.table);
        self.connection
            .execute(
                &format!("DELETE FROM {table} WHERE value IS NULL AND at < ?1"),
                [(now - TOMBSTONES_KEPT).as_micros()],
            )
            .map(|_| ())
            .map_err(|error| self.failed("compacting", error))
    }
}

/// Writes a position; part of the caller's transaction.
pub(super) fn write_position(
    connection: &Connection,
    group: &str,
    partition: &PartitionState,
    committed: &Committed,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            group,
            partition.sql.table,
            committed.offset,
            committed.metadata
        ])
        .map(|_| ())
}

/// What a group has committed for a partition.
pub(super) fn read_position(
    connection: &Connection,
    group: &str,
    partition: &PartitionState,
) -> rusqlite::Result<Option<Committed>> {
    connection
        .prepare_cached(
            r#"SELECT "offset", metadata FROM positions WHERE member_group = ?1 AND partition = ?2"#,
        )?
        .query_row([group, &partition.sql.table], |row| {
            Ok(Committed {
                offset: row.get(0)?,
                metadata: row.get(1)?,
            })
        })
        .optional()
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn as_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
