//! `ringback canary`: Ringback watches itself, from outside, as a customer. It hands in an event of each
//! family again and again and waits for it at a receiver of its own. What it decides is in
//! [`ringback_core::canary`]; here bytes are carried.

mod api;
mod config;
mod post;
mod receiver;
mod tend;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::canary::{Canary, Outcome, Upkeep};
use ringback_core::catalogue::Family;
use ringback_core::secret::Secret;
use ringback_core::signature::Verifier;
use ringback_core::time::Clock;
use ringback_server::Serving;
use ringback_telemetry::{ComponentHealth, Counter, Gauge, Health, Metrics};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use self::api::Api;
pub(crate) use self::config::CanaryConfig;
use self::post::Refused;
use self::tend::{Failed, Known, Step, Tended, Wanted};
use crate::component::{self, Addresses};
use crate::config::Config;
use crate::failure::Failure;
use crate::http;

/// Where administration and ingest are by default.
const ADMIN: &str = "http://127.0.0.1:8081";
const INGEST: &str = "http://127.0.0.1:8080";
/// Within this, what was configured is known everywhere (DL6), and some to spare.
const SETTLING: Duration = Duration::from_secs(3);
/// Looks after what it needs are so many times the events apart.
const LOOK_EVERY: u32 = 3;
/// So many failures in a row are only told when there is one more.
const FAILURES_UNTOLD: u32 = 3;
/// How often gauges are set, at least.
const TICK: Duration = Duration::from_secs(1);
/// How long connections of dispatchers may be idle.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the receiver may take to answer what it has.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the canary alone, until SIGINT or SIGTERM.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    let signal = component::signals()?;
    let (metrics, health) = (Metrics::of("canary"), Health::new());
    let key = "telemetry.listen";
    let (listener, telemetry) = component::listen(&config.telemetry.listen, key).await?;
    let ended = CancellationToken::new();
    let serving =
        ringback_telemetry::serve(listener, metrics.clone(), health.clone(), ended.clone());
    let serving = tokio::spawn(serving);
    let running = Running::start(&config, &Addresses::default(), metrics, &health).await?;
    tracing::info!(receiver = running.address, telemetry, "running");
    signal.await;
    health.drain();
    running.hush();
    running.end().await;
    ended.cancel();
    component::finish(serving, GRACE).await;
    Ok(())
}

/// A canary at work.
pub(crate) struct Running {
    /// Where its receiver listens.
    pub(crate) address: String,
    hushed: CancellationToken,
    closed: CancellationToken,
    watching: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Listens, and begins. Whom it watches is configured, or in its own process at these addresses.
    pub(crate) async fn start(
        config: &Config,
        own: &Addresses,
        metrics: Metrics,
        health: &Health,
    ) -> Result<Self, Failure> {
        let canary = &config.canary;
        let (listener, address) = component::listen(&canary.listen, "canary.listen").await?;
        let clock = ringback_log::system_clock();
        let shared = Arc::new(Shared {
            canary: Mutex::new(Canary::new(canary.every)),
            keys: Mutex::default(),
            metrics,
            clock,
        });
        let watch = Watch {
            http: client(canary)?,
            admin: parse(&canary.admin_url, &own.admin, ADMIN)?,
            ingest: http::api_url(
                &parse(&canary.ingest_url, &own.ingest, INGEST)?,
                &["events"],
                &[],
            ),
            wanted: Wanted {
                tenant: canary.tenant.clone(),
                url: parse(&canary.url, &Some(address.clone()), ADMIN)?.to_string(),
            },
            token: AdminToken::of(config)?,
            tick: canary.every.min(TICK),
            upkeep: Upkeep::new(canary.every * LOOK_EVERY),
            known: Known::default(),
            is_set_up: false,
            said: Said::default(),
            health: health.component("canary"),
            shared: shared.clone(),
        };
        let (hushed, closed) = (CancellationToken::new(), CancellationToken::new());
        let serving = Serving {
            patience: PATIENCE,
            tls: None,
        };
        let router = receiver::router(shared);
        let serving = ringback_server::serve(listener, router, serving, closed.clone());
        Ok(Self {
            address,
            watching: tokio::spawn(watch.run(hushed.clone())),
            serving: tokio::spawn(serving),
            hushed,
            closed,
        })
    }

    /// Hands in nothing more; what is under way may still come.
    pub(crate) fn hush(&self) {
        self.hushed.cancel();
    }

    /// Ends.
    pub(crate) async fn end(self) {
        self.hushed.cancel();
        self.closed.cancel();
        for task in [self.watching, self.serving] {
            if tokio::time::timeout(GRACE, task).await.is_err() {
                tracing::warn!("the canary did not end in time");
            }
        }
    }
}

