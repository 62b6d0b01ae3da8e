//! Authentication proved against servers that others wrote: Apache httpd, lighttpd and nginx.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::rig::{Rig, TestTenant, short_schedule, topics};
use ringback_tests::sender::Sender;
use ringback_tests::servers::{LOGIN, Servers, TOKEN, UTF8_LOGIN, prepare};
use serde_json::{Value, json};

/// A method on a server, as docs/requests.md lists it.
struct Row {
    method: &'static str,
    server: &'static str,
    program: &'static str,
    path: &'static str,
    authentication: fn() -> Value,
}

const fn row(
    method: &'static str,
    server: &'static str,
    program: &'static str,
    path: &'static str,
    authentication: fn() -> Value,
) -> Row {
    Row {
        method,
        server,
        program,
        path,
        authentication,
    }
}

fn login(method: &str, (username, password): (&str, &str)) -> Value {
    json!({ "method": method, "username": username, "password": password })
}

fn basic() -> Value {
    login("basic", LOGIN)
}

fn bearer() -> Value {
    json!({ "method": "bearer", "token": TOKEN })
}

fn digest() -> Value {
    login("digest", LOGIN)
}

fn digest_utf8() -> Value {
    login("digest", UTF8_LOGIN)
}

/// What is proved, and where.
#[rustfmt::skip]
const ROWS: [Row; 11] = [
    row("Basic", "nginx", "nginx", "/basic", basic),
    row("Basic", "lighttpd", "lighttpd", "/basic", basic),
    row("Bearer", "nginx", "nginx", "/bearer", bearer),
    row("Digest: MD5", "Apache httpd (`mod_auth_digest`)", "apache", "/md5", digest),
    row("Digest: MD5, a user name in UTF-8", "Apache httpd (`mod_auth_digest`)", "apache", "/basic", digest_utf8),
    row("Digest: MD5, nonces of 30 s", "Apache httpd (`mod_auth_digest`)", "apache", "/short", digest),
    row("Digest: MD5", "lighttpd", "lighttpd", "/md5", digest),
    row("Digest: SHA-256", "lighttpd", "lighttpd", "/sha-256", digest),
    row("Digest: SHA-512-256", "lighttpd", "lighttpd", "/sha-512-256", digest),
    row("Digest: three challenges, the strongest is taken", "lighttpd", "lighttpd", "/all", digest),
    row("Digest: SHA-256, a user name in UTF-8 (`username*`)", "lighttpd", "lighttpd", "/sha-256?utf8", digest_utf8),
];

/// Events of each row.
const EVENTS: usize = 4;

impl Row {
    fn url(&self, servers: &Servers) -> String {
        let base = match self.program {
            "apache" => &servers.apache,
            "lighttpd" => &servers.lighttpd,
            _ => &servers.nginx,
        };
        format!("{base}{}", self.path)
    }

