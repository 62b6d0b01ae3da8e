//! Appending in tests, waiting for the acknowledgement.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log,
};

/// Hands the log's word to whoever waits for it.
pub struct Reply;

impl Completion for Reply {
    type Token = SyncSender<Result<Appended, AppendError>>;

    fn done(&self, token: Self::Token, result: Result<Appended, AppendError>) {
        let _ = token.send(result);
    }
}

/// Appends records one after the other.
pub struct Records<L: Log>(L::Appender<Reply>);

impl<L: Log> Records<L> {
    pub fn of(log: &L) -> Self {
        Self(log.appender(AppenderOptions::default(), Reply).unwrap())
    }

    /// Appends a record; returns when it is durable.
    pub fn append(&self, record: Append<'_>) -> Appended {
        let (sender, receiver) = sync_channel(1);
        assert!(self.0.append(record, sender).is_ok());
        receiver
            .recv_timeout(Duration::from_secs(60))
            .unwrap()
            .unwrap()
    }
}

/// Appends one record; returns when it is durable.
pub fn append_one<L: Log>(log: &L, record: Append<'_>) -> Appended {
    Records::of(log).append(record)
}
