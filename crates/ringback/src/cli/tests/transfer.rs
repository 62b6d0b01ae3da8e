//! Export and import on the command line.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair};

use super::*;

impl Rig {
    /// What signing in is answered with.
    async fn signs_in(&self, login: &str, password: &str) -> u16 {
        let client = crate::http::client().unwrap();
        let form = json!({ "login": login, "password": password });
        let asked = client.post(format!("{}/v1/session", self.url)).json(&form);
        asked.send().await.unwrap().status().as_u16()
    }
}

/// The configuration moves to another installation, whose master key is another one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_elsewhere() {
    let (here, there) = (Rig::new().await, Rig::new().await);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("passphrase"), "correct horse battery\n").unwrap();
    std::fs::write(file("wrong"), "incorrect horse battery\n").unwrap();
    std::fs::write(file("password"), "hunter2-hunter2").unwrap();
    // Writes a certificate and a key, and returns a line of the key.
    let new_pair = || {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let key = key.serialize_pem();
        std::fs::write(file("own.pem"), certificate.pem()).unwrap();
        std::fs::write(file("own.key"), &key).unwrap();
        key.lines().nth(1).unwrap().to_owned()
    };
    let key = new_pair();
    let requests = format!(
        "--header X-Tenant=acme --tls-ca {0} --tls-certificate {0} --tls-key {1}",
        file("own.pem"),
        file("own.key")
    );
    let with = format!("--passphrase-file {}", file("passphrase"));
    for tenant in 0..3 {
        here.ok(&format!("tenant add t{tenant}")).await;
        let password = format!("--username u --password-file {}", file("password"));
        let url = "https://a.example.com/";
        here.ok(&format!("webhook add t{tenant} cdr --url {url} {password}"))
            .await;
        here.ok(&format!(
            "webhook add t{tenant} all --subscribe * --url {url} {requests}"
        ))
        .await;
    }
    let token = here.json("token add --tenant t1").await;
    std::fs::write(file("account"), "horses never eat staples").unwrap();
    let account = format!("--password-file {}", file("account"));
    here.ok(&format!("account add olga --operator {account}"))
        .await;
    here.ok(&format!(
        "account add ann@t1 --tenant t1 --name Ann {account}"
    ))
    .await;
    let document = file("export.json");
    let said = here.ok(&format!("export {document} {with}")).await;
    assert!(
        said.starts_with("Wrote 3 tenants, 6 webhooks, 1 token and 2 accounts"),
        "{said}"
    );
    let text = std::fs::read_to_string(&document).unwrap();
    assert!(!text.contains(&key) && !text.contains("hunter2") && !text.contains("argon2id$"));
    let mode = std::fs::metadata(&document).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!text.contains(token["token"].as_str().unwrap()));
    let (_, again) = here.fails(&format!("export {document} {with}")).await;
    assert!(again.contains("exists"), "{again}");

    let wrong = format!("import {document} --passphrase-file {}", file("wrong"));
    let (_, said) = there.fails(&wrong).await;
    assert!(said.contains("the passphrase is not the one"), "{said}");
    assert!(
        there.ok("tenant list").await.contains("no tenant"),
        "{said}"
    );
    let import = format!("import {document} {with}");
    assert_eq!(
        there.ok(&import).await,
        "12 added, 0 replaced, 0 unchanged."
    );
    // Who could sign in there can sign in here.
    assert_eq!(
        there.signs_in("ann@t1", "horses never eat staples").await,
        201
    );
    assert_eq!(
        there.signs_in("olga", "horses never eat staples").await,
        201
    );
    assert_eq!(
        there.signs_in("ann@t1", "horses ever eat staples").await,
        401
    );
    let show = "account show ann@t1";
    assert_eq!(here.json(show).await["id"], there.json(show).await["id"]);
    // Identity is kept, so that deliveries on their way still find their webhook.
    let show = "webhook show t2 cdr";
    let (a, b) = (here.json(show).await, there.json(show).await);
    for field in ["id", "generation", "url", "authentication", "subscription"] {
        assert_eq!(a[field], b[field], "{field}");
    }
    let show = "webhook show t2 all";
    let (a, b) = (here.json(show).await, there.json(show).await);
    assert_eq!(b["headers"], json!({ "x-tenant": "acme" }));
    assert_eq!(b["tls"]["key"], json!({ "set": true }));
    assert_eq!((&a["headers"], &a["tls"]), (&b["headers"], &b["tls"]));
    let shown = there.ok(show).await;
    assert!(
        shown.contains("x-tenant: acme") && shown.contains("with a client certificate"),
        "{shown}"
    );
    assert_eq!(
        there.ok(&import).await,
        "0 added, 0 replaced, 12 unchanged."
    );
    there
        .ok("webhook set t0 all --url https://b.example.com/")
        .await;
    std::fs::write(file("password"), "another-password").unwrap();
    let set = format!(
        "webhook set t1 cdr --username u --password-file {}",
        file("password")
    );
    there.ok(&set).await;
    new_pair();
    there.ok(&format!("webhook set t2 all {requests}")).await;
    there.ok("account set ann@t1 --new-password").await;
    let (_, said) = there.fails(&import).await;
    assert!(
        said.contains("webhook all of tenant t2") && said.contains("account ann@t1"),
        "{said}"
    );
    assert_eq!(
        there.signs_in("ann@t1", "horses never eat staples").await,
        401
    );
    assert!(
        said.contains("webhook all of tenant t0") && said.contains("webhook cdr of tenant t1"),
        "{said}"
    );
    assert_eq!(
        there.ok(&format!("{import} --replace")).await,
        "0 added, 4 replaced, 8 unchanged."
    );
    assert_eq!(
        there.signs_in("ann@t1", "horses never eat staples").await,
        201
    );
    assert_eq!(
        there.ok(&import).await,
        "0 added, 0 replaced, 12 unchanged."
    );
    there.ok("webhook set t2 all --no-tls --no-headers").await;
    let bare = there.json(show).await;
    assert_eq!((&bare["headers"], &bare["tls"]), (&json!({}), &Value::Null));
    std::fs::write(file("nonsense"), "{\"format\": 1}").unwrap();
    let (code, _) = there
        .fails(&format!("import {} {with}", file("nonsense")))
        .await;
    assert_eq!(code, 64);
}
