//! Configuration and everything else of which the newest record of a key counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ringback_core::health::Snapshot;
use ringback_core::log::{Log, LogError, Offset, Reader, WriteError, partition_of};
use ringback_core::secret::KeyRing;
use ringback_core::topics::{Cleanup, Partition, Role, TopicId, TopicSpec, Topics};
use ringback_core::tracker::Finished;
use ringback_core::webhook::Webhook;

use super::members::positions_of;
use super::{MoveError, Progress};

/// How often a record of the configuration is tried.
const TRIES: usize = 10;

/// The newest value of each key that was not removed.
pub(super) type Newest = BTreeMap<Vec<u8>, Vec<u8>>;

/// The rows of a role in both tables.
pub(super) fn pair<S: Log, T: Log>(
    source: &S,
    target: &T,
    role: Role,
) -> Result<(TopicId, TopicId), MoveError> {
    let find = |topics: &Topics| {
        topics
            .find(role)
            .ok_or_else(|| MoveError::Target(format!("the table of topics has no row {role:?}")))
    };
    Ok((find(source.topics())?, find(target.topics())?))
}

/// The row with the same name but for the prefix.
pub(super) fn same_name(topics: &Topics, from: TopicId, target: &Topics) -> Option<TopicId> {
    let name = &topics.spec(from).name;
    let mut rows = target.iter();
    rows.find(|(_, spec)| spec.name == *name)
        .map(|(topic, _)| topic)
}

/// Blocking: reads a compacted topic.
pub(super) fn newest<L: Log>(log: &L, topic: TopicId) -> Result<Newest, LogError> {
    let mut reader = log.reader()?;
    let mut newest = Newest::new();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition)?;
        reader.read(partition, bounds, &mut |record| {
            let key = record.key.unwrap_or_default();
            match record.value {
                Some(value) => newest.insert(key.to_vec(), value.to_vec()),
                None => newest.remove(key),
            };
        })?;
    }
    Ok(newest)
}

/// Blocking: writes the records of one topic that are not there; how many there are. A record that is
/// there and differs is left alone, and ends the move.
pub(super) fn carry_compared<S: Log, T: Log>(
    source: &S,
    target: &T,
    role: Role,
) -> Result<u64, MoveError> {
    let (from, to) = pair(source, target, role)?;
    let wanted = newest(source, from)?;
    let name = &target.topics().spec(to).full_name;
    for tried in 1..=TRIES {
        match write_missing(target, to, &wanted) {
            Ok(()) => return Ok(wanted.len() as u64),
            Err(WriteError::Log(error)) if error.retriable && tried < TRIES => {
                tracing::warn!(%error, "trying again");
            }
            Err(WriteError::Log(error)) => return Err(error.into()),
            // Ours with a lost answer, or somebody else's: the next look tells.
            Err(WriteError::Conflict { .. }) if tried < TRIES => {}
            Err(WriteError::Conflict { .. }) => break,
        }
    }
    Err(MoveError::Target(format!(
        "topic {name} has records that differ from those to be moved: somebody else configures there. \
         Nothing was overwritten; stop whatever runs on the target, and remove what it configured"
    )))
}

fn write_missing<T: Log>(target: &T, to: TopicId, wanted: &Newest) -> Result<(), WriteError> {
    let there = newest(target, to)?;
    for (key, value) in wanted {
        match there.get(key) {
            Some(same) if same == value => {}
            Some(_) => return Err(WriteError::Conflict { current: None }),
            None => {
                let key = std::str::from_utf8(key)
                    .map_err(|error| LogError::permanent("reading a configuration key", error))?;
                target.compare_and_set(to, key, None, Some(value))?;
            }
        }
    }
    Ok(())
}

/// Blocking: whether these keys open every secret of the source's webhooks.
pub fn check_secrets<S: Log>(source: &S, keys: &KeyRing) -> Result<(), MoveError> {
    let Some(topic) = source.topics().find(Role::Webhooks) else {
        return Ok(());
    };
    for value in newest(source, topic)?.values() {
        // What cannot be read is no webhook here either, and is moved as it is.
        let Ok(webhook) = serde_json::from_slice::<Webhook>(value) else {
            continue;
        };
        for (sealed, field) in webhook.secrets() {
            keys.open(sealed, webhook.id, field)?;
        }
    }
    Ok(())
}

