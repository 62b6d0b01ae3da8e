//! When tokens were used last.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use ringback_core::account::uses::TokenUse;
use ringback_core::topics::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::{Rig, keys, send};

/// Waits until this is so; others write it.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn uses(rig: &Rig) -> Vec<Option<TokenUse>> {
    rig.records(Role::Uses, |record| {
        let value = record.value?;
        let used: TokenUse = serde_json::from_slice(value).unwrap();
        assert_eq!(record.key, Some(used.token.to_string().as_bytes()));
        Some(used)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_when_it_was_used_last() {
    let rig = Rig::new().await;
    rig.acme().await;
    let form = json!({ "tenant": "acme", "scopes": ["read"] });
    let added = rig.post("/v1/tokens", form).await;
    let added = &added.expect(StatusCode::CREATED).body;
    assert_eq!(added["last_used"], Value::Null);
    let text = added["token"].as_str().unwrap();
    for _ in 0..3 {
        let asked = rig.client.get(format!("{}/v1/tenants", rig.url));
        let asked = send(asked.bearer_auth(text)).await;
        asked.expect(StatusCode::OK);
    }
    let shown = until(async || {
        let tokens = rig.get("/v1/tokens").await;
        let used = tokens.expect(StatusCode::OK).body["tokens"][0]["last_used"].clone();
        used.is_string().then_some(used)
    });
    let shown = shown.await;
    assert!(shown.as_str() >= added["created"].as_str(), "{shown}");
    let first = uses(&rig);
    assert_eq!(json!(first[0].as_ref().unwrap().used), shown);

    // A session is a use, too; another process notes it for itself.
    let other = rig.beside(Config::default(), keys("first")).await;
    let form = json!({ "token": text });
    let signed_in = send(
        other
            .client
            .post(format!("{}/v1/session", other.url))
            .json(&form),
    )
    .await;
    signed_in.expect(StatusCode::CREATED);
    let second = until(async || Some(uses(&rig)).filter(|now| *now != first)).await;
    // Once in a while, not once for each request.
    assert!(second[0].as_ref().unwrap().used > first[0].as_ref().unwrap().used);
    // Who is not let in uses nothing.
    let refused = rig
        .client
        .request(Method::GET, format!("{}/v1/tenants", rig.url));
    let refused = send(refused.bearer_auth(format!("{text}x"))).await;
    refused.problem(401, "unauthorized");
    assert_eq!(uses(&rig), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_of_removed_tokens_are_forgotten() {
    let rig = Rig::new().await;
    let gone = Uuid::from_u128(7);
    let used = json!({ "version": 1, "token": gone, "used": "2026-11-21T09:30:00Z" });
    let (key, used) = (gone.to_string(), used.to_string());
    rig.append(Role::Uses, Some(&key), &[], used.as_bytes());
    // Each looks when it starts.
    let _other = rig.beside(Config::default(), keys("first")).await;
    until(async || uses(&rig).contains(&None).then_some(())).await;
}
