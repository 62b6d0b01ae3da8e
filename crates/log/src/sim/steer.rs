//! What a test does to the log: time, steps, faults, and looking at what is there.

use std::time::Duration;

use ringback_core::log::Offset;
use ringback_core::time::Timestamp;

use super::group::{Group, Member};
use super::state::{Place, State};
use super::watch::ProcessId;
use super::{AppendFault, Chances, MemberId, Seen, SetFault, Sim, SimClock, SimLog};

/// Steps and time.
impl Sim {
    /// The log's clock.
    pub fn clock(&self) -> &SimClock {
        &self.core.engine.clock
    }

    /// Does one thing; `false` when there is nothing to do before the clock moves.
    pub fn step(&self) -> bool {
        self.core.engine.step()
    }

    /// Whether a group has a change under way that time alone brings on.
    pub fn is_moving(&self) -> bool {
        let state = self.core.engine.state.lock();
        state.groups.values().any(Group::waits_for_time)
    }

    /// When there is something to do next, if there is.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.core.engine.next_due()
    }
}

/// Faults.
impl Sim {
    /// From now on these faults happen by chance.
    pub fn chances(&self, chances: Chances) {
        self.core.engine.state.lock().faults.chances = chances;
    }

    /// The next append to this topic (full name) that is taken in meets this. Asked again, the one
    /// after it.
    pub fn fault_append(&self, topic: &str, fault: AppendFault) {
        let mut state = self.core.engine.state.lock();
        let faults = state.faults.appends.entry(topic.to_owned()).or_default();
        faults.push_back(fault);
    }

    /// The next compare-and-set on this topic (full name) meets this.
    pub fn fault_set(&self, topic: &str, fault: SetFault) {
        let mut state = self.core.engine.state.lock();
        let faults = state.faults.sets.entry(topic.to_owned()).or_default();
        faults.push_back(fault);
    }

    /// Puts the log out of reach, or back. Appends wait until their timeout, by the log's clock;
    /// everything else fails and can be tried again.
    pub fn away(&self, away: bool) {
        self.core.engine.state.lock().faults.away = away;
        self.core.engine.announce();
    }

    /// From now on followers of this topic (full name) see nothing new and do not know its end.
    pub fn hold(&self, topic: &str) {
        let mut state = self.core.engine.state.lock();
        if let Some(at) = state.find(topic) {
            let topic = &mut state.topics[at];
            topic.held_at = topic.partitions.first().map(|records| records.end);
        }
    }

    /// Followers see what they missed.
    pub fn release(&self, topic: &str) {
        let mut state = self.core.engine.state.lock();
        if let Some(at) = state.find(topic) {
            state.topics[at].held_at = None;
        }
        drop(state);
        self.core.engine.announce();
    }

    /// The members of a group that have not left, in the order in which they joined.
    pub fn members(&self, group: &str) -> Vec<MemberId> {
        let state = self.core.engine.state.lock();
        let group = state.groups.get(group);
        group.map_or(Vec::new(), |group| group.members.keys().copied().collect())
    }

    /// Rebalances with time: every member is asked for what it owns, and has 5 s for it by the log's
    /// clock; everything then goes to the next member.
    pub fn rebalance(&self, group: &str) {
        let now = self.clock().now();
        if let Some(group) = self.core.engine.state.lock().groups.get_mut(group) {
            group.rotate(now);
        }
        self.core.engine.announce();
    }

    /// Ends a member's session without asking: it loses what it owns, hears of it at its next poll,
    /// and joins again. `false` when it is not a member.
    pub fn expel(&self, group: &str, member: MemberId) -> bool {
        let now = self.clock().now();
        let was_in = self.core.engine.state.lock().expel(group, member, now);
        self.core.engine.announce();
        was_in
    }

