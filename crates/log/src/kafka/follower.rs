//! Follows a compacted topic of one partition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::log::{Follower, LogError, Offset, Record};
use ringback_core::topics::{Partition, TopicId};

use super::Shared;
use super::assigned::{Assigned, Progress};

/// While nothing comes, the log is asked this often whether that is all.
const ASK: Duration = Duration::from_millis(300);

/// How long that may take.
const ANSWER: Duration = Duration::from_secs(2);

/// At most this many records per poll.
const BATCH: usize = 4_096;

/// Follows a topic; see [`Follower`].
pub struct KafkaFollower {
    assigned: Assigned,
    partition: Partition,
    /// When the log was last asked for its end.
    asked: Option<Instant>,
}

impl KafkaFollower {
    pub(super) fn new(shared: Arc<Shared>, topic: TopicId) -> Result<Self, LogError> {
        let partition = Partition { topic, index: 0 };
        let config = shared.config.following();
        let mut assigned = Assigned::with(shared, &config)?;
        assigned.start(partition, None)?;
        Ok(Self {
            assigned,
            partition,
            asked: None,
        })
    }

    /// Hands over what is there, after waiting for the first for at most `timeout`.
    fn take(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<usize, LogError> {
        let deadline = Instant::now() + timeout;
        let mut taken = 0;
        while taken < BATCH {
            let wait = match taken {
                0 => deadline.saturating_duration_since(Instant::now()),
                _ => Duration::ZERO,
            };
            match self.assigned.next(wait, Offset::MAX, handler)? {
                Progress::Record => taken += 1,
                Progress::Other => {}
                Progress::Nothing => break,
            }
        }
        Ok(taken)
    }
}

impl Follower for KafkaFollower {
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError> {
        let deadline = Instant::now() + timeout;
        let mut taken = self.take(Duration::ZERO, handler)?;
        let mut at_end = false;
        let mut end = None;
        loop {
            let now = Instant::now();
            let due = self.asked.is_none_or(|asked| now >= asked + ASK);
            // Asking is what shows that the brokers are in reach, and so that there is no more.
            if !at_end && due {
                self.asked = Some(now);
                end = Some(self.assigned.end(self.partition, ANSWER)?);
            }
            at_end |= end.is_some_and(|end| self.assigned.reached() >= end);
            let now = Instant::now();
            if taken > 0 || now >= deadline {
                return Ok(at_end);
            }
            let next = match self.asked {
                Some(asked) if !at_end => deadline.min(asked + ASK),
                _ => deadline,
            };
            taken = self.take(next.saturating_duration_since(now), handler)?;
        }
    }
}
