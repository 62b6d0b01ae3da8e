//! Whole dispatchers over the simulated log, on a steered clock: processes that are started, drained
//! and killed, a producer that appends again what was not acknowledged, receivers that answer by a
//! fixed rule, and the books.
//!
//! The log decides by its seed what fails. The dispatchers do not run in lockstep: they have threads of
//! their own and a tokio runtime, so a seed fixes the actions, the faults of each append and all
//! answers, but not how the threads interleave. What a person wants to see again is run again with the
//! same seed.

pub mod books;
mod producer;
mod receivers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::log::{Log, Reader, Revision};
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig, group};
use ringback_core::webhook::{Authentication, CONFIG_VERSION, Pattern, Webhook, WebhookName};
use ringback_dispatcher::{Config, Dispatcher, Environment};
use ringback_log::sim::{Sim, SimClock, SimLog, SimOptions};
use ringback_telemetry::{Health, Metrics};
use uuid::Uuid;

pub use self::producer::Producer;
pub use self::receivers::{Receivers, Request, Transport};

/// When every simulation begins.
pub const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// How often something under way is looked at.
const TICK: Duration = Duration::from_millis(5);
/// After so many looks at the same state something is stuck: 20 s, and 400 s of the log's clock.
const PATIENCE: u32 = 4000;

/// The groups of a dispatcher.
pub const GROUPS: [&str; 6] = group::DISPATCHER;

/// Tenant and subscription of each webhook.
const WEBHOOKS: [(&str, &str); 4] = [
    ("acme", "cdr.*"),
    ("acme", "*"),
    ("other", "*"),
    ("other", "extension.*"),
];

const TYPES: [&str; 3] = [
    "cdr.completed",
    "extension.presence_changed",
    "call.started",
];

/// Numbers that depend on the seed alone.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `sides` (SplitMix64).
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// A dispatcher as a process of its own.
pub struct Process {
    /// Whether its parts are ready.
    pub health: Health,
    log: SimLog,
    dispatcher: Dispatcher<SimLog, Transport>,
    killed: Arc<AtomicBool>,
}

impl Process {
    /// Ends it as `kill -9` would.
    pub fn kill(self) {
        self.killed.store(true, Ordering::SeqCst);
        self.log.kill();
        drop(self.dispatcher);
    }

    /// Ends it in good order. Time passes meanwhile: what it waits for may need it.
    pub async fn drain(self, clock: &SimClock) {
        let mut drained = std::pin::pin!(self.dispatcher.drain());
        loop {
            let tick = Duration::from_millis(20);
            if tokio::time::timeout(tick, &mut drained).await.is_ok() {
                return;
            }
            clock.advance(Duration::from_secs(1));
        }
    }
}

/// A simulated installation.
pub struct Simulation {
    pub sim: Sim,
    /// A process that only looks, and is never killed.
    pub log: SimLog,
    pub schedule: Schedule,
    pub webhooks: Vec<Webhook>,
    pub receivers: Receivers,
    pub producer: Producer,
    pub metrics: Metrics,
    started: u64,
}

impl Simulation {
    /// Topics and webhooks, and no dispatcher yet.
    pub fn new(seed: u64) -> Self {
        let options = SimOptions {
            seed,
            clock: SimClock::steered(START),
            ..SimOptions::default()
        };
        let sim = Sim::new(options).unwrap();
        let schedule = Schedule::default();
        let log = sim.open(topics(&schedule));
        assert_eq!(log.create_topics().unwrap(), []);
        let webhooks: Vec<_> = (1..).zip(WEBHOOKS).map(webhook).collect();
        let topic = log.topics().find(Role::Webhooks).unwrap();
        for webhook in &webhooks {
            let value = serde_json::to_vec(webhook).unwrap();
            let written = log.compare_and_set(topic, &webhook.key(), None, Some(&value));
            written.unwrap();
        }
        Self {
            producer: Producer::new(&sim.open(log.topics().clone())),
            receivers: Receivers::new(seed),
            metrics: Metrics::new(),
            sim,
            log,
            schedule,
            webhooks,
            started: 0,
        }
    }

    /// Starts a dispatcher.
    pub fn start(&mut self) -> Process {
        self.started += 1;
        let log = self.sim.open(self.log.topics().clone());
        let health = Health::new();
        let environment = Environment {
            config: Config {
                name: format!("dispatcher-{}", self.started),
                // Real time; short, so that the test waits for little.
                commit_interval: Duration::from_millis(5),
                linger: Duration::ZERO,
                drain: Duration::from_millis(500),
                ..Config::default()
            },
            schedule: self.schedule.clone(),
            clock: self.sim.clock().clock(),
            metrics: self.metrics.clone(),
            health: health.clone(),
        };
        let killed = Arc::<AtomicBool>::default();
        let transport = self.receivers.transport(killed.clone());
        let dispatcher = Dispatcher::start_with(&log, environment, transport).unwrap();
        Process {
            health,
            log,
            dispatcher,
            killed,
        }
    }

