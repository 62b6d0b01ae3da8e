//! A machine to run one process on: a runtime of its own with a clock of its own, which goes only when
//! it is driven. The time of day can be wrong there; the steady hand goes as time goes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringback_core::time::{Clock, Timestamp};
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::time::Instant;

/// See the module.
pub(super) struct Host {
    runtime: Runtime,
    time: HostTime,
}

/// The time on a host, for those who live there.
#[derive(Clone)]
pub(super) struct HostTime {
    base: Instant,
    began: Timestamp,
    /// Microseconds by which the time of day is wrong.
    skew: Arc<AtomicI64>,
    /// Microseconds that it has reached, while it is not driven; else -1.
    rests_at: Arc<AtomicI64>,
}

impl HostTime {
    /// The true time that this host has reached.
    pub(super) fn reached(&self) -> Timestamp {
        match self.rests_at.load(Ordering::SeqCst) {
            // It is being driven, and whoever asks is there.
            -1 => self.began + (Instant::now() - self.base),
            micros => Timestamp::from_micros(micros),
        }
    }

    /// Its clock, as the process there reads it.
    pub(super) fn clock(&self) -> Clock {
        let (day, steady) = (self.clone(), self.clone());
        let now = move || {
            let true_time = day.reached().as_micros();
            Timestamp::from_micros(true_time + day.skew.load(Ordering::SeqCst))
        };
        Clock::new(now, move || steady.reached().since(steady.began))
    }

    /// By how much its time of day is wrong.
    pub(super) fn skew(&self) -> i64 {
        self.skew.load(Ordering::SeqCst)
    }

    /// Sets its time of day.
    pub(super) fn set_skew(&self, micros: i64) {
        self.skew.store(micros, Ordering::SeqCst);
    }
}

impl Host {
    /// A host that is switched on at this time.
    pub(super) fn new(began: Timestamp) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let within = runtime.enter();
        let base = Instant::now();
        drop(within);
        Self {
            time: HostTime {
                base,
                began,
                skew: Arc::default(),
                rests_at: Arc::new(AtomicI64::new(began.as_micros())),
            },
            runtime,
        }
    }

    /// Its time.
    pub(super) fn time(&self) -> &HostTime {
        &self.time
    }

    /// Lets what is called meanwhile find this runtime.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Does something there, whatever time it takes.
    pub(super) fn run<F: Future>(&self, future: F) -> F::Output {
        let time = &self.time;
        self.runtime.block_on(async {
            time.rests_at.store(-1, Ordering::SeqCst);
            let output = future.await;
            let reached = time.reached().as_micros();
            time.rests_at.store(reached, Ordering::SeqCst);
            output
        })
    }

    /// Lets its tasks go on until this time, each at its own.
    pub(super) fn run_until(&self, to: Timestamp) {
        let wait = to.since(self.time.reached());
        if !wait.is_zero() {
            self.run(async { tokio::time::sleep(wait).await });
        }
    }

    /// It stood still until this time: nothing of it happened in between.
    pub(super) fn stood_until(&self, to: Timestamp) {
        let wait = to.since(self.time.reached());
        if wait > Duration::ZERO {
            self.run(async { tokio::time::advance(wait).await });
        }
    }
}
