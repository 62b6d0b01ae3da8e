//! `ringback send`: JSON lines from files or standard input become events.

mod client;
mod mapping;
mod report;
mod source;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ringback_core::secret::Secret;
use ringback_core::time::parse_duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::http::Trust;
pub(crate) use client::Ingest;
use client::Posted;
pub(crate) use mapping::{Mapping, MappingArgs};
pub(crate) use report::Report;
use source::{LINE_BYTES_MAX, Line, Lines};

/// Bytes of a batch; well below what the ingest takes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long a line waits for others to share its request, when they come slowly (`tail -F`).
const LINGER: Duration = Duration::from_millis(200);

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
    #[command(flatten)]
    trust: Trust,
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
    /// After giving up a request, go on with the next instead of ending
    #[arg(long)]
    keep_going: bool,
}

/// Sends until the input ends.
pub(crate) async fn run(args: SendArgs) -> Result<(), Failure> {
    let token = args.token.ok_or_else(|| {
        Failure::usage("sending needs a token: use --token or RINGBACK_TOKEN; `ringback token add --tenant NAME` makes one")
    })?;
    let mapping = Mapping::load(&args.mapping)?;
    let ingest = Ingest::new(
        &args.to,
        &args.trust,
        Secret::new(token.trim()),
        args.backfill,
        args.give_up_after,
    )?;
    let pace = Pace {
        batch: args.batch.get() as usize,
        in_flight: args.in_flight.get() as usize,
        rate: args.rate,
        keep_going: args.keep_going,
    };
    let report = Report::on_terminal();
    let sent = send_all(args.files, mapping, ingest, pace, report.clone()).await;
    // The summary comes first, also when sending ended early.
    let complete = report.finish();
    sent?;
    complete
}

/// How fast to send, and what to do when it does not work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Events per request.
    pub(crate) batch: usize,
    /// Requests at a time.
    pub(crate) in_flight: usize,
    /// Events per second.
    pub(crate) rate: Option<NonZeroU32>,
    /// Whether to go on after giving up a request.
    pub(crate) keep_going: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 500,
            in_flight: 4,
            rate: None,
            keep_going: false,
        }
    }
}

/// Reads, maps and sends everything; what happened to each line is in the report. On a failure, too,
/// what was in flight has ended, and is in the report.
pub(crate) async fn send_all(
    files: Vec<PathBuf>,
    mapping: Mapping,
    ingest: Ingest,
    pace: Pace,
    report: Report,
) -> Result<Report, Failure> {
    send_lines(Lines::read(files), mapping, ingest, pace, report).await
}

async fn send_lines(
    mut lines: Lines,
    mapping: Mapping,
    ingest: Ingest,
    pace: Pace,
    report: Report,
) -> Result<Report, Failure> {
    let mut requests = Requests::new(ingest, pace, report.clone());
    let mut batch = Batch::new(pace);
    let read = loop {
        let linger = batch.began + LINGER;
        // In this order: as long as there are lines to read, nothing else needs attention here.
        let line = tokio::select! {
            biased;
            line = lines.next() => line,
            ended = requests.next_end() => match ended {
                Ok(()) => continue,
                Err(failure) => break Err(failure),
            },
            () = tokio::time::sleep_until(linger), if !batch.lines.is_empty() => {
                match requests.start(batch.take()).await {
                    Ok(()) => continue,
                    Err(failure) => break Err(failure),
                }
            }
        };
        let line = match line {
            Ok(Some(line)) => line,
            // What was read before a file failed is sent all the same.
            Ok(None) => break requests.start(batch.take()).await,
            Err(failure) => break requests.start(batch.take()).await.and(Err(failure)),
        };
        report.read();
        match judge(&mapping, line, &report) {
            Some(event) => batch.push(event),
            None => continue,
        }
        if batch.is_full()
            && let Err(failure) = requests.start(batch.take()).await
        {
            break Err(failure);
        }
    };
    report.unsent(batch.lines.len());
    let rest = requests.finish().await;
    read.and(rest).map(|()| report)
}

