//! `POST /v1/events`.

mod batch;
mod cloudevents;
mod events;
mod problem;
mod quota;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use ringback_core::event::{InvalidEvent, Source};
use ringback_core::log::{AppenderOptions, Log, LogError};
use ringback_core::time::Clock;
use ringback_log::directory::LiveDirectory;
use ringback_log::uses::UseNotes;
use ringback_server::{Serving, Tls};
use ringback_telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::quota::Quota;
use crate::config::Config;
use crate::publisher::Publisher;

/// What the ingest works with. Clones share it.
pub struct IngestState<L: Log>(Arc<Inner<L>>);

pub(crate) struct Inner<L: Log> {
    publisher: Publisher<L>,
    directory: Arc<LiveDirectory>,
    config: Config,
    source: Source,
    /// How old an event may be, unless it is a backfill (contract R13).
    age_max: Duration,
    clock: Clock,
    metrics: Metrics,
    quota: Quota,
    uses: UseNotes,
    /// In KiB, so that bodies in work are bounded together.
    room: Arc<Semaphore>,
}

impl<L: Log> Clone for IngestState<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The ingest cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error("starting the ingest: {0}")]
    Log(#[from] LogError),
    /// The configured source is not allowed.
    #[error("ingest.source: {0}")]
    Source(#[from] InvalidEvent),
}

impl<L: Log> IngestState<L> {
    /// An ingest into this log, for the tenants and tokens of the directory.
    pub fn new(
        log: &L,
        directory: Arc<LiveDirectory>,
        config: Config,
        age_max: Duration,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let options = AppenderOptions {
            linger: config.linger,
            timeout: config.append_timeout,
            ..AppenderOptions::default()
        };
        Ok(Self(Arc::new(Inner {
            publisher: Publisher::start(log, options)?,
            directory,
            source: Source::parse(&config.source)?,
            age_max,
            clock: ringback_log::system_clock(),
            metrics,
            quota: Quota::new(config.tenant_rate, config.tenant_burst),
            uses: UseNotes::new(log.topics()),
            room: Arc::new(Semaphore::new((config.in_flight_bytes_max / 1024).max(1))),
            config,
        })))
    }
}

/// Serves until `shutdown`, then finishes the requests it has.
pub async fn serve<L: Log>(
    listener: TcpListener,
    state: IngestState<L>,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let serving = Serving {
        patience: state.0.config.body_timeout,
        tls,
    };
    let router = Router::new()
        .route("/v1/events", post(events::post_events::<L>))
        .method_not_allowed_fallback(problem::not_allowed)
        .fallback(problem::not_found)
        .with_state(state);
    ringback_server::serve(listener, router, serving, shutdown).await;
    Ok(())
}
