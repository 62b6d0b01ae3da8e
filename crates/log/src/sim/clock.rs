//! The clock of a simulated log: steered by the test, or the machine's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::log::Waker;
use ringback_core::time::{Clock, Timestamp};

/// Append times, delays, sessions and the time for a revoke go by this clock. Clones share it.
#[derive(Clone)]
pub struct SimClock(Arc<Inner>);

enum Source {
    Steered(AtomicI64),
    Machine(Clock),
}

struct Inner {
    source: Source,
    listeners: Mutex<Vec<Waker>>,
}

impl SimClock {
    /// A clock that stands at `start` until it is [advanced](Self::advance).
    pub fn steered(start: Timestamp) -> Self {
        Self::new(Source::Steered(AtomicI64::new(start.as_micros())))
    }

    /// The machine's clock, for tests that live in real time.
    pub fn machine() -> Self {
        Self::new(Source::Machine(crate::system_clock()))
    }

    fn new(source: Source) -> Self {
        Self(Arc::new(Inner {
            source,
            listeners: Mutex::default(),
        }))
    }

    /// Its time now.
    pub fn now(&self) -> Timestamp {
        match &self.0.source {
            Source::Steered(micros) => Timestamp::from_micros(micros.load(Ordering::SeqCst)),
            Source::Machine(clock) => clock.now(),
        }
    }

    /// Moves a steered clock on, and wakes everybody who waits in the log. The machine's clock goes
    /// its own way.
    pub fn advance(&self, by: Duration) {
        if let Source::Steered(micros) = &self.0.source {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
        for listener in &*self.0.listeners.lock() {
            listener.wake();
        }
    }

    /// The same clock, to hand to whatever else needs one. Both its hands go when it is moved: who
    /// measures by it needs time to pass here.
    pub fn clock(&self) -> Clock {
        let (day, steady, start) = (self.clone(), self.clone(), self.now());
        let steady = move || match &steady.0.source {
            Source::Steered(_) => steady.now().since(start),
            Source::Machine(clock) => clock.steady(),
        };
        Clock::new(move || day.now(), steady)
    }

    pub(super) fn listen(&self, waker: Waker) {
        self.0.listeners.lock().push(waker);
    }

    /// Whether time passes by itself.
    pub(super) fn runs(&self) -> bool {
        matches!(self.0.source, Source::Machine(_))
    }
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimClock({})", self.now())
    }
}
