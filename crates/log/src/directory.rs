//! The directory of tenants, webhooks and tokens, kept live from the log, with the knowledge of how
//! fresh it is. Each topic is followed turn by turn: by threads of the directory's own, or by whoever
//! waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};
use ringback_core::directory::Directory;
use ringback_core::log::{Follower, Log, LogError, Offset, Revision};
use ringback_core::time::Clock;
use ringback_core::topics::{Role, TopicId};

/// A component whose configuration is older than this acts no more on it (invariant DL6).
pub const STALE_AFTER: Duration = Duration::from_secs(2);

/// How long a follower waits for news before it looks at the clock again. Well below
/// [`STALE_AFTER`], so that a log out of reach is noticed in time.
const WAIT: Duration = Duration::from_millis(500);

/// The same while it is being loaded.
const WAIT_LOADING: Duration = Duration::from_millis(20);

/// A live [`Directory`]. Dropping it stops its threads.
pub struct LiveDirectory {
    shared: Arc<Shared>,
    turns: Turns,
}

/// Who takes the turns of the topics that are followed.
enum Turns {
    Threads(Vec<JoinHandle<()>>),
    /// The holder, by [`LiveDirectory::turn`].
    Holder(Mutex<Vec<Box<dyn FnMut() + Send>>>),
}

struct Shared {
    directory: RwLock<Directory>,
    clock: Clock,
    started: Duration,
    topics: Vec<Followed>,
    /// Guards nothing; news is signalled through it.
    lock: Mutex<()>,
    news: Condvar,
    stop: AtomicBool,
    on_change: Box<dyn Fn() + Send + Sync>,
}

struct Followed {
    topic: TopicId,
    role: Role,
    /// Milliseconds after `started` at which the end was last known to be reached, plus one.
    at_end: AtomicU64,
    /// Offset after the last record that was applied.
    applied: AtomicU64,
}

/// A topic on its way into the directory.
struct Following<F> {
    shared: Arc<Shared>,
    index: usize,
    follower: F,
    failing: bool,
}

