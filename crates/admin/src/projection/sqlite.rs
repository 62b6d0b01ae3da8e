//! SQLite: a file per slice, so that dropping one unlinks a file.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, Transaction, TransactionBehavior};

use super::engine::{
    Database, GONE, MIGRATIONS, Rows, Session, Statements, StoreError, Value, Work,
};
use super::slice::Slice;

/// `Rbpj`: marks a file as ours (`PRAGMA application_id`).
const APPLICATION: i64 = 0x5262_706a;
/// How many slices a session keeps open: around midnight records of two days alternate.
const OPEN_MAX: usize = 2;
/// How much of a file is mapped instead of copied.
const MMAP_BYTES: i64 = 256 << 20;
/// After how long somebody else's lock is an error.
const BUSY_MS: u32 = 2000;

/// A directory of slices.
#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    dir: PathBuf,
}

impl Sqlite {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, slice: Slice) -> PathBuf {
        self.dir.join(format!("{slice}.sqlite"))
    }
}

impl Database for Sqlite {
    fn open(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(Files {
            files: self.clone(),
            lock: None,
            writing: Vec::new(),
            reading: Vec::new(),
        }))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        format!("SQLite in {}", self.dir.display())
    }
}

/// A session with the files of a directory.
struct Files {
    files: Sqlite,
    /// Held by the one that writes.
    lock: Option<File>,
    writing: Vec<(Slice, Connection)>,
    reading: Vec<(Slice, Connection)>,
}

impl Session for Files {
    fn slices(&mut self) -> Result<Vec<Slice>, StoreError> {
        let dir = &self.files.dir;
        let failed = |error| StoreError::new(format!("listing {}", dir.display()), error);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut slices = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".sqlite"));
            slices.extend(name.and_then(Slice::parse));
        }
        slices.sort_unstable_by(|a, b| b.cmp(a));
        Ok(slices)
    }

    fn lead(&mut self) -> Result<bool, StoreError> {
        let dir = &self.files.dir;
        let path = dir.join("lock");
        if let Some(lock) = &self.lock {
            // What is open in a directory that was removed or replaced is nobody's database any more.
            return match is_at(lock, &path) {
                true => Ok(true),
                false => Err(StoreError::new(doing("looking after", dir), GONE)),
            };
        }
        let failed = |error: io::Error| {
            let reason = format!("{error}: see that the directory is there and may be written to");
            StoreError::new(doing("locking", dir), reason)
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn write(&mut self, slice: Slice, work: Work<'_>) -> Result<(), StoreError> {
        let path = self.files.path(slice);
        // Removed by somebody: what is written to an unlinked file is lost without a word.
        self.writing.retain(|(_, connection)| {
            connection
                .path()
                .is_some_and(|path| Path::new(path).exists())
        });
        let connection = opened(&mut self.writing, slice, || open_for_writing(&path))?;
        let failed = |error| failed("writing", &path, &error);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        work(&mut Writing {
            transaction: &transaction,
            path: &path,
        })?;
        transaction.commit().map_err(failed)
    }

    fn query(&mut self, slice: Slice, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError> {
        let path = self.files.path(slice);
        let asked = opened(&mut self.reading, slice, || open_for_reading(&path))
            .and_then(|connection| query(connection, &path, sql, values));
        match asked {
            // Dropped in the meantime, or not made yet.
            Err(_) if !path.exists() || is_fresh(&path) => {
                self.reading.retain(|(open, _)| *open != slice);
                Ok(Rows::new())
            }
            asked => asked,
        }
    }

    fn drop_slices(&mut self, slices: &[Slice]) -> Result<(), StoreError> {
        for &slice in slices {
            self.writing.retain(|(open, _)| *open != slice);
            self.reading.retain(|(open, _)| *open != slice);
            remove(&self.files.path(slice))?;
        }
        Ok(())
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    let (open, there) = (file.metadata().map(id), fs::metadata(path).map(id));
    matches!((open, there), (Ok(open), Ok(there)) if open == there)
}

/// A connection of these, opened when there is none; the one that waited longest goes for it.
fn opened(
    connections: &mut Vec<(Slice, Connection)>,
    slice: Slice,
    open: impl FnOnce() -> Result<Connection, StoreError>,
) -> Result<&mut Connection, StoreError> {
    let at = match connections.iter().position(|(open, _)| *open == slice) {
        Some(at) => at,
        None => {
            let connection = open()?;
            if connections.len() >= OPEN_MAX {
                connections.remove(0);
            }
            connections.push((slice, connection));
            connections.len() - 1
        }
    };
    Ok(&mut connections[at].1)
}

struct Writing<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
}

impl Statements for Writing<'_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<(), StoreError> {
        let run = || {
            let mut statement = self.transaction.prepare_cached(&words(sql))?;
            statement.execute(rusqlite::params_from_iter(values))
        };
        run()
            .map(|_| ())
            .map_err(|error| failed("writing", self.path, &error))
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError> {
        query(self.transaction, self.path, sql, values)
    }
}

fn query(
    connection: &Connection,
    path: &Path,
    sql: &str,
    values: &[Value<'_>],
) -> Result<Rows, StoreError> {
    let run = || {
        let mut statement = connection.prepare_cached(&words(sql))?;
        let columns = statement.column_count();
        let mut found = statement.query(rusqlite::params_from_iter(values))?;
        let mut rows = Rows::new();
        while let Some(row) = found.next()? {
            let values = (0..columns).map(|column| row.get_ref(column).map(owned));
            rows.push(values.collect::<Result<_, _>>()?);
        }
        Ok(rows)
    };
    run().map_err(|error| failed("reading", path, &error))
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

fn owned(value: ValueRef<'_>) -> Value<'static> {
    match value {
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Blob(bytes) => Value::Bytes(Cow::Owned(bytes.to_owned())),
        ValueRef::Text(bytes) => {
            Value::Text(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
        }
        ValueRef::Null | ValueRef::Real(_) => Value::Int(0),
    }
}

/// In SQLite's words.
fn words(sql: &str) -> String {
    sql.replace('$', "?")
        .replace('@', "")
        .replace("ROWKEY", "INTEGER PRIMARY KEY")
        .replace("BYTES", "BLOB")
}

fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        // What a crash left of an earlier one must not be taken for this one's.
        remove(path)?;
    }
    let open = || {
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        // FULL, although everything could be read again: the position in a later slice must not be on
        // the disk before the records of an earlier one. What is temporary needs no place on a disk, which a
        // container with a read-only root has not got.
        connection.execute_batch(&format!(
            "PRAGMA busy_timeout = {BUSY_MS};
             PRAGMA temp_store = MEMORY;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -65536;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA wal_autocheckpoint = 4000;"
        ))?;
        let version = migrate(&mut connection)?;
        Ok((connection, version))
    };
    match open() {
        Ok((connection, None)) => {
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        }
        Ok((_, Some(problem))) => Err(StoreError::new(doing("opening", path), problem)),
        Err(error) => Err(failed("opening", path, &error)),
    }
}

/// Makes a file what this program knows, or says why that cannot be.
fn migrate(connection: &mut Connection) -> rusqlite::Result<Option<String>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |sql| transaction.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let version = number("PRAGMA user_version")?;
    if application != APPLICATION && tables > 0 {
        let problem = "this is no slice of ours; give the projection a directory of its own";
        return Ok(Some(problem.to_owned()));
    }
    let Some(missing) = usize::try_from(version)
        .ok()
        .and_then(|done| MIGRATIONS.get(done..))
    else {
        return Ok(Some(format!(
            "it has version {version}, this program knows version {}; use the program that wrote \
             it, or move the directory away: it is built anew from the log",
            MIGRATIONS.len()
        )));
    };
    for migration in missing {
        transaction.execute_batch(&words(migration))?;
    }
    if !missing.is_empty() {
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {};",
            MIGRATIONS.len()
        ))?;
    }
    transaction.commit()?;
    Ok(None)
}

fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        // Read and write for SQLite, because even readers of a WAL file write to its index.
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.execute_batch(&format!(
            "PRAGMA busy_timeout = {BUSY_MS};
             PRAGMA temp_store = MEMORY;
             PRAGMA query_only = ON;
             PRAGMA mmap_size = {MMAP_BYTES};"
        ))?;
        Ok(connection)
    };
    open().map_err(|error| failed("opening", path, &error))
}

/// Whether its first transaction is still to come.
fn is_fresh(path: &Path) -> bool {
    let version = open_for_reading(path).ok().and_then(|connection| {
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        connection.query_row("PRAGMA user_version", [], read).ok()
    });
    version == Some(0)
}

/// Removes a slice: first the file itself, so that nobody opens it any more.
fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let doing = format!("removing {}", name.display());
                return Err(StoreError::new(doing, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn failed(what: &str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ": the file is damaged; remove its directory, it is built anew from the log"
        }
        Some(ErrorCode::DiskFull) => ": free some space",
        // Its index is mapped into memory, and has no code of its own for it.
        Some(ErrorCode::SystemIoFailure) => ": see that the disk works and is not full",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ": another program has it locked; end that program"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ": see that the directory is there and may be written to"
        }
        _ => "",
    };
    StoreError::new(doing(what, path), format!("{error}{advice}"))
}

fn doing(what: &str, path: &Path) -> String {
    format!("{what} {}", path.display())
}

#[cfg(test)]
mod tests {
    use ringback_core::time::Timestamp;

    use super::*;

    /// What a full disk is to SQLite: a file that may not grow.
    #[test]
    fn a_full_disk_is_told_and_takes_nothing_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let slice = Slice::of(Timestamp::EPOCH, std::time::Duration::from_secs(86_400));
        let mut files = Files {
            files: Sqlite::new(dir.path()),
            lock: None,
            writing: Vec::new(),
            reading: Vec::new(),
        };
        assert!(files.lead().unwrap());
        let write = |files: &mut Files, rows: std::ops::Range<i64>| {
            files.write(slice, &mut |statements| {
                for row in rows.clone() {
                    let sql = "INSERT INTO parked_counts@ (webhook, reason, n) VALUES ($1, $2, $3)";
                    let values = [
                        Value::Bytes(row.to_be_bytes().to_vec().into()),
                        Value::Text("x".repeat(1000).into()),
                        Value::Int(row),
                    ];
                    statements.execute(sql, &values)?;
                }
                Ok(())
            })
        };
        write(&mut files, 0..10).unwrap();
        let limit = |files: &Files, pages: u32| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            files.writing[0].1.execute_batch(&sql).unwrap();
        };
        limit(&files, 40);
        let error = write(&mut files, 10..1000).unwrap_err();
        assert!(error.reason.contains("free some space"), "{error}");
        let count = |files: &mut Files| {
            let rows = files.query(slice, "SELECT count(*) FROM parked_counts@", &[]);
            rows.unwrap()[0][0].int()
        };
        assert_eq!(count(&mut files), 10);
        limit(&files, 1_000_000);
        write(&mut files, 10..1000).unwrap();
        assert_eq!(count(&mut files), 1000);
    }
}
