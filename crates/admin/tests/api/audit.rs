//! The audit: what is done leaves an entry, and no secret.

use reqwest::{Method, StatusCode};
use ringback_admin::{Config, Needs, Route, routes};
use ringback_core::replay_job::JobState;
use ringback_core::topics::Role;
use ringback_log::local::LocalLog;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::{Rig, TOKEN, keys, send};
use crate::sessions::{PASSWORD, Signed};

const SECRET: &str = "hunter2-hunter2";

/// Everything in the audit, oldest first.
fn entries(rig: &Rig) -> Vec<Value> {
    rig.records(Role::Audit, |record| {
        serde_json::from_slice(record.value.unwrap()).unwrap()
    })
}

/// What a route is tried with: who asks, where, with what.
struct Try {
    path: String,
    body: Value,
    precondition: (&'static str, &'static str),
    /// By somebody who has signed in.
    signed: Option<Signed>,
    /// By another administration.
    beside: Option<Rig>,
}

/// Tenant `tenant` with webhook `cdr`, which has a password.
async fn furnish(rig: &Rig, tenant: &str) -> Value {
    rig.post("/v1/tenants", json!({ "id": tenant }))
        .await
        .expect(StatusCode::CREATED);
    let form = json!({
        "name": "cdr", "url": "http://127.0.0.1:8090/cdr",
        "authentication": { "method": "basic", "username": "pbx", "password": SECRET },
    });
    let webhook = rig
        .post(&format!("/v1/tenants/{tenant}/webhooks"), form)
        .await;
    webhook.expect(StatusCode::CREATED).body.clone()
}

/// A replay that somebody else works on, so that it does not end by itself.
async fn run_a_replay(rig: &Rig, webhook: &Value) -> String {
    let (tenant, id) = (&webhook["tenant"], webhook["id"].as_str().unwrap());
    let path = format!(
        "/v1/tenants/{}/webhooks/cdr/replay",
        tenant.as_str().unwrap()
    );
    let asked = rig.post(&path, json!({ "all": true })).await;
    let replay = asked.expect(StatusCode::ACCEPTED).body["replay"]["id"].clone();
    crate::replays::record(rig, id, |jobs| {
        let mut job = jobs.ended.remove(0);
        job.state = JobState::Running;
        job.owner = Some(Uuid::from_u128(99));
        job.ended = None;
        jobs.running = Some(job);
    });
    replay.as_str().unwrap().to_owned()
}

