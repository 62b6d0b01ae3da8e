//! `ringback demo`: a tour that ends by itself. The real components run in this process on a local
//! log in a temporary directory; only the retry tiers are shortened.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use ringback_core::health::HealthPolicy;
use ringback_core::schedule::Schedule;
use ringback_core::secret::Secret;
use ringback_core::time::duration_label;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::component::{Components, Running, signals};
use crate::config::Config;
use crate::failure::Failure;
use crate::http::Trust;
use crate::listen::{Behaviour, Receiver, Request};
use crate::send::{Ingest, Mapping, Pace, Report, send_all};
use crate::{http, out, up};

/// Recorded from a running Asterisk, see fixtures/README.md.
const RECORDED_CDRS: &str = include_str!("../fixtures/asterisk-cdr.jsonl");
const RECORDED_CHANNEL_EVENTS: &str = include_str!("../fixtures/asterisk-cel.jsonl");

/// How the recorded lines become events. Their times are left out: the calls happen now.
const CDR_MAPPING: &str = r#"
    type = "cdr.completed"
    id-from = ["uniqueid", "sequence"]
    subject-from = "linkedid"
    subject-prefix = "call/"
    source = "asterisk"
"#;
const CHANNEL_MAPPING: &str = r#"
    type-from = "eventtype"
    subject-from = "linkedid"
    subject-prefix = "call/"
    source = "asterisk"
    [types]
    CHAN_START = "call.leg.ringing"
    ANSWER = "call.leg.answered"
    BLINDTRANSFER = "call.transferred"
    BRIDGE_ENTER = "call.bridged"
    CHAN_END = "call.leg.ended"
"#;

/// The longest the tour waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the recorded channel events go in to disable a webhook: with the attempts of so many,
/// and not with those of the outage before, the shortened policy has enough.
const FLOOD: usize = 5;
const ATTEMPTS_TO_DISABLE: u32 = 2_000;
/// Requests that are shown one by one.
const SHOWN: usize = 3;

