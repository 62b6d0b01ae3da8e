//! `ringback move`: an installation that ran on the local engine goes on on Kafka. What waited for a
//! retry arrives there once, what was delivered does not come again, and what was configured, parked
//! and replayed is known there.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ringback_core::secret::Secret;
use ringback_core::signature::Signer;
use ringback_tests::kafka;
use ringback_tests::process::{Process, api, binary, post_batch};
use ringback_tests::receiver::{Answer, Receiver};
use serde_json::{Value, json};
use uuid::Uuid;

const EVENTS: usize = 40;

fn settings() -> Vec<String> {
    [
        "topics.event_partitions=2",
        "topics.work_partitions=1",
        "topics.replication=1",
        // Long enough to be waited on over the move; the second is for a machine that is slow.
        "schedule.tiers=[\"10s\", \"11s\"]",
    ]
    .map(str::to_owned)
    .into()
}

fn process(dir: &Path, command: &str, settings: &[String]) -> Command {
    let mut process = Command::new(binary());
    process.arg(command).current_dir(dir);
    for setting in settings {
        process.args(["--set", setting]);
    }
    process
}

/// Runs `ringback COMMAND` to its end.
fn ringback(dir: &Path, command: &str, settings: &[String]) -> Output {
    process(dir, command, settings).output().unwrap()
}

fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

struct Admin<'a> {
    client: &'a reqwest::Client,
    url: String,
}

