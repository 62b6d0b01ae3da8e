//! The simulated engine: deterministic, in memory, with faults on demand. For tests only: no
//! configuration reaches it.
//!
//! A [`Sim`] is what the brokers are on Kafka: topics, groups, time, and the [faults](Chances). A
//! [`SimLog`] opened on it is what a process has, and can be [killed](SimLog::kill) like one.
//!
//! Everything happens in single steps: a record is taken in, or the end of an append is reported. With
//! [`Drive::Thread`] a thread of the log's own takes them, and calls that wait, wait: so it stands in
//! for any other engine. With [`Drive::Steps`] the test takes them, nothing ever waits and nothing
//! happens by itself: equal calls in equal order give equal histories.
//!
//! Nothing fails unless it is asked to, by count ([`Sim::fault_append`], …) or by chance
//! ([`Sim::chances`]); [`Sim::seen`] says what has happened.

mod appender;
mod clock;
mod consumer;
mod engine;
mod faults;
mod follow;
mod group;
mod membership;
mod set;
mod state;
mod steer;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{
    Append, AppenderOptions, Completion, GroupView, Log, LogError, Revision, TopicProblem, Waker,
    WriteError,
};
use ringback_core::topics::{TopicId, Topics};

pub use self::appender::SimAppender;
pub use self::clock::SimClock;
pub use self::consumer::SimConsumer;
use self::engine::Engine;
pub use self::faults::{AppendFault, Chances, Seen, SetFault};
pub use self::follow::{SimFollower, SimReader};
pub use self::group::MemberId;
use self::state::State;
pub use self::watch::{Happening, ProcessId, Watcher};

/// Who takes the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// A thread of the log's own.
    Thread,
    /// The test, by [`Sim::step`].
    Steps,
}

/// How a simulated log behaves.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// What chances are computed from.
    pub seed: u64,
    /// See [`SimClock`].
    pub clock: SimClock,
    /// See [`Drive`].
    pub drive: Drive,
    /// How long a member that is gone without saying so keeps its partitions.
    pub session: Duration,
}

impl Default for SimOptions {
    /// Seed 0, the machine's clock, a thread, sessions of 10 s.
    fn default() -> Self {
        Self {
            seed: 0,
            clock: SimClock::machine(),
            drive: Drive::Thread,
            session: Duration::from_secs(10),
        }
    }
}

/// What all processes share. Clones share it too.
#[derive(Clone)]
pub struct Sim {
    core: Arc<Core>,
}

/// Kept by every handle; ends the thread when the last one is gone.
struct Core {
    engine: Arc<Engine>,
    session: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A process's handle of a simulated log. Clones belong to the same process.
#[derive(Clone)]
pub struct SimLog {
    core: Arc<Core>,
    topics: Arc<Topics>,
    client: Arc<Client>,
}

/// A process.
struct Client {
    id: u64,
    killed: AtomicBool,
}

impl Client {
    /// `Err` with the reason when it was killed.
    fn alive(&self) -> Result<(), String> {
        match self.killed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err("this process was killed by the test".to_owned()),
        }
    }
}

impl Sim {
    /// An empty log.
    pub fn new(options: SimOptions) -> Result<Self, LogError> {
        let SimOptions {
            seed,
            clock,
            drive,
            session,
        } = options;
        let state = State {
            seed,
            ..State::default()
        };
        let engine = Arc::new(Engine {
            clock: clock.clone(),
            stepped: drive == Drive::Steps,
            state: Mutex::new(state),
            work: Condvar::new(),
            changed: Condvar::new(),
        });
        let listener = Arc::downgrade(&engine);
        clock.listen(Waker::new(move || {
            if let Some(engine) = listener.upgrade() {
                engine.state.lock().moved += 1;
                if !engine.stepped {
                    engine.announce();
                }
            }
        }));
        let thread = match drive {
            Drive::Steps => None,
            Drive::Thread => {
                let engine = engine.clone();
                let thread = std::thread::Builder::new()
                    .name("log-sim".to_owned())
                    .spawn(move || engine.run())
                    .map_err(|error| LogError::permanent("starting the simulated log", error))?;
                Some(thread)
            }
        };
        let core = Core {
            engine,
            session,
            thread: Mutex::new(thread),
        };
        Ok(Self {
            core: Arc::new(core),
        })
    }

    /// A process's handle, with a table of topics of its own.
    pub fn open(&self, topics: Arc<Topics>) -> SimLog {
        let id = self.core.engine.state.lock().id();
        SimLog {
            core: self.core.clone(),
            topics,
            client: Arc::new(Client {
                id,
                killed: AtomicBool::new(false),
            }),
        }
    }
}

impl SimLog {
    fn engine(&self) -> &Arc<Engine> {
        &self.core.engine
    }

    /// `Err` when this process was killed or the log is out of reach.
    fn reachable(&self, state: &State, doing: &str) -> Result<(), LogError> {
        let killed = self.client.alive();
        killed.map_err(|reason| LogError::permanent(doing, reason))?;
        match state.faults.away {
            false => Ok(()),
            true => Err(LogError::retriable(doing, "the log is out of reach")),
        }
    }
}

impl Log for SimLog {
    type Appender<C: Completion> = SimAppender<C>;
    type Consumer = SimConsumer;
    type Follower = SimFollower;
    type Reader = SimReader;

    fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<SimAppender<C>, LogError> {
        Ok(SimAppender::new(self.clone(), options, completion))
    }

    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<SimConsumer, LogError> {
        SimConsumer::new(self.clone(), group, topics)
    }

    fn follower(&self, topic: TopicId) -> Result<SimFollower, LogError> {
        SimFollower::new(self.clone(), topic)
    }

    fn reader(&self) -> Result<SimReader, LogError> {
        Ok(SimReader::new(self.clone()))
    }

    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError> {
        let state = self.engine().state.lock();
        self.reachable(&state, "looking at a group")?;
        let places = topics
            .iter()
            .flat_map(|topic| self.topics.partitions(*topic))
            .filter_map(|partition| {
                let place = state.place(&self.topics, partition).ok()?;
                Some((place, partition))
            });
        let places: Vec<_> = places.collect();
        Ok(state.view(group, &places))
    }

    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        let written = self.set(topic, key, expected, value, beside);
        self.engine().changed.notify_all();
        written
    }

    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        let mut state = self.engine().state.lock();
        self.reachable(&state, "creating the topics")?;
        state.create(&self.topics);
        Ok(state.problems(&self.topics))
    }

    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        let state = self.engine().state.lock();
        self.reachable(&state, "checking the topics")?;
        Ok(state.problems(&self.topics))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.engine.state.lock().stop = true;
        self.engine.work.notify_all();
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // The last handle may go with a completion, on that thread itself: it ends by itself.
        if thread.thread().id() != std::thread::current().id() {
            // A completion that panicked has said so already.
            let _ = thread.join();
        }
    }
}
