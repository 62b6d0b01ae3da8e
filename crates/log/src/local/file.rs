//! One SQLite file: how it is made, opened and recognised.

use std::path::Path;

use ringback_core::log::LogError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// `Rblg`: marks a file as ours (`PRAGMA application_id`).
const APPLICATION: i32 = 0x5262_6c67;
/// Version of the tables (`PRAGMA user_version`).
const VERSION: i32 = 1;
/// How much of a file a reader maps instead of copying.
const MMAP_BYTES: i64 = 256 << 20;

/// What an existing file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Ours, of this version.
    Ours,
    /// Empty: its creator did not get as far as the first commit.
    Fresh,
}

/// Opens a file for writing, creating it when it is not there, and says what it is.
pub(super) fn open(path: &Path) -> Result<(Connection, Kind), LogError> {
    let fail = |error| failed("opening", path, error);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(fail)?;
    let number = |sql| {
        connection
            .query_row(sql, [], |row| row.get::<_, i32>(0))
            .map_err(fail)
    };
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let kind = match (application, version) {
        (APPLICATION, VERSION) => Kind::Ours,
        (0, 0) if tables == 0 => Kind::Fresh,
        (APPLICATION, other) => {
            return Err(LogError::permanent(
                doing("opening", path),
                format!(
                    "the file has version {other}, this program knows version {VERSION}; use the \
                     program that wrote it, or move the directory away to start empty"
                ),
            ));
        }
        _ => {
            return Err(LogError::permanent(
                doing("opening", path),
                "this is not a file of the local log; give the log a directory of its own",
            ));
        }
    };
    // FULL: a commit returns when it is on the disk, not when it is on its way there. What is temporary
    // needs no place on a disk, which a container with a read-only root has not got.
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 5000;
             PRAGMA temp_store = MEMORY;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 1000;",
        )
        .map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(512);
    Ok((connection, kind))
}

/// Opens an existing file for reading.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    // Read and write for SQLite, because even readers of a WAL file write to its index;
    // `query_only` keeps us from more than that.
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.execute_batch(&format!(
        "PRAGMA busy_timeout = 5000;
         PRAGMA query_only = ON;
         PRAGMA mmap_size = {MMAP_BYTES};"
    ))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes a fresh file ours: marks it and creates its tables, in one transaction.
pub(super) fn initialise(connection: &Connection, tables: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {VERSION};
         {tables}
         COMMIT;"
    ))
}

/// An error of SQLite on this file.
pub(super) fn failed(what: &str, path: &Path, error: rusqlite::Error) -> LogError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LogError::permanent(
            doing(what, path),
            format!(
                "{error}: the file is damaged; restore it from a backup, or move it away (with its \
                 -wal and -shm) to go on without its records"
            ),
        ),
        Some(ErrorCode::DiskFull) => {
            LogError::retriable(doing(what, path), format!("{error}: free some space"))
        }
        _ => LogError::retriable(doing(what, path), error),
    }
}

fn doing(what: &str, path: &Path) -> String {
    format!("{what} {}", path.display())
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes the creation or removal of files in this directory durable.
pub(super) fn sync_directory(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}