/// The event of a line; without one, the report knows why.
fn judge(mapping: &Mapping, line: Line, report: &Report) -> Option<Line> {
    if line.text.len() > LINE_BYTES_MAX {
        let reason = format!("the line is longer than {LINE_BYTES_MAX} bytes");
        report.refused(&line, "too_large", &reason);
        return None;
    }
    match mapping.event(&line.text) {
        Ok(Some(text)) => Some(Line { text, ..line }),
        Ok(None) => {
            report.skipped();
            None
        }
        Err(refusal) => {
            report.refused(&line, refusal.code, &refusal.reason);
            None
        }
    }
}

/// Lines that are gathered for a request.
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
    lines_max: usize,
    /// When its first line came.
    began: Instant,
}

impl Batch {
    fn new(pace: Pace) -> Self {
        // A slow rate in large requests would come in bursts.
        let even = |rate: NonZeroU32| rate.get().div_ceil(10) as usize;
        Self {
            lines: Vec::new(),
            bytes: 0,
            lines_max: pace
                .rate
                .map_or(pace.batch, |rate| pace.batch.min(even(rate))),
            began: Instant::now(),
        }
    }

    fn push(&mut self, line: Line) {
        if self.lines.is_empty() {
            self.began = Instant::now();
        }
        self.bytes += line.text.len();
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= self.lines_max || self.bytes >= BATCH_BYTES_MAX
    }

    fn take(&mut self) -> Vec<Line> {
        self.bytes = 0;
        std::mem::take(&mut self.lines)
    }
}

/// The requests in flight: bounded in number, and started no faster than asked.
struct Requests {
    ingest: Arc<Ingest>,
    pace: Pace,
    report: Report,
    running: JoinSet<Result<Posted, Failure>>,
    began: Instant,
    handed: u64,
}

impl Requests {
    fn new(ingest: Ingest, pace: Pace, report: Report) -> Self {
        Self {
            ingest: Arc::new(ingest),
            pace,
            report,
            running: JoinSet::new(),
            began: Instant::now(),
            handed: 0,
        }
    }

    /// Sends these lines as soon as there is room and it is time. On a failure they are not sent.
    async fn start(&mut self, lines: Vec<Line>) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        while self.running.len() >= self.pace.in_flight {
            if let Err(failure) = self.next_end().await {
                self.report.unsent(lines.len());
                return Err(failure);
            }
        }
        if let Some(rate) = self.pace.rate {
            let due = Duration::from_secs_f64(self.handed as f64 / f64::from(rate.get()));
            tokio::time::sleep_until(self.began + due).await;
        }
        self.handed += lines.len() as u64;
        let (ingest, report) = (self.ingest.clone(), self.report.clone());
        self.running
            .spawn(async move { ingest.post(lines, &report).await });
        Ok(())
    }

    /// Waits until a request ends, for good when there is none. Cancel safe.
    async fn next_end(&mut self) -> Result<(), Failure> {
        match self.running.join_next().await {
            Some(Ok(Ok(Posted::Judged))) => Ok(()),
            Some(Ok(Ok(Posted::GivenUp(_)))) if self.pace.keep_going => Ok(()),
            Some(Ok(Ok(Posted::GivenUp(reason)))) => Err(Failure::new(format!(
                "ended after a request that was not acknowledged for too long (--keep-going goes on, --give-up-after waits longer): {reason}"
            ))),
            Some(Ok(Err(failure))) => Err(failure),
            Some(Err(error)) => Err(Failure::new(format!("a request broke off: {error}"))),
            None => std::future::pending().await,
        }
    }

    /// Waits for all of them; the first failure.
    async fn finish(mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while !self.running.is_empty() {
            result = result.and(self.next_end().await);
        }
        result
    }
}
