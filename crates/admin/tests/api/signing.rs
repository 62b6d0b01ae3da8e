//! Signing keys: made, shown on request, rotated, carried along.

use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use ringback_core::log::Revision;
use ringback_core::signature::Kind;
use serde_json::{Value, json};

use crate::rig::{Rig, keys, send};
use crate::secrets::stored;

const WEBHOOKS: &str = "/v1/tenants/acme/webhooks";
const SECRET: &str = "/v1/tenants/acme/webhooks/cdr/secret";
const ROTATE: &str = "/v1/tenants/acme/webhooks/cdr/secret/rotate";
const OWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const WHSK: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const WHPK: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// The secrets and public keys, in the order of their signatures.
fn shown(body: &Value) -> Vec<String> {
    let keys = body["signing"].as_array().unwrap().iter();
    let text = |key: &Value| match key["kind"].as_str().unwrap() {
        "hmac" => key["secret"].as_str().unwrap().to_owned(),
        _ => key["public_key"].as_str().unwrap().to_owned(),
    };
    keys.map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_webhook_has_a_key_that_is_shown_on_request_only() {
    let rig = Rig::new().await;
    let added = rig.acme().await;
    let secret = shown(&added).remove(0);
    assert!(secret.starts_with("whsec_") && secret.len() == 50);
    assert_eq!(
        shown(&rig.get(SECRET).await.expect(StatusCode::OK).body),
        [&*secret]
    );
    for path in [WEBHOOKS, "/v1/tenants/acme/webhooks/cdr"] {
        let listed = rig.get(path).await;
        assert!(!listed.text.contains(&secret), "{}", listed.text);
    }
    let webhook = rig.get("/v1/tenants/acme/webhooks/cdr").await.body;
    assert_eq!(webhook["signing"][0]["kind"], "hmac");
    assert_eq!(webhook["signing"][0].as_object().unwrap().len(), 3);
    // Each webhook has its own, or the one that was brought along.
    let own =
        json!({ "preset": "extension", "url": "https://x.example.com/", "signing_secret": OWN });
    let own = rig.post(WEBHOOKS, own).await;
    assert_eq!(shown(&own.expect(StatusCode::CREATED).body), [OWN]);
    assert_ne!(secret, OWN);
    for (wrong, code) in [
        ("whsec_c2hvcnQ=", "invalid_signing_secret"),
        (WHSK, "invalid_signing_secret"),
    ] {
        let form = json!({ "name": "x", "subscription": ["*"], "url": "https://x.example.com/", "signing_secret": wrong });
        let refused = rig.post(WEBHOOKS, form).await;
        refused.problem(400, code);
        assert!(!refused.text.contains(wrong), "{}", refused.text);
    }
    let put = json!({ "url": "https://x.example.com/", "signing_secret": OWN });
    let path = "/v1/tenants/acme/webhooks/cdr";
    let put = rig.change(Method::PUT, path, ("if-match", "*"), put).await;
    put.problem(400, "invalid_field");
    // What replaces a webhook keeps its keys.
    let put = json!({ "url": "https://y.example.com/" });
    let put = rig.change(Method::PUT, path, ("if-match", "*"), put).await;
    put.expect(StatusCode::OK);
    assert_eq!(shown(&rig.get(SECRET).await.body), [&*secret]);
    rig.get("/v1/tenants/acme/webhooks/none/secret")
        .await
        .problem(404, "no_such_webhook");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_adds_a_key_beside_the_old_one() {
    let rig = Rig::new().await;
    let first = shown(&rig.acme().await).remove(0);
    let rotated = rig.post(ROTATE, json!({ "grace": "1h" })).await;
    let body = &rotated.expect(StatusCode::OK).body;
    let second = shown(body).remove(0);
    assert_eq!(shown(body), [&*second, &*first]);
    assert!(body["signing"][0]["until"].is_null());
    assert!(body["signing"][1]["until"].is_string());
    // Ed25519 comes beside HMAC, and shows its public key alone.
    let ed25519 = rig.post(ROTATE, json!({ "secret": WHSK })).await;
    assert_eq!(shown(&ed25519.body), [&*second, &*first, WHPK]);
    assert!(!ed25519.text.contains("whsk_"), "{}", ed25519.text);
    let made = rig
        .post(ROTATE, json!({ "kind": "ed25519", "grace": "0" }))
        .await;
    let public = shown(&made.body).remove(2);
    assert_eq!(shown(&made.body), [&*second, &*first, &*public]);
    assert!(public.starts_with("whpk_") && public != WHPK);
    rig.post(ROTATE, json!({ "secret": first }))
        .await
        .problem(409, "signing_secret_in_use");
    rig.post(ROTATE, json!({})).await.expect(StatusCode::OK);
    rig.post(ROTATE, json!({}))
        .await
        .problem(409, "too_many_signing_keys");
    let last = rig
        .post(ROTATE, json!({ "grace": "0", "secret": OWN }))
        .await;
    assert_eq!(shown(&last.body), [OWN, &*public]);
    // Only what was read may be changed, if that is asked for.
    let stale = rig
        .request(Method::POST, ROTATE)
        .header("if-match", rotated.etag());
    send(stale.json(&json!({})))
        .await
        .problem(412, "revision_changed");
    let removed = rig.delete(&format!("{SECRET}/ed25519")).await;
    assert_eq!(shown(&removed.expect(StatusCode::OK).body), [OWN]);
    let again = rig.delete(&format!("{SECRET}/ed25519")).await;
    assert_eq!(again.expect(StatusCode::OK).etag(), removed.etag());
    let (record, webhook) = stored(&rig);
    let kinds: Vec<_> = webhook.signing.iter().map(|key| key.kind).collect();
    assert_eq!(kinds, [Kind::Hmac]);
    assert!(!record.contains("whs"), "{record}");
}

/// Records of before have none: they say so, and get one by a rotation.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_of_before_gets_its_first_key_by_a_rotation() {
    let rig = Rig::new().await;
    let revision = Revision(rig.acme().await["revision"].as_i64().unwrap());
    let (_, webhook) = stored(&rig);
    let mut record = serde_json::to_value(&webhook).unwrap();
    record.as_object_mut().unwrap().remove("signing");
    rig.put(&webhook.key(), revision, &record);
    let before = rig.get("/v1/tenants/acme/webhooks/cdr").await.body;
    assert_eq!(before["signing"], json!([]));
    assert!(
        before["warnings"][0]
            .as_str()
            .unwrap()
            .contains("not signed")
    );
    assert_eq!(rig.get(SECRET).await.body["signing"], json!([]));
    let rotated = rig.post(ROTATE, json!({})).await;
    assert_eq!(shown(&rotated.expect(StatusCode::OK).body).len(), 1);
    let after = rig.get("/v1/tenants/acme/webhooks/cdr").await.body;
    assert_eq!(after["warnings"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn master_keys_and_documents_carry_the_signing_keys() {
    let rig = Rig::new().await;
    rig.acme().await;
    rig.post(ROTATE, json!({ "secret": WHSK })).await;
    let before = shown(&rig.get(SECRET).await.body);
    let rotated = rig.beside(Config::default(), keys("second")).await;
    let resealed = rotated.post("/v1/secrets/reseal", json!({})).await;
    assert_eq!(resealed.body["resealed"], 1);
    let (record, _) = stored(&rig);
    assert!(!record.contains("\"key\":\"first\""), "{record}");
    assert_eq!(shown(&rotated.get(SECRET).await.body), before);

    let passphrase = "a long enough passphrase";
    let exported = rig
        .post("/v1/export", json!({ "passphrase": passphrase }))
        .await;
    let mut document = exported.expect(StatusCode::OK).body.clone();
    assert!(!exported.text.contains("whs"), "{}", exported.text);
    document["passphrase"] = passphrase.into();
    let same = rig.post("/v1/import", document.clone()).await;
    assert_eq!(same.body["unchanged"], 2, "{}", same.text);
    let elsewhere = Rig::new().await;
    let imported = elsewhere.post("/v1/import", document.clone()).await;
    assert_eq!(imported.expect(StatusCode::OK).body["added"], 2);
    assert_eq!(shown(&elsewhere.get(SECRET).await.body), before);
    // Other keys are a difference.
    elsewhere.post(ROTATE, json!({})).await;
    let differs = elsewhere.post("/v1/import", document.clone()).await;
    assert_eq!(differs.body["conflicting"], 1, "{}", differs.text);
    // A document that was changed by hand is no way around the rules.
    document["replace"] = true.into();
    document["webhooks"][0]["signing"][0]["kind"] = "ed25519".into();
    let wrong = elsewhere.post("/v1/import", document).await;
    wrong.problem(400, "invalid_signing_secret");
}