/// Options of `ringback demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Log what the components do, as in `ringback up`
    #[arg(long)]
    verbose: bool,
    /// Go on running at the end, to look around in the portal, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// Runs the tour; success only when every id arrived.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let dir = tempfile::tempdir()
        .map_err(|error| Failure::new(format!("making a temporary directory: {error}")))?;
    let config = demo_config(dir.path(), args.verbose)?;
    ringback_telemetry::init_logging(&config.telemetry).map_err(Failure::usage)?;
    let token = config.admin.operator_token.expose().to_owned();
    let tiers: Vec<_> = config
        .schedule
        .tiers()
        .iter()
        .map(|tier| duration_label(*tier))
        .collect();
    let began = Instant::now();

    out!(
        "Ringback's tour: the whole pipeline in this process, in {}",
        dir.path().display()
    );
    out!(
        "Retry tiers are shortened to {}, and the policy of disablement to seconds; everything else is as in production.\n",
        tiers.join(", ")
    );
    let running = Running::start(config, Components::ALL).await?;
    let admin = running.addresses.admin.clone().unwrap_or_default();
    out!("Portal     {admin}/portal/sign-in?with=token");
    out!(
        "Sign in    with the token in {}\n",
        dir.path().join(up::OPERATOR_TOKEN_FILE).display()
    );
    let (mut tour, token) = Tour::start(&running, token).await?;

    out!("1. A tenant with two webhooks: CDR Events (a preset) and one for call.*");
    out!(
        "   ringback tenant add acme; ringback webhook add acme cdr --url {}\n",
        tour.url("cdr")
    );

    out!("2. The call detail records of 50 recorded calls of a real PBX go in");
    let sent = tour.send(&token, "cdr", RECORDED_CDRS, CDR_MAPPING).await?;
    tour.arrived(sent).await?;
    out!("   {sent} accepted, {} delivered\n", tour.delivered.len());

    out!("3. The receiver breaks: it answers 503. Channel events of the same calls go in");
    tour.receiver.set_behaviour(Behaviour {
        status: 503,
        ..Behaviour::default()
    });
    let more = tour
        .send(&token, "calls", RECORDED_CHANNEL_EVENTS, CHANNEL_MAPPING)
        .await?;
    tour.failed(more).await?;
    out!("   {more} accepted; every one failed and waits on its tier:");
    tour.settle_for(Duration::from_secs(3)).await?;
    tour.show_tiers(&running);
    out!("");

    out!("4. The receiver is repaired. What waits arrives with its next attempt");
    tour.receiver.set_behaviour(Behaviour::default());
    tour.arrived(sent + more).await?;
    tour.show_attempts().await?;
    out!("");

    out!("5. One event is answered 404: its retries stop at once, and it is parked");
    tour.receiver.set_behaviour(Behaviour {
        status: 404,
        ..Behaviour::default()
    });
    let last = tour
        .send(
            &token,
            "cdr",
            r#"{"uniqueid":"demo","sequence":0,"linkedid":"demo"}"#,
            CDR_MAPPING,
        )
        .await?;
    let parked = tour.parked().await?;
    let field = |name: &str| parked[name].as_str().unwrap_or_default().to_owned();
    out!("   parked: {} because {}", field("event"), field("reason"));
    tour.receiver.set_behaviour(Behaviour::default());
    let replayed = tour
        .api("POST", "webhooks/cdr/replay", json!({ "all": true }))
        .await?;
    out!(
        "   ringback replay acme cdr --all: {} sent again, as a new run\n",
        replayed["replay"]["sent"]
    );
    let mut all = sent + more + last;
    tour.arrived(all).await?;

    out!(
        "6. The receiver fails for long: every request is answered 500, until the webhook is disabled"
    );
    tour.receiver.set_behaviour(Behaviour {
        status: 500,
        ..Behaviour::default()
    });
    let flood = RECORDED_CHANNEL_EVENTS.repeat(FLOOD);
    all += tour.send(&token, "calls", &flood, CHANNEL_MAPPING).await?;
    let health = tour.disabled().await?;
    out!(
        "   disabled: {}",
        health["reason"].as_str().unwrap_or_default()
    );
    out!("   Its deliveries are parked now, and nothing is sent to it.\n");

    out!("7. The receiver is repaired, and an administrator enables the webhook again");
    tour.receiver.set_behaviour(Behaviour::default());
    let enabled = tour
        .api("POST", "webhooks/calls/enable", Value::Null)
        .await?;
    let replayed = tour.catch_up(all).await?;
    out!(
        "   ringback webhook enable acme calls: generation {}, {replayed} parked deliveries sent again\n",
        enabled["generation"]
    );

    let took = began.elapsed();
    if args.stay {
        out!("All of this is in the portal: {admin}/portal/. Ctrl-C ends it.\n");
        signals()?.await;
    }
    running.drain().await;
    tour.books(all, took)
}

fn demo_config(dir: &Path, verbose: bool) -> Result<Config, Failure> {
    let mut config = Config::default();
    for listen in [
        &mut config.ingest.listen,
        &mut config.admin.listen,
        &mut config.telemetry.listen,
    ] {
        "127.0.0.1:0".clone_into(listen);
    }
    config.log.local.dir = dir.to_path_buf();
    config.topics.event_partitions = 4;
    config.topics.work_partitions = 2;
    let tiers = [1, 2, 3, 4, 5].map(Duration::from_secs);
    config.schedule =
        Schedule::new(tiers.into(), Duration::from_secs(86_400)).map_err(Failure::new)?;
    config.metrics.policy = HealthPolicy {
        window: Duration::from_secs(60),
        attempts: ATTEMPTS_TO_DISABLE,
        silence: Duration::from_secs(3),
        slow_window: Duration::from_secs(1800),
        ..HealthPolicy::default()
    };
    (if verbose { "info" } else { "error" }).clone_into(&mut config.telemetry.log);
    up::provide_secrets(&mut config, dir)?;
    Ok(config)
}

/// The tour's receiver and its view of what arrived.
struct Tour {
    client: reqwest::Client,
    admin: String,
    ingest: String,
    token: String,
    receiver: Receiver,
    requests: mpsc::Receiver<Request>,
    /// Ids answered with 200, and how many requests that took.
    delivered: HashSet<String>,
    seen: BTreeMap<String, u64>,
    shown: usize,
    failures: u64,
    duplicates: u64,
}

