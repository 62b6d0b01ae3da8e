//! A dispatcher without threads: whoever holds it takes the turns, in any order, and drives the
//! runtime. It is the same dispatcher but for that; simulations steer it.

use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::Log;
use ringback_core::topics::group;
use ringback_log::directory::LiveDirectory;

use crate::dispatcher::{Environment, Shared, StartError};
use crate::intake::Intake;
use crate::send::Transport;

/// A dispatcher whose turns are taken by its holder. Dropped, it is gone as if it had crashed, but for
/// tasks of the runtime that are still under way.
pub struct Stepped<L: Log, T: Transport> {
    shared: Arc<Shared<L, T>>,
    intakes: Vec<Intake<L, T>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl<L: Log, T: Transport> Stepped<L, T> {
    /// Makes a dispatcher that sends over this transport. Must be called within a tokio runtime, which
    /// then runs the requests.
    pub fn new(log: &L, environment: Environment, transport: T) -> Result<Self, StartError> {
        let start = LiveDirectory::without_threads;
        let shared = Shared::new(log, environment, transport, start)?;
        let join = |group| Intake::join(&shared, log, group);
        let intakes = group::DISPATCHER
            .into_iter()
            .map(join)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tasks: shared.start_tasks(),
            shared,
            intakes,
        })
    }

    /// The consumer groups, in the order of their numbers.
    pub fn groups(&self) -> impl Iterator<Item = &'static str> {
        self.intakes.iter().map(Intake::group)
    }

    /// Looks at the configuration topics once.
    pub fn follow(&self) {
        self.shared.directory.turn();
    }

    /// A turn of one group's intake. After a failure: how long to wait before the next.
    pub fn turn(&mut self, group: usize) -> Option<Duration> {
        self.intakes.get_mut(group)?.turn()
    }

    /// After how long a group's intake has something to do by time alone, if it has.
    pub fn idle(&self, group: usize) -> Option<Duration> {
        self.intakes.get(group)?.idle()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.lanes.in_flight()
    }

    /// Whether deliveries are in the lanes, or results wait for another try at the log.
    pub fn is_busy(&self) -> bool {
        self.shared.lanes.active() > 0 || !self.shared.settler.is_settled()
    }

    /// Leaves the groups, after the last turn: as far as it goes without time passing.
    pub fn leave(mut self) {
        for intake in self.intakes.drain(..) {
            intake.leave();
        }
        self.shared.settler.flush(Duration::ZERO);
    }
}

impl<L: Log, T: Transport> Drop for Stepped<L, T> {
    fn drop(&mut self) {
        self.shared.gauge.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}
