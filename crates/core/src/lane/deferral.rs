//! Deferral: to which rung a delivery is put off, and what of a lane is out there on rungs.

use std::time::Duration;

use crate::time::Timestamp;
use crate::topics::DEFER_RUNGS;

/// At most this many times is a delivery rewritten without an attempt.
pub const DEFERRALS_MAX: u8 = 30;

/// After what is due on a rung has not come back for this long, another instance has it.
const GRACE: Duration = Duration::from_secs(60);

/// The rung for a delivery that would wait this long, was deferred `deferrals` times before, and may
/// still be attempted for `remaining`: the nearest one, but long enough that the rewrites left
/// ([`DEFERRALS_MAX`]) last for the time that remains.
pub fn rung_for(wait: Duration, deferrals: u8, remaining: Duration) -> usize {
    let nearest = (0..DEFER_RUNGS.len())
        .min_by_key(|rung| DEFER_RUNGS[*rung].abs_diff(wait))
        .unwrap_or_default();
    let left = u32::from(DEFERRALS_MAX.saturating_sub(deferrals)).max(1);
    // The first half of the rewrites is free to be quick; the second half must last.
    if u32::from(deferrals) * 2 < u32::from(DEFERRALS_MAX) && remaining / left < DEFER_RUNGS[4] {
        return nearest;
    }
    let lasting = DEFER_RUNGS
        .iter()
        .position(|rung| *rung * left >= remaining);
    nearest.max(lasting.unwrap_or(DEFER_RUNGS.len() - 1))
}

/// What a lane put off and has not seen come back: it is still its backlog.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outstanding {
    rungs: [Rung; DEFER_RUNGS.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    count: usize,
    /// When the last of them is due.
    due: Timestamp,
}

impl Outstanding {
    pub(super) fn left(&mut self, rung: usize, now: Timestamp) {
        if let (Some(state), Some(delay)) = (self.rungs.get_mut(rung), DEFER_RUNGS.get(rung)) {
            if now > state.due + GRACE {
                state.count = 0;
            }
            state.count += 1;
            state.due = now + *delay;
        }
    }

    /// One that may have been put off by another instance: rungs are shared, and even out.
    pub(super) fn came_back(&mut self, rung: usize) {
        if let Some(state) = self.rungs.get_mut(rung) {
            state.count = state.count.saturating_sub(1);
        }
    }

    pub(super) fn count(&self, now: Timestamp) -> usize {
        let waiting = |rung: &&Rung| now <= rung.due + GRACE;
        self.rungs
            .iter()
            .filter(waiting)
            .map(|rung| rung.count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rungs_are_the_nearest_while_rewrites_last() {
        let hour = Duration::from_secs(3600);
        assert_eq!(rung_for(Duration::from_secs(1), 0, 20 * hour), 0);
        assert_eq!(rung_for(Duration::from_secs(100), 3, 20 * hour), 2);
        assert_eq!(rung_for(Duration::from_secs(1), 29, 20 * hour), 4);
        assert_eq!(rung_for(Duration::MAX, 0, hour), 4);
    }

    #[test]
    fn what_is_out_counts_until_it_is_back_or_overdue() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut out = Outstanding::default();
        out.left(0, at(0));
        out.left(0, at(1));
        out.left(2, at(1));
        assert_eq!(out.count(at(2)), 3);
        out.came_back(0);
        out.came_back(1);
        assert_eq!(out.count(at(2)), 2);
        assert_eq!(out.count(at(100)), 1);
        assert_eq!(out.count(at(182)), 0);
    }

    proptest! {
        /// However often a delivery is put off, it is rewritten at most 30 times in its 24 hours.
        #[test]
        fn at_most_thirty_rewrites(waits in proptest::collection::vec(0u64..7200, 100)) {
            let mut remaining = Duration::from_secs(86_400);
            let mut deferrals = 0u8;
            for wait in waits {
                let rung = DEFER_RUNGS[rung_for(Duration::from_secs(wait), deferrals, remaining)];
                if rung > remaining {
                    break;
                }
                remaining -= rung;
                deferrals += 1;
            }
            prop_assert!(deferrals <= DEFERRALS_MAX, "{} rewrites", deferrals);
        }
    }
}
