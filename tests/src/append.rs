//! Appending in tests, waiting for the acknowledgement.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log,
};

struct Reply;

impl Completion for Reply {
    type Token = SyncSender<Result<Appended, AppendError>>;

    fn done(&self, token: Self::Token, result: Result<Appended, AppendError>) {
        let _ = token.send(result);
    }
}

/// Appends one record; returns when it is durable.
pub fn append_one<L: Log>(log: &L, record: Append<'_>) -> Appended {
    let appender = log.appender(AppenderOptions::default(), Reply).unwrap();
    let (sender, receiver) = sync_channel(1);
    assert!(appender.append(record, sender).is_ok());
    receiver
        .recv_timeout(Duration::from_secs(60))
        .unwrap()
        .unwrap()
}