/// Makes what a route changes, and says how it is asked to. A new route fails here until it is said.
async fn prepare(rig: &Rig, route: &Route, tenant: &str) -> Try {
    let webhook = furnish(rig, tenant).await;
    let at = |path: &str| format!("/v1/tenants/{tenant}/webhooks/cdr{path}");
    let account = json!({ "login": tenant, "tenant": tenant, "password": PASSWORD });
    rig.post("/v1/accounts", account)
        .await
        .expect(StatusCode::CREATED);
    let (mut precondition, mut signed, mut beside) = (("if-match", "*"), None, None);
    let mut path = route
        .path
        .replace("{tenant}", tenant)
        .replace("{webhook}", "cdr");
    path = path.replace("{account}", tenant);
    let name = route
        .path
        .trim_start_matches("/v1/tenants/{tenant}/webhooks");
    let body = match (route.method, name) {
        ("DELETE", "/v1/session") => {
            signed = Some(Signed::by_token(rig, TOKEN).await);
            json!({})
        }
        ("PUT", "/v1/session/password") => {
            signed = Some(Signed::by_password(rig, tenant, PASSWORD).await);
            json!({ "current": PASSWORD, "new": "another that is long" })
        }
        ("POST", "/v1/accounts") => json!({ "login": format!("{tenant}-new"), "role": "operator" }),
        ("PATCH", "/v1/accounts/{account}") => json!({ "new_password": true }),
        ("POST", "/v1/tenants") => json!({ "id": format!("{tenant}-new") }),
        ("PUT", "/v1/tenants/{tenant}") => {
            path += "-put";
            precondition = ("if-none-match", "*");
            json!({})
        }
        ("DELETE", "/v1/tenants/{tenant}") => {
            path += "-bare";
            let id = format!("{tenant}-bare");
            rig.post("/v1/tenants", json!({ "id": id }))
                .await
                .expect(StatusCode::CREATED);
            json!({})
        }
        ("POST", "") => json!({ "name": "extension", "url": "http://127.0.0.1:8090/" }),
        ("PUT", "/{webhook}") => json!({ "name": "cdr", "url": "http://127.0.0.1:8090/other" }),
        ("PATCH", "/{webhook}") => {
            json!({ "authentication": { "method": "bearer", "token": SECRET } })
        }
        ("POST", "/{webhook}/resume") => {
            rig.post(&at("/pause"), json!({}))
                .await
                .expect(StatusCode::OK);
            json!({})
        }
        ("POST", "/{webhook}/enable") => {
            let id = webhook["id"].as_str().unwrap();
            let health = json!({
                "version": 1, "webhook": id, "tenant": tenant, "generation": webhook["generation"],
                "state": "disabled", "since": "2026-01-01T00:00:00Z", "reason": "",
            });
            rig.append(Role::Health, Some(id), &[], health.to_string().as_bytes());
            while rig.get(&at("")).await.body["health"]["state"] != "disabled" {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            json!({})
        }
        ("DELETE", "/{webhook}/secret/ed25519") => {
            let form = json!({ "kind": "ed25519" });
            rig.post(&at("/secret/rotate"), form)
                .await
                .expect(StatusCode::OK);
            json!({})
        }
        ("POST", "/{webhook}/replay") => json!({ "all": true }),
        ("DELETE", "/{webhook}/replays/{replay}") => {
            path = path.replace("{replay}", &run_a_replay(rig, &webhook).await);
            json!({})
        }
        ("POST", "/v1/tenants/{tenant}/erasures") => json!({ "subject": "call/1" }),
        ("PUT", "/v1/tenants/{tenant}/notify") => json!({ "notify": ["it@acme.example"] }),
        ("POST", "/v1/tokens") => json!({ "tenant": tenant }),
        ("DELETE", "/v1/tokens/{token}") => {
            let token = rig
                .post("/v1/tokens", json!({ "tenant": tenant }))
                .await
                .body;
            path = path.replace("{token}", token["id"].as_str().unwrap());
            json!({})
        }
        ("POST", "/v1/secrets/reseal") => {
            // All but one are sealed by the other key already.
            let other = rig.beside(Config::default(), keys("second")).await;
            other
                .post("/v1/secrets/reseal", json!({}))
                .await
                .expect(StatusCode::OK);
            furnish(rig, &format!("{tenant}-sealed")).await;
            beside = Some(other);
            json!({})
        }
        ("POST", "/v1/export") => json!({ "passphrase": SECRET }),
        ("POST", "/v1/import") => {
            let form = json!({ "passphrase": SECRET });
            let mut document = rig.post("/v1/export", form).await.body;
            document["passphrase"] = SECRET.into();
            document["webhooks"] = json!([]);
            document["tokens"] = json!([]);
            let mut new = document["tenants"][0].clone();
            new["id"] = format!("{tenant}-imported").into();
            document["tenants"] = json!([new]);
            for answered in ["exported", "next"] {
                document.as_object_mut().unwrap().remove(answered);
            }
            document
        }
        ("DELETE", "/v1/accounts/{account}" | "/{webhook}")
        | ("POST", "/{webhook}/pause" | "/{webhook}/test" | "/{webhook}/secret/rotate")
        | ("POST", "/v1/projection/rebuild") => json!({}),
        other => panic!("say here how {other:?} is asked, and make it leave an entry in the audit"),
    };
    Try {
        path,
        body,
        precondition,
        signed,
        beside,
    }
}

/// Every route that changes something leaves exactly one entry, and none a secret.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_leaves_an_entry() {
    let rig = Rig::projecting().await;
    let changing = routes::<LocalLog>().into_iter();
    // Signing in writes nothing.
    let changing = changing.filter(|route| route.method != "GET" && route.needs != Needs::Public);
    let mut routes = 0;
    for (number, route) in changing.enumerate() {
        let tenant = format!("t{number}");
        let asked = prepare(&rig, &route, &tenant).await;
        let before = entries(&rig).len();
        let method: Method = route.method.parse().unwrap();
        let on = asked.beside.as_ref().unwrap_or(&rig);
        let request = match &asked.signed {
            Some(signed) => signed.request(on, method, &asked.path),
            None => on.request(method, &asked.path),
        };
        let (header, value) = asked.precondition;
        let response = request
            .header(header, value)
            .json(&asked.body)
            .send()
            .await
            .unwrap();
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{route:?}: {text}");
        let left = entries(&rig).split_off(before);
        assert_eq!(left.len(), 1, "{route:?}: {left:#?}");
        let entry = &left[0];
        assert_eq!(entry["request"], id, "{entry:#}");
        assert_eq!(entry["client"], "127.0.0.1", "{entry:#}");
        let kind = match &asked.signed {
            Some(signed) if signed.body["account"]["login"].is_string() => "account",
            _ => "operator_token",
        };
        assert_eq!(entry["actor"]["kind"], kind, "{entry:#}");
        assert!(entry["action"].as_str().unwrap().contains('.'), "{entry:#}");
        routes += 1;
    }
    assert!(routes > 20, "{routes}");
    let all = json!(entries(&rig)).to_string();
    for secret in [
        SECRET,
        PASSWORD,
        TOKEN,
        "argon2",
        "nonce",
        "whsec_",
        "another that is long",
    ] {
        assert!(!all.contains(secret), "{secret} is in the audit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_read_newest_first_by_those_whose_it_is() {
    let rig = Rig::new().await;
    rig.acme().await;
    rig.post("/v1/tenants", json!({ "id": "other" })).await;
    let change = json!({ "url": "http://127.0.0.1:8090/new", "authentication": { "method": "bearer", "token": SECRET } });
    let changed = rig.request(Method::PATCH, "/v1/tenants/acme/webhooks/cdr");
    send(changed.header("if-match", "*").json(&change))
        .await
        .expect(StatusCode::OK);
    let account = json!({ "login": "ann", "tenant": "acme", "password": PASSWORD });
    rig.post("/v1/accounts", account)
        .await
        .expect(StatusCode::CREATED);
    let ann = Signed::by_password(&rig, "ann", PASSWORD).await;
    let paused = ann.request(&rig, Method::POST, "/v1/tenants/acme/webhooks/cdr/pause");
    send(paused).await.expect(StatusCode::OK);
    let list = send(ann.request(&rig, Method::GET, "/v1/tenants/acme/audit")).await;
    let list = &list.expect(StatusCode::OK).body;
    let actions: Vec<_> = list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(
        actions,
        [
            "webhook.change",
            "account.add",
            "webhook.change",
            "webhook.add",
            "tenant.add"
        ]
    );
    let paused = &list["entries"][0];
    assert_eq!(
        (&paused["before"], &paused["after"]),
        (&json!({ "enabled": true }), &json!({ "enabled": false }))
    );
    assert_eq!(paused["actor"]["name"], "ann");
    assert_eq!(paused["target"]["name"], "cdr");
    let changed = &list["entries"][2];
    assert_eq!(changed["actor"]["kind"], "operator_token");
    assert_eq!(changed["after"]["url"], "http://127.0.0.1:8090/new");
    assert_eq!(changed["after"]["authentication"]["token"], "(set)");
    let mut seen = 0;
    let mut before = String::new();
    loop {
        let page = rig.get(&format!("/v1/audit?limit=2{before}")).await.body;
        seen += page["entries"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, entries(&rig).len());
    rig.delete("/v1/tenants/other").await.expect(StatusCode::OK);
    let gone = rig.get("/v1/audit?tenant=other").await;
    assert_eq!(gone.body["entries"].as_array().unwrap().len(), 2);
    let nothing = send(ann.request(&rig, Method::GET, "/v1/audit")).await;
    nothing.problem(404, "no_such_route");
}

/// What meets a conflict or is refused leaves none.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_leaves_no_entry() {
    let rig = Rig::new().await;
    rig.acme().await;
    let before = entries(&rig).len();
    rig.post("/v1/tenants", json!({ "id": "acme" }))
        .await
        .problem(409, "tenant_exists");
    let stale = rig
        .request(Method::PATCH, "/v1/tenants/acme/webhooks/cdr")
        .header("if-match", "\"999\"");
    send(stale.json(&json!({ "enabled": false })))
        .await
        .problem(412, "revision_changed");
    rig.delete("/v1/tenants/acme/webhooks/crm")
        .await
        .problem(404, "no_such_webhook");
    rig.post(
        "/v1/tenants/acme/webhooks/cdr/replay",
        json!({ "all": true, "dry_run": true }),
    )
    .await
    .expect(StatusCode::ACCEPTED);
    assert_eq!(entries(&rig).len(), before);
}
