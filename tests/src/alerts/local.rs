//! Installations on the local log, `ringback up`: receivers, the way to them, and what is on the disk.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::CertificateParams;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::load::Load;
use super::station::{Seen, Station};
use super::table::Fault;
use crate::certificates::Authority;
use crate::ports;
use crate::process::{Process, api};
use crate::proxy::{Proxy, Slow};
use crate::receiver::{Answer, Books, Receiver};

/// Webhooks whose receivers fail: more than the rule lets pass.
const FAILING: usize = 12;
/// Webhooks whose receivers hang: with what each may have in flight, more than all slots.
const HANGING: usize = 4;
const SLOTS: usize = 48;
const DAY: Duration = Duration::from_secs(86_400);

/// One process with everything, and what it needs besides.
struct Up {
    process: Process,
    dir: TempDir,
    client: reqwest::Client,
    token: String,
}

impl Up {
    async fn start(dir: TempDir, further: &[String]) -> Self {
        let mut settings = vec![
            "log.engine=local".to_owned(),
            format!("log.local.dir={}", dir.path().join("data").display()),
            "schedule.tiers=[\"1s\", \"2s\", \"3s\"]".to_owned(),
        ];
        settings.extend_from_slice(further);
        let process = Process::start("up", dir.path(), &settings).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            // Of our own making.
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let mut up = Self {
            process,
            dir,
            client,
            token: String::new(),
        };
        up.call("POST", "tenants", json!({ "id": "acme", "title": "Acme" }))
            .await;
        let form = json!({ "name": "pbx", "tenant": "acme" });
        let issued = up.call("POST", "tokens", form).await;
        up.token = issued["token"].as_str().unwrap().to_owned();
        up
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/v1/{path}", self.process.url("admin"));
        api(&self.client, &url, method, body).await
    }

    async fn webhook(&self, name: &str, url: &str) {
        let form = json!({ "name": name, "url": url, "subscription": ["cdr.*"] });
        self.call("POST", "tenants/acme/webhooks", form).await;
    }

    /// Events from now on, that many per second.
    fn load(&self, scheme: &str, per_second: u32) -> Load {
        let ingest = (&self.process, scheme);
        Load::start(self.client.clone(), ingest, &self.token, per_second)
    }

    async fn watched(&self, name: &'static str) -> Station {
        Station::start(name, &[&self.process.addresses["telemetry"]]).await
    }

    /// Files of the projection.
    fn databases(&self) -> Vec<PathBuf> {
        let dir = self.dir.path().join("data/projection");
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_database = |path: &PathBuf| path.extension().is_some_and(|name| name == "sqlite");
        files.filter(is_database).collect()
    }
}

/// Receivers that fail, a proxy that is away, a database that is locked.
pub async fn failing() -> Vec<Seen> {
    let receiver = Receiver::start().await;
    // It takes requests in the form that proxies get, so it is one, behind a way that can be closed.
    let proxy = forwarding("127.0.0.1:0", &receiver).await;
    let back = Cell::new(None);
    let settings = [
        format!("dispatcher.proxy=http://{}", proxy.address),
        "metrics.policy.window=30s".to_owned(),
        // Counts are as fine as a 120th of it.
        "metrics.policy.slow_window=10m".to_owned(),
        "metrics.policy.attempts=8".to_owned(),
        "metrics.policy.silence=3s".to_owned(),
    ];
    let up = Up::start(tempfile::tempdir().unwrap(), &settings).await;
    let names: Vec<_> = (0..FAILING).map(|n| format!("w{n}")).collect();
    for name in &names {
        up.webhook(name, &receiver.url(name)).await;
    }
    up.webhook("gone", &receiver.url("gone")).await;
    let load = up.load("http", 2);
    let station = up.watched("failing").await;
    let answer = |fails: bool| {
        for name in &names {
            receiver.behave(name, move |_, _, _| {
                Answer::Status(if fails { 500 } else { 200 })
            });
        }
        receiver.behave("gone", move |_, _, _| {
            Answer::Status(if fails { 404 } else { 200 })
        });
    };
    let locks = RefCell::new(Vec::new());
    let receivers_fail = station.trial(Fault::ReceiversFail, async { answer(true) }, async {
        answer(false);
        for name in &names {
            let path = format!("tenants/acme/webhooks/{name}/enable");
            up.call("POST", &path, json!({})).await;
        }
    });
    let database_locked = station.trial(
        Fault::DatabaseLocked,
        async { *locks.borrow_mut() = up.databases().iter().map(locked).collect() },
        async { locks.borrow_mut().clear() },
    );
    tokio::join!(receivers_fail, database_locked);
    let at = proxy.address.to_string();
    let proxy_away = station.trial(Fault::ProxyAway, async { drop(proxy) }, async {
        back.set(Some(forwarding(&at, &receiver).await));
    });
    proxy_away.await;
    drop(load);
    station.end().await
}

