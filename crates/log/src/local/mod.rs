//! The local engine: the same topics in SQLite, in process, durable, for one machine without Kafka.
//!
//! One writer thread commits whatever arrived since its last commit (`synchronous=FULL`), so that
//! many appends share one flush of the disk. A directory holds
//! - `lock`: one process at a time;
//! - `meta.sqlite`: which topics exist, what groups committed, the compacted topics;
//! - `slices/RETENTION-NUMBER.sqlite`: the records of a stretch of time, a table per partition with
//!   the rowid as offset. Retention removes files.
//!
//! **Architecture invariant:** only the writer thread writes. Readers have connections of their own
//! and wait on a condition variable; nothing polls, and an idle log costs nothing.

mod codec;
mod consumer;
mod existing;
mod file;
mod follow;
mod inbox;
mod lock;
mod meta;
mod news;
mod queue;
mod read;
mod slices;
mod state;
mod write;
mod writer;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::log::{
    Append, AppenderOptions, Completion, GroupMember, GroupView, Log, LogError, Revision,
    TopicProblem, WriteError, partition_of,
};
pub use ringback_core::time::Clock;
use ringback_core::time::duration_label;
use ringback_core::topics::{Cleanup, Partition, TopicId, Topics};

pub use self::consumer::LocalConsumer;
pub use self::follow::{LocalFollower, LocalReader};
use self::inbox::{CompareAndSet, Inbox, Request};
use self::lock::DirLock;
use self::meta::Meta;
pub use self::queue::LocalAppender;
use self::read::Reads;
use self::slices::Slices;
use self::state::{State, StoredTopic};
use self::writer::Writer;

/// How the local log behaves.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Append times and retention go by this clock.
    pub clock: Clock,
    /// How much time a slice file spans; `None`: a 28th of its topics' retention, at least a minute.
    /// Records are kept for at most that much longer than their retention.
    pub slice: Option<Duration>,
    /// How long committed positions may wait for others to share their flush of the disk. A crash
    /// repeats at most what was committed during that time.
    pub commit_interval: Duration,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            clock: crate::system_clock(),
            slice: None,
            commit_interval: Duration::from_millis(50),
        }
    }
}

/// Everything but the records.
const META_FILE: &str = "meta.sqlite";

/// The local log. Clones are handles; the last of them, and of everything made from them, closes it.
#[derive(Clone)]
pub struct LocalLog {
    engine: Arc<Engine>,
}

