//! Appends by an idempotent producer, with a thread of ours that carries the reports.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, RwLock};
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, LogError, partition_of,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, TopicId, Topics};

use super::Shared;
use super::context::log_line;
use super::error::{append_error, log_error};
use super::oauth::Tokens;
use super::raw;
use super::statistics::{Client, ClientKind, Statistics};

/// How long a stopping producer is given to report what it purged.
const STOP: Duration = Duration::from_secs(5);

/// Appends to Kafka; see [`Appender`].
pub struct KafkaAppender<C: Completion>(Arc<Inner<C>>);

impl<C: Completion> Clone for KafkaAppender<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<C: Completion> {
    topics: Arc<Topics>,
    config: ClientConfig,
    tokens: Tokens,
    statistics: Statistics,
    completion: Arc<C>,
    outstanding: Arc<Outstanding>,
    /// Replaced when librdkafka declares it broken for good.
    running: RwLock<Arc<Running<C>>>,
}

/// Counts the appends that have not ended, and tells when there is none.
#[derive(Default)]
struct Outstanding {
    count: AtomicUsize,
    lock: Mutex<()>,
    none: Condvar,
}

impl Outstanding {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _guard = self.lock.lock();
            self.none.notify_all();
        }
    }

    fn wait_none(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lock.lock();
        while self.count.load(Ordering::Acquire) > 0 {
            if self.none.wait_until(&mut guard, deadline).timed_out() {
                return self.count.load(Ordering::Acquire) == 0;
            }
        }
        true
    }
}

/// What travels with a record through librdkafka and comes back with its report.
pub(super) struct Pending<T> {
    topic: TopicId,
    token: T,
}

struct Context<C: Completion> {
    topics: Arc<Topics>,
    completion: Arc<C>,
    outstanding: Arc<Outstanding>,
    tokens: Tokens,
    statistics: Client,
}

impl<C: Completion> ClientContext for Context<C> {
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

impl<C: Completion> ProducerContext for Context<C> {
    type DeliveryOpaque = Box<Pending<C::Token>>;

    fn delivery(&self, report: &DeliveryResult<'_>, pending: Self::DeliveryOpaque) {
        let Pending { topic, token } = *pending;
        let result = match report {
            Ok(message) => Ok(Appended {
                partition: Partition {
                    topic,
                    index: u32::try_from(message.partition()).unwrap_or(0),
                },
                offset: message.offset(),
                at: append_time(message.timestamp()),
            }),
            Err((error, _)) => Err(append_error(&self.topics.spec(topic).full_name, error)),
        };
        // A panic here would end the thread that all other reports wait for.
        if catch_unwind(AssertUnwindSafe(|| self.completion.done(token, result))).is_err() {
            tracing::error!(target: "ringback::kafka", "the completion of an append panicked");
        }
        self.outstanding.end();
    }
}

/// The broker's clock where it told it, ours otherwise.
fn append_time(time: rdkafka::Timestamp) -> Timestamp {
    let millis = time.to_millis().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(0))
    });
    Timestamp::from_millis(millis)
}

/// A producer and its thread. `rdkafka`'s `ThreadedProducer` is not used because it hangs when its
/// last clone is dropped by a completion, and forgets what it cannot purge in half a second.
struct Running<C: Completion> {
    producer: Arc<BaseProducer<Context<C>>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<C: Completion> Running<C> {
    fn start(config: &ClientConfig, context: Context<C>) -> Result<Self, LogError> {
        let doing = "starting a producer of Kafka";
        let tokens = context.tokens.clone();
        let producer: BaseProducer<Context<C>> = config
            .create_with_context(context)
            .map_err(|error| log_error(doing, &error))?;
        raw::give_token(producer.client(), &tokens);
        let producer = Arc::new(producer);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (producer, stop) = (producer.clone(), stop.clone());
            thread::Builder::new()
                .name("kafka-reports".to_owned())
                .spawn(move || report(&producer, &stop))
                .map_err(|error| LogError::retriable(doing, error))?
        };
        Ok(Self {
            producer,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Lets the thread end by itself: for a producer that is replaced while nobody may wait.
    fn retire(&self) {
        self.stop.store(true, Ordering::Release);
        drop(self.thread.lock().take());
    }
}

impl<C: Completion> Drop for Running<C> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            // A completion may drop the last appender; a thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!(target: "ringback::kafka", "the thread of append reports panicked");
            }
        }
    }
}

/// Carries reports until told to stop, then purges: every append handed over ends exactly once.
fn report<C: Completion>(producer: &BaseProducer<Context<C>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        producer.poll(Duration::from_millis(50));
    }
    let deadline = Instant::now() + STOP;
    producer.purge(PurgeConfig::default().queue().inflight());
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(Duration::from_millis(10));
    }
    if producer.in_flight_count() > 0 {
        tracing::error!(
            target: "ringback::kafka",
            "a producer stopped with appends that librdkafka did not report"
        );
    }
}

