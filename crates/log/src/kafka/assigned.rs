//! A consumer of one partition that it chose itself: what follower, reader and the writer of
//! configuration read with.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use ringback_core::log::{LogError, Offset, Record};
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;

use super::Shared;
use super::context::Plain;
use super::error::{code_error, log_error};
use super::raw::{self, Kind, Queue};
use super::statistics::ClientKind;

/// Between two questions to a partition whose leader moves.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// How far [`Assigned::next`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// A record was handed over.
    Record,
    /// Something else happened: the end was reached, or a connection was lost.
    Other,
    /// Nothing came in the time.
    Nothing,
}

/// One partition at a time, read from a chosen offset.
pub(super) struct Assigned {
    shared: Arc<Shared>,
    client: Arc<BaseConsumer<Plain>>,
    queue: Queue,
    partition: Option<Partition>,
    /// Everything before this offset has been handed over, or does not exist.
    reached: Offset,
}

impl Assigned {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, LogError> {
        let config = shared.config.reading();
        Self::with(shared, &config)
    }

    /// With these settings.
    pub(super) fn with(shared: Arc<Shared>, config: &ClientConfig) -> Result<Self, LogError> {
        let doing = "starting a reader of Kafka";
        let client: BaseConsumer<Plain> = config
            .create_with_context(Plain::counted(
                shared.config.tokens(),
                shared.statistics.client(ClientKind::Reader),
            ))
            .map_err(|error| log_error(doing, &error))?;
        raw::give_token(client.client(), &shared.config.tokens());
        let client = Arc::new(client);
        let queue = Queue::of(&client)
            .ok_or_else(|| LogError::permanent(doing, "librdkafka has no consumer queue"))?;
        Ok(Self {
            shared,
            client,
            queue,
            partition: None,
            reached: 0,
        })
    }

    /// Reads this partition from here on; `None`: from its beginning.
    pub(super) fn start(
        &mut self,
        partition: Partition,
        from: Option<Offset>,
    ) -> Result<(), LogError> {
        let doing = || format!("reading {}", self.name(partition));
        let offset = from.map_or(KafkaOffset::Beginning, KafkaOffset::Offset);
        let mut list = TopicPartitionList::with_capacity(1);
        let (topic, index) = self.place(partition);
        list.add_partition_offset(topic, index, offset)
            .and_then(|()| self.client.assign(&list))
            .map_err(|error| log_error(doing(), &error))?;
        self.partition = Some(partition);
        self.reached = from.unwrap_or(0);
        Ok(())
    }

    /// Stops reading. What was fetched ahead is outdated from now on and will not be seen.
    pub(super) fn stop(&mut self) {
        self.partition = None;
        if let Err(error) = self.client.unassign() {
            tracing::debug!(target: "ringback::kafka", "stopping a reader: {error}");
        }
    }

    /// Everything before this offset has been handed over, or does not exist.
    pub(super) fn reached(&self) -> Offset {
        self.reached
    }

