//! The schedule changes while deliveries wait on its tiers: nothing is lost, and what is attempted is
//! attempted as it is configured then.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::Log;
use ringback_core::schedule::Schedule;
use ringback_core::topics::{Topics, TopicsConfig, retired_tiers};
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::kafka;
use ringback_tests::receiver::Answer;
use ringback_tests::rig::{Rig, short_schedule, topics_config};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_changed_schedule_drains_its_old_tiers_on_the_local_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let open = |topics| LocalLog::open(&path, topics, LocalOptions::default()).unwrap();
    let names = || LocalLog::existing_topics(&path).unwrap();
    assert!(names().is_empty());
    changed_schedule(&topics_config(), open, names).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_changed_schedule_drains_its_old_tiers_on_kafka() {
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
    let topics = topics_config();
    let config = KafkaConfig {
        bootstrap: server.bootstrap().to_owned(),
        group_prefix: topics.prefix.clone(),
        ..KafkaConfig::default()
    };
    let open = |topics| KafkaLog::open(config.clone(), topics).unwrap();
    let names = || KafkaLog::existing_topics(&config).unwrap();
    changed_schedule(&topics, open, names).await;
}

async fn changed_schedule<L: Log>(
    config: &TopicsConfig,
    open: impl Fn(Arc<Topics>) -> L,
    names: impl Fn() -> Vec<String>,
) {
    // The one tier is long enough that the delivery waits on it over the restart.
    let old = Schedule::new(vec![Duration::from_secs(4)], Duration::from_secs(86_400)).unwrap();
    let rig = Rig::start(open(Topics::new(config, old.tiers())), old).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "old").await;
    rig.webhook(&tenant, "gone", &["*"], "gone").await;
    for path in ["old", "gone"] {
        rig.receiver.behave(path, |_, _, _| Answer::Status(500));
    }
    let id = rig.event(&tenant, "cdr.completed").await;
    let attempts = rig.attempts(&tenant, "main", &id, 1).await;
    assert_eq!(attempts[0]["next"], "retry.4s");
    let gone = rig.attempts(&tenant, "gone", &id, 1).await.remove(0)["webhook"].clone();
    rig.stop().await;

    let new = short_schedule();
    let names = tokio::task::block_in_place(names);
    let retired = retired_tiers(config, new.tiers(), names.iter().map(String::as_str));
    assert_eq!(retired, [Duration::from_secs(4)]);
    let topics = Topics::new(config, &[new.tiers(), &retired].concat());
    let log = tokio::task::block_in_place(|| open(topics));
    let rig = Rig::start(log, new).await;
    // Meanwhile the receiver has moved, and fails once more; the other webhook is removed.
    rig.receiver.first("new", vec![Answer::Status(500)]);
    let path = format!("tenants/{}/webhooks", tenant.id);
    let webhook = json!({ "url": rig.receiver.url("new"), "subscription": ["*"] });
    rig.put(&format!("{path}/main"), webhook).await;
    rig.api("DELETE", &format!("{path}/gone"), Value::Null)
        .await;
    rig.receiver
        .wait("the delivery at its new place", |books| {
            books.is_delivered(&id)
        })
        .await;
    let attempts = rig.attempts(&tenant, "main", &id, 3).await;
    let next: Vec<_> = attempts.iter().map(|attempt| &attempt["next"]).collect();
    // From the old tier to the new schedule's second, since two attempts are made.
    assert_eq!(next, ["retry.4s", "retry.400ms", "delivered"]);
    let parked = format!("parked?webhook={}", gone.as_str().unwrap());
    let parked = rig.list(&parked, "parked", 1).await;
    assert_eq!(
        (&parked[0]["reason"], &parked[0]["event"]),
        (&json!("removed"), &json!(id))
    );
    rig.receiver
        .books(|books| assert!(books.at("gone").is_empty()));
    rig.stop().await;
}
