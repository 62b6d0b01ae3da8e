//! The Kafka engine: production, on any number of machines. The only user of `rdkafka`.
//!
//! | file | subject |
//! |---|---|
//! | `config` | settings, and what librdkafka is told from them |
//! | `security`, `oauth` | TLS and SASL |
//! | `appender` | appends by an idempotent producer |
//! | `consumer`, `rebalance`, `commit` | a member of a group |
//! | `assigned` | a consumer of one chosen partition, for `follower` and `reader` |
//! | `groups` | a group as others see it |
//! | `config_writer` | compare-and-set by a fenced transaction |
//! | `admin` | creates and checks topics |
//! | `acl` | what each component may do |
//! | `context`, `signal`, `error`, `raw` | callbacks, waking, error texts, and the only `unsafe` |

pub mod acl;
mod admin;
mod appender;
mod assigned;
mod commit;
mod config;
mod config_writer;
mod consumer;
mod context;
mod error;
mod follower;
mod groups;
mod oauth;
mod raw;
mod reader;
mod rebalance;
mod security;
mod signal;
mod statistics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ringback_core::log::{
    Append, AppenderOptions, Completion, GroupView, Log, LogError, Revision, TopicProblem,
    WriteError,
};
use ringback_core::topics::{TopicId, Topics};

pub use self::appender::KafkaAppender;
pub use self::config::KafkaConfig;
pub use self::consumer::KafkaConsumer;
pub use self::follower::KafkaFollower;
pub use self::reader::KafkaReader;
pub use self::security::{Mechanism, Sasl, SecurityProtocol, Tls};
pub use self::statistics::{ClientFigures, ClientKind};

use self::config_writer::{ConfigWriter, Set};
use self::statistics::Statistics;

/// A Kafka cluster as a log. Clones share everything.
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
    writer: Arc<Mutex<ConfigWriter>>,
}

/// What all parts of the engine need.
pub(crate) struct Shared {
    config: KafkaConfig,
    topics: Arc<Topics>,
    /// Commits of any consumer that failed.
    commit_failures: Arc<AtomicU64>,
    statistics: Statistics,
}

impl KafkaLog {
    /// Checks the settings. Does not wait for the brokers, and does not need them: whatever is
    /// started from this log connects by itself, as soon as they are there.
    pub fn open(config: KafkaConfig, topics: Arc<Topics>) -> Result<Self, LogError> {
        let config = config.resolve()?;
        let shared = Arc::new(Shared {
            config,
            topics,
            commit_failures: Arc::default(),
            statistics: Statistics::default(),
        });
        let writer = Arc::new(Mutex::new(ConfigWriter::new(shared.clone())));
        Ok(Self { shared, writer })
    }

    /// Blocking: the full names of all topics that the cluster lets us see, also of those that no table
    /// asks for any more.
    pub fn existing_topics(config: &KafkaConfig) -> Result<Vec<String>, LogError> {
        admin::names(&config.clone().resolve()?)
    }

    /// How many commits of offsets failed since this log was opened. Each costs repetitions at
    /// most, but many mean that something is wrong.
    pub fn commit_failures(&self) -> u64 {
        self.shared.commit_failures.load(Ordering::Relaxed)
    }

    /// What its clients did and how it is with their brokers, by kind, as librdkafka told last.
    pub fn clients(&self) -> BTreeMap<ClientKind, ClientFigures> {
        self.shared.statistics.figures()
    }
}

impl Log for KafkaLog {
    type Appender<C: Completion> = KafkaAppender<C>;
    type Consumer = KafkaConsumer;
    type Follower = KafkaFollower;
    type Reader = KafkaReader;

    fn topics(&self) -> &Arc<Topics> {
        &self.shared.topics
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<KafkaAppender<C>, LogError> {
        KafkaAppender::new(&self.shared, options, completion)
    }

    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<KafkaConsumer, LogError> {
        KafkaConsumer::new(self.shared.clone(), group, topics)
    }

    fn follower(&self, topic: TopicId) -> Result<KafkaFollower, LogError> {
        KafkaFollower::new(self.shared.clone(), topic)
    }

    fn reader(&self) -> Result<KafkaReader, LogError> {
        KafkaReader::new(self.shared.clone())
    }

    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError> {
        groups::view(&self.shared, group, topics)
    }

    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        let set = Set {
            topic,
            key,
            expected,
            value,
            beside,
        };
        self.writer.lock().write(&set)
    }

    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        admin::create(&self.shared)
    }

    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        admin::check(&self.shared)
    }
}
