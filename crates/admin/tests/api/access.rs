//! Who may ask, and what is answered to requests that fit nothing.

use reqwest::{Method, StatusCode, header};
use ringback_admin::ROUTES;
use serde_json::json;

use crate::rig::{Rig, TOKEN, send};

#[tokio::test(flavor = "multi_thread")]
async fn every_route_needs_the_operators_token() {
    let rig = Rig::new().await;
    for (methods, path) in ROUTES {
        let path = path.replace(['{', '}'], "");
        for method in *methods {
            let method: Method = method.parse().unwrap();
            let url = format!("{}{path}", rig.url);
            let bare = rig.client.request(method.clone(), &url);
            let with = |value: String| {
                rig.client
                    .request(method.clone(), &url)
                    .header(header::AUTHORIZATION, value)
            };
            for request in [
                bare,
                with("Bearer wrong".into()),
                with(format!("Basic {TOKEN}")),
                with(TOKEN.into()),
                with(format!("Bearer {TOKEN}x")),
                with("Bearer ".into()),
            ] {
                let answer = send(request).await;
                answer.problem(401, "unauthorized");
                assert!(!answer.text.contains(TOKEN), "{}", answer.text);
            }
            // With the token something else is said, and the route is what the list says.
            let answer = send(rig.request(method, &path)).await;
            for code in ["unauthorized", "no_such_route", "no_such_method"] {
                assert_ne!(answer.body["code"], code, "{path}");
            }
        }
    }
    let answer = send(rig.client.get(format!("{}/anything/else", rig.url))).await;
    answer.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_asked_for_the_right_one() {
    let rig = Rig::new().await;
    let response = rig
        .client
        .get(format!("{}/v1/tenants", rig.url))
        .send()
        .await
        .unwrap();
    let challenge = response.headers()[header::WWW_AUTHENTICATE]
        .to_str()
        .unwrap();
    assert_eq!(challenge, "Bearer realm=\"ringback\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_a_problem() {
    let rig = Rig::new().await;
    rig.acme().await;
    rig.get("/v1/nothing").await.problem(404, "no_such_route");
    rig.delete("/v1/tenants")
        .await
        .problem(405, "no_such_method");
    rig.get("/v1/tenants/nobody")
        .await
        .problem(404, "no_such_tenant");
    rig.get("/v1/tenants/UPPER/webhooks")
        .await
        .problem(404, "no_such_tenant");
    rig.delete("/v1/tokens/rbk_x")
        .await
        .problem(404, "no_such_token");
    for path in ["", "/attempts", "/parked"] {
        let answer = rig
            .get(&format!("/v1/tenants/acme/webhooks/crm{path}"))
            .await;
        answer.problem(404, "no_such_webhook");
    }
    for path in ["pause", "resume", "test", "replay"] {
        let path = format!("/v1/tenants/acme/webhooks/crm/{path}");
        let answer = rig.post(
            &path,
            if path.ends_with("replay") {
                json!({"all": true})
            } else {
                json!({})
            },
        );
        answer.await.problem(404, "no_such_webhook");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_json_of_limited_size() {
    let rig = Rig::new().await;
    let post = |body: String, media: &str| {
        send(
            rig.request(Method::POST, "/v1/tenants")
                .header("content-type", media)
                .body(body),
        )
    };
    post("{".into(), "application/json")
        .await
        .problem(400, "invalid_body");
    post("{\"idd\":1}".into(), "application/json")
        .await
        .problem(400, "invalid_body");
    post("id=acme".into(), "application/x-www-form-urlencoded")
        .await
        .problem(415, "not_json");
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(100_000));
    post(large, "application/json")
        .await
        .problem(413, "unreadable_body");
    let list = rig.get("/v1/tenants").await;
    assert_eq!(list.expect(StatusCode::OK).body["tenants"], json!([]));
    rig.get("/v1/tenants?limit=x")
        .await
        .problem(400, "invalid_parameter");
}