    /// Pauses all webhooks.
    pub fn pause(&mut self) {
        let topic = self.log.topics().find(Role::Webhooks).unwrap();
        let mut reader = self.log.reader().unwrap();
        let partition = self.log.topics().partitions(topic).next().unwrap();
        let bounds = reader.bounds(partition).unwrap();
        // Written once each, in this order, and not touched since.
        for (webhook, offset) in self.webhooks.iter_mut().zip(bounds) {
            webhook.enabled = false;
            let value = serde_json::to_vec(webhook).unwrap();
            let (key, revision) = (webhook.key(), Some(Revision(offset)));
            let set = self
                .log
                .compare_and_set(topic, &key, revision, Some(&value));
            set.unwrap();
        }
    }

    /// Hands the next event to the producer: tenant, type and data by the dice.
    pub fn event(&mut self, dice: &mut Dice) {
        let number = self.producer.events().len() as u128 + 1;
        let tenant = ["acme", "other"][dice.roll(2) as usize];
        let name = TYPES[dice.roll(3) as usize];
        let data = format!("{{ \"n\" : {number}, \"dice\":{} }}", dice.roll(1000));
        self.producer.produce(Event {
            id: Uuid::from_u128(number),
            name: EventName::parse(name).unwrap(),
            time: self.sim.clock().now(),
            tenant: TenantId::parse(tenant).unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from(data),
            backfill: false,
            traceparent: None,
        });
    }

    /// Webhooks that one event has at most.
    pub fn fan_out(&self) -> u64 {
        let wanting = |tenant: &TenantId, name: &str| {
            let webhooks = self.webhooks.iter();
            webhooks
                .filter(|w| w.tenant == *tenant && w.wants(name))
                .count()
        };
        let pairs = self.webhooks.iter();
        let pairs = pairs.flat_map(|webhook| TYPES.map(|name| wanting(&webhook.tenant, name)));
        pairs.max().unwrap_or(0) as u64
    }

    /// When the records become due that the groups have not finished, earliest first.
    pub fn due(&self) -> Vec<Timestamp> {
        let unfinished = GROUPS.iter().flat_map(|group| self.sim.unfinished(group));
        let topics = self.log.topics();
        let due = unfinished.map(|(topic, appended)| {
            let topic = topics.find_name(&topic).unwrap();
            appended + topics.delay(topic)
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        due
    }

    /// Lets time pass until nothing is left to do: from one due time to the next, and on for sessions
    /// and timeouts where something that is due does not get done. Panics when for
    /// [a long time](PATIENCE) nothing changes.
    pub async fn until_at_rest(&mut self) {
        let (mut patience, mut before) = (PATIENCE, None);
        loop {
            self.producer.produce_again();
            let (due, now) = (self.due(), self.sim.clock().now());
            let open = self.producer.unacknowledged() + self.sim.open_appends();
            match due.first() {
                None if open == 0 => return,
                Some(first) if *first > now && open == 0 => {
                    self.sim.clock().advance(first.since(now));
                    continue;
                }
                _ => {}
            }
            let state = Some((open, due));
            if state != before {
                (patience, before) = (PATIENCE, state);
            }
            assert!(
                patience > 0,
                "not at rest at {now}: {open} appends open, unfinished {:?}, {:?}",
                GROUPS.map(|group| (group, self.sim.unfinished(group))),
                self.sim.seen(),
            );
            patience -= 1;
            // Something is under way. Real threads do it, so it takes real time; commits wait for the
            // log's time to pass, and sessions and timeouts for more of it.
            tokio::time::sleep(TICK).await;
            self.sim.clock().advance(TICK * 2);
            if patience % 10 == 0 {
                self.sim.clock().advance(Duration::from_secs(1));
            }
        }
    }
}

fn topics(schedule: &Schedule) -> Arc<Topics> {
    let config = TopicsConfig {
        event_partitions: 3,
        work_partitions: 2,
        ..TopicsConfig::default()
    };
    Topics::new(&config, schedule.tiers())
}

fn webhook((number, (tenant, pattern)): (u128, (&str, &str))) -> Webhook {
    Webhook {
        version: CONFIG_VERSION,
        id: Uuid::from_u128(number << 64),
        tenant: TenantId::parse(tenant).unwrap(),
        name: WebhookName::parse(&format!("hook{number}")).unwrap(),
        subscription: vec![Pattern::parse(pattern).unwrap()],
        url: "http://simulated.invalid/".into(),
        authentication: Authentication::None,
        enabled: true,
        generation: 1,
        acknowledge: Default::default(),
        rate_limit: None,
        schedule: None,
        format: Default::default(),
        headers: Default::default(),
        tls: None,
        previous_authentication: None,
        created: START,
        updated: START,
        signing: Vec::new(),
        unknown: Default::default(),
    }
}
