//! How much the process takes in at a time, shared between classes of work so that none starves
//! another: each class has a reserve of its own, and what nobody has reserved is open to all.

use std::fmt;

use crate::catalogue::Family;
use crate::topics::Role;

/// A class of work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Events of the family `cdr`.
    Cdr,
    /// Events of the family `extension`: they come in floods.
    Extension,
    /// All other events.
    Resource,
    /// Retries.
    Retry,
    /// Deferred deliveries, replays and tests.
    Defer,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 5] = [
        Self::Cdr,
        Self::Extension,
        Self::Resource,
        Self::Retry,
        Self::Defer,
    ];

    /// The class of what a topic holds; `None` when a dispatcher does not deliver it.
    pub fn of(role: Role) -> Option<Self> {
        match role {
            Role::Events(Family::Cdr) => Some(Self::Cdr),
            Role::Events(Family::Extension) => Some(Self::Extension),
            Role::Events(Family::Resource) | Role::SystemEvents => Some(Self::Resource),
            Role::Retry(_) => Some(Self::Retry),
            Role::Defer(_) | Role::Replay => Some(Self::Defer),
            _ => None,
        }
    }

    /// Its share of the reserves, in percent of all slots. First passages get about 70, retries 20
    /// and deferrals 10 of every 100 reserved; half of all slots is reserved.
    fn reserve_percent(self) -> usize {
        match self {
            Self::Cdr => 15,
            Self::Extension | Self::Resource | Self::Retry => 10,
            Self::Defer => 5,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cdr => "cdr",
            Self::Extension => "extension",
            Self::Resource => "resource",
            Self::Retry => "retry",
            Self::Defer => "defer",
        })
    }
}

/// The slots of a process: one per delivery that was taken in and is not settled.
#[derive(Clone, Debug)]
pub struct Slots {
    reserved: [usize; 5],
    used: [usize; 5],
    total: usize,
}

impl Slots {
    /// So many slots; at least one per class.
    pub fn new(total: usize) -> Self {
        let total = total.max(2 * Class::ALL.len());
        let reserved = Class::ALL.map(|class| (total * class.reserve_percent() / 100).max(1));
        Self {
            reserved,
            used: [0; 5],
            total,
        }
    }

    /// How many slots a class could take now.
    pub fn free(&self, class: Class) -> usize {
        // What others use, or have reserved and do not use, is not ours.
        let others: usize = Class::ALL
            .iter()
            .filter(|other| **other != class)
            .map(|other| self.used[*other as usize].max(self.reserved[*other as usize]))
            .sum();
        self.total
            .saturating_sub(others + self.used[class as usize])
    }

    /// Takes slots, without asking: a record's fan-out is taken as a whole, so the total can be
    /// exceeded by one record's fan-out per thread.
    pub fn take(&mut self, class: Class, count: usize) {
        self.used[class as usize] += count;
    }

    /// Gives slots back.
    pub fn give_back(&mut self, class: Class, count: usize) {
        self.used[class as usize] = self.used[class as usize].saturating_sub(count);
    }

    /// Slots in use by a class.
    pub fn used(&self, class: Class) -> usize {
        self.used[class as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// R15: whatever the others do, each class can always use its reserve, and together they
        /// never use more than all.
        #[test]
        fn no_class_starves_and_none_overdraws(
            total in 20usize..5000,
            steps in proptest::collection::vec((0usize..5, any::<bool>(), 1usize..200), 0..200),
        ) {
            let mut slots = Slots::new(total);
            let mut held = [0; 5];
            for (class, take, count) in steps {
                let held = &mut held[class];
                let class = Class::ALL[class];
                if take {
                    let count = count.min(slots.free(class));
                    slots.take(class, count);
                    *held += count;
                } else {
                    let count = count.min(*held);
                    slots.give_back(class, count);
                    *held -= count;
                }
                prop_assert_eq!(slots.used(class), *held);
                prop_assert!(Class::ALL.iter().map(|class| slots.used(*class)).sum::<usize>() <= slots.total);
                for class in Class::ALL {
                    prop_assert!(slots.used(class) + slots.free(class) >= slots.reserved[class as usize]);
                }
            }
        }
    }

    #[test]
    fn every_topic_that_is_delivered_has_its_class() {
        let classes = [
            (Role::Events(Family::Cdr), Some("cdr")),
            (Role::Events(Family::Extension), Some("extension")),
            (Role::Events(Family::Resource), Some("resource")),
            (Role::SystemEvents, Some("resource")),
            (Role::Retry(0), Some("retry")),
            (Role::Defer(0), Some("defer")),
            (Role::Replay, Some("defer")),
            (Role::Parked, None),
        ];
        for (role, name) in classes {
            let class = Class::of(role).map(|class| class.to_string());
            assert_eq!(class.as_deref(), name);
        }
    }

    #[test]
    fn an_idle_process_gives_one_class_what_nobody_reserved() {
        let slots = Slots::new(1000);
        assert_eq!(slots.free(Class::Cdr), 1000 - 350);
        assert_eq!(slots.free(Class::Defer), 1000 - 450);
    }
}
