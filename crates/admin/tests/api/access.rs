//! Who may ask, and what is answered to requests that fit nothing.

use reqwest::{Method, StatusCode, header};
use ringback_admin::{Needs, Route, routes};
use ringback_core::account::Scope;
use ringback_log::local::LocalLog;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::{Rig, TOKEN, send};
use crate::sessions::{PASSWORD, Signed};

/// A path with its parameters filled in.
fn filled(path: &str, tenant: &str, token: &str) -> String {
    path.replace("{tenant}", tenant)
        .replace("{webhook}", "cdr")
        .replace("{token}", token)
        .replace("{account}", &format!("{tenant}-admin"))
        .replace("{replay}", "00000000-0000-0000-0000-000000000002")
        .replace("{event}", "00000000-0000-0000-0000-000000000001")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_needs_a_token() {
    let rig = Rig::new().await;
    for route in routes::<LocalLog>() {
        if route.needs == Needs::Public {
            continue;
        }
        let path = filled(route.path, "acme", "none");
        let method: Method = route.method.parse().unwrap();
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
        let forged = rig.client.request(method.clone(), &url);
        let forged = forged.header(header::COOKIE, "ringback=e30");
        send(forged).await.problem(401, "not_signed_in");
        if route.needs == Needs::Session {
            send(rig.request(method, &path))
                .await
                .problem(401, "not_signed_in");
            continue;
        }
        // With the token something else is said, and the route is what the list says.
        let answer = send(rig.request(method, &path)).await;
        for code in ["unauthorized", "no_such_route", "no_such_method"] {
            assert_ne!(answer.body["code"], code, "{path}");
        }
    }
    let answer = send(rig.client.get(format!("{}/anything/else", rig.url))).await;
    answer.problem(401, "unauthorized");
}

/// A token's text and id.
async fn token(rig: &Rig, form: Value) -> (String, String) {
    let added = rig.post("/v1/tokens", form).await;
    let body = &added.expect(StatusCode::CREATED).body;
    let part = |name: &str| body[name].as_str().unwrap().to_owned();
    (part("token"), part("id"))
}

/// By what somebody of a tenant asks.
enum By {
    Token(String),
    Session(Signed),
}

impl By {
    fn ask(&self, rig: &Rig, method: Method, path: &str) -> reqwest::RequestBuilder {
        match self {
            Self::Token(token) => {
                let url = format!("{}{path}", rig.url);
                rig.client.request(method, url).bearer_auth(token)
            }
            Self::Session(signed) => signed.request(rig, method, path),
        }
    }
}

/// One tenant can never see or touch what is another's: on every route there is, what exists and what
/// does not is the same to it, whether it asks by a token or has signed in.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_shows_another_tenant() {
    let rig = Rig::new().await;
    rig.acme().await;
    rig.post("/v1/tenants", json!({ "id": "other" })).await;
    for tenant in ["acme", "other"] {
        let login = format!("{tenant}-admin");
        let account = json!({ "login": login, "tenant": tenant, "password": PASSWORD });
        rig.post("/v1/accounts", account)
            .await
            .expect(StatusCode::CREATED);
    }
    let all = json!(["publish", "read", "write"]);
    let (_, theirs) = token(&rig, json!({ "tenant": "acme", "scopes": all })).await;
    let (mine, id) = token(&rig, json!({ "tenant": "other", "scopes": all })).await;
    let before = rig.get("/v1/tenants/acme/webhooks").await.text;
    let accounts = rig.get("/v1/accounts?tenant=acme").await.text;
    let signed = Signed::by_password(&rig, "other-admin", PASSWORD).await;
    let by_token = Signed::by_token(&rig, &mine).await;
    for by in [By::Token(mine), By::Session(signed), By::Session(by_token)] {
        let ask = async |route: &Route, tenant: &str, token: &str| {
            let path = filled(route.path, tenant, token);
            let request = by.ask(&rig, route.method.parse().unwrap(), &path);
            send(request.header("if-match", "*").json(&json!({}))).await
        };
        for route in routes::<LocalLog>() {
            // These are about the asker alone.
            if matches!(route.needs, Needs::Public | Needs::Session) {
                continue;
            }
            let answer = ask(&route, "acme", &theirs).await;
            let nobodys = ask(&route, "nobody", &Uuid::nil().to_string()).await;
            let what = format!("{route:?}: {}", answer.text);
            match (route.method, route.path) {
                // These name no tenant, and are about the asker's own.
                ("GET", "/v1/tenants" | "/v1/tokens" | "/v1/accounts") | ("POST", "/v1/tokens") => {
                    assert!(!answer.text.contains("acme"), "{what}");
                    assert!(answer.status.is_success(), "{what}");
                }
                ("POST", "/v1/accounts") => answer.problem(400, "invalid_body"),
                _ => {
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what}");
                    assert_eq!(answer.body["code"], nobodys.body["code"], "{what}");
                    let said = answer.text.replace("acme", "nobody");
                    assert_eq!(said, nobodys.text, "{what}");
                }
            }
        }
        let elsewhere =
            |path: &str, body: Value| send(by.ask(&rig, Method::POST, path).json(&body));
        let asked = elsewhere(
            "/v1/tokens",
            json!({ "tenant": "acme", "scopes": ["read"] }),
        );
        asked.await.problem(404, "no_such_tenant");
        let asked = elsewhere("/v1/tokens", json!({ "all_tenants": true }));
        asked.await.problem(400, "invalid_field");
        let asked = elsewhere("/v1/accounts", json!({ "login": "x", "tenant": "acme" }));
        asked.await.problem(404, "no_such_tenant");
        let asked = elsewhere("/v1/accounts", json!({ "login": "x", "role": "operator" }));
        asked.await.problem(403, "operators_only");
    }
    assert_eq!(rig.get("/v1/tenants/acme/webhooks").await.text, before);
    assert_eq!(rig.get("/v1/accounts?tenant=acme").await.text, accounts);
    let tokens = rig.get("/v1/tokens").await;
    for id in [theirs, id] {
        assert!(tokens.text.contains(&id), "{}", tokens.text);
    }
}

