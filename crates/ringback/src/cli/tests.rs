//! The commands against a server of the API on the local log.

mod accounts;
mod disablement;
mod projecting;
mod signing;
mod targets;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use clap::{CommandFactory as _, Parser};
use ringback_admin::AdminState;
use ringback_core::address::{AddressPolicy, Opening};
use ringback_core::log::{Append, AppenderOptions, Header, Log as _, Reader as _, partition_of};
use ringback_core::lookup::Lookup;
use ringback_core::schedule::Schedule;
use ringback_core::secret::KeyRing;
use ringback_core::target::Reach;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use ringback_log::batch::{Acknowledgement, Batch};
use ringback_log::directory::LiveDirectory;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_telemetry::Metrics;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

const OPERATOR: &str = "operator-token-of-the-tests";

#[derive(Parser)]
enum Line {
    #[command(subcommand)]
    Tenant(TenantCommand),
    #[command(subcommand)]
    Webhook(WebhookCommand),
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(subcommand)]
    Account(AccountCommand),
    #[command(subcommand)]
    Attempts(AttemptsCommand),
    #[command(subcommand)]
    Audit(AuditCommand),
    #[command(subcommand)]
    Parked(ParkedCommand),
    #[command(subcommand)]
    Projection(ProjectionCommand),
    Replay(ReplayArgs),
    Export(ExportArgs),
    Import(ImportArgs),
}

struct Rig {
    log: LocalLog,
    dir: tempfile::TempDir,
    url: String,
    shutdown: CancellationToken,
    state: AdminState<LocalLog>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Rig {
    async fn new() -> Self {
        Self::resolving(None).await
    }

    /// The names of webhooks are looked up with this.
    async fn resolving(lookup: Option<Lookup>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("operator-token"), format!("{OPERATOR}\n")).unwrap();
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let log = LocalLog::open(&dir.path().join("log"), topics, LocalOptions::default()).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        let roles = ringback_admin::ROLES;
        let directory = Arc::new(LiveDirectory::start(&log, &roles, || {}).unwrap());
        assert!(directory.wait_fresh(Duration::from_secs(30)));
        // Every installation has a key of its own.
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()];
        let key = base64::engine::general_purpose::STANDARD.encode(random.concat());
        let keys = KeyRing::new("k", [("k", key.as_str())]).unwrap();
        let config = ringback_admin::Config {
            operator_token: OPERATOR.to_owned().into(),
            reach: Reach::new(AddressPolicy::opening(vec![Opening::LOOPBACK]), vec![]),
            lookup,
            ..ringback_admin::Config::default()
        };
        let state = AdminState::new(log.clone(), directory, keys, config, Metrics::new()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(ringback_admin::serve(
            listener,
            state.clone(),
            None,
            shutdown.clone(),
        ));
        Self {
            log,
            dir,
            url,
            shutdown,
            state,
        }
    }

    /// Runs a command line, with the operator's token from the data directory.
    async fn run(&self, line: &str) -> Result<String, Failure> {
        let data = self.dir.path().to_str().unwrap();
        let words = std::iter::once("ringback").chain(line.split_whitespace());
        let words = words.chain(["--admin", &self.url, "--data", data]);
        match Line::try_parse_from(words).map_err(Failure::usage)? {
            Line::Tenant(command) => tenant::run(command).await,
            Line::Webhook(command) => webhook::run(command).await,
            Line::Token(command) => token::run(command).await,
            Line::Account(command) => account::run(command).await,
            Line::Attempts(command) => attempts::run(command).await,
            Line::Audit(command) => audit::run(command).await,
            Line::Parked(command) => parked::run(command).await,
            Line::Projection(command) => projection::run(command).await,
            Line::Replay(args) => replay::run(args).await,
            Line::Export(args) => super::transfer::export(args).await,
            Line::Import(args) => super::transfer::import(args).await,
        }
    }

    async fn ok(&self, line: &str) -> String {
        self.run(line)
            .await
            .unwrap_or_else(|failure| panic!("{line}: {failure}"))
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json")).await).unwrap()
    }

    async fn fails(&self, line: &str) -> (u8, String) {
        let failure = self.run(line).await.expect_err(line);
        (failure.code, failure.message)
    }

