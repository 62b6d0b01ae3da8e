//! The appender: a bounded queue whose records the engine takes in, and whose ends it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, partition_of,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Cleanup, Partition};

use super::SimLog;
use super::state::{Content, Place, State};
use super::watch::Happening;

/// Largest record: key, headers and value. Kafka's default (`message.max.bytes`) is about this.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record that was handed over and is not in the log yet.
pub(super) struct Waiting {
    pub(super) source: Arc<dyn Source>,
    pub(super) appender: u64,
    pub(super) client: u64,
    pub(super) ticket: u64,
    /// When its appender gives it up.
    pub(super) until: Timestamp,
    pub(super) partition: Partition,
    pub(super) place: Place,
    pub(super) content: Arc<Content>,
}

/// How an append ended, not reported yet.
pub(super) struct Ack {
    pub(super) source: Arc<dyn Source>,
    pub(super) client: u64,
    pub(super) ticket: u64,
    /// Reported no earlier.
    pub(super) due: Timestamp,
    /// Without reordering, ends are reported in this order.
    pub(super) order: u64,
    pub(super) result: Result<Appended, AppendError>,
}

/// A queue as the engine sees it.
pub(super) trait Source: Send + Sync {
    fn complete(&self, ticket: u64, result: Result<Appended, AppendError>);
}

struct Queue<C: Completion> {
    completion: C,
    limit: usize,
    open: Mutex<Open<C::Token>>,
    ended: Condvar,
}

struct Open<T> {
    tokens: BTreeMap<u64, T>,
    /// Appends whose completion has not returned.
    unfinished: usize,
}

/// An appender of a simulated log.
pub struct SimAppender<C: Completion> {
    log: SimLog,
    id: u64,
    timeout: Duration,
    queue: Arc<Queue<C>>,
}

impl<C: Completion> Clone for SimAppender<C> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            id: self.id,
            timeout: self.timeout,
            queue: self.queue.clone(),
        }
    }
}

impl<C: Completion> SimAppender<C> {
    /// The linger is left out: the engine takes in what is there.
    pub(super) fn new(log: SimLog, options: AppenderOptions, completion: C) -> Self {
        let id = log.engine().state.lock().id();
        let open = Open {
            tokens: BTreeMap::new(),
            unfinished: 0,
        };
        Self {
            log,
            id,
            timeout: options.timeout,
            queue: Arc::new(Queue {
                completion,
                limit: options.queue,
                open: Mutex::new(open),
                ended: Condvar::new(),
            }),
        }
    }

    /// Where a record goes, or why it is refused.
    fn place(
        &self,
        state: &mut State,
        record: &Append<'_>,
    ) -> Result<(Partition, Place), AppendError> {
        let spec = self.log.topics.spec(record.topic);
        let refused = |reason: String| AppendError::Refused {
            topic: spec.full_name.clone(),
            reason,
        };
        let bytes = bytes_of(record);
        if bytes > RECORD_BYTES_MAX {
            let reason = format!("it has {bytes} bytes, more than {RECORD_BYTES_MAX}");
            return Err(refused(reason));
        }
        let Some(at) = state.find(&spec.full_name) else {
            let reason = "the topic does not exist; create the topics first";
            return Err(refused(reason.to_owned()));
        };
        let topic = &mut state.topics[at];
        let existing = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let partitions = existing.min(spec.partitions);
        let index = match record.key {
            Some(key) => partition_of(key, partitions),
            None if topic.cleanup == Cleanup::Compact => {
                let reason = "a record of a compacted topic needs a key";
                return Err(refused(reason.to_owned()));
            }
            None => {
                topic.spread = topic.spread.wrapping_add(1);
                topic.spread % partitions.max(1)
            }
        };
        let partition = Partition {
            topic: record.topic,
            index,
        };
        Ok((partition, Place { topic: at, index }))
    }
}

fn bytes_of(record: &Append<'_>) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers.map(|h| h.name.len() + h.value.len()).sum();
    let (key, value) = (record.key.map_or(0, <[u8]>::len), record.value);
    headers + key + value.map_or(0, <[u8]>::len)
}

impl<C: Completion> Appender<C> for SimAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        let engine = self.log.engine();
        let mut state = engine.state.lock();
        if let Err(reason) = self.log.client.alive() {
            let topic = self.log.topics.spec(record.topic).full_name.clone();
            return Err((token, AppendError::Unavailable { topic, reason }));
        }
        let (partition, place) = match self.place(&mut state, &record) {
            Ok(found) => found,
            Err(error) => return Err((token, error)),
        };
        state.tell(Happening::Handed(self.log.client.id, record));
        let ticket = state.id();
        {
            let mut open = self.queue.open.lock();
            if open.unfinished >= self.queue.limit {
                return Err((token, AppendError::QueueFull));
            }
            open.unfinished += 1;
            open.tokens.insert(ticket, token);
        }
        let content = Arc::new(Content::of(&record));
        state.waiting.push_back(Waiting {
            source: self.queue.clone(),
            appender: self.id,
            client: self.log.client.id,
            ticket,
            until: engine.clock.now() + self.timeout,
            partition,
            place,
            content,
        });
        drop(state);
        engine.work.notify_all();
        Ok(())
    }

    /// In steps, whoever waits lets time pass until something of its own has ended: as if everybody else
    /// stood still meanwhile.
    fn work(&self) {
        let engine = self.log.engine();
        let open = || self.queue.open.lock().unfinished;
        let before = open();
        while engine.stepped && before > 0 && open() == before {
            if engine.step() {
                continue;
            }
            let Some(due) = engine.next_due() else { return };
            engine.clock.advance(due.since(engine.clock.now()));
        }
    }

    /// In steps, the caller drives the engine as far as it goes without moving the clock.
    fn flush(&self, timeout: Duration) -> bool {
        let engine = self.log.engine();
        if engine.stepped {
            while engine.step() {}
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut open = self.queue.open.lock();
        while open.unfinished > 0 && self.log.client.alive().is_ok() && !engine.stepped {
            let waited = match deadline {
                Some(deadline) => self.queue.ended.wait_until(&mut open, deadline),
                None => {
                    self.queue.ended.wait(&mut open);
                    continue;
                }
            };
            if waited.timed_out() {
                break;
            }
        }
        open.unfinished == 0
    }
}

impl<C: Completion> Source for Queue<C> {
    fn complete(&self, ticket: u64, result: Result<Appended, AppendError>) {
        let Some(token) = self.open.lock().tokens.remove(&ticket) else {
            return;
        };
        self.completion.done(token, result);
        let mut open = self.open.lock();
        open.unfinished -= 1;
        if open.unfinished == 0 {
            self.ended.notify_all();
        }
    }
}
