//! Appending in tests, waiting for the acknowledgement.

use ringback_core::log::{Append, Appended, AppenderOptions, Log};
use ringback_log::batch::{Acknowledgement, Batch};

/// Appends records one after the other.
pub struct Records<L: Log>(L::Appender<Acknowledgement>);

impl<L: Log> Records<L> {
    pub fn of(log: &L) -> Self {
        let options = AppenderOptions::default();
        Self(log.appender(options, Acknowledgement).unwrap())
    }

    /// Appends a record; returns when it is durable.
    pub fn append(&self, record: Append<'_>) -> Appended {
        let mut batch = Batch::new(&self.0);
        batch.append(record).unwrap();
        batch.finish().unwrap().unwrap()
    }
}

/// Appends one record; returns when it is durable.
pub fn append_one<L: Log>(log: &L, record: Append<'_>) -> Appended {
    Records::of(log).append(record)
}
