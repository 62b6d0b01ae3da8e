//! Appends that are waited for together, from a thread that may block.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringback_core::log::{Append, AppendError, Appended, Appender, Completion};

/// Appends that one batch may have in flight; appenders need room for as many per batch.
pub const IN_FLIGHT_MAX: usize = 256;
/// Beyond the appender's own timeout: only a broken engine lets us wait that long.
const PATIENCE: Duration = Duration::from_secs(30);

type Ended = Result<Appended, AppendError>;

/// Hands the log's word to the batch that waits for it.
pub struct Acknowledgement;

impl Completion for Acknowledgement {
    type Token = SyncSender<Ended>;

    fn done(&self, token: Self::Token, result: Ended) {
        // There is room for everything in flight, and a batch that is gone needs no answer.
        let _ = token.try_send(result);
    }
}

/// Appends that end together. The first failure ends it.
pub struct Batch<'a, A> {
    appender: &'a A,
    sender: SyncSender<Ended>,
    receiver: Receiver<Ended>,
    in_flight: usize,
    acknowledged: u64,
}

impl<'a, A: Appender<Acknowledgement>> Batch<'a, A> {
    /// An empty batch; its records go through this appender.
    pub fn new(appender: &'a A) -> Self {
        let (sender, receiver) = sync_channel(IN_FLIGHT_MAX);
        Self {
            appender,
            sender,
            receiver,
            in_flight: 0,
            acknowledged: 0,
        }
    }

    /// Blocking: hands a record over, waiting for earlier ones where needed.
    pub fn append(&mut self, record: Append<'_>) -> Result<(), AppendError> {
        loop {
            if self.in_flight == IN_FLIGHT_MAX {
                self.wait_for_one()?;
            }
            match self.appender.append(record, self.sender.clone()) {
                Ok(()) => {
                    self.in_flight += 1;
                    return Ok(());
                }
                Err((_, AppendError::QueueFull)) if self.in_flight > 0 => {
                    self.wait_for_one()?;
                }
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// Blocking: waits for everything that was handed over. The last acknowledgement, or the first
    /// failure.
    pub fn finish(&mut self) -> Result<Option<Appended>, AppendError> {
        let mut last = None;
        let mut failed = None;
        while self.in_flight > 0 {
            match self.wait_for_one() {
                Ok(appended) => last = Some(appended),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(last), Err)
    }

    /// How many the log has acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn wait_for_one(&mut self) -> Result<Appended, AppendError> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.appender.work();
        let ended = self.receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            // Nothing more can be expected from this engine.
            self.in_flight = 0;
            Err(AppendError::Unavailable {
                topic: "a record".to_owned(),
                reason: "it did not answer at all".to_owned(),
            })
        });
        self.acknowledged += u64::from(ended.is_ok());
        ended
    }
}
