//! Runs components: all of them in one process, or one alone. Nothing but configuration differs.

use std::sync::Arc;
use std::time::Duration;

use ringback_admin::mail::Courier;
use ringback_admin::{AdminState, Projecting, Projection};
use ringback_core::log::Log;
use ringback_core::redaction::Redaction;
use ringback_core::secret::KeyRing;
use ringback_core::time::duration_label;
use ringback_core::topics::{Role, Topics, retired_tiers};
use ringback_dispatcher::{Dispatcher, Environment};
use ringback_log::directory::LiveDirectory;
use ringback_log::kafka::KafkaLog;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_metrics::MetricsService;
use ringback_producer::{IngestState, RawIntake};
use ringback_server::{Tls, TlsConfig};
use ringback_telemetry::traces::Recording;
use ringback_telemetry::{Counter, Health, Metrics, Needed};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::canary;
use crate::config::{Config, Engine};
use crate::failure::Failure;
use crate::http;
use crate::kafka_metrics;
use crate::moved::refuse_moved;

/// How long servers may take to finish the requests they have.
const SERVER_GRACE: Duration = Duration::from_secs(10);
/// The same for who asks how it goes, when everything else has ended.
const TELEMETRY_GRACE: Duration = Duration::from_secs(1);

/// Which components a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Components {
    pub(crate) producer: bool,
    pub(crate) dispatcher: bool,
    pub(crate) metrics: bool,
    pub(crate) admin: bool,
}

impl Components {
    const NONE: Self = Self {
        producer: false,
        dispatcher: false,
        metrics: false,
        admin: false,
    };
    pub(crate) const ALL: Self = Self {
        producer: true,
        dispatcher: true,
        metrics: true,
        admin: true,
    };
    pub(crate) const PRODUCER: Self = Self {
        producer: true,
        ..Self::NONE
    };
    pub(crate) const DISPATCHER: Self = Self {
        dispatcher: true,
        ..Self::NONE
    };
    pub(crate) const METRICS: Self = Self {
        metrics: true,
        ..Self::NONE
    };
    pub(crate) const ADMIN: Self = Self {
        admin: true,
        ..Self::NONE
    };

    /// What metrics call a process that runs these.
    fn name(self) -> &'static str {
        match self {
            Self::PRODUCER => "producer",
            Self::DISPATCHER => "dispatcher",
            Self::METRICS => "metrics",
            Self::ADMIN => "admin",
            _ => "up",
        }
    }
}

/// Where the running components can be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) ingest: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) telemetry: Option<String>,
    /// The canary's receiver.
    pub(crate) canary: Option<String>,
}

/// Runs components until SIGINT or SIGTERM, then drains them. `started` is told the addresses.
pub(crate) async fn run_until_signal(
    config: Config,
    components: Components,
    started: impl FnOnce(&Addresses),
) -> Result<(), Failure> {
    let signal = signals()?;
    let running = Running::start(config, components).await?;
    started(&running.addresses);
    signal.await;
    tracing::info!("draining; a second signal ends at once");
    let again = signals()?;
    tokio::select! {
        () = running.drain() => Ok(()),
        () = again => Err(Failure::new("ended before everything was drained; what was not committed is repeated at the next start")),
    }
}

/// Components that run in this process.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    pub(crate) metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
    servers: Vec<Server>,
    telemetry: Telemetry,
    canary: Option<canary::Running>,
    raw: Option<RawIntake>,
    dispatcher: Option<AnyDispatcher>,
    metrics_service: Option<MetricsService>,
    projecting: Option<Projecting>,
    courier: Option<Courier>,
    /// The last to go: what drains is recorded too.
    traces: Recording,
    /// Looks at the clients of Kafka until the end.
    watching: Option<JoinHandle<()>>,
}

pub(crate) type Server = JoinHandle<std::io::Result<()>>;

/// The server of metrics and health, which outlives all others.
struct Telemetry {
    server: Server,
    shutdown: CancellationToken,
}

enum AnyDispatcher {
    Local(Dispatcher<LocalLog>),
    Kafka(Dispatcher<KafkaLog>),
}

