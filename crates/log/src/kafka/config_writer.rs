//! Compare-and-set of configuration records. All writers of an installation share one
//! `transactional.id`, so whoever starts fences the one before: fence, read to the end, check the
//! revision, write, commit. A writer that was fenced starts again, a bounded number of times.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use ringback_core::compare_and_set::{Decision, Known};
use ringback_core::log::{Append, LogError, Offset, Record, Revision, WriteError, partition_of};
use ringback_core::topics::{Cleanup, Partition, TopicId, Topics};

use super::Shared;
use super::assigned::Assigned;
use super::context::log_line;
use super::error::log_error;
use super::raw;
use super::reader::read_until;

/// How often a write starts again after another writer fenced this one. Each time somebody else
/// made progress, so this bounds unfairness, not a deadlock.
const TRIES: usize = 20;

/// How long the brokers may take for each step.
const STEP: Duration = Duration::from_secs(15);

/// The one writer of configuration records of this process.
pub(super) struct ConfigWriter {
    shared: Arc<Shared>,
    producer: Option<BaseProducer<Reports>>,
    reader: Option<Assigned>,
    known: HashMap<TopicId, Known>,
}

/// A write.
pub(super) struct Set<'a> {
    pub(super) topic: TopicId,
    pub(super) key: &'a str,
    pub(super) expected: Option<Revision>,
    pub(super) value: Option<&'a [u8]>,
    /// What is told of it, elsewhere, in the same transaction.
    pub(super) beside: Option<Append<'a>>,
}

/// Why an attempt to write did not succeed.
enum Failure {
    /// Another writer has taken over: start again.
    Fenced,
    /// Anything else.
    Log(LogError),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl ConfigWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            producer: None,
            reader: None,
            known: HashMap::new(),
        }
    }

    pub(super) fn write(&mut self, set: &Set<'_>) -> Result<Revision, WriteError> {
        let topic = &self.shared.topics.spec(set.topic).full_name;
        let doing = format!("writing {} to {topic}", set.key);
        // Where a commit whose answer was lost may have put the record.
        let mut perhaps: Option<Offset> = None;
        for _ in 0..TRIES {
            let attempt = self.attempt(set, &mut perhaps, &doing);
            match attempt {
                Ok(result) => return result,
                Err(Failure::Fenced) => self.producer = None,
                Err(Failure::Log(error)) => {
                    self.producer = None;
                    self.reader = None;
                    return Err(error.into());
                }
            }
        }
        let reason = "other writers were faster every time; try again";
        Err(LogError::retriable(doing, reason).into())
    }

    fn attempt(
        &mut self,
        set: &Set<'_>,
        perhaps: &mut Option<Offset>,
        doing: &str,
    ) -> Result<Result<Revision, WriteError>, Failure> {
        let (topic, key) = (set.topic, set.key.as_bytes());
        let is_compacted = |topic| self.shared.topics.spec(topic).cleanup == Cleanup::Compact;
        if set.beside.is_some_and(|told| is_compacted(told.topic)) {
            let reason = "what is told of a change goes to a topic with retention";
            return Err(LogError::permanent(doing, reason).into());
        }
        let fresh = self.fence(doing)?;
        self.known.entry(topic).or_default().begin(*perhaps);
        self.catch_up(topic, fresh)?;
        let known = self.known.entry(topic).or_default();
        match known.decide(key, set.expected) {
            Decision::Write => {}
            Decision::Done(revision) => return Ok(Ok(revision)),
            Decision::Conflict(current) => return Ok(Err(WriteError::Conflict { current })),
        }
        let Some(producer) = &self.producer else {
            return Err(Failure::Fenced);
        };
        // Between writes nobody polls it, and the token it began with may be over.
        raw::give_token(producer.client(), &self.shared.config.tokens());
        let topics = &self.shared.topics;
        let mut records = vec![record(topics, topic, 0, Some(key), set.value)];
        if let Some(told) = &set.beside {
            let partitions = topics.spec(told.topic).partitions;
            let index = partition_of(told.key.unwrap_or_default(), partitions);
            let index = i32::try_from(index).unwrap_or(0);
            let headers = told
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |all, header| {
                    all.insert(rdkafka::message::Header {
                        key: header.name,
                        value: Some(header.value),
                    })
                });
            let told = record(topics, told.topic, index, told.key, told.value);
            records.push(told.headers(headers));
        }
        let offset = transact(producer, records, perhaps, doing)?;
        known.learn(key, offset, set.value.is_none());
        Ok(Ok(Revision(offset)))
    }

    /// Becomes the one writer, unless this process still is. Whatever another one had not
    /// committed is aborted, and what it had is visible, so that the end of the topic is its true
    /// end. `true` when it has just become so.
    fn fence(&mut self, doing: &str) -> Result<bool, Failure> {
        if self.producer.is_some() {
            return Ok(false);
        }
        let producer: BaseProducer<Reports> = self
            .shared
            .config
            .config_writer()
            .create_with_context(Reports::default())
            .map_err(|error| log_error(doing, &error))?;
        // It blocks without being polled, so it cannot ask for its token.
        raw::give_token(producer.client(), &self.shared.config.tokens());
        let deadline = Instant::now() + 2 * STEP;
        loop {
            match producer.init_transactions(STEP) {
                Ok(()) => break,
                Err(error) if is_fenced(&error) => return Err(Failure::Fenced),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(log_error(doing, &error).into()),
            }
        }
        self.producer = Some(producer);
        Ok(true)
    }

    /// Reads a topic to its end. Done before every write, also while this process is the writer:
    /// an import may have written without a transaction.
    fn catch_up(&mut self, topic: TopicId, fresh: bool) -> Result<(), Failure> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(Assigned::new(self.shared.clone())?),
        };
        let known = self.known.entry(topic).or_default();
        let partition = Partition { topic, index: 0 };
        let bounds = reader.bounds(partition, STEP)?;
        if bounds.end < known.next() {
            // The topic was made anew. Believed only right after fencing, when the end is true.
            if !fresh {
                return Err(Failure::Fenced);
            }
            *known = Known::default();
        }
        if bounds.end == known.next() {
            return Ok(());
        }
        reader.start(partition, Some(known.next().max(bounds.start)))?;
        let mut learn = |record: Record<'_>| {
            if let Some(key) = record.key {
                known.learn(key, record.offset, record.value.is_none());
            }
        };
        let result = read_until(reader, partition, bounds.end, &mut learn);
        reader.stop();
        result?;
        known.read_to(bounds.end);
        Ok(())
    }
}

