//! The oracle: hears of every append, commit, assignment and request, and says at each whether it may
//! be. It knows what is in the log and what receivers got, and nothing of what dispatchers think.
//!
//! | file | subject |
//! |---|---|
//! | `books` | what is known of every record and delivery |
//! | `requests` | what is checked when a request is made, and when it is answered |
//! | `records` | what is checked when a record is handed over, and when it is in the log |
//! | `commits` | what is checked when a position is committed, and at rest |
//! | `configuration` | what was configured when |

mod books;
mod commits;
mod configuration;
mod records;
mod requests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use ringback_core::health::HealthPolicy;
use ringback_core::record::Delivery;
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::Topics;
use ringback_core::verdict::{Acknowledge, Outcome};
use ringback_core::webhook::Webhook;
use ringback_log::sim::{Happening, ProcessId, Watcher};
use uuid::Uuid;

use self::books::Books;
pub use self::books::Sums;
use super::trace::Trace;

/// What is checked, by the number of the invariant or rule it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// Every accepted event has a state for each subscribed webhook, and at rest a terminal one.
    DL1,
    /// A committed offset is never beyond the lowest unfinished one, and never goes back.
    DL2,
    /// An offset is done only after a durable outcome of every delivery.
    DL3,
    /// No attempt before it is due, none beyond R13.
    DL4,
    /// Requests in flight and deliveries taken in are bounded.
    DL5,
    /// Nothing is sent 2 s after a pause, a disablement or a removal.
    DL6,
    /// Bytes delivered are bytes accepted.
    DL7,
    /// After a revoke nothing is committed, and no retry or parked record written.
    DL8,
    /// What retention removed unread is counted.
    DL10,
    /// Only attempts of a webhook's present life count against it.
    R14,
    /// Repetitions are explained by what failed.
    Duplicates,
    /// What production counts as violated is not.
    Counted,
    /// Everything comes to rest, and nobody panics.
    Rest,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    pub check: Check,
    pub at: Timestamp,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: {}", self.check, self.at, self.what)
    }
}

/// What a process may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in flight to one webhook.
    pub concurrency: usize,
    /// Deliveries in work.
    pub slots: usize,
}

/// What holds for all.
pub struct Rules {
    pub topics: Arc<Topics>,
    pub schedule: Schedule,
    pub policy: HealthPolicy,
    pub limits: Limits,
}

/// See the module. Clones are the same one.
#[derive(Clone)]
pub struct Oracle(Arc<Mutex<Books>>);

impl Oracle {
    /// Nothing has happened yet.
    pub(super) fn new(rules: Rules, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Books::new(rules, trace))))
    }

    /// The books, to be looked at.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock()
    }

    /// The first thing that must not be, if there is one.
    pub fn violation(&self) -> Option<Violation> {
        self.0.lock().violation.clone()
    }

    /// Time goes on.
    pub fn now(&self, now: Timestamp) {
        self.0.lock().now = now;
    }

    /// Something that the simulation did.
    pub fn did(&self, what: &'static str, numbers: &[u64], text: fmt::Arguments<'_>) {
        let mut books = self.0.lock();
        let now = books.now;
        books.trace.add(what, numbers, format_args!("{now} {text}"));
    }

    /// A producer was told that its event is accepted.
    pub fn accepted(&self, event: Uuid) {
        self.0.lock().accepted(event);
    }

    /// A request reaches its receiver; its number.
    pub fn request(
        &self,
        process: ProcessId,
        webhook: &Webhook,
        delivery: &Delivery,
        body: &Bytes,
        at: Timestamp,
        skew: i64,
    ) -> u64 {
        let made = requests::Made {
            process,
            webhook,
            delivery,
            body,
            at,
            skew,
        };
        self.0.lock().request(&made)
    }

    /// The process that made a request heard of its end.
    pub fn answered(&self, request: u64, outcome: Outcome, by: Acknowledge, at: Timestamp) {
        self.0.lock().answered(request, outcome, by, at);
    }

    /// A process is gone, with everything in it.
    pub fn ended(&self, process: ProcessId) {
        self.0.lock().ended(process);
    }
}

impl Watcher for Oracle {
    fn saw(&mut self, happening: Happening<'_>) {
        self.0.lock().saw(happening);
    }
}
