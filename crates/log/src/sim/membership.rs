//! A member's side of its group: joining, taking partitions, giving them up, losing them.

use ringback_core::log::{Assignment, Committed, Handler};
use ringback_core::topics::Partition;

use super::consumer::{Owned, SimConsumer};
use super::group::{Member, MemberId, Standing};
use super::state::{Place, State};
use super::watch::Happening;

impl SimConsumer {
    pub(super) fn join(&mut self, state: &mut State) {
        self.member = MemberId(state.id());
        let topics = self.topics.iter();
        let names = topics.map(|topic| &self.log.topics.spec(*topic).full_name);
        let member = Member {
            topics: names.filter_map(|name| state.find(name)).collect(),
            client: self.log.client.id,
            ends: None,
        };
        let group = state.groups.entry(self.group.clone()).or_default();
        group.members.insert(self.member, member);
        state.balance(&self.group, self.log.engine().clock.now());
    }

    /// Follows what the group wants. `true` when what is owned has changed.
    pub(super) fn follow_group(&mut self, handler: &mut impl Handler) -> bool {
        let engine = self.log.engine().clone();
        let mut changed = false;
        let standings = {
            let mut state = engine.state.lock();
            state.expire(&self.group, self.member, engine.clock.now());
            let group = state.groups.get(&self.group);
            let standing = |owned: &Owned| {
                group.map_or(Standing::Lost, |group| {
                    group.standing(owned.place, owned.ownership)
                })
            };
            let standings: Vec<_> = self.owned.iter().map(standing).collect();
            if group.is_none_or(|group| !group.members.contains_key(&self.member)) {
                // Our session has ended: we come back as somebody new.
                self.join(&mut state);
                changed = true;
            }
            standings
        };
        for (owned, standing) in self.owned.clone().into_iter().zip(standings) {
            match standing {
                Standing::Owned => {}
                Standing::Lost => {
                    changed = true;
                    self.lose(&owned, handler);
                }
                Standing::Leaving(until) => {
                    if handler.revoking(owned.partition) || engine.clock.now() >= until {
                        changed = true;
                        self.give_up(&owned, handler);
                    }
                }
            }
        }
        self.take(handler) || changed
    }

    pub(super) fn lose(&mut self, owned: &Owned, handler: &mut impl Handler) {
        self.forget(owned);
        self.log.engine().state.lock().seen.lost += 1;
        handler.lost(owned.partition);
        self.gone(owned.partition);
    }

    pub(super) fn give_up(&mut self, owned: &Owned, handler: &mut impl Handler) {
        self.forget(owned);
        let last = handler.revoked(owned.partition);
        let engine = self.log.engine();
        let mut state = engine.state.lock();
        if let Some(last) = last
            && self.log.reachable(&state, "committing").is_ok()
        {
            self.count(&mut state, owned, &last);
        }
        state.release(&self.group, owned.place, owned.ownership);
        state.seen.revoked += 1;
        drop(state);
        self.gone(owned.partition);
        engine.changed.notify_all();
    }

    /// Commits for what we own, unless somebody else does by now.
    pub(super) fn count(&self, state: &mut State, owned: &Owned, news: &Committed) {
        let (place, ownership) = (owned.place, owned.ownership);
        if state.commit(&self.group, place, ownership, news.clone()) {
            let process = self.log.client.id;
            let group = &self.group;
            state.tell(Happening::Committed(process, group, owned.partition, news));
        }
    }

    pub(super) fn gone(&self, partition: Partition) {
        let mut state = self.log.engine().state.lock();
        state.tell(Happening::Gone(self.log.client.id, &self.group, partition));
    }

    pub(super) fn assigned(&self, assignment: &Assignment) {
        let mut state = self.log.engine().state.lock();
        let process = self.log.client.id;
        state.tell(Happening::Assigned(process, &self.group, assignment));
    }

    fn forget(&mut self, gone: &Owned) {
        let Owned { ownership, .. } = gone;
        self.owned
            .retain(|owned| owned.place != gone.place || owned.ownership != *ownership);
    }

    /// Takes what is free for us.
    fn take(&mut self, handler: &mut impl Handler) -> bool {
        let engine = self.log.engine().clone();
        let mut assignments = Vec::new();
        {
            let mut state = engine.state.lock();
            let group = state.groups.get_mut(&self.group);
            let taken = group.map_or(Vec::new(), |group| group.take(self.member));
            for (place, ownership) in taken {
                let Some(partition) = self.partition(&state, place) else {
                    continue;
                };
                let log_start = state.records(place).map_or(0, |records| records.start);
                let group = state.groups.get(&self.group);
                let committed = group.and_then(|group| group.committed.get(&place)).cloned();
                let from = committed.as_ref().map_or(0, |committed| committed.offset);
                let position = from.max(log_start);
                self.owned.push(Owned {
                    partition,
                    place,
                    ownership,
                    position,
                });
                assignments.push(Assignment {
                    partition,
                    committed,
                    log_start,
                });
            }
        }
        let changed = !assignments.is_empty();
        for assignment in assignments {
            self.assigned(&assignment);
            handler.assigned(assignment);
        }
        changed
    }

    fn partition(&self, state: &State, place: Place) -> Option<Partition> {
        let name = &state.topics.get(place.topic)?.name;
        let topic = self.log.topics.find_name(name)?;
        let index = place.index;
        Some(Partition { topic, index })
    }
}