/// A record for the queue of a producer; the opaque is its place in the transaction.
type Queued<'a> = BaseRecord<'a, [u8], [u8], Box<usize>>;

fn record<'a>(
    topics: &'a Topics,
    topic: TopicId,
    partition: i32,
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
) -> Queued<'a> {
    BaseRecord {
        topic: &topics.spec(topic).full_name,
        partition: Some(partition),
        payload,
        key,
        timestamp: None,
        headers: None,
        delivery_opaque: Box::new(0),
    }
}

/// Records in one transaction; the offset of the first.
fn transact(
    producer: &BaseProducer<Reports>,
    records: Vec<Queued<'_>>,
    perhaps: &mut Option<Offset>,
    doing: &str,
) -> Result<Offset, Failure> {
    // A producer that is fenced while a record is in its queue reports that record as purged.
    let broken = || producer.client().fatal_error().is_some();
    let failed = |error: KafkaError| match is_fenced(&error) || broken() {
        true => Failure::Fenced,
        false => log_error(doing, &error).into(),
    };
    let count = records.len();
    *producer.context().0.lock() = vec![None; count];
    producer.begin_transaction().map_err(failed)?;
    for (place, mut record) in records.into_iter().enumerate() {
        record.delivery_opaque = Box::new(place);
        producer.send(record).map_err(|(error, _)| failed(error))?;
    }
    if let Err(error) = producer.flush(STEP) {
        return Err(failed(error));
    }
    let mut first = None;
    for report in std::mem::take(&mut *producer.context().0.lock()) {
        match report {
            Some(Ok(offset)) => first = first.or(Some(offset)),
            Some(Err(error)) => return Err(failed(error)),
            None => {
                let reason = "the brokers did not acknowledge in time";
                return Err(LogError::retriable(doing, reason).into());
            }
        }
    }
    let Some(offset) = first else {
        return Err(LogError::permanent(doing, "there is nothing to write").into());
    };
    *perhaps = Some(offset);
    let deadline = Instant::now() + STEP;
    loop {
        match producer.commit_transaction(STEP) {
            Ok(()) => return Ok(offset),
            Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Another writer has taken over.
fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    matches!(
        code,
        Some(
            Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
                | Code::InvalidProducerIdMapping
                | Code::TransactionCoordinatorFenced
                | Code::ConcurrentTransactions
                | Code::Fatal
        )
    )
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

/// The reports of the records in flight, by their places: an offset, or why there is none.
#[derive(Default)]
struct Reports(Mutex<Vec<Option<Result<Offset, KafkaError>>>>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Being fenced is how it should be.
        tracing::debug!(target: "ringback::kafka", "{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, report: &DeliveryResult<'_>, place: Box<usize>) {
        let report = match report {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // One of an earlier transaction, purged late, has no place any more.
        if let Some(told) = self.0.lock().get_mut(*place) {
            *told = Some(report);
        }
    }
}
