//! Topics of foreign records (`raw.<source>`): each record becomes an event on `events.*`, and only
//! when that is acknowledged is it done.

mod appends;
mod intake;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use ringback_core::event::Source;
use ringback_core::log::{AppenderOptions, Consumer as _, Log, LogError, Waker};
use ringback_core::topics::Role;
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::waiting::{Progress, Watch, WatchError};
use ringback_telemetry::{Health, Metrics};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use appends::Appends;
use intake::{Feed, Intake};

/// The consumer group that shares the raw topics among the producers.
const GROUP: &str = ringback_core::topics::group::RAW;

/// The raw topics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RawStartError {
    /// The log cannot be used.
    #[error("starting to read the raw topics: {0}")]
    Log(#[from] LogError),
    /// A mapping cannot be used.
    #[error("ingest.raw, source {0:?}: {1}")]
    Mapping(String, String),
    /// The log's table has no such topic.
    #[error("the table of topics has no raw.{0}; name it when the log is opened")]
    NoTopic(String),
    /// The thread cannot be started.
    #[error("starting the thread that reads the raw topics: {0}")]
    Thread(std::io::Error),
    /// Nobody would see what waits.
    #[error("starting to read the raw topics: {0}")]
    Watch(#[from] WatchError),
}

/// Reads the raw topics on a thread of its own until it is drained or dropped.
pub struct RawIntake {
    stop: CancellationToken,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    _watch: Watch,
}

impl RawIntake {
    /// Starts reading the topics of [`Config::raw`], as a member of the group of all producers;
    /// `None` when there are none. `directory` must know the tenants.
    pub fn start<L: Log>(
        log: &L,
        directory: Arc<LiveDirectory>,
        config: &Config,
        metrics: Metrics,
        health: &Health,
    ) -> Result<Option<Self>, RawStartError> {
        if config.raw.is_empty() {
            return Ok(None);
        }
        let mut feeds = HashMap::new();
        for (index, raw) in config.raw.iter().enumerate() {
            let name = || raw.source.clone();
            let records = raw
                .records()
                .map_err(|problem| RawStartError::Mapping(name(), problem))?;
            let topic = log.topics().find(Role::Raw(index));
            let topic = topic.filter(|topic| {
                let expected = format!("raw.{}", raw.source);
                log.topics().spec(*topic).name == expected
            });
            let topic = topic.ok_or_else(|| RawStartError::NoTopic(name()))?;
            let source = Source::parse(&raw.source)
                .map_err(|error| RawStartError::Mapping(name(), error.to_string()))?;
            let feed = Feed {
                name: name(),
                source,
                records,
            };
            feeds.insert(topic, feed);
        }
        let topics: Vec<_> = feeds.keys().copied().collect();
        let consumer = log.consumer(GROUP, &topics)?;
        let options = AppenderOptions {
            linger: config.linger,
            timeout: config.append_timeout,
            ..AppenderOptions::default()
        };
        let waker = consumer.waker();
        let appends = Appends::start(log, options, waker.clone())?;
        let progress = Progress::default();
        let clock = ringback_log::system_clock();
        let watch = Watch::start(log, GROUP, progress.clone(), metrics.clone(), clock)?;
        let intake = Intake::<L>::new(feeds, appends, log.topics().clone(), directory, metrics);
        let (stop, health) = (CancellationToken::new(), health.component(GROUP));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name(GROUP.to_owned())
            .spawn(move || intake.run(consumer, &health, &progress, &stopped))
            .map_err(RawStartError::Thread)?;
        Ok(Some(Self {
            stop,
            waker,
            thread: Some(thread),
            _watch: watch,
        }))
    }

    /// Stops reading, waits for the acknowledgements of what was read, commits, and leaves the group.
    pub async fn drain(mut self) {
        self.end();
        let Some(thread) = self.thread.take() else {
            return;
        };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread that reads the raw topics panicked");
        }
    }

    fn end(&self) {
        self.stop.cancel();
        self.waker.wake();
    }
}

impl Drop for RawIntake {
    fn drop(&mut self) {
        self.end();
    }
}
