//! What is erased is not shown, wherever it would be read from.

use reqwest::StatusCode;
use ringback_core::topics::Role;
use serde_json::json;

use crate::reading::{attempt, events};
use crate::replays::park;
use crate::rig::Rig;

const ERASURES: &str = "/v1/tenants/acme/erasures";
const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_not_shown_from_the_log() {
    erase(Rig::new().await, "none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_not_shown_from_a_projection() {
    erase(Rig::projecting().await, "erased").await;
}

async fn erase(rig: Rig, projection: &str) {
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    let long = "x".repeat(300);
    for bad in [
        json!({}),
        json!({ "all": true, "subject": "call/1" }),
        json!({ "subject": long }),
    ] {
        let refused = rig.post(ERASURES, bad).await;
        refused.problem(400, "invalid_field");
        assert_eq!(refused.body["field"], "subject");
    }
    attempt(&rig, &cdr, 1, 503);
    park(&rig, &cdr, 1, 0, "exhausted");
    let shown = async |what: &str| {
        let answer = rig.get(&format!("{CDR}/{what}")).await;
        events(&answer.expect(StatusCode::OK).body, what)
    };
    assert_eq!(
        (shown("attempts").await, shown("parked").await),
        (vec![1], vec![1])
    );
    let other = json!({ "subject": "call/another" });
    let answer = rig.post(ERASURES, other).await;
    assert_eq!(
        answer.expect(StatusCode::ACCEPTED).body["projection"],
        projection
    );
    assert_eq!(shown("parked").await, [1]);
    let answer = rig.post(ERASURES, json!({ "all": true })).await;
    assert_eq!(
        answer.expect(StatusCode::ACCEPTED).body["projection"],
        projection
    );
    assert_eq!(
        (shown("attempts").await, shown("parked").await),
        (vec![], vec![])
    );
    let all = json!({ "all": true });
    let replay = rig.post(&format!("{CDR}/replay"), all).await;
    assert_eq!(
        replay.expect(StatusCode::ACCEPTED).body["replay"]["found"],
        0
    );
    attempt(&rig, &cdr, 2, 503);
    assert_eq!(shown("attempts").await, [2], "it came after");
    let listed = rig.get(ERASURES).await.expect(StatusCode::OK).body.clone();
    let of = |index: usize| &listed["erasures"][index];
    assert_eq!(listed["erasures"].as_array().unwrap().len(), 2);
    assert_eq!(
        (of(0)["subject"].as_str(), of(1)["subject"].as_str()),
        (None, Some("call/another"))
    );
    assert_eq!(of(0)["by"]["kind"], "operator_token");
    assert_eq!(listed["log_keeps_seconds"], 14 * 24 * 3600);
    let first = rig.get(&format!("{ERASURES}?limit=1")).await.body;
    let before = first["next"].as_str().unwrap();
    let second = rig
        .get(&format!("{ERASURES}?limit=1&before={before}"))
        .await
        .body;
    assert_eq!(
        (&first["erasures"][0], &second["erasures"][0]),
        (of(0), of(1))
    );
    rig.post("/v1/tenants", json!({ "id": "globex" }))
        .await
        .expect(StatusCode::CREATED);
    let others = rig.get("/v1/tenants/globex/erasures").await.body;
    assert_eq!(others["erasures"], json!([]));
    assert_eq!(rig.records(Role::Erasures, |_| ()).len(), 2);
}
