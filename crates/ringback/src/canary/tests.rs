//! The canary on a whole pipeline on the local log: what it measures, what it notices, what it mends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use reqwest::{Client, Method, StatusCode};
use ringback_core::canary::event_type;
use ringback_core::signature::Signer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::component::{self, Components};

/// For everything that is waited for; a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(90);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The local log, a quick schedule, and a policy that disables soon.
fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    for listen in [
        &mut config.ingest.listen,
        &mut config.admin.listen,
        &mut config.telemetry.listen,
        &mut config.canary.listen,
    ] {
        "127.0.0.1:0".clone_into(listen);
    }
    config.log.local.dir = dir.to_path_buf();
    config.topics.event_partitions = 1;
    config.topics.work_partitions = 1;
    config.schedule =
        serde_json::from_value(json!({ "tiers": ["1s", "2s", "3s", "4s", "5s"] })).unwrap();
    config.canary.every = Duration::from_millis(200);
    crate::up::provide_secrets(&mut config, dir).unwrap();
    config
}

/// A way that can be cut: connections to it go on to where it leads, or end at once.
struct Way {
    address: String,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            leads_to: Arc::default(),
            is_cut: Arc::default(),
        };
        let (leads_to, is_cut) = (way.leads_to.clone(), way.is_cut.clone());
        tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let target = *leads_to.lock();
                let Some(target) = target.filter(|_| !is_cut.load(Ordering::SeqCst)) else {
                    continue;
                };
                let is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(target).await.unwrap();
                    let cut = async {
                        while !is_cut.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        () = cut => {}
                    }
                });
            }
        });
        way
    }

    fn to(&self, address: &str) {
        let address = address.trim_start_matches("http://");
        *self.leads_to.lock() = Some(address.parse().unwrap());
    }

    fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
    }
}

/// A pipeline, and a canary outside of it.
struct Rig {
    _dir: tempfile::TempDir,
    pipeline: component::Running,
    canary: Running,
    metrics: Metrics,
    /// From the canary to the ingest.
    ingest: Way,
    /// From dispatchers to the canary.
    receiver: Way,
    admin: String,
    operator: String,
    client: Client,
}

