//! Disablement (contract R14) over restarts and rebalances: nothing is counted twice or never, and
//! little is read again.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ringback_core::event::{EventName, TenantId};
use ringback_core::health::{Health, HealthPolicy, State};
use ringback_core::log::{Append, Follower, Log};
use ringback_core::record::{Attempt, VERSION};
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::sim::{Chances, Sim, SimOptions};
use ringback_metrics::{Config, Environment, MetricsService};
use ringback_telemetry::{Counter, Metrics};
use ringback_tests::append::Records;
use ringback_tests::kafka;
use ringback_tests::rig::{short_schedule, topics};
use uuid::Uuid;

/// Failures that disable: no more and no less.
const ENOUGH: usize = 20;
const WEBHOOKS: u128 = 12;

/// Only the number of attempts matters, so that a verdict shows how many were counted.
fn counting_policy() -> HealthPolicy {
    HealthPolicy {
        attempts: ENOUGH as u32,
        silence: Duration::from_micros(2),
        ..HealthPolicy::default()
    }
}

struct Service {
    metrics: Metrics,
    running: MetricsService,
}

impl Service {
    fn start<L: Log>(log: &L) -> Self {
        let metrics = Metrics::new();
        let environment = Environment {
            config: Config {
                snapshot_interval: Duration::from_millis(200),
                policy: counting_policy(),
            },
            metrics: metrics.clone(),
            health: ringback_telemetry::Health::new(),
            clock: ringback_log::system_clock(),
        };
        let running = MetricsService::start(log, environment).unwrap();
        Self { metrics, running }
    }

    fn read(&self) -> u64 {
        self.metrics.count(Counter::AttemptsCounted, &[])
    }
}

/// The log, and what `health` says.
struct Bench<L: Log> {
    log: L,
    records: Records<L>,
    follower: L::Follower,
    verdicts: HashMap<Uuid, (State, String)>,
}

impl<L: Log> Bench<L> {
    fn new(log: L) -> Self {
        assert_eq!(log.create_topics().unwrap(), []);
        let health = log.topics().find(Role::Health).unwrap();
        Self {
            records: Records::of(&log),
            follower: log.follower(health).unwrap(),
            log,
            verdicts: HashMap::new(),
        }
    }

    /// One more failed attempt of every webhook.
    fn fail_all(&self, times: usize) {
        let topic = self.log.topics().find(Role::Attempts).unwrap();
        for n in 0..times * WEBHOOKS as usize {
            let webhook = Uuid::from_u128(n as u128 % WEBHOOKS);
            let attempt = Attempt {
                version: VERSION,
                event: Uuid::now_v7(),
                name: EventName::parse("cdr.completed").unwrap(),
                tenant: TenantId::parse("acme").unwrap(),
                webhook,
                generation: 0,
                run: 0,
                attempt: 0,
                started: Timestamp::EPOCH,
                duration_ms: 1,
                outcome: "status".to_owned(),
                status: Some(500),
                error: None,
                response: None,
                next_at: None,
                request_headers: None,
                response_headers: None,
                next: "retry.32s".to_owned(),
                late: false,
                dispatcher: "test".to_owned(),
                trace: None,
                subject: None,
                replay: None,
            };
            self.records.append(Append {
                topic,
                key: Some(webhook.as_hyphenated().to_string().as_bytes()),
                headers: &[],
                value: Some(&serde_json::to_vec(&attempt).unwrap()),
            });
        }
    }

    /// Reads verdicts until this holds.
    fn wait(&mut self, what: &str, holds: impl Fn(&HashMap<Uuid, (State, String)>) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !holds(&self.verdicts) {
            assert!(Instant::now() < until, "{what}: {:?}", self.verdicts);
            let verdicts = &mut self.verdicts;
            let polled = self
                .follower
                .poll(Duration::from_millis(50), &mut |record| {
                    let health: Health = serde_json::from_slice(record.value.unwrap()).unwrap();
                    verdicts.insert(health.webhook, (health.state, health.reason));
                });
            polled.unwrap();
        }
    }

