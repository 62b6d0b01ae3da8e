//! Compare-and-set of configuration records.

use std::sync::Arc;

use ringback_core::log::{Append, LogError, Revision, WriteError, partition_of};
use ringback_core::topics::{Cleanup, Partition, TopicId};

use super::SimLog;
use super::faults::SetFault;
use super::state::{Content, Place, State, Stored};
use super::watch::Happening;

impl SimLog {
    pub(super) fn set(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        let spec = self.topics.spec(topic);
        let doing = format!("writing {key} to topic {}", spec.full_name);
        let engine = self.engine();
        let mut state = engine.state.lock();
        self.reachable(&state, &doing)?;
        let index = partition_of(key.as_bytes(), spec.partitions);
        let partition = Partition { topic, index };
        let place = state.place(&self.topics, partition)?;
        let seed = state.seed;
        let stored = &mut state.topics[place.topic];
        if stored.cleanup != Cleanup::Compact {
            let reason = "compare-and-set works on compacted topics only";
            return Err(LogError::permanent(doing, reason).into());
        }
        stored.sets += 1;
        let (name, number) = (stored.name.clone(), stored.sets);
        let fault = state.faults.of_set(seed, &name, number);
        let writing = Writing {
            partition,
            place,
            key,
            now: engine.clock.now(),
        };
        if fault == Some(SetFault::Conflict) {
            let there = writing.current(&state);
            let rival = there.map_or(value.map(<[u8]>::to_vec), |(_, value)| value);
            // Removing what is not there is no change that could conflict.
            if rival.is_some() {
                writing.write(&mut state, rival.as_deref());
                state.seen.conflicts += 1;
            }
        }
        let current = writing.current(&state).map(|(revision, _)| revision);
        if current != expected {
            return Err(WriteError::Conflict { current });
        }
        if fault == Some(SetFault::Fail) {
            state.seen.unknown_sets += 1;
            return Err(LogError::retriable(doing, "asked to fail").into());
        }
        if let Some(beside) = beside {
            self.tell_beside(&mut state, &beside, &doing)?;
        }
        let revision = writing.write(&mut state, value);
        if fault == Some(SetFault::LoseAnswer) {
            state.seen.unknown_sets += 1;
            return Err(LogError::retriable(doing, "asked to lose the answer").into());
        }
        revision.ok_or_else(|| LogError::permanent(doing, "the partition is gone").into())
    }

    /// Appends what is told of a change.
    fn tell_beside(
        &self,
        state: &mut State,
        beside: &Append<'_>,
        doing: &str,
    ) -> Result<(), LogError> {
        let partitions = self.topics.spec(beside.topic).partitions;
        let partition = Partition {
            topic: beside.topic,
            index: partition_of(beside.key.unwrap_or_default(), partitions),
        };
        let place = state.place(&self.topics, partition)?;
        if state.topics[place.topic].cleanup == Cleanup::Compact {
            let reason = "what is told of a change goes to a topic with retention";
            return Err(LogError::permanent(doing, reason));
        }
        let content = Content::of(beside);
        let now = self.engine().clock.now();
        if let Some(records) = state.records_mut(place) {
            records.push(Arc::new(content), now);
        }
        Ok(())
    }
}

struct Writing<'a> {
    partition: Partition,
    place: Place,
    key: &'a str,
    now: ringback_core::time::Timestamp,
}

impl Writing<'_> {
    /// Revision and value of the record that is there, unless it was removed.
    fn current(&self, state: &State) -> Option<(Revision, Option<Vec<u8>>)> {
        let records = state.records(self.place)?;
        let newest = records.newest_of(self.key.as_bytes())?;
        let value = newest.content.value.clone()?;
        Some((Revision(newest.offset), Some(value)))
    }

    fn write(&self, state: &mut State, value: Option<&[u8]>) -> Option<Revision> {
        let content = Arc::new(Content {
            key: Some(self.key.as_bytes().to_vec()),
            headers: Vec::new(),
            value: value.map(<[u8]>::to_vec),
        });
        let records = state.records_mut(self.place)?;
        let (offset, appended) = records.push(content.clone(), self.now);
        let stored = Stored {
            offset,
            appended,
            content,
        };
        stored.lend(self.partition, &mut |record| {
            state.tell(Happening::Set(record));
        });
        state.version += 1;
        Some(Revision(offset))
    }
}
