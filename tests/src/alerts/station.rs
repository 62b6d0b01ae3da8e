//! A Prometheus with the shortened rules, an Alertmanager with the shortened routes, and whoever is told:
//! all that watches one installation.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::rules::{SCRAPE, shortened, shortened_routes};
use super::table::{Fault, STAYING};
use crate::{ports, prometheus};

/// How long an alert may take: with the longest of the shortened times, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// One notification for an alert, as Alertmanager sends it.
#[derive(Clone, Debug)]
struct Notified {
    alert: String,
    firing: bool,
    /// Whom the routes lead to: `on-call` or `channel`.
    receiver: String,
    severity: String,
    at: Instant,
}

/// What the receiver of notifications was told, in order.
type Books = Arc<Mutex<Vec<Notified>>>;

/// What was seen of an alert.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seen {
    pub alert: &'static str,
    /// From the fault to the notification that it fires.
    pub fired: Duration,
    /// From its mending to the notification that it is resolved; `None` for [`STAYING`].
    pub resolved: Option<Duration>,
}

/// Watches an installation. Everything ends with it.
pub struct Station {
    name: &'static str,
    dir: TempDir,
    books: Books,
    seen: Mutex<Vec<Seen>>,
    /// `host:port` of Prometheus.
    prometheus: String,
    programs: Vec<Program>,
    receiving: JoinHandle<()>,
}

impl Station {
    /// Starts watching these addresses (`host:port` of `/metrics`), and waits until each was scraped, every
    /// rule was evaluated, and nothing fires.
    pub async fn start(name: &'static str, targets: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ringback-alerts-")
            .tempdir()
            .unwrap();
        let books = Books::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/{receiver}", axum::routing::post(notified))
            .with_state(books.clone());
        let receiving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let [prometheus, alertmanager] =
            [(); 2].map(|()| format!("127.0.0.1:{}", ports::free().unwrap()));
        let mut station = Self {
            name,
            dir,
            books,
            seen: Mutex::default(),
            prometheus,
            programs: Vec::new(),
            receiving,
        };
        station.start_alertmanager(&alertmanager, &receiver).await;
        station.watch(targets);
        station.start_prometheus(&alertmanager).await;
        station.wait_scraped(targets.len()).await;
        station.wait_evaluated().await;
        let early = station.books.lock().clone();
        assert!(early.is_empty(), "{name}: fires without a fault: {early:?}");
        station
    }

    async fn start_alertmanager(&mut self, listen: &str, receiver: &str) {
        let routes = read("deploy/prometheus/alertmanager.yml");
        let routes = shortened_routes(&routes, receiver).unwrap();
        let config = self.write("alertmanager.yml", &routes);
        let args = [
            format!("--config.file={config}"),
            format!("--storage.path={}", self.path("alertmanager").display()),
            format!("--web.listen-address={listen}"),
            // Alone.
            "--cluster.listen-address=".to_owned(),
        ];
        self.program("prometheus-alertmanager", &args, listen).await;
    }

