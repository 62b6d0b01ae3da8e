//! A partition that this process owns, and the records of it that are being worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use ringback_core::admission::{Class, Slots};
use ringback_core::check_invariant;
use ringback_core::event::DATA_BYTES_MAX;
use ringback_core::invariant::{Invariant, count};
use ringback_core::log::{Assignment, Offset, Waker};
use ringback_core::topics::{Partition, Role};
use ringback_core::tracker::Tracker;

/// A partition from its assignment to its loss.
pub(crate) struct Owned {
    pub(crate) partition: Partition,
    pub(crate) role: Role,
    pub(crate) class: Class,
    pub(crate) tracker: Mutex<Tracker>,
    /// Records handed to the lanes and not finished.
    pub(crate) in_flight: AtomicUsize,
    /// Something finished since the last commit.
    pub(crate) dirty: AtomicBool,
    owned: RwLock<bool>,
    /// The same without a lock, for whoever checks while it is held.
    given_up: AtomicBool,
    pub(crate) gauge: Arc<Gauge>,
}

/// What the intake threads and the lanes share: how much is taken in, and who waits for room.
pub(crate) struct Gauge {
    taken: Mutex<Taken>,
    /// Set by an intake that left records unread for want of room.
    starving: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    /// The process ends: what it was doing is left to others.
    closing: AtomicBool,
}

/// What is taken in, by two measures: a process has room for so many deliveries, and for so much data.
struct Taken {
    deliveries: Slots,
    kibibytes: Slots,
}

impl Taken {
    /// Deliveries that this class may take now, if each has as much data as an event can have.
    fn free(&self, class: Class) -> usize {
        let deliveries = self.deliveries.free(class);
        match self.kibibytes.free(class) {
            0 => 0,
            kibibytes => deliveries.min((kibibytes / kibibytes_of(DATA_BYTES_MAX)).max(1)),
        }
    }
}

/// Rounded up: nothing weighs nothing.
fn kibibytes_of(bytes: usize) -> usize {
    bytes / 1024 + 1
}

impl Gauge {
    /// Room for so many deliveries with so many bytes of data.
    pub(crate) fn new(slots: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::new(Taken {
                deliveries: Slots::new(slots),
                kibibytes: Slots::new(bytes / 1024),
            }),
            starving: AtomicBool::new(false),
            wakers: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// What is dropped from now on is left to the next owner.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn add_waker(&self, waker: Waker) {
        self.wakers.lock().push(waker);
    }

    pub(crate) fn wake_all(&self) {
        for waker in self.wakers.lock().iter() {
            waker.wake();
        }
    }

    /// Deliveries that this class may take now. 0 asks to be woken when some are given back.
    pub(crate) fn room(&self, class: Class) -> usize {
        let free = self.taken.lock().free(class);
        if free == 0 {
            self.starving.store(true, Ordering::Release);
            // Given back between the two lines: look again, now that we would be woken.
            return self.taken.lock().free(class);
        }
        free
    }

    pub(crate) fn starve(&self) {
        self.starving.store(true, Ordering::Release);
    }

    pub(crate) fn used(&self, class: Class) -> usize {
        self.taken.lock().deliveries.used(class)
    }

    fn take(&self, class: Class, deliveries: usize, kibibytes: usize) {
        let mut taken = self.taken.lock();
        taken.deliveries.take(class, deliveries);
        taken.kibibytes.take(class, kibibytes);
    }

    fn give_back(&self, class: Class, deliveries: usize, kibibytes: usize) {
        let mut taken = self.taken.lock();
        taken.deliveries.give_back(class, deliveries);
        taken.kibibytes.give_back(class, kibibytes);
        drop(taken);
        if self.starving.load(Ordering::Acquire) && self.starving.swap(false, Ordering::AcqRel) {
            self.wake_all();
        }
    }
}

impl Owned {
    pub(crate) fn new(
        assignment: &Assignment,
        role: Role,
        class: Class,
        gauge: Arc<Gauge>,
    ) -> Arc<Self> {
        let tracker = Tracker::new(assignment.committed.as_ref(), assignment.log_start);
        Arc::new(Self {
            partition: assignment.partition,
            role,
            class,
            tracker: Mutex::new(tracker),
            in_flight: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            owned: RwLock::new(true),
            given_up: AtomicBool::new(false),
            gauge,
        })
    }

    /// Holds the partition while something is written for it; `None` when it is no longer ours
    /// (invariant DL8).
    pub(crate) fn hold(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let guard = self.owned.read();
        (*guard).then_some(guard)
    }

    /// It belongs to somebody else from now on.
    pub(crate) fn give_up(&self) {
        let mut owned = self.owned.write();
        *owned = false;
        self.given_up.store(true, Ordering::Release);
    }

    /// Something is written for it now: only while it is [held](Self::hold).
    pub(crate) fn check_written(&self) {
        check_invariant!(
            DL8,
            !self.given_up.load(Ordering::Acquire),
            "something is written for {:?}, which was given up",
            self.partition
        );
    }

    pub(crate) fn is_owned(&self) -> bool {
        *self.owned.read()
    }
}

/// A record whose deliveries are on their way. When the last one is settled, its offset is done; when
/// it is dropped before, the offset stays unfinished and is read again by the next owner.
pub(crate) struct Work {
    pub(crate) owned: Arc<Owned>,
    pub(crate) offset: Offset,
    remaining: AtomicUsize,
    deliveries: usize,
    kibibytes: usize,
}

