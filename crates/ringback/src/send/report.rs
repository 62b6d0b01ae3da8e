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
    bar: ProgressBar,
    quiet: bool,
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

    fn name(&self, line: &Line, code: &str, reason: &str) {
        let bad = self.bad();
        if self.0.quiet || bad > NAMED_MAX {
            return;
        }
        self.0.bar.suspend(|| {
            complain(&format!("{}:{}: {code}: {reason}", line.file, line.number));
            if bad == NAMED_MAX {
                complain("more lines are only counted from here on");
            }
        });
    }

    fn bad(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed) + self.0.unacknowledged.load(Ordering::Relaxed)
    }

    /// Events that the ingest acknowledged.
    pub(crate) fn accepted_count(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Prints the summary; a failure when any line was not accepted.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let inner = &self.0;
        inner.bar.finish_and_clear();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = inner.began.elapsed().as_secs_f64();
        let accepted = count(&inner.accepted);
        out!(
            "read {}, accepted {accepted}, refused {}, skipped {}, not acknowledged {}, resent {}; {seconds:.2} s, {:.0} events/s",
            count(&inner.read),
            count(&inner.refused),
            count(&inner.skipped),
            count(&inner.unacknowledged),
            count(&inner.resent),
            accepted as f64 / seconds.max(0.001),
        );
        match self.bad() {
            0 => Ok(()),
            bad => Err(Failure::new(format!("{bad} lines were not accepted"))),
        }
    }
}