fn client(config: &CanaryConfig) -> Result<reqwest::Client, Failure> {
    let authorities = config.ca_file.as_ref().map(|path| {
        http::authorities(path).map_err(|reason| {
            let path = path.display();
            Failure::usage(format!("canary.ca_file: {path} cannot be used: {reason}"))
        })
    });
    http::direct(authorities.transpose()?)
}

/// The configured address, that of this process, or the usual one.
fn parse(given: &Option<String>, own: &Option<String>, usual: &str) -> Result<Url, Failure> {
    let text = given.as_deref().or(own.as_deref()).unwrap_or(usual);
    let mut url = Url::parse(text).map_err(|error| Failure::new(format!("{text}: {error}")))?;
    // Who listens on all addresses is reached at loopback.
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) if ip.is_unspecified() => "127.0.0.1",
        Some(url::Host::Ipv6(ip)) if ip.is_unspecified() => "[::1]",
        _ => return Ok(url),
    };
    url.set_host(Some(loopback)).map_err(Failure::new)?;
    Ok(url)
}

/// Where the token for the administration is.
enum AdminToken {
    Given(Secret),
    /// Read whenever it is needed: it may be replaced.
    File(std::path::PathBuf),
}

impl AdminToken {
    fn of(config: &Config) -> Result<Self, Failure> {
        let (canary, admin) = (&config.canary, &config.admin);
        let given = |secret: &str| Self::Given(Secret::new(secret.trim()));
        match (&canary.token, &canary.token_file) {
            (Some(token), _) => Ok(given(token.expose())),
            (None, Some(path)) => Ok(Self::File(path.clone())),
            (None, None) if !admin.operator_token.is_empty() => {
                Ok(given(admin.operator_token.expose()))
            }
            (None, None) => match &admin.operator_token_file {
                Some(path) => Ok(Self::File(path.clone())),
                None => Err(Failure::usage(
                    "the canary needs a token for the administration: set canary.token_file or canary.token to the operator's, or to one of its tenant with the scope write",
                )),
            },
        }
    }

    /// Blocking.
    fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let path = path.display();
                    format!("reading the token for the administration from {path}: {error}; check canary.token_file")
                })?;
                Ok(Secret::new(text.trim()))
            }
        }
    }
}

/// What the loop and the receiver have in common.
struct Shared {
    canary: Mutex<Canary>,
    /// What verifies requests; none before the first look went well.
    keys: Mutex<Arc<[Verifier]>>,
    metrics: Metrics,
    clock: Clock,
}

impl Shared {
    /// Sets the metrics to what is known now. They are there from the first time on, so that what never
    /// happens is seen as zero.
    fn tell(&self, now: Duration) {
        let mut canary = self.canary.lock();
        canary.forget(now);
        for family in Family::ALL {
            let name = family.to_string();
            for outcome in Outcome::ALL {
                let labels = [&*name, outcome.as_str()];
                // Only this counts it.
                let told = self.metrics.count(Counter::CanaryEvents, &labels);
                let new = canary.count(family, outcome).saturating_sub(told);
                self.metrics.add(Counter::CanaryEvents, &labels, new);
            }
            let oldest = canary.oldest(family, now).as_secs_f64();
            self.metrics.set(Gauge::CanaryOldest, &[&name], oldest);
        }
    }
}

/// What has ended.
enum Done {
    Posted(Family, Uuid, Result<(), Refused>),
    Looked(Tended, Result<(), Failed>),
}

/// The loop of a canary.
struct Watch {
    http: reqwest::Client,
    admin: Url,
    /// Where events go.
    ingest: Url,
    wanted: Wanted,
    token: AdminToken,
    tick: Duration,
    upkeep: Upkeep,
    known: Known,
    is_set_up: bool,
    said: Said,
    health: ComponentHealth,
    shared: Arc<Shared>,
}