    fn all_disabled_by(&mut self, count: usize) {
        self.wait("all are disabled", |verdicts| {
            let disabled = verdicts.values().filter(|(s, _)| *s == State::Disabled);
            disabled.count() == WEBHOOKS as usize
        });
        // The number of attempts in the reason is the number counted.
        for (_, reason) in self.verdicts.values() {
            let expected = format!("{count} of {count} attempts");
            assert!(reason.starts_with(&expected), "{reason}");
        }
    }
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_restart_counts_nothing_twice_and_reads_little_again() {
    let dir = tempfile::tempdir().unwrap();
    let topics = topics(&short_schedule());
    let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
    let mut bench = Bench::new(log);
    let all = |times: usize| times as u64 * WEBHOOKS as u64;
    let first = Service::start(&bench.log);
    bench.fail_all(ENOUGH / 2);
    wait_for("the first half is counted", || {
        first.read() == all(ENOUGH / 2)
    });
    first.running.drain();

    let second = Service::start(&bench.log);
    bench.fail_all(ENOUGH / 2 - 1);
    wait_for("all but one are counted", || {
        second.read() >= all(ENOUGH / 2 - 1)
    });
    println!(
        "figure health.restart.read_again {} attempts",
        second.read() - all(ENOUGH / 2 - 1)
    );
    assert_eq!(second.read(), all(ENOUGH / 2 - 1));
    bench.wait("all are failing", |verdicts| {
        verdicts.len() == WEBHOOKS as usize
    });
    assert!(bench.verdicts.values().all(|(s, _)| *s == State::Failing));
    second.running.drain();

    let third = Service::start(&bench.log);
    bench.fail_all(1);
    bench.all_disabled_by(ENOUGH);
    third.running.drain();
}

/// A commit that failed later is made again even if no attempt comes after it: otherwise whoever
/// counts next, maybe days later, would read them again.
#[test]
fn a_commit_that_failed_later_is_made_again() {
    let topics = topics(&short_schedule());
    let sim = Sim::new(SimOptions::default()).unwrap();
    let bench = Bench::new(sim.open(topics));
    sim.chances(Chances {
        fail_commit_later: 1000,
        ..Chances::default()
    });
    let service = Service::start(&bench.log);
    bench.fail_all(1);
    wait_for("a failed commit is known", || {
        service.metrics.count(Counter::CommitFailures, &[]) > 0
    });
    assert_ne!(sim.unfinished("metrics.attempts"), []);
    sim.chances(Chances::default());
    wait_for("all is committed", || {
        sim.unfinished("metrics.attempts").is_empty()
    });
    service.running.drain();
}

#[test]
fn a_rebalance_on_kafka_counts_nothing_twice() {
    let server = kafka::shared();
    let topics = topics(&short_schedule());
    let prefix = topics.iter().next().unwrap().1.full_name.clone();
    let config = KafkaConfig {
        bootstrap: server.bootstrap().to_owned(),
        group_prefix: prefix,
        ..KafkaConfig::default()
    };
    let mut bench = Bench::new(KafkaLog::open(config, topics).unwrap());
    let first = Service::start(&bench.log);
    bench.fail_all(4);
    wait_for("the first are counted", || first.read() > 0);
    // A second member takes some of the partitions over in the middle of it …
    let second = Service::start(&bench.log);
    wait_for("both have partitions", || {
        let assigned =
            |service: &Service| service.metrics.count(Counter::Rebalances, &["assigned"]);
        assigned(&second) > 0 && assigned(&first) > 0
    });
    bench.fail_all(ENOUGH / 2);
    // … and gives them back.
    second.running.drain();
    bench.fail_all(ENOUGH / 2 - 4);
    bench.all_disabled_by(ENOUGH);
    first.running.drain();
}
