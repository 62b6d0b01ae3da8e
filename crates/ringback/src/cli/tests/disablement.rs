//! A disabled webhook on the command line.

use super::*;

/// Contract R14: a disabled webhook says so everywhere, and `enable` begins a new generation.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_webhook_is_enabled_and_catches_up() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    rig.ok("webhook add acme cdr --url https://a.example.com/")
        .await;
    let webhook = rig.json("webhook show acme cdr").await;
    let id = webhook["id"].as_str().unwrap();
    let health = json!({
        "version": 1, "webhook": id, "tenant": "acme", "generation": 0, "state": "disabled",
        "since": "2026-11-21T09:00:00Z", "reason": "60 of 60 attempts failed",
    });
    rig.append(Role::Health, id, &[], health.to_string().as_bytes());
    while rig.json("webhook show acme cdr").await["health"]["state"] != "disabled" {
        tokio::task::yield_now().await;
    }
    assert!(rig.ok("webhook list acme").await.contains("disabled"));
    let shown = rig.ok("webhook show acme cdr").await;
    assert!(shown.contains("60 of 60 attempts failed"), "{shown}");
    let (_, said) = rig.fails("webhook test acme cdr").await;
    assert!(said.contains("ringback webhook enable"), "{said}");
    rig.ok("webhook pause acme cdr").await;
    let resumed = rig.ok("webhook resume acme cdr").await;
    assert!(
        resumed.contains("ringback webhook enable acme cdr"),
        "{resumed}"
    );
    let enabled = rig.ok("webhook enable acme cdr --replay none").await;
    assert!(
        enabled.starts_with("Enabled webhook cdr")
            && enabled.contains("replay acme cdr --reason disabled"),
        "{enabled}"
    );
    let webhook = rig.json("webhook show acme cdr").await;
    assert_eq!(
        (&webhook["generation"], &webhook["health"]["state"]),
        (&json!(1), &json!("healthy"))
    );
    let again = rig.ok("webhook enable acme cdr").await;
    assert!(again.starts_with("Nothing to do"), "{again}");
}