impl Running {
    /// Opens the log and starts components; returns when they listen.
    pub(crate) async fn start(mut config: Config, components: Components) -> Result<Self, Failure> {
        config.open_own_machine();
        match config.log.engine {
            Engine::Local => {
                if components != Components::ALL {
                    return Err(Failure::usage(
                        "the local log serves one process: use `ringback up`, or set log.engine = \"kafka\" to run components alone",
                    ));
                }
                let dir = config.log.local.dir.join("log");
                let asked = dir.clone();
                let names = blocking(move || LocalLog::existing_topics(&asked)).await?;
                let topics = table(&config, &names);
                let log =
                    blocking(move || LocalLog::open(&dir, topics, LocalOptions::default())).await?;
                // Only now nobody can be moving it meanwhile.
                refuse_moved(&config.log.local.dir)?;
                Self::start_on(log, config, components, AnyDispatcher::Local).await
            }
            Engine::Kafka => {
                let kafka = config.log.kafka.clone();
                let asked = kafka.clone();
                let names = blocking(move || KafkaLog::existing_topics(&asked)).await?;
                let topics = table(&config, &names);
                let log = blocking(move || KafkaLog::open(kafka, topics)).await?;
                let watched = log.clone();
                let wrap = AnyDispatcher::Kafka;
                let mut running = Self::start_on(log, config, components, wrap).await?;
                let watching = kafka_metrics::watch(watched, running.metrics.clone());
                running.watching = Some(tokio::spawn(watching));
                Ok(running)
            }
        }
    }

    async fn start_on<L: Log>(
        log: L,
        config: Config,
        components: Components,
        wrap: impl FnOnce(Dispatcher<L>) -> AnyDispatcher,
    ) -> Result<Self, Failure> {
        let keys = config.key_ring()?;
        prepare_topics(&log, components.admin).await?;
        let (metrics, health) = (Metrics::of(components.name()), Health::new());
        let traces = record_traces(&config, components, metrics.clone()).await?;
        let (listener, address) = listen(&config.telemetry.listen, "telemetry.listen").await?;
        let ended = CancellationToken::new();
        let server =
            ringback_telemetry::serve(listener, metrics.clone(), health.clone(), ended.clone());
        let mut running = Self {
            addresses: Addresses {
                telemetry: Some(address),
                ..Addresses::default()
            },
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: CancellationToken::new(),
            servers: Vec::new(),
            telemetry: Telemetry {
                server: tokio::spawn(server),
                shutdown: ended,
            },
            canary: None,
            raw: None,
            dispatcher: None,
            metrics_service: None,
            projecting: None,
            courier: None,
            traces,
            watching: None,
        };
        if components.producer || components.admin {
            running
                .start_servers(&log, &config, components, keys.clone(), &health)
                .await?;
        }
        if components.metrics {
            let environment = ringback_metrics::Environment {
                config: config.metrics.clone(),
                metrics: metrics.clone(),
                health: health.clone(),
                clock: ringback_log::system_clock(),
            };
            let log = log.clone();
            let service = blocking(move || MetricsService::start(&log, environment)).await?;
            running.metrics_service = Some(service);
        }
        if components.dispatcher {
            let environment = Environment {
                config: config.dispatcher.clone(),
                schedule: config.schedule.clone(),
                clock: ringback_log::system_clock(),
                metrics: metrics.clone(),
                health: health.clone(),
            };
            let dispatcher = Dispatcher::start(&log, environment, keys).map_err(Failure::new)?;
            running.dispatcher = Some(wrap(dispatcher));
        }
        if components == Components::ALL && config.canary.enabled {
            let addresses = &running.addresses;
            let canary = canary::Running::start(&config, addresses, metrics, &health).await?;
            running.addresses.canary = Some(canary.address.clone());
            running.canary = Some(canary);
        }
        Ok(running)
    }

