//! Two administrations at once, over one log.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use serde_json::json;

use crate::rig::{Rig, keys, send};
use crate::sessions::{PASSWORD, Signed};

/// Within this a replica acts on what another has written, or refuses to act at all.
const WITHIN: Duration = Duration::from_secs(2);

/// Asks until the answer is 401, and checks that what was written at `since` was not ignored for longer
/// than it may be. An answer that was on its way when the time was over does not count.
async fn refused_in_time(since: Instant, ask: impl AsyncFn() -> StatusCode) {
    loop {
        let asked = Instant::now();
        match ask().await {
            StatusCode::UNAUTHORIZED => return,
            // It does not know, and does nothing.
            StatusCode::SERVICE_UNAVAILABLE => {}
            other => assert!(asked < since + WITHIN, "{other} after {:?}", asked - since),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_revokes_the_other_refuses() {
    let one = Rig::new().await;
    let other = one.beside(Config::default(), keys("first")).await;
    one.acme().await;
    let account = json!({ "login": "ann", "tenant": "acme", "password": PASSWORD });
    one.post("/v1/accounts", account)
        .await
        .expect(StatusCode::CREATED);
    let form = json!({ "tenant": "acme", "scopes": ["read"] });
    let token = one.post("/v1/tokens", form).await.body;
    let (id, text) = (
        token["id"].as_str().unwrap(),
        token["token"].as_str().unwrap(),
    );
    let by_token = async || {
        let request = other.client.get(format!("{}/v1/tenants/acme", other.url));
        send(request.bearer_auth(text)).await.status
    };
    while by_token().await != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Begun at one, good at the other at once.
    let signed = Signed::by_password(&one, "ann", PASSWORD).await;
    let session = async |rig: &Rig| {
        send(signed.request(rig, Method::GET, "/v1/session"))
            .await
            .status
    };
    assert_eq!(session(&other).await, StatusCode::OK);
    one.delete(&format!("/v1/tokens/{id}"))
        .await
        .expect(StatusCode::OK);
    refused_in_time(Instant::now(), by_token).await;
    let ended = signed
        .request(&other, Method::DELETE, "/v1/session")
        .send()
        .await
        .unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    refused_in_time(Instant::now(), async || session(&one).await).await;
}

/// Of changes of one revision, made at both at once, one is made.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_one_is_made() {
    let one = Rig::new().await;
    let other = one.beside(Config::default(), keys("first")).await;
    one.acme().await;
    let path = "/v1/tenants/acme/webhooks/cdr";
    for round in 0..10 {
        let etag = one.get(path).await.etag().to_owned();
        while other.get(path).await.etag.as_deref() != Some(&etag) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let change = |rig: &Rig, limit: u32| {
            let request = rig.request(Method::PATCH, path).header("if-match", &etag);
            send(request.json(&json!({ "rate_limit": limit })))
        };
        let (a, b) = tokio::join!(change(&one, 2 * round + 1), change(&other, 2 * round + 2));
        let made = [&a, &b]
            .into_iter()
            .filter(|answer| answer.status == StatusCode::OK);
        let made: Vec<_> = made.collect();
        assert_eq!(made.len(), 1, "{} {}", a.text, b.text);
        let lost = if a.status == StatusCode::OK { &b } else { &a };
        lost.problem(412, "revision_changed");
        while one.get(path).await.etag.as_deref() != made[0].etag.as_deref() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            one.get(path).await.body["rate_limit"],
            made[0].body["rate_limit"]
        );
    }
    // Two accounts with one login are one.
    let account = json!({ "login": "ann", "tenant": "acme", "password": PASSWORD });
    let (a, b) = tokio::join!(
        one.post("/v1/accounts", account.clone()),
        other.post("/v1/accounts", account)
    );
    let mut answers = [a.status, b.status];
    answers.sort();
    assert_eq!(answers, [StatusCode::CREATED, StatusCode::CONFLICT]);
}
