//! Signing in and out.

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use ringback_admin::{Config, SessionConfig};
use serde_json::{Value, json};

use crate::rig::{Answer, Rig, TOKEN, keys, send};

pub(crate) const PASSWORD: &str = "horses never eat staples";

/// Somebody who has signed in.
pub(crate) struct Signed {
    /// As a browser sends it back.
    pub(crate) cookie: String,
    /// All that was said of it.
    pub(crate) set: String,
    pub(crate) csrf: String,
    pub(crate) body: Value,
}

impl Signed {
    pub(crate) async fn by(rig: &Rig, form: Value) -> Self {
        let url = format!("{}/v1/session", rig.url);
        let response = rig.client.post(url).json(&form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let set = response.headers()[header::SET_COOKIE]
            .to_str()
            .unwrap()
            .to_owned();
        let body: Value = response.json().await.unwrap();
        Self {
            cookie: set.split(';').next().unwrap().to_owned(),
            set,
            csrf: body["csrf"].as_str().unwrap().to_owned(),
            body,
        }
    }

    pub(crate) async fn by_password(rig: &Rig, login: &str, password: &str) -> Self {
        Self::by(rig, json!({ "login": login, "password": password })).await
    }

    pub(crate) async fn by_token(rig: &Rig, token: &str) -> Self {
        Self::by(rig, json!({ "token": token })).await
    }

    pub(crate) fn request(&self, rig: &Rig, method: Method, path: &str) -> reqwest::RequestBuilder {
        rig.client
            .request(method, format!("{}{path}", rig.url))
            .header(header::COOKIE, &self.cookie)
            .header("x-csrf-token", &self.csrf)
    }

    async fn get(&self, rig: &Rig, path: &str) -> Answer {
        send(self.request(rig, Method::GET, path)).await
    }

    async fn sign_out(&self, rig: &Rig) {
        let request = self.request(rig, Method::DELETE, "/v1/session");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
        assert!(set.contains("Max-Age=0"), "{set}");
    }
}

async fn refused(rig: &Rig, form: Value) -> Answer {
    send(
        rig.client
            .post(format!("{}/v1/session", rig.url))
            .json(&form),
    )
    .await
}

/// An account of tenant acme.
async fn ann(rig: &Rig) {
    rig.acme().await;
    let form = json!({ "login": "Ann@acme.example", "name": "Ann", "tenant": "acme", "password": PASSWORD });
    rig.post("/v1/accounts", form)
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_and_out() {
    let rig = Rig::new().await;
    ann(&rig).await;
    let signed = Signed::by_password(&rig, "ann@ACME.example", PASSWORD).await;
    assert!(
        signed.set.ends_with("; HttpOnly; SameSite=Lax"),
        "{}",
        signed.set
    );
    let account = &signed.body["account"];
    assert_eq!(account["login"], "ann@acme.example");
    assert_eq!(account["role"], "tenant_administrator");
    assert_eq!(account["tenant"], "acme");
    assert_eq!(signed.body["scopes"], json!(["read", "write"]));
    let shown = signed.get(&rig, "/v1/session").await;
    assert_eq!(shown.expect(StatusCode::OK).body, signed.body);
    let tenants = signed.get(&rig, "/v1/tenants").await;
    assert_eq!(tenants.body["tenants"][0]["id"], "acme");
    let paused = signed.request(&rig, Method::POST, "/v1/tenants/acme/webhooks/cdr/pause");
    send(paused).await.expect(StatusCode::OK);
    signed
        .get(&rig, "/v1/projection")
        .await
        .problem(404, "no_such_route");
    let other = Signed::by_password(&rig, "ann@acme.example", PASSWORD).await;
    signed.sign_out(&rig).await;
    signed
        .get(&rig, "/v1/session")
        .await
        .problem(401, "not_signed_in");
    signed
        .get(&rig, "/v1/tenants")
        .await
        .problem(401, "not_signed_in");
    // Another session of hers goes on.
    other.get(&rig, "/v1/session").await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_sign_in() {
    let rig = Rig::new().await;
    rig.acme().await;
    let operator = Signed::by_token(&rig, TOKEN).await;
    assert_eq!(operator.body["account"]["role"], "operator");
    operator
        .get(&rig, "/v1/projection")
        .await
        .expect(StatusCode::OK);
    let form = json!({ "tenant": "acme", "name": "reader", "scopes": ["read"] });
    let token = rig.post("/v1/tokens", form).await.body;
    let reader = Signed::by_token(&rig, token["token"].as_str().unwrap()).await;
    assert_eq!(reader.body["account"]["name"], "reader");
    assert_eq!(reader.body["account"]["tenant"], "acme");
    assert_eq!(reader.body["scopes"], json!(["read"]));
    reader
        .get(&rig, "/v1/tenants/acme")
        .await
        .expect(StatusCode::OK);
    reader
        .get(&rig, "/v1/tokens")
        .await
        .problem(403, "no_such_scope");
    let own = reader.request(&rig, Method::PUT, "/v1/session/password");
    let own = own.json(&json!({ "current": "x", "new": PASSWORD }));
    send(own).await.problem(409, "no_password");
    // A removed token ends its sessions.
    let path = format!("/v1/tokens/{}", token["id"].as_str().unwrap());
    rig.delete(&path).await.expect(StatusCode::OK);
    reader
        .get(&rig, "/v1/tenants/acme")
        .await
        .problem(401, "not_signed_in");
    let publisher = rig
        .post("/v1/tokens", json!({ "tenant": "acme" }))
        .await
        .body;
    refused(&rig, json!({ "token": publisher["token"] }))
        .await
        .problem(403, "no_such_scope");
    refused(&rig, json!({ "token": "wrong" }))
        .await
        .problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_wrong_is_not_told_what() {
    let rig = Rig::new().await;
    ann(&rig).await;
    let id = rig.get("/v1/accounts/ann@acme.example").await.body["id"].clone();
    let known = refused(
        &rig,
        json!({ "login": "ann@acme.example", "password": "wrong" }),
    )
    .await;
    known.problem(401, "sign_in_refused");
    for (login, password) in [
        (json!("bob"), "wrong"),
        (id, PASSWORD),
        (json!("not a login"), PASSWORD),
        (json!("ann@acme.example"), &*"x".repeat(2000)),
        (json!("ann@acme.example"), ""),
    ] {
        let other = refused(&rig, json!({ "login": login, "password": password })).await;
        assert_eq!(other.text, known.text);
    }
    for wrong in [
        json!({}),
        json!({ "login": "ann" }),
        json!({ "login": "a", "password": "b", "token": "c" }),
    ] {
        refused(&rig, wrong).await.problem(400, "invalid_field");
    }
}

/// A new password ends the other sessions, also those of another administration; this one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_sessions() {
    let rig = Rig::new().await;
    ann(&rig).await;
    let [old, current] = [
        Signed::by_password(&rig, "ann@acme.example", PASSWORD).await,
        Signed::by_password(&rig, "ann@acme.example", PASSWORD).await,
    ];
    let put = async |current: &Signed, form: Value| {
        let request = current.request(&rig, Method::PUT, "/v1/session/password");
        request.json(&form).send().await.unwrap()
    };
    let new = "another that is long";
    let wrong = put(&current, json!({ "current": "wrong", "new": new })).await;
    assert_eq!(wrong.status(), StatusCode::FORBIDDEN);
    let weak = put(
        &current,
        json!({ "current": PASSWORD, "new": "ann@acme.example1" }),
    )
    .await;
    assert_eq!(weak.status(), StatusCode::BAD_REQUEST);
    let weak: Value = weak.json().await.unwrap();
    assert_eq!(
        (&weak["code"], &weak["field"]),
        (&json!("weak_password"), &json!("new"))
    );
    old.get(&rig, "/v1/session").await.expect(StatusCode::OK);
    let changed = put(&current, json!({ "current": PASSWORD, "new": new })).await;
    assert_eq!(changed.status(), StatusCode::OK);
    let set = changed.headers()[header::SET_COOKIE].to_str().unwrap();
    let going_on = Signed {
        cookie: set.split(';').next().unwrap().to_owned(),
        set: set.to_owned(),
        csrf: current.csrf.clone(),
        body: Value::Null,
    };
    going_on
        .get(&rig, "/v1/session")
        .await
        .expect(StatusCode::OK);
    for over in [&old, &current] {
        over.get(&rig, "/v1/session")
            .await
            .problem(401, "not_signed_in");
    }
    refused(
        &rig,
        json!({ "login": "ann@acme.example", "password": PASSWORD }),
    )
    .await
    .problem(401, "sign_in_refused");
    let again = Signed::by_password(&rig, "ann@acme.example", new).await;
    // So does the removal of the account.
    rig.delete("/v1/accounts/ann@acme.example")
        .await
        .expect(StatusCode::OK);
    for over in [&going_on, &again] {
        over.get(&rig, "/v1/session")
            .await
            .problem(401, "not_signed_in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down() {
    let rig = Rig::new().await;
    ann(&rig).await;
    let guess = async |login: &str, password: &str| {
        let form = json!({ "login": login, "password": password });
        let url = format!("{}/v1/session", rig.url);
        rig.client.post(url).json(&form).send().await.unwrap()
    };
    // The limit is lifted by one each ten seconds: on a busy machine more are let through.
    let mut refused = None;
    for _ in 0..200 {
        let answer = guess("ann@acme.example", "a wrong password").await;
        if answer.status() != StatusCode::UNAUTHORIZED {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("guessing is never refused");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.headers()[header::RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "too_many_sign_ins");
    // Others are not affected.
    Signed::by_token(&rig, TOKEN).await;
}

/// What one administration has begun another goes on with, also after both were started anew; and what
/// one has ended is over everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_good_everywhere_and_after_a_restart() {
    let rig = Rig::new().await;
    ann(&rig).await;
    let signed = Signed::by_password(&rig, "ann@acme.example", PASSWORD).await;
    let other = rig.beside(Config::default(), keys("first")).await;
    assert_eq!(signed.get(&other, "/v1/session").await.body, signed.body);
    signed.sign_out(&other).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while signed.get(&rig, "/v1/session").await.status != StatusCode::UNAUTHORIZED {
        assert!(
            std::time::Instant::now() < deadline,
            "the session is not over"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let restarted = rig.beside(Config::default(), keys("first")).await;
    signed
        .get(&restarted, "/v1/session")
        .await
        .problem(401, "not_signed_in");
    // The log has an id, and nothing that anybody could sign in with.
    let csrf = signed.csrf.clone();
    let records = rig.records(ringback_core::topics::Role::Accounts, |record| {
        String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()
    });
    assert!(
        records.iter().any(|record| record.contains("until")),
        "{records:?}"
    );
    assert!(
        records
            .iter()
            .all(|record| !record.contains(&csrf) && !record.contains(PASSWORD))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_the_cookie_is_for_tls_alone() {
    let session = SessionConfig {
        secure: true,
        ..SessionConfig::default()
    };
    let rig = Rig::with(Config {
        session,
        ..Config::default()
    })
    .await;
    let signed = Signed::by_token(&rig, TOKEN).await;
    assert!(signed.set.starts_with("__Host-ringback="), "{}", signed.set);
    assert!(
        signed.set.ends_with("; HttpOnly; SameSite=Lax; Secure"),
        "{}",
        signed.set
    );
    signed.get(&rig, "/v1/session").await.expect(StatusCode::OK);
}
