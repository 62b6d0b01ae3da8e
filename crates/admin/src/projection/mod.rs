//! Attempts and parked deliveries in a database, for reading.
//!
//! The log stays the only source of truth: this can be thrown away and is built anew from it. It is cut
//! into slices of time, so that what is old is dropped as a whole and never row by row, and a page is
//! read newest slice first. Each batch of rows is written together with the positions up to which the
//! log was read, so a crash repeats nothing and loses nothing.

mod config;
pub mod conformance;
mod engine;
mod erasing;
pub(crate) mod pages;
mod postgres;
mod projector;
mod rows;
mod sampling;
mod slice;
mod sqlite;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{Log, LogError};
use ringback_core::time::{Clock, Timestamp};
use ringback_telemetry::Metrics;

pub use self::config::{Engine, ProjectionConfig, SslMode, Url};
pub(crate) use self::engine::StoreError;
use self::engine::{Database, Session};
pub(crate) use self::pages::{Cursor, Entry, EventRows, Query, Wanted};
use self::postgres::{Postgres, Tls};
use self::projector::{Projector, Turn};
pub(crate) use self::rows::{BOUNDS_MS, CLASSES, LABELS, Tally, code_of, minute_start, place};
use self::sqlite::Sqlite;
use self::write::Positions;

/// A session with the database, as it is handed to those who read.
pub(crate) type SessionRef<'a> = &'a mut dyn Session;

/// How long the projector waits when it has read everything, unless somebody asks.
const POLL: Duration = Duration::from_secs(1);
/// How long it waits before it looks whether the one that projects is gone.
const STANDBY: Duration = Duration::from_secs(2);
/// How long it waits after a failure, at first and at most.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a request waits for what was appended before it.
const FRESHEN: Duration = Duration::from_secs(2);
/// How far behind it may be; beyond, the log itself is read.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// The projection, for those who read it. Clones share it.
#[derive(Clone)]
pub struct Projection(Arc<Inner>);

struct Inner {
    database: Box<dyn Database>,
    log: String,
    config: ProjectionConfig,
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    told: Told,
    leading: bool,
    log_error: Option<LogError>,
    /// Since when, and why last.
    failing: Option<(Timestamp, StoreError)>,
    /// Turns that have begun, and the last that has ended.
    begun: u64,
    ended: u64,
    /// Somebody waits for a turn.
    asked: bool,
    rebuild: bool,
    stop: bool,
}

/// What the projector says of itself.
#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    /// What the log had then is there.
    pub(crate) as_of: Option<Timestamp>,
    /// Offsets that are not read yet.
    pub(crate) behind: u64,
    /// Records that retention dropped before they were read.
    pub(crate) lost: u64,
    /// Records that could not be read.
    pub(crate) unreadable: u64,
}

impl Told {
    fn set(&mut self, found: &Positions) {
        self.as_of = found.as_of;
        self.lost = found.lost;
        self.unreadable = found.unreadable;
    }
}

/// Whether pages are read from the projection.
pub(crate) enum Freshness {
    /// They are, with everything that was appended before then.
    AsOf(Timestamp),
    /// It is too far behind.
    Behind,
    /// It is out of order.
    Failing(StoreError),
}

/// How the projection is, for operators.
pub(crate) struct Status {
    pub(crate) database: String,
    pub(crate) told: Told,
    pub(crate) leading: bool,
    pub(crate) rebuild: bool,
    pub(crate) failing: Option<(Timestamp, StoreError)>,
    pub(crate) log_error: Option<LogError>,
}

impl Projection {
    /// The projection as configured, or `None`, of the log with this name: what was read of another
    /// is dropped. It is in `dir` unless the configuration says otherwise. The database is not touched
    /// yet.
    pub fn new(config: &ProjectionConfig, log: &str, dir: &Path, clock: Clock) -> Option<Self> {
        let database: Box<dyn Database> = match config.engine {
            Engine::None => return None,
            Engine::Sqlite => Box::new(Sqlite::new(config.dir.as_deref().unwrap_or(dir))),
            // A URL that cannot be read is refused with the configuration.
            Engine::Postgres => Box::new(Postgres::new(
                &config.url.parse().unwrap_or_default(),
                Tls::new(config.sslmode, config.ca_file.clone()),
            )),
        };
        Some(Self(Arc::new(Inner {
            database,
            log: log.to_owned(),
            config: config.clone(),
            clock,
            state: Mutex::default(),
            changed: Condvar::new(),
        })))
    }