    fn append(&self, role: Role, key: &str, headers: &[Header<'_>], value: &[u8]) {
        let options = AppenderOptions::default();
        let appender = self.log.appender(options, Acknowledgement).unwrap();
        let mut batch = Batch::new(&appender);
        let record = Append {
            topic: self.log.topics().find(role).unwrap(),
            key: Some(key.as_bytes()),
            headers,
            value: Some(value),
        };
        batch.append(record).unwrap();
        batch.finish().unwrap();
    }

    fn attempt(&self, webhook: &str, event: &str, status: u16) {
        let next = if status == 200 {
            "delivered"
        } else {
            "retry.32s"
        };
        let record = json!({
            "version": 1, "event": event, "type": "cdr.completed", "tenant": "acme",
            "webhook": webhook, "generation": 0, "run": 0, "attempt": 0,
            "started": "2026-11-21T09:30:00.123456Z", "duration_ms": 12, "outcome": "status",
            "status": status, "response": "\u{1b}[2Jthank you", "next": next, "dispatcher": "test",
        });
        self.append(Role::Attempts, webhook, &[], record.to_string().as_bytes());
    }

    fn park(&self, webhook: &str, event: &str) {
        let text = |name, value: &'static str| Header {
            name,
            value: value.as_bytes(),
        };
        let headers = [
            Header {
                name: "ce_id",
                value: event.as_bytes(),
            },
            Header {
                name: "rb_webhook",
                value: webhook.as_bytes(),
            },
            text("ce_type", "cdr.completed"),
            text("ce_tenant", "acme"),
            text("ce_source", "pbx"),
            text("rb_attempt", "6"),
            text("rb_run", "0"),
            text("rb_accepted", "2026-11-21T09:30:00Z"),
            text("rb_deferrals", "0"),
            text("rb_reason", "exhausted"),
        ];
        self.append(Role::Parked, webhook, &headers, b"{}");
    }
}

const EVENT: &str = "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e";

