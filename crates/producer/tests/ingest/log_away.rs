//! The log, or the configuration in it, is away: 503 and never a false 202.

use std::time::{Duration, Instant};

use ringback_telemetry::Counter;
use serde_json::json;

use super::faults::Fault;
use super::rig::{JSON, LINES, Rig};

const EVENT: &str = r#"{"type":"cdr.completed","data":{}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_acknowledged_is_not_accepted() {
    let rig = Rig::start().await;
    for fault in [Fault::Unacknowledged, Fault::Forgotten] {
        rig.faults.next([fault]);
        let answer = rig.post(&rig.own, JSON, EVENT).await;
        assert_eq!(
            (answer.status, answer.retry_after),
            (503, true),
            "{fault:?}"
        );
        assert_eq!(answer.body["code"], "unavailable");
    }
    rig.faults.next([Fault::Refused]);
    let answer = rig.post(&rig.own, JSON, EVENT).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (400, &json!("refused_by_log"))
    );
    assert_eq!(rig.accepted().len(), 0);
    assert_eq!(rig.metrics.count(Counter::EventsAccepted, &["cdr"]), 0);
    assert_eq!(
        rig.metrics.count(Counter::EventsRefused, &["unavailable"]),
        2
    );
}

/// Those that may be sent again are told from those that may not, and from those that are durable.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_which_lines_to_send_again() {
    let rig = Rig::start().await;
    rig.faults.next([
        Fault::None,
        Fault::Unacknowledged,
        Fault::Refused,
        Fault::None,
    ]);
    let body = [EVENT, EVENT, "nonsense", "", EVENT, EVENT].join("\n");
    let answer = rig.post(&rig.own, LINES, body).await;
    assert_eq!((answer.status, answer.retry_after), (503, true));
    assert_eq!(answer.body["accepted"], 2);
    let refused: Vec<_> = answer.body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| {
            (
                refused["index"].as_u64().unwrap(),
                refused["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        refused,
        [(1, "unavailable"), (2, "not_json"), (4, "refused_by_log")]
    );
    assert_eq!(rig.accepted().len(), 2);
}

/// A log that is stuck is waited for once, not once per event.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for_once_per_batch() {
    let rig = Rig::start().await;
    rig.faults.always(Fault::QueueFull);
    let lines = 500;
    let body = vec![EVENT; lines].join("\n");
    let answer = rig.post(&rig.own, LINES, body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["refused"].as_array().unwrap().len(), lines);
    // The first one looks again and again; after that, each is tried once.
    let appends = rig.faults.appends();
    assert!((lines + 1..2 * lines).contains(&appends), "{appends}");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_in_a_full_queue_is_waited_for() {
    let rig = Rig::start().await;
    rig.faults.next([Fault::QueueFull; 3]);
    let answer = rig.post(&rig.own, JSON, EVENT).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(rig.accepted().len(), 1);
}

/// Nobody is judged by tokens and tenants that may be out of date.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_configuration_accepts_nothing() {
    let rig = Rig::start().await;
    rig.faults.configuration_away();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = rig.post(&rig.own, JSON, EVENT).await;
        if answer.status == 503 {
            assert!(answer.retry_after);
            break;
        }
        assert!(Instant::now() < deadline, "never stale");
    }
}
