//! `ringback account …`

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn accounts_from_beginning_to_end() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let none = rig.ok("account list").await;
    assert!(none.contains("ringback account add"), "{none}");
    let added = rig.ok("account add olga --operator").await;
    assert!(
        added.starts_with("Added account olga for operators. Its password"),
        "{added}"
    );
    let file = rig.dir.path().join("password");
    std::fs::write(&file, "horses never eat staples\n").unwrap();
    let file = file.display();
    let added = rig
        .ok(&format!(
            "account add ann@acme --tenant acme --password-file {file}"
        ))
        .await;
    assert_eq!(added, "Added account ann@acme for tenant acme.");
    let listed = rig.ok("account list --tenant acme").await;
    assert!(
        listed.contains("ann@acme") && !listed.contains("olga"),
        "{listed}"
    );
    let changed = rig
        .ok("account set ann@acme --name Ann --new-password")
        .await;
    assert!(changed.contains("shown this once"), "{changed}");
    assert_eq!(rig.json("account show ann@acme").await["name"], "Ann");
    let removed = rig.ok("account remove olga").await;
    assert_eq!(removed, "Removed account olga for operators.");
    let audit = rig.ok("audit list acme").await;
    let rows: Vec<_> = audit.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{audit}");
    for (row, action) in rows
        .iter()
        .zip(["account.change", "account.add", "tenant.add"])
    {
        assert!(
            row.contains(action) && row.contains("operator token"),
            "{audit}"
        );
    }
    assert!(rows[0].contains("password: (set) → (changed)"), "{audit}");
    let all = rig.json("audit list --limit 2").await;
    assert_eq!(all["entries"].as_array().unwrap().len(), 2);
    assert_eq!(all["entries"][0]["action"], "account.remove");
    let (code, said) = rig.fails("account show olga").await;
    assert_eq!(code, 1, "{said}");
    let (code, said) = rig.fails("account set ann@acme").await;
    assert_eq!(code, 64, "{said}");
    for wrong in [
        "account add x",
        "account add x --operator --tenant acme",
        "account add x --operator --ask-password --password-stdin",
        "account set x --new-password --ask-password",
    ] {
        let (code, said) = rig.fails(wrong).await;
        assert_eq!(code, 64, "{wrong}: {said}");
    }
}
