//! Answers what the group wants of a member: take partitions, give them up. One change at a time,
//! in small steps from within `poll`, so that giving up can wait for what is in flight.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionListElem};
use ringback_core::log::{Assignment, Committed, Handler, LogError, Offset};
use ringback_core::topics::Partition;

use super::consumer::{GroupMember, Owned};
use super::context::{Change, answer};
use super::error::log_error;
use super::raw;

/// How long a revoke waits for what is in flight.
const REVOKE: Duration = Duration::from_secs(5);

/// How often the handler is asked meanwhile, if nothing wakes the thread earlier.
const ASK: Duration = Duration::from_millis(20);

/// How long the brokers may take to say where a new partition starts.
const START: Duration = Duration::from_secs(5);

/// How long after a failure they are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long the commit before giving up may take.
const COMMIT: Duration = Duration::from_secs(5);

/// The change that is being answered.
#[derive(Default)]
pub(super) struct Rebalance {
    current: Option<Step>,
}

enum Step {
    /// Finding out where these start; not before `at`.
    Assign { change: Change, at: Instant },
    /// Waiting for what is in flight of these.
    Revoke {
        change: Change,
        waiting: Vec<Partition>,
        deadline: Instant,
    },
}

impl Rebalance {
    /// The change under way, which nobody will answer any more.
    pub(super) fn unanswered(&mut self) -> Option<Change> {
        match self.current.take()? {
            Step::Assign { change, .. } | Step::Revoke { change, .. } => Some(change),
        }
    }

    /// When `advance` wants to be called again, if a change is under way.
    pub(super) fn look_again(&self, now: Instant) -> Option<Instant> {
        match self.current.as_ref()? {
            Step::Assign { at, .. } => Some(*at),
            Step::Revoke { deadline, .. } => Some((now + ASK).min(*deadline)),
        }
    }
}

impl GroupMember {
    /// Goes on with the changes that the group wants. `true` when what is owned has changed.
    pub(super) fn advance(&mut self, handler: &mut impl Handler) -> Result<bool, LogError> {
        let mut changed = false;
        loop {
            if self.rebalance.current.is_none() {
                let Some(change) = self.client.context().changes.lock().pop_front() else {
                    return Ok(changed);
                };
                self.rebalance.current = Some(self.begin(change));
            }
            match self.rebalance.current.take() {
                None => {}
                Some(Step::Assign { change, at }) => {
                    if Instant::now() < at {
                        self.rebalance.current = Some(Step::Assign { change, at });
                        return Ok(changed);
                    }
                    if let Err(error) = self.assign(&change, handler) {
                        let at = Instant::now() + AGAIN;
                        self.rebalance.current = Some(Step::Assign { change, at });
                        return Err(error);
                    }
                    changed = true;
                }
                Some(Step::Revoke {
                    change,
                    mut waiting,
                    deadline,
                }) => {
                    let lost = is_lost(&change) || self.client.assignment_lost();
                    if !lost {
                        waiting.retain(|partition| !handler.revoking(*partition));
                        if !waiting.is_empty() && Instant::now() < deadline {
                            self.rebalance.current = Some(Step::Revoke {
                                change,
                                waiting,
                                deadline,
                            });
                            return Ok(changed);
                        }
                    }
                    changed = true;
                    self.revoke(&change, lost, handler)?;
                }
            }
        }
    }

    fn begin(&mut self, change: Change) -> Step {
        match &change {
            Change::Assign(_) => Step::Assign {
                change,
                at: Instant::now(),
            },
            Change::Revoke { partitions, .. } => {
                let waiting: Vec<Partition> = self
                    .known(partitions)
                    .into_iter()
                    .filter(|partition| self.owned.iter().any(|o| o.partition == *partition))
                    .collect();
                for owned in &mut self.owned {
                    owned.leaving |= waiting.contains(&owned.partition);
                }
                Step::Revoke {
                    change,
                    waiting,
                    deadline: Instant::now() + REVOKE,
                }
            }
        }
    }

    /// The partitions of a list whose topic is in the table; there are no others, as we subscribe
    /// by name.
    fn known(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let place = |topic: &str, index: i32| {
            Some(Partition {
                topic: self.shared.topics.find_name(topic)?,
                index: u32::try_from(index).ok()?,
            })
        };
        list.elements()
            .iter()
            .filter_map(|element| place(element.topic(), element.partition()))
            .collect()
    }

