//! Consumer groups: who is a member, who owns what, and what moves when that changes.
//!
//! The protocol is cooperative: a partition is with its owner until the owner has given it up, or its
//! time is over; only then its next owner takes it. Ownership has a number (`epoch`), so that a member
//! that was away notices that it lost a partition even if it is to get it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::{Committed, GroupMember, GroupView, Offset};
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;
use ringback_core::tracker::{Begin, Tracker};

use super::state::{Place, Records, State, Stored};

/// How long an owner that was asked to give a partition up may take (interface: 5 s).
pub(super) const REVOKE: Duration = Duration::from_secs(5);

/// A member of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub(super) u64);

#[derive(Default)]
pub(super) struct Group {
    pub(super) members: BTreeMap<MemberId, Member>,
    slots: BTreeMap<Place, Slot>,
    pub(super) committed: BTreeMap<Place, Committed>,
    epoch: u64,
    /// Calls of `commit` so far.
    pub(super) commits: u64,
}

pub(super) struct Member {
    pub(super) topics: BTreeSet<usize>,
    pub(super) client: u64,
    /// It is gone without saying so, and its session ends then.
    pub(super) ends: Option<Timestamp>,
}

#[derive(Default)]
struct Slot {
    owner: Option<Ownership>,
    /// Whose it is to be.
    target: Option<MemberId>,
    /// Its owner was asked to give it up, until then.
    leaving: Option<Timestamp>,
    /// How far its owner has read.
    position: Offset,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ownership {
    pub(super) member: MemberId,
    pub(super) epoch: u64,
}

/// How a member stands with a partition that it thinks it owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Owned,
    /// To be given up, until then.
    Leaving(Timestamp),
    Lost,
}

impl Group {
    /// Whether somebody in this group reads, or has read, this partition.
    pub(super) fn reads(&self, place: Place) -> bool {
        self.slots.contains_key(&place)
    }

    pub(super) fn standing(&self, place: Place, ownership: Ownership) -> Standing {
        match self.slots.get(&place) {
            Some(slot) if slot.owner == Some(ownership) => {
                slot.leaving.map_or(Standing::Owned, Standing::Leaving)
            }
            _ => Standing::Lost,
        }
    }

    /// Partitions that are free for this member, from now on its own.
    pub(super) fn take(&mut self, member: MemberId) -> Vec<(Place, Ownership)> {
        let mut taken = Vec::new();
        for (place, slot) in &mut self.slots {
            if slot.owner.is_none() && slot.target == Some(member) {
                self.epoch += 1;
                let epoch = self.epoch;
                let ownership = Ownership { member, epoch };
                slot.owner = Some(ownership);
                slot.leaving = None;
                slot.position = 0;
                taken.push((*place, ownership));
            }
        }
        taken
    }

    /// The owner has read up to here. `false` when it is not the owner any more.
    pub(super) fn has_read(&mut self, place: Place, by: Ownership, position: Offset) -> bool {
        let slot = self.slots.get_mut(&place);
        let slot = slot.filter(|slot| slot.owner == Some(by));
        slot.map(|slot| slot.position = position).is_some()
    }

    /// What a member owns.
    fn owned_by(&self, member: MemberId) -> Vec<(Place, Ownership)> {
        let slots = self.slots.iter();
        slots
            .filter_map(|(place, slot)| Some((*place, slot.owner?)))
            .filter(|(_, owner)| owner.member == member)
            .collect()
    }

