//! Changes of a webhook's authentication that leave the earlier one good for a while.

use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig, keys};
use crate::secrets::stored;

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

async fn patch(rig: &Rig, form: Value) -> Answer {
    rig.change(Method::PATCH, CDR, ("if-match", "*"), form)
        .await
}

/// With what is changed, and what is tried besides then.
async fn previous(rig: &Rig, form: Value) -> Value {
    let changed = patch(rig, form).await;
    assert!(!changed.text.contains("hunter2"), "{}", changed.text);
    changed.expect(StatusCode::OK).body["previous_authentication"].clone()
}

fn bearer(token: &str, grace: &str) -> Value {
    json!({ "authentication": { "method": "bearer", "token": token, "grace": grace } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_says_for_how_long_the_earlier_one_is_good() {
    let rig = Rig::new().await;
    rig.acme().await;
    // Nobody needs to go on with nothing.
    let none = json!({ "authentication": { "method": "none" } });
    assert_eq!(previous(&rig, none).await, Value::Null);
    let first = bearer("hunter2-1", "1h");
    assert_eq!(previous(&rig, first.clone()).await, Value::Null);

    let kept = previous(&rig, bearer("hunter2-2", "1h")).await;
    assert_eq!(kept["method"], "bearer");
    assert_eq!(kept["token"], json!({ "set": true }));
    assert!(kept["until"].is_string());
    // Whatever else is changed, and the same secret again, leaves it.
    for other in [
        json!({ "rate_limit": 5 }),
        json!({ "url": "https://crm.example.com/other" }),
        bearer("hunter2-2", "24h"),
        json!({ "authentication": { "token": { "set": true } } }),
    ] {
        assert_eq!(previous(&rig, other.clone()).await, kept, "{other}");
    }
    // Another method, and a change without grace or with none.
    let basic =
        json!({ "method": "basic", "username": "pbx", "password": "hunter2", "grace": "30d" });
    let kept = previous(&rig, json!({ "authentication": basic })).await;
    assert_eq!(kept["method"], "bearer");
    let end = json!({ "authentication": { "grace": "0" } });
    assert_eq!(previous(&rig, end).await, Value::Null);
    let kept = previous(&rig, first).await;
    assert_eq!(
        (&kept["method"], &kept["username"]),
        (&json!("basic"), &json!("pbx"))
    );
    let at_once = json!({ "authentication": { "method": "bearer", "token": "hunter2-3" } });
    assert_eq!(previous(&rig, at_once).await, Value::Null);
}

/// A secret is never sent where it was not meant for.
#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_follow_to_another_receiver() {
    let rig = Rig::new().await;
    rig.acme().await;
    patch(&rig, bearer("hunter2-1", "0"))
        .await
        .expect(StatusCode::OK);
    let mut form = bearer("hunter2-2", "1h");
    form["url"] = "https://elsewhere.example.com/".into();
    let refused = patch(&rig, form).await;
    refused.problem(400, "invalid_authentication");
    let kept = previous(&rig, bearer("hunter2-2", "1h")).await;
    assert_eq!(kept["method"], "bearer");
    let moved = json!({ "url": "https://elsewhere.example.com/" });
    assert_eq!(previous(&rig, moved).await, Value::Null);
    for wrong in ["31d", "-1h", "soon", ""] {
        let refused = patch(&rig, bearer("hunter2-3", wrong)).await;
        refused.problem(400, "invalid_authentication");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn master_keys_and_documents_carry_it() {
    let rig = Rig::new().await;
    rig.acme().await;
    patch(&rig, bearer("hunter2-1", "0"))
        .await
        .expect(StatusCode::OK);
    let kept = previous(&rig, bearer("hunter2-2", "1h")).await;
    let rotated = rig.beside(Config::default(), keys("second")).await;
    let resealed = rotated.post("/v1/secrets/reseal", json!({})).await;
    assert_eq!(resealed.body["resealed"], 1, "{}", resealed.text);
    let (record, webhook) = stored(&rig);
    assert!(!record.contains("\"key\":\"first\""), "{record}");
    let previous = webhook.previous_authentication.unwrap();
    let (sealed, field) = previous.authentication.secret().unwrap();
    let token = keys("second").open(sealed, webhook.id, field).unwrap();
    assert_eq!(token.expose(), "hunter2-1");
    assert_eq!(rig.get(CDR).await.body["previous_authentication"], kept);

    let passphrase = "a long enough passphrase";
    let exported = rig
        .post("/v1/export", json!({ "passphrase": passphrase }))
        .await;
    assert!(!exported.text.contains("hunter2"), "{}", exported.text);
    let mut document = exported.expect(StatusCode::OK).body.clone();
    document["passphrase"] = passphrase.into();
    let same = rig.post("/v1/import", document.clone()).await;
    assert_eq!(same.body["unchanged"], 2, "{}", same.text);
    let elsewhere = Rig::new().await;
    let imported = elsewhere.post("/v1/import", document.clone()).await;
    assert_eq!(imported.expect(StatusCode::OK).body["added"], 2);
    let there = elsewhere.get(CDR).await.body["previous_authentication"].clone();
    assert_eq!(there, kept);
    // Without it the configuration is another one.
    let end = json!({ "authentication": { "grace": "0" } });
    patch(&elsewhere, end).await.expect(StatusCode::OK);
    let differs = elsewhere.post("/v1/import", document).await;
    assert_eq!(differs.body["conflicting"], 1, "{}", differs.text);
}
