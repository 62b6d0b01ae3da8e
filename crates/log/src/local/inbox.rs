//! What the writer thread is asked to do, and the bell that wakes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{Committed, LogError, Revision, WriteError};

use super::queue::{Source, Waiting};

/// Positions by group and slot, the newest of each.
pub(super) type Positions = HashMap<(Arc<str>, usize), Committed>;

/// A question to the writer thread; the one who asks waits for the answer, so there are never more
/// of them than threads.
pub(super) enum Request {
    /// See [`ringback_core::log::Log::compare_and_set_beside`].
    CompareAndSet(CompareAndSet),
    /// Make all positions durable that were handed over before.
    Settle(SyncSender<Result<(), LogError>>),
    /// Create the topics that do not exist, and the partitions that are missing.
    CreateTopics(SyncSender<Result<(), LogError>>),
}

pub(super) struct CompareAndSet {
    pub(super) slot: usize,
    pub(super) key: Box<str>,
    pub(super) expected: Option<Revision>,
    pub(super) value: Option<Box<[u8]>>,
    /// What is told of the change, elsewhere.
    pub(super) beside: Option<Waiting>,
    pub(super) reply: SyncSender<Result<Revision, WriteError>>,
}

/// Shared by everybody who has something for the writer.
pub(super) struct Inbox {
    rung: AtomicBool,
    dead: AtomicBool,
    state: Mutex<InboxState>,
    bell: Condvar,
}

#[derive(Default)]
struct InboxState {
    sources: Vec<Arc<dyn Source>>,
    requests: Vec<Request>,
    positions: Positions,
    positions_since: Option<Instant>,
    stop: bool,
}

/// What the writer found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Arc<dyn Source>>,
    pub(super) requests: Vec<Request>,
    pub(super) positions: Positions,
    pub(super) stop: bool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            rung: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            state: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// Tells the writer that there is something in a queue.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Under the lock, so that the writer cannot miss it between looking and waiting.
            let _state = self.state.lock();
            self.bell.notify_one();
        }
    }

    pub(super) fn add_source(&self, source: Arc<dyn Source>) {
        self.state.lock().sources.push(source);
        self.ring();
    }

    pub(super) fn add_positions(
        &self,
        positions: impl Iterator<Item = ((Arc<str>, usize), Committed)>,
    ) {
        {
            let mut state = self.state.lock();
            state.positions.extend(positions);
            if state.positions.is_empty() || state.positions_since.is_some() {
                return;
            }
            state.positions_since = Some(Instant::now());
        }
        self.ring();
    }

    /// Puts back what could not be written; what came in the meantime is newer.
    pub(super) fn restore_positions(&self, positions: Positions) {
        let mut state = self.state.lock();
        for (key, committed) in positions {
            state.positions.entry(key).or_insert(committed);
        }
        state.positions_since.get_or_insert_with(Instant::now);
    }

    /// Blocking: asks the writer and waits for its answer; `None` when it is not there any more.
    pub(super) fn ask<T>(&self, request: impl FnOnce(SyncSender<T>) -> Request) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        {
            let mut state = self.state.lock();
            if self.is_dead() {
                return None;
            }
            state.requests.push(request(reply));
        }
        self.ring();
        answer.recv().ok()
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.ring();
    }

    /// Waits until something was rung for, positions are due, or the time is over; takes what is
    /// there. Positions come along once they have waited for `gather`, so that they share a commit.
    pub(super) fn wait(&self, until: Instant, gather: Duration) -> Found {
        let mut state = self.state.lock();
        loop {
            let rung = self.rung.swap(false, Ordering::AcqRel);
            let now = Instant::now();
            let due = state.positions_since.map(|since| since + gather);
            if rung || now >= until || due.is_some_and(|due| now >= due) {
                break;
            }
            let until = due.map_or(until, |due| due.min(until));
            let _ = self.bell.wait_until(&mut state, until);
        }
        let now = Instant::now();
        let due = state
            .positions_since
            .is_some_and(|since| now >= since + gather);
        let settle = due || state.stop || !state.requests.is_empty();
        Found {
            sources: std::mem::take(&mut state.sources),
            requests: std::mem::take(&mut state.requests),
            positions: if settle {
                state.positions_since = None;
                std::mem::take(&mut state.positions)
            } else {
                Positions::new()
            },
            stop: state.stop,
        }
    }

    /// Ends all service: what is asked from now on is refused. Gives back what nobody took.
    pub(super) fn die(&self) -> Found {
        let mut state = self.state.lock();
        self.dead.store(true, Ordering::Release);
        Found {
            sources: std::mem::take(&mut state.sources),
            requests: std::mem::take(&mut state.requests),
            positions: Positions::new(),
            stop: true,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Why nothing is taken any more.
    pub(super) fn dead_reason(&self) -> String {
        "the writer thread of the local log has ended; restart the process".to_owned()
    }
}