/// Kept by every handle; ends the writer thread when the last one is gone.
struct Engine {
    state: Arc<State>,
    inbox: Arc<Inbox>,
    /// Groups with a member.
    groups: Mutex<HashSet<Arc<str>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LocalLog {
    /// Blocking: the full names of the topics that a log in this directory has, also of those that no
    /// table asks for any more; none when there is no log yet.
    pub fn existing_topics(dir: &Path) -> Result<Vec<String>, LogError> {
        let path = dir.join(META_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let _lock = DirLock::acquire(dir)?;
        Ok(Meta::open(path)?.topics()?.into_keys().collect())
    }

    /// The process that has the log in this directory open, if any.
    pub fn holder(dir: &Path) -> Option<String> {
        lock::holder(dir)
    }

    /// Blocking: opens the log in a directory, which is created when it is not there; removes what
    /// retention is over for. Refused while another process has it open.
    pub fn open(dir: &Path, topics: Arc<Topics>, options: LocalOptions) -> Result<Self, LogError> {
        Self::open_with(dir, options, |_| Ok(topics))
    }

    /// Blocking: opens a log that exists with the table of topics that it has, whatever the
    /// configuration says today. Refused while another process has it open.
    pub fn open_existing(dir: &Path, options: LocalOptions) -> Result<Self, LogError> {
        if !dir.join(META_FILE).exists() {
            let doing = format!("opening the local log in {}", dir.display());
            return Err(LogError::permanent(doing, "there is none"));
        }
        Self::open_with(dir, options, |stored| existing::table(dir, stored))
    }

    fn open_with(
        dir: &Path,
        options: LocalOptions,
        topics: impl FnOnce(&HashMap<String, StoredTopic>) -> Result<Arc<Topics>, LogError>,
    ) -> Result<Self, LogError> {
        let slices_dir = dir.join("slices");
        std::fs::create_dir_all(&slices_dir).map_err(|error| {
            LogError::permanent(
                format!("creating the directory {}", slices_dir.display()),
                error,
            )
        })?;
        let lock = DirLock::acquire(dir)?;
        let meta = Meta::open(dir.join(META_FILE))?;
        file::sync_directory(dir).map_err(|error| {
            LogError::permanent(format!("flushing the directory {}", dir.display()), error)
        })?;
        let stored = meta.topics()?;
        let topics = topics(&stored)?;
        let state = State::new(topics, meta.path.clone(), |name| stored.get(name).cloned());
        let state = Arc::new(state);
        let now = options.clock.now();
        let (slices, newest) =
            Slices::open(slices_dir, state.clone(), options.slice, &stored, now)?;
        let mut writer = Writer {
            state: state.clone(),
            inbox: Arc::new(Inbox::new()),
            meta,
            slices,
            clock: options.clock,
            newest,
            gather: options.commit_interval,
            sources: Vec::new(),
            failing: BTreeSet::new(),
            _lock: lock,
        };
        writer.restore()?;
        let inbox = writer.inbox.clone();
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                // A bug in a completion must not leave everybody waiting for ever.
                let run = std::panic::catch_unwind(AssertUnwindSafe(|| writer.run()));
                if run.is_err() {
                    tracing::error!(
                        "the writer thread of the local log failed; restart the process"
                    );
                }
                writer.fail_all();
            })
            .map_err(|error| LogError::permanent("starting the writer thread of the log", error))?;
        Ok(Self {
            engine: Arc::new(Engine {
                state,
                inbox,
                groups: Mutex::default(),
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    fn problems(&self) -> Vec<TopicProblem> {
        let mut problems = Vec::new();
        for (topic, spec) in self.topics().iter() {
            let mut differs = |setting: &str, expected: String, found: String| {
                if expected != found {
                    problems.push(TopicProblem {
                        topic: spec.full_name.clone(),
                        setting: setting.to_owned(),
                        expected,
                        found,
                    });
                }
            };
            let Some(stored) = self.engine.state.stored(topic) else {
                differs("it", "a topic".to_owned(), "missing".to_owned());
                continue;
            };
            let retention = match spec.cleanup {
                Cleanup::Delete { retention } => Some(retention),
                Cleanup::Compact => None,
            };
            let cleanup = |retention: Option<Duration>| match retention {
                Some(retention) => format!("delete after {}", duration_label(retention)),
                None => "compact".to_owned(),
            };
            differs(
                "partitions",
                spec.partitions.to_string(),
                stored.partitions.to_string(),
            );
            differs("cleanup", cleanup(retention), cleanup(stored.retention));
        }
        problems
    }
}

impl Log for LocalLog {
    type Appender<C: Completion> = LocalAppender<C>;
    type Consumer = LocalConsumer;
    type Follower = LocalFollower;
    type Reader = LocalReader;

    fn topics(&self) -> &Arc<Topics> {
        &self.engine.state.topics
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<LocalAppender<C>, LogError> {
        Ok(LocalAppender::new(self.engine.clone(), options, completion))
    }

    /// One member per group: it is assigned all partitions at its first poll.
    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<LocalConsumer, LogError> {
        LocalConsumer::new(self.engine.clone(), group, topics)
    }

    fn follower(&self, topic: TopicId) -> Result<LocalFollower, LogError> {
        LocalFollower::new(self.engine.clone(), topic)
    }

    fn reader(&self) -> Result<LocalReader, LogError> {
        Ok(LocalReader::new(self.engine.clone()))
    }

    /// Its one member is in this process and owns everything.
    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError> {
        self.engine.settle()?;
        let state = &self.engine.state;
        let mut reads = Reads::new(state.clone());
        let mut view = GroupView::default();
        let mut all = Vec::new();
        for slot in topics.iter().flat_map(|topic| state.slots(*topic)) {
            let partition = &state.partitions[slot];
            let committed = meta::read_position(reads.meta()?, group, partition);
            let committed = committed.map_err(|error| {
                LogError::retriable(format!("reading the positions of group {group}"), error)
            })?;
            all.push(partition.partition);
            view.committed
                .extend(committed.map(|committed| (partition.partition, committed.offset)));
        }
        if self.engine.groups.lock().contains(group) {
            view.members.push(GroupMember {
                id: "this process".to_owned(),
                host: "localhost".to_owned(),
                partitions: all,
            });
        }
        Ok(view)
    }

    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        let state = &self.engine.state;
        let spec = state.topics.spec(topic);
        let doing = || format!("writing {key} to topic {}", spec.full_name);
        let partitions = state.existing(topic).min(spec.partitions);
        let index = partition_of(key.as_bytes(), partitions);
        let slot = state.slot(Partition { topic, index })?;
        if !state.partitions[slot].compacted {
            let reason = "compare-and-set works on compacted topics only";
            return Err(LogError::permanent(doing(), reason).into());
        }
        let beside = beside
            .map(|beside| queue::prepare(state, &beside))
            .transpose()
            .map_err(|error| LogError::permanent(doing(), error))?;
        if beside
            .as_ref()
            .is_some_and(|told| state.partitions[told.slot].compacted)
        {
            let reason = "what is told of a change goes to a topic with retention";
            return Err(LogError::permanent(doing(), reason).into());
        }
        let answer = self.engine.inbox.ask(|reply| {
            Request::CompareAndSet(CompareAndSet {
                slot,
                key: key.into(),
                expected,
                value: value.map(Into::into),
                beside,
                reply,
            })
        });
        answer.unwrap_or_else(|| Err(self.engine.ended(&doing()).into()))
    }

    /// Also adds partitions where the table has more of them than there are, and takes over a
    /// changed retention; so neither is reported.
    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        let answer = self.engine.inbox.ask(Request::CreateTopics);
        answer.unwrap_or_else(|| Err(self.engine.ended("creating the topics")))?;
        Ok(self.problems())
    }

    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        Ok(self.problems())
    }
}

impl Engine {
    fn ended(&self, doing: &str) -> LogError {
        LogError::permanent(doing, self.inbox.dead_reason())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.stop();
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        // The last handle may go with a completion, on the writer thread itself: it ends by itself.
        if writer.thread().id() != std::thread::current().id() {
            // A writer that failed has said so already.
            let _ = writer.join();
        }
    }
}
