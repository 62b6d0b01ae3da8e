//! The positions of consumer groups, read and set by being a member for a moment.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ringback_core::log::{
    Assignment, Committed, Consumer, Handler, Log, LogError, Offset, Reader, Record,
};
use ringback_core::topics::{Partition, TopicId, group};
use ringback_core::tracker::Finished;

/// How long becoming the only member of a group may take: a member that died is missed for 10 s.
const JOIN: Duration = Duration::from_secs(30);
/// How often positions are committed before the move ends.
const TRIES: usize = 5;
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
    let mut positions = HashMap::new();
    for (group, topics) in groups(log) {
        let member = visit(log, group, &topics, HashMap::new(), JOIN)?;
        positions.extend(member.committed);
    }
    Ok(Positions(positions))
}

/// Blocking: whether nobody works on this log: neither a dispatcher nor metrics, whose positions a move
/// sets. Waits so long for members to leave; one that died is missed for 10 s.
pub fn check_idle<L: Log>(log: &L, patience: Duration) -> Result<(), LogError> {
    for (group, topics) in groups(log) {
        if matches!(group, group::DEFERRALS | group::ATTEMPTS) {
            visit(log, group, &topics, HashMap::new(), patience)?;
        }
    }
    Ok(())
}

fn groups<L: Log>(log: &L) -> BTreeMap<&'static str, Vec<TopicId>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (topic, spec) in log.topics().iter() {
        if let Some(group) = spec.role.group() {
            groups.entry(group).or_default().push(topic);
        }
    }
    groups
}

/// Blocking: commits the ends that a topic has now for a group, and looks whether they are committed:
/// without them everything that is over would begin again.
pub(super) fn set_to_ends<L: Log>(log: &L, group: &str, topic: TopicId) -> Result<(), LogError> {
    let mut reader = log.reader()?;
    let mut ends = HashMap::new();
    for partition in log.topics().partitions(topic) {
        let committed = Committed {
            offset: reader.bounds(partition)?.end,
            metadata: String::new(),
        };
        ends.insert(partition, committed);
    }
    let mut failed = None;
    for _ in 0..TRIES {
        failed = visit(log, group, &[topic], ends.clone(), JOIN).err();
        let member = visit(log, group, &[topic], HashMap::new(), JOIN)?;
        let is_set = |(partition, end): (&Partition, &Committed)| {
            member.committed.get(partition) == Some(&Some(end.clone()))
        };
        if ends.iter().all(is_set) {
            return Ok(());
        }
    }
    let doing = format!("committing positions for group {group}");
    Err(failed.unwrap_or_else(|| LogError::retriable(doing, "the log forgets them")))
}

/// Joins until everything is ours, says what is to be committed, and leaves.
fn visit<L: Log>(
    log: &L,
    group: &str,
    topics: &[TopicId],
    last: HashMap<Partition, Committed>,
    patience: Duration,
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
    let deadline = Instant::now() + patience;
    while member.committed.len() < all {
        if Instant::now() > deadline {
            let reason = format!(
                "got {} of {all} partitions, so somebody else works there; stop dispatchers and metrics until the move is over",
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
