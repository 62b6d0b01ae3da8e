//! Untrusted URLs: API, command line and dispatcher say the same of each (docs/addresses.md).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Output;

use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::process::{Process, api, binary};
use ringback_tests::rig::{OPERATOR, Rig, short_schedule, topics};

use super::*;

type TestRig = Rig<LocalLog>;

/// Of every kind of rule; the rows of each are in `core`.
fn refused() -> Vec<(String, &'static str, &'static str)> {
    let rows = [
        (
            "",
            "invalid_field",
            "this url is not allowed: use https://host/path",
        ),
        ("ftp://x/", "invalid_field", "use https (or http)"),
        (
            "https://user:hunter2@x/",
            "invalid_field",
            "this url is not allowed: set user name and password",
        ),
        ("https://@x/", "invalid_field", "set user name and password"),
        ("https://x/\u{7}", "invalid_field", "control characters"),
        ("https://x/a b", "invalid_field", "white space"),
        ("https://x/\r\nHost: y", "invalid_field", "white space"),
        ("https:\\\\x\\", "invalid_field", "backslash"),
        ("https://x/#part", "invalid_field", "no fragment"),
        ("https://xn--a/", "invalid_field", "use https://host/path"),
        ("https://a..b/", "invalid_field", "labels of 1 to 63"),
        ("https://%61.example/", "invalid_field", "no escapes"),
        (
            "https://256.1.1.1/",
            "invalid_field",
            "use https://host/path",
        ),
        (
            "https://10.1.2.3/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "https://0x0a010203/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "https://167838211/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "https://１０.1.2.3/",
            "address_refused",
            "10.1.2.3, a private address",
        ),
        (
            "https://[64:ff9b::a01:203]/",
            "address_refused",
            "a private address",
        ),
        ("https://x.example:6379/", "port_refused", "port 6379"),
    ];
    let rows = rows.map(|(url, code, says)| (url.to_owned(), code, says));
    let long = format!("https://x/{}", "a".repeat(2048));
    let more = [(long, "invalid_field", "at most 2,048 bytes")];
    rows.into_iter().chain(more).collect()
}

/// What is accepted, and its normal form.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "https://bücher.example/ä",
        "https://xn--bcher-kva.example/%C3%A4",
    ),
    (
        "https://xn--bcher-kva.example/",
        "https://xn--bcher-kva.example/",
    ),
    (
        "HTTPS://CRM.Example.com:443/a/../b",
        "https://crm.example.com/b",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn api_command_line_and_dispatcher_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let schedule = short_schedule();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log, schedule).await;
    let tenant = rig.tenant().await;
    let webhooks = format!("tenants/{}/webhooks", tenant.id);
    let http = http(&config());
    for (url, code, says) in refused() {
        let fields = json!({ "name": "a", "subscription": ["*"], "url": url });
        let (status, answer) = rig.try_api("POST", &webhooks, fields).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!(code)),
            "{url:?}: {answer}"
        );
        assert_eq!(answer["field"], "url", "{url:?}: {answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{url:?}: {detail}");
        assert!(
            !detail.contains("hunter2") && !detail.contains("  "),
            "{detail}"
        );

        let told = add(&rig.admin, tenant.id.as_str(), "b", OsStr::new(&url)).await;
        let said = String::from_utf8_lossy(&told.stderr);
        assert!(
            !told.status.success() && said.contains(detail),
            "{url:?}: {said}"
        );

        // It is in a record all the same: of an older release, or of somebody else's making.
        let sent = post(&http, &webhook(&url, json!({})), Bytes::from_static(b"{}")).await;
        assert_eq!(sent.unwrap_err().to_string(), detail, "{url:?}");
    }
    for (number, (url, normal)) in ACCEPTED.iter().enumerate() {
        let fields = json!({ "name": format!("a{number}"), "subscription": ["*"], "url": url });
        let added = rig.api("POST", &webhooks, fields).await;
        assert_eq!(added["url"], *normal);
        let name = format!("b{number}");
        let told = add(&rig.admin, tenant.id.as_str(), &name, OsStr::new(url)).await;
        assert!(told.status.success(), "{told:?}");
        let added = rig
            .api("GET", &format!("{webhooks}/{name}"), Value::Null)
            .await;
        assert_eq!(added["url"], *normal);
    }
    text_that_is_not_utf8(&rig, tenant.id.as_str()).await;
    rig.stop().await;
}

/// The program as it is run, whose administration has the dispatchers' resolver: a name that is known
/// on every machine. With a proxy nobody but that resolves it.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_resolves_names() {
    for (proxy, expected) in [
        (None, true),
        (Some("dispatcher.proxy=http://127.0.0.1:9"), false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let settings = ["dispatcher.allow_networks=[\"::1\"]"]
            .into_iter()
            .chain(proxy);
        let settings: Vec<_> = settings.map(str::to_owned).collect();
        let up = Process::start("up", dir.path(), &settings).await;
        let admin = up.url("admin");
        let client = &reqwest::Client::builder().no_proxy().build().unwrap();
        api(
            client,
            &format!("{admin}/v1/tenants"),
            "POST",
            json!({ "id": "acme" }),
        )
        .await;
        let told = add(&admin, "acme", "a", OsStr::new("http://localhost:8090/")).await;
        let said = [told.stdout, told.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Refused, or warned of where the machine says that it is ::1, too.
        let about = said.contains("resolves to 127.0.0.1, a loopback address");
        assert_eq!(about, expected, "{said}");
        assert!(expected || told.status.success(), "{said}");
    }
}

/// It is no argument, and no JSON.
async fn text_that_is_not_utf8(rig: &TestRig, tenant: &str) {
    let url = b"https://x.example/\xff\xfe".to_vec();
    let told = add(&rig.admin, tenant, "c", &OsString::from_vec(url.clone())).await;
    assert!(!told.status.success(), "{told:?}");
    let body = [
        br#"{"name":"c","subscription":["*"],"url":""#,
        &*url,
        br#""}"#,
    ]
    .concat();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .post(format!("{}/v1/tenants/{tenant}/webhooks", rig.admin))
        .bearer_auth(OPERATOR)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let path = format!("tenants/{tenant}/webhooks/c");
    assert_eq!(rig.try_api("GET", &path, Value::Null).await.0, 404);
}

async fn add(admin: &str, tenant: &str, name: &str, url: &OsStr) -> Output {
    let mut command = std::process::Command::new(binary());
    command
        .args(["webhook", "add", tenant, name, "--subscribe", "*"])
        .args(["--admin", admin, "--url"])
        .arg(url)
        .env("RINGBACK_OPERATOR_TOKEN", OPERATOR);
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.unwrap().unwrap()
}
