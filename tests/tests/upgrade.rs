//! A rolling upgrade on real Kafka: records of a newer release are in the log while dispatchers are
//! replaced one by one. Nothing is lost, nothing is sent twice, and what this release cannot read is
//! kept.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::log::{Append, Header, Log, Offset, Reader, Revision};
use ringback_core::record::{Delivery, HeaderBuf, header};
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_tests::append::Records;
use ringback_tests::installation::{Installation, Posted, eventually, settle};
use ringback_tests::kafka;
use ringback_tests::rig::OPERATOR;
use serde_json::{Value, json};
use uuid::Uuid;

const BETWEEN: Duration = Duration::from_millis(20);

/// What the next release would write, as far as it may: more headers, more fields, a higher version.
struct Newer {
    log: KafkaLog,
    records: Records<KafkaLog>,
    webhook: Uuid,
    key: String,
}

impl Newer {
    fn open(prefix: &str) -> Self {
        let topics = TopicsConfig {
            prefix: prefix.to_owned(),
            event_partitions: 4,
            work_partitions: 1,
            replication: 1,
            ..TopicsConfig::default()
        };
        let topics = Topics::new(&topics, Schedule::default().tiers());
        let config = KafkaConfig {
            bootstrap: kafka::shared().bootstrap().to_owned(),
            group_prefix: prefix.to_owned(),
            ..KafkaConfig::default()
        };
        let log = KafkaLog::open(config, topics).unwrap();
        let mut newer = Self {
            records: Records::of(&log),
            log,
            webhook: Uuid::nil(),
            key: String::new(),
        };
        let (key, _, webhook) = newer.webhook_record();
        newer.webhook = webhook["id"].as_str().unwrap().parse().unwrap();
        newer.key = key;
        newer
    }

    /// Every record of a topic that has one partition.
    fn read<R>(
        &self,
        role: Role,
        mut of: impl FnMut(Offset, &ringback_core::log::Record<'_>) -> R,
    ) -> Vec<R> {
        let topic = self.log.topics().find(role).unwrap();
        let mut reader = self.log.reader().unwrap();
        let mut read = Vec::new();
        for partition in self.log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            let take =
                &mut |record: ringback_core::log::Record<'_>| read.push(of(record.offset, &record));
            reader.read(partition, bounds, take).unwrap();
        }
        read
    }

    /// The one webhook: its key, revision and record.
    fn webhook_record(&self) -> (String, Revision, Value) {
        let all = self.read(Role::Webhooks, |offset, record| {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            let value = serde_json::from_slice(record.value.unwrap()).unwrap();
            (key, Revision(offset), value)
        });
        all.into_iter().next_back().unwrap()
    }

    /// Gives the webhook a setting that this release does not know.
    fn configure(&self) {
        let (key, revision, mut webhook) = self.webhook_record();
        webhook["version"] = json!(2);
        webhook["quota"] = json!({ "per_day": 5 });
        let topic = self.log.topics().find(Role::Webhooks).unwrap();
        let value = serde_json::to_vec(&webhook).unwrap();
        let written = self
            .log
            .compare_and_set(topic, &key, Some(revision), Some(&value));
        written.unwrap();
    }

    /// Appends an event, or a delivery of it, with more headers than this release knows.
    fn append(&self, role: Role, change: impl Fn(&mut Vec<Header<'_>>)) -> Posted {
        let now = SystemClock::now();
        let event = Event {
            id: Uuid::now_v7(),
            name: EventName::parse("cdr.completed").unwrap(),
            time: now,
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        };
        let id = event.id.to_string();
        let delivery = Delivery {
            event: event.into(),
            webhook: self.webhook,
            attempt: 0,
            run: u32::from(role == Role::Replay),
            accepted: now,
            deferrals: 0,
            replay: None,
        };
        let mut buf = HeaderBuf::default();
        match role {
            Role::Events(_) => buf.push_event(&delivery.event),
            _ => buf.push_delivery(&delivery),
        }
        let mut headers = buf.headers();
        headers.retain(|header| header.name != header::VERSION);
        headers.insert(
            0,
            Header {
                name: header::VERSION,
                value: b"2",
            },
        );
        headers.insert(
            1,
            Header {
                name: "rb_lane",
                value: b"\xffnight",
            },
        );
        headers.push(Header {
            name: "ce_sequence",
            value: b"17",
        });
        change(&mut headers);
        self.records.append(Append {
            topic: self.log.topics().find(role).unwrap(),
            key: None,
            headers: &headers,
            value: Some(&delivery.event.data),
        });
        Posted {
            id,
            began: Instant::now(),
            took: Duration::ZERO,
            accepted: true,
            said: String::new(),
        }
    }

    /// Appends events, replays and deferrals until told to stop.
    fn stream(&self, stop: &AtomicBool) -> Vec<Posted> {
        let cdr = Role::Events(ringback_core::catalogue::Family::Cdr);
        let roles = [cdr, Role::Replay, cdr, Role::Defer(0)];
        let mut appended = Vec::new();
        for role in roles.into_iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            appended.push(self.append(role, |_| {}));
            std::thread::sleep(BETWEEN);
        }
        appended
    }