    /// Retention removes what is before this offset of a partition of this topic (full name), read
    /// or not (DL10).
    pub fn forget_before(&self, topic: &str, index: u32, offset: Offset) {
        let mut state = self.core.engine.state.lock();
        if let Some(topic) = state.find(topic) {
            state.forget_before(Place { topic, index }, offset);
        }
        drop(state);
        self.core.engine.announce();
    }

    /// Removes everything that is older than its topic's retention.
    pub fn retain(&self) {
        let now = self.clock().now();
        self.core.engine.state.lock().retain(now);
        self.core.engine.announce();
    }

    /// Compacts a topic (full name): only the newest record of each key stays.
    pub fn compact(&self, topic: &str) {
        let mut state = self.core.engine.state.lock();
        if let Some(at) = state.find(topic) {
            for records in &mut state.topics[at].partitions {
                records.compact();
            }
        }
    }
}

/// Looking.
impl Sim {
    /// What has happened so far.
    pub fn seen(&self) -> Seen {
        self.core.engine.state.lock().seen
    }

    /// The records that a group has still to read or to finish, by what it has committed: full name of
    /// the topic, and when the record was appended.
    pub fn unfinished(&self, group: &str) -> Vec<(String, Timestamp)> {
        let state = self.core.engine.state.lock();
        let unfinished = state.unfinished(group).into_iter();
        unfinished
            .map(|(topic, at)| (topic.to_owned(), at))
            .collect()
    }

    /// How many records of each topic (full name) may be worked on twice: they are in the log once more,
    /// were reported as failed, or were [exposed](Seen::exposed).
    pub fn repeats(&self) -> Vec<(String, u64)> {
        let state = self.core.engine.state.lock();
        let topics = state.topics.iter();
        topics
            .map(|topic| (topic.name.clone(), topic.repeats))
            .collect()
    }

    /// Appends that were handed over and have not been reported.
    pub fn open_appends(&self) -> usize {
        let state = self.core.engine.state.lock();
        let acks = state.acks.values();
        state.waiting.len() + acks.map(|acks| acks.len()).sum::<usize>()
    }
}

impl SimLog {
    /// Which process this is.
    pub fn process(&self) -> ProcessId {
        self.client.id
    }

    /// Lets this process stand still, as `SIGSTOP` would: nothing of it goes out, it hears nothing,
    /// and its sessions end in time. Its user must not call it meanwhile.
    pub fn suspend(&self) {
        let ends = self.engine().clock.now() + self.core.session;
        let mut state = self.engine().state.lock();
        state.suspended.insert(self.client.id);
        self.each_member(&mut state, |member| _ = member.ends.get_or_insert(ends));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let mut state = self.engine().state.lock();
        state.suspended.remove(&self.client.id);
        self.each_member(&mut state, |member| member.ends = None);
        drop(state);
        self.engine().announce();
    }

    fn each_member(&self, state: &mut State, mut act: impl FnMut(&mut Member)) {
        let members = state
            .groups
            .values_mut()
            .flat_map(|group| group.members.values_mut());
        for member in members.filter(|member| member.client == self.client.id) {
            act(member);
        }
    }

    /// Ends this process as `kill -9` would: nothing of it reaches the log any more, what it had
    /// handed over and was not taken in is gone, no append of it is ever reported. Its partitions
    /// are free when its sessions end.
    pub fn kill(&self) {
        let engine = self.engine();
        let mut state = engine.state.lock();
        if self
            .client
            .killed
            .swap(true, std::sync::atomic::Ordering::AcqRel)
        {
            return;
        }
        state.seen.killed += 1;
        let ours = self.client.id;
        state.waiting.retain(|waiting| waiting.client != ours);
        for acks in state.acks.values_mut() {
            acks.retain(|ack| ack.client != ours);
        }
        state.acks.retain(|_, acks| !acks.is_empty());
        let ends: Duration = self.core.session;
        let ends = engine.clock.now() + ends;
        self.each_member(&mut state, |member| _ = member.ends.get_or_insert(ends));
        drop(state);
        engine.announce();
    }
}