    /// Says anew whose each partition is to be: evenly, and with as little change as possible.
    /// `partitions` says how many a topic has.
    pub(super) fn balance(&mut self, partitions: impl Fn(usize) -> u32, now: Timestamp) {
        let topics: BTreeSet<usize> = self
            .members
            .values()
            .flat_map(|member| member.topics.iter().copied())
            .collect();
        for topic in topics {
            for index in 0..partitions(topic) {
                self.slots.entry(Place { topic, index }).or_default();
            }
        }
        let mut load: BTreeMap<MemberId, usize> = self.members.keys().map(|id| (*id, 0)).collect();
        let even = self.slots.len().div_ceil(load.len().max(1));
        let mut open = Vec::new();
        for (place, slot) in &mut self.slots {
            let stays = slot.owner.map(|owner| owner.member).filter(|member| {
                slot.leaving.is_none() && load.get(member).is_some_and(|load| *load < even)
            });
            match stays {
                Some(member) => {
                    *load.entry(member).or_default() += 1;
                    slot.target = Some(member);
                }
                None => open.push(*place),
            }
        }
        for place in open {
            let readers = self.members.iter();
            let readers = readers.filter(|(_, member)| member.topics.contains(&place.topic));
            let least = readers
                .map(|(id, _)| (load.get(id).copied().unwrap_or(0), *id))
                .min();
            if let Some(slot) = self.slots.get_mut(&place) {
                slot.target = least.map(|(_, id)| id);
            }
            if let Some((_, id)) = least {
                *load.entry(id).or_default() += 1;
            }
        }
        self.ask_back(now);
    }

    /// Moves every partition to the member after its owner; with one member, away and back.
    pub(super) fn rotate(&mut self, now: Timestamp) {
        for (place, slot) in &mut self.slots {
            let Some(owner) = slot.owner else { continue };
            let reads = |member: &Member| member.topics.contains(&place.topic);
            let mut readers = self.members.iter().filter(|(_, member)| reads(member));
            let next = readers.clone().find(|(id, _)| **id > owner.member);
            slot.target = next.or_else(|| readers.next()).map(|(id, _)| *id);
            slot.leaving.get_or_insert(now + REVOKE);
        }
    }

    /// Asks owners for what is to be somebody else's.
    fn ask_back(&mut self, now: Timestamp) {
        for slot in self.slots.values_mut() {
            let owner = slot.owner.map(|owner| owner.member);
            if owner.is_some() && owner != slot.target {
                slot.leaving.get_or_insert(now + REVOKE);
            }
        }
    }

    /// Members whose session is over: those that are gone, and those that do not answer in twice the
    /// time that they have for it.
    fn over(&self, now: Timestamp) -> Vec<MemberId> {
        let gone = self.members.iter();
        let gone = gone.filter(|(_, member)| member.ends.is_some_and(|ends| ends <= now));
        let silent = self.slots.values().filter_map(|slot| {
            let over = slot.leaving.is_some_and(|until| until + REVOKE <= now);
            slot.owner.filter(|_| over).map(|owner| owner.member)
        });
        let over: BTreeSet<_> = gone.map(|(id, _)| *id).chain(silent).collect();
        over.into_iter().collect()
    }

    /// Whether something happens here just because time passes.
    pub(super) fn waits_for_time(&self) -> bool {
        self.members.values().any(|member| member.ends.is_some())
            || self.slots.values().any(|slot| slot.leaving.is_some())
    }
}

impl State {
    /// Who is in a group, and what it has committed of these.
    pub(super) fn view(&self, group: &str, places: &[(Place, Partition)]) -> GroupView {
        let Some(group) = self.groups.get(group) else {
            return GroupView::default();
        };
        let member = |(id, member): (&MemberId, &Member)| {
            let owned = group.owned_by(*id);
            let is_owned = |place: &Place| owned.iter().any(|(owned, _)| owned == place);
            GroupMember {
                id: format!("member {}", id.0),
                host: format!("process {}", member.client),
                partitions: places
                    .iter()
                    .filter(|(place, _)| is_owned(place))
                    .map(|(_, partition)| *partition)
                    .collect(),
            }
        };
        let committed = places.iter().filter_map(|(place, partition)| {
            let committed = group.committed.get(place)?;
            Some((*partition, committed.offset))
        });
        GroupView {
            members: group.members.iter().map(member).collect(),
            committed: committed.collect(),
        }
    }

