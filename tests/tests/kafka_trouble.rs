//! Kafka is slow, away, full: never a false 202, readiness says it, nothing that was accepted is lost,
//! and what was sent is not sent again but for what was under way.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use ringback_tests::installation::{
    CONCURRENCY, Installation, Posted, SINCE_COMMIT, Stream, eventually, settle,
};
use ringback_tests::kafka::{KafkaOptions, KafkaServer};
use ringback_tests::process::Process;
use ringback_tests::proxy::{Proxy, Slow};
use serde_json::json;
use uuid::Uuid;

const SETTINGS: [&str; 3] = [
    "ingest.append_timeout=2s",
    "log.kafka.properties.session.timeout.ms=6000",
    // A queue in front of the log that is soon full.
    "log.kafka.properties.queue.buffering.max.kbytes=512",
];

struct Bench {
    proxy: Proxy,
    server: Option<KafkaServer>,
    ringback: Installation,
    dispatcher: Process,
    metrics: Process,
    /// Everything that was posted.
    posted: Vec<Posted>,
    /// Deliveries that may have come twice.
    allowed: usize,
    began: Instant,
}

impl Bench {
    async fn start() -> Self {
        let proxy = Proxy::start().await;
        let through = format!("PLAINTEXT://{}", proxy.address);
        let server = blocking(move || {
            KafkaServer::start_with(&KafkaOptions {
                settings: vec![("advertised.listeners".to_owned(), through)],
                ..KafkaOptions::default()
            })
            .unwrap()
        });
        let server = server.await;
        proxy.forward_to(server.bootstrap());
        let ringback = Installation::start(&proxy.address.to_string(), &SETTINGS).await;
        Self {
            dispatcher: ringback.dispatcher().await,
            metrics: ringback.component("metrics").await,
            proxy,
            server: Some(server),
            ringback,
            posted: Vec::new(),
            allowed: 0,
            began: Instant::now(),
        }
    }

    /// Does something with the brokers that takes its time.
    async fn server(&mut self, work: impl FnOnce(&mut KafkaServer) + Send + 'static) {
        let mut server = self.server.take().unwrap();
        let server = blocking(move || {
            work(&mut server);
            server
        });
        self.server = Some(server.await);
    }

    async fn restart(&mut self) {
        self.server(|server| {
            server.kill().unwrap();
            server.restart().unwrap();
        })
        .await;
    }

    /// What may come again after a time without commits: what was in flight, and what was delivered
    /// and not committed.
    fn allow_uncommitted(&mut self, trouble: Range<Instant>) {
        let since = trouble.start - SINCE_COMMIT;
        let recent = self.ringback.receiver.books(|books| {
            let requests = books.requests.iter();
            let recent = requests.filter(|request| request.at > since && request.at < trouble.end);
            recent.count()
        });
        self.allowed += recent + CONCURRENCY;
    }

    /// Takes what was posted to the books. When acknowledgements were lost (somebody was refused in
    /// vain), whatever was under way meanwhile may be in the log twice: librdkafka then takes a new
    /// epoch and sends it again.
    fn take(&mut self, fates: Vec<Posted>, trouble: Range<Instant>) {
        let handed_over = |posted: &&Posted| !posted.said.contains("not current");
        let refused = |posted: &Posted| !posted.accepted && handed_over(&posted);
        if fates.iter().any(refused) {
            let meanwhile = fates.iter().filter(handed_over);
            self.allowed += meanwhile
                .filter(|p| p.began < trouble.end && p.began + p.took > trouble.start)
                .count();
        }
        self.posted.extend(fates);
    }

    /// The books of everything so far.
    async fn settle(&self, name: &str) {
        let again = settle(&self.ringback.receiver, &self.posted).await;
        let refused = self.posted.iter().filter(|p| !p.accepted);
        println!("figure kafka.{name}.posted {} events", self.posted.len());
        println!("figure kafka.{name}.refused {} events", refused.count());
        println!("figure kafka.{name}.duplicates {again} events");
        println!(
            "figure kafka.{name}.duplicates_bound {} events",
            self.allowed
        );
        let seconds = self.began.elapsed().as_secs_f64();
        println!("figure kafka.{name}.ended_after {seconds:.1} s");
        assert!(again <= self.allowed, "{again} came again");
    }

    /// The trouble is over: it works again by itself, and the books balance.
    async fn recovered(&mut self, stream: Stream, trouble: Range<Instant>, name: &str) {
        self.allow_uncommitted(trouble.clone());
        stream.more(20, true).await;
        self.take(stream.stop().await, trouble);
        self.settle(name).await;
    }

