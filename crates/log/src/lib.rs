//! The engines of the log behind [`ringback_core::log::Log`] — Kafka for production, local (SQLite)
//! for one machine, simulated for tests — and the conformance suite that says what each promise of the
//! interface means.

pub mod batch;
pub mod conformance;
pub mod directory;
pub mod kafka;
pub mod local;
pub mod moving;
pub mod secret_file;
pub mod sim;
pub mod uses;

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringback_core::time::{Clock, Timestamp};

/// The machine's clock. The one place where it is read for decisions.
pub fn system_clock() -> Clock {
    Clock::new(
        || {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
        },
        machine_steady,
    )
}

/// Time since this process first asked.
pub(crate) fn machine_steady() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}