impl Admin<'_> {
    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        api(
            self.client,
            &format!("{}/v1/{path}", self.url),
            method,
            body,
        )
        .await
    }

    /// Waits until a list has so many entries.
    async fn list(&self, path: &str, field: &str, count: usize) -> Vec<Value> {
        let mut entries = Vec::new();
        for _ in 0..600 {
            let mut answer = self
                .call("GET", &format!("{path}?limit=500"), Value::Null)
                .await;
            entries = std::mem::take(answer[field].as_array_mut().unwrap());
            if entries.len() >= count {
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} has {} entries instead of {count}", entries.len());
    }

    /// When the only token was used last, once that is known.
    async fn token_used(&self) -> Value {
        for _ in 0..600 {
            let tokens = self.call("GET", "tokens", Value::Null).await;
            let used = &tokens["tokens"][0]["last_used"];
            if used.is_string() {
                return used.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no use of the token is known");
    }
}

const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn webhook_path(name: &str, what: &str) -> String {
    format!("tenants/acme/webhooks/{name}/{what}")
}

/// One webhook takes everything, one nothing, one is paused, one refuses for good at first.
async fn configure(admin: &Admin<'_>, receiver: &Receiver) -> String {
    admin
        .call("POST", "tenants", json!({ "id": "acme", "title": "Acme" }))
        .await;
    for name in ["fine", "fails", "paused", "refuses"] {
        let mut webhook = json!({ "name": name, "url": receiver.url(name), "subscription": ["*"] });
        if name == "fine" {
            webhook["authentication"] = json!({ "method": "bearer", "token": "secret-of-fine" });
            webhook["signing_secret"] = SIGNING_SECRET.into();
        }
        admin.call("POST", "tenants/acme/webhooks", webhook).await;
    }
    admin
        .call("POST", &webhook_path("paused", "pause"), json!({}))
        .await;
    receiver.behave("fails", |_, _, _| Answer::Status(500));
    receiver.behave("refuses", |books, path, id| match books.count(path, id) {
        0 => Answer::Status(404),
        _ => Answer::Status(200),
    });
    let form = json!({ "name": "t", "tenant": "acme" });
    let issued = admin.call("POST", "tokens", form).await;
    issued["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_running_installation_is_moved_to_kafka() {
    let server = tokio::task::spawn_blocking(kafka::shared).await.unwrap();
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("move{}.", Uuid::now_v7().simple());
    let mut there = settings();
    there.extend([
        "log.engine=kafka".to_owned(),
        format!("log.kafka.bootstrap={}", server.bootstrap()),
        format!("log.kafka.group_prefix={prefix}"),
        format!("topics.prefix={prefix}"),
    ]);

    let mut up = Process::start("up", dir.path(), &settings()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let admin = Admin {
        client: &client,
        url: up.url("admin"),
    };
    let token = configure(&admin, &receiver).await;
    let ids: Vec<_> = (0..EVENTS).map(|_| Uuid::now_v7().to_string()).collect();
    assert_eq!(
        post_batch(&client, &up.url("ingest"), &token, &ids).await,
        ids
    );
    admin
        .list(&webhook_path("fine", "attempts"), "attempts", EVENTS)
        .await;
    admin
        .list(&webhook_path("paused", "parked"), "parked", EVENTS)
        .await;
    admin
        .list(&webhook_path("refuses", "parked"), "parked", EVENTS)
        .await;
    let all = json!({ "all": true });
    admin
        .call("POST", &webhook_path("refuses", "replay"), all.clone())
        .await;
    admin
        .list(&webhook_path("refuses", "attempts"), "attempts", 2 * EVENTS)
        .await;
    admin
        .list(&webhook_path("fails", "attempts"), "attempts", EVENTS)
        .await;

    let used = admin.token_used().await;

    // Not without the key, and not while it runs.
    let key = std::fs::read_to_string(dir.path().join("ringback-data/master-key")).unwrap();
    there.extend([
        format!("secrets.keys.local={}", key.trim()),
        "secrets.primary=local".to_owned(),
    ]);
    let text = complaint(&ringback(dir.path(), "move", &there), 1);
    assert!(text.contains("has it open"), "{text}");
    assert_eq!(up.terminate().await, Some(0));
    let without: Vec<_> = there
        .iter()
        .filter(|s| !s.starts_with("secrets"))
        .cloned()
        .collect();
    let text = complaint(&ringback(dir.path(), "move", &without), 64);
    assert!(text.contains("master-key"), "{text}");

    // kill -9 as soon as it has begun: neither side may run before it is finished.
    let mut begun = process(dir.path(), "move", &there).spawn().unwrap();
    let mark = dir.path().join("ringback-data/moved.json");
    while !mark.exists() {
        assert_eq!(begun.try_wait().unwrap(), None, "it ends early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.kill().unwrap();
    begun.wait().unwrap();
    let text = complaint(&ringback(dir.path(), "up", &settings()), 1);
    assert!(text.contains("half moved to Kafka"), "{text}");
    let mark: Value = serde_json::from_slice(&std::fs::read(&mark).unwrap()).unwrap();
    // What was being moved at that moment may be there twice, but it hardly came that far.
    let copies = match mark["progress"]["positions"] {
        Value::Bool(true) => 2,
        _ => 1,
    };

    let moved = ringback(dir.path(), "move", &there);
    let text = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(moved.status.success(), "{text}{}", complaint(&moved, 0));
    assert!(
        text.contains(&format!("{EVENTS} events and deliveries wait there")),
        "{text}"
    );
    // Neither again, nor back by mistake.
    let again = ringback(dir.path(), "move", &there);
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing to do"));
    let text = complaint(&ringback(dir.path(), "up", &settings()), 1);
    assert!(text.contains("was moved to Kafka"), "{text}");

    receiver.behave("fails", |_, _, _| Answer::Status(200));
    let mut up = Process::start("up", dir.path(), &there).await;
    receiver
        .wait("what waited on a tier arrived", |books| {
            let fails = books.at("fails");
            fails
                .iter()
                .filter(|request| request.answer == Answer::Status(200))
                .count()
                >= EVENTS
        })
        .await;
    let admin = Admin {
        client: &client,
        url: up.url("admin"),
    };
    for name in ["paused", "refuses"] {
        admin
            .list(&webhook_path(name, "parked"), "parked", EVENTS)
            .await;
    }
    admin
        .list(&webhook_path("fine", "attempts"), "attempts", EVENTS)
        .await;
    assert_eq!(admin.token_used().await, used);
    // What was replayed before the move is not replayed again; what was not, is.
    let answer = admin
        .call("POST", &webhook_path("refuses", "replay"), all.clone())
        .await;
    assert_eq!(
        (&answer["replay"]["already"], &answer["replay"]["sent"]),
        (&json!(EVENTS), &json!(0))
    );
    admin
        .call("POST", &webhook_path("paused", "resume"), json!({}))
        .await;
    admin
        .call("POST", &webhook_path("paused", "replay"), all)
        .await;
    // The token is known, and a new event goes to everybody.
    let new = vec![Uuid::now_v7().to_string()];
    assert_eq!(
        post_batch(&client, &up.url("ingest"), &token, &new).await,
        new
    );
    receiver.behave("refuses", |_, _, _| Answer::Status(200));
    receiver
        .wait("what was parked and what is new arrived", |books| {
            let both = [&ids, &new].into_iter().flatten();
            let arrived = |id: &String| books.count("paused", id) > 0;
            both.filter(|id| arrived(id)).count() == EVENTS + 1
                && ["fine", "fails", "refuses"]
                    .iter()
                    .all(|path| books.count(path, &new[0]) > 0)
        })
        .await;
    assert_eq!(up.terminate().await, Some(0));
    receiver.books(|books| {
        for id in &ids {
            assert_eq!(books.count("fine", id), 1, "delivered before the move");
            assert_eq!(
                books.count("refuses", id),
                2,
                "refused, then replayed, before the move"
            );
            assert_eq!(
                books.count("paused", id),
                1,
                "parked before, replayed after"
            );
            let fails = books
                .at("fails")
                .into_iter()
                .filter(|request| request.id() == *id);
            let taken = fails.filter(|request| request.answer == Answer::Status(200));
            let taken = taken.count();
            assert!(
                (1..=copies).contains(&taken),
                "{taken}: waited over the move"
            );
        }
        let fine = books.at("fine");
        let secret = |r: &ringback_tests::receiver::Request| {
            r.header("authorization") == "Bearer secret-of-fine"
        };
        assert!(fine.iter().all(secret));
        let signer = Signer::read(&Secret::new(SIGNING_SECRET)).unwrap();
        for request in fine {
            let time = request.header("webhook-timestamp").parse().unwrap();
            let signature = signer.sign(request.header("webhook-id"), time, &request.body);
            assert_eq!(request.header("webhook-signature"), signature);
        }
    });
}
