//! The appender: a bounded queue of records on their way to the writer thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, partition_of,
};

use super::Engine;
use super::codec;
use super::state::State;

/// Largest record: key, headers and value. Kafka's default (`message.max.bytes`) is about this.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Most bytes that wait in a queue, whatever their number.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A record that waits for the writer.
pub(super) struct Waiting {
    pub(super) slot: usize,
    /// Key, headers and value, one after the other.
    bytes: Box<[u8]>,
    key: Option<usize>,
    headers: usize,
    has_value: bool,
}

impl Waiting {
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.map(|length| &self.bytes[..length])
    }

    pub(super) fn headers(&self) -> &[u8] {
        let start = self.key.unwrap_or(0);
        &self.bytes[start..start + self.headers]
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        let start = self.key.unwrap_or(0) + self.headers;
        self.has_value.then(|| &self.bytes[start..])
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A queue as the writer sees it: what its completion is like does not matter there. Called twice
/// per batch, not per record.
pub(super) trait Source: Send + Sync {
    /// Moves waiting records to the end of `batch` until it has `records` of them or `bytes` were
    /// moved; says how many bytes it moved.
    fn take(&self, batch: &mut Vec<Waiting>, records: usize, bytes: usize) -> usize;
    /// Says how the records taken last ended, in their order.
    fn complete(&self, results: &mut dyn Iterator<Item = Result<Appended, AppendError>>);
    /// Fails everything that waits.
    fn fail(&self, error: &mut dyn FnMut(usize) -> AppendError);
    /// Whether its appenders are gone and nothing is left to do.
    fn is_over(&self) -> bool;
}

pub(super) struct Queue<C: Completion> {
    completion: C,
    limit: usize,
    closed: AtomicBool,
    state: Mutex<QueueState<C::Token>>,
    ended: Condvar,
}

struct QueueState<T> {
    waiting: VecDeque<(Waiting, T)>,
    /// Tokens of the records that the writer has taken, in order, with their slots.
    taken: VecDeque<(usize, T)>,
    bytes: usize,
    /// Appends whose completion has not returned yet.
    unfinished: usize,
}

/// An appender of the local log.
pub struct LocalAppender<C: Completion> {
    shared: Arc<Handle<C>>,
}

struct Handle<C: Completion> {
    queue: Arc<Queue<C>>,
    engine: Arc<Engine>,
}

impl<C: Completion> Clone for LocalAppender<C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<C: Completion> Drop for Handle<C> {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Release);
        self.engine.inbox.ring();
    }
}

impl<C: Completion> LocalAppender<C> {
    /// The linger is left out: whatever arrives during a commit shares the next one. So is the
    /// timeout: a commit ends or fails, and nobody but the disk decides when.
    pub(super) fn new(engine: Arc<Engine>, options: AppenderOptions, completion: C) -> Self {
        let queue = Arc::new(Queue {
            completion,
            limit: options.queue,
            closed: AtomicBool::new(false),
            state: Mutex::new(QueueState {
                waiting: VecDeque::new(),
                taken: VecDeque::new(),
                bytes: 0,
                unfinished: 0,
            }),
            ended: Condvar::new(),
        });
        engine.inbox.add_source(queue.clone());
        Self {
            shared: Arc::new(Handle { queue, engine }),
        }
    }
}

