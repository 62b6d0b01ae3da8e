//! The slice files: each holds the records of a stretch of time, of topics that are kept equally
//! long. Retention removes whole files, which costs nothing where deleting rows would cost seconds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringback_core::log::{LogError, Offset};
use ringback_core::time::{Timestamp, duration_label};
use ringback_core::topics::Cleanup;
use rusqlite::Connection;

use super::file::{self, Kind};
use super::meta::Meta;
use super::state::{Segment, Slice, State, StoredTopic};

const TABLES: &str = "CREATE TABLE slice (started INTEGER NOT NULL);";

/// A retention is made of this many slices unless the options say otherwise: records are kept for
/// at most 4 % longer than promised, and a week is 28 files.
const SLICES_PER_RETENTION: u32 = 28;
const SLICE_MIN: Duration = Duration::from_secs(60);

/// All slices, as the writer sees them.
pub(super) struct Slices {
    dir: PathBuf,
    state: Arc<State>,
    length: Option<Duration>,
    /// Ascending by number.
    held: Vec<Held>,
    classes: Vec<Class>,
    /// The class of each slot; of compacted ones it means nothing.
    class_of: Vec<usize>,
    next_number: u64,
    /// A file was left without recording the ends of its partitions.
    ends_missing: bool,
}

/// Topics of one retention; they share files.
struct Class {
    retention: Duration,
    active: Option<Active>,
}

/// The slice that is being written.
struct Active {
    number: u64,
    started: Timestamp,
    connection: Connection,
}

struct Held {
    slice: Arc<Slice>,
    /// Append time of its newest record.
    last: Timestamp,
    /// How long the topic that is kept longest is kept.
    keep: Duration,
}

impl Slices {
    /// Opens what is there and restores the partitions' ranges. Also says the newest append time.
    pub(super) fn open(
        dir: PathBuf,
        state: Arc<State>,
        length: Option<Duration>,
        stored: &HashMap<String, StoredTopic>,
        now: Timestamp,
    ) -> Result<(Self, Timestamp), LogError> {
        let mut classes: Vec<Class> = Vec::new();
        let class_of = state
            .partitions
            .iter()
            .map(|partition| {
                let spec = state.topics.spec(partition.partition.topic);
                let Cleanup::Delete { retention } = spec.cleanup else {
                    return 0;
                };
                let known = classes
                    .iter()
                    .position(|class| class.retention == retention);
                known.unwrap_or_else(|| {
                    classes.push(Class {
                        retention,
                        active: None,
                    });
                    classes.len() - 1
                })
            })
            .collect();
        let files = list(&dir)?;
        let next_number = files.last().map_or(1, |(number, ..)| number + 1);
        let mut slices = Self {
            dir,
            state,
            length,
            held: Vec::new(),
            classes,
            class_of,
            next_number,
            ends_missing: true,
        };
        let mut newest = Timestamp::EPOCH;
        for (number, label, path) in files {
            newest = newest.max(slices.restore(number, &label, path, stored, now)?);
        }
        Ok((slices, newest))
    }

