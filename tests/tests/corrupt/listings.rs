//! What the administration shows of records that it cannot read.

use ringback_log::sim::{Sim, SimOptions};
use ringback_tests::rig::{Rig, short_schedule, topics};
use serde_json::{Value, json};

use crate::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_administration_counts_what_it_cannot_read_and_goes_on() {
    let schedule = short_schedule();
    let sim = Sim::new(SimOptions::default()).unwrap();
    let rig = Rig::start(sim.open(topics(&schedule)), schedule).await;
    let tenant = rig.tenant().await;
    let url = rig.receiver.url("corrupt");
    let fields = json!({ "subscription": ["*"], "url": url, "enabled": false });
    let webhook = rig.webhook_with(&tenant, "main", fields).await;
    let key = webhook["id"].as_str().unwrap();
    let id = rig.event(&tenant, "cdr.completed").await;
    rig.parked(&tenant, "main", 1).await;

    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let mut damaged = Raw::keyed(key, "{}");
    damaged.headers = vec![header("rb_reason", b"nonsense"), header("ce_id", b"\xff")];
    damaged.append(&rig.log, "parked");
    Raw::keyed(key, "{}").append(&rig.log, "parked");
    let nobodys = Raw {
        key: None,
        headers: vec![header("rb_detail", b"\xff\xfe"), header("x-\u{1}", b"\x00")],
        value: None,
    };
    nobodys.append(&rig.log, "parked");
    for value in [&b"\xff"[..], b"{\"cut\":", b"{}", b""] {
        Raw::keyed(key, value).append(&rig.log, "attempts");
    }
    Raw {
        key: Some(key.to_owned()),
        ..Raw::default()
    }
    .append(&rig.log, "attempts");
    for topic in ["tenants", "accounts"] {
        Raw::keyed("no such id", "{\"cut\":").append(&rig.log, topic);
        Raw::keyed(&tenant.id, "[]").append(&rig.log, topic);
    }

    let path = format!("tenants/{}/webhooks/main", tenant.id);
    let parked = rig.api("GET", &format!("{path}/parked"), Value::Null).await;
    assert_eq!(parked["unreadable"], 2, "{parked}");
    assert_eq!(parked["parked"][0]["event"], json!(id), "{parked}");
    let all = rig.api("GET", "parked", Value::Null).await;
    assert_eq!(all["parked"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(all["parked"][0]["detail"], "\u{fffd}\u{fffd}", "{all}");
    assert!(all["parked"][0]["reason"].is_null(), "{all}");
    let attempts = rig
        .api("GET", &format!("{path}/attempts"), Value::Null)
        .await;
    assert_eq!(attempts["unreadable"], 5, "{attempts}");
    assert_eq!(attempts["attempts"], json!([]), "{attempts}");
    // What the configuration said before holds: this tenant is still there, and its token.
    rig.api("GET", &format!("tenants/{}", tenant.id), Value::Null)
        .await;
    rig.event(&tenant, "cdr.completed").await;
    rig.parked(&tenant, "main", 2).await;

    let replay = json!({ "all": true });
    let replay = rig.api("POST", &format!("{path}/replay"), replay).await;
    assert_eq!(replay["replay"]["unreadable"], 2, "{replay}");
    assert_eq!(replay["replay"]["sent"], 2, "{replay}");
    rig.stop().await;
}
