//! What `metrics` reads: an attempt that cannot be read is counted as such, a snapshot that cannot be
//! is begun anew, and neither keeps a webhook that fails from being disabled.

use ringback_core::health::{Health, HealthPolicy, State};
use ringback_core::log::{Follower, Log};
use ringback_core::schedule::Schedule;
use ringback_core::topics::Role;
use ringback_log::sim::{Sim, SimClock, SimOptions};
use ringback_metrics::{Config, Environment, MetricsService};
use ringback_telemetry::{Counter, Metrics};
use ringback_tests::rig::topics;
use ringback_tests::simulation::START;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

use crate::{Raw, until};

const WEBHOOK: Uuid = Uuid::from_u128(0x00c0_ffee);
const OTHER: Uuid = Uuid::from_u128(0x0bad);

fn attempt() -> Value {
    json!({
        "version": 1, "event": Uuid::from_u128(1), "type": "cdr.completed", "tenant": "acme",
        "webhook": WEBHOOK, "generation": 1, "run": 0, "attempt": 0,
        "started": "2026-11-18T00:00:00Z", "duration_ms": 5, "outcome": "status", "status": 500,
        "next": "retry.32s", "dispatcher": "d",
    })
}

fn changed(mut record: Value, field: &str, value: Value) -> Vec<u8> {
    record[field] = value;
    serde_json::to_vec(&record).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_attempts_and_snapshots_neither_count_nor_shield() {
    let clock = SimClock::steered(START);
    let options = SimOptions {
        clock: clock.clone(),
        ..SimOptions::default()
    };
    let sim = Sim::new(options).unwrap();
    let log = sim.open(topics(&Schedule::default()));
    assert_eq!(log.create_topics().unwrap(), []);
    let key = WEBHOOK.to_string();

    // Each of these would be believed to have counted, or to have seen, what is still to come.
    let window = |last: &str, next: i64| {
        json!({
            "version": 1, "tenant": "acme", "next": next, "repaired": false,
            "window": { "generation": 1, "state": "healthy", "failing_since": null,
                        "last_attempt": last, "buckets": [] },
        })
    };
    let good = window("2026-11-18T00:00:00Z", 0);
    let snapshots = [
        (key.as_str(), b"{\"cut\":".to_vec()),
        (&key, b"\xff".to_vec()),
        (&key, changed(good.clone(), "next", json!(i64::MAX))),
        (&key, changed(good.clone(), "next", json!(u64::MAX))),
        (&key, changed(good.clone(), "next", json!(1))),
        (
            &key,
            serde_json::to_vec(&window("9999-12-30T00:00:00Z", 0)).unwrap(),
        ),
        (&key, serde_json::to_vec(&window("+99999", 0)).unwrap()),
        ("no webhook", serde_json::to_vec(&good).unwrap()),
    ];
    for (key, value) in &snapshots {
        Raw::keyed(key, value.clone()).append(&log, "windows");
    }

    let metrics = Metrics::new();
    let environment = Environment {
        config: Config {
            snapshot_interval: Duration::from_millis(50),
            policy: HealthPolicy {
                attempts: 5,
                silence: Duration::from_micros(2),
                ..HealthPolicy::default()
            },
        },
        metrics: metrics.clone(),
        health: ringback_telemetry::Health::new(),
        clock: clock.clock(),
    };
    let service = MetricsService::start(&log, environment).unwrap();
    let ignored = |topic: &str| metrics.count(Counter::RecordsIgnored, &[topic]);
    until("snapshots are read", || {
        ignored("windows") == snapshots.len() as u64
    })
    .await;

    let attempts = [
        (key.as_str(), b"{\"cut\":".to_vec()),
        (&key, b"\xff\xff".to_vec()),
        (&key, b"".to_vec()),
        (&key, b"[]".to_vec()),
        (&key, changed(attempt(), "webhook", json!(OTHER))),
        (&key, changed(attempt(), "webhook", json!("main"))),
        (&key, changed(attempt(), "tenant", json!("no tenant"))),
        (
            &key,
            changed(attempt(), "started", json!("99999-01-01T00:00:00Z")),
        ),
        (&key, changed(attempt(), "attempt", json!(256))),
        (&key, changed(attempt(), "generation", json!(-1))),
        ("no webhook", changed(attempt(), "attempt", json!(1))),
    ];
    let mut bad = 0;
    for (key, value) in attempts {
        Raw::keyed(key, value).append(&log, "attempts");
        bad += 1;
    }
    let no_value = Raw {
        key: Some(key.clone()),
        ..Raw::default()
    };
    no_value.append(&log, "attempts");
    bad += 1;
    until("attempts are read", || ignored("attempts") == bad).await;
    assert_eq!(metrics.count(Counter::AttemptsCounted, &[]), 0);

    // And now it fails for good; newer releases, nonsense times and high numbers count as well.
    for value in [
        changed(attempt(), "version", json!(2)),
        changed(attempt(), "a_field_of_the_future", json!({})),
        changed(attempt(), "started", json!("1970-01-01T00:00:00Z")),
        changed(attempt(), "started", json!("9999-12-30T00:00:00Z")),
        changed(attempt(), "attempt", json!(255)),
    ] {
        clock.advance(Duration::from_millis(10));
        Raw::keyed(&key, value).append(&log, "attempts");
    }
    let topic = log.topics().find(Role::Health).unwrap();
    let mut follower = log.follower(topic).unwrap();
    let mut verdicts = Vec::new();
    for _ in 0..2000 {
        let polled = follower.poll(Duration::from_millis(10), &mut |record| {
            let verdict: Health = serde_json::from_slice(record.value.unwrap()).unwrap();
            verdicts.push((verdict.webhook, verdict.state));
        });
        polled.unwrap();
        if verdicts.contains(&(WEBHOOK, State::Disabled)) {
            break;
        }
    }
    assert_eq!(verdicts.last(), Some(&(WEBHOOK, State::Disabled)));
    assert_eq!((ignored("attempts"), ignored("windows")), (bad, 8));
    tokio::task::spawn_blocking(move || service.drain())
        .await
        .unwrap();
}
