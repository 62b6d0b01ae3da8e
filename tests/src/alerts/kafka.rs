//! Installations on Kafka: dispatchers that come, go and stand still, what is done to their groups and
//! topics, and Kafka itself.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::GroupList;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use ringback_core::topics::group;

use super::load::Load;
use super::station::{Seen, Station};
use super::table::Fault;
use crate::installation::{Installation, eventually};
use crate::kafka::{KafkaOptions, KafkaServer};
use crate::process::Process;
use crate::proxy::{Proxy, Slow};

/// After how long a dispatcher that says nothing is expelled.
const SESSION: &str = "log.kafka.properties.session.timeout.ms=4000";
/// Of each topic of events, and of attempts, in [`Installation`].
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the rule lets pass.
const EXPULSIONS: usize = 5;

/// An installation and its brokers.
struct Bench {
    server: Arc<KafkaServer>,
    ringback: Installation,
    load: Load,
}

impl Bench {
    /// `through`: where clients reach the brokers instead.
    async fn start(through: Option<&Proxy>, further: &[&str]) -> Self {
        let advertised = through.map(|proxy| format!("PLAINTEXT://{}", proxy.address));
        let settings = advertised.map(|at| ("advertised.listeners".to_owned(), at));
        let options = KafkaOptions {
            settings: settings.into_iter().collect(),
            ..KafkaOptions::default()
        };
        let server = blocking(move || KafkaServer::start_with(&options).unwrap()).await;
        if let Some(proxy) = through {
            proxy.forward_to(server.bootstrap());
        }
        let bootstrap = through.map(|proxy| proxy.address.to_string());
        let bootstrap = bootstrap.unwrap_or_else(|| server.bootstrap().to_owned());
        let ringback = Installation::start(&bootstrap, further).await;
        let ingest = (&ringback.producer, "http");
        let load = Load::start(ringback.client.clone(), ingest, &ringback.token, 5);
        Self {
            server: Arc::new(server),
            ringback,
            load,
        }
    }

    /// The full name of a topic or a group.
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.ringback.prefix)
    }

    /// How a client of the test's own begins.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.server.bootstrap());
        config
    }

    /// The addresses of `/metrics`, with those of these.
    fn targets<'a>(&'a self, further: &[&'a Process]) -> Vec<&'a str> {
        let all = [&[&self.ringback.admin, &self.ringback.producer], further].concat();
        let addresses = all.iter().map(|process| &*process.addresses["telemetry"]);
        addresses.collect()
    }

    /// Changes a setting of a topic, with Kafka's own tool.
    async fn set(&self, topic: &str, setting: &'static str) {
        let (server, topic) = (self.server.clone(), topic.to_owned());
        blocking(move || server.set_of_topic(&topic, setting).unwrap()).await;
    }

    /// Writes a configuration record, or removes it.
    fn write_webhook(&self, key: &str, value: Option<&str>) {
        let producer: BaseProducer = self.client().create().unwrap();
        let topic = self.name("webhooks");
        let record = BaseRecord::to(&topic).key(key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    }

    /// How many records a topic has had.
    fn written(&self, topic: &str) -> i64 {
        let asking: BaseConsumer = self.client().create().unwrap();
        let topic = self.name(topic);
        let ends = (0..PARTITIONS).map(|partition| {
            let (_, end) = asking
                .fetch_watermarks(&topic, partition, PATIENCE)
                .unwrap();
            end
        });
        ends.sum()
    }

    /// Deletes the records of a topic that are there.
    async fn delete(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        let topic = self.name(topic);
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&topic, partition, Offset::End)
                .unwrap();
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        admin.delete_records(&list, &options).await.unwrap();
    }

    /// Waits until each of the dispatchers' groups has a member, or none has.
    async fn members(&self, inside: bool) {
        let asking: BaseConsumer = self.client().create().unwrap();
        let groups = group::DISPATCHER.map(|name| self.name(name));
        let is = |name: &String| {
            let found = asking.client().fetch_group_list(Some(name), PATIENCE);
            let has = |list: &GroupList| list.groups().iter().any(|g| !g.members().is_empty());
            found.is_ok_and(|list| has(&list) == inside)
        };
        eventually("members of the groups", async || groups.iter().all(is)).await;
    }
}

