//! Processes on hosts: dispatchers, metrics, the producer and the administration.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use ringback_admin::AdminState;
use ringback_core::address::{AddressPolicy, Opening};
use ringback_core::event::Event;
use ringback_core::health::HealthPolicy;
use ringback_core::schedule::Schedule;
use ringback_core::secret::KeyRing;
use ringback_core::target::Reach;
use ringback_core::time::Timestamp;
use ringback_core::topics::group;
use ringback_dispatcher::{Config, Environment, Stepped};
use ringback_log::directory::LiveDirectory;
use ringback_log::sim::{Sim, SimLog};
use ringback_producer::{PublishError, Publisher, PublisherOptions};
use ringback_telemetry::{Counter, Health, Metrics};
use tower::ServiceExt as _;

use super::bugs::{Bug, Planted};
use super::host::Host;
use super::oracle::{Limits, Oracle};
use super::receivers::{Receivers, Transport};

const TOKEN: &str = "operator-token-of-the-simulation";
/// How long a process with configuration to follow waits before it looks again.
const FOLLOW_EVERY: Duration = Duration::from_millis(400);

/// When a part takes its next turn.
#[derive(Clone, Copy, Default)]
struct Wake {
    /// The log as it was before the last turn.
    seen: Option<u64>,
    /// It looks then, whatever happens.
    due: Option<Timestamp>,
}

impl Wake {
    fn is_due(&self, version: u64, now: Timestamp) -> bool {
        self.seen != Some(version) || self.due.is_some_and(|due| due <= now)
    }

    /// When it is to look: at once, when there is news.
    fn next(&self, version: u64) -> Option<Timestamp> {
        match self.seen == Some(version) {
            true => self.due,
            false => Some(Timestamp::EPOCH),
        }
    }
}

/// A dispatcher.
pub(super) struct Machine {
    pub(super) host: Host,
    pub(super) log: SimLog,
    pub(super) metrics: Metrics,
    dispatcher: Option<Stepped<Planted, Transport>>,
    /// It stands still.
    pub(super) stands: bool,
    /// It is leaving, until then.
    pub(super) draining: Option<Timestamp>,
    follow: Wake,
    groups: [Wake; group::DISPATCHER.len()],
}

/// What all dispatchers are started with.
pub(super) struct Setting {
    pub(super) limits: Limits,
    pub(super) schedule: Schedule,
    pub(super) receivers: Receivers,
    pub(super) oracle: Oracle,
}

impl Machine {
    pub(super) fn start(sim: &Sim, like: &SimLog, setting: &Setting, bug: Option<Bug>) -> Self {
        use ringback_core::log::Log as _;
        let host = Host::new(sim.clock().now());
        let log = sim.open(like.topics().clone());
        let metrics = Metrics::new();
        let over = if bug == Some(Bug::ExceedCap) { 4 } else { 1 };
        let environment = Environment {
            config: Config {
                name: format!("dispatcher-{}", log.process()),
                slots: setting.limits.slots,
                concurrency: setting.limits.concurrency * over,
                ..Config::default()
            },
            schedule: setting.schedule.clone(),
            clock: host.time().clock(),
            metrics: metrics.clone(),
            health: Health::new(),
        };
        let transport = Transport {
            process: log.process(),
            receivers: setting.receivers.clone(),
            oracle: setting.oracle.clone(),
            time: host.time().clone(),
            bug,
        };
        let planted = Planted::new(sim, log.clone(), bug);
        let within = host.enter();
        let dispatcher = Stepped::new(&planted, environment, transport).ok();
        drop(within);
        Self {
            host,
            log,
            metrics,
            dispatcher,
            stands: false,
            draining: None,
            follow: Wake::default(),
            groups: [Wake::default(); group::DISPATCHER.len()],
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        let busy = |dispatcher: &Stepped<_, _>| dispatcher.is_busy();
        !self.stands && (self.draining.is_some() || self.dispatcher.as_ref().is_some_and(busy))
    }

    /// When it looks for something to do.
    pub(super) fn next(&self, version: u64) -> Option<Timestamp> {
        let wakes = self.groups.iter().filter_map(|wake| wake.next(version));
        match self.stands || self.draining.is_some() {
            true => None,
            false => wakes.min(),
        }
    }

    /// A turn of whatever has something to do; groups begin with the `first`.
    pub(super) fn turn(&mut self, sim: &Sim, first: usize) {
        let now = sim.clock().now();
        let Some(dispatcher) = &mut self.dispatcher else {
            return;
        };
        if self.stands || self.draining.is_some() {
            return;
        }
        let _within = self.host.enter();
        let (version, moving) = (sim.version(), sim.is_moving());
        if self.follow.is_due(version, now) {
            self.follow.seen = Some(version);
            self.follow.due = Some(now + FOLLOW_EVERY);
            dispatcher.follow();
        }
        for group in 0..self.groups.len() {
            let group = (group + first) % self.groups.len();
            let wake = &mut self.groups[group];
            let version = sim.version();
            if moving || wake.is_due(version, now) {
                wake.seen = Some(version);
                let pause = dispatcher.turn(group);
                wake.due = pause.or(dispatcher.idle(group)).map(|wait| now + wait);
            }
        }
    }

    /// Whether a drain is over: nothing is in flight, or its time is.
    pub(super) fn is_drained(&self, now: Timestamp) -> bool {
        let idle = self.dispatcher.as_ref().is_none_or(|d| d.in_flight() == 0);
        self.draining.is_some_and(|until| idle || until <= now)
    }

    /// Leaves its groups and ends.
    pub(super) fn leave(mut self) {
        let within = self.host.enter();
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.leave();
        }
        drop(within);
    }