    /// Starts to project on a thread of its own, which ends when what is returned is dropped. A
    /// database that does not work is tried again and again, and hinders nobody.
    pub fn start<L: Log>(&self, log: &L, metrics: &Metrics) -> Result<Projecting, LogError> {
        let mut projector = Projector::new(self.clone(), log, metrics.clone())?;
        let projection = self.clone();
        let run = move || {
            let mut backoff = BACKOFF;
            loop {
                let turn = projector.turn();
                let wait = match turn {
                    Turn::More => Duration::ZERO,
                    Turn::AtEnd => POLL,
                    Turn::Standby => STANDBY,
                    Turn::Failed => backoff,
                };
                backoff = match turn {
                    Turn::Failed => (backoff * 2).min(BACKOFF_MAX),
                    _ => BACKOFF,
                };
                if !projection.wait(wait, turn == Turn::AtEnd) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("projection".into())
            .spawn(run)
            .map_err(|error| LogError::retriable("starting the projection's thread", error))?;
        Ok(Projecting {
            projection: self.clone(),
            thread: Some(thread),
        })
    }

    /// Until when everything was projected; `None` before that is known.
    pub fn as_of(&self) -> Option<Timestamp> {
        self.0.state.lock().told.as_of
    }

    /// Blocking: whether the database can be read, and which it is.
    pub fn check(&self) -> Result<String, String> {
        let name = self.database().name();
        match self.read(|session| session.slices()) {
            Ok(slices) => Ok(format!("{name} answers, with {} slices", slices.len())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn config(&self) -> &ProjectionConfig {
        &self.0.config
    }

    fn log(&self) -> &str {
        &self.0.log
    }

    fn database(&self) -> &dyn Database {
        self.0.database.as_ref()
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn steady(&self) -> Duration {
        self.0.clock.steady()
    }

    /// What is there is not all of it any more: pages are read from the log until it is again.
    fn forget(&self) {
        self.0.state.lock().told = Told::default();
    }

    /// A turn begins. Whether everything is to be dropped first.
    fn begin(&self) -> bool {
        let mut state = self.0.state.lock();
        state.begun += 1;
        state.asked = false;
        state.rebuild
    }

    fn end(
        &self,
        turn: Turn,
        told: Told,
        log_error: Option<LogError>,
        store_error: Option<StoreError>,
        rebuilt: bool,
    ) {
        let now = self.now();
        let mut state = self.0.state.lock();
        if let Some(error) = &store_error {
            if state.failing.is_none() {
                tracing::error!(%error, "the projection fails; attempts and parked deliveries cannot be shown, deliveries go on");
            }
        } else if let Some((since, _)) = &state.failing
            && log_error.is_none()
        {
            let failed_for = now.since(*since).as_secs();
            tracing::info!(failed_for, "the projection works again");
        }
        // When the log is what failed, nothing is known of the database.
        if store_error.is_some() || log_error.is_none() {
            let since = state.failing.take().map_or(now, |(since, _)| since);
            state.failing = store_error.map(|error| (since, error));
        }
        if let Some(error) = &log_error
            && state.log_error.is_none()
        {
            tracing::warn!(%error, "the projection cannot read the log");
        }
        state.log_error = log_error;
        state.leading = !matches!(turn, Turn::Standby);
        state.rebuild &= !rebuilt;
        state.told = told;
        state.ended = state.begun;
        self.0.changed.notify_all();
    }

    /// Waits, less if somebody asks and that is welcome. Whether to go on.
    fn wait(&self, wait: Duration, welcome: bool) -> bool {
        let until = std::time::Instant::now() + wait;
        let mut state = self.0.state.lock();
        while !state.stop && !(welcome && (state.asked || state.rebuild)) {
            if self.0.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        !state.stop
    }

    /// Blocking: has what was appended before now read, if that does not take long, and says how
    /// fresh pages are.
    pub(crate) fn freshen(&self) -> Freshness {
        let mut state = self.0.state.lock();
        if state.leading && state.failing.is_none() && self.is_near(&state) {
            let wanted = state.begun + 1;
            state.asked = true;
            self.0.changed.notify_all();
            let until = std::time::Instant::now() + FRESHEN;
            while state.ended < wanted && !state.stop {
                if self.0.changed.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if let Some((_, error)) = &state.failing {
            return Freshness::Failing(error.clone());
        }
        match state.told.as_of {
            // When the log cannot be read, this is still there.
            Some(as_of) if self.is_near(&state) || state.log_error.is_some() => {
                Freshness::AsOf(as_of)
            }
            _ => Freshness::Behind,
        }
    }

    fn is_near(&self, state: &State) -> bool {
        let as_of = state.told.as_of;
        as_of.is_some_and(|as_of| self.now().since(as_of) <= BEHIND_MAX)
    }

    /// Blocking: reads.
    pub(crate) fn read<R>(
        &self,
        work: impl FnOnce(SessionRef<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut session = self.database().open()?;
        work(session.as_mut())
    }

    /// Has everything dropped and read again; `false` when another process projects.
    pub(crate) fn rebuild(&self) -> bool {
        let mut state = self.0.state.lock();
        // Before the first turn it is not known, and a turn that does not lead leaves it to the next.
        if state.ended > 0 && !state.leading {
            return false;
        }
        state.rebuild = true;
        self.0.changed.notify_all();
        true
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.0.state.lock();
        Status {
            database: self.database().name(),
            told: state.told.clone(),
            leading: state.leading,
            rebuild: state.rebuild,
            failing: state.failing.clone(),
            log_error: state.log_error.clone(),
        }
    }
}

/// The thread that projects; ends with this.
pub struct Projecting {
    projection: Projection,
    thread: Option<JoinHandle<()>>,
}

/// Blocking: waits for the turn that it is in.
impl Drop for Projecting {
    fn drop(&mut self) {
        self.projection.0.state.lock().stop = true;
        self.projection.0.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the projection's thread panicked");
        }
    }
}