/// What becomes of dispatchers and their partitions.
pub async fn members() -> Vec<Seen> {
    let bench = Bench::start(None, &[SESSION]).await;
    let mut dispatcher = bench.ringback.dispatcher().await;
    let mut metrics = bench.ringback.component("metrics").await;
    let counting = metrics.addresses["telemetry"].clone();
    let targets = bench.targets(&[&dispatcher, &metrics]);
    let station = Station::start("members", &targets).await;
    let garbage = "acme/garbage";
    let garbage_written = station.trial(
        Fault::GarbageInConfiguration,
        async { bench.write_webhook(garbage, Some("no webhook")) },
        async { bench.write_webhook(garbage, None) },
    );
    let intruder = Cell::new(None);
    let joined = station.trial(
        Fault::IntruderInGroup,
        async { intruder.set(Some(Intruder::join(&bench).await)) },
        async { drop(intruder.take()) },
    );
    let servers = [&bench.ringback.admin, &metrics];
    let stood_still = station.trial(
        Fault::ServersStandStill,
        async { servers.into_iter().for_each(Process::pause) },
        async { servers.into_iter().for_each(Process::go_on) },
    );
    tokio::join!(garbage_written, joined, stood_still);
    let stand_still = async {
        for _ in 0..EXPULSIONS {
            bench.members(true).await;
            dispatcher.pause();
            bench.members(false).await;
            dispatcher.go_on();
        }
        bench.members(true).await;
    };
    let paused = station.trial(Fault::DispatcherPaused, stand_still, async {});
    let attempts_deleted = station.trial(
        Fault::AttemptsDeleted,
        async {
            metrics.kill();
            let before = bench.written("attempts");
            let more = async || bench.written("attempts") >= before + 10;
            eventually("attempts that nobody counts", more).await;
            bench.delete("attempts").await;
            metrics.restart().await;
        },
        async {},
    );
    tokio::join!(paused, attempts_deleted);
    let mut next = None;
    let replace = async |next: &mut Option<Process>| {
        let started = bench.ringback.dispatcher().await;
        let mut targets = bench.targets(&[&started]);
        targets.push(&counting);
        station.watch(&targets);
        *next = Some(started);
    };
    let gone = station.trial(
        Fault::DispatcherGone,
        async { dispatcher.kill() },
        replace(&mut next),
    );
    gone.await;
    let mut last = None;
    let deleted = station.trial(
        Fault::RecordsDeleted,
        async {
            next.take().unwrap().kill();
            bench.load.more(10).await;
            bench.delete("events.cdr").await;
            replace(&mut last).await;
        },
        async {},
    );
    deleted.await;
    station.end().await
}

/// Topics that are not as they should be, and brokers out of reach.
pub async fn sick() -> Vec<Seen> {
    let proxy = Proxy::start().await;
    let settings = [
        "ingest.append_timeout=2s",
        "dispatcher.topic_check_interval=2s",
        // Each append that fails is said.
        "telemetry.log=error",
    ];
    let bench = Bench::start(Some(&proxy), &settings).await;
    let dispatcher = bench.ringback.dispatcher().await;
    let station = Station::start("sick", &bench.targets(&[&dispatcher])).await;
    for (fault, topic) in [
        (Fault::TopicChanged, bench.name("attempts")),
        (Fault::PositionsRefused, "__consumer_offsets".to_owned()),
    ] {
        let change = bench.set(&topic, "min.insync.replicas=2,max.message.bytes=10");
        let back = bench.set(&topic, "min.insync.replicas=1,max.message.bytes=1048588");
        station.trial(fault, change, back).await;
    }
    let away = Slow {
        hold: true,
        ..Slow::default()
    };
    station
        .trial(Fault::KafkaAway, async { proxy.be(away) }, async {
            proxy.be(Slow::default())
        })
        .await;
    station.end().await
}

/// A foreign program in the dispatchers' group, which leaves when it is dropped.
struct Intruder {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Intruder {
    /// Joins, and waits until it has got partitions.
    async fn join(bench: &Bench) -> Self {
        let consumer: BaseConsumer = bench
            .client()
            .set("group.id", bench.name(group::CDR_EVENTS))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[&bench.name("events.cdr")]).unwrap();
        let (stop, has_got) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stopped, got) = (stop.clone(), has_got.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                drop(consumer.poll(Duration::from_millis(100)));
                let count = consumer.assignment().map_or(0, |list| list.count());
                got.fetch_or(count > 0, Ordering::Relaxed);
            }
            // Dropped here, it leaves.
        });
        eventually("the intruder has partitions", async || {
            has_got.load(Ordering::Relaxed)
        })
        .await;
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