/// A record as the writer takes it, if the log takes it at all.
pub(super) fn prepare(state: &State, record: &Append<'_>) -> Result<Waiting, AppendError> {
    let spec = state.topics.spec(record.topic);
    let refused = |reason: String| AppendError::Refused {
        topic: spec.full_name.clone(),
        reason,
    };
    // Fewer than in the table: the rest is not created yet. More: the table has the say.
    let partitions = state.existing(record.topic).min(spec.partitions);
    if partitions == 0 {
        return Err(refused(
            "the topic does not exist; create the topics first".to_owned(),
        ));
    }
    let index = match record.key {
        Some(key) => partition_of(key, partitions),
        None => state.spread(record.topic, partitions),
    };
    let slot = state.slots(record.topic).start + index as usize;
    if record.key.is_none() && state.partitions[slot].compacted {
        return Err(refused(
            "a record of a compacted topic needs a key".to_owned(),
        ));
    }
    let key = record.key.unwrap_or_default();
    let value = record.value.unwrap_or_default();
    let headers = codec::encoded_len(record.headers)
        .ok_or_else(|| refused("a header's name is longer than 65,535 bytes".to_owned()))?;
    let total = key
        .len()
        .saturating_add(headers)
        .saturating_add(value.len());
    if total > RECORD_BYTES_MAX {
        return Err(refused(format!(
            "it has {total} bytes, more than {RECORD_BYTES_MAX}"
        )));
    }
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(key);
    codec::encode(record.headers, &mut bytes);
    bytes.extend_from_slice(value);
    Ok(Waiting {
        slot,
        bytes: bytes.into_boxed_slice(),
        key: record.key.map(<[u8]>::len),
        headers,
        has_value: record.value.is_some(),
    })
}

impl<C: Completion> Appender<C> for LocalAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        let waiting = match prepare(&self.shared.engine.state, &record) {
            Ok(waiting) => waiting,
            Err(error) => return Err((token, error)),
        };
        let Handle { queue, engine } = &*self.shared;
        {
            let mut state = queue.state.lock();
            // Under the lock, so that nothing is put in after the writer failed everything.
            if engine.inbox.is_dead() {
                let reason = engine.inbox.dead_reason();
                let topic = engine.state.topics.spec(record.topic).full_name.clone();
                return Err((token, AppendError::Unavailable { topic, reason }));
            }
            let records = state.waiting.len() + state.taken.len();
            if records >= queue.limit || state.bytes + waiting.len() > QUEUE_BYTES_MAX {
                return Err((token, AppendError::QueueFull));
            }
            state.bytes += waiting.len();
            state.unfinished += 1;
            state.waiting.push_back((waiting, token));
        }
        engine.inbox.ring();
        Ok(())
    }

    fn flush(&self, timeout: Duration) -> bool {
        let queue = &self.shared.queue;
        let deadline = Instant::now().checked_add(timeout);
        let mut state = queue.state.lock();
        while state.unfinished > 0 {
            match deadline {
                Some(deadline) => {
                    if queue.ended.wait_until(&mut state, deadline).timed_out() {
                        return state.unfinished == 0;
                    }
                }
                None => queue.ended.wait(&mut state),
            }
        }
        true
    }
}

impl<C: Completion> Source for Queue<C> {
    fn take(&self, batch: &mut Vec<Waiting>, records: usize, bytes: usize) -> usize {
        let mut state = self.state.lock();
        let mut taken = 0;
        while batch.len() < records && taken < bytes {
            let Some((waiting, token)) = state.waiting.pop_front() else {
                break;
            };
            taken += waiting.len();
            state.taken.push_back((waiting.slot, token));
            batch.push(waiting);
        }
        state.bytes -= taken;
        taken
    }

    fn complete(&self, results: &mut dyn Iterator<Item = Result<Appended, AppendError>>) {
        // Out of the queue before the first completion, which may append again.
        let taken = std::mem::take(&mut self.state.lock().taken);
        let count = taken.len();
        for ((_, token), result) in taken.into_iter().zip(results) {
            self.completion.done(token, result);
        }
        self.finished(count);
    }

    fn fail(&self, error: &mut dyn FnMut(usize) -> AppendError) {
        let (taken, waiting) = {
            let mut state = self.state.lock();
            state.bytes = 0;
            (
                std::mem::take(&mut state.taken),
                std::mem::take(&mut state.waiting),
            )
        };
        let waiting = waiting
            .into_iter()
            .map(|(waiting, token)| (waiting.slot, token));
        let mut count = 0;
        for (slot, token) in taken.into_iter().chain(waiting) {
            self.completion.done(token, Err(error(slot)));
            count += 1;
        }
        self.finished(count);
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) && self.state.lock().unfinished == 0
    }
}

impl<C: Completion> Queue<C> {
    fn finished(&self, count: usize) {
        let mut state = self.state.lock();
        state.unfinished = state.unfinished.saturating_sub(count);
        if state.unfinished == 0 {
            self.ended.notify_all();
        }
    }
}