    /// The class whose files hold a slot's records.
    pub(super) fn class_of(&self, slot: usize) -> usize {
        self.class_of[slot]
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// The file that records of this class appended at this time go to; turned or made if need be.
    pub(super) fn active(
        &mut self,
        class: usize,
        at: Timestamp,
        meta: &Meta,
    ) -> Result<(&Connection, &Arc<Slice>), LogError> {
        let length = self.length(self.classes[class].retention);
        let over = |active: &Active| at.since(active.started) >= length;
        if self.classes[class].active.as_ref().is_some_and(over) {
            self.seal(class, meta)?;
        }
        if self.classes[class].active.is_none() {
            self.create(class, at)?;
        }
        let active = self.classes[class].active.as_ref();
        let held = active.and_then(|active| {
            self.held
                .iter_mut()
                .rfind(|held| held.slice.number == active.number)
        });
        let (Some(active), Some(held)) = (active, held) else {
            return Err(LogError::permanent(
                "turning a slice",
                "it is not known; please report this",
            ));
        };
        held.last = held.last.max(at);
        Ok((&active.connection, &held.slice))
    }

    /// The file being written, when there is one.
    pub(super) fn current(&self, class: usize) -> Option<(&Connection, &Arc<Slice>)> {
        let active = self.classes[class].active.as_ref()?;
        let held = self
            .held
            .iter()
            .rfind(|held| held.slice.number == active.number)?;
        Some((&active.connection, &held.slice))
    }

    /// Closes a class's connection after an error it does not recover from. The next append opens
    /// a new file.
    pub(super) fn abandon(&mut self, class: usize) {
        self.ends_missing = true;
        self.classes[class].active = None;
    }

    /// Drops the slices whose records are all older than their retention.
    pub(super) fn expire(&mut self, now: Timestamp, meta: &Meta) -> Result<(), LogError> {
        if self.next_expiry().is_none_or(|next| now < next) {
            return Ok(());
        }
        for class in 0..self.classes.len() {
            let Some((_, slice)) = self.current(class) else {
                continue;
            };
            let number = slice.number;
            if self
                .held
                .iter()
                .any(|held| held.slice.number == number && held.expired(now))
            {
                self.seal(class, meta)?;
            }
        }
        let active: Vec<u64> = self
            .classes
            .iter()
            .filter_map(|class| class.active.as_ref().map(|active| active.number))
            .collect();
        let over = |held: &Held| held.expired(now) && !active.contains(&held.slice.number);
        if self.ends_missing && self.held.iter().any(over) {
            self.record_ends(meta)?;
            self.ends_missing = false;
        }
        let (drop, keep) = std::mem::take(&mut self.held).into_iter().partition(over);
        self.held = keep;
        for held in drop {
            self.remove(&held.slice);
        }
        Ok(())
    }

    /// When [`Slices::expire`] has something to do next.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.held.iter().map(|held| held.last + held.keep).min()
    }

    /// Records where every partition ends, so that sealed slices may be dropped.
    fn record_ends(&self, meta: &Meta) -> Result<(), LogError> {
        let written = self
            .state
            .partitions
            .iter()
            .filter(|p| !p.compacted && p.end() > 0);
        meta.record_ends(written)
    }

    fn length(&self, retention: Duration) -> Duration {
        self.length
            .unwrap_or_else(|| (retention / SLICES_PER_RETENTION).max(SLICE_MIN))
    }

