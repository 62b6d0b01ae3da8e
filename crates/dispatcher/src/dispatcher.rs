//! Putting the parts together, and taking them down in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::clock::LogClock;
use ringback_core::lane::Limits;
use ringback_core::log::{Log, LogError};
use ringback_core::schedule::Schedule;
use ringback_core::secret::KeyRing;
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{Partition, Role, Topics, group};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::{ComponentHealth, Gauge as MetricGauge, Health, Metrics};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::intake::{self, Intake};
use crate::lanes::Lanes;
use crate::partition::{Gauge, Owned};
use crate::rate::Share;
use crate::send::{Http, Transport};
use crate::settle::{Parts, Settler};
use crate::watch::Watch;

/// Name of the thread that watches what waits.
const WATCH: &str = "dispatcher.watch";
/// How often gauges are published.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often who waits for current configuration looks for himself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a dispatcher does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error("starting the dispatcher: {0}")]
    Log(#[from] LogError),
    /// The HTTP client cannot be made.
    #[error("starting the dispatcher: {0}")]
    Http(String),
    /// A thread cannot be started.
    #[error("starting the dispatcher's thread {0}: {1}")]
    Thread(&'static str, std::io::Error),
}

/// A running dispatcher. [`drain`](Self::drain) it; dropped, it stops without waiting for anything.
pub struct Dispatcher<L: Log, T: Transport = Http> {
    shared: Arc<Shared<L, T>>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What all parts of a dispatcher share.
pub(crate) struct Shared<L: Log, T: Transport> {
    pub(crate) config: Config,
    pub(crate) topics: Arc<Topics>,
    pub(crate) schedule: Schedule,
    pub(crate) directory: LiveDirectory,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) lanes: Lanes,
    pub(crate) share: Share,
    pub(crate) transport: T,
    pub(crate) settler: Settler<L>,
    pub(crate) metrics: Metrics,
    pub(crate) runtime: tokio::runtime::Handle,
    /// What is owned, for those who only look; some of it perhaps no longer.
    partitions: Mutex<BTreeMap<Partition, Arc<Owned>>>,
    our_clock: Clock,
    clock: Arc<Mutex<LogClock>>,
    directory_news: Arc<Notify>,
    health: Vec<(&'static str, ComponentHealth)>,
}

/// How a directory is started: with threads of its own, or without.
pub(crate) type StartDirectory<L> =
    fn(&Clock, &L, &[Role], Box<dyn Fn() + Send + Sync>) -> Result<LiveDirectory, LogError>;

impl<L: Log, T: Transport> Shared<L, T> {
    /// Puts the parts together. Nothing is taken in yet.
    pub(crate) fn new(
        log: &L,
        environment: Environment,
        transport: T,
        start_directory: StartDirectory<L>,
    ) -> Result<Arc<Self>, StartError> {
        let Environment {
            config,
            schedule,
            clock: our_clock,
            metrics,
            health,
        } = environment;
        let name = match config.name.is_empty() {
            true => format!("dispatcher-{}", std::process::id()),
            false => config.name.clone(),
        };
        let clock = Arc::new(Mutex::new(LogClock::default()));
        let settler = Settler::new(
            log,
            Parts {
                linger: config.linger,
                // Two records per delivery, and room for fan-outs beyond the slots.
                queue: config.slots.saturating_mul(4),
                schedule: schedule.clone(),
                name,
                clock: clock.clone(),
                our_clock: our_clock.clone(),
                metrics: metrics.clone(),
            },
        )?;
        let gauge = Gauge::new(config.slots, config.in_flight_bytes_max);
        let directory_news = Arc::new(Notify::new());
        let on_change = {
            let (gauge, news) = (gauge.clone(), directory_news.clone());
            move || {
                news.notify_waiters();
                gauge.wake_all();
            }
        };
        let roles = [Role::Tenants, Role::Webhooks, Role::Health];
        let directory = start_directory(&our_clock, log, &roles, Box::new(on_change))?;
        let limits = Limits {
            concurrency: config.concurrency,
            queue: config.slots,
            wait: config.lane_wait,
        };
        Ok(Arc::new(Self {
            topics: log.topics().clone(),
            schedule,
            directory,
            gauge,
            lanes: Lanes::new(limits, config.slots),
            share: Share::new(event_partitions(log.topics())),
            transport,
            settler,
            metrics,
            runtime: tokio::runtime::Handle::current(),
            partitions: Mutex::default(),
            our_clock,
            clock,
            directory_news,
            health: group::DISPATCHER
                .map(|group| (group, health.component(group)))
                .into(),
            config,
        }))
    }

    /// Tasks that are there as long as the dispatcher.
    pub(crate) fn start_tasks(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let shared = self.clone();
        let settling = tokio::spawn(async move { shared.settler.retry_failed().await });
        let shared = self.clone();
        let reporting = tokio::spawn(async move {
            let mut every = tokio::time::interval(REPORT_EVERY);
            loop {
                every.tick().await;
                intake::report(&shared);
                shared.lanes.sweep(shared.now());
                let age = shared
                    .directory
                    .age()
                    .map_or(f64::INFINITY, |age| age.as_secs_f64());
                shared.metrics.set(MetricGauge::ConfigAgeSeconds, &[], age);
                let unreadable = shared.directory.read().unreadable() as f64;
                shared
                    .metrics
                    .set(MetricGauge::ConfigUnreadable, &[], unreadable);
            }
        });
        vec![settling, reporting]
    }

    /// Our clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.our_clock.now()
    }

    /// What waits and ages are measured by.
    pub(crate) fn steady(&self) -> Duration {
        self.our_clock.steady()
    }

    /// The log's clock, by which tiers are due. Before its first acknowledgement ours must do.
    pub(crate) fn log_now(&self) -> Timestamp {
        let known = self.clock.lock().at(self.our_clock.steady());
        known.unwrap_or_else(|| self.our_clock.now())
    }

    /// Waits until the configuration is known to be current.
    pub(crate) async fn fresh(&self) {
        while !self.directory.is_fresh() {
            let news = self.directory_news.notified();
            if self.directory.is_fresh() {
                return;
            }
            // It grows stale by time alone, so nobody can promise to tell of every end of that: a
            // process that stood still may be told before it has noticed.
            let _ = tokio::time::timeout(LOOK_AGAIN, news).await;
        }
    }

    /// A partition is ours from now on.
    pub(crate) fn owns(&self, owned: Arc<Owned>) {
        self.partitions.lock().insert(owned.partition, owned);
    }

    /// The partitions that are ours.
    pub(crate) fn owned(&self) -> BTreeMap<Partition, Arc<Owned>> {
        let mut partitions = self.partitions.lock();
        partitions.retain(|_, owned| owned.is_owned());
        partitions.clone()
    }

    pub(crate) fn intake_ready(&self, group: &str) {
        if let Some((_, health)) = self.health.iter().find(|(name, _)| *name == group) {
            if self.directory.is_fresh() {
                health.ready();
            } else {
                health.not_ready("the configuration is not read to its end, or the log is away");
            }
        }
    }

    pub(crate) fn intake_failed(&self, group: &str, error: &LogError) {
        if let Some((_, health)) = self.health.iter().find(|(name, _)| *name == group) {
            health.not_ready(&error.to_string());
        }
    }
}

/// What a dispatcher needs besides the log.
pub struct Environment {
    /// Its settings.
    pub config: Config,
    /// The schedule that the log's tiers were made of.
    pub schedule: Schedule,
    /// The clock: the system's, or a simulated one.
    pub clock: Clock,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it says whether it is ready.
    pub health: Health,
}

impl<L: Log> Dispatcher<L> {
    /// Starts a dispatcher that sends over HTTP; `keys` open the webhooks' secrets. Must be called
    /// within a tokio runtime, which then runs the requests.
    pub fn start(log: &L, environment: Environment, keys: KeyRing) -> Result<Self, StartError> {
        let http = Http::new(&environment.config, keys).map_err(StartError::Http)?;
        Self::start_with(log, environment, http)
    }
}

impl<L: Log, T: Transport> Dispatcher<L, T> {
    /// Starts a dispatcher that sends over this transport.
    pub fn start_with(log: &L, environment: Environment, transport: T) -> Result<Self, StartError> {
        let shared = Shared::new(log, environment, transport, LiveDirectory::start_by)?;
        let stop = CancellationToken::new();
        let mut dispatcher = Self {
            tasks: shared.start_tasks(),
            shared: shared.clone(),
            stop: stop.clone(),
            threads: vec![],
        };
        for group in group::DISPATCHER {
            let intake = Intake::join(&shared, log, group)?;
            let stop = stop.clone();
            let thread = std::thread::Builder::new()
                .name(group.to_owned())
                .spawn(move || intake.run(&stop))
                .map_err(|error| StartError::Thread(group, error))?;
            dispatcher.threads.push(thread);
        }
        let watch = Watch::new(log, &shared)?;
        let thread = std::thread::Builder::new()
            .name(WATCH.to_owned())
            .spawn(move || watch.run(&shared, &stop))
            .map_err(|error| StartError::Thread(WATCH, error))?;
        dispatcher.threads.push(thread);
        Ok(dispatcher)
    }

    /// The configuration as this dispatcher knows it.
    pub fn directory(&self) -> &LiveDirectory {
        &self.shared.directory
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.lanes.in_flight()
    }

    /// Stops taking in, lets what is in flight finish until [`Config::drain`] is over, commits, and
    /// leaves the groups.
    pub async fn drain(mut self) {
        self.stop.cancel();
        self.shared.gauge.wake_all();
        let threads = std::mem::take(&mut self.threads);
        let shared = self.shared.clone();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the dispatcher panicked");
                }
            }
            shared.settler.flush(Duration::from_secs(5));
        });
        if joined.await.is_err() {
            tracing::error!("the drain did not end well");
        }
    }
}

/// Partitions of all topics of accepted events.
fn event_partitions(topics: &Topics) -> usize {
    let events = topics
        .iter()
        .filter(|(_, spec)| matches!(spec.role, Role::Events(_)));
    events.map(|(_, spec)| spec.partitions as usize).sum()
}

impl<L: Log, T: Transport> Drop for Dispatcher<L, T> {
    fn drop(&mut self) {
        self.shared.gauge.close();
        self.stop.cancel();
        self.shared.gauge.wake_all();
        for task in &self.tasks {
            task.abort();
        }
    }
}