    /// The brokers are gone since `trouble`: everybody says so, nobody spins, nothing is accepted.
    async fn all_refuse(&self, stream: &Stream, trouble: Instant) {
        let Self {
            ringback,
            dispatcher,
            metrics,
            ..
        } = self;
        stream.more(10, false).await;
        for process in [&ringback.producer, &ringback.admin, dispatcher, metrics] {
            eventually("it says so", async || !process.troubles().await.is_empty()).await;
        }
        // Who hands events in is led elsewhere; the others are not restarted, moved or hidden for it.
        assert_ne!(ringback.producer.not_ready().await, "");
        for process in [&ringback.admin, dispatcher, metrics] {
            assert_eq!(process.not_ready().await, "");
        }
        let (began, before) = (Instant::now(), dispatcher.cpu());
        stream.more(100, false).await;
        let used = (dispatcher.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        println!("figure kafka.away.dispatcher_cpu {used:.3} cores");
        assert!(used < 0.5, "a dispatcher without brokers uses {used} cores");
        assert_eq!(stream.count(trouble, true), 0, "a false 202");
    }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kafka_slow_away_and_full() {
    let mut bench = Bench::start().await;
    slow(&mut bench).await;
    silent(&mut bench).await;
    away(&mut bench).await;
    full(&mut bench).await;
    // What could not be committed meanwhile is committed since, and the next owner repeats nothing.
    let (bootstrap, prefix) = (
        bench.proxy.address.to_string(),
        bench.ringback.prefix.clone(),
    );
    blocking(move || all_is_committed(&bootstrap, &prefix)).await;
    let before = bench.ringback.receiver.books(|books| books.duplicates());
    assert_eq!(bench.dispatcher.terminate().await, Some(0));
    bench.dispatcher = bench.ringback.dispatcher().await;
    let (stream, began) = (bench.ringback.stream(), Instant::now());
    stream.more(20, true).await;
    bench.take(stream.stop().await, began..began);
    bench.settle("after").await;
    let after = bench.ringback.receiver.books(|books| books.duplicates());
    assert_eq!(after, before, "the next dispatcher repeats");
}

/// Waits until the group has committed all that is in the topic of these events.
fn all_is_committed(bootstrap: &str, prefix: &str) {
    let patience = Duration::from_secs(60);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("{prefix}dispatcher.events.cdr"))
        .create()
        .unwrap();
    let topic = format!("{prefix}events.cdr");
    let until = Instant::now() + patience;
    let left = |partition: i32| {
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, partition);
        let list = consumer.committed_offsets(list, patience).unwrap();
        let end = consumer.fetch_watermarks(&topic, partition, patience);
        match list.elements()[0].offset() {
            Offset::Offset(committed) => end.unwrap().1 - committed,
            _ => end.unwrap().1,
        }
    };
    while (0..4).map(left).sum::<i64>() > 0 {
        assert!(Instant::now() < until, "not everything is committed");
    }
}

/// Every byte takes its time: so do the answers, and everything arrives once. Too slow for what comes:
/// the queue fills, and who is refused hears it.
async fn slow(bench: &mut Bench) {
    let stream = bench.ringback.stream();
    stream.more(50, true).await;
    let delay = Duration::from_millis(150);
    bench.proxy.be(Slow {
        delay,
        ..Slow::default()
    });
    let since = Instant::now();
    stream.more(100, true).await;
    let fates = stream.stop().await;
    let slowed = fates.iter().filter(|p| p.began > since && p.accepted);
    let quickest = slowed.map(|p| p.took).min().unwrap();
    assert!(quickest >= 2 * delay, "202 after {quickest:?}");
    bench.take(fates, since..Instant::now());
    bench.settle("slow").await;

    let since = Instant::now();
    bench.proxy.be(Slow {
        rate: Some(64 * 1024),
        ..Slow::default()
    });
    // Does not shrink.
    let noise: String = (0..1500)
        .map(|_| Uuid::new_v4().simple().to_string())
        .collect();
    let flood = (0..60).map(|_| bench.ringback.post(json!({ "noise": noise })));
    let flood = futures_util::future::join_all(flood).await;
    let refused: Vec<_> = flood.iter().filter(|p| !p.accepted).collect();
    assert!(
        refused.iter().any(|p| p.said.contains("full")),
        "{refused:?}"
    );
    bench.proxy.be(Slow::default());
    bench.take(flood, since..Instant::now());
    bench.settle("throttled").await;
}

/// Nothing gets through, and no connection breaks.
async fn silent(bench: &mut Bench) {
    let stream = bench.ringback.stream();
    stream.more(50, true).await;
    let since = Instant::now();
    bench.proxy.be(Slow {
        hold: true,
        ..Slow::default()
    });
    stream.more(10, false).await;
    eventually("it says so", async || {
        !bench.dispatcher.troubles().await.is_empty()
    })
    .await;
    let trouble = since..Instant::now();
    bench.proxy.be(Slow::default());
    bench.recovered(stream, trouble, "silent").await;
}

async fn away(bench: &mut Bench) {
    let stream = bench.ringback.stream();
    stream.more(50, true).await;
    let since = Instant::now();
    bench.server(|server| server.kill().unwrap()).await;
    bench.all_refuse(&stream, Instant::now()).await;
    bench.restart().await;
    bench.recovered(stream, since..Instant::now(), "away").await;
}

/// A broker that cannot write ends: its log directory is offline, and it has no other.
async fn full(bench: &mut Bench) {
    let stream = bench.ringback.stream();
    stream.more(50, true).await;
    let since = Instant::now();
    bench
        .server(|server| {
            server.limit_files(1).unwrap();
            server.wait().unwrap();
        })
        .await;
    bench.all_refuse(&stream, Instant::now()).await;
    bench.restart().await;
    bench.recovered(stream, since..Instant::now(), "full").await;
}