    /// Ends the active slice of a class. From here on it may be dropped.
    fn seal(&mut self, class: usize, meta: &Meta) -> Result<(), LogError> {
        self.record_ends(meta)?;
        if let Some(active) = self.classes[class].active.take() {
            // The rest of the WAL goes into the file now or, when somebody reads, when the last
            // connection to it is closed: nothing depends on it.
            let _ = active
                .connection
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        Ok(())
    }

    fn create(&mut self, class: usize, at: Timestamp) -> Result<(), LogError> {
        let retention = self.classes[class].retention;
        let number = self.next_number;
        let name = format!("{}-{number:010}.sqlite", duration_label(retention));
        let path = self.dir.join(name);
        let made = file::open(&path).and_then(|(connection, _)| {
            file::initialise(&connection, TABLES)
                .and_then(|()| {
                    connection.execute("INSERT INTO slice VALUES (?1)", [at.as_micros()])
                })
                .map_err(|error| file::failed("creating", &path, error))?;
            file::sync_directory(&self.dir).map_err(|error| {
                LogError::retriable(format!("creating {}", path.display()), error)
            })?;
            Ok(connection)
        });
        let connection = match made {
            Ok(connection) => connection,
            Err(error) => {
                remove_files(&path);
                return Err(error);
            }
        };
        self.next_number += 1;
        self.held.push(Held {
            slice: Arc::new(Slice {
                number,
                path,
                dropped: AtomicBool::new(false),
            }),
            last: at,
            keep: retention,
        });
        self.classes[class].active = Some(Active {
            number,
            started: at,
            connection,
        });
        Ok(())
    }

    /// Reads an existing file's ranges; says its newest append time.
    fn restore(
        &mut self,
        number: u64,
        label: &str,
        path: PathBuf,
        stored: &HashMap<String, StoredTopic>,
        now: Timestamp,
    ) -> Result<Timestamp, LogError> {
        let (connection, kind) = file::open(&path)?;
        if kind == Kind::Fresh {
            drop(connection);
            remove_files(&path);
            return Ok(Timestamp::EPOCH);
        }
        let fail = |error| file::failed("reading", &path, error);
        let started = connection
            .query_row("SELECT coalesce(max(started), 0) FROM slice", [], |row| {
                row.get(0)
            })
            .map(Timestamp::from_micros)
            .map_err(fail)?;
        let tables = ranges(&connection).map_err(fail)?;
        let slice = Arc::new(Slice {
            number,
            path: path.clone(),
            dropped: AtomicBool::new(false),
        });
        let mut held = Held {
            slice: slice.clone(),
            last: started,
            keep: Duration::ZERO,
        };
        let by_table: HashMap<&str, usize> = self
            .state
            .partitions
            .iter()
            .enumerate()
            .map(|(slot, partition)| (partition.sql.table.as_str(), slot))
            .collect();
        for range in &tables {
            held.last = held.last.max(range.last_at);
            let topic = range.table.rsplit_once('/').map_or("", |(topic, _)| topic);
            let stored = || stored.get(topic).and_then(|stored| stored.retention);
            let keep = self.state.retention(topic).or_else(stored);
            // A topic nobody knows any more: kept for as long as the one kept longest.
            let longest = || self.classes.iter().map(|class| class.retention).max();
            held.keep = held
                .keep
                .max(keep.or_else(longest).unwrap_or(Duration::MAX));
            let Some(slot) = by_table.get(range.table.as_str()) else {
                continue;
            };
            let partition = &self.state.partitions[*slot];
            partition.add_segment(Segment {
                slice: slice.clone(),
                first: range.first,
            });
            partition.restore(partition.start(), partition.end().max(range.last + 1));
        }
        let newest = held.last;
        self.held.push(held);
        let class = self
            .classes
            .iter()
            .position(|class| duration_label(class.retention) == label);
        if let Some(class) = class {
            let length = self.length(self.classes[class].retention);
            // The newest one of its class goes on if its time is not over.
            self.classes[class].active = (now.since(started) < length).then_some(Active {
                number,
                started,
                connection,
            });
        }
        Ok(newest)
    }

    fn remove(&self, slice: &Arc<Slice>) {
        // First out of the index, then marked, then gone: who reads meanwhile finds the next slice.
        for partition in &self.state.partitions {
            partition.forget(slice);
        }
        slice.dropped.store(true, Ordering::Release);
        self.state.drops.fetch_add(1, Ordering::Release);
        remove_files(&slice.path);
        tracing::info!(file = %slice.path.display(), "retention is over, file removed");
    }
}

impl Held {
    fn expired(&self, now: Timestamp) -> bool {
        self.last + self.keep <= now
    }
}

struct Range {
    table: String,
    first: Offset,
    last: Offset,
    last_at: Timestamp,
}

/// The range of each table of a slice that has records.
fn ranges(connection: &Connection) -> rusqlite::Result<Vec<Range>> {
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%/%'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut ranges = Vec::new();
    for table in tables {
        let name = file::quoted(&table);
        let sql = format!(
            r#"SELECT (SELECT min("offset") FROM {name}), "offset", at FROM {name}
               ORDER BY "offset" DESC LIMIT 1"#
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        if let Some(row) = rows.next()? {
            ranges.push(Range {
                table,
                first: row.get(0)?,
                last: row.get(1)?,
                last_at: Timestamp::from_micros(row.get(2)?),
            });
        }
    }
    Ok(ranges)
}

/// The slice files in a directory: number, label of the class, path; ascending.
fn list(dir: &Path) -> Result<Vec<(u64, String, PathBuf)>, LogError> {
    let fail = |error| LogError::permanent(format!("listing {}", dir.display()), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let parsed = name
            .and_then(|name| name.strip_suffix(".sqlite"))
            .and_then(|name| name.rsplit_once('-'))
            .and_then(|(label, number)| Some((number.parse().ok()?, label.to_owned())));
        if let Some((number, label)) = parsed {
            files.push((number, label, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Removes a file with what SQLite keeps beside it.
fn remove_files(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Found again, and tried again, at the next start.
            Err(error) => tracing::warn!(file = %Path::new(&name).display(), %error, "not removed"),
        }
    }
}