impl Watch {
    async fn run(mut self, hushed: CancellationToken) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At most one post of each family, and one look. All end with it.
        let mut under_way = JoinSet::new();
        let mut is_looking = false;
        self.tell_failure(None);
        loop {
            tokio::select! {
                () = hushed.cancelled() => return,
                _ = ticks.tick() => {}
                Some(done) = under_way.join_next() => match done {
                    Ok(Done::Posted(family, id, ended)) => self.posted(family, id, ended),
                    Ok(Done::Looked(tended, ended)) => {
                        is_looking = false;
                        self.looked(tended, ended);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the canary's work broke off");
                        is_looking = false;
                    }
                },
            }
            let now = self.shared.clock.steady();
            self.post_due(now, &mut under_way);
            if !is_looking && self.upkeep.is_due(now) {
                is_looking = self.look(now, &mut under_way).await;
            }
            self.shared.tell(now);
        }
    }

    /// Hands in what is due.
    fn post_due(&self, now: Duration, under_way: &mut JoinSet<Done>) {
        let Some((_, token)) = &self.known.token else {
            return;
        };
        for family in Family::ALL {
            let id = Uuid::now_v7();
            {
                let mut canary = self.shared.canary.lock();
                if !canary.is_due(family, now) {
                    continue;
                }
                canary.begin(family, id, now);
            }
            let (http, url, token) = (self.http.clone(), self.ingest.clone(), token.clone());
            under_way.spawn(async move {
                let ended = post::post(&http, &url, &token, family, id).await;
                Done::Posted(family, id, ended)
            });
        }
    }

    fn posted(&mut self, family: Family, id: Uuid, ended: Result<(), Refused>) {
        let now = self.shared.clock.steady();
        let mut canary = self.shared.canary.lock();
        canary.posted(family, id, ended.is_ok(), now);
        drop(canary);
        match ended {
            Ok(()) => {
                if self.said.is_over("handing in") {
                    tracing::info!("the ingest accepts the canary's events again");
                }
            }
            Err(Refused { why, by_judgement }) => {
                if by_judgement {
                    self.upkeep.suspect();
                }
                if self.said.is_new("handing in", &why) {
                    tracing::warn!(why, "the canary's events are not accepted");
                }
            }
        }
    }

    /// Begins to look after what is needed; whether it could.
    async fn look(&mut self, now: Duration, under_way: &mut JoinSet<Done>) -> bool {
        let token = match &self.token {
            AdminToken::Given(secret) => Ok(secret.clone()),
            AdminToken::File(path) => {
                let file = AdminToken::File(path.clone());
                let read = tokio::task::spawn_blocking(move || file.read()).await;
                read.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        let token = match token {
            Ok(token) => token,
            Err(why) => {
                self.upkeep.looked(false, now);
                self.failed(Step::Token, &why);
                return false;
            }
        };
        let api = Api {
            http: self.http.clone(),
            base: self.admin.clone(),
            token,
        };
        let (wanted, known) = (self.wanted.clone(), self.known.clone());
        under_way.spawn(async move {
            let (tended, ended) = tend::tend(&api, &wanted, known).await;
            Done::Looked(tended, ended)
        });
        true
    }

    fn looked(&mut self, tended: Tended, ended: Result<(), Failed>) {
        let now = self.shared.clock.steady();
        self.upkeep.looked(ended.is_ok(), now);
        let Tended {
            known,
            mended,
            was_off,
        } = tended;
        *self.shared.keys.lock() = known.keys.as_slice().into();
        self.known = known;
        if !mended.is_empty() {
            tracing::info!(
                tenant = self.wanted.tenant,
                did = mended.join("; "),
                "the canary looked after what it needs"
            );
        }
        let mut canary = self.shared.canary.lock();
        if was_off {
            canary.give_up();
        }
        let begins = ended.is_ok() && !self.is_set_up;
        if begins || (self.is_set_up && !mended.is_empty()) {
            canary.hold_until(now + SETTLING);
        }
        drop(canary);
        match ended {
            Ok(()) => {
                self.is_set_up = true;
                self.tell_failure(None);
                self.health.ready();
                if self.said.is_over("looking") {
                    tracing::info!("the canary has what it needs again");
                }
            }
            Err((step, why)) => self.failed(step, &why),
        }
    }

    fn failed(&mut self, step: Step, why: &str) {
        self.tell_failure(Some(step));
        self.health.not_ready(why);
        // Others may just be starting.
        if self.upkeep.failures() >= FAILURES_UNTOLD && self.said.is_new("looking", why) {
            let step = step.as_str();
            tracing::warn!(step, why, "the canary cannot look after what it needs");
        }
    }

    fn tell_failure(&self, failed: Option<Step>) {
        for step in Step::ALL {
            let value = f64::from(u8::from(failed == Some(step)));
            let labels = [step.as_str()];
            self.shared
                .metrics
                .set(Gauge::CanarySetUpFailed, &labels, value);
        }
    }
}

/// What was said in the log, so that it is said once.
#[derive(Default)]
struct Said(std::collections::BTreeMap<&'static str, String>);

impl Said {
    /// Whether this was not the last that was said about it.
    fn is_new(&mut self, about: &'static str, what: &str) -> bool {
        self.0.insert(about, what.to_owned()).as_deref() != Some(what)
    }

    /// Whether something was said about it that no longer holds.
    fn is_over(&mut self, about: &'static str) -> bool {
        self.0.remove(about).is_some()
    }
}
