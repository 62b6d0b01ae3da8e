//! The real schedule (contract R12, R13) through the real dispatcher, on a simulated clock and
//! transport: hours of waiting take as long as it takes to move the clock.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringback_core::event::{Event, EventName, Source, TenantId};
use ringback_core::log::{Append, Log, Reader};
use ringback_core::record::{Delivery, HeaderBuf, decode_delivery, header};
use ringback_core::schedule::Schedule;
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_core::verdict::Outcome;
use ringback_core::webhook::{Authentication, CONFIG_VERSION, Pattern, Webhook, WebhookName};
use ringback_dispatcher::{Config, Dispatcher, Environment, Sent, Transport, Unsendable};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_telemetry::{Health, Metrics};
use ringback_tests::append::append_one;
use uuid::Uuid;

const START: i64 = 1_795_000_000_000_000;

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Simulated(Arc<AtomicI64>);

impl Simulated {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    fn clock(&self) -> Clock {
        let (micros, steered) = (self.0.clone(), self.0.clone());
        Clock::new(
            move || Timestamp::from_micros(micros.load(Ordering::SeqCst)),
            move || Duration::from_micros(steered.load(Ordering::SeqCst).abs_diff(START)),
        )
    }

    fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

/// Answers every request with the same status, and notes when it was made.
#[derive(Clone)]
struct Answers {
    status: u16,
    /// Seconds since the start, attempt and run of each request.
    made: Arc<Mutex<Vec<(i64, u8, u32)>>>,
}

impl Transport for Answers {
    async fn send(
        &self,
        _webhook: &Webhook,
        delivery: &Delivery,
        _body: Bytes,
        now: Timestamp,
    ) -> Result<Sent, Unsendable> {
        let seconds = (now.as_micros() - START) / 1_000_000;
        self.made
            .lock()
            .push((seconds, delivery.attempt, delivery.run));
        let outcome = Outcome::Status(self.status);
        Ok(Sent {
            outcome,
            error: None,
            response: None,
            headers: None,
            took: Duration::from_millis(5),
            retry_after: None,
        })
    }
}

struct Rig {
    log: LocalLog,
    time: Simulated,
    answers: Answers,
    dispatcher: Dispatcher<LocalLog, Answers>,
    webhook: Webhook,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// One tenant with one webhook that gets this status for everything.
    async fn start(status: u16) -> Self {
        let schedule = Schedule::default();
        let config = TopicsConfig {
            event_partitions: 1,
            work_partitions: 1,
            ..Default::default()
        };
        let topics = Topics::new(&config, schedule.tiers());
        let (dir, time) = (tempfile::tempdir().unwrap(), Simulated::new());
        let options = LocalOptions {
            clock: time.clock(),
            ..LocalOptions::default()
        };
        let log = LocalLog::open(dir.path(), topics, options).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        let tenant = TenantId::parse("acme").unwrap();
        let now = time.clock().now();
        let webhook = Webhook {
            version: CONFIG_VERSION,
            id: Uuid::from_u128(7),
            tenant: tenant.clone(),
            name: WebhookName::parse("cdr").unwrap(),
            subscription: vec![Pattern::parse("cdr.*").unwrap()],
            url: "http://simulated.invalid/".into(),
            authentication: Authentication::None,
            enabled: true,
            generation: 3,
            acknowledge: Default::default(),
            rate_limit: None,
            schedule: None,
            format: Default::default(),
            headers: Default::default(),
            tls: None,
            previous_authentication: None,
            created: now,
            updated: now,
            signing: Vec::new(),
            unknown: Default::default(),
        };
        let topic = log.topics().find(Role::Webhooks).unwrap();
        let value = serde_json::to_vec(&webhook).unwrap();
        log.compare_and_set(topic, &webhook.key(), None, Some(&value))
            .unwrap();
        let answers = Answers {
            status,
            made: Arc::default(),
        };
        let environment = Environment {
            config: Config::default(),
            schedule,
            clock: time.clock(),
            metrics: Metrics::new(),
            health: Health::new(),
        };
        let dispatcher = Dispatcher::start_with(&log, environment, answers.clone()).unwrap();
        Self {
            log,
            time,
            answers,
            dispatcher,
            webhook,
            _dir: dir,
        }
    }

