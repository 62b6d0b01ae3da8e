//! The projection of attempts to SQLite: how many a second it takes from the local log, and how soon a
//! webhook with many attempts answers its first page.
//!
//! `projection [LOG] [ROWS]`: attempts that go through the log (100,000), and rows that the pages are
//! read from (200,000; the promise is about 10,000,000, which take 7 GB and a while).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot be set up has nothing to print"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use ringback_admin::projection::conformance::bulk::Bulk;
use ringback_admin::{Projection, ProjectionConfig};
use ringback_core::log::{Append, AppenderOptions, Log};
use ringback_core::schedule::Schedule;
use ringback_core::topics::{Role, Topics, TopicsConfig};
use ringback_log::batch::{Acknowledgement, Batch};
use ringback_log::local::{LocalLog, LocalOptions};
use serde_json::json;
use uuid::Uuid;

/// Webhooks that the attempts of the log are of.
const WEBHOOKS: u128 = 50;
/// Rounds of first pages; the middle one counts.
const ROUNDS: usize = 15;

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<u64>().unwrap());
    let attempts = args.next().unwrap_or(100_000);
    let rows = args.next().unwrap_or(200_000);
    let dir = tempfile::tempdir().unwrap();
    from_log(&dir.path().join("a"), attempts);
    first_page(&dir.path().join("b"), rows);
}

fn config() -> ProjectionConfig {
    ProjectionConfig {
        // Nothing is sampled: the figure is about rows.
        full_rate: u32::MAX,
        ..ProjectionConfig::default()
    }
}

fn from_log(dir: &Path, attempts: u64) {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let log = LocalLog::open(&dir.join("log"), topics, LocalOptions::default()).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    fill(&log, attempts);
    let clock = ringback_log::system_clock();
    let files = dir.join("projection");
    let projection = Projection::new(&config(), "bench", &files, clock).unwrap();
    let began = Instant::now();
    let projecting = projection
        .start(&log, &ringback_telemetry::Metrics::new())
        .unwrap();
    while projection.as_of().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f64();
    drop(projecting);
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    let rate = attempts as f64 / took;
    println!("figure projection.attempts_per_second {rate:.0} count/s");
}

fn fill(log: &LocalLog, attempts: u64) {
    let topic = log.topics().find(Role::Attempts).unwrap();
    let appender = log
        .appender(AppenderOptions::default(), Acknowledgement)
        .unwrap();
    let mut batch = Batch::new(&appender);
    for number in 0..u128::from(attempts) {
        let webhook = Uuid::from_u128(number % WEBHOOKS);
        let key = webhook.to_string();
        let failed = number.is_multiple_of(100);
        let value = json!({
            "version": 1, "event": Uuid::new_v4(), "type": "cdr.completed", "tenant": "acme",
            "webhook": webhook, "generation": 0, "run": 0, "attempt": 0,
            "started": "2026-11-21T09:30:00Z", "duration_ms": 12, "outcome": "status",
            "status": if failed { 503 } else { 200 }, "response": "{\"ok\":true}",
            "next": if failed { "retry.32s" } else { "delivered" },
            "dispatcher": "dispatcher-1:4711",
        });
        let value = value.to_string();
        let record = Append {
            topic,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(value.as_bytes()),
        };
        batch.append(record).unwrap();
    }
    batch.finish().unwrap();
}

fn first_page(dir: &Path, rows: u64) {
    let config = ProjectionConfig {
        dir: Some(dir.into()),
        ..config()
    };
    let began = Instant::now();
    let mut said = 0;
    let bulk = Bulk::fill(config, rows, |done| {
        if done >= said + 500_000 {
            said = done;
            eprintln!("{done} rows after {:.0} s", began.elapsed().as_secs_f64());
        }
    });
    let rounds: Vec<_> = (0..ROUNDS).map(|_| bulk.first_pages()).collect();
    let figures = [
        (
            "first_page_ms",
            rounds.iter().map(|round| round.all).collect::<Vec<_>>(),
        ),
        (
            "first_failed_page_ms",
            rounds.iter().map(|round| round.failed).collect(),
        ),
        (
            "first_event_page_ms",
            rounds.iter().map(|round| round.event).collect(),
        ),
    ];
    for (name, mut times) in figures {
        times.sort_unstable();
        let middle = times[ROUNDS / 2].as_secs_f64() * 1000.0;
        println!("figure projection.{name} {middle:.2} ms");
    }
}
