//! The consumer: a member of its group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringback_core::log::{Assignment, Committed, Consumer, Handler, LogError, Offset, Waker};
use ringback_core::topics::{Partition, TopicId};
use ringback_core::tracker::METADATA_BYTES_MAX;

use super::SimLog;
use super::faults::{draw, happens};
use super::group::{MemberId, Ownership, Standing};
use super::state::Place;
use super::watch::Happening;

/// Most records of a partition per poll, however much room there is.
const TURN: usize = 512;
/// While something depends on time or on the owner, how often we look when nobody wakes us.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A consumer of a simulated log. Dropped without `close`, it is gone like a process that crashed:
/// its partitions are free when its session ends.
pub struct SimConsumer {
    pub(super) log: SimLog,
    pub(super) group: String,
    pub(super) member: MemberId,
    pub(super) topics: Vec<TopicId>,
    /// What we think we own, in the order of turns.
    pub(super) owned: Vec<Owned>,
    woken: Arc<AtomicBool>,
    /// How often the clock was moved, as far as our user knows: it has to look at what is due.
    moved: u64,
    /// Commits of these failed; the next poll tells.
    not_committed: BTreeSet<Partition>,
    left: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Owned {
    pub(super) partition: Partition,
    pub(super) place: Place,
    pub(super) ownership: Ownership,
    /// The next offset to read.
    pub(super) position: Offset,
}

impl SimConsumer {
    pub(super) fn new(log: SimLog, group: &str, topics: &[TopicId]) -> Result<Self, LogError> {
        let doing = || format!("joining group {group}");
        let mut consumer = Self {
            member: MemberId(0),
            group: group.to_owned(),
            topics: topics.to_vec(),
            owned: Vec::new(),
            woken: Arc::default(),
            moved: 0,
            not_committed: BTreeSet::new(),
            left: false,
            log,
        };
        let engine = consumer.log.engine().clone();
        let mut state = engine.state.lock();
        for topic in topics {
            let name = &consumer.log.topics.spec(*topic).full_name;
            if state.find(name).is_none() {
                let reason = format!("topic {name} does not exist; create the topics first");
                return Err(LogError::permanent(doing(), reason));
            }
        }
        // When the log is out of reach, the first poll that reaches it joins.
        if consumer.log.reachable(&state, "").is_ok() {
            consumer.join(&mut state);
        }
        drop(state);
        engine.changed.notify_all();
        Ok(consumer)
    }

    /// Which member of the group this is, for faults that are aimed at it.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Gives every partition a turn; `true` when there was something.
    fn serve(&mut self, handler: &mut impl Handler) -> bool {
        let engine = self.log.engine().clone();
        let mut served = false;
        for turn in 0..self.owned.len() {
            let Some(owned) = self.owned.get(turn).copied() else {
                break;
            };
            let room = handler.room(owned.partition).min(TURN);
            if room == 0 {
                continue;
            }
            let mut state = engine.state.lock();
            let Some(records) = state.records(owned.place) else {
                continue;
            };
            if owned.position < records.start {
                drop(state);
                self.overtaken(turn, handler);
                served = true;
                continue;
            }
            let found = records.from(owned.position, room);
            let Some(last) = found.last() else { continue };
            let position = last.offset + 1;
            let group = state.groups.get_mut(&self.group);
            let ours = |group: &mut super::group::Group| {
                group.has_read(owned.place, owned.ownership, position)
            };
            if !group.is_some_and(ours) {
                continue;
            }
            if engine.stepped {
                // There may be more: whoever takes the turns takes another.
                state.version += 1;
            }
            drop(state);
            self.owned[turn].position = position;
            served = true;
            for stored in found {
                stored.lend(owned.partition, &mut |record| handler.record(record));
            }
        }
        if !self.owned.is_empty() {
            self.owned.rotate_left(1);
        }
        served
    }

    /// Tells of commits that failed since the last poll. `true` when there were any.
    fn tell_failed_commits(&mut self, handler: &mut impl Handler) -> bool {
        let failed = std::mem::take(&mut self.not_committed);
        let owned = |partition: &Partition| self.owned.iter().any(|o| o.partition == *partition);
        for partition in failed.iter().filter(|partition| owned(partition)) {
            handler.commit_failed(*partition);
        }
        !failed.is_empty()
    }

    /// Retention has removed what we had still to read (DL10): whoever tracks the partition begins
    /// anew, and sees the gap between what was committed and where the log starts.
    fn overtaken(&mut self, turn: usize, handler: &mut impl Handler) {
        let partition = self.owned[turn].partition;
        handler.lost(partition);
        self.gone(partition);
        let assignment = {
            let state = self.log.engine().state.lock();
            let owned = &mut self.owned[turn];
            let log_start = state
                .records(owned.place)
                .map_or(0, |records| records.start);
            owned.position = log_start;
            let group = state.groups.get(&self.group);
            Assignment {
                partition,
                committed: group
                    .and_then(|group| group.committed.get(&owned.place))
                    .cloned(),
                log_start,
            }
        };
        self.assigned(&assignment);
        handler.assigned(assignment);
    }