impl<C: Completion> KafkaAppender<C> {
    pub(super) fn new(
        shared: &Shared,
        options: AppenderOptions,
        completion: C,
    ) -> Result<Self, LogError> {
        let config = shared.config.appender(&options);
        let completion = Arc::new(completion);
        let outstanding = Arc::new(Outstanding::default());
        let context = Context {
            topics: shared.topics.clone(),
            completion: completion.clone(),
            outstanding: outstanding.clone(),
            tokens: shared.config.tokens(),
            statistics: shared.statistics.client(ClientKind::Appender),
        };
        let running = Arc::new(Running::start(&config, context)?);
        Ok(Self(Arc::new(Inner {
            topics: shared.topics.clone(),
            config,
            tokens: shared.config.tokens(),
            statistics: shared.statistics.clone(),
            completion,
            outstanding,
            running: RwLock::new(running),
        })))
    }
}

impl<C: Completion> Inner<C> {
    /// Replaces a producer that is broken for good, unless somebody else already has.
    fn replace(&self, broken: &Arc<Running<C>>) -> Result<(), LogError> {
        let mut running = self.running.write();
        if !Arc::ptr_eq(&running, broken) {
            return Ok(());
        }
        let reason = broken.producer.client().fatal_error();
        let reason = reason.map_or_else(String::new, |(_, reason)| reason);
        tracing::warn!(target: "ringback::kafka", "replacing a broken producer: {reason}");
        let context = Context {
            topics: self.topics.clone(),
            completion: self.completion.clone(),
            outstanding: self.outstanding.clone(),
            tokens: self.tokens.clone(),
            statistics: self.statistics.client(ClientKind::Appender),
        };
        *running = Arc::new(Running::start(&self.config, context)?);
        broken.retire();
        Ok(())
    }
}

impl<C: Completion> Appender<C> for KafkaAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        let inner = &*self.0;
        let topic = record.topic;
        let spec = inner.topics.spec(topic);
        let mut next = BaseRecord {
            topic: &spec.full_name,
            // Without a key librdkafka spreads, changing the partition every 10 ms, and avoids
            // partitions without a leader.
            partition: record
                .key
                .map(|key| i32::try_from(partition_of(key, spec.partitions)).unwrap_or(0)),
            payload: record.value,
            key: record.key,
            timestamp: None,
            headers: owned(&record),
            delivery_opaque: Box::new(Pending { topic, token }),
        };
        inner.outstanding.add();
        let mut replaced = false;
        loop {
            let running = inner.running.read().clone();
            let error = match running.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((error, record)) => {
                    next = record;
                    error
                }
            };
            let broken = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
            if broken && !replaced && inner.replace(&running).is_ok() {
                replaced = true;
                continue;
            }
            inner.outstanding.end();
            return Err((
                next.delivery_opaque.token,
                append_error(&spec.full_name, &error),
            ));
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.0.outstanding.wait_none(timeout)
    }
}

fn owned(record: &Append<'_>) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    Some(record.headers.iter().fold(headers, |headers, header| {
        headers.insert(KafkaHeader {
            key: header.name,
            value: Some(header.value),
        })
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rdkafka::bindings as sys;
    use ringback_core::log::Log as _;
    use ringback_core::topics::{Role, TopicsConfig};

    use super::super::{KafkaConfig, KafkaLog};
    use super::*;

    struct Ends(mpsc::Sender<(u32, bool)>);

    impl Completion for Ends {
        type Token = u32;

        fn done(&self, token: u32, result: Result<Appended, AppendError>) {
            self.0.send((token, result.is_ok())).unwrap();
        }
    }

    #[test]
    fn a_broken_producer_is_replaced_and_its_appends_end() {
        let topics = Topics::new(&TopicsConfig::default(), &[]);
        let config = KafkaConfig {
            // Nobody listens there, so nothing is acknowledged.
            bootstrap: "127.0.0.1:1".to_owned(),
            ..KafkaConfig::default()
        };
        let log = KafkaLog::open(config, topics.clone()).unwrap();
        let (sender, ends) = mpsc::channel();
        let options = AppenderOptions {
            timeout: Duration::from_secs(600),
            ..AppenderOptions::default()
        };
        let appender = log.appender(options, Ends(sender)).unwrap();
        let record = Append {
            topic: topics.find(Role::Attempts).unwrap(),
            key: None,
            headers: &[],
            value: Some(b"value"),
        };
        appender.append(record, 1).unwrap();
        let broken = appender.0.running.read().clone();
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client is valid, and the reason is a string that ends with a NUL.
        #[allow(unsafe_code)]
        unsafe {
            sys::rd_kafka_test_fatal_error(
                broken.producer.client().native_ptr(),
                code,
                c"a test".as_ptr(),
            );
        }
        appender.append(record, 2).unwrap();
        assert!(!Arc::ptr_eq(&broken, &appender.0.running.read()));
        assert_eq!(ends.recv_timeout(Duration::from_secs(60)), Ok((1, false)));
        drop((appender, broken));
        assert_eq!(ends.iter().collect::<Vec<_>>(), [(2, false)]);
    }
}
