//! Appending with acknowledgement, from the service's own thread.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log, LogError,
};

/// Appends in flight at a time.
const IN_FLIGHT_MAX: usize = 1024;
/// After how long an append without acknowledgement is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond the appender's own timeout: only a broken engine lets us wait that long.
const PATIENCE: Duration = Duration::from_secs(30);

type Ended = Result<Appended, AppendError>;

pub(crate) struct Acknowledgement(SyncSender<(u64, Ended)>);

impl Completion for Acknowledgement {
    /// Which round of appends it belongs to: an answer to one that was given up must not count for
    /// the next.
    type Token = u64;

    fn done(&self, round: u64, result: Ended) {
        // There is room for everything in flight.
        let _ = self.0.try_send((round, result));
    }
}

/// Appends that are waited for together.
pub(crate) struct Appends<L: Log> {
    appender: L::Appender<Acknowledgement>,
    ended: Receiver<(u64, Ended)>,
    round: u64,
    in_flight: usize,
    failed: Option<AppendError>,
}

impl<L: Log> Appends<L> {
    pub(crate) fn new(log: &L) -> Result<Self, LogError> {
        let options = AppenderOptions {
            timeout: TIMEOUT,
            queue: IN_FLIGHT_MAX,
            ..AppenderOptions::default()
        };
        let (sender, ended) = sync_channel(2 * IN_FLIGHT_MAX);
        Ok(Self {
            appender: log.appender(options, Acknowledgement(sender))?,
            ended,
            round: 0,
            in_flight: 0,
            failed: None,
        })
    }

    /// Blocking: hands a record over, waiting for earlier ones where there is no room. Failures are
    /// told by [`Self::finish`].
    pub(crate) fn append(&mut self, record: Append<'_>) {
        while self.failed.is_none() {
            if self.in_flight == IN_FLIGHT_MAX {
                self.wait_for_one();
                continue;
            }
            match self.appender.append(record, self.round) {
                Ok(()) => {
                    self.in_flight += 1;
                    return;
                }
                Err((_, AppendError::QueueFull)) if self.in_flight > 0 => self.wait_for_one(),
                Err((_, error)) => self.failed = Some(error),
            }
        }
    }

    /// Blocking: waits until everything handed over has ended; the first failure.
    pub(crate) fn finish(&mut self) -> Result<(), AppendError> {
        while self.in_flight > 0 {
            self.wait_for_one();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn wait_for_one(&mut self) {
        match self.ended.recv_timeout(PATIENCE) {
            Ok((round, result)) if round == self.round => {
                self.in_flight -= 1;
                if let Err(error) = result {
                    self.failed = self.failed.take().or(Some(error));
                }
            }
            Ok(_) => {}
            Err(_) => {
                self.round += 1;
                self.in_flight = 0;
                self.failed = Some(AppendError::Unavailable {
                    topic: "windows".to_owned(),
                    reason: "the log did not answer at all".to_owned(),
                });
            }
        }
    }
}