    /// Ends as `kill -9` would end it.
    pub(super) fn kill(mut self) {
        self.log.kill();
        let within = self.host.enter();
        drop(self.dispatcher.take());
        drop(within);
    }

    /// Records that it counted as lost.
    pub(super) fn counted_lost(&self) -> u64 {
        self.metrics.total(Counter::RecordsLost)
    }
}

/// The metrics component.
pub(super) struct Folder {
    pub(super) host: Host,
    pub(super) log: SimLog,
    folder: Option<ringback_metrics::Stepped<Planted>>,
    follow: Wake,
    wake: Wake,
}

impl Folder {
    pub(super) fn start(sim: &Sim, like: &SimLog, policy: HealthPolicy, bug: Option<Bug>) -> Self {
        use ringback_core::log::Log as _;
        let host = Host::new(sim.clock().now());
        let log = sim.open(like.topics().clone());
        let environment = ringback_metrics::Environment {
            config: ringback_metrics::Config {
                policy,
                ..ringback_metrics::Config::default()
            },
            metrics: Metrics::new(),
            health: Health::new(),
            clock: host.time().clock(),
        };
        let planted = Planted::new(sim, log.clone(), bug);
        Self {
            folder: ringback_metrics::Stepped::new(&planted, environment).ok(),
            host,
            log,
            follow: Wake::default(),
            wake: Wake::default(),
        }
    }

    pub(super) fn next(&self, version: u64) -> Option<Timestamp> {
        self.wake.next(version)
    }

    pub(super) fn turn(&mut self, sim: &Sim) {
        let now = sim.clock().now();
        let Some(folder) = &mut self.folder else {
            return;
        };
        let version = sim.version();
        if self.follow.is_due(version, now) {
            self.follow.seen = Some(version);
            self.follow.due = Some(now + FOLLOW_EVERY);
            folder.follow();
        }
        let version = sim.version();
        if sim.is_moving() || self.wake.is_due(version, now) {
            self.wake.seen = Some(version);
            let pause = folder.turn();
            // It may have let time pass.
            let now = sim.clock().now();
            self.wake.due = pause.or(folder.idle()).map(|wait| now + wait);
        }
    }

    pub(super) fn end(mut self, kill: bool) {
        let folder = self.folder.take();
        match kill {
            true => self.log.kill(),
            false => {
                if let Some(folder) = folder {
                    folder.leave();
                }
            }
        }
    }
}

/// A producer that publishes every event until it is accepted.
pub(super) struct Producer {
    pub(super) host: Host,
    publisher: Publisher<Planted>,
    pending: Arc<AtomicUsize>,
    oracle: Oracle,
}

impl Producer {
    pub(super) fn start(sim: &Sim, like: &SimLog, oracle: &Oracle, bug: Option<Bug>) -> Self {
        use ringback_core::log::Log as _;
        let planted = Planted::new(sim, sim.open(like.topics().clone()), bug);
        Self {
            host: Host::new(sim.clock().now()),
            publisher: Publisher::start(&planted, PublisherOptions::default()).unwrap(),
            pending: Arc::default(),
            oracle: oracle.clone(),
        }
    }

    /// Events that are not accepted yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Hands events over together.
    pub(super) fn publish(&self, events: Vec<Event>) {
        let (publisher, oracle) = (self.publisher.clone(), self.oracle.clone());
        let pending = self.pending.clone();
        pending.fetch_add(events.len(), Ordering::SeqCst);
        let _within = self.host.enter();
        tokio::spawn(async move {
            let mut events = events;
            while !events.is_empty() {
                let ended = publisher.publish_batch(&mut events).await;
                let mut again = Vec::new();
                for (event, ended) in events.into_iter().zip(ended) {
                    match ended {
                        Ok(_) => {
                            oracle.accepted(event.id);
                            pending.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(PublishError::Unavailable { .. }) => again.push(event),
                        Err(error) => panic!("an event is refused: {error}"),
                    }
                }
                events = again;
                if !events.is_empty() {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
        });
    }
}

/// An administrator's server, asked in process.
pub(super) struct Admin {
    pub(super) host: Host,
    directory: Arc<LiveDirectory>,
    state: AdminState<SimLog>,
    router: Router,
}

impl Admin {
    pub(super) fn start(sim: &Sim, like: &SimLog) -> Self {
        use ringback_core::log::Log as _;
        let host = Host::new(sim.clock().now());
        let clock = host.time().clock();
        let log = sim.open(like.topics().clone());
        let roles = ringback_admin::ROLES;
        let directory = LiveDirectory::without_threads(&clock, &log, &roles, || {});
        let directory = Arc::new(directory.unwrap());
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let config = ringback_admin::Config {
            operator_token: TOKEN.to_owned().into(),
            reach: Reach::new(AddressPolicy::opening(vec![Opening::LOOPBACK]), vec![]),
            ..ringback_admin::Config::default()
        };
        let state = AdminState::with_clock(
            clock,
            log,
            directory.clone(),
            KeyRing::new("first", [("first", key)]).unwrap(),
            config,
            Metrics::new(),
        );
        let state = state.unwrap();
        Self {
            host,
            directory,
            router: ringback_admin::router(state.clone()),
            state,
        }
    }

    /// Asks; status, entity tag and body.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        matching: Option<&str>,
        body: &str,
    ) -> (StatusCode, Option<String>, String) {
        self.directory.turn();
        // What its server would do all the time.
        self.state.work_on_replays();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(tag) = matching {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.host.run(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            let tag = answer.headers().get(header::ETAG);
            let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
            let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
            (
                status,
                tag,
                String::from_utf8(body.unwrap().to_vec()).unwrap(),
            )
        })
    }
}
