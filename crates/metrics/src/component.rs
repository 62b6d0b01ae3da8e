//! The component: turn by turn it reads attempts, writes verdicts and snapshots, and commits. A thread
//! takes its turns, or whoever holds it.

use std::thread::JoinHandle;
use std::time::Duration;

use ringback_core::log::{Consumer, Log, LogError, Waker};
use ringback_core::time::Clock;
use ringback_core::topics::{Role, group};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::waiting::{Progress, Watch, WatchError};
use ringback_telemetry::{ComponentHealth, Health, Metrics};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::service::{Service, Writes};

/// The consumer group.
const GROUP: &str = group::ATTEMPTS;
/// Our name among the parts of a process.
const NAME: &str = "metrics";
/// The longest an idle service waits; it is woken when there is something to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long it waits after a failure before it tries again.
const BACKOFF: Duration = Duration::from_millis(200);
/// How often it looks for windows that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long giving up partitions may take.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the metrics component does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error("starting metrics: {0}")]
    Log(#[from] LogError),
    /// The table of topics does not fit.
    #[error("starting metrics: {0}")]
    Topics(&'static str),
    /// The thread cannot be started.
    #[error("starting the thread of metrics: {0}")]
    Thread(std::io::Error),
    /// Nobody would see what waits.
    #[error("starting metrics: {0}")]
    Watch(#[from] WatchError),
}

/// What the service needs besides the log.
pub struct Environment {
    /// Its settings.
    pub config: Config,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it says whether it is ready.
    pub health: Health,
    /// The clock: the system's, or a simulated one. Verdicts use the log's.
    pub clock: Clock,
}

/// How a directory is started: with threads of its own, or without.
pub(crate) type StartDirectory<L> =
    fn(&Clock, &L, &[Role], Box<dyn Fn() + Send + Sync>) -> Result<LiveDirectory, LogError>;

/// The running metrics component. [`drain`](Self::drain) it; dropped, it stops as well, waiting for
/// its thread.
pub struct MetricsService {
    stop: CancellationToken,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    _watch: Watch,
}

impl MetricsService {
    /// Joins the group that folds attempts.
    pub fn start<L: Log>(log: &L, environment: Environment) -> Result<Self, StartError> {
        let (counts, clock) = (environment.metrics.clone(), environment.clock.clone());
        let stepped = Stepped::join(log, environment, LiveDirectory::start_by)?;
        let watch = Watch::start(log, GROUP, stepped.progress.clone(), counts, clock)?;
        let (stop, waker) = (CancellationToken::new(), stepped.consumer.waker());
        let stopping = stop.clone();
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || stepped.run(&stopping))
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop,
            waker,
            thread: Some(thread),
            _watch: watch,
        })
    }

    /// Blocking: writes down what was counted, commits, and leaves the group.
    pub fn drain(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of metrics panicked");
        }
    }
}

impl Drop for MetricsService {
    fn drop(&mut self) {
        self.end();
    }
}

/// The metrics component without a thread: its holder takes the turns. Dropped, it is gone as if it
/// had crashed.
pub struct Stepped<L: Log> {
    consumer: L::Consumer,
    service: Service<L>,
    clock: Clock,
    ready: ComponentHealth,
    progress: Progress,
    /// When it was last written down, and looked for what nobody needs, by the steady clock.
    flushed: Duration,
    swept: Duration,
}

impl<L: Log> Stepped<L> {
    /// Joins the group that folds attempts.
    pub fn new(log: &L, environment: Environment) -> Result<Self, StartError> {
        Self::join(log, environment, LiveDirectory::without_threads)
    }

    fn join(
        log: &L,
        environment: Environment,
        start_directory: StartDirectory<L>,
    ) -> Result<Self, StartError> {
        let topics = log.topics();
        let find = |role| {
            let missing = StartError::Topics("a topic is missing from the table");
            topics.find(role).ok_or(missing)
        };
        let attempts = find(Role::Attempts)?;
        let writes = Writes {
            windows: find(Role::Windows)?,
            health: find(Role::Health)?,
            notices: find(Role::SystemEvents)?,
        };
        if topics.spec(attempts).partitions != topics.spec(writes.windows).partitions {
            let text = "attempts and windows need the same number of partitions";
            return Err(StartError::Topics(text));
        }
        let clock = environment.clock.clone();
        let now = clock.steady();
        Ok(Self {
            consumer: log.consumer(GROUP, &[attempts])?,
            ready: environment.health.component(NAME),
            progress: Progress::default(),
            service: Service::new(log, writes, environment, start_directory)?,
            clock,
            flushed: now,
            swept: now,
        })
    }

    fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            if let Some(pause) = self.turn() {
                std::thread::park_timeout(pause);
            }
        }
        self.leave();
    }

    /// Looks at the configuration topics once, where no thread does.
    pub fn follow(&self) {
        self.service.follow();
    }

    /// After how long there is something to do by time alone, if there is.
    pub fn idle(&self) -> Option<Duration> {
        self.service.idle(self.since(self.flushed))
    }

    /// Waits until there is something to do, and does it. After a failure: how long to wait before
    /// the next turn.
    pub fn turn(&mut self) -> Option<Duration> {
        let wait = self.idle().map_or(IDLE, |idle| idle.min(IDLE));
        let read = self.consumer.poll(wait, &mut self.service);
        if let Err(error) = read.and_then(|()| self.service.restore()) {
            tracing::warn!(%error, "attempts cannot be read; trying again");
            self.ready.not_ready(&error.to_string());
            return Some(BACKOFF);
        }
        self.progress.set(self.service.positions());
        let mut pause = None;
        if self.service.is_due(self.since(self.flushed)) {
            self.flushed = self.clock.steady();
            match self.service.flush() {
                true => self.service.commit(&mut self.consumer),
                false => pause = Some(BACKOFF),
            }
        }
        if self.since(self.swept) >= SWEEP_EVERY {
            self.swept = self.clock.steady();
            self.service.sweep();
        }
        match self.service.not_ready() {
            Some(reason) => self.ready.not_ready(reason),
            None => self.ready.ready(),
        }
        pause
    }

    /// Writes down what was counted, commits, and leaves the group.
    pub fn leave(mut self) {
        if let Err(error) = self.consumer.close(DRAIN, &mut self.service) {
            tracing::warn!(%error, "metrics is leaving its group");
        }
    }

    fn since(&self, moment: Duration) -> Duration {
        self.clock.steady().saturating_sub(moment)
    }
}
