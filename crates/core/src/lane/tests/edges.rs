//! Where a lane's decisions turn, to the request and to the millisecond.

use super::*;
use crate::catalogue::Family;

fn one_at_a_time(queue: usize, wait: Duration) -> Lane {
    Lane::new(Limits {
        concurrency: 1,
        queue,
        wait,
    })
}

fn start(lane: &mut Lane, now: i64) {
    assert_eq!(offer(lane, now, Queue::Fresh), Offer::Queue);
    assert_eq!(next(lane, now), Turn::Start(Queue::Fresh));
}

#[test]
fn what_has_waited_before_has_a_queue_of_its_own() {
    for role in [Role::Retry(2), Role::Defer(0), Role::Replay] {
        assert_eq!(Queue::of(role), Queue::Old);
    }
    for role in [Role::Events(Family::Cdr), Role::SystemEvents] {
        assert_eq!(Queue::of(role), Queue::Fresh);
    }
}

#[test]
fn a_quarter_of_the_queue_is_kept_for_what_has_waited() {
    let mut lane = one_at_a_time(8, ms(60_000));
    for _ in 0..6 {
        assert_eq!(offer(&mut lane, 0, Queue::Fresh), Offer::Queue);
    }
    assert!(matches!(offer(&mut lane, 0, Queue::Fresh), Offer::Defer(_)));
    for _ in 0..2 {
        assert_eq!(offer(&mut lane, 0, Queue::Old), Offer::Queue);
    }
    assert!(matches!(offer(&mut lane, 0, Queue::Old), Offer::Defer(_)));
}

#[test]
fn a_wait_that_is_just_short_enough_is_waited() {
    for (asked, deferred) in [(2000, false), (2001, true)] {
        let mut lane = busy(1);
        assert_eq!(offer(&mut lane, 0, Queue::Fresh), Offer::Queue);
        lane.ended(ms(1), Signal::Busy(Some(ms(asked))), at(1));
        match next(&mut lane, 1) {
            Turn::Wait(wait) => assert!(!deferred && wait == ms(asked)),
            turn => assert!(deferred && matches!(turn, Turn::Defer(..)), "{turn:?}"),
        }
    }
}

/// The wait is told by the time since the request began, not since the one before it ended.
#[test]
fn progress_begins_with_the_first_request_of_a_busy_time() {
    let mut lane = one_at_a_time(8, ms(5000));
    start(&mut lane, 3_600_000);
    assert_eq!(offer(&mut lane, 3_601_000, Queue::Fresh), Offer::Queue);
    assert!(matches!(
        offer(&mut lane, 3_606_000, Queue::Fresh),
        Offer::Defer(_)
    ));
}

#[test]
fn how_long_requests_take_is_averaged() {
    let mut lane = one_at_a_time(8, ms(7999));
    for now in [8000, 16_000] {
        start(&mut lane, now - 8000);
        lane.ended(ms(8000), Signal::Good, at(now));
    }
    start(&mut lane, 16_000);
    let deferred = offer(&mut lane, 16_000, Queue::Fresh);
    assert_eq!(deferred, Offer::Defer(ms(8000)));
    lane.ended(ms(16_000), Signal::Good, at(32_000));
    start(&mut lane, 32_000);
    let deferred = offer(&mut lane, 32_000, Queue::Fresh);
    assert_eq!(deferred, Offer::Defer(ms(9000)));
}

/// Only an answer to a request that held others back says that more would be taken.
#[test]
fn the_limit_grows_when_it_is_used() {
    let in_flight_after = |together: bool| {
        let mut lane = Lane::new(Limits {
            concurrency: 8,
            ..LIMITS
        });
        let offer_all = |lane: &mut Lane| {
            for _ in 0..8 {
                assert_eq!(offer(lane, 1, Queue::Fresh), Offer::Queue);
            }
            while next(lane, 1) != Turn::Rest {}
        };
        match together {
            true => offer_all(&mut lane),
            false => start(&mut lane, 1),
        }
        lane.ended(ms(1), Signal::Good, at(1));
        if !together {
            offer_all(&mut lane);
        }
        while next(&mut lane, 1) != Turn::Rest {}
        lane.in_flight()
    };
    assert_eq!(in_flight_after(true), 5);
    assert_eq!(in_flight_after(false), 4);
}

#[test]
fn a_changed_webhook_is_tried_at_once() {
    let mut lane = busy(1);
    lane.ended(ms(1), Signal::Busy(Some(ms(100_000))), at(1));
    assert!(lane.is_failing());
    assert!(matches!(offer(&mut lane, 2, Queue::Fresh), Offer::Defer(_)));
    lane.renew();
    assert!(!lane.is_failing());
    start(&mut lane, 3);
}

/// So long between two starts.
struct Every(Duration);

impl Pace for Every {
    fn take(&mut self, _now: Timestamp) -> Result<(), Duration> {
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.0
    }
}

/// A lane that holds so many.
fn holding(in_flight: usize, fresh: usize, old: usize) -> Lane {
    let mut lane = Lane::new(LIMITS);
    (lane.in_flight, lane.fresh, lane.old) = (in_flight, fresh, old);
    lane
}

#[test]
fn a_queue_waits_for_its_share_of_the_rounds() {
    let wait = |fresh, old, queue| {
        let lane = holding(0, fresh, old);
        lane.wait_in(queue, at(0), &Every(ms(1))).as_millis()
    };
    assert_eq!(wait(7, 9, Queue::Fresh), 7 + 2);
    assert_eq!(wait(7, 1, Queue::Fresh), 7 + 1);
    assert_eq!(wait(9, 9, Queue::Fresh), 9 + 3);
    assert_eq!(wait(9, 2, Queue::Old), 2 + 6);
    assert_eq!(wait(4, 2, Queue::Old), 2 + 4);
}

#[test]
fn who_holds_more_than_his_share_for_long_is_a_hog() {
    let is_hogging = |holds: usize, active, wait| {
        let pressure = Pressure {
            slots: 160,
            free: 20,
            active,
            failing: 0,
        };
        let lane = holding(2, 3, holds - 5);
        assert_eq!(lane.holds(), holds);
        lane.is_hogging(pressure, ms(wait))
    };
    // A quarter of the slots, and what is free.
    assert!(!is_hogging(60, 3, 1000));
    assert!(is_hogging(61, 3, 1000));
    // Never less than a sixteenth.
    assert!(!is_hogging(30, 79, 1000));
    assert!(is_hogging(31, 79, 1000));
    // A quarter of the wait that is allowed.
    assert!(!is_hogging(61, 3, 500));
    assert!(is_hogging(61, 3, 501));
}

#[test]
fn a_lane_is_forgotten_when_nothing_happens_for_long() {
    let lane = Lane::new(LIMITS);
    assert!(!lane.is_forgettable(at(120_000)));
    assert!(lane.is_forgettable(at(120_001)));
}
