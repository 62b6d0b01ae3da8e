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
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use ringback_core::compare_and_set::{Decision, Known};
use ringback_core::log::{LogError, Offset, Record, Revision, WriteError};
use ringback_core::topics::{Partition, TopicId};

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

    pub(super) fn write(
        &mut self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
    ) -> Result<Revision, WriteError> {
        let doing = format!(
            "writing {key} to {}",
            self.shared.topics.spec(topic).full_name
        );
        // Where a commit whose answer was lost may have put the record.
        let mut perhaps: Option<Offset> = None;
        for _ in 0..TRIES {
            let attempt = self.attempt(topic, key, expected, value, &mut perhaps, &doing);
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
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        perhaps: &mut Option<Offset>,
        doing: &str,
    ) -> Result<Result<Revision, WriteError>, Failure> {
        let fresh = self.fence(doing)?;
        self.known.entry(topic).or_default().begin(*perhaps);
        self.catch_up(topic, fresh)?;
        let known = self.known.entry(topic).or_default();
        match known.decide(key.as_bytes(), expected) {
            Decision::Write => {}
            Decision::Done(revision) => return Ok(Ok(revision)),
            Decision::Conflict(current) => return Ok(Err(WriteError::Conflict { current })),
        }
        let Some(producer) = &self.producer else {
            return Err(Failure::Fenced);
        };
        // Between writes nobody polls it, and the token it began with may be over.
        raw::give_token(producer.client(), &self.shared.config.tokens());
        let name = &self.shared.topics.spec(topic).full_name;
        let offset = transact(producer, name, key.as_bytes(), value, perhaps, doing)?;
        known.learn(key.as_bytes(), offset, value.is_none());
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

/// One record in one transaction.
fn transact(
    producer: &BaseProducer<Reports>,
    topic: &str,
    key: &[u8],
    value: Option<&[u8]>,
    perhaps: &mut Option<Offset>,
    doing: &str,
) -> Result<Offset, Failure> {
    // A producer that is fenced while a record is in its queue reports that record as purged.
    let broken = || producer.client().fatal_error().is_some();
    let failed = |error: KafkaError| match is_fenced(&error) || broken() {
        true => Failure::Fenced,
        false => log_error(doing, &error).into(),
    };
    *producer.context().0.lock() = None;
    producer.begin_transaction().map_err(failed)?;
    let record = BaseRecord {
        topic,
        partition: Some(0),
        payload: value,
        key: Some(key),
        timestamp: None,
        headers: None,
        delivery_opaque: (),
    };
    producer.send(record).map_err(|(error, _)| failed(error))?;
    if let Err(error) = producer.flush(STEP) {
        return Err(failed(error));
    }
    let report = producer.context().0.lock().take();
    let offset = match report {
        Some(Ok(offset)) => offset,
        Some(Err(error)) => return Err(failed(error)),
        None => {
            let reason = "the brokers did not acknowledge in time";
            return Err(LogError::retriable(doing, reason).into());
        }
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

/// The report of the one record in flight: its offset, or why it has none.
#[derive(Default)]
struct Reports(Mutex<Option<Result<Offset, KafkaError>>>);

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
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        let report = match report {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        *self.0.lock() = Some(report);
    }
}
