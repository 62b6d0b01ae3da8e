//! What librdkafka calls back: its log lines and errors, rebalances, and ends of commits.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::oauth::Tokens;
use super::statistics::Client;

/// librdkafka's error level is our warning: it reconnects by itself, and what stays wrong comes
/// back as the result of an operation.
pub(super) fn log_line(level: RDKafkaLogLevel, fac: &str, message: &str) {
    let level = match fac {
        // One set of properties serves producers and consumers, and each complains of the other's.
        "CONFWARN" => RDKafkaLogLevel::Debug,
        _ => level,
    };
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "ringback::kafka", "{fac}: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "ringback::kafka", "{fac}: {message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "ringback::kafka", "{fac}: {message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "ringback::kafka", "{fac}: {message}"),
    }
}

/// The context of clients that only need their log lines carried on.
#[derive(Default)]
pub(super) struct Plain {
    pub(super) tokens: Tokens,
    /// What librdkafka complained of last: the cause behind an operation that merely timed out.
    complaint: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// What is told of it is kept here.
    statistics: Option<Client>,
}

impl Plain {
    pub(super) fn with(tokens: Tokens) -> Self {
        Self {
            tokens,
            ..Self::default()
        }
    }

    /// The same, and what librdkafka tells of it is kept.
    pub(super) fn counted(tokens: Tokens, statistics: Client) -> Self {
        Self {
            statistics: Some(statistics),
            ..Self::with(tokens)
        }
    }

    /// librdkafka tells what it counted.
    pub(super) fn told(&self, json: &[u8]) {
        if let Some(statistics) = &self.statistics {
            statistics.told(json);
        }
    }

    /// What it complained of last.
    pub(super) fn complaint(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.complaint.lock().clone()
    }
}

impl ClientContext for Plain {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // These clients are in no group, and need no grant for the one they name.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            tracing::debug!(target: "ringback::kafka", "{error}: {reason}");
            return;
        }
        tracing::warn!(target: "ringback::kafka", "{error}: {reason}");
        // That all brokers are away only follows from what was said before.
        if let Some(code) = error.rdkafka_error_code()
            && code != RDKafkaErrorCode::AllBrokersDown
        {
            *self.complaint.lock() = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.generate()
    }
}

impl ConsumerContext for Plain {}

/// A change of the assignment that the group wants, to be answered by the consumer's thread.
pub(super) enum Change {
    /// These are ours now.
    Assign(TopicPartitionList),
    /// These are to be given up; `lost`: they already are somebody else's.
    Revoke {
        partitions: TopicPartitionList,
        lost: bool,
    },
}

/// The context of a member of a group.
pub(super) struct Member {
    /// Changes in the order the group wanted them.
    pub(super) changes: Mutex<VecDeque<Change>>,
    /// Set once nobody answers changes any more: they are then answered at once.
    pub(super) closing: AtomicBool,
    /// Counts what the main queue brought, because `poll` does not tell an event from nothing.
    pub(super) events: AtomicU64,
    /// How many commits ended.
    pub(super) commits_ended: AtomicU64,
    /// How the last commit failed, if it did.
    pub(super) commit_error: Mutex<Option<KafkaError>>,
    /// Topics and partitions whose commits failed, until the handler is told.
    pub(super) not_committed: Mutex<BTreeSet<(String, i32)>>,
    /// Failed commits of all consumers of this log.
    pub(super) commit_failures: Arc<AtomicU64>,
    pub(super) tokens: Tokens,
    statistics: Client,
}

impl Member {
    pub(super) fn new(tokens: Tokens, commit_failures: Arc<AtomicU64>, statistics: Client) -> Self {
        Self {
            changes: Mutex::default(),
            closing: AtomicBool::default(),
            events: AtomicU64::default(),
            commits_ended: AtomicU64::default(),
            commit_error: Mutex::default(),
            not_committed: Mutex::default(),
            commit_failures,
            tokens,
            statistics,
        }
    }
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn stats_raw(&self, json: &[u8]) {
        self.statistics.told(json);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.generate()
    }

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "ringback::kafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let partitions = partitions.clone();
        let change = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Assign(partitions),
            _ => Change::Revoke {
                partitions,
                lost: consumer.assignment_lost(),
            },
        };
        if self.closing.load(Ordering::Acquire) {
            // Nobody else will answer, and librdkafka does not close before somebody has.
            if let Err(error) = answer(consumer, &change) {
                tracing::debug!(target: "ringback::kafka", "answering a rebalance on close: {error}");
            }
        } else {
            self.changes.lock().push_back(change);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.events.fetch_add(1, Ordering::Relaxed);
        // librdkafka mostly says of all partitions what went wrong with one: too much is told of,
        // which costs one more commit.
        let whole = result.is_err();
        let elements = offsets.elements();
        let bad = elements
            .iter()
            .filter(|element| whole || element.error().is_err());
        self.not_committed
            .lock()
            .extend(bad.map(|e| (e.topic().to_owned(), e.partition())));
        let failed = result
            .err()
            .or_else(|| elements.iter().find_map(|e| e.error().err()));
        if let Some(error) = &failed {
            self.commit_failures.fetch_add(1, Ordering::Relaxed);
            // Said once; it is tried again several times a second.
            if self.commit_error.lock().is_none() {
                tracing::warn!(
                    target: "ringback::kafka",
                    "a commit of offsets failed, the next one makes up for it: {error}"
                );
            }
        }
        *self.commit_error.lock() = failed;
        self.commits_ended.fetch_add(1, Ordering::Release);
    }
}

/// Does what the group wants, in the words of the protocol that it speaks.
pub(super) fn answer<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    change: &Change,
) -> KafkaResult<()> {
    let cooperative = matches!(
        consumer.rebalance_protocol(),
        RebalanceProtocol::Cooperative
    );
    match change {
        Change::Assign(partitions) if cooperative => consumer.incremental_assign(partitions),
        Change::Assign(partitions) => consumer.assign(partitions),
        Change::Revoke { partitions, .. } if cooperative => {
            consumer.incremental_unassign(partitions)
        }
        Change::Revoke { .. } => consumer.unassign(),
    }
}
