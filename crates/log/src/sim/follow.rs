//! Follower and reader.

use std::ops::Range;
use std::time::{Duration, Instant};

use ringback_core::log::{Follower, LogError, Offset, Reader, Record};
use ringback_core::topics::{Partition, TopicId};

use super::SimLog;
use super::state::Place;

/// Follows a compacted topic of a simulated log.
pub struct SimFollower {
    log: SimLog,
    partition: Partition,
    place: Place,
    position: Offset,
}

impl SimFollower {
    pub(super) fn new(log: SimLog, topic: TopicId) -> Result<Self, LogError> {
        let partition = Partition { topic, index: 0 };
        let place = log.engine().state.lock().place(&log.topics, partition)?;
        Ok(Self {
            log,
            partition,
            place,
            position: 0,
        })
    }
}

impl Follower for SimFollower {
    /// In steps it never waits.
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError> {
        let engine = self.log.engine();
        let deadline = Instant::now().checked_add(timeout);
        let mut state = engine.state.lock();
        let moved = state.moved;
        loop {
            let name = &self.log.topics.spec(self.partition.topic).full_name;
            self.log
                .reachable(&state, &format!("following topic {name}"))?;
            let topic = &state.topics[self.place.topic];
            let held_at = topic.held_at;
            let end = held_at.unwrap_or(Offset::MAX);
            let records = topic.partitions.first();
            let mut found = records.map_or(Vec::new(), |records| {
                records.from(self.position, usize::MAX)
            });
            found.retain(|stored| stored.offset < end);
            if let Some(last) = found.last() {
                self.position = last.offset + 1;
                drop(state);
                for stored in found {
                    stored.lend(self.partition, handler);
                }
                return Ok(held_at.is_none());
            }
            let over = match deadline {
                // Who asked by a clock that has moved since asks again.
                _ if engine.stepped || state.moved != moved => true,
                Some(deadline) => engine.changed.wait_until(&mut state, deadline).timed_out(),
                None => {
                    engine.changed.wait(&mut state);
                    false
                }
            };
            if over {
                return Ok(held_at.is_none());
            }
        }
    }
}

/// Reads anywhere in a simulated log.
pub struct SimReader {
    log: SimLog,
}

impl SimReader {
    pub(super) fn new(log: SimLog) -> Self {
        Self { log }
    }
}

impl Reader for SimReader {
    fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
        let state = self.log.engine().state.lock();
        self.log
            .reachable(&state, "reading the bounds of a partition")?;
        let place = state.place(&self.log.topics, partition)?;
        let records = state.records(place);
        Ok(records.map_or(0..0, |records| records.start..records.end))
    }

    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError> {
        let found = {
            let state = self.log.engine().state.lock();
            self.log.reachable(&state, "reading a partition")?;
            let place = state.place(&self.log.topics, partition)?;
            let records = state.records(place);
            records.map_or(Vec::new(), |records| records.from(range.start, usize::MAX))
        };
        let within = found.iter().filter(|stored| stored.offset < range.end);
        for stored in within {
            stored.lend(partition, handler);
        }
        Ok(())
    }
}
