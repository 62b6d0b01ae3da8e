//! Accounts of people.

use reqwest::{Method, StatusCode};
use ringback_core::topics::Role;
use serde_json::json;

use crate::rig::{Rig, send};
use crate::sessions::{PASSWORD, Signed};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_added_shown_changed_and_removed() {
    let rig = Rig::new().await;
    rig.acme().await;
    let form = json!({ "login": "Olga", "role": "operator" });
    let added = rig.post("/v1/accounts", form.clone()).await;
    let body = &added.expect(StatusCode::CREATED).body;
    assert_eq!(body["login"], "olga");
    let password = body["password"].as_str().unwrap();
    rig.post("/v1/accounts", form)
        .await
        .problem(409, "account_exists");
    let signed = Signed::by_password(&rig, "olga", password).await;
    send(signed.request(&rig, Method::GET, "/v1/projection"))
        .await
        .expect(StatusCode::OK);
    let shown = rig.get("/v1/accounts/olga").await;
    let by_id = rig
        .get(&format!("/v1/accounts/{}", body["id"].as_str().unwrap()))
        .await;
    assert_eq!(shown.text, by_id.text);
    assert!(
        !shown.text.contains("argon2") && !shown.text.contains("password"),
        "{}",
        shown.text
    );
    let patch = async |path: &str, etag: &str, form| {
        send(
            rig.request(Method::PATCH, path)
                .header("if-match", etag)
                .json(&form),
        )
        .await
    };
    let renamed = patch(
        "/v1/accounts/olga",
        shown.etag(),
        json!({ "name": "Olga O." }),
    )
    .await;
    assert_eq!(renamed.expect(StatusCode::OK).body["name"], "Olga O.");
    patch("/v1/accounts/olga", shown.etag(), json!({ "name": "x" }))
        .await
        .problem(412, "revision_changed");
    // A name ends no session, a new password does.
    send(signed.request(&rig, Method::GET, "/v1/session"))
        .await
        .expect(StatusCode::OK);
    let made = patch("/v1/accounts/olga", "*", json!({ "new_password": true })).await;
    let made = made.expect(StatusCode::OK).body["password"]
        .as_str()
        .unwrap()
        .to_owned();
    send(signed.request(&rig, Method::GET, "/v1/session"))
        .await
        .problem(401, "not_signed_in");
    let signed = Signed::by_password(&rig, "olga", &made).await;
    send(signed.request(&rig, Method::DELETE, "/v1/accounts/olga"))
        .await
        .problem(409, "own_account");
    let given = patch("/v1/accounts/olga", "*", json!({ "password": PASSWORD })).await;
    assert!(given.expect(StatusCode::OK).body.get("password").is_none());
    // No password is in the log in clear.
    let records = rig.records(Role::Accounts, |record| {
        String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()
    });
    for secret in [PASSWORD, password, &made] {
        assert!(
            records.iter().all(|record| !record.contains(secret)),
            "{records:?}"
        );
    }
    assert!(records.iter().any(|record| record.contains("$argon2id$")));
    rig.delete("/v1/accounts/olga").await.expect(StatusCode::OK);
    rig.get("/v1/accounts/olga")
        .await
        .problem(404, "no_such_account");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_account_is_said() {
    let rig = Rig::new().await;
    rig.acme().await;
    for (form, status, code, field) in [
        (
            json!({ "login": "a b", "tenant": "acme" }),
            400,
            "invalid_field",
            "login",
        ),
        (json!({ "login": "a" }), 400, "invalid_field", "tenant"),
        (
            json!({ "login": "a", "role": "tenant_administrator" }),
            400,
            "invalid_field",
            "tenant",
        ),
        (
            json!({ "login": "a", "role": "operator", "tenant": "acme" }),
            400,
            "invalid_field",
            "tenant",
        ),
        (
            json!({ "login": "a", "role": "king", "tenant": "acme" }),
            400,
            "invalid_field",
            "role",
        ),
        (
            json!({ "login": "a", "tenant": "acme", "name": "\n" }),
            400,
            "invalid_field",
            "name",
        ),
        (
            json!({ "login": "a", "tenant": "acme", "password": "short" }),
            400,
            "weak_password",
            "password",
        ),
        (
            json!({ "login": "longenough", "tenant": "acme", "password": "longenough12" }),
            400,
            "weak_password",
            "password",
        ),
    ] {
        let answer = rig.post("/v1/accounts", form).await;
        answer.problem(status, code);
        assert_eq!(answer.body["field"], field, "{}", answer.text);
    }
    let nowhere = json!({ "login": "a", "tenant": "nobody" });
    rig.post("/v1/accounts", nowhere)
        .await
        .problem(404, "no_such_tenant");
    rig.post("/v1/accounts", json!({ "login": "a", "tenant": "acme" }))
        .await;
    let both = json!({ "password": PASSWORD, "new_password": true });
    let both = rig.request(Method::PATCH, "/v1/accounts/a").json(&both);
    send(both).await.problem(400, "invalid_field");
}

/// A tenant's administrator manages his tenant's accounts; they go with the tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_accounts_are_its_own() {
    let rig = Rig::new().await;
    rig.acme().await;
    let operator = json!({ "login": "olga", "role": "operator", "password": PASSWORD });
    rig.post("/v1/accounts", operator)
        .await
        .expect(StatusCode::CREATED);
    let ann = json!({ "login": "ann", "tenant": "acme", "password": PASSWORD });
    rig.post("/v1/accounts", ann)
        .await
        .expect(StatusCode::CREATED);
    let ann = Signed::by_password(&rig, "ann", PASSWORD).await;
    let added = ann
        .request(&rig, Method::POST, "/v1/accounts")
        .json(&json!({ "login": "bob" }));
    let added = send(added).await;
    assert_eq!(added.expect(StatusCode::CREATED).body["tenant"], "acme");
    let list = send(ann.request(&rig, Method::GET, "/v1/accounts")).await;
    let logins: Vec<_> = list.body["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["login"])
        .collect();
    assert_eq!(logins, ["ann", "bob"]);
    send(ann.request(&rig, Method::GET, "/v1/accounts/olga"))
        .await
        .problem(404, "no_such_account");
    let removed = rig.delete("/v1/tenants/acme").await;
    assert_eq!(
        removed.expect(StatusCode::OK).body["removed"]["accounts"],
        json!(["ann", "bob"])
    );
    send(ann.request(&rig, Method::GET, "/v1/session"))
        .await
        .problem(401, "not_signed_in");
    let left = rig.get("/v1/accounts").await;
    assert_eq!(left.body["accounts"].as_array().unwrap().len(), 1);
}
