//! Commits that the group's coordinator refuses while partitions are given up, on librdkafka's
//! simulated brokers, which refuse on demand.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringback_core::catalogue::Family;
use ringback_core::log::{
    Append, AppenderOptions, Assignment, Committed, Consumer, Handler, Log, Offset, Record,
};
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use ringback_core::tracker::Tracker;
use ringback_log::batch::{Acknowledgement, Batch};
use ringback_log::kafka::{KafkaConfig, KafkaConsumer, KafkaLog};

const RECORDS: Offset = 5;
const PATIENCE: Duration = Duration::from_secs(60);
const REBALANCE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;

/// One partition with five records.
struct Brokers {
    cluster: MockCluster<'static, DefaultProducerContext>,
    log: KafkaLog,
}

impl Brokers {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let config = TopicsConfig {
            event_partitions: 1,
            work_partitions: 1,
            replication: 1,
            ..TopicsConfig::default()
        };
        let topics = Topics::new(&config, &[]);
        let topic = topics.find(Role::Events(Family::Cdr)).unwrap();
        let name = &topics.spec(topic).full_name;
        cluster.create_topic(name, 1, 1).unwrap();
        let config = KafkaConfig {
            bootstrap: cluster.bootstrap_servers(),
            ..KafkaConfig::default()
        };
        let log = KafkaLog::open(config, topics).unwrap();
        let appender = log
            .appender(AppenderOptions::default(), Acknowledgement)
            .unwrap();
        let mut batch = Batch::new(&appender);
        for _ in 0..RECORDS {
            let record = Append {
                topic,
                key: None,
                headers: &[],
                value: Some(b"{}"),
            };
            batch.append(record).unwrap();
        }
        batch.finish().unwrap().unwrap();
        Self { cluster, log }
    }

    /// Joins, and has read and finished all records.
    fn read_all(&self) -> (KafkaConsumer, Took) {
        let topic = self.log.topics().find(Role::Events(Family::Cdr)).unwrap();
        let mut consumer = self.log.consumer("group", &[topic]).unwrap();
        let mut took = Took::default();
        until(&mut consumer, &mut took, |took| took.finished == RECORDS);
        (consumer, took)
    }

    /// The next commits are refused like this.
    fn refuse(&self, errors: &[RDKafkaRespErr]) {
        self.cluster
            .request_errors(RDKafkaApiKey::OffsetCommit, errors);
    }

    /// Where the next member begins.
    fn committed(&self) -> Option<Offset> {
        let (topic, group) = ("ringback.events.cdr", "ringback.group");
        let asking: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let list = asking.committed_offsets(list, PATIENCE).unwrap();
        match list.elements()[0].offset() {
            KafkaOffset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

/// Finishes every record at once.
#[derive(Default)]
struct Took {
    tracker: Option<Tracker>,
    finished: Offset,
}

impl Took {
    fn position(&mut self, partition: Partition) -> Vec<(Partition, Committed)> {
        let position = self.tracker.as_mut().unwrap().commit();
        position
            .into_iter()
            .map(|committed| (partition, committed))
            .collect()
    }
}

impl Handler for Took {
    fn assigned(&mut self, assignment: Assignment) {
        let committed = assignment.committed.as_ref();
        self.tracker = Some(Tracker::new(committed, assignment.log_start));
    }

    fn room(&mut self, _: Partition) -> usize {
        10
    }

    fn record(&mut self, record: Record<'_>) {
        let tracker = self.tracker.as_mut().unwrap();
        tracker.begin(record.offset);
        tracker.finish(record.offset);
        self.finished += 1;
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        self.tracker.take()?.commit()
    }

    fn lost(&mut self, _: Partition) {
        self.tracker = None;
    }

    fn commit_failed(&mut self, _: Partition) {
        if let Some(tracker) = &mut self.tracker {
            tracker.commit_failed();
        }
    }
}

fn until(consumer: &mut KafkaConsumer, took: &mut Took, done: impl Fn(&Took) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(took) {
        assert!(Instant::now() < deadline, "not in time");
        consumer.poll(Duration::from_millis(100), took).unwrap();
    }
}

#[test]
fn a_last_commit_that_is_refused_is_tried_again() {
    let brokers = Brokers::start();
    let (consumer, mut took) = brokers.read_all();
    brokers.refuse(&[REBALANCE; 3]);
    consumer.close(Duration::ZERO, &mut took).unwrap();
    assert_eq!(brokers.committed(), Some(RECORDS));
}

#[test]
fn a_commit_refused_while_leaving_is_made_up_for() {
    let brokers = Brokers::start();
    let (mut consumer, mut took) = brokers.read_all();
    brokers.refuse(&[REBALANCE]);
    let topic = brokers.log.topics().find(Role::Events(Family::Cdr));
    let topic = topic.unwrap();
    let position = took.position(Partition { topic, index: 0 });
    consumer.commit(&position).unwrap();
    // Nothing new to say: only what was refused.
    consumer.close(Duration::ZERO, &mut took).unwrap();
    assert_eq!(brokers.committed(), Some(RECORDS));
}

#[test]
fn what_may_not_be_committed_is_said() {
    let brokers = Brokers::start();
    let (consumer, mut took) = brokers.read_all();
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    brokers.refuse(&[denied]);
    let error = consumer.close(Duration::ZERO, &mut took).unwrap_err();
    assert!(error.reason.contains("ACL"), "{error}");
    assert_eq!(brokers.committed(), None);
}
