//! The delivery contract, rule by rule, with the same code on every engine.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::sync::Arc;

use ringback_core::topics::Topics;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::sim::{Sim, SimOptions};
use ringback_tests::contract::{cases, run_all};
use ringback_tests::kafka;
use ringback_tests::rig::{Rig, short_schedule, topics};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_on_the_local_engine() {
    let schedule = short_schedule();
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log, schedule).await;
    run_all(&rig).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_on_the_simulated_engine() {
    let schedule = short_schedule();
    let sim = Sim::new(SimOptions::default()).unwrap();
    let rig = Rig::start(sim.open(topics(&schedule)), schedule).await;
    run_all(&rig).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_on_real_kafka() {
    let schedule = short_schedule();
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
    let log = open(server.bootstrap(), topics(&schedule));
    let rig = Rig::start(log, schedule).await;
    run_all(&rig).await;
    rig.stop().await;
}

#[test]
fn docs_list_every_case() {
    let page = include_str!("../../docs/contract.md");
    let listed: Vec<&str> = page
        .lines()
        .filter(|line| line.ends_with("| ✓ |"))
        .collect();
    let rows = cases::<LocalLog>();
    let rows = rows.iter().map(|case| (case.rule, case.says));
    let rows: Vec<_> = rows
        .map(|(rule, says)| format!("| {rule} | {says} | ✓ | ✓ | ✓ |"))
        .collect();
    assert_eq!(listed, rows);
}

fn open(bootstrap: &str, topics: Arc<Topics>) -> KafkaLog {
    let prefix = topics
        .iter()
        .next()
        .unwrap()
        .1
        .full_name
        .replace("events.cdr", "");
    let config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        group_prefix: prefix,
        ..KafkaConfig::default()
    };
    KafkaLog::open(config, topics).unwrap()
}
