//! Wakes the one thread of a consumer, from any thread, cheaply.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A flag that a thread can wait for. Setting it twice before the thread looks costs one store.
#[derive(Default)]
pub(super) struct Signal {
    set: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    /// Sets the flag.
    pub(super) fn set(&self) {
        if !self.set.swap(true, Ordering::AcqRel) {
            // The lock closes the gap between the waiter's look at the flag and its sleep.
            let _guard = self.lock.lock();
            self.changed.notify_one();
        }
    }

    /// Waits until the flag is set or the time has come, and clears it.
    pub(super) fn wait_until(&self, deadline: Instant) {
        let mut guard = self.lock.lock();
        while !self.set.swap(false, Ordering::AcqRel) {
            if self.changed.wait_until(&mut guard, deadline).timed_out() {
                self.set.store(false, Ordering::Release);
                return;
            }
        }
    }
}