    async fn start_servers<L: Log>(
        &mut self,
        log: &L,
        config: &Config,
        components: Components,
        keys: KeyRing,
        health: &Health,
    ) -> Result<(), Failure> {
        let roles: &[Role] = match components.admin {
            // Verdicts and replays are for who shows them, and may read them.
            true => &ringback_admin::ROLES,
            false => &[Role::Tenants, Role::Webhooks, Role::Tokens],
        };
        let directory = Arc::new(LiveDirectory::start(log, roles, || {}).map_err(Failure::new)?);
        let watched = Arc::downgrade(&directory);
        // Readiness of the servers; they check freshness themselves at every request. Without the log
        // the ingest can take nothing, while the administration shows what it knows and says what is
        // wrong.
        let needed = match components.producer {
            true => Needed::Always,
            false => Needed::Once,
        };
        health.ask("directory", needed, move || {
            let directory = watched.upgrade().ok_or("it is stopping")?;
            match (directory.is_fresh(), directory.age()) {
                (true, _) => Ok(()),
                (false, None) => Err("the configuration is not read to its end".to_owned()),
                (false, Some(age)) => Err(format!(
                    "the log has not answered for {} s; the configuration may be stale",
                    age.as_secs()
                )),
            }
        });
        if components.producer {
            let (listener, address) = listen(&config.ingest.listen, "ingest.listen").await?;
            let (tls, address) = self.tls("ingest", &config.ingest.tls, address).await?;
            // There from the start: alarms ask for their increase, and must see the first.
            for status in ["500", "503"] {
                self.metrics
                    .add(Counter::HttpRequests, &["ingest", status], 0);
            }
            self.addresses.ingest = Some(address);
            let state = IngestState::new(
                log,
                directory.clone(),
                config.ingest.clone(),
                config.schedule.expires_after(),
                self.metrics.clone(),
            )
            .map_err(Failure::new)?;
            let server = ringback_producer::serve(listener, state, tls, self.shutdown.clone());
            self.servers.push(tokio::spawn(server));
            let (tenants, metrics) = (directory.clone(), self.metrics.clone());
            self.raw = RawIntake::start(log, tenants, &config.ingest, metrics, health)
                .map_err(Failure::new)?;
        }
        if components.admin {
            let (listener, address) = listen(&config.admin.listen, "admin.listen").await?;
            let (tls, address) = self.tls("admin", &config.admin.tls, address).await?;
            self.addresses.admin = Some(address);
            let mut admin = config.admin.clone();
            admin.reach = config.dispatcher.reach();
            admin.lookup = config.dispatcher.lookup();
            admin.policy = config.metrics.policy;
            let (noticing, settings) = (log.clone(), admin.clone());
            let (names, counts) = (directory.clone(), self.metrics.clone());
            let clock = ringback_log::system_clock();
            let courier = move || Courier::start(&noticing, names, &settings, counts, clock);
            self.courier = blocking(courier).await?;
            let state = AdminState::new(log.clone(), directory, keys, admin, self.metrics.clone())
                .map_err(Failure::new)?;
            let dir = config.log.local.dir.join("projection");
            let clock = ringback_log::system_clock();
            let name = match config.log.engine {
                Engine::Local => "local".to_owned(),
                Engine::Kafka => format!("kafka {}", config.topics.prefix),
            };
            let mut of = config.admin.projection.clone();
            of.redaction = Redaction::new(&config.admin.redact);
            if let Some(projection) = Projection::new(&of, &name, &dir, clock) {
                let (log, started) = (log.clone(), projection.clone());
                let metrics = self.metrics.clone();
                self.projecting = Some(blocking(move || started.start(&log, &metrics)).await?);
                state.show(projection);
            }
            let server = ringback_admin::serve(listener, state, tls, self.shutdown.clone());
            self.servers.push(tokio::spawn(server));
        }
        Ok(())
    }

    /// The TLS of a server, and its address with it.
    async fn tls(
        &self,
        server: &'static str,
        config: &TlsConfig,
        address: String,
    ) -> Result<(Option<Tls>, String), Failure> {
        let (config, metrics) = (config.clone(), self.metrics.clone());
        let clock = ringback_log::system_clock();
        let tls = blocking(move || {
            Tls::open(server, &config, clock, metrics)
                .map_err(|error| format!("{server}.tls: {error}"))
        })
        .await?;
        let address = match &tls {
            Some(_) => address.replacen("http://", "https://", 1),
            None => address,
        };
        Ok((tls, address))
    }

