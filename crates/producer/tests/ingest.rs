//! The ingest over HTTP, on the local log: one verdict per event, and 202 only for what is durable.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::sync::Arc;
use std::time::Duration;

use ringback_core::account::Token;
use ringback_core::catalogue::Family;
use ringback_core::event::TenantId;
use ringback_core::log::{Log, Reader};
use ringback_core::record::decode_event;
use ringback_core::schedule::Schedule;
use ringback_core::secret::Secret;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_core::webhook::Tenant;
use ringback_log::directory::LiveDirectory;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_producer::{Config, IngestState, serve};
use ringback_telemetry::{Counter, Metrics};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Rig {
    log: LocalLog,
    url: String,
    own: Secret,
    all: Secret,
    metrics: Metrics,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    /// Tenants `acme` and `other`, a token for `acme` and one for all.
    async fn start_with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let topics = TopicsConfig {
            event_partitions: 2,
            work_partitions: 1,
            ..Default::default()
        };
        let topics = Topics::new(&topics, Schedule::default().tiers());
        let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        for id in ["acme", "other"] {
            let id = TenantId::parse(id).unwrap();
            let title = String::new();
            let tenant = Tenant {
                version: 1,
                id: id.clone(),
                title,
                created: Timestamp::EPOCH,
            };
            put(&log, Role::Tenants, id.as_str(), &tenant);
        }
        let mut tokens = ["acme", ""].into_iter().zip(1..).map(|(tenant, n)| {
            let id = Uuid::from_u128(n);
            let random = [u8::try_from(n).unwrap(); 32];
            let tenant = TenantId::parse(tenant).ok();
            let (token, text) = Token::issue(id, "test".into(), tenant, Timestamp::EPOCH, random);
            put(&log, Role::Accounts, &id.to_string(), &token);
            text
        });
        let (own, all) = (tokens.next().unwrap(), tokens.next().unwrap());
        drop(tokens);
        let roles = [Role::Tenants, Role::Accounts];
        let directory = Arc::new(LiveDirectory::start(&log, &roles, || {}).unwrap());
        assert!(directory.wait_fresh(Duration::from_secs(30)));
        let metrics = Metrics::new();
        let age_max = Duration::from_secs(86_400);
        let state = IngestState::new(&log, directory, config, age_max, metrics.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, state, CancellationToken::new()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            log,
            url,
            own,
            all,
            metrics,
            client,
            _dir: dir,
        }
    }

    async fn post(&self, token: &Secret, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.post_to(&self.url, token, kind, body).await
    }

    async fn post_to(
        &self,
        url: &str,
        token: &Secret,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let request = self.client.post(url).bearer_auth(token.expose());
        let response = request
            .header("content-type", kind)
            .body(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().contains_key("retry-after");
        let body = response.json().await.unwrap();
        Answer {
            status,
            retry_after,
            body,
        }
    }

    /// Ids in the log, of all events.
    fn accepted(&self) -> Vec<Uuid> {
        let mut ids = Vec::new();
        let mut reader = self.log.reader().unwrap();
        for family in Family::ALL {
            let topic = self.log.topics().find(Role::Events(family)).unwrap();
            for partition in self.log.topics().partitions(topic) {
                let bounds = reader.bounds(partition).unwrap();
                let take = &mut |record: ringback_core::log::Record<'_>| {
                    ids.push(decode_event(&record).unwrap().id);
                };
                reader.read(partition, bounds, take).unwrap();
            }
        }
        ids
    }
}

struct Answer {
    status: u16,
    retry_after: bool,
    body: Value,
}

