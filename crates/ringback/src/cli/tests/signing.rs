//! Signing keys on the command line.

use super::*;

const OWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_rotated_and_removed() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let added = rig
        .ok("webhook add acme cdr --url https://crm.example.com/")
        .await;
    let secret = rig.json("webhook secret show acme cdr").await["signing"][0]["secret"].clone();
    let secret = secret.as_str().unwrap();
    assert!(added.contains(secret), "{added}");
    let shown = rig.ok("webhook secret show acme cdr").await;
    assert!(shown.contains(secret), "{shown}");
    for quiet in [
        "webhook list acme",
        "webhook show acme cdr",
        "webhook show acme cdr --json",
    ] {
        let said = rig.ok(quiet).await;
        assert!(!said.contains(secret), "{said}");
    }

    let file = rig.dir.path().join("own");
    std::fs::write(&file, format!("{OWN}\n")).unwrap();
    let rotate = format!(
        "webhook secret rotate acme cdr --grace 2h --secret-file {}",
        file.display()
    );
    let rotated = rig.ok(&rotate).await;
    assert!(
        rotated.ends_with(&format!("for the receiver:\n  {OWN}")),
        "{rotated}"
    );
    assert!(
        rotated.contains(OWN) && rotated.contains(secret),
        "{rotated}"
    );
    let (_, again) = rig.fails(&rotate).await;
    assert!(again.contains("already") && !again.contains(OWN), "{again}");
    let ed25519 = rig.ok("webhook secret rotate acme cdr --ed25519").await;
    assert!(
        ed25519.contains("whpk_") && !ed25519.contains("whsk_"),
        "{ed25519}"
    );
    let show = rig.ok("webhook show acme cdr").await;
    assert!(show.contains("hmac, hmac until 2"), "{show}");
    let removed = rig.ok("webhook secret remove-ed25519 acme cdr").await;
    assert!(
        !removed.contains("whpk_") && removed.contains(OWN),
        "{removed}"
    );
    let alone = rig.ok("webhook secret rotate acme cdr --grace 0").await;
    assert!(
        alone.lines().count() == 6 && !alone.contains(OWN),
        "{alone}"
    );

    for (wrong, said) in [
        ("--grace soon", "grace must be"),
        ("--secret whsec_hunter2", "base64"),
        ("--secret hunter2", "begins with whsec_"),
        ("--secret a --secret-stdin", "cannot be used with"),
    ] {
        let (_, failure) = rig
            .fails(&format!("webhook secret rotate acme cdr {wrong}"))
            .await;
        assert!(
            failure.contains(said) && !failure.contains("hunter2"),
            "{failure}"
        );
    }
}
