//! What a consumer group has committed and who is in it, asked without joining it.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use ringback_core::log::{GroupMember, GroupView, LogError};
use ringback_core::topics::{Partition, TopicId, Topics};

use super::Shared;
use super::context::Plain;
use super::error::{code_error, log_error};
use super::raw;

/// How long the brokers may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn view(
    shared: &Shared,
    group: &str,
    topics: &[TopicId],
) -> Result<GroupView, LogError> {
    let group = shared.config.group(group);
    let doing = || format!("looking at group {group}");
    let mut config = shared.config.reading();
    config.set("group.id", &group);
    let client: BaseConsumer<Plain> = config
        .create_with_context(Plain::with(shared.config.tokens()))
        .map_err(|error| log_error(doing(), &error))?;
    raw::give_token(client.client(), &shared.config.tokens());
    let table = &shared.topics;
    let mut list = TopicPartitionList::new();
    for partition in topics.iter().flat_map(|topic| table.partitions(*topic)) {
        let index = i32::try_from(partition.index).unwrap_or(i32::MAX);
        list.add_partition(&table.spec(partition.topic).full_name, index);
    }
    let committed = client
        .committed_offsets(list, ANSWER)
        .map_err(|error| log_error(doing(), &error))?;
    let committed = committed.elements().into_iter().filter_map(|element| {
        let KafkaOffset::Offset(offset) = element.offset() else {
            return None;
        };
        Some((named(table, element.topic(), element.partition())?, offset))
    });
    let members =
        raw::members(client.client(), &group, ANSWER).map_err(|code| code_error(doing(), code))?;
    Ok(GroupView {
        committed: committed.collect(),
        members: members
            .into_iter()
            .map(|member| GroupMember {
                id: member.id,
                host: member.host,
                partitions: assigned(table, &member.assignment).unwrap_or_default(),
            })
            .collect(),
    })
}

/// A partition of the table; `None` for a topic that it does not have.
fn named(table: &Topics, topic: &str, index: i32) -> Option<Partition> {
    Some(Partition {
        topic: table.find_name(topic)?,
        index: u32::try_from(index).ok()?,
    })
}

/// Reads a member's assignment: version, then topics with their partitions (the consumer protocol's
/// `ConsumerProtocolAssignment`, whose later versions only grow). `None` when it is not that.
fn assigned(table: &Topics, bytes: &[u8]) -> Option<Vec<Partition>> {
    let mut rest = bytes;
    let _version = take::<2>(&mut rest)?;
    let topics = i32::from_be_bytes(take(&mut rest)?);
    let mut partitions = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let name = std::str::from_utf8(name).ok()?;
        let count = i32::from_be_bytes(take(&mut rest)?);
        for _ in 0..count {
            let index = i32::from_be_bytes(take(&mut rest)?);
            partitions.extend(named(table, name, index));
        }
    }
    Some(partitions)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use ringback_core::schedule::Schedule;
    use ringback_core::topics::TopicsConfig;

    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_broken_one_is_none() {
        let table = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let mut bytes = vec![0, 3, 0, 0, 0, 2];
        for (name, indexes) in [("ringback.events.cdr", vec![0, 7]), ("foreign", vec![1])] {
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((indexes.len() as i32).to_be_bytes());
            indexes
                .into_iter()
                .for_each(|index: i32| bytes.extend(index.to_be_bytes()));
        }
        let read = assigned(&table, &bytes).unwrap();
        let indexes: Vec<_> = read.iter().map(|partition| partition.index).collect();
        assert_eq!(indexes, [0, 7]);
        for length in 0..bytes.len() {
            assert_eq!(assigned(&table, &bytes[..length]), None, "{length}");
        }
        assert_eq!(assigned(&table, &[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }
}
