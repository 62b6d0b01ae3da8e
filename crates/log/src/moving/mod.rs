//! Moves a whole installation from one log to another, without losing a waiting delivery: what
//! `ringback move` does from the local engine to Kafka.
//!
//! Nothing runs on either log meanwhile. The source is only read, so that going back is always
//! possible; how far the move is stands in a [`Progress`] that the caller keeps, and a move that ended
//! early goes on there. What was handed over and not acknowledged is then handed over again: a move
//! makes duplicates of at most one piece (see `carry`), and loses nothing.
//!
//! The order matters:
//! 1. the configuration, so that no delivery arrives before its webhook;
//! 2. what is over and only looked up: parked deliveries, the audit, attempts that are counted, replays
//!    that are sent. Parked before replays, because a replay is looked for after what it replays;
//! 3. the groups that would work these off are set to their ends;
//! 4. the windows of attempts, which from now on count from there;
//! 5. what is unfinished, record by record. What waits on a tier waits there for the rest of its time,
//!    see `waiting`.

mod carry;
mod configuration;
mod members;
mod progress;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;

use ringback_core::log::{Log, LogError, Offset, Reader, Record};
use ringback_core::secret::SecretError;
use ringback_core::time::Clock;
use ringback_core::topics::{Partition, Role, TopicId, group};
use ringback_core::tracker::Finished;

use self::carry::Carrier;
pub use self::configuration::{check_begun, check_secrets, check_target};
pub use self::members::check_idle;
use self::members::{Positions, positions_of, set_to_ends};
pub use self::progress::{Moved, Progress};
use self::waiting::Place;

/// A move ended early. What is moved is moved; the next one goes on from the progress.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the logs failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The target did not take a record.
    #[error("moving record {offset} of {topic}, partition {partition}: {reason}")]
    Append {
        /// Full name of the topic it is in.
        topic: String,
        /// Its partition.
        partition: u32,
        /// Its position there.
        offset: i64,
        /// What the target said.
        reason: String,
    },
    /// The target is not what a move needs.
    #[error("{0}")]
    Target(String),
    /// A secret cannot be used there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The progress cannot be kept.
    #[error("keeping the progress of the move: {0}")]
    Progress(String),
}

/// What a move needs besides the two logs.
pub struct Environment<'a> {
    /// How far an earlier one came.
    pub progress: Progress,
    /// Keeps the progress, durably, before the move goes on.
    pub keep: &'a mut dyn FnMut(&Progress) -> Result<(), MoveError>,
    /// The clock that what waits is due by.
    pub clock: Clock,
}

/// Blocking: moves everything. Call [`check_secrets`] and [`check_idle`] before, [`check_target`] before
/// the first attempt, and [`check_begun`] before any other.
pub fn run<'a, S: Log, T: Log>(
    source: &'a S,
    target: &'a T,
    environment: Environment<'a>,
) -> Result<Progress, MoveError> {
    let mut moving = Moving {
        source,
        target,
        positions: positions_of(source)?,
        counted: configuration::counted(source)?,
        carrier: Carrier::new(source, target, environment)?,
    };
    moving.configuration()?;
    moving.history()?;
    moving.positions()?;
    moving.windows()?;
    moving.waiting()?;
    Ok(moving.carrier.progress)
}

/// By webhook's key: the attempts before this offset of their partition are in its window.
type Counted = HashMap<Vec<u8>, Offset>;

struct Moving<'a, S: Log, T: Log> {
    source: &'a S,
    target: &'a T,
    /// What the groups have finished in the source.
    positions: Positions,
    /// Windows may be ahead of what their group has committed.
    counted: Arc<Counted>,
    carrier: Carrier<'a, S, T>,
}

