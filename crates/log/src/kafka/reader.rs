//! Reads anywhere, for people and tools.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::log::{LogError, Offset, Reader, Record};
use ringback_core::topics::Partition;

use super::Shared;
use super::assigned::{Assigned, Progress};

/// How long the brokers may take to answer, or to send the next record.
const ANSWER: Duration = Duration::from_secs(10);

/// Reads anywhere; see [`Reader`].
pub struct KafkaReader {
    assigned: Assigned,
}

impl KafkaReader {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, LogError> {
        let assigned = Assigned::new(shared)?;
        Ok(Self { assigned })
    }
}

impl Reader for KafkaReader {
    fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
        self.assigned.bounds(partition, ANSWER)
    }

    fn all_bounds(&mut self, partitions: &[Partition]) -> Result<Vec<Range<Offset>>, LogError> {
        self.assigned.all_bounds(partitions, ANSWER)
    }

    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError> {
        let exists = self.bounds(partition)?;
        let (start, end) = (range.start.max(exists.start), range.end.min(exists.end));
        if start >= end {
            return Ok(());
        }
        self.assigned.start(partition, Some(start))?;
        let result = read_until(&mut self.assigned, partition, end, handler);
        self.assigned.stop();
        result
    }
}

/// Reads on until everything before `end` has been handed over.
pub(super) fn read_until(
    assigned: &mut Assigned,
    partition: Partition,
    end: Offset,
    handler: &mut dyn FnMut(Record<'_>),
) -> Result<(), LogError> {
    let mut deadline = Instant::now() + ANSWER;
    while assigned.reached() < end {
        let before = assigned.reached();
        let wait = deadline.saturating_duration_since(Instant::now());
        let progress = assigned.next(wait, end, handler)?;
        if assigned.reached() > before {
            deadline = Instant::now() + ANSWER;
        } else if progress == Progress::Nothing || Instant::now() >= deadline {
            let doing = format!("reading {} up to {end}", assigned.name(partition));
            let reason = format!("nothing came after {before}; check that the brokers run");
            return Err(LogError::retriable(doing, reason));
        }
    }
    Ok(())
}
