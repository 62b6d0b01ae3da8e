//! Who gets mail about a tenant's webhooks.

use reqwest::{Method, StatusCode};
use ringback_admin::{Config, mail};
use serde_json::{Value, json};

use crate::rig::{Answer, Rig, keys};

const NOTIFY: &str = "/v1/tenants/acme/notify";

async fn put(rig: &Rig, form: Value) -> Answer {
    rig.change(Method::PUT, NOTIFY, ("if-match", "*"), form)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_are_shown_set_and_refused_one_by_one() {
    let rig = Rig::new().await;
    rig.acme().await;
    let shown = rig.get(NOTIFY).await;
    shown.expect(StatusCode::OK);
    assert_eq!(shown.body, json!({ "notify": [], "mailed": false }));
    let form = json!({ "notify": ["it@acme.example", "night@acme.example", "it@acme.example"] });
    let set = put(&rig, form).await;
    set.expect(StatusCode::OK);
    let bad = json!({ "notify": ["it@acme.example", "nobody"] });
    let refused = put(&rig, bad).await;
    refused.problem(400, "invalid_field");
    assert_eq!(refused.body["field"], "notify[1]");
    let many: Vec<_> = (0..21).map(|n| format!("a{n}@acme.example")).collect();
    let refused = put(&rig, json!({ "notify": many })).await;
    refused.problem(400, "invalid_field");
    assert_eq!(refused.body["field"], "notify");
    let shown = rig.get(NOTIFY).await.body;
    assert_eq!(
        shown["notify"],
        json!(["it@acme.example", "night@acme.example"]),
        "each once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_whether_there_is_a_mail_server() {
    let rig = Rig::new().await;
    rig.acme().await;
    let mail = mail::MailConfig {
        server: "mail.example:25".to_owned(),
        ..mail::MailConfig::default()
    };
    let sending = rig
        .beside(
            Config {
                mail,
                ..Config::default()
            },
            keys("first"),
        )
        .await;
    assert_eq!(sending.get(NOTIFY).await.body["mailed"], true);
}