    /// Waits until something changes after `seen`. `false` when the time is over.
    fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let engine = self.log.engine();
        let mut state = engine.state.lock();
        if state.version != seen || self.woken.load(Ordering::Acquire) {
            return true;
        }
        let group = state.groups.get(&self.group);
        let look = group.is_some_and(super::group::Group::waits_for_time);
        let look = look.then(|| Instant::now() + LOOK_AGAIN);
        let until = match (deadline, look) {
            (Some(deadline), Some(look)) => Some(deadline.min(look)),
            (deadline, look) => deadline.or(look),
        };
        match until {
            Some(until) => {
                engine.changed.wait_until(&mut state, until);
            }
            None => engine.changed.wait(&mut state),
        }
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Asks until nothing is in flight, or the time is over. In steps no time passes: it is over when
    /// the engine has nothing more to do.
    fn drain(&mut self, drain: Duration, handler: &mut impl Handler) {
        let engine = self.log.engine().clone();
        let deadline = Instant::now().checked_add(drain);
        let mut busy = self.owned.clone();
        loop {
            busy.retain(|owned| !handler.revoking(owned.partition));
            if busy.is_empty() {
                return;
            }
            let now = Instant::now();
            let over = match engine.stepped {
                true => !engine.step(),
                false => deadline.is_some_and(|deadline| now >= deadline),
            };
            if over {
                return;
            }
            if !engine.stepped {
                let look = now + LOOK_AGAIN;
                let until = deadline.map_or(look, |deadline| deadline.min(look));
                engine.changed.wait_until(&mut engine.state.lock(), until);
            }
        }
    }
}

impl Consumer for SimConsumer {
    /// In steps it never waits: it serves what is there.
    fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let engine = self.log.engine().clone();
        let deadline = Instant::now().checked_add(timeout);
        if engine.stepped {
            // This is the look that it was woken for: the next time it is woken again.
            self.woken.store(false, Ordering::Release);
        }
        loop {
            let (version, moved) = {
                let state = engine.state.lock();
                let doing = || format!("reading for group {}", self.group);
                self.log.reachable(&state, &doing())?;
                (state.version, state.moved)
            };
            let moved = std::mem::replace(&mut self.moved, moved) != moved;
            let told = self.tell_failed_commits(handler);
            let changed = self.follow_group(handler) || moved || told;
            let served = self.serve(handler);
            if changed || served || engine.stepped || self.woken.swap(false, Ordering::AcqRel) {
                return Ok(());
            }
            if !self.wait(version, deadline) {
                return Ok(());
            }
        }
    }

    fn commit(&mut self, positions: &[(Partition, Committed)]) -> Result<(), LogError> {
        let engine = self.log.engine().clone();
        let doing = format!("committing for group {}", self.group);
        let mut state = engine.state.lock();
        self.log.reachable(&state, &doing)?;
        let (seed, chances) = (state.seed, state.faults.chances);
        let group = state.groups.entry(self.group.clone()).or_default();
        group.commits += 1;
        let number = group.commits;
        if happens(draw(seed ^ 5, &self.group, number), chances.fail_commit) {
            state.seen.commits_failed += 1;
            return Err(LogError::retriable(doing, "asked to fail"));
        }
        if happens(
            draw(seed ^ 6, &self.group, number),
            chances.fail_commit_later,
        ) {
            state.seen.commits_failed += 1;
            let failed = positions.iter().map(|(partition, _)| *partition);
            self.not_committed.extend(failed);
            return Ok(());
        }
        let mut result = Ok(());
        for (at, (partition, news)) in (1_u64..).zip(positions) {
            let Some(owned) = self.owned.iter().find(|o| o.partition == *partition) else {
                state.seen.commits_unowned += 1;
                let process = self.log.client.id;
                state.tell(Happening::NotOwned(process, &self.group, *partition));
                continue;
            };
            let bytes = news.metadata.len();
            if bytes > METADATA_BYTES_MAX {
                let reason = format!("metadata of {bytes} bytes, more than {METADATA_BYTES_MAX}");
                result = Err(LogError::permanent(&*doing, reason));
                continue;
            }
            if happens(
                draw(seed ^ 4 ^ (at << 8), &self.group, number),
                chances.lose_commit,
            ) {
                state.seen.commits_lost += 1;
                continue;
            }
            let owned = *owned;
            self.count(&mut state, &owned, news);
        }
        result
    }

    fn waker(&self) -> Waker {
        let (woken, engine) = (self.woken.clone(), Arc::downgrade(self.log.engine()));
        Waker::new(move || {
            if !woken.swap(true, Ordering::AcqRel)
                && let Some(engine) = engine.upgrade()
            {
                // Under the lock, so that nobody who has just looked goes to sleep on it.
                engine.state.lock().version += 1;
                engine.changed.notify_all();
            }
        })
    }

    fn close(mut self, drain: Duration, handler: &mut impl Handler) -> Result<(), LogError> {
        let engine = self.log.engine().clone();
        let doing = format!("leaving group {}", self.group);
        self.log
            .client
            .alive()
            .map_err(|reason| LogError::permanent(&*doing, reason))?;
        self.drain(drain, handler);
        for owned in self.owned.clone() {
            let standing = {
                let state = engine.state.lock();
                let group = state.groups.get(&self.group);
                group.map_or(Standing::Lost, |group| {
                    group.standing(owned.place, owned.ownership)
                })
            };
            match standing {
                Standing::Lost => self.lose(&owned, handler),
                Standing::Owned | Standing::Leaving(_) => self.give_up(&owned, handler),
            }
        }
        self.left = true;
        let mut state = engine.state.lock();
        let reachable = self.log.reachable(&state, &doing);
        state.remove(&self.group, self.member, engine.clock.now());
        drop(state);
        engine.changed.notify_all();
        reachable
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let engine = self.log.engine();
        let mut state = engine.state.lock();
        let ends = engine.clock.now() + self.log.core.session;
        if let Some(group) = state.groups.get_mut(&self.group)
            && let Some(member) = group.members.get_mut(&self.member)
        {
            member.ends.get_or_insert(ends);
        }
        state.version += 1;
        drop(state);
        engine.changed.notify_all();
    }
}