/// What changes something is refused to a session that does not show what only its own page knows, and
/// to pages of other sites, on every route there is.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_changed_by_another_site() {
    let rig = Rig::new().await;
    rig.acme().await;
    let signed = Signed::by_token(&rig, TOKEN).await;
    let other = Signed::by_token(&rig, TOKEN).await;
    let before = rig.get("/v1/tenants/acme/webhooks").await.text;
    for route in routes::<LocalLog>() {
        let method: Method = route.method.parse().unwrap();
        let path = filled(route.path, "acme", &Uuid::nil().to_string());
        let bare = || {
            rig.client
                .request(method.clone(), format!("{}{path}", rig.url))
                .header(header::COOKIE, &signed.cookie)
                .header("if-match", "*")
                .json(&json!({}))
        };
        let elsewhere = || bare().header("x-csrf-token", &signed.csrf);
        let sites = [
            elsewhere().header("sec-fetch-site", "cross-site"),
            elsewhere().header("sec-fetch-site", "same-site"),
            elsewhere().header("origin", "https://evil.example"),
            elsewhere().header("origin", "null"),
        ];
        if method == Method::GET {
            let answer = send(bare()).await;
            assert_ne!(answer.body["code"], "csrf", "{route:?}");
            continue;
        }
        for request in sites {
            send(request).await.problem(403, "cross_site");
        }
        if route.needs == Needs::Public {
            continue;
        }
        for request in [
            bare(),
            bare().header("x-csrf-token", ""),
            bare().header("x-csrf-token", &other.csrf),
        ] {
            send(request).await.problem(403, "csrf");
        }
    }
    assert_eq!(rig.get("/v1/tenants/acme/webhooks").await.text, before);
    // From the portal's own page it is let through.
    let own = signed.request(&rig, Method::POST, "/v1/tenants/acme/webhooks/cdr/pause");
    let own = own
        .header("sec-fetch-site", "same-origin")
        .header("origin", &rig.url);
    send(own).await.expect(StatusCode::OK);
}

/// Of one's own, a token opens what its scopes say, on every route there is.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_open_what_they_say() {
    let rig = Rig::new().await;
    rig.acme().await;
    let scoped = async |scope: &str| {
        token(&rig, json!({ "tenant": "acme", "scopes": [scope] }))
            .await
            .0
    };
    let [publish, read, write] = [
        scoped("publish").await,
        scoped("read").await,
        scoped("write").await,
    ];
    for route in routes::<LocalLog>() {
        let Needs::Tenant(needed) = route.needs else {
            continue;
        };
        for (token, open) in [
            (&publish, false),
            (&read, needed == Scope::Read),
            (&write, true),
        ] {
            let path = filled(route.path, "acme", &Uuid::nil().to_string());
            // Nothing happens yet to what may happen.
            let answer = send(
                rig.client
                    .request(route.method.parse().unwrap(), format!("{}{path}", rig.url))
                    .bearer_auth(token)
                    .header("content-type", "text/plain")
                    .header("if-match", "\"999\"")
                    .body("x"),
            )
            .await;
            let refused = answer.body["code"] == "no_such_scope";
            assert_eq!(refused, !open, "{route:?}: {}", answer.text);
            if refused {
                assert_eq!(answer.status, StatusCode::FORBIDDEN);
            }
        }
    }
    for wrong in [
        json!({ "tenant": "acme", "scopes": [] }),
        json!({ "tenant": "acme", "scopes": ["everything"] }),
        json!({ "all_tenants": true, "scopes": ["read"] }),
    ] {
        rig.post("/v1/tokens", wrong)
            .await
            .problem(400, "invalid_field");
    }
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
