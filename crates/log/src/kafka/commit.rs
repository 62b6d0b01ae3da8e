//! Commits of positions: in the background while reading, and durably before partitions are given
//! up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use ringback_core::log::{Committed, Handler, LogError};
use ringback_core::topics::Partition;

use super::consumer::GroupMember;
use super::error::{code_error, log_error};
use super::raw;

/// How often the end of commits is looked for, and how long after a refusal it is tried again.
const AGAIN: Duration = Duration::from_millis(100);

impl GroupMember {
    /// Begins a commit; how it ended is told by [`Self::tell_failed_commits`].
    pub(super) fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        let doing = self.committing();
        let list = self
            .commit_list(positions)
            .map_err(|error| log_error(&*doing, &error))?;
        if list.count() == 0 {
            return Ok(());
        }
        raw::commit(&self.client, &list).map_err(|code| code_error(&*doing, code))?;
        self.commits_begun += 1;
        Ok(())
    }

    /// Tells of commits that failed since the last poll. `true` when there were any.
    pub(super) fn tell_failed_commits(&mut self, handler: &mut impl Handler) -> bool {
        let failed = std::mem::take(&mut *self.client.context().not_committed.lock());
        let told = !failed.is_empty();
        for owned in &self.owned {
            let name = &self.shared.topics.spec(owned.partition.topic).full_name;
            let index = i32::try_from(owned.partition.index).unwrap_or(i32::MAX);
            if failed.contains(&(name.clone(), index)) {
                handler.commit_failed(owned.partition);
            }
        }
        told
    }

    /// Takes the handler's last words for partitions that are given up, and commits them.
    pub(super) fn last_commit(
        &mut self,
        leaving: &[Partition],
        handler: &mut impl Handler,
        deadline: Instant,
    ) -> Result<(), LogError> {
        // What is still on its way may be refused, and has to be said once more then. When there is
        // no answer in time, there will be none to the last commit either.
        let _ = self.wait_for_commits(deadline);
        self.tell_failed_commits(handler);
        let last: Vec<_> = leaving
            .iter()
            .filter_map(|partition| Some((*partition, handler.revoked(*partition)?)))
            .collect();
        if last.is_empty() {
            return Ok(());
        }
        self.commit_durably(&last, deadline)
    }

    /// Commits and waits until the log has it, at most until the deadline. What is refused, because
    /// the group is just moving on to another generation, is tried again as long as the partitions
    /// are ours. (librdkafka's own blocking commit waits for a minute when the coordinator is away.)
    fn commit_durably(
        &mut self,
        positions: &[(Partition, Committed)],
        deadline: Instant,
    ) -> Result<(), LogError> {
        loop {
            let ended = self
                .commit(positions)
                .and_then(|()| self.wait_for_commits(deadline));
            let error = match ended {
                Ok(()) => match self.client.context().commit_error.lock().take() {
                    None => return Ok(()),
                    Some(error) => log_error(self.committing(), &error),
                },
                Err(error) => error,
            };
            let now = Instant::now();
            if now >= deadline || !error.retriable || self.client.assignment_lost() {
                return Err(error);
            }
            self.signal.wait_until((now + AGAIN).min(deadline));
        }
    }

    /// Waits until every commit that was begun has ended, well or not.
    fn wait_for_commits(&mut self, deadline: Instant) -> Result<(), LogError> {
        loop {
            // Errors of the main queue are not these commits'.
            let _ = self.serve_main();
            let ended = self.client.context().commits_ended.load(Ordering::Acquire);
            if ended >= self.commits_begun {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                let reason = "the group's coordinator did not answer in time";
                return Err(LogError::retriable(self.committing(), reason));
            }
            self.signal.wait_until((now + AGAIN).min(deadline));
        }
    }

    fn commit_list(
        &self,
        positions: &[(Partition, Committed)],
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, committed) in positions {
            if !self.owned.iter().any(|owned| owned.partition == *partition) {
                continue;
            }
            let topic = &self.shared.topics.spec(partition.topic).full_name;
            let index = i32::try_from(partition.index).unwrap_or(i32::MAX);
            let mut element = list.add_partition(topic, index);
            element.set_offset(KafkaOffset::Offset(committed.offset))?;
            if !committed.metadata.is_empty() {
                element.set_metadata(&committed.metadata);
            }
        }
        Ok(list)
    }

    fn committing(&self) -> String {
        format!("committing offsets of group {}", self.group)
    }
}