    async fn start_prometheus(&mut self, alertmanager: &str) {
        let rules = shortened(&read("helm/ringback/files/rules.yaml")).unwrap();
        self.write("rules.yaml", &rules);
        let config = format!(
            "global: {{ scrape_interval: {0}s, scrape_timeout: {0}s, evaluation_interval: {0}s }}
rule_files: [rules.yaml]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: [\"{alertmanager}\"] }}] }}] }}
scrape_configs:
  - job_name: ringback
    file_sd_configs: [{{ files: [targets.json] }}]
",
            SCRAPE.as_secs()
        );
        let config = self.write("prometheus.yml", &config);
        let listen = self.prometheus.clone();
        let args = [
            format!("--config.file={config}"),
            format!("--storage.tsdb.path={}", self.path("prometheus").display()),
            format!("--web.listen-address={listen}"),
            // What still fires is told again this soon.
            "--rules.alert.resend-delay=1s".to_owned(),
        ];
        self.program("prometheus", &args, &listen).await;
    }

    /// From now on these addresses, and no others: as when pods come and go.
    pub fn watch(&self, targets: &[&str]) {
        let targets = json!([{ "targets": targets }]).to_string();
        // Prometheus looks when a file is there under its name, so it must be whole by then.
        self.write("targets.next", &targets);
        fs::rename(self.path("targets.next"), self.path("targets.json")).unwrap();
    }

    /// Injects a fault, waits until its alerts fire, mends it, and waits until those are resolved that do not
    /// [stay](STAYING).
    pub async fn trial(
        &self,
        fault: Fault,
        inject: impl Future<Output = ()>,
        mend: impl Future<Output = ()>,
    ) {
        let [what, mending] = fault.told();
        for alert in fault.alerts() {
            self.silent(alert).await;
        }
        let began = Instant::now();
        println!("{}: {what}", self.name);
        inject.await;
        let mut fired = Vec::new();
        for alert in fault.alerts() {
            let at = self.notification(alert, true, began).await;
            fired.push((alert, at - began));
        }
        let mended = Instant::now();
        println!("{}: {mending}", self.name);
        mend.await;
        for (alert, fired) in fired {
            println!("figure alerts.fired_s.{alert} {:.1} s", fired.as_secs_f64());
            let resolved = match STAYING.contains(&alert) {
                true => None,
                false => Some(self.notification(alert, false, mended).await - mended),
            };
            if let Some(resolved) = resolved {
                println!(
                    "figure alerts.resolved_s.{alert} {:.1} s",
                    resolved.as_secs_f64()
                );
            }
            let seen = Seen {
                alert,
                fired,
                resolved,
            };
            self.seen.lock().push(seen);
        }
    }

    /// Waits until the last that was told of an alert is that it is resolved, or nothing was.
    async fn silent(&self, alert: &str) {
        let deadline = Instant::now() + PATIENCE;
        let fires = || {
            let books = self.books.lock();
            let last = books.iter().rfind(|told| told.alert == alert);
            last.is_some_and(|told| told.firing)
        };
        while fires() {
            let now = Instant::now();
            assert!(
                now < deadline,
                "{}: {alert} fires before its fault",
                self.name
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until whoever is told of an alert was told this about it since then: when that was.
    async fn notification(&self, alert: &str, firing: bool, since: Instant) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.books.lock().iter().find_map(|told| {
                let like = told.alert == alert && told.firing == firing && told.at >= since;
                like.then(|| told.clone())
            });
            if let Some(found) = found {
                let receiver = match found.severity.as_str() {
                    "critical" => "on-call",
                    _ => "channel",
                };
                assert_eq!(found.receiver, receiver, "who is told of {alert}");
                return found.at;
            }
            if Instant::now() >= deadline {
                let what = if firing { "fire" } else { "resolve" };
                let told = self.books.lock().clone();
                panic!(
                    "{}: {alert} does not {what}; told so far: {told:#?}\nthe rule: {}",
                    self.name,
                    self.rule(alert).await
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was seen in all trials. Every rule could be evaluated all the time, or this fails.
    pub async fn end(self) -> Vec<Seen> {
        for rule in self.rules().await {
            assert_eq!(rule["health"], "ok", "{}: {rule}", self.name);
        }
        let seen = std::mem::take(&mut *self.seen.lock());
        let meant: BTreeSet<_> = seen.iter().map(|seen| seen.alert).collect();
        let told = self.books.lock();
        let beside: BTreeSet<_> = told.iter().map(|told| &*told.alert).collect();
        let beside: Vec<_> = beside.difference(&meant).collect();
        if !beside.is_empty() {
            println!(
                "{}: what followed from it fired, too: {beside:?}",
                self.name
            );
        }
        drop(told);
        seen
    }

    /// What was never seen is not missed when it goes.
    async fn wait_scraped(&self, targets: usize) {
        let url = format!(
            "http://{}/api/v1/query?query=count(up%3D%3D1)",
            self.prometheus
        );
        let wanted = targets.to_string();
        let deadline = Instant::now() + START;
        loop {
            let answer = async { reqwest::get(&url).await.ok()?.json::<Value>().await.ok() };
            let answer = answer.await.unwrap_or_default();
            if answer["data"]["result"][0]["value"][1] == *wanted {
                return;
            }
            let now = Instant::now();
            assert!(
                now < deadline,
                "{}: of {targets} targets were scraped: {answer}",
                self.name
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn wait_evaluated(&self) {
        let deadline = Instant::now() + START;
        loop {
            let rules = self.rules().await;
            if !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok") {
                return;
            }
            let now = Instant::now();
            assert!(
                now < deadline,
                "{}: rules are not evaluated: {rules:#?}",
                self.name
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// All rules as Prometheus knows them.
    async fn rules(&self) -> Vec<Value> {
        let url = format!("http://{}/api/v1/rules", self.prometheus);
        let Ok(answer) = reqwest::get(url).await else {
            return Vec::new();
        };
        let answer: Value = answer.json().await.unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned();
        let rules = groups.unwrap_or_default().into_iter();
        rules
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect()
    }

    async fn rule(&self, alert: &str) -> String {
        let rules = self.rules().await;
        let rule = rules.iter().find(|rule| rule["name"] == alert);
        rule.map_or("none".to_owned(), Value::to_string)
    }

    /// Starts a program and waits until it answers there.
    async fn program(&mut self, name: &'static str, args: &[String], listen: &str) {
        let log = self.path(name).with_extension("log");
        let output = File::create(&log).unwrap();
        let child = prometheus::program(name)
            .unwrap()
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.programs.push(Program(child));
        let url = format!("http://{listen}/-/ready");
        let deadline = Instant::now() + START;
        loop {
            let ready = reqwest::get(&url).await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let said = fs::read_to_string(&log).unwrap_or_default();
            // Unpacked, Alertmanager needs a name space of its own: not every container allows that.
            assert!(
                Instant::now() < deadline,
                "{name} does not start (as root: apt-get install {name}):\n{said}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// A running program, killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes Alertmanager's notification about a group of alerts, which has one name here.
async fn notified(
    State(books): State<Books>,
    UrlPath(receiver): UrlPath<String>,
    Json(group): Json<Value>,
) -> StatusCode {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let notified = Notified {
        alert: text(&group["groupLabels"]["alertname"]),
        firing: group["status"] == "firing",
        receiver,
        severity: text(&group["commonLabels"]["severity"]),
        at: Instant::now(),
    };
    books.lock().push(notified);
    StatusCode::OK
}

/// A file of the repository.
pub(super) fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}
