//! TLS proved against a server that others wrote, nginx with OpenSSL, in a whole pipeline.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use futures_util::future::join_all;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::certificates::{Authority, write};
use ringback_tests::rig::{Rig, short_schedule, topics};
use ringback_tests::servers::prepare;
use ringback_tests::servers_tls::SecureServer;
use serde_json::{Value, json};

/// The deployment's authority, that of a webhook, and a client certificate by the latter.
struct Certificates {
    deployment: Authority,
    private: Authority,
    client: (String, String),
}

impl Certificates {
    fn own(&self) -> Value {
        json!({ "ca": self.private.pem() })
    }

    fn client(&self) -> Value {
        let (certificate, key) = &self.client;
        json!({ "ca": self.private.pem(), "certificate": certificate, "key": key })
    }
}

type Setting = fn(&Certificates) -> Value;

const NONE: Setting = |_| Value::Null;
const OWN: Setting = Certificates::own;
const CLIENT: Setting = Certificates::client;

/// A way to speak TLS, as docs/requests.md lists it.
struct Row {
    what: &'static str,
    way: &'static str,
    /// The webhook's `tls`, and what nginx notes of the requests it accepts.
    right: (Setting, &'static str),
    /// Another `tls`, and what is in the attempt's record then.
    wrong: (Setting, Refusal),
}

/// Outcome, status, and a part of the error.
type Refusal = (&'static str, Option<u16>, &'static str);

const UNKNOWN: Refusal = ("tls", None, "UnknownIssuer");
/// nginx finishes the handshake, and says it by HTTP.
const UNCERTIFIED: Refusal = ("status", Some(400), "");
/// Another client shows that nginx would speak it.
const OLD: &str = "TLSv1.1 HTTP/1.1 NONE";
const TOO_OLD: Refusal = ("tls", None, "ProtocolVersion");

const fn row(
    what: &'static str,
    way: &'static str,
    right: (Setting, &'static str),
    wrong: (Setting, Refusal),
) -> Row {
    Row {
        what,
        way,
        right,
        wrong,
    }
}

#[rustfmt::skip]
const ROWS: [Row; 6] = [
    row("TLS 1.2, HTTP/1.1, an authority of `dispatcher.ca_file`", "tls12", (NONE, "TLSv1.2 HTTP/1.1 NONE"), (OWN, UNKNOWN)),
    row("TLS 1.3, HTTP/1.1, an authority of `dispatcher.ca_file`", "tls13", (NONE, "TLSv1.3 HTTP/1.1 NONE"), (OWN, UNKNOWN)),
    row("TLS 1.3, HTTP/2", "http2", (NONE, "TLSv1.3 HTTP/2.0 NONE"), (OWN, UNKNOWN)),
    row("An authority of the webhook's own", "own", (OWN, "TLSv1.3 HTTP/2.0 NONE"), (NONE, UNKNOWN)),
    row("A client certificate is required (mTLS)", "client", (CLIENT, "TLSv1.3 HTTP/2.0 SUCCESS"), (OWN, UNCERTIFIED)),
    row("TLS 1.1 only: refused, outcome `tls`", "tls11", (NONE, OLD), (NONE, TOO_OLD)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_way_to_speak_tls_with_nginx() {
    let programs = tokio::task::spawn_blocking(prepare).await.unwrap().unwrap();
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let private = Authority::new("private");
    let certificates = Certificates {
        deployment: Authority::new("deployment"),
        client: private.issue("ringback"),
        private,
    };
    let mut server =
        programs.start_tls(dir.path(), &certificates.deployment, &certificates.private);
    let schedule = short_schedule();
    let log = LocalLog::open(data.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let config = ringback_dispatcher::Config {
        ca_file: Some(write(dir.path(), "ca.pem", certificates.deployment.pem())),
        // An attempt that is slow on a loaded machine is no failure of TLS.
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        ..Default::default()
    };
    let rig = Rig::start_with(log, schedule, config).await;
    let runs = ROWS
        .iter()
        .map(|row| deliver(&rig, row, &certificates, &server));
    join_all(runs).await;
    rig.stop().await;
    let mut curl = programs.curl();
    curl.args(["--tlsv1.1", "--tls-max", "1.1"])
        .args(["--ciphers", "DEFAULT:@SECLEVEL=0", "--cacert"])
        .args([dir.path().join("ca.pem"), server.url("tls11").into()]);
    let said = tokio::task::spawn_blocking(move || curl.output().unwrap());
    let said = said.await.unwrap();
    assert!(said.status.success(), "{said:?}");
    server.stop();
    for row in &ROWS {
        let noted = server.requests(row.way);
        let mut good: Vec<_> = noted
            .iter()
            .filter(|line| line.starts_with("200"))
            .collect();
        good.dedup();
        let expected = format!("200 /{} {}", row.way, row.right.1);
        assert_eq!(good, [&expected], "{}: {noted:?}", row.what);
    }
}

/// A webhook with the right setting and one with the wrong one, and two events.
async fn deliver(
    rig: &Rig<LocalLog>,
    row: &Row,
    certificates: &Certificates,
    server: &SecureServer,
) {
    let tenant = rig.tenant().await;
    let url = server.url(row.way);
    let settings = [("right", row.right.0), ("wrong", row.wrong.0)];
    for (name, tls) in settings {
        let mut fields = json!({ "subscription": ["*"], "url": url });
        if let tls @ Value::Object(_) = tls(certificates) {
            fields["tls"] = tls;
        }
        rig.webhook_with(&tenant, name, fields).await;
    }
    let what = row.what;
    for _ in 0..2 {
        let id = rig.event(&tenant, "cdr.completed").await;
        for (name, _) in settings {
            let attempt = rig.attempts(&tenant, name, &id, 1).await.remove(0);
            if name == "right" && row.right.1 != OLD {
                assert_eq!(attempt["status"], 200, "{what}: {attempt}");
                continue;
            }
            let (outcome, status, error) = &row.wrong.1;
            assert_eq!(attempt["outcome"], *outcome, "{what}: {attempt}");
            assert_eq!(attempt["status"], json!(status), "{what}: {attempt}");
            let said = attempt["error"].as_str().unwrap_or_default();
            assert!(said.contains(error), "{what}: {attempt}");
        }
    }
    // What fails is not tried over and over beside the others.
    for (name, _) in settings {
        let path = format!("tenants/{}/webhooks/{name}/pause", tenant.id);
        rig.api("POST", &path, Value::Null).await;
    }
}

#[test]
fn docs_list_every_row() {
    let page = include_str!("../../docs/requests.md");
    let test = "| nginx | `tests/tests/servers_tls.rs` |";
    let listed: Vec<&str> = page.lines().filter(|line| line.ends_with(test)).collect();
    let rows: Vec<_> = ROWS
        .iter()
        .map(|row| format!("| {} {test}", row.what))
        .collect();
    assert_eq!(listed, rows);
}
