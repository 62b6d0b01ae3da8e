//! The real binary as a process, to be killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::ports;
use crate::receiver::{Books, Receiver};
use crate::rig::OPERATOR;

/// The setting with which what a process logs can be read by [`logged`].
pub const LOGS_JSON: &str = "telemetry.format=json";

/// The binary that `RINGBACK` names, or that of the profile that this test is built with, brought up to
/// date first.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("RINGBACK") {
            return PathBuf::from(named);
        }
        // target/<profile>/deps/<test>
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().unwrap().parent().unwrap();
        let mut build = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--package", "ringback"]);
        // What cargo told this test about its own package makes ring's build script run again, and
        // with it half of the tree, here and at the next test.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        if dir.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the binary cannot be built"
        );
        let binary = dir.join("ringback");
        assert!(binary.exists(), "{} was not built", binary.display());
        binary
    })
}

/// A running `ringback`, killed when dropped.
pub struct Process {
    child: Child,
    pub addresses: BTreeMap<&'static str, String>,
    command: &'static str,
    settings: Vec<String>,
    dir: PathBuf,
}

impl Process {
    /// Starts `ringback COMMAND` with these settings (`key=value`) and waits until it is ready.
    pub async fn start(command: &'static str, dir: &Path, settings: &[String]) -> Self {
        let addresses: BTreeMap<_, _> = ["ingest", "admin", "telemetry"]
            .map(|part| (part, format!("127.0.0.1:{}", ports::free().unwrap())))
            .into();
        let child = spawn(command, dir, &addresses, settings);
        let (settings, dir) = (settings.to_vec(), dir.to_path_buf());
        let mut process = Self {
            child,
            addresses,
            command,
            settings,
            dir,
        };
        process.wait_ready().await;
        process
    }

    /// SIGKILL: it gets no chance to say goodbye.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again as it was, at the same addresses.
    pub async fn restart(&mut self) {
        self.child = spawn(self.command, &self.dir, &self.addresses, &self.settings);
        self.wait_ready().await;
    }