impl LiveDirectory {
    /// Follows the topics with these roles. `on_change` is called after changes and when the directory
    /// has become fresh (again), from a thread of the directory; it must be quick.
    pub fn start<L: Log>(
        log: &L,
        roles: &[Role],
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, LogError> {
        Self::start_by(&crate::system_clock(), log, roles, on_change)
    }

    /// The same, with a clock to measure its age by.
    pub fn start_by<L: Log>(
        clock: &Clock,
        log: &L,
        roles: &[Role],
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, LogError> {
        let shared = Shared::new(clock, log, roles, on_change);
        let mut live = Self {
            shared: shared.clone(),
            turns: Turns::Threads(Vec::new()),
        };
        for index in 0..shared.topics.len() {
            let mut following = Following::new(&shared, log, index)?;
            let topic = log.topics().spec(shared.topics[index].topic);
            let thread = std::thread::Builder::new()
                .name(format!("follow-{}", topic.name))
                .spawn(move || following.run())
                .map_err(|error| LogError::permanent("starting a thread", error))?;
            if let Turns::Threads(threads) = &mut live.turns {
                threads.push(thread);
            }
        }
        Ok(live)
    }

    /// Without threads: it knows of nothing until its holder calls [`turn`](Self::turn), or waits.
    pub fn without_threads<L: Log>(
        clock: &Clock,
        log: &L,
        roles: &[Role],
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, LogError> {
        let shared = Shared::new(clock, log, roles, on_change);
        let mut turns: Vec<Box<dyn FnMut() + Send>> = Vec::new();
        for index in 0..shared.topics.len() {
            let mut following = Following::new(&shared, log, index)?;
            // The pause after a failure is the holder's.
            turns.push(Box::new(move || _ = following.turn()));
        }
        Ok(Self {
            shared,
            turns: Turns::Holder(Mutex::new(turns)),
        })
    }

    /// Follows each topic for one turn. Nothing to do where threads do it.
    pub fn turn(&self) {
        if let Turns::Holder(turns) = &self.turns {
            turns.lock().iter_mut().for_each(|turn| turn());
        }
    }

    /// The directory as it is known now. Hold it briefly, never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Directory> {
        self.shared.directory.read()
    }

    /// For how long the end of some topic has not been known to be reached. `None`: it was never
    /// reached, so nothing may be decided yet.
    pub fn age(&self) -> Option<Duration> {
        self.shared.age()
    }

    /// Whether it is loaded and not older than [`STALE_AFTER`].
    pub fn is_fresh(&self) -> bool {
        self.shared.is_fresh()
    }

    /// Blocking: waits until the directory is fresh. `false` when the time is over.
    pub fn wait_fresh(&self, timeout: Duration) -> bool {
        self.wait(timeout, || self.is_fresh())
    }

    /// Blocking: waits until a written revision is applied. `false` when the time is over.
    pub fn wait_applied(&self, role: Role, revision: Revision, timeout: Duration) -> bool {
        let Some(followed) = self.shared.topics.iter().find(|topic| topic.role == role) else {
            return true;
        };
        self.wait(timeout, || {
            followed.applied.load(Ordering::Acquire) > offset(revision.0)
        })
    }

    fn wait(&self, timeout: Duration, done: impl Fn() -> bool) -> bool {
        match &self.turns {
            Turns::Threads(_) => self.shared.wait(timeout, done),
            // What one turn does not bring, no time brings.
            Turns::Holder(_) => {
                self.turn();
                done()
            }
        }
    }
}

impl Drop for LiveDirectory {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Turns::Threads(threads) = &mut self.turns {
            for thread in threads.drain(..) {
                // A follower that panicked has said so already.
                let _ = thread.join();
            }
        }
    }
}

impl<F: Follower> Following<F> {
    fn new<L: Log<Follower = F>>(
        shared: &Arc<Shared>,
        log: &L,
        index: usize,
    ) -> Result<Self, LogError> {
        Ok(Self {
            shared: shared.clone(),
            index,
            follower: log.follower(shared.topics[index].topic)?,
            failing: false,
        })
    }

    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if let Some(pause) = self.turn() {
                self.shared.pause(pause);
            }
        }
    }

    /// Waits for news and takes it over. After a failure: how long to wait before the next turn.
    fn turn(&mut self) -> Option<Duration> {
        let shared = &self.shared;
        let followed = &shared.topics[self.index];
        let asked = shared.elapsed();
        let mut changed = false;
        // Nobody can work before it is loaded: no waiting for news until then.
        let loading = followed.at_end.load(Ordering::Acquire) == 0;
        let wait = if loading { WAIT_LOADING } else { WAIT };
        let result = self.follower.poll(wait, &mut |record| {
            changed = true;
            if let Err(error) = shared.directory.write().apply(followed.role, &record) {
                tracing::error!(%error, "keeping what the configuration said before");
            }
            followed
                .applied
                .store(offset(record.offset) + 1, Ordering::Release);
        });
        let was_fresh = shared.is_fresh();
        let mut pause = None;
        match result {
            Ok(true) => {
                let millis = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX - 1);
                followed.at_end.store(millis + 1, Ordering::Release);
                self.failing = false;
            }
            Ok(false) => {}
            Err(error) => {
                if !self.failing {
                    tracing::warn!(%error, "configuration may be stale");
                }
                self.failing = true;
                // The log is away: ask again, but not in a hot loop.
                pause = Some(WAIT / 2);
            }
        }
        // Under the lock, so that nobody who has just looked goes to sleep on old news.
        let guard = shared.lock.lock();
        shared.news.notify_all();
        drop(guard);
        if changed || (!was_fresh && shared.is_fresh()) {
            (shared.on_change)();
        }
        pause
    }
}

impl Shared {
    fn new<L: Log>(
        clock: &Clock,
        log: &L,
        roles: &[Role],
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let topics = roles
            .iter()
            .filter_map(|role| log.topics().find(*role).map(|topic| (topic, *role)))
            .map(|(topic, role)| Followed {
                topic,
                role,
                at_end: AtomicU64::new(0),
                applied: AtomicU64::new(0),
            })
            .collect();
        Arc::new(Self {
            directory: RwLock::default(),
            started: clock.steady(),
            clock: clock.clone(),
            topics,
            lock: Mutex::new(()),
            news: Condvar::new(),
            stop: AtomicBool::new(false),
            on_change: Box::new(on_change),
        })
    }

    fn elapsed(&self) -> Duration {
        self.clock.steady().saturating_sub(self.started)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut guard = self.lock.lock();
        while !self.stop.load(Ordering::Acquire) {
            if self.news.wait_until(&mut guard, until).timed_out() {
                return;
            }
        }
    }

    fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age <= STALE_AFTER)
    }

    fn age(&self) -> Option<Duration> {
        let elapsed = self.elapsed();
        let mut oldest = Duration::ZERO;
        for topic in &self.topics {
            let at_end = topic.at_end.load(Ordering::Acquire).checked_sub(1)?;
            oldest = oldest.max(elapsed.saturating_sub(Duration::from_millis(at_end)));
        }
        Some(oldest)
    }

    fn wait(&self, timeout: Duration, done: impl Fn() -> bool) -> bool {
        let until = Instant::now() + timeout;
        let mut guard = self.lock.lock();
        while !done() {
            if self.news.wait_until(&mut guard, until).timed_out() {
                return done();
            }
        }
        true
    }
}

fn offset(offset: Offset) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
