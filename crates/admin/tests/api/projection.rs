//! What only a projection can answer, and what is answered when it is out of order.

use std::fs;
use std::time::Duration;

use reqwest::StatusCode;
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::reading::{attempt, events};
use crate::replays::park;
use crate::rig::Rig;

pub(crate) const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

fn event(number: u128) -> String {
    format!("/v1/tenants/acme/events/{}", Uuid::from_u128(number))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_with_all_its_deliveries() {
    let rig = Rig::projecting().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    let gone = Uuid::from_u128(77).to_string();
    for (webhook, number, status) in [
        (&cdr, 1, 503),
        (&cdr, 1, 200),
        (&gone, 1, 503),
        (&cdr, 2, 503),
    ] {
        attempt(&rig, webhook, number, status);
    }
    park(&rig, &cdr, 2, 0, "exhausted");
    let one = rig.get(&event(1)).await;
    let deliveries = one.expect(StatusCode::OK).body["deliveries"]
        .as_array()
        .unwrap();
    let of = |webhook: &str| {
        let mut of = deliveries
            .iter()
            .filter(|delivery| delivery["webhook"] == webhook);
        of.next().unwrap()
    };
    assert_eq!(deliveries.len(), 2);
    assert_eq!(
        (&of(&cdr)["state"], &of(&cdr)["name"]),
        (&json!("delivered"), &json!("cdr"))
    );
    assert_eq!(of(&cdr)["attempts"].as_array().unwrap().len(), 2);
    let waiting = of(&gone);
    assert_eq!(
        (&waiting["state"], &waiting["name"]),
        (&json!("waiting"), &Value::Null)
    );
    assert_eq!(waiting["next"], "retry.32s");

    let two = rig.get(&event(2)).await;
    let parked = &two.expect(StatusCode::OK).body["deliveries"][0];
    assert_eq!(
        (&parked["state"], &parked["reason"]),
        (&json!("parked"), &json!("exhausted"))
    );
    assert_eq!(parked["detail"], "by a test");

    // A replay is seen at once, and what was parked is not waiting any more.
    rig.post(&format!("{CDR}/replay"), json!({"all": true}))
        .await
        .expect(StatusCode::ACCEPTED);
    let two = rig.get(&event(2)).await;
    let states: Vec<_> = two.body["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| (delivery["run"].as_u64(), delivery["state"].as_str()))
        .collect();
    assert_eq!(
        states,
        [(Some(0), Some("parked")), (Some(1), Some("waiting"))]
    );
    let list = rig.get(&format!("{CDR}/parked")).await;
    assert_eq!(list.body["parked"][0]["replayed"], true);

    rig.get(&event(3)).await.problem(404, "no_such_event");
    rig.get("/v1/tenants/acme/events/odd")
        .await
        .problem(404, "no_such_event");
    rig.post("/v1/tenants", json!({"id": "other"})).await;
    let elsewhere = event(1).replace("acme", "other");
    rig.get(&elsewhere).await.problem(404, "no_such_event");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_for_charts() {
    let rig = Rig::projecting().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    for number in 1..=9 {
        attempt(&rig, &cdr, number, if number % 3 == 0 { 503 } else { 200 });
    }
    let stats = rig.get(&format!("{CDR}/stats?step=86400")).await;
    let points = stats.expect(StatusCode::OK).body["points"]
        .as_array()
        .unwrap();
    let sum = |member: &str| {
        points
            .iter()
            .map(|point| point[member].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!(
        (sum("attempts"), sum("delivered")),
        (9, 6),
        "{}",
        stats.text
    );
    assert_eq!(points[0]["mean_ms"], 12);
    assert_eq!(points[0]["p95_ms"], 50);
    assert!(stats.body["as_of"].is_string());
    for wrong in [
        "step=1",
        "since=2999-01-01T00:00:00Z",
        "since=1999-01-01T00:00:00Z&step=60",
        "x=1",
    ] {
        let answer = rig.get(&format!("{CDR}/stats?{wrong}")).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_projection_it_is_said_what_is_missing() {
    let rig = Rig::new().await;
    rig.acme().await;
    rig.get(&event(1)).await.problem(503, "no_projection");
    rig.get(&format!("{CDR}/stats"))
        .await
        .problem(503, "no_projection");
    assert_eq!(
        rig.get("/v1/projection").await.body,
        json!({"state": "none"})
    );
    let rebuild = rig.post("/v1/projection/rebuild", json!({})).await;
    rebuild.problem(503, "no_projection");
}

/// Whatever is wrong with the database: lists say so, configuration goes on, and when it is mended
/// nothing is missing.
pub(crate) async fn out_of_order(rig: &Rig) {
    let list = rig.get(&format!("{CDR}/attempts")).await;
    list.problem(503, "projection_unavailable");
    let files = rig.files();
    assert!(
        !list.text.contains(files.to_str().unwrap()),
        "{}",
        list.text
    );
    for path in [format!("{CDR}/parked"), format!("{CDR}/stats"), event(1)] {
        rig.get(&path).await.problem(503, "projection_unavailable");
    }
    for action in ["pause", "resume"] {
        let done = rig.post(&format!("{CDR}/{action}"), json!({})).await;
        done.expect(StatusCode::OK);
    }
    let status = rig.get("/v1/projection").await;
    assert!(status.body["error"].is_string(), "{}", status.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_waited_for() {
    let rig = Rig::projecting().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    attempt(&rig, &cdr, 1, 200);
    assert_eq!(
        events(&rig.get(&format!("{CDR}/attempts")).await.body, "attempts"),
        [1]
    );
    let file = slice(&rig);
    let other = rusqlite::Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    attempt(&rig, &cdr, 2, 200);
    let status = rig.until("failing").await;
    assert!(
        status["error"].as_str().unwrap().contains("locked"),
        "{status}"
    );
    out_of_order(&rig).await;
    other.execute_batch("ROLLBACK").unwrap();
    rig.until("projecting").await;
    let list = rig.get(&format!("{CDR}/attempts")).await;
    assert_eq!(events(&list.body, "attempts"), [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_built_anew() {
    let rig = Rig::projecting().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    attempt(&rig, &cdr, 1, 200);
    let list = rig.get(&format!("{CDR}/attempts")).await;
    assert_eq!(events(&list.body, "attempts"), [1]);
    // In the place of the directory there is a file: nothing can be made there.
    fs::remove_dir_all(rig.files()).unwrap();
    fs::write(rig.files(), "").unwrap();
    attempt(&rig, &cdr, 2, 200);
    rig.until("failing").await;
    out_of_order(&rig).await;
    fs::remove_file(rig.files()).unwrap();
    rig.until("projecting").await;
    let list = rig.get(&format!("{CDR}/attempts")).await;
    assert_eq!(events(&list.body, "attempts"), [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_removes_is_no_empty_list() {
    let rig = Rig::projecting().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    attempt(&rig, &cdr, 1, 200);
    let path = format!("{CDR}/attempts");
    assert_eq!(events(&rig.get(&path).await.body, "attempts"), [1]);
    fs::remove_dir_all(rig.files()).unwrap();
    loop {
        let list = rig.get(&path).await;
        if list.status == StatusCode::OK {
            assert_eq!(events(&list.body, "attempts"), [1], "{}", list.text);
            if list.body["source"] == "projection" {
                return;
            }
        } else {
            list.problem(503, "projection_unavailable");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_and_what_is_not_ours_is_left_alone() {
    let mut rig = Rig::new().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    attempt(&rig, &cdr, 1, 200);
    fs::create_dir_all(rig.files()).unwrap();
    // Every slice of today and tomorrow, of something else.
    let now = ringback_log::system_clock().now();
    for time in [now, now + Duration::from_secs(86_400)] {
        let day = time.to_string()[..10].replace('-', "");
        let file = rig.files().join(format!("{day}00.sqlite"));
        let other = rusqlite::Connection::open(file).unwrap();
        other.execute_batch("CREATE TABLE precious (x)").unwrap();
    }
    let files = rig.files();
    rig.project(&files);
    let status = rig.until("failing").await;
    assert!(status["error"].is_string(), "{status}");
    out_of_order(&rig).await;
    let other = rusqlite::Connection::open(slice(&rig)).unwrap();
    let tables: i64 = other
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
    assert_eq!(rig.records(Role::Attempts, |_| ()).len(), 1);
}

/// A file of the projection.
fn slice(rig: &Rig) -> std::path::PathBuf {
    let entries = fs::read_dir(rig.files()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut slices: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "sqlite"))
        .collect();
    slices.sort();
    slices.pop().unwrap()
}
