//! The whole path: ingest over HTTP → log → dispatcher → receiver, at the fastest rate this machine
//! gives, with the books kept: every id sent must be received.
//!
//! `pipeline [kafka|local] [EVENTS] [PER_REQUEST] [SENDERS]`. As many events go through unmeasured first, because
//! a broker that has just started compiles itself. Everything, the broker included, shares this
//! machine. The ceiling of the same run is the bare HTTP client posting to the same receiver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringback_bench::{Measurement, Pipeline, Receiver, number, on_engine};
use ringback_core::log::Log;
use tokio::sync::{Notify, Semaphore};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WEBHOOKS: usize = 100;
/// Pads the body to about 600 bytes, a usual CDR.
const PADDING: usize = 380;

fn main() {
    let mut args = std::env::args().skip(1);
    let engine = args.next().unwrap_or_else(|| "kafka".to_owned());
    let events: usize = args
        .next()
        .map_or(100_000, |n| n.parse().expect("EVENTS is a number"));
    let batch: usize = args
        .next()
        .map_or(100, |n| n.parse().expect("PER_REQUEST is a number"));
    // Batches bring their own parallelism.
    let senders: usize = args.next().map_or(if batch == 1 { 64 } else { 16 }, |n| {
        n.parse().expect("SENDERS is a number")
    });
    let load = Load {
        events,
        batch,
        senders,
    };
    on_engine(&engine, load);
}

impl Measurement for Load {
    async fn run<L: Log>(self, log: L, engine: &str) {
        run(log, engine, self).await;
    }
}

/// How often each number came.
struct Books {
    seen: Vec<AtomicU64>,
    distinct: AtomicU64,
    total: AtomicU64,
    done: Notify,
}

impl Books {
    fn note(&self, n: usize) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if self.seen[n].fetch_add(1, Ordering::Relaxed) == 0
            && self.distinct.fetch_add(1, Ordering::Relaxed) + 1 == self.seen.len() as u64
        {
            self.done.notify_one();
        }
    }
}

async fn receive(events: usize) -> (Receiver, Arc<Books>) {
    let books = Arc::new(Books {
        seen: (0..events).map(|_| AtomicU64::new(0)).collect(),
        distinct: AtomicU64::new(0),
        total: AtomicU64::new(0),
        done: Notify::new(),
    });
    let kept = books.clone();
    let receiver = Receiver::start(move |_, body| {
        kept.note(number(&body));
        std::future::ready(())
    });
    (receiver.await, books)
}

fn event(n: usize) -> String {
    let padding = "x".repeat(PADDING);
    let kind = n % WEBHOOKS;
    format!(
        r#"{{"type":"cdr.kind_{kind}","subject":"call/{n}","data":{{"caller":"2001","text":"{padding}","n":{n}}}}}"#
    )
}

/// How much is sent, and how.
#[derive(Clone, Copy)]
struct Load {
    events: usize,
    /// Events in each request.
    batch: usize,
    /// Requests at a time.
    senders: usize,
}

async fn run<L: Log>(log: L, engine: &str, load: Load) {
    let Load {
        events,
        batch,
        senders,
    } = load;
    let bare = ceiling(events.min(100_000)).await;
    println!("figure pipeline.bare_http {bare:.0} 1/s");
    let (receiver, books) = receive(2 * events).await;
    let url = format!("http://{}/", receiver.address);
    let Pipeline {
        ingest,
        token,
        metrics,
        dispatcher,
    } = Pipeline::start(&log, &vec![url; WEBHOOKS]).await;
    drive(&ingest, &token, 0..events, load).await;
    while books.distinct.load(Ordering::Relaxed) < events as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cpu = cpu_seconds();
    let began = Instant::now();
    drive(&ingest, &token, events..2 * events, load).await;
    let accepted = began.elapsed();
    let in_time = tokio::time::timeout(Duration::from_secs(300), books.done.notified()).await;
    let took = began.elapsed();
    let distinct = books.distinct.load(Ordering::Relaxed);
    let measured = distinct.saturating_sub(events as u64) as f64;
    let rate = measured / took.as_secs_f64();
    let name = match senders {
        _ if senders == if batch == 1 { 64 } else { 16 } => {
            format!("pipeline.{engine}.per_request_{batch}")
        }
        _ => format!("pipeline.{engine}.per_request_{batch}.senders_{senders}"),
    };
    println!("figure {name}.events {events} events");
    println!(
        "figure {name}.ingest {:.0} 1/s",
        events as f64 / accepted.as_secs_f64()
    );
    println!("figure {name}.deliveries {rate:.0} 1/s");
    println!("figure {name}.of_bare_http {:.2} x", rate / bare);
    let per_1000 = (cpu_seconds() - cpu) / (measured / 1000.0);
    println!("figure {name}.cpu_per_1000 {per_1000:.3} s");
    println!("figure {name}.lost {} events", 2 * events as u64 - distinct);
    let total = books.total.load(Ordering::Relaxed);
    println!("figure {name}.duplicates {} events", total - distinct);
    let connections = receiver.connections.load(Ordering::Relaxed);
    println!("figure {name}.connections {connections} connections");
    dispatcher.drain().await;
    // A healthy receiver is neither tried twice nor put off, however much comes at once.
    let told = |name: &str| -> Vec<String> {
        let text = metrics.expose();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    };
    for name in [
        "ringback_attempts_total",
        "ringback_deliveries_deferred",
        "ringback_attempt_seconds_bucket",
    ] {
        for line in told(name) {
            println!("{line}");
        }
    }
    assert!(
        in_time.is_ok() && distinct == 2 * events as u64,
        "{distinct} of {} arrived",
        2 * events
    );
}

/// Sends these events, so many in each request; returns when all are accepted.
async fn drive(ingest: &str, token: &str, events: Range<usize>, load: Load) {
    let (batch, at_a_time) = (load.batch, load.senders);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let senders = Arc::new(Semaphore::new(at_a_time));
    let mut next = events.start;
    while next < events.end {
        let permit = senders.clone().acquire_owned().await.unwrap();
        let end = (next + batch).min(events.end);
        let lines: Vec<_> = (next..end).map(event).collect();
        next = end;
        let (client, ingest, token) = (client.clone(), ingest.to_owned(), token.to_owned());
        tokio::spawn(async move {
            post(&client, &ingest, &token, lines.join("\n")).await;
            drop(permit);
        });
    }
    let _all = senders.acquire_many(at_a_time as u32).await.unwrap();
}

/// What the HTTP client alone reaches against the same kind of receiver.
async fn ceiling(events: usize) -> f64 {
    let (receiver, books) = receive(events).await;
    let url = format!("http://{}/", receiver.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    for _ in 0..64 {
        let (client, url, next) = (client.clone(), url.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed) as usize;
                if n >= events {
                    return;
                }
                let response = client.post(&url).body(event(n)).send().await.unwrap();
                response.bytes().await.unwrap();
            }
        });
    }
    books.done.notified().await;
    events as f64 / began.elapsed().as_secs_f64()
}

async fn post(client: &reqwest::Client, url: &str, token: &str, body: String) {
    loop {
        let request = client.post(url).bearer_auth(token).body(body.clone());
        let request = request.header("content-type", "application/x-ndjson");
        let response = request.send().await.unwrap();
        if response.status().as_u16() == 202 {
            return;
        }
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status.as_u16(), 503, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// CPU time of this process: ingest, dispatcher, the load and the receiver; not the broker.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