impl Rig {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        http::choose_cryptography();
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let whole = component::Running::start(config.clone(), Components::ALL);
        let pipeline = whole.await.unwrap();
        let (ingest, receiver) = (Way::new().await, Way::new().await);
        ingest.to(pipeline.addresses.ingest.as_ref().unwrap());
        let admin = pipeline.addresses.admin.clone().unwrap();
        config.canary.url = Some(format!("{}/canary", receiver.address));
        let addresses = Addresses {
            ingest: Some(ingest.address.clone()),
            admin: Some(admin.clone()),
            ..Addresses::default()
        };
        let (metrics, health) = (Metrics::new(), Health::new());
        let canary = Running::start(&config, &addresses, metrics.clone(), &health);
        let canary = canary.await.unwrap();
        receiver.to(&canary.address);
        Self {
            _dir: dir,
            pipeline,
            canary,
            metrics,
            ingest,
            receiver,
            admin,
            operator: config.admin.operator_token.expose().to_owned(),
            client: http::client().unwrap(),
        }
    }

    async fn end(self) {
        self.canary.end().await;
        self.pipeline.drain().await;
    }

    fn count(&self, family: Family, outcome: Outcome) -> u64 {
        let labels = [&*family.to_string(), outcome.as_str()];
        self.metrics.count(Counter::CanaryEvents, &labels)
    }

    /// The fewest of a family.
    fn least(&self, outcome: Outcome) -> u64 {
        let counts = Family::ALL.map(|family| self.count(family, outcome));
        counts.into_iter().min().unwrap()
    }

    /// The value of a series as it is scraped.
    fn scraped(&self, series: &str) -> f64 {
        let text = self.metrics.expose();
        let row = text.lines().find_map(|line| line.strip_prefix(series));
        row.unwrap().trim().parse().unwrap()
    }

    fn oldest(&self) -> f64 {
        let name = |family| format!("ringback_canary_oldest_seconds{{family=\"{family}\"}}");
        let ages = Family::ALL.map(|family| self.scraped(&name(family)));
        ages.into_iter().fold(0.0, f64::max)
    }

    /// Waits until some more of every family have come.
    async fn more_come(&self) {
        let before = self.least(Outcome::Received);
        eventually("more are received", async || {
            self.least(Outcome::Received) >= before + 3
        })
        .await;
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}/v1/{path}", self.admin);
        let mut request = self.client.request(method, url).bearer_auth(&self.operator);
        if let Some(body) = body {
            request = request.header("if-match", "*").json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn does(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn webhook(&self) -> Value {
        self.ask(Method::GET, WEBHOOK, None).await.1
    }
}

const WEBHOOK: &str = "tenants/canary/webhooks/canary";

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_measures_and_sees_either_way_cut_and_mended() {
    let rig = Rig::new(|_| {}).await;
    rig.more_come().await;
    let labels = |family: Family| family.to_string();
    for family in Family::ALL {
        let series = format!(
            "ringback_canary_seconds_count{{family=\"{}\"}}",
            labels(family)
        );
        eventually("what is received is measured", async || {
            rig.scraped(&series) as u64 == rig.count(family, Outcome::Received)
        })
        .await;
        for never in [
            Outcome::Refused,
            Outcome::Lost,
            Outcome::Duplicate,
            Outcome::Stray,
        ] {
            assert_eq!(rig.count(family, never), 0, "{family} {never:?}");
        }
    }
    assert!(rig.oldest() < 1.0);

    // Dispatchers do not reach it: what is accepted does not come, and ages.
    rig.receiver.cut(true);
    let accepted = rig.least(Outcome::Accepted);
    eventually("the oldest ages", async || rig.oldest() > 3.0).await;
    assert!(rig.least(Outcome::Accepted) > accepted);
    assert_eq!(rig.least(Outcome::Refused), 0);
    rig.receiver.cut(false);
    rig.more_come().await;
    // Retries bring what was sent meanwhile.
    eventually("all have come", async || rig.oldest() < 0.5).await;
    assert_eq!(rig.least(Outcome::Lost), 0);

    // It does not reach the ingest.
    rig.ingest.cut(true);
    eventually("refusals are counted", async || {
        rig.least(Outcome::Refused) >= 2
    })
    .await;
    assert!(
        rig.oldest() < 1.0,
        "what was not accepted is not waited for"
    );
    rig.ingest.cut(false);
    rig.more_come().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_or_changed_is_put_right() {
    let rig = Rig::new(|_| {}).await;
    rig.more_come().await;
    let made = rig.webhook().await;
    assert_eq!(made["subscription"], json!(Family::ALL.map(event_type)));

    // Switched off by somebody.
    rig.does(Method::POST, &format!("{WEBHOOK}/pause"), None)
        .await;
    eventually("it is on again", async || {
        rig.webhook().await["enabled"] == true
    })
    .await;
    rig.more_come().await;

    // Led elsewhere, and narrowed.
    let elsewhere = json!({ "url": "http://127.0.0.1:8099/", "subscription": ["cdr.canary"] });
    rig.does(Method::PATCH, WEBHOOK, Some(elsewhere)).await;
    eventually("it leads here again", async || {
        let webhook = rig.webhook().await;
        webhook["url"] == made["url"] && webhook["subscription"] == made["subscription"]
    })
    .await;
    rig.more_come().await;

    // Another key, at once.
    let rotation = json!({ "grace": "0" });
    rig.does(
        Method::POST,
        &format!("{WEBHOOK}/secret/rotate"),
        Some(rotation),
    )
    .await;
    rig.more_come().await;

    // Its token is revoked: refusals tell, and there is another one; and one only.
    let tokens =
        async || rig.ask(Method::GET, "tokens?tenant=canary", None).await.1["tokens"].clone();
    let old = tokens().await[0]["id"].as_str().unwrap().to_owned();
    rig.does(Method::DELETE, &format!("tokens/{old}"), None)
        .await;
    eventually("it has another token", async || {
        let tokens = tokens().await;
        tokens.as_array().unwrap().len() == 1 && tokens[0]["id"] != old
    })
    .await;
    assert_eq!(tokens().await[0]["scopes"], json!(["publish"]));
    rig.more_come().await;

    // The webhook is removed; what was sent to nobody is not waited for.
    rig.does(Method::DELETE, WEBHOOK, None).await;
    eventually("it has another webhook", async || {
        let id = rig.webhook().await["id"].clone();
        id.is_string() && id != made["id"]
    })
    .await;
    rig.more_come().await;
    eventually("all have come or are given up", async || rig.oldest() < 0.5).await;

    // All of it is gone.
    rig.does(Method::DELETE, "tenants/canary", None).await;
    eventually("its tenant is there again", async || {
        rig.ask(Method::GET, WEBHOOK, None).await.0.is_success()
    })
    .await;
    rig.more_come().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_webhook_is_enabled_again() {
    let rig = Rig::new(|config| {
        config.metrics.policy.attempts = 2;
        config.metrics.policy.silence = Duration::from_secs(1);
        config.metrics.snapshot_interval = Duration::from_millis(100);
    })
    .await;
    rig.more_come().await;
    rig.receiver.cut(true);
    eventually("it was disabled and enabled", async || {
        rig.webhook().await["generation"].as_u64() > Some(0)
    })
    .await;
    rig.receiver.cut(false);
    rig.more_come().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_in_a_metric() {
    let rig = Rig::new(|config| config.dispatcher.allow_networks = Some(vec![])).await;
    let failed = |step: &str| format!("ringback_canary_setup_failed{{step=\"{step}\"}}");
    eventually("its webhook is refused", async || {
        rig.scraped(&failed("webhook")) == 1.0
    })
    .await;
    assert_eq!(rig.scraped(&failed("tenant")), 0.0);
    // Nothing is sent that cannot come.
    assert_eq!(rig.least(Outcome::Accepted), 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_runs_it_in_its_own_process() {
    http::choose_cryptography();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.canary.enabled = true;
    let running = component::Running::start(config, Components::ALL);
    let running = running.await.unwrap();
    assert!(running.addresses.canary.is_some());
    for family in Family::ALL {
        let labels = [&*family.to_string(), Outcome::Received.as_str()];
        eventually("an event has come", async || {
            running.metrics.count(Counter::CanaryEvents, &labels) > 0
        })
        .await;
    }
    running.drain().await;
}

/// A receiver that knows a key, without anything around it.
async fn receiver() -> (Arc<Shared>, String) {
    http::choose_cryptography();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let shared = Arc::new(Shared {
        canary: Mutex::new(Canary::new(Duration::from_secs(10))),
        keys: Mutex::new([Verifier::read(&Secret::new(SECRET)).unwrap()].into()),
        metrics: Metrics::new(),
        clock: ringback_log::system_clock(),
    });
    let serving = Serving {
        patience: PATIENCE,
        tls: None,
    };
    let router = receiver::router(shared.clone());
    let never = CancellationToken::new();
    tokio::spawn(ringback_server::serve(listener, router, serving, never));
    (shared, address)
}

#[tokio::test]
async fn only_what_is_rightly_signed_is_taken() {
    let (shared, address) = receiver().await;
    let client = http::client().unwrap();
    let now = shared.clock.now().as_secs();
    let (id, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let body = |id: Uuid, name: &str| json!({ "id": id, "type": name, "data": {} }).to_string();
    let send = async |signed_with: &str, id: Uuid, at: i64, body: String| {
        let signer = Signer::read(&Secret::new(signed_with)).unwrap();
        let signature = signer.sign(&id.to_string(), at, body.as_bytes());
        let request = client
            .post(&address)
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    shared.canary.lock().begin(Family::Cdr, id, Duration::ZERO);
    shared
        .canary
        .lock()
        .posted(Family::Cdr, id, true, Duration::ZERO);
    let event = || body(id, "cdr.canary");
    let theirs = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(send(theirs, id, now, event()).await, 401);
    // A request of yesterday.
    assert_eq!(send(SECRET, id, now - 86_400, event()).await, 401);
    let unsigned = client.post(&address).body(event()).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert_eq!(client.get(&address).send().await.unwrap().status(), 405);
    assert_eq!(send(SECRET, id, now, "x".repeat(65 * 1024)).await, 413);
    assert_eq!(send(SECRET, id, now, "{}".to_owned()).await, 400);
    assert_eq!(send(SECRET, other, now, event()).await, 400);
    let count = |outcome| shared.canary.lock().count(Family::Cdr, outcome);
    assert_eq!(Outcome::ALL.map(count), [1, 0, 0, 0, 0, 0]);
    // Somebody's test of the webhook is acknowledged.
    assert_eq!(send(SECRET, id, now, body(id, "webhook.test")).await, 200);
    assert_eq!(count(Outcome::Received), 0);
    for _ in 0..2 {
        assert_eq!(send(SECRET, id, now, event()).await, 200);
    }
    assert_eq!(
        send(SECRET, other, now, body(other, "cdr.canary")).await,
        200
    );
    assert_eq!(Outcome::ALL.map(count), [1, 0, 1, 1, 0, 1]);
    let text = shared.metrics.expose();
    for row in [
        "ringback_http_requests_total{server=\"canary\",status=\"401\"} 3",
        "ringback_canary_seconds_count{family=\"cdr\"} 1",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }

    // Before the first look it knows no key: what comes is to come again.
    *shared.keys.lock() = Arc::default();
    assert_eq!(send(SECRET, id, now, event()).await, 503);
}

#[test]
fn its_token_is_its_own_or_the_operators() {
    let token = |config: &Config| {
        let token = AdminToken::of(config).map_err(|failure| failure.message)?;
        token.read().map(|secret| secret.expose().to_owned())
    };
    let mut config = Config::default();
    assert!(token(&config).unwrap_err().contains("canary.token_file"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    config.admin.operator_token_file = Some(file.clone());
    assert!(token(&config).unwrap_err().contains("No such file"));
    std::fs::write(&file, "of-a-file\n").unwrap();
    assert_eq!(token(&config).unwrap(), "of-a-file");
    config.admin.operator_token = "operators".to_owned().into();
    assert_eq!(token(&config).unwrap(), "operators");
    config.canary.token_file = Some(file);
    assert_eq!(token(&config).unwrap(), "of-a-file");
    config.canary.token = Some(Secret::new("own"));
    assert_eq!(token(&config).unwrap(), "own");
}

#[test]
fn who_listens_everywhere_is_reached_here() {
    let parse = |text: &str| {
        parse(&None, &Some(text.to_owned()), ADMIN)
            .unwrap()
            .to_string()
    };
    assert_eq!(parse("http://0.0.0.0:8081"), "http://127.0.0.1:8081/");
    assert_eq!(parse("https://[::]:8081"), "https://[::1]:8081/");
    assert_eq!(parse("http://192.0.2.1:8081"), "http://192.0.2.1:8081/");
    assert_eq!(
        super::parse(&None, &None, ADMIN).unwrap().as_str(),
        "http://127.0.0.1:8081/"
    );
    let below = http::api_url(&Url::parse("https://h/pbx/").unwrap(), &["events"], &[]);
    assert_eq!(below.as_str(), "https://h/pbx/v1/events");
}

#[test]
fn what_was_said_is_not_repeated() {
    let mut said = Said::default();
    assert!(!said.is_over("a"));
    assert!(said.is_new("a", "x"));
    assert!(!said.is_new("a", "x"));
    assert!(said.is_new("b", "x") && said.is_new("a", "y"));
    assert!(said.is_over("a") && !said.is_over("a"));
}
