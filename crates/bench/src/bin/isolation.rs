//! Contract R15: 200 events/s over 100 webhooks, with all healthy, then with 10 that hang for 10 s, then
//! with all healthy again, because a machine does not stay the same. What the others notice of it: the
//! time from the event being sent to the ingest to its arrival.
//!
//! `isolation [local|kafka] [SECONDS]`, the seconds of each of the three measurements.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringback_bench::{Measurement, Pipeline, Receiver, number, on_engine};
use ringback_core::log::Log;
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WEBHOOKS: usize = 100;
const HANGING: usize = 10;
const HANG: Duration = Duration::from_secs(10);
const PER_SECOND: u32 = 200;
/// Not measured: connections are made, and in the second half the hanging webhooks fill up.
const LEAD_IN: Duration = Duration::from_secs(12);

fn main() {
    let mut args = std::env::args().skip(1);
    let engine = args.next().unwrap_or_else(|| "local".to_owned());
    let seconds = args
        .next()
        .map_or(30, |n| n.parse().expect("SECONDS is a number"));
    let length = Duration::from_secs(seconds);
    on_engine(&engine, Isolation { length });
}

/// An event that came to a webhook, and when.
struct Arrival {
    n: usize,
    at: Instant,
}

/// Serves every webhook at its own path; while `hanging`, the first ones answer after a long time.
async fn receive(hanging: Arc<AtomicBool>) -> (Vec<String>, mpsc::UnboundedReceiver<Arrival>) {
    let (arrivals, received) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |path, body| {
        let at = Instant::now();
        let webhook: usize = path[1..].parse().unwrap();
        let n = number(&body);
        let _ = arrivals.send(Arrival { n, at });
        let hangs = webhook < HANGING && hanging.load(Ordering::Relaxed);
        async move {
            if hangs {
                tokio::time::sleep(HANG).await;
            }
        }
    });
    let address = receiver.await.address;
    let urls = (0..WEBHOOKS).map(|n| format!("http://{address}/{n}"));
    (urls.collect(), received)
}

struct Isolation {
    /// Of each of the three measurements.
    length: Duration,
}

impl Measurement for Isolation {
    async fn run<L: Log>(self, log: L, engine: &str) {
        run(log, engine, self.length).await;
    }
}

async fn run<L: Log>(log: L, engine: &str, length: Duration) {
    let hanging = Arc::new(AtomicBool::new(false));
    let (urls, mut received) = receive(hanging.clone()).await;
    let Pipeline {
        ingest,
        token,
        metrics,
        dispatcher,
    } = Pipeline::start(&log, &urls).await;
    let mut load = Load {
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        ingest,
        token,
        sent: Vec::new(),
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for hang in [false, true, false] {
        hanging.store(hang, Ordering::Relaxed);
        load.send_for(LEAD_IN).await;
        let from = load.sent.len();
        load.send_for(length).await;
        let mut delays = load.delays(from, &mut received).await;
        println!("{engine}, hanging: {hang}: {}", summary(&mut delays));
        let all = if hang { &mut with } else { &mut without };
        all.append(&mut delays);
    }
    println!("all with none hanging: {}", summary(&mut without));
    let (baseline, healthy) = (share(&without, 99), share(&with, 99));
    println!("figure isolation.baseline_p99 {baseline:.1} ms");
    println!("figure isolation.healthy_p99 {healthy:.1} ms");
    println!("figure isolation.ratio {:.2} x", healthy / baseline);
    for line in metrics.expose().lines() {
        if line.starts_with("ringback_deliveries_deferred") || line.contains("attempts_total{") {
            println!("{line}");
        }
    }
    // Its hanging requests are let go.
    drop(dispatcher);
}

/// The delay that so many percent of these sorted ones do not exceed, in milliseconds.
fn share(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1000.0
}

fn summary(delays: &mut [Duration]) -> String {
    delays.sort();
    let [median, p99, longest] = [50, 99, 100].map(|percent| share(delays, percent));
    format!(
        "{} deliveries, median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms",
        delays.len()
    )
}

struct Load {
    client: reqwest::Client,
    ingest: String,
    token: String,
    /// When each event was sent.
    sent: Vec<Instant>,
}

impl Load {
    /// Sends at the rate, whatever becomes of it.
    async fn send_for(&mut self, length: Duration) {
        let mut every = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let end = Instant::now() + length;
        while Instant::now() < end {
            every.tick().await;
            let n = self.sent.len();
            let kind = n % WEBHOOKS;
            let body = format!(r#"{{"type":"cdr.kind_{kind}","data":{{"n":{n}}}}}"#);
            self.sent.push(Instant::now());
            let request = self.client.post(&self.ingest).bearer_auth(&self.token);
            let request = request
                .header("content-type", "application/json")
                .body(body);
            tokio::spawn(async move {
                let status = request.send().await.unwrap().status().as_u16();
                assert_eq!(status, 202);
            });
        }
    }

    /// How long the events from this one on took to webhooks that never hang; all must come, once.
    async fn delays(
        &self,
        from: usize,
        received: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Vec<Duration> {
        let healthy = |n: &usize| n % WEBHOOKS >= HANGING;
        let mut missing: std::collections::HashSet<_> =
            (from..self.sent.len()).filter(healthy).collect();
        let mut delays = Vec::with_capacity(missing.len());
        while !missing.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(60), received.recv());
            let Ok(Some(Arrival { n, at })) = next.await else {
                panic!("{} events to healthy webhooks do not arrive", missing.len());
            };
            if missing.remove(&n) {
                delays.push(at - self.sent[n]);
            }
        }
        delays
    }
}