    /// Hands over the next record with an offset before `before`, waiting for at most `timeout`.
    pub(super) fn next(
        &mut self,
        timeout: Duration,
        before: Offset,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<Progress, LogError> {
        let Some(partition) = self.partition else {
            return Ok(Progress::Nothing);
        };
        let Some(mut event) = self.queue.poll(timeout) else {
            return Ok(Progress::Nothing);
        };
        let ours = |index: i32| u32::try_from(index) == Ok(partition.index);
        match event.read() {
            Kind::Record(fetched) if ours(fetched.partition) => {
                self.reached = self.reached.max(fetched.offset + 1);
                if fetched.offset >= before {
                    return Ok(Progress::Other);
                }
                handler(Record {
                    partition,
                    offset: fetched.offset,
                    appended: Timestamp::from_millis(fetched.at_millis),
                    key: fetched.key,
                    headers: &fetched.headers,
                    value: fetched.value,
                });
                Ok(Progress::Record)
            }
            Kind::End {
                partition: index,
                offset,
            } if ours(index) => {
                self.reached = self.reached.max(offset);
                Ok(Progress::Other)
            }
            Kind::Failed(code) => match passing(code) {
                true => Ok(Progress::Other),
                false => Err(code_error(
                    format!("reading {}", self.name(partition)),
                    code,
                )),
            },
            other => {
                self.serve(&other);
                Ok(Progress::Other)
            }
        }
    }

    /// What has nothing to do with records.
    fn serve(&self, event: &Kind<'_>) {
        match event {
            Kind::TokenWanted => {
                raw::give_token(self.client.client(), &self.shared.config.tokens());
            }
            Kind::Statistics(json) => self.client.context().told(json),
            _ => {}
        }
    }

    /// Asks the log for the first offset of a partition and the next to be written.
    pub(super) fn bounds(
        &self,
        partition: Partition,
        timeout: Duration,
    ) -> Result<Range<Offset>, LogError> {
        let bounds = self.all_bounds(&[partition], timeout)?;
        Ok(bounds.into_iter().next().unwrap_or(0..0))
    }

    /// The same of many: two requests to each broker that leads some of them.
    pub(super) fn all_bounds(
        &self,
        partitions: &[Partition],
        timeout: Duration,
    ) -> Result<Vec<Range<Offset>>, LogError> {
        let deadline = Instant::now() + timeout;
        // Nobody else takes them out while nothing is read.
        while self.partition.is_none()
            && let Some(mut event) = self.queue.poll(Duration::ZERO)
        {
            self.serve(&event.read());
        }
        let starts = self.ask(partitions, KafkaOffset::Beginning, deadline)?;
        let ends = self.ask(partitions, KafkaOffset::End, deadline)?;
        let both = starts.into_iter().zip(ends);
        Ok(both.map(|(start, end)| start..end.max(start)).collect())
    }

    /// Asks the log for the next offset to be written: one request.
    pub(super) fn end(&self, partition: Partition, timeout: Duration) -> Result<Offset, LogError> {
        let ends = self.ask(&[partition], KafkaOffset::End, Instant::now() + timeout)?;
        Ok(ends.first().copied().unwrap_or(0))
    }

    /// The beginning or the end of partitions. Those that have no leader for the moment, or another one
    /// than librdkafka believes, are asked for again until the time is up: so it is right after their
    /// topic was made, and when a broker goes.
    fn ask(
        &self,
        partitions: &[Partition],
        which: KafkaOffset,
        deadline: Instant,
    ) -> Result<Vec<Offset>, LogError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask_once(partitions, which, left) {
                Ok(offsets) => return Ok(offsets),
                Err((_, error)) if leader_moves(&error) && left > LEADER_PAUSE => {
                    thread::sleep(LEADER_PAUSE);
                }
                Err((partition, error)) => {
                    let others = match partitions.len() {
                        0 | 1 => String::new(),
                        count => format!(", one of {count} partitions"),
                    };
                    let name = self.name(partition);
                    let doing = format!("asking for the bounds of {name}{others}");
                    return Err(log_error(doing, &error));
                }
            }
        }
    }

    /// In failure, the partition of which it is told, or the first.
    fn ask_once(
        &self,
        partitions: &[Partition],
        which: KafkaOffset,
        left: Duration,
    ) -> Result<Vec<Offset>, (Partition, KafkaError)> {
        let Some(first) = partitions.first().copied() else {
            return Ok(Vec::new());
        };
        let failed = |error| (first, error);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let (topic, index) = self.place(*partition);
            // In the place of a time, which both of these are to brokers.
            list.add_partition_offset(topic, index, which)
                .map_err(failed)?;
        }
        let list = self.client.offsets_for_times(list, left).map_err(failed)?;
        let found = list.elements();
        let found = partitions.iter().zip(&found).map(|(partition, element)| {
            element.error().map_err(|error| (*partition, error))?;
            match element.offset() {
                KafkaOffset::Offset(offset) => Ok(offset),
                _ => {
                    let code = RDKafkaErrorCode::LeaderNotAvailable;
                    Err((*partition, KafkaError::MetadataFetch(code)))
                }
            }
        });
        found.collect()
    }

    fn place(&self, partition: Partition) -> (&str, i32) {
        let topic = &self.shared.topics.spec(partition.topic).full_name;
        (topic, i32::try_from(partition.index).unwrap_or(i32::MAX))
    }

    /// A partition, for people.
    pub(super) fn name(&self, partition: Partition) -> String {
        let (topic, index) = self.place(partition);
        format!("{topic} [{index}]")
    }
}

fn leader_moves(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
    )
}

/// What librdkafka gets over by itself. That the group is out of reach does not matter, as there is
/// none: the name is only there because librdkafka wants one.
fn passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::GroupAuthorizationFailed
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
    )
}