    /// Takes partitions over: where the group had come to, what the log still has, then reading.
    fn assign(&mut self, change: &Change, handler: &mut impl Handler) -> Result<(), LogError> {
        let Change::Assign(list) = change else {
            return Ok(());
        };
        let doing = format!("taking over partitions in group {}", self.group);
        if list.count() == 0 {
            return answer(&self.client, change).map_err(|error| log_error(doing, &error));
        }
        let mut starts = self
            .client
            .committed_offsets(list.clone(), START)
            .map_err(|error| log_error(&*doing, &error))?;
        let mut earliest = list.clone();
        earliest
            .set_all_offsets(KafkaOffset::Beginning)
            .map_err(|error| log_error(&*doing, &error))?;
        // Asked with a time of -2, which is both `Beginning` and the protocol's "earliest".
        let earliest = self
            .client
            .offsets_for_times(earliest, START)
            .map_err(|error| log_error(&*doing, &error))?;
        // And with -1, which is `End` and the protocol's "latest": a precaution that may fail.
        let mut latest = list.clone();
        let latest = latest
            .set_all_offsets(KafkaOffset::End)
            .and_then(|()| self.client.offsets_for_times(latest, START))
            .unwrap_or_default();
        let mut taken: Vec<(Assignment, Owned)> = Vec::with_capacity(starts.count());
        for (index, mut element) in starts.elements().into_iter().enumerate() {
            element
                .error()
                .map_err(|error| log_error(&*doing, &error))?;
            let (topic, number) = (element.topic().to_owned(), element.partition());
            let first = earliest
                .find_partition(&topic, number)
                .ok_or_else(|| LogError::retriable(&*doing, "the log start is missing"))?;
            first.error().map_err(|error| log_error(&*doing, &error))?;
            let KafkaOffset::Offset(log_start) = first.offset() else {
                let reason = format!("the log start of {topic} [{number}] is not known");
                return Err(LogError::retriable(&*doing, reason));
            };
            let last = latest.find_partition(&topic, number);
            let end = match last.as_ref().map(TopicPartitionListElem::offset) {
                Some(KafkaOffset::Offset(end)) => end,
                _ => Offset::MAX,
            };
            let committed = match element.offset() {
                // What counts as finished would be taken for what comes there one day.
                KafkaOffset::Offset(offset) if offset > end => {
                    tracing::error!(
                        target: "ringback::kafka",
                        "group {} had come to {offset} in {topic} [{number}], which ends at {end}: \
                         the topic was made anew or truncated; it is read from its start",
                        self.group
                    );
                    None
                }
                KafkaOffset::Offset(offset) => Some(Committed {
                    offset,
                    metadata: raw::metadata(&starts, index),
                }),
                _ => None,
            };
            if committed.is_none() {
                element
                    .set_offset(KafkaOffset::Beginning)
                    .map_err(|error| log_error(&*doing, &error))?;
            }
            let place = self
                .shared
                .topics
                .find_name(&topic)
                .zip(u32::try_from(number).ok());
            let owned = place
                .map(|(topic, index)| Partition { topic, index })
                .and_then(|partition| self.split(partition));
            let Some(mut owned) = owned else {
                let reason = format!("{topic} [{number}] is not in the table of topics");
                return Err(LogError::permanent(&*doing, reason));
            };
            let position = committed.as_ref().map_or(log_start, |c| c.offset);
            // What is missing before the start is in the assignment.
            owned.next = position.max(log_start);
            let assignment = Assignment {
                partition: owned.partition,
                committed,
                log_start,
            };
            taken.push((assignment, owned));
        }
        let ours = Change::Assign(std::mem::take(&mut starts));
        // From here on the group counts them as ours. Their records wait in their queues.
        answer(&self.client, &ours).map_err(|error| log_error(&*doing, &error))?;
        for (assignment, owned) in taken {
            self.owned.retain(|old| old.partition != owned.partition);
            self.owned.push(owned);
            handler.assigned(assignment);
        }
        Ok(())
    }

    /// Gives partitions up, after the handler's last commit for them.
    fn revoke(
        &mut self,
        change: &Change,
        lost: bool,
        handler: &mut impl Handler,
    ) -> Result<(), LogError> {
        let Change::Revoke { partitions, .. } = change else {
            return Ok(());
        };
        let mut leaving = self.known(partitions);
        leaving.retain(|partition| self.owned.iter().any(|o| o.partition == *partition));
        let mut result = Ok(());
        if lost {
            leaving
                .iter()
                .for_each(|partition| handler.lost(*partition));
        } else {
            result = self.last_commit(&leaving, handler, Instant::now() + COMMIT);
        }
        self.owned.retain(|o| !leaving.contains(&o.partition));
        let doing = format!("giving up partitions in group {}", self.group);
        answer(&self.client, change).map_err(|error| log_error(doing, &error))?;
        result
    }

    /// For `close`: waits until nothing of any partition is in flight, or the deadline.
    pub(super) fn give_up_all(&mut self, handler: &mut impl Handler, deadline: Instant) {
        let mut waiting: Vec<Partition> = self.owned.iter().map(|o| o.partition).collect();
        for owned in &mut self.owned {
            owned.leaving = true;
        }
        loop {
            if let Err(error) = self.serve_main() {
                tracing::debug!(target: "ringback::kafka", "while closing: {error}");
            }
            self.drop_lost(handler);
            waiting.retain(|partition| self.owned.iter().any(|o| o.partition == *partition));
            waiting.retain(|partition| !handler.revoking(*partition));
            let now = Instant::now();
            if waiting.is_empty() || now >= deadline {
                return;
            }
            self.signal.wait_until((now + ASK).min(deadline));
        }
    }

    /// Partitions that the group took away meanwhile must not be committed (DL8).
    pub(super) fn drop_lost(&mut self, handler: &mut impl Handler) {
        if !self.client.assignment_lost() {
            return;
        }
        for owned in self.owned.drain(..) {
            handler.lost(owned.partition);
        }
    }
}

fn is_lost(change: &Change) -> bool {
    matches!(change, Change::Revoke { lost: true, .. })
}