    /// What is parked under an event's id: reason, attempt, and whether what we do not know is there.
    fn parked(&self, id: &str) -> Option<(String, String, bool)> {
        let all = self.read(Role::Parked, |_, record| {
            let text = |name| {
                String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned()
            };
            let whole = record.header("rb_lane") == Some(b"\xffnight");
            (
                text(header::ID),
                (text(header::REASON), text(header::ATTEMPT), whole),
            )
        });
        let found = all.into_iter().find(|(of, _)| of == id);
        found.map(|(_, parked)| parked)
    }
}

struct SystemClock;

impl SystemClock {
    fn now() -> Timestamp {
        ringback_log::system_clock().now()
    }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dispatchers_are_replaced_beside_a_newer_release() {
    let bootstrap = blocking(|| kafka::shared().bootstrap().to_owned()).await;
    let ringback = Installation::start(&bootstrap, &[]).await;
    let prefix = ringback.prefix.clone();
    let newer = Arc::new(blocking(move || Newer::open(&prefix)).await);

    // A newer admin has written a setting. An older one, which may change the webhook beside it, keeps
    // what it does not know.
    let writing = newer.clone();
    blocking(move || writing.configure()).await;
    let url = format!(
        "{}/v1/tenants/acme/webhooks/cdr",
        ringback.admin.url("admin")
    );
    let change = json!({ "acknowledge": "2xx" });
    eventually("the admin changes what the newer one wrote", async || {
        let request = ringback.client.patch(&url).header("if-match", "*");
        let request = request.bearer_auth(OPERATOR).json(&change);
        let status = request.send().await.unwrap().status().as_u16();
        // It may not have read yet what the newer one wrote, or have been fenced by it.
        assert!([200, 412, 503].contains(&status), "{status}");
        let (_, _, webhook) = newer.webhook_record();
        webhook["acknowledge"] == "2xx"
            && webhook["quota"]["per_day"] == 5
            && webhook["version"] == 2
    })
    .await;

    let mut dispatchers = vec![ringback.dispatcher().await, ringback.dispatcher().await];
    let stream = ringback.stream();
    let stop = Arc::<AtomicBool>::default();
    let writing = tokio::task::spawn_blocking({
        let (newer, stop) = (newer.clone(), stop.clone());
        move || newer.stream(&stop)
    });
    stream.more(50, true).await;
    for _ in 0..2 {
        let mut old = dispatchers.remove(0);
        assert_eq!(old.terminate().await, Some(0), "it drains and ends well");
        let new = ringback.dispatcher().await;
        eventually("it takes its share", async || {
            new.metric("ringback_rebalances_total{event=\"assigned\"}")
                .await
                > 0.0
        })
        .await;
        dispatchers.push(new);
        stream.more(50, true).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut posted = writing.await.unwrap();
    println!("figure upgrade.newer {} records", posted.len());
    posted.extend(stream.stop().await);
    println!("figure upgrade.all {} records", posted.len());
    let repeated = settle(&ringback.receiver, &posted).await;
    println!("figure upgrade.duplicates {repeated} events");
    assert_eq!(repeated, 0, "a rolling restart repeats");

    // What breaks the rule, because this release cannot read it, is neither lost nor sent: it is kept
    // with all it has, for whoever can.
    let writing = newer.clone();
    let strange = blocking(move || {
        writing.append(Role::Replay, |headers| {
            let attempt = headers.iter_mut().find(|h| h.name == header::ATTEMPT);
            attempt.unwrap().value = b"0;probe";
        })
    });
    let id = strange.await.id;
    let kept = ("undeliverable".to_owned(), "0;probe".to_owned(), true);
    eventually("it is parked", async || newer.parked(&id).is_some()).await;
    assert_eq!(newer.parked(&id), Some(kept));
    assert!(!ringback.receiver.books(|books| books.is_delivered(&id)));
    for mut dispatcher in dispatchers {
        assert_eq!(dispatcher.terminate().await, Some(0));
    }
}