    /// Appends an event that was triggered so long ago.
    fn event(&self, age: Duration) {
        let event = Event {
            id: Uuid::from_u128(1),
            name: EventName::parse("cdr.completed").unwrap(),
            time: self.time.clock().now() - age,
            tenant: self.webhook.tenant.clone(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        };
        let mut buf = HeaderBuf::default();
        buf.push_event(&event);
        let family = ringback_core::catalogue::Family::Cdr;
        let topic = self.log.topics().find(Role::Events(family)).unwrap();
        let (headers, value) = (buf.headers(), Some(&event.data[..]));
        append_one(
            &self.log,
            Append {
                topic,
                key: None,
                headers: &headers,
                value,
            },
        );
    }

    /// The parked reasons so far.
    fn parked(&self) -> Vec<String> {
        let topic = self.log.topics().find(Role::Parked).unwrap();
        let partition = self.log.topics().partitions(topic).next().unwrap();
        let mut reader = self.log.reader().unwrap();
        let bounds = reader.bounds(partition).unwrap();
        let mut reasons = Vec::new();
        reader
            .read(partition, bounds, &mut |record| {
                decode_delivery(&record).unwrap();
                let reason = record.header(header::REASON).unwrap();
                reasons.push(String::from_utf8(reason.to_vec()).unwrap());
            })
            .unwrap();
        reasons
    }

    /// Records on a tier, delivered or not.
    fn on_tier(&self, tier: usize) -> i64 {
        let topic = self.log.topics().find(Role::Retry(tier)).unwrap();
        let partition = self.log.topics().partitions(topic).next().unwrap();
        self.log.reader().unwrap().bounds(partition).unwrap().end
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

/// R12 with its real waits: 32 s, 4 min, 17 min, 52 min, 2 h, each from the attempt before; a
/// second before its time nothing is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ladder_of_the_contract_in_real_hours() {
    let rig = Rig::start(500).await;
    rig.event(Duration::ZERO);
    let second = Duration::from_secs(1);
    for (tier, wait) in Schedule::default().tiers().iter().enumerate() {
        until("the delivery waits on its tier", || rig.on_tier(tier) == 1).await;
        assert_eq!(rig.answers.made.lock().len(), tier + 1);
        rig.time.advance(*wait - second);
        // The intake looks at its tiers at least once a second.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(
            rig.answers.made.lock().len(),
            tier + 1,
            "an attempt was early"
        );
        rig.time.advance(second);
        until("the next attempt", || {
            rig.answers.made.lock().len() == tier + 2
        })
        .await;
    }
    until("it is parked", || !rig.parked().is_empty()).await;
    assert_eq!(rig.parked(), ["exhausted"]);
    let starts: Vec<_> = rig.answers.made.lock().iter().map(|made| made.0).collect();
    assert_eq!(starts, [0, 32, 272, 1292, 4412, 11_612]);
    rig.time.advance(Duration::from_secs(86_400));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(
        rig.answers.made.lock().len(),
        6,
        "never sent again by itself"
    );
    rig.dispatcher.drain().await;
}

/// R13: an event that is 23 h 55 min old gets the attempts that still fit, then is parked at once
/// instead of waiting for a tier it cannot reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_after_its_24_hours() {
    let rig = Rig::start(503).await;
    rig.event(Duration::from_secs(86_400 - 300));
    until("the first tier", || rig.on_tier(0) == 1).await;
    rig.time.advance(Duration::from_secs(32));
    until("the second tier", || rig.on_tier(1) == 1).await;
    rig.time.advance(Duration::from_secs(240));
    until("it is parked", || !rig.parked().is_empty()).await;
    assert_eq!(rig.parked(), ["expired"]);
    assert_eq!(rig.answers.made.lock().len(), 3);
    assert_eq!(rig.on_tier(2), 0);
    rig.dispatcher.drain().await;
}

/// R13: what became too old while nobody was there to send it is parked without an attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_old_to_be_sent_at_all() {
    let rig = Rig::start(200).await;
    rig.event(Duration::from_secs(86_401));
    until("it is parked", || !rig.parked().is_empty()).await;
    assert_eq!(rig.parked(), ["expired"]);
    assert!(rig.answers.made.lock().is_empty());
    rig.dispatcher.drain().await;
}

/// R9, R10: success and 404 end it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn success_and_404_end_it() {
    for (status, parked) in [(200, vec![]), (404, vec!["rejected"])] {
        let rig = Rig::start(status).await;
        rig.event(Duration::ZERO);
        until("the attempt", || rig.answers.made.lock().len() == 1).await;
        rig.time.advance(Duration::from_secs(20_000));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(rig.parked(), parked);
        assert_eq!(rig.answers.made.lock().len(), 1);
        rig.dispatcher.drain().await;
    }
}
