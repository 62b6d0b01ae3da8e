//! The positions of consumer groups, read and set by being a member for a moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ringback_core::log::{
    Assignment, Committed, Consumer, Handler, Log, LogError, Offset, Reader, Record,
};
use ringback_core::topics::{Partition, TopicId};
use ringback_core::tracker::Finished;

/// How long becoming the only member of a group may take: a member that died is missed for 10 s.
const JOIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// How long the last commit may take.
const LEAVE: Duration = Duration::from_secs(10);

/// What the groups of a log have committed.
pub(super) struct Positions(HashMap<Partition, Option<Committed>>);

impl Positions {
    /// What the partition's group has finished of it.
    pub(super) fn finished(&self, partition: Partition, log_start: Offset) -> Finished {
        let committed = self.0.get(&partition).and_then(Option::as_ref);
        Finished::of(committed, log_start)
    }
}

/// Blocking: what all groups have committed.
pub(super) fn positions_of<L: Log>(log: &L) -> Result<Positions, LogError> {
    let mut groups: HashMap<&str, Vec<TopicId>> = HashMap::new();
    for (topic, spec) in log.topics().iter() {
        if let Some(group) = spec.role.group() {
            groups.entry(group).or_default().push(topic);
        }
    }
    let mut positions = HashMap::new();
    for (group, topics) in groups {
        let member = visit(log, group, &topics, HashMap::new())?;
        positions.extend(member.committed);
    }
    Ok(Positions(positions))
}

/// Blocking: commits the ends that a topic has now for a group.
pub(super) fn set_to_ends<L: Log>(log: &L, group: &str, topic: TopicId) -> Result<(), LogError> {
    let mut reader = log.reader()?;
    let mut ends = HashMap::new();
    for partition in log.topics().partitions(topic) {
        let end = reader.bounds(partition)?.end;
        let metadata = String::new();
        ends.insert(
            partition,
            Committed {
                offset: end,
                metadata,
            },
        );
    }
    visit(log, group, &[topic], ends).map(|_| ())
}

/// Joins until everything is ours, says what is to be committed, and leaves.
fn visit<L: Log>(
    log: &L,
    group: &str,
    topics: &[TopicId],
    last: HashMap<Partition, Committed>,
) -> Result<Member, LogError> {
    let mut consumer = log.consumer(group, topics)?;
    let all: usize = topics
        .iter()
        .map(|topic| log.topics().partitions(*topic).count())
        .sum();
    let mut member = Member {
        committed: HashMap::new(),
        last,
    };
    let deadline = Instant::now() + JOIN;
    while member.committed.len() < all {
        if Instant::now() > deadline {
            let reason = format!(
                "got {} of {all} partitions; stop whatever else is a member of it",
                member.committed.len()
            );
            return Err(LogError::permanent(
                format!("joining group {group}"),
                reason,
            ));
        }
        consumer.poll(POLL, &mut member)?;
    }
    consumer.close(LEAVE, &mut member)?;
    Ok(member)
}

/// Takes nothing.
struct Member {
    committed: HashMap<Partition, Option<Committed>>,
    last: HashMap<Partition, Committed>,
}

impl Handler for Member {
    fn assigned(&mut self, assignment: Assignment) {
        self.committed
            .insert(assignment.partition, assignment.committed);
    }

    fn room(&mut self, _: Partition) -> usize {
        0
    }

    fn record(&mut self, _: Record<'_>) {}

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.last.get(&partition).cloned()
    }

    fn lost(&mut self, partition: Partition) {
        self.committed.remove(&partition);
    }
}
