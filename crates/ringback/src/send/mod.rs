//! `ringback send`: JSON lines from files or standard input become events.

mod client;
mod fields;
mod mapping;
mod report;
mod source;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use ringback_core::secret::Secret;
use ringback_core::time::parse_duration;
use tokio::task::JoinSet;

use crate::failure::Failure;
pub(crate) use client::Ingest;
pub(crate) use mapping::{Mapping, MappingArgs};
pub(crate) use report::Report;
use source::{Line, Lines};

/// Bytes of a batch; well below what the ingest takes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Options of `ringback send`.
#[derive(Args)]
pub(crate) struct SendArgs {
    /// Files of JSON lines; none or `-`: standard input
    files: Vec<PathBuf>,
    /// Address of the ingest
    #[arg(
        long,
        env = "RINGBACK_INGEST_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    to: String,
    /// Token for publishing; `ringback token add` makes one
    #[arg(long, env = "RINGBACK_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Old events are meant: their 24 hours count from now
    #[arg(long)]
    backfill: bool,
    /// Events per request
    #[arg(long, default_value = "500")]
    batch: NonZeroU32,
    /// Requests at a time
    #[arg(long, default_value = "4")]
    in_flight: NonZeroU32,
    /// At most so many events per second
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// How long a request that is not acknowledged is repeated
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    give_up_after: Duration,
}

/// Sends until the input ends.
pub(crate) async fn run(args: SendArgs) -> Result<(), Failure> {
    let token = args.token.ok_or_else(|| {
        Failure::usage("sending needs a token: use --token or RINGBACK_TOKEN; `ringback token add --tenant NAME` makes one")
    })?;
    let mapping = Mapping::load(&args.mapping)?;
    let ingest = Ingest::new(
        &args.to,
        Secret::new(token),
        args.backfill,
        args.give_up_after,
    )?;
    let pace = Pace {
        batch: args.batch.get() as usize,
        in_flight: args.in_flight.get() as usize,
        rate: args.rate,
    };
    let report = send_all(args.files, mapping, ingest, pace, Report::on_terminal()).await?;
    report.finish()
}

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Events per request.
    pub(crate) batch: usize,
    /// Requests at a time.
    pub(crate) in_flight: usize,
    /// Events per second.
    pub(crate) rate: Option<NonZeroU32>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 500,
            in_flight: 4,
            rate: None,
        }
    }
}

/// Reads, maps and sends everything; what happened to each line is in the report.
pub(crate) async fn send_all(
    files: Vec<PathBuf>,
    mapping: Mapping,
    ingest: Ingest,
    pace: Pace,
    report: Report,
) -> Result<Report, Failure> {
    let mut lines = Lines::read(files);
    let ingest = Arc::new(ingest);
    let mut requests: JoinSet<Result<(), Failure>> = JoinSet::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    let began = Instant::now();
    let mut handed = 0u64;
    // A slow rate in large requests would come in bursts.
    let batch_max = pace.rate.map_or(pace.batch, |rate| {
        pace.batch.min(rate.get().div_ceil(10) as usize)
    });
    loop {
        let line = lines.next().await?;
        let last = line.is_none();
        if let Some(line) = line {
            report.read();
            match mapping.event(&line.text) {
                Ok(Some(event)) => {
                    bytes += event.len();
                    batch.push(Line {
                        text: event,
                        ..line
                    });
                }
                Ok(None) => report.skipped(),
                Err(refusal) => report.refused(&line, refusal.code, &refusal.reason),
            }
        }
        if batch.len() >= batch_max || bytes >= BATCH_BYTES_MAX || (last && !batch.is_empty()) {
            while requests.len() >= pace.in_flight {
                joined(requests.join_next().await)?;
            }
            handed += batch.len() as u64;
            let (ingest, report, lines) =
                (ingest.clone(), report.clone(), std::mem::take(&mut batch));
            bytes = 0;
            requests.spawn(async move { ingest.post(lines, &report).await });
            if let Some(rate) = pace.rate {
                let due = Duration::from_secs_f64(handed as f64 / f64::from(rate.get()));
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
        }
        if last {
            break;
        }
    }
    while let Some(ended) = requests.join_next().await {
        joined(Some(ended))?;
    }
    Ok(report)
}

fn joined(
    ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>,
) -> Result<(), Failure> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Failure::new(format!(
            "a request ended unexpectedly: {error}"
        ))),
        None => Ok(()),
    }
}
