//! Disablement (R14).

use super::*;

pub(super) async fn r14_disablement<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["cdr.*"], "r14").await;
    rig.webhook(&tenant, "ops", &["webhook.*"], "r14-ops").await;
    rig.receiver.behave("r14", |_, _, _| Answer::Status(500));
    let path = format!("tenants/{}/webhooks/main", tenant.id);
    let state = async || {
        let webhook = rig.api("GET", &path, Value::Null).await;
        webhook["health"]["state"].as_str().unwrap().to_owned()
    };
    // The policy wants attempts and time: events come until both are there.
    for _ in 0..600 {
        rig.event(&tenant, "cdr.completed").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if state().await == "disabled" {
            break;
        }
    }
    assert_eq!(state().await, "disabled");
    let notices = |kind: &str| -> usize {
        let seen = rig.receiver.books(|books| books.at("r14-ops"));
        let of_kind = seen.iter().filter(|notice| notice.json()["type"] == kind);
        of_kind.count()
    };
    rig.receiver
        .wait("the notices of R14", |books| books.at("r14-ops").len() >= 2)
        .await;
    assert_eq!(
        (notices("webhook.failing"), notices("webhook.disabled")),
        (1, 1)
    );
    // DL6: within 2 s after the verdict is written, nothing is sent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let meanwhile = rig.event(&tenant, "cdr.completed").await;
    let parked = format!("{path}/parked?event={meanwhile}");
    let parked = rig.list(&parked, "parked", 1).await;
    assert_eq!(parked[0]["reason"], "disabled");
    rig.receiver
        .books(|books| assert_eq!(books.count("r14", &meanwhile), 0));

    rig.receiver.behave("r14", |_, _, _| Answer::Status(200));
    let enabled = rig
        .api("POST", &format!("{path}/enable"), Value::Null)
        .await;
    assert_eq!(
        (&enabled["generation"], &enabled["health"]["state"]),
        (&json!(1), &json!("healthy"))
    );
    let _ = wait_until_sent(rig, &tenant, "r14").await;
    let form = json!({ "reason": "disabled" });
    rig.api("POST", &format!("{path}/replay"), form).await;
    rig.receiver
        .wait("what was parked, and the notice of recovery", |books| {
            books.is_delivered(&meanwhile) && books.at("r14-ops").len() >= 3
        })
        .await;
    assert_eq!(notices("webhook.recovered"), 1);
    assert_eq!(state().await, "healthy");
}