    /// Balances a group after its members have changed.
    pub(super) fn balance(&mut self, group: &str, now: Timestamp) {
        let topics = &self.topics;
        let partitions = |topic: usize| {
            let count = topics.get(topic).map_or(0, |topic| topic.partitions.len());
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        if let Some(group) = self.groups.get_mut(group) {
            group.balance(partitions, now);
        }
        self.version += 1;
    }

    /// Ends the sessions of a group that are over.
    /// Who asks is alive.
    pub(super) fn expire(&mut self, group: &str, asking: MemberId, now: Timestamp) {
        let over = self.groups.get(group).map(|group| group.over(now));
        for member in over.unwrap_or_default() {
            if member != asking {
                self.expel(group, member, now);
            }
        }
    }

    /// Ends a member's session: what it owned goes to others without its being asked.
    pub(super) fn expel(&mut self, group: &str, member: MemberId, now: Timestamp) -> bool {
        if !self.remove(group, member, now) {
            return false;
        }
        self.seen.expired += 1;
        true
    }

    /// Takes a member out; what it still owned is free at once. `false` when it was not in.
    pub(super) fn remove(&mut self, name: &str, member: MemberId, now: Timestamp) -> bool {
        let Some(group) = self.groups.get_mut(name) else {
            return false;
        };
        if group.members.remove(&member).is_none() {
            return false;
        }
        for (place, ownership) in group.owned_by(member) {
            self.release(name, place, ownership);
        }
        self.balance(name, now);
        true
    }

    /// The owner has nothing to do with it any more. Counts what its next owner reads again.
    pub(super) fn release(&mut self, name: &str, place: Place, ownership: Ownership) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let slot = group.slots.get_mut(&place);
        let Some(slot) = slot.filter(|slot| slot.owner == Some(ownership)) else {
            return;
        };
        slot.owner = None;
        slot.leaving = None;
        let position = slot.position;
        let committed = self.groups[name].committed.get(&place);
        if let Some(records) = self.records(place) {
            let exposed = unfinished(records, committed, position).len() as u64;
            self.seen.exposed += exposed;
            self.topics[place.topic].repeats += exposed;
        }
        self.version += 1;
    }

    /// A commit by the owner; whether it counts.
    pub(super) fn commit(
        &mut self,
        group: &str,
        place: Place,
        ownership: Ownership,
        news: Committed,
    ) -> bool {
        let Some(group) = self.groups.get_mut(group) else {
            return false;
        };
        if group.standing(place, ownership) == Standing::Lost {
            // Fenced: somebody else may own it by now.
            return false;
        }
        let last = group.committed.insert(place, news.clone());
        if last.is_some_and(|last| last.offset > news.offset) {
            self.seen.commits_back += 1;
        }
        true
    }

    /// The records that a group has not finished, by what it has committed: topic and append time.
    pub(super) fn unfinished(&self, group: &str) -> Vec<(&str, Timestamp)> {
        let Some(group) = self.groups.get(group) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for place in group.slots.keys() {
            let Some(records) = self.records(*place) else {
                continue;
            };
            let name = self.topics[place.topic].name.as_str();
            let left = unfinished(records, group.committed.get(place), records.end);
            all.extend(left.iter().map(|stored| (name, stored.appended)));
        }
        all
    }
}

/// The records before `end` that this commit does not say to be finished.
fn unfinished(records: &Records, committed: Option<&Committed>, end: Offset) -> Vec<Arc<Stored>> {
    let mut tracker = Tracker::new(committed, records.start);
    let from = committed.map_or(records.start, |committed| committed.offset);
    let mut left = records.from(from, usize::MAX);
    left.retain(|stored| {
        let new = stored.offset < end && tracker.begin(stored.offset) == Begin::New;
        // At once: a tracker holds only so many.
        tracker.finish(stored.offset);
        new
    });
    left
}