fn put(log: &LocalLog, role: Role, key: &str, value: &impl serde::Serialize) {
    let topic = log.topics().find(role).unwrap();
    let value = serde_json::to_vec(value).unwrap();
    log.compare_and_set(topic, key, None, Some(&value)).unwrap();
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_accepted_when_it_is_durable() {
    let rig = Rig::start().await;
    let event = r#"{"type":"cdr.completed","subject":"call/1","data":{"a":1}}"#;
    let answer = rig.post(&rig.own, JSON, event).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id: Uuid = answer.body["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(rig.accepted(), [id]);
    assert_eq!(rig.metrics.count(Counter::EventsAccepted, &["cdr"]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_send_what() {
    let rig = Rig::start().await;
    let event = r#"{"type":"call.started","data":{}}"#;
    let wrong = Secret::new("rbk_nonsense");
    let answer = rig.post(&wrong, JSON, event).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (401, &json!("unauthorized"))
    );
    let named =
        |tenant: &str| format!(r#"{{"type":"call.started","tenant":"{tenant}","data":{{}}}}"#);
    // A tenant's token speaks for its tenant only.
    assert_eq!(rig.post(&rig.own, JSON, named("acme")).await.status, 202);
    assert_eq!(rig.post(&rig.own, JSON, named("other")).await.status, 400);
    // A token for all needs the tenant named, and it must exist.
    assert_eq!(rig.post(&rig.all, JSON, named("other")).await.status, 202);
    assert_eq!(
        rig.post(&rig.all, JSON, event).await.body["code"],
        "illegal_attribute"
    );
    assert_eq!(
        rig.post(&rig.all, JSON, named("nobody")).await.body["code"],
        "unknown_tenant"
    );
    // Our own notices cannot be forged.
    let forged = r#"{"type":"webhook.disabled","data":{}}"#;
    assert_eq!(
        rig.post(&rig.own, JSON, forged).await.body["code"],
        "illegal_attribute"
    );
    assert_eq!(rig.accepted().len(), 2);
}

/// Every kind of bad line is named with its index and reason; its neighbours are accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_does_not_hurt_its_neighbours() {
    let rig = Rig::start().await;
    let good = |n: u32| format!(r#"{{"type":"cdr.completed","data":{{"n":{n}}}}}"#).into_bytes();
    let large = format!(r#"{{"type":"a","data":{{"x":"{}"}}}}"#, "x".repeat(300_000));
    let old = r#"{"type":"cdr.completed","time":"2020-01-01T00:00:00Z","data":{}}"#;
    let lines: Vec<(Vec<u8>, Option<&str>)> = vec![
        (good(0), None),
        (b"nonsense".to_vec(), Some("not_json")),
        (b"[1,2]".to_vec(), Some("not_json")),
        (good(3), None),
        (
            br#"{"type":"cdr.completed","data":[]}"#.to_vec(),
            Some("data_not_object"),
        ),
        (b"{\"type\":\"\xff\"}".to_vec(), Some("not_utf8")),
        (b"".to_vec(), None),
        (large.into_bytes(), Some("too_large")),
        (
            br#"{"type":"bad type","data":{}}"#.to_vec(),
            Some("illegal_attribute"),
        ),
        (old.into(), Some("too_old")),
        (good(10), None),
    ];
    let body = lines
        .iter()
        .map(|(line, _)| line.clone())
        .collect::<Vec<_>>()
        .join(&b'\n');
    let answer = rig.post(&rig.own, LINES, body.clone()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["accepted"], 3);
    let refused: Vec<_> = answer.body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            (
                r["index"].as_u64().unwrap(),
                r["code"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected: Vec<_> = (0u64..)
        .zip(&lines)
        .filter_map(|(index, (_, code))| Some((index, (*code)?.to_owned())))
        .collect();
    assert_eq!(refused, expected);
    for refused in answer.body["refused"].as_array().unwrap() {
        assert!(refused["reason"].as_str().unwrap().len() > 10, "{refused}");
    }
    assert_eq!(rig.accepted().len(), 3);
    // The old one is accepted when it is meant.
    let url = format!("{}?backfill=true", rig.url);
    assert_eq!(
        rig.post_to(&url, &rig.own, LINES, old).await.body["accepted"],
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_told_so() {
    let config = Config {
        body_bytes_max: 2048,
        batch_events_max: 3,
        in_flight_bytes_max: 4096,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    let code = |answer: &Answer| answer.body["code"].as_str().unwrap().to_owned();
    let answer = rig.post(&rig.own, "text/xml", "<a/>").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (415, "unsupported_media_type".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "\n\n").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (400, "empty_batch".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "{}\n{}\n{}\n{}").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (413, "too_many_events".to_owned())
    );
    let answer = rig.post(&rig.own, JSON, "x".repeat(3000)).await;
    assert_eq!(
        (answer.status, code(&answer)),
        (413, "too_large".to_owned())
    );
    let answer = rig.post(&rig.own, LINES, "nonsense").await;
    assert_eq!((answer.status, &answer.body["accepted"]), (400, &json!(0)));
    let response = rig.client.get(&rig.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 405);
}

/// Memory is bounded: what does not fit is told to come back, and is not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits_is_told_to_come_back() {
    let config = Config {
        body_bytes_max: 4096,
        in_flight_bytes_max: 4096,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    // A body that does not arrive takes all the room there is.
    let mut stream = tokio::net::TcpStream::connect(
        rig.url
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap(),
    )
    .await
    .unwrap();
    use tokio::io::AsyncWriteExt as _;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 4000\r\n\r\n{{",
        rig.own.expose()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let event = r#"{"type":"cdr.completed","data":{}}"#;
    // Until the first body is being read, the second still fits.
    let mut refused = None;
    for _ in 0..200 {
        let answer = rig
            .post(&rig.own, JSON, format!("{event}{}", " ".repeat(3000)))
            .await;
        if answer.status == 503 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the room is never full");
    assert!(refused.retry_after);
    drop(stream);
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever is posted, every line that is not blank is accepted or refused, exactly once.
        #[test]
        fn every_line_has_its_verdict(lines in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>().prop_filter("no newline", |b| *b != b'\n'), 0..40),
                Just(br#"{"type":"cdr.completed","data":{}}"#.to_vec()),
            ],
            1..20,
        )) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (answer, accepted) = runtime.block_on(async {
                let rig = Rig::start().await;
                let answer = rig.post(&rig.own, LINES, lines.join(&b'\n')).await;
                (answer, rig.accepted().len())
            });
            let held = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
            if held > 0 {
                let refused = answer.body["refused"].as_array().unwrap().len();
                prop_assert_eq!(answer.body["accepted"].as_u64().unwrap(), accepted as u64);
                prop_assert_eq!(accepted + refused, held);
            }
        }
    }
}
