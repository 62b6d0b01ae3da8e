//! What became of the lines: a progress bar on a terminal, a summary at the end.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::source::Line;
use crate::failure::Failure;
use crate::out;
use crate::output::complain;

/// More refused lines than this are counted, not named.
const NAMED_MAX: u64 = 100;

/// Counts lines by what became of them. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Report(Arc<Inner>);

struct Inner {
    began: Instant,
    read: AtomicU64,
    skipped: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    unacknowledged: AtomicU64,
    resent: AtomicU64,
    named: AtomicU64,
    bar: ProgressBar,
    quiet: bool,
}

/// How many lines became what: `read` is the sum of the next four.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    /// Acknowledged by the ingest.
    pub(crate) accepted: u64,
    /// By the mapping or the ingest.
    pub(crate) refused: u64,
    /// Left out by the mapping.
    pub(crate) skipped: u64,
    /// Given up, or not sent any more.
    pub(crate) unacknowledged: u64,
    /// Lines that were sent once more, each time.
    pub(crate) resent: u64,
}

impl Report {
    /// With a progress bar, where standard error is a terminal.
    pub(crate) fn on_terminal() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{spinner} {pos} accepted, {per_sec}, {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self::new(bar, false)
    }

    /// Without any output.
    pub(crate) fn quiet() -> Self {
        Self::new(ProgressBar::hidden(), true)
    }

    fn new(bar: ProgressBar, quiet: bool) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            read: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unacknowledged: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            named: AtomicU64::new(0),
            bar,
            quiet,
        }))
    }

    pub(crate) fn read(&self) {
        self.0.read.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self) {
        self.0.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self, count: u64) {
        self.0.accepted.fetch_add(count, Ordering::Relaxed);
        self.0.bar.inc(count);
        self.0.bar.set_message("");
    }

    pub(crate) fn resent(&self, count: usize) {
        self.0.resent.fetch_add(count as u64, Ordering::Relaxed);
        self.0.bar.set_message("waiting for the ingest");
    }

    pub(crate) fn refused(&self, line: &Line, code: &str, reason: &str) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        self.name(line, code, reason);
    }

    pub(crate) fn unacknowledged(&self, line: &Line, reason: &str) {
        self.0.unacknowledged.fetch_add(1, Ordering::Relaxed);
        self.name(line, "unavailable", reason);
    }

    /// Lines that nobody will send any more; why is the failure's to say.
    pub(crate) fn unsent(&self, count: usize) {
        let count = count as u64;
        self.0.unacknowledged.fetch_add(count, Ordering::Relaxed);
    }

    fn name(&self, line: &Line, code: &str, reason: &str) {
        let named = self.0.named.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.quiet || named > NAMED_MAX {
            return;
        }
        self.0.bar.suspend(|| {
            complain(&format!("{}:{}: {code}: {reason}", line.file, line.number));
            if named == NAMED_MAX {
                complain("more lines are only counted from here on");
            }
        });
    }

    pub(crate) fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            read: count(&self.0.read),
            accepted: count(&self.0.accepted),
            refused: count(&self.0.refused),
            skipped: count(&self.0.skipped),
            unacknowledged: count(&self.0.unacknowledged),
            resent: count(&self.0.resent),
        }
    }

    /// Events that the ingest acknowledged.
    pub(crate) fn accepted_count(&self) -> u64 {
        self.counts().accepted
    }

    /// Prints the summary; a failure when any line was not accepted.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        self.0.bar.finish_and_clear();
        let Counts {
            read,
            accepted,
            refused,
            skipped,
            unacknowledged,
            resent,
        } = self.counts();
        let seconds = self.0.began.elapsed().as_secs_f64();
        let rate = accepted as f64 / seconds.max(0.001);
        out!(
            "read {read}, accepted {accepted}, refused {refused}, skipped {skipped}, not acknowledged {unacknowledged}, resent {resent}; {seconds:.2} s, {rate:.0} events/s"
        );
        match refused + unacknowledged {
            0 => Ok(()),
            bad => Err(Failure::new(format!(
                "{bad} of {read} lines were not accepted"
            ))),
        }
    }
}