#[test]
fn the_command_line_is_well_formed() {
    Line::command().debug_assert();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_webhooks_and_tokens_from_beginning_to_end() {
    let rig = Rig::new().await;
    assert!(rig.ok("tenant list").await.contains("ringback tenant add"));
    assert!(
        rig.ok("tenant add acme --title ACME")
            .await
            .contains("webhook add acme cdr")
    );
    assert!(rig.ok("webhook list acme").await.contains("no webhooks"));
    let added = rig
        .ok("webhook add acme cdr --url http://127.0.0.1:8090/cdr")
        .await;
    assert!(
        added.contains("CDR Events") && added.contains("Warning: "),
        "{added}"
    );
    assert!(added.contains("ringback webhook test acme cdr"), "{added}");
    let custom = "webhook add acme crm --subscribe call.* --subscribe cdr.completed --url https://crm.example.com/ --acknowledge 2xx --paused";
    assert!(rig.ok(custom).await.contains("call.*, cdr.completed"));
    let list = rig.ok("webhook list acme").await;
    let lines: Vec<_> = list.lines().collect();
    assert!(
        lines[0].starts_with("WEBHOOK  STATE   SUBSCRIPTION"),
        "{list}"
    );
    assert!(lines[1].starts_with("cdr      on      cdr.*"), "{list}");
    assert!(
        lines[2].starts_with("crm      paused  call.*, cdr.completed  none"),
        "{list}"
    );

    assert!(
        rig.ok("webhook pause acme cdr")
            .await
            .contains("ringback webhook resume acme cdr")
    );
    assert_eq!(rig.json("webhook show acme cdr").await["enabled"], false);
    let resumed = rig.ok("webhook resume acme cdr").await;
    assert!(
        resumed.starts_with("Resumed webhook cdr") && resumed.contains("Replayed 0 deliveries"),
        "{resumed}"
    );
    let enabled = rig.ok("webhook enable acme cdr").await;
    assert!(enabled.starts_with("Nothing to do"), "{enabled}");

    let token = rig.json("token add --tenant acme --name pbx").await;
    let id = token["id"].as_str().unwrap();
    let text = token["token"].as_str().unwrap();
    let listed = rig.ok("token list").await;
    assert!(listed.contains(id) && !listed.contains(text), "{listed}");
    assert!(
        rig.ok(&format!("token remove {id}"))
            .await
            .contains("Removed token pbx")
    );
    rig.ok("token add --all-tenants").await;
    let read = rig
        .json("token add --tenant acme --scope read --scope write")
        .await;
    assert_eq!(read["scopes"], json!(["read", "write"]));
    let text = read["token"].as_str().unwrap();
    let own = rig
        .ok(&format!("tenant list --operator-token {text}"))
        .await;
    assert!(own.contains("acme"), "{own}");
    let (code, refused) = rig
        .fails(&format!("tenant add b --operator-token {text}"))
        .await;
    assert_eq!(code, 1, "{refused}");
    let id = read["id"].as_str().unwrap();
    rig.ok(&format!("token remove {id}")).await;

    assert!(
        rig.ok("webhook remove acme crm")
            .await
            .contains("https://crm.example.com/")
    );
    let removed = rig.ok("tenant remove acme").await;
    assert!(removed.contains("1 webhook: cdr and 0 tokens"), "{removed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn set_changes_only_what_is_given() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let file = rig.dir.path().join("password");
    std::fs::write(&file, "hunter2 with spaces\n").unwrap();
    let file = file.to_str().unwrap();
    rig.ok(&format!(
        "webhook add acme cdr --url https://a.example.com/ --username pbx --password-file {file}"
    ))
    .await;
    // Digest is asked for once, and stays.
    rig.ok(&format!(
        "webhook add acme crm --subscribe * --url https://a.example.com/ --auth digest --username pbx --password-file {file}"
    ))
    .await;
    rig.ok("webhook set acme crm --username pbx-2").await;
    let digest = rig.ok("webhook show acme crm").await;
    assert!(digest.contains("digest, as pbx-2"), "{digest}");
    let before = rig.json("webhook show acme cdr").await;
    let shown = rig.ok("webhook show acme cdr").await;
    assert!(
        shown.contains("basic, as pbx") && !shown.contains("hunter2"),
        "{shown}"
    );
    let after = rig
        .json("webhook set acme cdr --url https://b.example.com/")
        .await;
    for same in [
        "authentication",
        "subscription",
        "acknowledge",
        "format",
        "enabled",
        "id",
    ] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(after["url"], "https://b.example.com/");
    let nothing = rig
        .ok("webhook set acme cdr --url https://b.example.com/")
        .await;
    assert!(nothing.starts_with("Nothing to change"), "{nothing}");
    let bearer = rig
        .json("webhook set acme cdr --token t0ken --grace 24h")
        .await;
    assert_eq!(
        bearer["authentication"],
        json!({"method": "bearer", "token": {"set": true}})
    );
    let both = rig.ok("webhook show acme cdr").await;
    assert!(
        both.contains("bearer; if refused, basic, as pbx until 20"),
        "{both}"
    );
    let formed = rig.json("webhook set acme cdr --format cloudevents").await;
    assert_eq!(formed["format"], "cloudevents");
    let paced = rig
        .json("webhook set acme cdr --rate-limit 20 --schedule 32s,4m")
        .await;
    assert_eq!(
        (&paced["rate_limit"], &paced["schedule"]),
        (&json!(20), &json!(["32s", "4m"]))
    );
    let shown = rig.ok("webhook show acme cdr").await;
    assert!(
        shown.contains("20 events per second") && shown.contains("after 32s, 4m"),
        "{shown}"
    );
    let paced = rig
        .json("webhook set acme cdr --rate-limit none --schedule default")
        .await;
    assert_eq!(
        (&paced["rate_limit"], &paced["schedule"]),
        (&json!(null), &json!(null))
    );
    let none = rig.json("webhook set acme cdr --auth none").await;
    assert_eq!(none["authentication"], json!({"method": "none"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_to_do() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let (code, message) = rig.fails("webhook show acme cdr").await;
    assert_eq!(code, 1);
    assert!(
        message.contains("no webhook \"cdr\"") && message.contains("webhook list"),
        "{message}"
    );
    let (_, message) = rig.fails("tenant add acme").await;
    assert!(message.contains("already"), "{message}");
    let (code, message) = rig
        .fails("tenant list --operator-token wrong-wrong-wrong")
        .await;
    assert_eq!(code, 77);
    assert!(
        message.contains("--operator-token") && !message.contains("wrong-wrong"),
        "{message}"
    );
    for usage in [
        "webhook set acme cdr",
        "webhook set acme cdr --grace 24h",
        "webhook set acme cdr --password x --token y",
        "webhook set acme cdr --auth none --password x",
        "webhook set acme cdr --username x --token y",
        "webhook add acme cdr",
        "token add",
        "replay acme cdr",
        "replay acme cdr --all --reason paused",
        "attempts list acme cdr --limit 0",
        "attempts list acme cdr --since yesterday",
        "parked list acme",
    ] {
        assert_eq!(rig.fails(usage).await.0, 64, "{usage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_or_a_token_the_next_step_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let list = async || {
        let words = [
            "ringback",
            "tenant",
            "list",
            "--admin",
            "http://127.0.0.1:1",
            "--data",
            data,
        ];
        match Line::try_parse_from(words).unwrap() {
            Line::Tenant(command) => tenant::run(command).await.unwrap_err(),
            _ => unreachable!(),
        }
    };
    let failure = list().await;
    assert_eq!(failure.code, 64);
    assert!(failure.message.contains("--operator-token"), "{failure}");
    std::fs::write(dir.path().join("operator-token"), OPERATOR).unwrap();
    let failure = list().await;
    assert_eq!(failure.code, 69);
    assert!(failure.message.contains("ringback up"), "{failure}");
    assert!(!failure.message.contains(OPERATOR), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_parked_and_replay() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let webhook = rig
        .json("webhook add acme cdr --url https://a.example.com/")
        .await;
    let webhook = webhook["id"].as_str().unwrap();
    assert_eq!(
        rig.ok("attempts list acme cdr").await.trim(),
        "No attempts."
    );
    rig.attempt(webhook, EVENT, 503);
    rig.attempt(webhook, EVENT, 200);
    let list = rig.ok("attempts list acme cdr").await;
    let newest = list.lines().nth(1).unwrap();
    assert!(
        newest.starts_with("2026-11-21T09:30:00Z  01936b2e"),
        "{list}"
    );
    assert!(
        newest.contains("200") && newest.ends_with("delivered"),
        "{list}"
    );
    assert_eq!(
        rig.ok("attempts list acme cdr --outcome failed")
            .await
            .lines()
            .count(),
        2
    );
    let first = rig.ok("attempts list acme cdr --limit 1").await;
    let cursor = first.rsplit("--cursor ").next().unwrap().trim();
    let second = rig
        .ok(&format!("attempts list acme cdr --cursor {cursor}"))
        .await;
    assert!(
        second.contains("503") && !second.contains("200 "),
        "{second}"
    );

    rig.park(webhook, EVENT);
    let parked = rig.ok("parked list acme cdr").await;
    assert!(
        parked.contains("exhausted") && parked.contains("ringback replay acme cdr"),
        "{parked}"
    );
    let dry = rig.ok("replay acme cdr --all --dry-run").await;
    assert!(dry.starts_with("Would replay 1 delivery."), "{dry}");
    let done = rig
        .ok(&format!("replay acme cdr --event {EVENT} --since 1h"))
        .await;
    assert!(done.starts_with("Replayed 1 delivery."), "{done}");
    let again = rig.ok("replay acme cdr --reason exhausted").await;
    assert!(
        again.starts_with("Replayed 0 deliveries. 1 was replayed before."),
        "{again}"
    );
    assert_eq!(
        rig.json("parked list acme cdr").await["parked"][0]["replayed"],
        true
    );
    assert!(
        rig.ok("replay acme cdr --reason paused")
            .await
            .starts_with("Nothing parked fits.")
    );
    assert!(rig.ok("parked list").await.starts_with("No parked record"));
    assert!(
        rig.ok(&format!("parked list --webhook-id {webhook}"))
            .await
            .contains("exhausted")
    );
}

/// Attempts the test event as a dispatcher would.
fn answer_test(rig: &Rig, webhook: &str, status: u16) {
    let topic = rig.log.topics().find(Role::Replay).unwrap();
    let partitions = rig.log.topics().spec(topic).partitions;
    let index = partition_of(webhook.as_bytes(), partitions);
    let partition = Partition { topic, index };
    let mut reader = rig.log.reader().unwrap();
    let mut from = 0;
    loop {
        let end = reader.bounds(partition).unwrap().end;
        let mut event = None;
        reader
            .read(partition, from..end, &mut |record| {
                let id = record.header("ce_id").unwrap();
                event = Some(String::from_utf8(id.to_vec()).unwrap());
            })
            .unwrap();
        if let Some(event) = event {
            return rig.attempt(webhook, &event, status);
        }
        from = end;
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_shows_what_came_back() {
    for (status, acknowledged) in [(200, true), (503, false)] {
        let rig = Arc::new(Rig::new().await);
        rig.ok("tenant add acme").await;
        let webhook = rig
            .json("webhook add acme cdr --url https://a.example.com/")
            .await;
        let webhook = webhook["id"].as_str().unwrap().to_owned();
        let dispatcher = rig.clone();
        let answered =
            tokio::task::spawn_blocking(move || answer_test(&dispatcher, &webhook, status));
        let shown = rig.run("webhook test acme cdr --wait 60s").await;
        answered.await.unwrap();
        match shown {
            Ok(text) => {
                assert!(
                    acknowledged && text.starts_with("Delivered: 200 after 12 ms"),
                    "{text}"
                );
                // What a receiver answers does not steer the terminal.
                assert!(
                    text.contains("[2Jthank you") && !text.contains('\u{1b}'),
                    "{text}"
                );
            }
            Err(failure) => {
                assert!(
                    !acknowledged && failure.message.contains("503"),
                    "{failure}"
                );
                assert!(failure.message.contains("next: retry.32s"), "{failure}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_a_paused_webhook_does_not_wait() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    rig.ok("webhook add acme cdr --url https://a.example.com/ --paused")
        .await;
    let (code, message) = rig.fails("webhook test acme cdr").await;
    assert_eq!(code, 1);
    assert!(
        message.contains("paused") && message.contains("resume"),
        "{message}"
    );
}