    /// Stops taking events in, lets the servers and the dispatcher finish what they have, commits.
    pub(crate) async fn drain(self) {
        self.health.drain();
        if let Some(canary) = &self.canary {
            canary.hush();
        }
        self.shutdown.cancel();
        for server in self.servers {
            finish(server, SERVER_GRACE).await;
        }
        if let Some(raw) = self.raw {
            raw.drain().await;
        }
        let readers = (self.projecting, self.courier);
        if let Err(error) = tokio::task::spawn_blocking(move || drop(readers)).await {
            tracing::error!(%error, "ending the projection, or mail");
        }
        match self.dispatcher {
            Some(AnyDispatcher::Local(dispatcher)) => dispatcher.drain().await,
            Some(AnyDispatcher::Kafka(dispatcher)) => dispatcher.drain().await,
            None => {}
        }
        // What was in flight to it has ended.
        if let Some(canary) = self.canary {
            canary.end().await;
        }
        // Last: it counts what the dispatcher did while it drained.
        if let Some(service) = self.metrics_service
            && let Err(error) = tokio::task::spawn_blocking(move || service.drain()).await
        {
            tracing::error!(%error, "draining metrics");
        }
        let traces = self.traces;
        if let Err(error) = tokio::task::spawn_blocking(move || drop(traces)).await {
            tracing::error!(%error, "sending the last spans");
        }
        if let Some(watching) = self.watching {
            watching.abort();
        }
        self.telemetry.shutdown.cancel();
        finish(self.telemetry.server, TELEMETRY_GRACE).await;
    }
}

/// Waits for a server that was told to end.
pub(crate) async fn finish(server: Server, grace: Duration) {
    match tokio::time::timeout(grace, server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, "a server ended"),
        Ok(Err(error)) => tracing::error!(%error, "a server panicked"),
        Err(_) => tracing::warn!("a server did not finish its requests in time"),
    }
}

/// Records traces, if that is configured, under the name of what runs here.
async fn record_traces(
    config: &Config,
    components: Components,
    metrics: Metrics,
) -> Result<Recording, Failure> {
    let service = match components {
        Components::PRODUCER => "ringback-producer",
        Components::DISPATCHER => "ringback-dispatcher",
        Components::METRICS => "ringback-metrics",
        Components::ADMIN => "ringback-admin",
        _ => "ringback",
    };
    let (traces, name) = (config.telemetry.traces.clone(), &config.dispatcher.name);
    let instance = match name.is_empty() {
        true => std::process::id().to_string(),
        false => name.clone(),
    };
    // Its client is made by a library that leaves the choice of cryptography to us.
    http::choose_cryptography();
    blocking(move || ringback_telemetry::traces::record(&traces, service, &instance, metrics)).await
}

/// The table of topics for this configuration and a log that has topics with these names.
pub(crate) fn table(config: &Config, names: &[String]) -> Arc<Topics> {
    let tiers = config.schedule.tiers();
    let names = names.iter().map(String::as_str);
    let retired = retired_tiers(&config.topics(), tiers, names);
    for tier in &retired {
        let tier = duration_label(*tier);
        tracing::info!(
            tier,
            "a tier that is no longer in the schedule is read until it is empty"
        );
    }
    Topics::new(&config.topics(), &[tiers, &retired].concat())
}

/// Creates what is missing where we may, and refuses to run on topics that differ from the table.
pub(crate) async fn prepare_topics<L: Log>(log: &L, create: bool) -> Result<(), Failure> {
    let log = log.clone();
    let problems = blocking(move || match create {
        true => log.create_topics(),
        false => log.check_topics(),
    })
    .await?;
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = problems
        .iter()
        .map(|problem| format!("  {problem}"))
        .collect();
    Err(Failure::new(format!(
        "the log's topics are not as they must be; change them or the configuration (the admin component creates what is missing):\n{}",
        list.join("\n")
    )))
}

/// Listens, and tells where.
pub(crate) async fn listen(address: &str, key: &str) -> Result<(TcpListener, String), Failure> {
    let failed = |error| {
        Failure::new(format!(
            "listening on {address}: {error}; choose another address with {key}"
        ))
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, format!("http://{bound}")))
}

/// Runs blocking work off the runtime.
pub(crate) async fn blocking<R: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<R, E> + Send + 'static,
) -> Result<R, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Failure::new)?
        .map_err(Failure::new)
}

/// Completes at the next SIGINT or SIGTERM; listens from the moment it is called.
pub(crate) fn signals() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::new(format!("listening for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests;
