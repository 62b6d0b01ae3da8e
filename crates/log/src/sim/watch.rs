//! Watching: one listener hears of everything that happens in the log, in order.

use ringback_core::log::{Append, Assignment, Committed, Record};
use ringback_core::topics::Partition;

use super::Sim;
use super::state::State;

/// A process, as its handle is numbered.
pub type ProcessId = u64;

/// Something that happened. Partitions are named by the table of the process that did it.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A process handed a record over. It may never be in the log.
    Handed(ProcessId, Append<'a>),
    /// A record is in the log, once more for each time that it was duplicated.
    Appended(ProcessId, Record<'a>),
    /// A process heard that an append of its succeeded.
    Acknowledged(ProcessId),
    /// A configuration record was written.
    Set(Record<'a>),
    /// A member of a group is told that it owns a partition.
    Assigned(ProcessId, &'a str, &'a Assignment),
    /// It was told that it owns it no more, and has done what it does on that.
    Gone(ProcessId, &'a str, Partition),
    /// A position counts from now on.
    Committed(ProcessId, &'a str, Partition, &'a Committed),
    /// A position of somebody who knows not to be the owner.
    NotOwned(ProcessId, &'a str, Partition),
}

/// Hears of everything, under the log's lock: it must not call the log.
pub trait Watcher: Send {
    /// This happened.
    fn saw(&mut self, happening: Happening<'_>);
}

impl Sim {
    /// From now on this one hears of everything; one at a time.
    pub fn watch(&self, watcher: impl Watcher + 'static) {
        self.core.engine.state.lock().watcher = Some(Box::new(watcher));
    }

    /// Raised with everything that a process might wait for.
    pub fn version(&self) -> u64 {
        self.core.engine.state.lock().version
    }
}

impl State {
    pub(super) fn tell(&mut self, happening: Happening<'_>) {
        if let Some(watcher) = &mut self.watcher {
            watcher.saw(happening);
        }
    }
}
