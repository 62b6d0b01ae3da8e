//! The log goes away and comes back: never a false 202, and what was acknowledged arrives.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_tests::kafka::{KafkaOptions, KafkaServer};
use ringback_tests::rig::{Rig, TestTenant, short_schedule, topics};
use serde_json::{Value, json};

/// Posts one event: its id when it was accepted, otherwise the status and whether the sender was told
/// when to come back.
async fn post(rig: &Rig<KafkaLog>, tenant: &TestTenant) -> Result<String, (u16, bool)> {
    let url = format!("{}/v1/events", rig.ingest);
    let event = json!({ "type": "cdr.completed", "data": {} });
    let request = rig.client.post(url).bearer_auth(&tenant.token).json(&event);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let retry_after = response.headers().contains_key("retry-after");
    let answer: Value = response.json().await.unwrap();
    match status {
        202 => Ok(answer["id"].as_str().unwrap().to_owned()),
        _ => Err((status, retry_after)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kafka_away_is_503_and_nothing_accepted_is_lost() {
    let start = || KafkaServer::start_with(&KafkaOptions::default());
    let mut server = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let schedule = short_schedule();
    let config = KafkaConfig {
        bootstrap: server.bootstrap().to_owned(),
        ..KafkaConfig::default()
    };
    let log = KafkaLog::open(config, topics(&schedule)).unwrap();
    let rig = Rig::start(log, schedule).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "away").await;
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(post(&rig, &tenant).await.unwrap());
    }
    server.kill().unwrap();
    // From some moment on every answer is 503; until then an answer may only be a true 202.
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while refused < 5 {
        assert!(Instant::now() < deadline, "the ingest never notices");
        match post(&rig, &tenant).await {
            Ok(id) => accepted.push(id),
            Err(answer) => {
                assert_eq!(answer, (503, true));
                refused += 1;
            }
        }
    }
    let restart = move || {
        server.restart().unwrap();
        server
    };
    // Kept until the end: dropped, it would stop.
    let _server = tokio::task::spawn_blocking(restart).await.unwrap();
    // It works again by itself.
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        match post(&rig, &tenant).await {
            Ok(id) => break accepted.push(id),
            Err((status, retry_after)) => assert_eq!((status, retry_after), (503, true)),
        }
        assert!(Instant::now() < deadline, "the ingest does not recover");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    rig.receiver
        .wait("every accepted event arrived", |books| {
            accepted.iter().all(|id| books.is_delivered(id))
        })
        .await;
    rig.stop().await;
}