/// Blocking: whether the target can take the source over: it is not in use, and has a topic for
/// whatever waits. Its topics must exist.
pub fn check_target<S: Log, T: Log>(source: &S, target: &T) -> Result<(), MoveError> {
    for role in [Role::Tenants, Role::Webhooks, Role::Tokens, Role::Accounts] {
        let (_, topic) = pair(source, target, role)?;
        if !newest(target, topic)?.is_empty() {
            return Err(in_use(target, topic, "has records"));
        }
    }
    let mut reader = target.reader()?;
    for role in [Role::Attempts, Role::Replay] {
        let (_, topic) = pair(source, target, role)?;
        for partition in target.topics().partitions(topic) {
            if !reader.bounds(partition)?.is_empty() {
                return Err(in_use(target, topic, "is not empty"));
            }
        }
    }
    check_raw(source, target)
}

/// Blocking: whether the target has what was moved there already. Another cluster, or topics that were
/// removed meanwhile, would otherwise get only the rest.
pub fn check_begun<T: Log>(target: &T, progress: &Progress) -> Result<(), MoveError> {
    let mut reader = target.reader()?;
    let (mut moved, mut there) = (0_u64, 0_u64);
    for (topic, spec) in target.topics().iter() {
        if spec.cleanup == Cleanup::Compact {
            continue;
        }
        for partition in target.topics().partitions(topic) {
            // Whatever retention has dropped, the end counts all that was ever appended.
            there += reader.bounds(partition)?.end.unsigned_abs();
        }
    }
    for (name, counts) in &progress.moved {
        let is_compacted =
            |spec: &TopicSpec| spec.name == *name && spec.cleanup == Cleanup::Compact;
        if !target.topics().iter().any(|(_, spec)| is_compacted(spec)) {
            moved += counts.kept + counts.waiting;
        }
    }
    match there >= moved {
        true => Ok(()),
        false => Err(MoveError::Target(format!(
            "{moved} records were moved before, and the target has {there}: it is another cluster, or its \
             topics were removed. Go on where the move began; or, to begin anew, remove moved.json"
        ))),
    }
}

fn in_use<T: Log>(target: &T, topic: TopicId, why: &str) -> MoveError {
    let name = &target.topics().spec(topic).full_name;
    MoveError::Target(format!(
        "the target is in use: topic {name} {why}. Move to an installation of its own, with another \
         topics.prefix and log.kafka.group_prefix, or remove its topics first"
    ))
}

/// What waits on the raw topic of a source needs a producer that reads it there.
fn check_raw<S: Log, T: Log>(source: &S, target: &T) -> Result<(), MoveError> {
    let topics = source.topics();
    let positions = positions_of(source)?;
    let mut reader = source.reader()?;
    for (topic, spec) in topics.iter() {
        if same_name(topics, topic, target.topics()).is_some() || !matches!(spec.role, Role::Raw(_))
        {
            continue;
        }
        for partition in topics.partitions(topic) {
            let bounds = reader.bounds(partition)?;
            let finished: Finished = positions.finished(partition, bounds.start);
            if finished.next() < bounds.end {
                return Err(MoveError::Target(format!(
                    "records wait in {}, and the target has no such topic: configure the source in \
                     ingest.raw there",
                    spec.full_name
                )));
            }
        }
    }
    Ok(())
}

/// The partition of a key.
pub(super) fn partition<L: Log>(log: &L, topic: TopicId, key: &[u8]) -> Partition {
    let index = partition_of(key, log.topics().spec(topic).partitions);
    Partition { topic, index }
}

/// Blocking: by key, up to where the windows of webhooks count the attempts.
pub(super) fn counted<L: Log>(log: &L) -> Result<Arc<HashMap<Vec<u8>, Offset>>, LogError> {
    let Some(topic) = log.topics().find(Role::Windows) else {
        return Ok(Arc::default());
    };
    let windows = newest(log, topic)?.into_iter();
    let next = |value: Vec<u8>| Some(serde_json::from_slice::<Snapshot>(&value).ok()?.next);
    let counted = windows.filter_map(|(key, value)| Some((key, next(value)?)));
    Ok(Arc::new(counted.collect()))
}

/// The snapshot of a window that counts from this offset of `attempts` on; what is none stays as it
/// is.
pub(super) fn count_from(snapshot: Vec<u8>, next: Offset) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(&snapshot) else {
        return snapshot;
    };
    fields.insert("next".to_owned(), next.into());
    serde_json::to_vec(&fields).unwrap_or(snapshot)
}