/// Receivers that are slow or hang, and a certificate that expires.
pub async fn hanging() -> Vec<Seen> {
    let receiver = Receiver::start().await;
    let way = forwarding("127.0.0.1:0", &receiver).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("alerts");
    let certificate = |left: Duration| replace_certificate(dir.path(), &authority, left);
    certificate(30 * DAY);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let settings = [
        format!("ingest.tls.certificate_file={}", file("ingest.pem")),
        format!("ingest.tls.key_file={}", file("ingest.key")),
        format!("dispatcher.slots={SLOTS}"),
        // Longer than anything here lasts.
        "dispatcher.timeout=10m".to_owned(),
    ];
    let up = Up::start(tempfile::tempdir().unwrap(), &settings).await;
    for n in 0..HANGING {
        let url = format!("http://{}/w{n}", way.address);
        up.webhook(&format!("w{n}"), &url).await;
    }
    let load = up.load("https", 1);
    let station = up.watched("hanging").await;
    let certificate_old = station.trial(Fault::CertificateOld, async { certificate(DAY) }, async {
        certificate(30 * DAY)
    });
    let receivers = async {
        let slow = Slow {
            delay: Duration::from_secs(3),
            ..Slow::default()
        };
        let (be_slow, be_quick) = (async { way.be(slow) }, async { way.be(Slow::default()) });
        let receivers_slow = station.trial(Fault::ReceiversSlow, be_slow, be_quick);
        receivers_slow.await;
        let hang = async {
            // There are retries before they hang.
            let answer = |status| {
                for n in 0..HANGING {
                    receiver.behave(&format!("w{n}"), move |_, _, _| Answer::Status(status));
                }
            };
            answer(500);
            let before = receiver.books(|books| books.requests.len());
            let failed = |books: &Books| books.requests.len() >= before + 2 * HANGING;
            receiver.wait("deliveries fail", failed).await;
            way.be(Slow {
                hold: true,
                ..Slow::default()
            });
            answer(200);
        };
        let receivers_hang = station.trial(Fault::ReceiversHang, hang, async {
            way.be(Slow::default())
        });
        receivers_hang.await;
    };
    tokio::join!(certificate_old, receivers);
    drop(load);
    station.end().await
}

/// A canary that dispatchers cannot reach, that cannot reach the administration, and that is gone.
pub async fn canary() -> Vec<Seen> {
    let listen = format!("127.0.0.1:{}", ports::free().unwrap());
    let [way, way_in] = [Proxy::start().await, Proxy::start().await];
    way.forward_to(&listen);
    // Longer than anything here lasts.
    let settings = ["dispatcher.timeout=10m".to_owned()];
    let up = Up::start(tempfile::tempdir().unwrap(), &settings).await;
    way_in.forward_to(&up.process.addresses["admin"]);
    let settings = [
        "canary.every=1s".to_owned(),
        format!("canary.listen={listen}"),
        format!("canary.url=http://{}/", way.address),
        format!("canary.admin_url=http://{}", way_in.address),
        format!("canary.ingest_url={}", up.process.url("ingest")),
    ];
    let mut canary = Process::start("canary", up.dir.path(), &settings).await;
    let telemetry = [&up.process, &canary].map(|process| process.addresses["telemetry"].clone());
    let station = Station::start("canary", &telemetry.each_ref().map(String::as_str)).await;
    let swallow = Slow {
        hold: true,
        ..Slow::default()
    };
    let unreachable = station.trial(Fault::CanaryUnreachable, async { way.be(swallow) }, async {
        way.be(Slow::default())
    });
    let locked_out = station.trial(
        Fault::CanaryLockedOut,
        async { way_in.be(swallow) },
        async { way_in.be(Slow::default()) },
    );
    tokio::join!(unreachable, locked_out);
    let killed = Cell::new(None);
    let gone = station.trial(
        Fault::CanaryGone,
        async {
            canary.kill();
            killed.set(Some(canary));
        },
        async {
            let mut canary = killed.take().unwrap();
            canary.restart().await;
            killed.set(Some(canary));
        },
    );
    gone.await;
    station.end().await
}

/// A way to the receiver that begins at this address.
async fn forwarding(from: &str, receiver: &Receiver) -> Proxy {
    let proxy = Proxy::start_at(from).await;
    proxy.forward_to(&receiver.address.to_string());
    proxy
}

/// A connection that holds the write lock of this database.
fn locked(path: &PathBuf) -> Connection {
    let other = Connection::open(path).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Puts a certificate that is valid for this long, and its key, in place of what is there.
fn replace_certificate(dir: &Path, authority: &Authority, left: Duration) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = (SystemTime::now() + left).into();
    let (certificate, key) = authority.sign(params);
    fs::write(dir.join("ingest.key"), key).unwrap();
    fs::write(dir.join("ingest.pem"), certificate).unwrap();
}