    /// The reason that an attempt with wrong credentials must give.
    fn refusal(&self) -> String {
        let how = match self.method.split_once(": ") {
            None => self.method.to_owned(),
            Some((method, "three challenges, the strongest is taken")) => {
                format!("{method}, SHA-512-256")
            }
            Some((method, rest)) => format!("{method}, {}", rest.split(',').next().unwrap()),
        };
        format!("the receiver refused the credentials ({how})")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_method_on_every_server() {
    let programs = tokio::task::spawn_blocking(prepare).await.unwrap().unwrap();
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut servers = programs.start(dir.path());
    let schedule = short_schedule();
    let log = LocalLog::open(data.path(), topics(&schedule), LocalOptions::default()).unwrap();
    // An attempt that is slow on a loaded machine is no failure of authentication.
    let config = ringback_dispatcher::Config {
        timeout: Duration::from_secs(30),
        ..Default::default()
    };
    let rig = Rig::start_with(log, schedule, config).await;
    let runs = ROWS.iter().map(|row| deliver(&rig, row, row.url(&servers)));
    join_all(runs).await;
    rig.stop().await;
    servers.stop();
    for row in &ROWS {
        let path = row.path.split('?').next().unwrap();
        let utf8 = row.method.contains("UTF-8");
        let requests = servers.requests(row.program, path);
        let requests = requests.iter().map(String::as_str);
        let digest = requests.filter(|line| line.starts_with("200") && line.contains("Digest "));
        let ours = digest.filter(|line| utf8 == (line.contains("%C3") || line.contains("\\xc3")));
        check_reuse(row, &ours.collect::<Vec<_>>());
    }
}

/// One webhook with the right credentials and one with wrong ones.
async fn deliver(rig: &Rig<LocalLog>, row: &Row, url: String) {
    let tenant = rig.tenant().await;
    let what = format!("{} on {}", row.method, row.server);
    let mut wrong = (row.authentication)();
    let secret = if row.method == "Bearer" {
        "token"
    } else {
        "password"
    };
    wrong[secret] = json!("not-this-one-hunter2");
    for (name, authentication) in [("right", (row.authentication)()), ("wrong", wrong)] {
        let fields = json!({ "subscription": ["*"], "url": url, "authentication": authentication });
        rig.webhook_with(&tenant, name, fields).await;
    }
    for number in 0..EVENTS {
        let id = rig.event(&tenant, "cdr.completed").await;
        let attempt = first_attempt(rig, &tenant, "right", &id).await;
        assert_eq!(attempt["status"], 200, "{what}, event {number}: {attempt}");
        assert_eq!(attempt["error"], Value::Null, "{what}: {attempt}");
        if number == 0 {
            let attempt = first_attempt(rig, &tenant, "wrong", &id).await;
            assert_eq!(attempt["status"], 401, "{what}: {attempt}");
            assert_eq!(attempt["error"], json!(row.refusal()), "{what}: {attempt}");
            assert!(!attempt.to_string().contains("hunter2"), "{attempt}");
            // What is refused is not tried over and over beside the others.
            let path = format!("tenants/{}/webhooks/wrong/pause", tenant.id);
            rig.api("POST", &path, Value::Null).await;
        }
    }
}

async fn first_attempt(rig: &Rig<LocalLog>, tenant: &TestTenant, webhook: &str, id: &str) -> Value {
    rig.attempts(tenant, webhook, id, 1).await.remove(0)
}

/// By the server's own log: the nonces of accepted requests are reused, each with a rising count.
fn check_reuse(row: &Row, accepted: &[&str]) {
    if !row.method.starts_with("Digest") {
        return;
    }
    let what = format!("{} on {}: {accepted:#?}", row.method, row.server);
    assert_eq!(accepted.len(), EVENTS, "{what}");
    let mut by_nonce: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in accepted {
        let nonce = between(line, " nonce=\"", "\"");
        let count = between(line, " nc=", ",");
        by_nonce.entry(nonce).or_default().push(count);
    }
    for counts in by_nonce.values() {
        let expected: Vec<_> = (1..=counts.len()).map(|n| format!("{n:08x}")).collect();
        assert_eq!(*counts, expected, "{what}");
    }
    // `/short` names another nonce in every answer.
    let nonces = if row.path == "/short" { EVENTS } else { 1 };
    assert_eq!(by_nonce.len(), nonces, "{what}");
    if row.path == "/all" {
        assert!(
            accepted.iter().all(|line| line.contains("SHA-512-256")),
            "{what}"
        );
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).expect(text).1;
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// The figure on a server that others wrote, whose nonces live 30 s: 1,000 deliveries, eight at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_deliveries_to_apache() {
    const DELIVERIES: usize = 1000;
    let programs = tokio::task::spawn_blocking(prepare).await.unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut servers = programs.start(dir.path());
    let sender = Sender::new();
    let webhook = sender.webhook(&format!("{}/short", servers.apache), digest());
    let sent = futures_util::stream::iter(0..DELIVERIES)
        .map(|_| sender.send(&webhook))
        .buffer_unordered(8);
    sent.for_each(|sent| async move { assert_eq!(sent.outcome.status(), Some(200), "{sent:?}") })
        .await;
    drop(sender);
    servers.stop();
    let requests = servers.requests("apache", "/short");
    let uses: BTreeSet<_> = requests
        .iter()
        .filter(|line| line.contains("Digest "))
        .map(|line| (between(line, " nonce=\"", "\""), between(line, " nc=", ",")))
        .collect();
    let with = requests.iter().filter(|line| line.contains("Digest "));
    assert_eq!(uses.len(), with.count(), "a use of a nonce came twice");
    let figure = requests.len() as f64 / DELIVERIES as f64;
    println!("figure digest.requests_per_delivery_apache {figure:.3} requests");
    assert!(requests.len() >= DELIVERIES, "{}", requests.len());
    assert!(figure <= 1.05, "{figure}");
}

#[test]
fn docs_list_every_row() {
    let page = include_str!("../../docs/requests.md");
    let test = "| `tests/tests/servers.rs` |";
    let listed: Vec<&str> = page.lines().filter(|line| line.ends_with(test)).collect();
    let rows: Vec<_> = ROWS
        .iter()
        .map(|row| format!("| {} | {} {test}", row.method, row.server))
        .collect();
    assert_eq!(listed, rows);
}

/// The other rows name a file and tests in it.
#[test]
fn docs_name_tests_that_exist() {
    let page = include_str!("../../docs/requests.md");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = 0;
    for line in page.lines().filter(|line| line.contains(".rs`: `")) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let (file, tests) = cell.split_once(": ").unwrap();
        let file = root.join(file.trim_matches('`'));
        let code = std::fs::read_to_string(&file).expect(line);
        for test in tests.split(", ") {
            let begin = format!("fn {}(", test.trim_matches('`'));
            assert!(code.contains(&begin), "{begin} of {line}");
            named += 1;
        }
    }
    assert!(named >= 20, "{named}");
}