impl Work {
    /// Takes room for all deliveries of a record. They share its data, of so many bytes.
    pub(crate) fn begin(
        owned: &Arc<Owned>,
        offset: Offset,
        deliveries: usize,
        bytes: usize,
    ) -> Arc<Self> {
        let kibibytes = kibibytes_of(bytes);
        owned.in_flight.fetch_add(1, Ordering::AcqRel);
        owned.gauge.take(owned.class, deliveries, kibibytes);
        Arc::new(Self {
            owned: owned.clone(),
            offset,
            remaining: AtomicUsize::new(deliveries),
            deliveries,
            kibibytes,
        })
    }

    /// One delivery has a durable outcome (invariant DL3).
    pub(crate) fn settled(&self) {
        let remaining = self.remaining.fetch_sub(1, Ordering::AcqRel);
        check_invariant!(
            DL3,
            (1..=self.deliveries).contains(&remaining),
            "more deliveries of {:?}@{} ended than there are",
            self.owned.partition,
            self.offset
        );
        if remaining == 1 {
            let finished = self.owned.tracker.lock().finish(self.offset);
            check_invariant!(
                DL3,
                finished,
                "{:?}@{} ended, but was not begun",
                self.owned.partition,
                self.offset
            );
            self.owned.dirty.store(true, Ordering::Release);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let unsettled = self.remaining.load(Ordering::Acquire);
        // Ours, and nobody works on it any more: it would wait for the next owner, and block commits.
        if unsettled > 0
            && !self.owned.given_up.load(Ordering::Acquire)
            && !self.owned.gauge.closing.load(Ordering::Acquire)
        {
            count(Invariant::DL1);
            tracing::error!(
                partition = ?self.owned.partition,
                offset = self.offset,
                unsettled,
                "deliveries were dropped without an outcome (DL1); restart this dispatcher to have them done"
            );
        }
        self.owned.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.owned
            .gauge
            .give_back(self.owned.class, self.deliveries, self.kibibytes);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use ringback_core::catalogue::Family;
    use ringback_core::invariant::violations;
    use ringback_core::schedule::Schedule;
    use ringback_core::topics::{Topics, TopicsConfig};
    use ringback_core::tracker::Begin;

    use super::*;

    fn owned() -> Arc<Owned> {
        owned_by(Gauge::new(100, 1 << 30))
    }

    fn owned_by(gauge: Arc<Gauge>) -> Arc<Owned> {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let role = Role::Events(Family::Cdr);
        let assignment = Assignment {
            partition: Partition {
                topic: topics.find(role).unwrap(),
                index: 0,
            },
            committed: None,
            log_start: 0,
        };
        Owned::new(&assignment, role, Class::Cdr, gauge)
    }

    fn panics(act: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(act)).is_err()
    }

    /// Of two deliveries, one is dropped: while the partition is ours, that is a loss.
    #[test]
    fn a_dropped_delivery_is_counted() {
        let dropped = |end: fn(&Owned)| {
            let owned = owned();
            let before = violations(Invariant::DL1);
            let work = Work::begin(&owned, 0, 2, 500);
            end(&owned);
            drop(work);
            assert_eq!(owned.gauge.used(Class::Cdr), 0);
            violations(Invariant::DL1) - before
        };
        assert_eq!(dropped(|_| {}), 1);
        assert_eq!(dropped(Owned::give_up), 0);
        assert_eq!(dropped(|owned| owned.gauge.close()), 0);
    }

    /// Few large events fill the room that many small ones would not, and only their own class's.
    #[test]
    fn data_takes_room() {
        let bytes = 32 << 20;
        let gauge = Gauge::new(4096, bytes);
        let owned = owned_by(gauge.clone());
        // They are dropped without an outcome.
        owned.give_up();
        let fill = |bytes| {
            let mut works = Vec::new();
            while gauge.room(Class::Cdr) > 0 {
                works.push(Work::begin(&owned, 0, 1, bytes));
            }
            assert!(gauge.room(Class::Retry) > 0);
            assert!(gauge.starving.load(Ordering::Acquire));
            works.len()
        };
        let large = fill(DATA_BYTES_MAX) * DATA_BYTES_MAX;
        assert!((bytes / 2..=bytes).contains(&large), "{large}");
        // Small ones are limited by their number.
        assert!(fill(500) > 2000);
        assert_eq!(gauge.used(Class::Cdr), 0);
    }

    #[test]
    fn an_offset_that_ends_twice_is_counted() {
        let owned = owned();
        assert_eq!(owned.tracker.lock().begin(0), Begin::New);
        let work = Work::begin(&owned, 0, 1, 500);
        work.settled();
        let before = violations(Invariant::DL3);
        assert!(panics(|| work.settled()));
        // One that was never begun ends.
        let other = Work::begin(&owned, 7, 1, 500);
        assert!(panics(|| other.settled()));
        assert_eq!(violations(Invariant::DL3), before + 2);
    }

    #[test]
    fn what_is_written_after_a_revoke_is_counted() {
        let owned = owned();
        owned.check_written();
        owned.give_up();
        assert!(owned.hold().is_none());
        let before = violations(Invariant::DL8);
        assert!(panics(|| owned.check_written()));
        assert_eq!(violations(Invariant::DL8), before + 1);
    }
}
