//! What a group has not durably finished: the only events that may come again after a crash.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use ringback_core::catalogue::Family;
use ringback_core::log::{Assignment, Committed, Consumer as _, Handler, Log, Reader as _, Record};
use ringback_core::record::header;
use ringback_core::schedule::Schedule;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig, group};
use ringback_core::tracker::Finished;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_log::local::{LocalLog, LocalOptions};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ids of CDRs in a local log that nobody has open.
pub fn local(dir: &Path) -> HashSet<String> {
    let log = LocalLog::open_existing(dir, LocalOptions::default()).unwrap();
    let topic = log.topics().find(Role::Events(Family::Cdr)).unwrap();
    let mut positions = Positions::default();
    let mut consumer = log.consumer(group::CDR_EVENTS, &[topic]).unwrap();
    let partitions = log.topics().partitions(topic).count();
    while positions.0.len() < partitions {
        consumer
            .poll(Duration::from_millis(10), &mut positions)
            .unwrap();
    }
    // Gone without a word, so that nothing is committed.
    drop(consumer);
    ids(&log, |partition| positions.0.remove(&partition).flatten())
}

/// Ids of CDRs on Kafka, of the installation whose topics and groups have this prefix.
pub fn kafka(bootstrap: &str, prefix: &str, partitions: u32) -> HashSet<String> {
    let config = TopicsConfig {
        prefix: prefix.to_owned(),
        event_partitions: partitions,
        work_partitions: 1,
        replication: 1,
        ..TopicsConfig::default()
    };
    let topics = Topics::new(&config, Schedule::default().tiers());
    let config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        ..KafkaConfig::default()
    };
    // Asks about the group without being a member of it.
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("{prefix}{}", group::CDR_EVENTS))
        .create()
        .unwrap();
    let log = KafkaLog::open(config, topics.clone()).unwrap();
    ids(&log, |partition| {
        let mut list = TopicPartitionList::new();
        let name = &topics.spec(partition.topic).full_name;
        list.add_partition(name, partition.index.try_into().unwrap());
        let list = group.committed_offsets(list, PATIENCE).unwrap();
        let element = &list.elements()[0];
        match element.offset() {
            KafkaOffset::Offset(offset) => Some(Committed {
                offset,
                metadata: element.metadata().to_owned(),
            }),
            _ => None,
        }
    })
}

fn ids<L: Log>(
    log: &L,
    mut committed: impl FnMut(Partition) -> Option<Committed>,
) -> HashSet<String> {
    let topic = log.topics().find(Role::Events(Family::Cdr)).unwrap();
    let mut reader = log.reader().unwrap();
    let mut ids = HashSet::new();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        let finished = Finished::of(committed(partition).as_ref(), bounds.start);
        let all = finished.next()..bounds.end;
        reader
            .read(partition, all, &mut |record: Record<'_>| {
                if !finished.contains(record.offset) {
                    let id = record.header(header::ID).unwrap().to_vec();
                    ids.insert(String::from_utf8(id).unwrap());
                }
            })
            .unwrap();
    }
    ids
}

/// Takes what the group had committed, and reads nothing.
#[derive(Default)]
struct Positions(HashMap<Partition, Option<Committed>>);

impl Handler for Positions {
    fn assigned(&mut self, assignment: Assignment) {
        self.0.insert(assignment.partition, assignment.committed);
    }

    fn room(&mut self, _: Partition) -> usize {
        0
    }

    fn record(&mut self, _: Record<'_>) {}

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        None
    }

    fn lost(&mut self, _: Partition) {}
}