    /// SIGTERM; waits for the end and returns the exit status.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal("-TERM");
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} does not end", self.command);
    }

    /// SIGSTOP: it stands still until it [goes on](Self::go_on).
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success(), "kill {signal}");
    }

    /// SIGHUP, when it is ready for that: before, it would be its end.
    pub async fn hang_up(&self) {
        const HANGUP: u64 = 1;
        let status = format!("/proc/{}/status", self.child.id());
        let catches = || {
            let status = std::fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            u64::from_str_radix(caught.unwrap().trim(), 16).unwrap() & HANGUP != 0
        };
        for _ in 0..1200 {
            if catches() {
                return self.signal("-HUP");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} does not listen to SIGHUP", self.command);
    }

    /// What `/readyz` says against it; empty when it is ready.
    pub async fn not_ready(&self) -> String {
        let url = format!("{}/readyz", self.url("telemetry"));
        match reqwest::get(&url).await {
            Ok(response) if response.status().is_success() => String::new(),
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// What `/readyz` names as not in order, ready or not; empty when there is nothing.
    pub async fn troubles(&self) -> String {
        let url = format!("{}/readyz", self.url("telemetry"));
        let answer: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        let told = [&answer["not_ready"], &answer["degraded"]];
        let told = told.iter().filter(|told| ***told != serde_json::json!({}));
        told.map(|told| told.to_string()).collect()
    }

    /// One of its own metrics; `series` is the name with its labels. 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.url("telemetry"));
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How much CPU it has used (Linux, where a tick is 10 ms).
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        // Behind the name, which may contain anything: state is the first field, utime the 12th.
        let (_, fields) = text.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// `http://…` of one of its parts.
    pub fn url(&self, part: &str) -> String {
        format!("http://{}", self.addresses[part])
    }

    async fn wait_ready(&mut self) {
        let url = format!("{}/readyz", self.url("telemetry"));
        let mut last = String::new();
        for _ in 0..1200 {
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "`ringback {}` has ended", self.command);
            match reqwest::get(&url).await {
                Ok(response) if response.status().is_success() => return,
                Ok(response) => last = response.text().await.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("`ringback {}` does not get ready: {last}", self.command);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    command: &str,
    dir: &Path,
    addresses: &BTreeMap<&'static str, String>,
    settings: &[String],
) -> Child {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut process = Command::new(binary());
    process.arg(command).current_dir(dir).stdout(Stdio::null());
    for (part, address) in addresses {
        process.args(["--set", &format!("{part}.listen={address}")]);
    }
    process.args(["--set", &format!("admin.operator_token={OPERATOR}")]);
    process.args(["--set", "telemetry.log=warn"]);
    // The receivers of the tests.
    process.args(["--set", "dispatcher.allow_networks=[\"loopback\"]"]);
    for setting in settings {
        process.args(["--set", setting]);
    }
    // What a test wants to read.
    if settings.iter().any(|setting| setting == LOGS_JSON) {
        let mut log = File::options();
        let log = log
            .create(true)
            .append(true)
            .open(log_file(dir, command))
            .unwrap();
        process.stderr(log);
    }
    process.spawn().unwrap()
}

fn log_file(dir: &Path, command: &str) -> PathBuf {
    dir.join(format!("{command}.log"))
}

/// What a process with [`LOGS_JSON`] has logged so far, line by line. All of it is JSON.
pub fn logged(dir: &Path, command: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log_file(dir, command)).unwrap();
    // The last line may not be whole yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Calls an admin API; the answer must be a success. Asks again while it is starting, or cannot be reached
/// yet.
pub async fn api(client: &reqwest::Client, url: &str, method: &str, body: Value) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = client
            .request(method.parse().unwrap(), url)
            .bearer_auth(OPERATOR);
        let why = match request.json(&body).send().await {
            // Nothing was sent.
            Err(error) if error.is_connect() => error.to_string(),
            asked => {
                let response = asked.unwrap();
                let status = response.status();
                let answer: Value = response.json().await.unwrap();
                if status.is_success() {
                    return answer;
                }
                assert_eq!(status.as_u16(), 503, "{method} {url}: {answer}");
                answer.to_string()
            }
        };
        assert!(
            Instant::now() < deadline,
            "{method} {url} stays unavailable: {why}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Posts a batch; the ids of the lines that were acknowledged. A connection that breaks
/// acknowledges nothing.
pub async fn post_batch(
    client: &reqwest::Client,
    ingest: &str,
    token: &str,
    ids: &[String],
) -> Vec<String> {
    let lines: Vec<_> = ids
        .iter()
        .map(|id| format!(r#"{{"id":"{id}","type":"cdr.completed","data":{{"n":1}}}}"#))
        .collect();
    let request = client
        .post(format!("{ingest}/v1/events"))
        .bearer_auth(token);
    let request = request
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"));
    let Ok(response) = request.send().await else {
        return vec![];
    };
    let Ok(answer) = response.json::<Value>().await else {
        return vec![];
    };
    // A problem document says that nothing was accepted.
    let Some(refused) = answer["refused"].as_array() else {
        return vec![];
    };
    let refused: Vec<_> = refused
        .iter()
        .map(|row| row["index"].as_u64().unwrap())
        .collect();
    let kept = (0u64..)
        .zip(ids)
        .filter(|(index, _)| !refused.contains(index));
    kept.map(|(_, id)| id.clone()).collect()
}

/// Posts events one by one until one of them arrives: a webhook is known everywhere only some time
/// after it was made, and what is accepted before passes it by.
pub async fn until_routed(
    client: &reqwest::Client,
    ingest: &str,
    token: &str,
    receiver: &Receiver,
) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while receiver.books(Books::delivered) == 0 {
        assert!(Instant::now() < deadline, "no event arrives");
        let id = Uuid::now_v7().to_string();
        post_batch(client, ingest, token, &[id]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
