//! A partition that this process owns, and the records of it that are being worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use ringback_core::admission::{Class, Slots};
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
    pub(crate) gauge: Arc<Gauge>,
}

/// What the intake threads and the lanes share: how much is taken in, and who waits for room.
pub(crate) struct Gauge {
    slots: Mutex<Slots>,
    /// Set by an intake that left records unread for want of room.
    starving: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Gauge {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(Slots::new(slots)),
            starving: AtomicBool::new(false),
            wakers: Mutex::default(),
        })
    }

    pub(crate) fn add_waker(&self, waker: Waker) {
        self.wakers.lock().push(waker);
    }

    pub(crate) fn wake_all(&self) {
        for waker in self.wakers.lock().iter() {
            waker.wake();
        }
    }

    /// Slots that this class may take now. 0 asks to be woken when some are given back.
    pub(crate) fn room(&self, class: Class) -> usize {
        let free = self.slots.lock().free(class);
        if free == 0 {
            self.starving.store(true, Ordering::Release);
            // Given back between the two lines: look again, now that we would be woken.
            return self.slots.lock().free(class);
        }
        free
    }

    pub(crate) fn starve(&self) {
        self.starving.store(true, Ordering::Release);
    }

    pub(crate) fn used(&self, class: Class) -> usize {
        self.slots.lock().used(class)
    }

    fn take(&self, class: Class, count: usize) {
        self.slots.lock().take(class, count);
    }

    fn give_back(&self, class: Class, count: usize) {
        self.slots.lock().give_back(class, count);
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
        *self.owned.write() = false;
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
}

impl Work {
    /// Takes slots for all deliveries of a record.
    pub(crate) fn begin(owned: &Arc<Owned>, offset: Offset, deliveries: usize) -> Arc<Self> {
        owned.in_flight.fetch_add(1, Ordering::AcqRel);
        owned.gauge.take(owned.class, deliveries);
        Arc::new(Self {
            owned: owned.clone(),
            offset,
            remaining: AtomicUsize::new(deliveries),
            deliveries,
        })
    }

    /// One delivery has a durable outcome (invariant DL3).
    pub(crate) fn settled(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.owned.tracker.lock().finish(self.offset);
            self.owned.dirty.store(true, Ordering::Release);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.owned.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.owned
            .gauge
            .give_back(self.owned.class, self.deliveries);
    }
}