impl<S: Log, T: Log> Moving<'_, S, T> {
    fn configuration(&mut self) -> Result<(), MoveError> {
        for role in [Role::Tenants, Role::Webhooks, Role::Tokens, Role::Accounts] {
            let count = configuration::carry_compared(self.source, self.target, role)?;
            self.carrier.count_configuration(role, count);
        }
        for role in [Role::Health, Role::Uses] {
            if self.source.topics().find(role).is_none() {
                continue;
            }
            let (from, to) = self.pair(role)?;
            let newest = configuration::newest(self.source, from)?;
            self.carrier.count_configuration(role, newest.len() as u64);
            self.carrier.append_compacted(to, &newest)?;
        }
        self.carrier.keep()
    }

    /// What is over: every record of these topics that no group has still to work off.
    fn history(&mut self) -> Result<(), MoveError> {
        for role in [
            Role::Parked,
            Role::Audit,
            Role::Attempts,
            Role::Replay,
            // Behind what they are about, also by the new append times.
            Role::Erasures,
        ] {
            if self.source.topics().find(role).is_none() {
                continue;
            }
            let (from, to) = self.pair(role)?;
            for partition in self.source.topics().partitions(from) {
                let bounds = self.carrier.bounds(partition)?;
                let over = Over::of(self, partition, bounds.start);
                self.carrier
                    .carry(Kind::Over, partition, bounds, |record| {
                        over.has(record).then_some(Place::as_it_is(to))
                    })?;
            }
        }
        Ok(())
    }

    /// The groups on the target need not work off what is over.
    fn positions(&mut self) -> Result<(), MoveError> {
        if self.carrier.progress.positions {
            return Ok(());
        }
        for (role, group) in [
            (Role::Attempts, group::ATTEMPTS),
            (Role::Replay, group::DEFERRALS),
        ] {
            let (_, to) = self.pair(role)?;
            set_to_ends(self.target, group, to)?;
        }
        self.carrier.progress.positions = true;
        self.carrier.keep()
    }

    fn windows(&mut self) -> Result<(), MoveError> {
        if self.carrier.progress.windows {
            return Ok(());
        }
        let (from, to) = self.pair(Role::Windows)?;
        let (_, attempts) = self.pair(Role::Attempts)?;
        let windows = configuration::newest(self.source, from)?;
        let mut reader = self.target.reader()?;
        let windows = windows.into_iter().map(|(key, value)| {
            let partition = configuration::partition(self.target, attempts, &key);
            let next = reader.bounds(partition)?.end;
            Ok((key, configuration::count_from(value, next)))
        });
        let windows = windows.collect::<Result<_, LogError>>()?;
        self.carrier.append_compacted(to, &windows)?;
        self.carrier.progress.windows = true;
        self.carrier.keep()
    }

    /// What somebody has still to work off.
    fn waiting(&mut self) -> Result<(), MoveError> {
        let (topics, clock) = (self.source.topics().clone(), self.carrier.clock.clone());
        let target = self.target.topics();
        for (from, spec) in topics
            .iter()
            .filter(|(_, spec)| spec.role.group().is_some())
        {
            let delay = topics.delay(from);
            let is_event = matches!(spec.role, Role::Events(_) | Role::SystemEvents);
            let to = configuration::same_name(&topics, from, target);
            for partition in topics.partitions(from) {
                let bounds = self.carrier.bounds(partition)?;
                let over = Over::of(self, partition, bounds.start);
                over.report_lost(&spec.full_name, partition, bounds.start);
                let range = over.finished.next().max(bounds.start)..bounds.end;
                self.carrier
                    .carry(Kind::Waiting, partition, range, |record| {
                        if over.has(record) {
                            return None;
                        }
                        if delay.is_zero() {
                            let place = Place::as_it_is(to?);
                            return Some(match is_event {
                                true => place.with_own_time(record),
                                false => place,
                            });
                        }
                        let rest = (record.appended + delay).since(clock.now());
                        target.delayed_by(rest).map(Place::as_it_is)
                    })?;
            }
        }
        Ok(())
    }

    /// The rows of a role in both tables.
    fn pair(&self, role: Role) -> Result<(TopicId, TopicId), MoveError> {
        configuration::pair(self.source, self.target, role)
    }
}

/// Which records of a partition nobody has to work off any more.
struct Over {
    /// A group works the topic off.
    has_group: bool,
    finished: Finished,
    counted: Option<Arc<Counted>>,
}

impl Over {
    fn of<S: Log, T: Log>(moving: &Moving<'_, S, T>, partition: Partition, start: Offset) -> Self {
        let role = moving.source.topics().spec(partition.topic).role;
        Self {
            has_group: role.group().is_some(),
            finished: moving.positions.finished(partition, start),
            counted: (role == Role::Attempts).then(|| moving.counted.clone()),
        }
    }

    fn has(&self, record: &Record<'_>) -> bool {
        let is_counted = || {
            let counted = self.counted.as_ref()?.get(record.key?)?;
            Some(record.offset < *counted)
        };
        !self.has_group || self.finished.contains(record.offset) || is_counted().unwrap_or(false)
    }

    /// What retention dropped unread is lost before the move; a dispatcher would say the same (DL10).
    fn report_lost(&self, topic: &str, partition: Partition, start: Offset) {
        if self.finished.next() < start {
            tracing::error!(
                topic,
                partition = partition.index,
                from = self.finished.next(),
                to = start,
                "records were dropped by retention before they were read (DL10)"
            );
        }
    }
}

/// Why a record is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// To be looked up.
    Over,
    /// To be worked off.
    Waiting,
}