impl Tour {
    /// Starts the receiver and configures a tenant with its webhooks; returns a token to send with.
    async fn start(running: &Running, token: String) -> Result<(Self, Secret), Failure> {
        let addresses = &running.addresses;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Failure::new(format!("listening on loopback: {error}")))?;
        let (watcher, requests) = mpsc::channel(10_000);
        let receiver = Receiver::watched(listener, Behaviour::default(), watcher)
            .map_err(|error| Failure::new(format!("starting the receiver: {error}")))?;
        let tour = Self {
            client: http::client()?,
            admin: addresses.admin.clone().unwrap_or_default(),
            ingest: addresses.ingest.clone().unwrap_or_default(),
            token,
            receiver,
            requests,
            delivered: HashSet::new(),
            seen: BTreeMap::new(),
            shown: 0,
            failures: 0,
            duplicates: 0,
        };
        tour.call(
            "POST",
            "/v1/tenants",
            json!({ "id": "acme", "title": "Acme" }),
        )
        .await?;
        tour.api(
            "POST",
            "webhooks",
            json!({ "name": "cdr", "url": tour.url("cdr") }),
        )
        .await?;
        let calls =
            json!({ "name": "calls", "url": tour.url("calls"), "subscription": ["call.*"] });
        tour.api("POST", "webhooks", calls).await?;
        let issued = tour
            .call(
                "POST",
                "/v1/tokens",
                json!({ "name": "demo", "tenant": "acme" }),
            )
            .await?;
        let secret = Secret::new(issued["token"].as_str().unwrap_or_default());
        Ok((tour, secret))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.receiver.address())
    }

    /// Calls the administration about the tour's tenant.
    async fn api(&self, method: &str, path: &str, body: Value) -> Result<Value, Failure> {
        self.call(method, &format!("/v1/tenants/acme/{path}"), body)
            .await
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Result<Value, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::new(format!("{method} {path}: {error}"));
        let method = method
            .parse::<reqwest::Method>()
            .map_err(|error| failed(&error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = self
                .client
                .request(method.clone(), format!("{}{path}", self.admin));
            if !body.is_null() {
                request = request.json(&body);
            }
            let sent = request.bearer_auth(&self.token).send().await;
            let response = sent.map_err(|error| failed(&http::describe(&error)))?;
            let status = response.status();
            let answer: Value = response
                .json()
                .await
                .map_err(|error| failed(&http::describe(&error)))?;
            if status.is_success() {
                return Ok(answer);
            }
            // Just started: the configuration may not be read to its end yet.
            if status.as_u16() != 503 || Instant::now() > deadline {
                return Err(failed(&answer["detail"]));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends recorded lines as `ringback send` does; returns how many were accepted.
    async fn send(
        &self,
        token: &Secret,
        name: &str,
        lines: &str,
        mapping: &str,
    ) -> Result<usize, Failure> {
        let file = tempfile::Builder::new()
            .prefix(name)
            .tempfile()
            .and_then(|file| std::fs::write(file.path(), lines).map(|()| file))
            .map_err(|error| Failure::new(format!("writing the recorded lines: {error}")))?;
        let ingest = Ingest::new(
            &self.ingest,
            &Trust::default(),
            token.clone(),
            false,
            PATIENCE,
        )?;
        let files = vec![file.path().to_path_buf()];
        let mapping = Mapping::parse(mapping)?;
        let report = send_all(files, mapping, ingest, Pace::default(), Report::quiet()).await?;
        usize::try_from(report.accepted_count()).map_err(Failure::new)
    }

    /// Notes the next request; shows the first few.
    async fn next(&mut self, deadline: Instant) -> Result<(), Failure> {
        let next = tokio::time::timeout_at(deadline.into(), self.requests.recv()).await;
        let Ok(Some(request)) = next else {
            return Err(Failure::new(format!(
                "nothing arrived any more; {} of the events are delivered",
                self.delivered.len()
            )));
        };
        let text = |name: &str| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let id = text("webhook-id").to_owned();
        *self
            .seen
            .entry(text("webhook-attempt").to_owned())
            .or_default() += 1;
        if self.shown < SHOWN {
            self.shown += 1;
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let (path, kind, subject) = (request.uri.path(), field("type"), field("subject"));
            out!(
                "   {} {path} {id} {kind} {subject} → {}",
                request.method,
                request.status
            );
        } else if self.shown == SHOWN {
            self.shown += 1;
            out!("   …");
        }
        if request.status.as_u16() != 200 {
            self.failures += 1;
        } else if !self.delivered.insert(id) {
            self.duplicates += 1;
        }
        Ok(())
    }

    /// Waits until so many distinct events are delivered.
    async fn arrived(&mut self, count: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while self.delivered.len() < count {
            self.next(deadline).await?;
        }
        Ok(())
    }

    /// Waits until so many requests failed.
    async fn failed(&mut self, count: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while self.failures < count as u64 {
            self.next(deadline).await?;
        }
        Ok(())
    }

    /// Lets some time of the story pass, noting what comes.
    async fn settle_for(&mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while let Ok(result) =
            tokio::time::timeout_at(until.into(), self.next(until + PATIENCE)).await
        {
            result?;
        }
        Ok(())
    }

    fn show_tiers(&self, running: &Running) {
        let text = running.metrics.expose();
        for line in text
            .lines()
            .filter(|line| line.starts_with("ringback_deliveries_retried"))
        {
            if let Some((_, rest)) = line.split_once("topic=\"")
                && let Some((topic, count)) = rest.split_once("\"}")
            {
                out!("   {topic:10} {} deliveries", count.trim());
            }
        }
    }

    /// Shows the attempts of one event that had to be retried.
    async fn show_attempts(&self) -> Result<(), Failure> {
        let list = self
            .api("GET", "webhooks/calls/attempts?limit=50", Value::Null)
            .await?;
        let rows = list["attempts"].as_array().cloned().unwrap_or_default();
        let Some(event) = rows.first().map(|row| row["event"].clone()) else {
            return Ok(());
        };
        let event = event.as_str().unwrap_or_default();
        let path = format!("webhooks/calls/attempts?event={event}");
        let list = self.api("GET", &path, Value::Null).await?;
        out!("   ringback attempts list acme calls --event {event}");
        for row in list["attempts"].as_array().into_iter().flatten().rev() {
            let (attempt, status, next) = (&row["attempt"], &row["status"], &row["next"]);
            out!(
                "   attempt {attempt}: {status} → {}",
                next.as_str().unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Waits for the one parked delivery.
    async fn parked(&self) -> Result<Value, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.api("GET", "webhooks/cdr/parked", Value::Null).await?;
            if let Some(parked) = list["parked"].as_array().and_then(|rows| rows.first()) {
                return Ok(parked.clone());
            }
            if Instant::now() > deadline {
                return Err(Failure::new("the event answered with 404 was not parked"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the webhook for calls is disabled; the verdict.
    async fn disabled(&mut self) -> Result<Value, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut webhook = self.api("GET", "webhooks/calls", Value::Null).await?;
            if webhook["health"]["state"] == "disabled" {
                return Ok(webhook["health"].take());
            }
            if Instant::now() > deadline {
                return Err(Failure::new("the failing webhook was not disabled"));
            }
            self.settle_for(Duration::from_millis(200)).await?;
        }
    }

    /// Replays what is parked as disabled until everything arrived: what waited on a tier is parked
    /// only when it is due.
    async fn catch_up(&mut self, count: usize) -> Result<u64, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut replayed = 0;
        while self.delivered.len() < count {
            let form = json!({ "reason": "disabled" });
            let answer = self.api("POST", "webhooks/calls/replay", form).await?;
            replayed += answer["replay"]["sent"].as_u64().unwrap_or(0);
            if Instant::now() > deadline {
                return Err(Failure::new(
                    "what was parked did not arrive after its replay",
                ));
            }
            self.settle_for(Duration::from_millis(500)).await?;
        }
        Ok(replayed)
    }

    /// The books at the end.
    fn books(&self, accepted: usize, took: Duration) -> Result<(), Failure> {
        let delivered = self.delivered.len();
        out!("The books");
        out!("  accepted    {accepted}");
        out!("  delivered   {delivered}");
        out!("  duplicates  {}", self.duplicates);
        let attempts: Vec<_> = self
            .seen
            .iter()
            .map(|(n, count)| format!("{count}×#{n}"))
            .collect();
        out!(
            "  requests    {} (attempts {})",
            self.seen.values().sum::<u64>(),
            attempts.join(", ")
        );
        out!(
            "figure demo.lost {} events",
            accepted.saturating_sub(delivered)
        );
        out!("figure demo.seconds {:.1} s", took.as_secs_f64());
        if delivered != accepted {
            return Err(Failure::new(format!(
                "{delivered} of {accepted} events arrived"
            )));
        }
        out!(
            "\nEvery event arrived. Next: `cargo run --release -- up` and what it prints; `demo --stay` leaves the portal open."
        );
        Ok(())
    }
}
