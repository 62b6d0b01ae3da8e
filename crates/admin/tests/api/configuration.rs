//! Tenants, webhooks and tokens.

use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use serde_json::{Value, json};

use crate::rig::Rig;

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_added_listed_and_removed_with_what_they_own() {
    let rig = Rig::new().await;
    rig.acme().await;
    let beta = rig.change(
        Method::PUT,
        "/v1/tenants/beta",
        ("if-none-match", "*"),
        json!({"title": "Beta AG"}),
    );
    assert_eq!(
        beta.await.expect(StatusCode::CREATED).body["title"],
        "Beta AG"
    );
    rig.post("/v1/tenants", json!({"id": "acme"}))
        .await
        .problem(409, "tenant_exists");
    rig.post("/v1/tenants", json!({"id": "Acme!"}))
        .await
        .problem(400, "invalid_field");
    rig.post("/v1/tenants", json!({}))
        .await
        .problem(400, "invalid_field");
    let put = rig
        .change(
            Method::PUT,
            "/v1/tenants/acme",
            ("if-match", "*"),
            json!({}),
        )
        .await;
    put.problem(428, "precondition_required");

    let first = rig.get("/v1/tenants?limit=1").await;
    assert_eq!(first.body["tenants"][0]["id"], "acme");
    assert_eq!(first.body["tenants"][0]["webhooks"], 1);
    assert_eq!(first.body["next"], "acme");
    let second = rig.get("/v1/tenants?limit=1&after=acme").await;
    assert_eq!(second.body["tenants"][0]["id"], "beta");
    assert_eq!(second.body["next"], Value::Null);

    let token = rig
        .post("/v1/tokens", json!({"name": "pbx", "tenant": "acme"}))
        .await;
    let token = token.expect(StatusCode::CREATED).body["id"].clone();
    let other = rig
        .post("/v1/tokens", json!({"name": "all", "all_tenants": true}))
        .await;
    let removed = rig.delete("/v1/tenants/acme").await;
    let tokens = json!([{"id": token, "name": "pbx"}]);
    let expected = json!({"tenant": "acme", "webhooks": ["cdr"], "tokens": tokens, "accounts": []});
    assert_eq!(removed.expect(StatusCode::OK).body["removed"], expected);
    rig.get("/v1/tenants/acme")
        .await
        .problem(404, "no_such_tenant");
    let tokens = rig.get("/v1/tokens").await;
    assert_eq!(tokens.body["tokens"].as_array().unwrap().len(), 1);
    assert_eq!(tokens.body["tokens"][0]["id"], other.body["id"]);
    assert_eq!(rig.directory.read().webhook_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_added_shown_changed_and_removed() {
    let rig = Rig::new().await;
    let added = rig.acme().await;
    assert_eq!(added["title"], "CDR Events");
    assert_eq!(added["subscription"], json!(["cdr.*"]));
    assert_eq!(added["authentication"], json!({"method": "none"}));
    assert_eq!(
        (&added["enabled"], &added["generation"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(
        (&added["acknowledge"], &added["warnings"]),
        (&json!("200"), &json!([]))
    );

    // The secret is shown at first only.
    let mut added = added;
    let key = added["signing"][0].as_object_mut().unwrap();
    assert!(key.remove("secret").is_some());
    let by_name = rig.get(CDR).await;
    assert_eq!(by_name.body, added);
    let id = added["id"].as_str().unwrap();
    assert_eq!(
        rig.get(&format!("/v1/tenants/acme/webhooks/{id}"))
            .await
            .body,
        added
    );

    let change = json!({"url": "http://127.0.0.1:8090/cdr", "acknowledge": "2xx"});
    let changed = rig
        .change(Method::PATCH, CDR, ("if-match", by_name.etag()), change)
        .await;
    assert_eq!(changed.expect(StatusCode::OK).body["acknowledge"], "2xx");
    assert_eq!(changed.body["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(changed.body["id"], added["id"]);
    assert_ne!(changed.etag(), by_name.etag());
    // Changing nothing writes nothing.
    let same = rig
        .change(
            Method::PATCH,
            CDR,
            ("if-match", "*"),
            json!({"acknowledge": "2xx"}),
        )
        .await;
    assert_eq!(same.etag(), changed.etag());

    let stale = rig.change(
        Method::PATCH,
        CDR,
        ("if-match", by_name.etag()),
        json!({"enabled": false}),
    );
    stale.await.problem(412, "revision_changed");
    let blind = rig
        .request(Method::PATCH, CDR)
        .json(&json!({"enabled": false}));
    crate::rig::send(blind)
        .await
        .problem(428, "precondition_required");

    let replaced = json!({"url": "https://crm.example.com/2"});
    let replaced = rig
        .change(Method::PUT, CDR, ("if-match", changed.etag()), replaced)
        .await;
    assert_eq!(replaced.expect(StatusCode::OK).body["acknowledge"], "200");
    let listed = rig.get("/v1/tenants/acme/webhooks").await;
    assert_eq!(listed.body["webhooks"], json!([replaced.body]));

    let removed = rig.delete(CDR).await;
    assert_eq!(
        removed.expect(StatusCode::OK).body["removed"]["webhook"],
        replaced.body
    );
    rig.get(CDR).await.problem(404, "no_such_webhook");
    let form = json!({"url": "https://crm.example.com/3"});
    let again = rig
        .change(Method::PUT, CDR, ("if-none-match", "*"), form)
        .await;
    assert_ne!(again.expect(StatusCode::CREATED).body["id"], added["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_webhooks_need_a_subscription_and_are_checked() {
    let rig = Rig::new().await;
    rig.acme().await;
    let url = "https://crm.example.com/";
    let custom = json!({"name": "crm", "subscription": ["call.*", "cdr.completed"], "url": url});
    let added = rig.post("/v1/tenants/acme/webhooks", custom.clone()).await;
    assert_eq!(
        added.expect(StatusCode::CREATED).body["preset"],
        Value::Null
    );
    rig.post("/v1/tenants/acme/webhooks", custom)
        .await
        .problem(409, "webhook_exists");
    for wrong in [
        json!({"name": "x", "url": url}),
        json!({"name": "x", "url": url, "subscription": ["call*"]}),
        json!({"name": "x", "url": "ftp://host/", "subscription": ["*"]}),
        json!({"name": "X Y", "url": url, "subscription": ["*"]}),
        json!({"preset": "cdr", "name": "x", "url": url}),
    ] {
        let answer = rig.post("/v1/tenants/acme/webhooks", wrong).await;
        answer.problem(400, "invalid_field");
    }
    let unknown = json!({"name": "x", "url": url, "subscription": ["*"], "enabld": true});
    rig.post("/v1/tenants/acme/webhooks", unknown)
        .await
        .problem(400, "invalid_body");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_turn_the_switch_and_keep_the_generation() {
    let rig = Rig::new().await;
    rig.acme().await;
    for (path, enabled) in [("pause", false), ("pause", false), ("resume", true)] {
        let answer = rig.post(&format!("{CDR}/{path}"), json!({})).await;
        assert_eq!(answer.expect(StatusCode::OK).body["enabled"], enabled);
        assert_eq!(answer.body["generation"], 0);
        // Whoever has written reads what was written.
        assert_eq!(rig.get(CDR).await.body, answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_can_be_forbidden() {
    let rig = Rig::with(Config {
        forbid_http: true,
        ..Config::default()
    })
    .await;
    rig.acme().await;
    let plain = json!({"preset": "extension", "url": "http://crm.example.com/"});
    rig.post("/v1/tenants/acme/webhooks", plain)
        .await
        .problem(400, "http_forbidden");
    let change = json!({"url": "http://crm.example.com/"});
    let answer = rig
        .change(Method::PATCH, CDR, ("if-match", "*"), change)
        .await;
    answer.problem(400, "http_forbidden");
}

/// What can never be reached is said before it is tried (docs/addresses.md).
#[tokio::test(flavor = "multi_thread")]
async fn urls_that_lead_nowhere_are_refused() {
    let rig = Rig::new().await;
    rig.acme().await;
    for (url, code, text) in [
        (
            "https://10.1.2.3/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "http://0x0a010203/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "https://[::ffff:169.254.169.254]/",
            "address_refused",
            "a cloud metadata address",
        ),
        ("https://crm.example.com:25/", "port_refused", "port 25"),
        (
            "https://u:hunter2@crm.example.com/",
            "invalid_field",
            "as authentication",
        ),
    ] {
        for answer in [
            rig.post(
                "/v1/tenants/acme/webhooks",
                json!({"preset": "extension", "url": url}),
            )
            .await,
            rig.change(Method::PATCH, CDR, ("if-match", "*"), json!({"url": url}))
                .await,
        ] {
            let shown = answer.body.to_string();
            assert_eq!(answer.body["field"], "url", "{shown}");
            assert!(
                shown.contains(text) && !shown.contains("hunter2"),
                "{shown}"
            );
            answer.problem(400, code);
        }
    }
    let open = json!({"preset": "extension", "url": "http://127.0.0.1:8090/"});
    assert_eq!(
        rig.post("/v1/tenants/acme/webhooks", open).await.status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_add_at_once_one_succeeds() {
    let rig = Rig::new().await;
    rig.acme().await;
    let form = json!({"preset": "extension", "url": "https://crm.example.com/"});
    let adds: Vec<_> = (0..16)
        .map(|_| {
            let request = rig
                .request(Method::POST, "/v1/tenants/acme/webhooks")
                .json(&form);
            tokio::spawn(crate::rig::send(request))
        })
        .collect();
    let mut added = 0;
    for add in adds {
        let answer = add.await.unwrap();
        match answer.status {
            StatusCode::CREATED => added += 1,
            _ => answer.problem(409, "webhook_exists"),
        }
    }
    assert_eq!(added, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_change_the_same_revision_one_succeeds() {
    let rig = Rig::new().await;
    rig.acme().await;
    let etag = rig.get(CDR).await.etag().to_owned();
    let changes: Vec<_> = (0..16)
        .map(|number| {
            let change = json!({"url": format!("https://crm.example.com/{number}")});
            let request = rig
                .request(Method::PATCH, CDR)
                .header("if-match", &etag)
                .json(&change);
            tokio::spawn(crate::rig::send(request))
        })
        .collect();
    let mut winners = Vec::new();
    for change in changes {
        let answer = change.await.unwrap();
        match answer.status {
            StatusCode::OK => winners.push(answer.body),
            _ => answer.problem(412, "revision_changed"),
        }
    }
    assert_eq!(winners, [rig.get(CDR).await.body]);
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_turned_at_once_are_all_obeyed() {
    let rig = Rig::new().await;
    rig.acme().await;
    let pauses: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(crate::rig::send(
                rig.request(Method::POST, &format!("{CDR}/pause")),
            ))
        })
        .collect();
    for pause in pauses {
        assert_eq!(
            pause.await.unwrap().expect(StatusCode::OK).body["enabled"],
            false
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_added_while_its_tenant_is_removed_does_not_stay_behind() {
    let rig = Rig::new().await;
    for round in 0..10 {
        let tenant = format!("/v1/tenants/t{round}");
        rig.change(Method::PUT, &tenant, ("if-none-match", "*"), json!({}))
            .await
            .expect(StatusCode::CREATED);
        let form = json!({"preset": "cdr", "url": "https://crm.example.com/"});
        let add = rig
            .request(Method::POST, &format!("{tenant}/webhooks"))
            .json(&form);
        let add = tokio::spawn(crate::rig::send(add));
        rig.delete(&tenant).await.expect(StatusCode::OK);
        let added = add.await.unwrap();
        assert!(matches!(added.status.as_u16(), 201 | 404), "{}", added.text);
        assert_eq!(rig.directory.read().webhook_count(), 0, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_shown_once_and_removed() {
    let rig = Rig::new().await;
    rig.acme().await;
    for wrong in [json!({}), json!({"tenant": "acme", "all_tenants": true})] {
        rig.post("/v1/tokens", wrong)
            .await
            .problem(400, "invalid_field");
    }
    rig.post("/v1/tokens", json!({"tenant": "nobody"}))
        .await
        .problem(404, "no_such_tenant");
    let added = rig
        .post("/v1/tokens", json!({"name": "pbx", "tenant": "acme"}))
        .await;
    let text = added.expect(StatusCode::CREATED).body["token"]
        .as_str()
        .unwrap();
    let tenant = rig
        .directory
        .read()
        .verify_token(text)
        .and_then(|token| token.tenant.clone());
    assert_eq!(tenant.unwrap().as_str(), "acme");

    let listed = rig.get("/v1/tokens?tenant=acme").await;
    assert_eq!(listed.body["tokens"][0]["name"], "pbx");
    assert!(
        !listed.text.contains(text) && !listed.text.contains("hash"),
        "{}",
        listed.text
    );
    assert_eq!(
        rig.get("/v1/tokens?tenant=beta").await.body["tokens"],
        json!([])
    );

    let path = format!("/v1/tokens/{}", added.body["id"].as_str().unwrap());
    let removed = rig.delete(&path).await;
    assert_eq!(
        removed.expect(StatusCode::OK).body["removed"]["token"]["name"],
        "pbx"
    );
    assert!(rig.directory.read().verify_token(text).is_none());
    rig.delete(&path).await.problem(404, "no_such_token");
}

/// Whoever is too late sees what there is now, and nothing is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_change_is_answered_with_what_there_is_now() {
    let rig = Rig::new().await;
    rig.acme().await;
    let path = "/v1/tenants/acme/webhooks/cdr";
    let stale = rig.get(path).await.etag().to_owned();
    let changed = json!({ "rate_limit": 5 });
    let changed = rig
        .change(Method::PATCH, path, ("if-match", &stale), changed)
        .await;
    let fresh = changed.expect(StatusCode::OK).etag().to_owned();
    let now = rig.get(path).await.body;
    let form = json!({ "url": "https://crm.example.com/other" });
    for (method, below, body) in [
        (Method::PATCH, "", json!({ "rate_limit": 6 })),
        (Method::PUT, "", form),
        (Method::DELETE, "", json!({})),
        (Method::POST, "/pause", json!({})),
        (Method::POST, "/resume", json!({})),
        (Method::POST, "/enable", json!({})),
        (Method::POST, "/secret/rotate", json!({})),
        (Method::DELETE, "/secret/ed25519", json!({})),
    ] {
        let path = format!("{path}{below}");
        let answer = rig
            .change(method.clone(), &path, ("if-match", &stale), body)
            .await;
        answer.problem(412, "revision_changed");
        assert_eq!(answer.body["current"], now, "{method} {path}");
    }
    assert_eq!(rig.get(path).await.body, now);
    let paused = rig
        .change(
            Method::POST,
            &format!("{path}/pause"),
            ("if-match", &fresh),
            json!({}),
        )
        .await;
    assert_eq!(paused.expect(StatusCode::OK).body["enabled"], false);
}

/// Every refused form says which field is at fault.
#[tokio::test(flavor = "multi_thread")]
async fn refused_forms_name_the_field() {
    let rig = Rig::new().await;
    rig.acme().await;
    let url = "https://crm.example.com/";
    for (form, field) in [
        (json!({ "name": "crm" }), "url"),
        (json!({ "name": "crm", "url": url }), "subscription"),
        (
            json!({ "name": "crm", "url": url, "subscription": ["a b"] }),
            "subscription",
        ),
        (
            json!({ "name": "C", "url": url, "subscription": ["*"] }),
            "name",
        ),
        (json!({ "url": url, "subscription": ["*"] }), "name"),
        (json!({ "preset": "all", "url": url }), "preset"),
        (
            json!({ "name": "crm", "url": "ftp://x/", "subscription": ["*"] }),
            "url",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "rate_limit": 0 }),
            "rate_limit",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "rate_limit": "x" }),
            "rate_limit",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "schedule": ["1s"] }),
            "schedule",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "headers": { "host": "x" } }),
            "headers",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "tls": { "key": "x" } }),
            "tls",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "authentication": { "method": "x" } }),
            "authentication",
        ),
        (
            json!({ "name": "crm", "url": url, "subscription": ["*"], "urll": "x" }),
            "urll",
        ),
    ] {
        let answer = rig.post("/v1/tenants/acme/webhooks", form.clone()).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{form}: {}",
            answer.text
        );
        assert_eq!(answer.body["field"], field, "{form}: {}", answer.text);
    }
    for (query, field) in [
        ("limit=x", "limit"),
        ("what=1", "what"),
        ("outcome=bored", "outcome"),
        ("cursor=x", "cursor"),
    ] {
        let answer = rig
            .get(&format!("/v1/tenants/acme/webhooks/cdr/attempts?{query}"))
            .await;
        assert_eq!(answer.body["field"], field, "{query}: {}", answer.text);
    }
}
