//! Deferral: to which rung a delivery is put off, and what of a lane is out there on rungs.

use std::time::Duration;

use crate::time::Timestamp;
use crate::topics::DEFER_RUNGS;

/// At most this many times is a delivery rewritten without an attempt.
pub const DEFERRALS_MAX: u8 = 30;

/// What is put off within this part of a rung's delay is counted as due together.
const GRAIN: u32 = 8;

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

/// What a lane put off and is not due yet: still its backlog. It goes by time alone, because what
/// comes back may come back to another instance. Empty, and without memory, while nothing is put off.
#[derive(Clone, Debug, Default)]
pub(super) struct Outstanding {
    /// When so many are due; at most [`GRAIN`] + 1 entries per rung.
    due: Vec<(Timestamp, usize)>,
}

impl Outstanding {
    pub(super) fn left(&mut self, rung: usize, now: Timestamp) {
        let Some(delay) = DEFER_RUNGS.get(rung) else {
            return;
        };
        self.due.retain(|(due, _)| *due > now);
        // Rounded up, so that what is due together is one entry.
        let grain = i64::try_from((*delay / GRAIN).as_micros()).unwrap_or(i64::MAX);
        let due = (now + *delay).as_micros();
        let due = Timestamp::from_micros(due.saturating_add(grain - due.rem_euclid(grain)));
        match self.due.iter_mut().find(|entry| entry.0 == due) {
            Some((_, count)) => *count += 1,
            None => self.due.push((due, 1)),
        }
    }

    pub(super) fn count(&self, now: Timestamp) -> usize {
        let waiting = self.due.iter().filter(|(due, _)| *due > now);
        waiting.map(|(_, count)| count).sum()
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
    fn what_is_out_counts_until_it_is_due() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut out = Outstanding::default();
        out.left(0, at(0));
        out.left(0, at(1));
        out.left(2, at(1));
        assert_eq!(out.count(at(1)), 3);
        assert_eq!(out.count(at(4)), 1);
        assert_eq!(out.count(at(120)), 1);
        assert_eq!(out.count(at(137)), 0);
    }

    proptest! {
        /// It counts what is not due yet, to an eighth of the rung's delay, in bounded memory.
        #[test]
        fn counts_what_is_not_due(
            left in proptest::collection::vec((0usize..5, 0i64..400), 0..300),
            later in 0i64..8000,
        ) {
            let (mut out, mut now, mut all) = (Outstanding::default(), 0, Vec::new());
            for (rung, after) in left {
                now += after;
                out.left(rung, Timestamp::from_millis(now * 1000));
                all.push((now, i64::try_from(DEFER_RUNGS[rung].as_secs()).unwrap()));
            }
            now += later;
            let count = out.count(Timestamp::from_millis(now * 1000));
            let surely = all.iter().filter(|(at, delay)| at + delay > now).count();
            let perhaps = all.iter().filter(|(at, delay)| at + delay + delay / 8 + 1 > now).count();
            prop_assert!((surely..=perhaps).contains(&count), "{surely} <= {count} <= {perhaps}");
            let most = DEFER_RUNGS.len() * (GRAIN as usize + 1);
            prop_assert!(out.due.len() <= most, "{} entries", out.due.len());
        }

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
