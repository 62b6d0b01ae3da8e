//! The policy of a lane, by example and by property.

mod edges;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    concurrency: 4,
    queue: 16,
    wait: Duration::from_secs(2),
};

const CALM: Pressure = Pressure {
    slots: 1000,
    free: 900,
    active: 3,
    failing: 0,
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn offer(lane: &mut Lane, now: i64, queue: Queue) -> Offer {
    lane.offer(at(now), queue, CALM, &Unlimited)
}

fn next(lane: &mut Lane, now: i64) -> Turn {
    lane.next(at(now), &mut Unlimited)
}

/// A lane with so many in flight since time 0.
fn busy(count: usize) -> Lane {
    let mut lane = Lane::new(LIMITS);
    for _ in 0..count {
        assert_eq!(offer(&mut lane, 0, Queue::Fresh), Offer::Queue);
        assert_eq!(next(&mut lane, 0), Turn::Start(Queue::Fresh));
    }
    lane
}

#[test]
fn a_hanging_receiver_is_deferred_and_a_quick_one_queues() {
    let mut lane = busy(4);
    assert_eq!(offer(&mut lane, 10, Queue::Fresh), Offer::Queue);
    assert_eq!(next(&mut lane, 10), Turn::Rest);
    assert!(matches!(
        offer(&mut lane, 3000, Queue::Fresh),
        Offer::Defer(_)
    ));
    lane.ended(ms(5), Signal::Good, at(3001));
    assert_eq!(next(&mut lane, 3001), Turn::Start(Queue::Fresh));
    assert_eq!(offer(&mut lane, 3001, Queue::Fresh), Offer::Queue);
}

/// The rung follows from all that waits, what was put off included, not from climbing.
#[test]
fn what_is_out_on_rungs_lengthens_the_wait() {
    let mut lane = busy(4);
    let wait_at = |lane: &mut Lane, now| match offer(lane, now, Queue::Fresh) {
        Offer::Defer(wait) => wait,
        Offer::Queue => panic!("queued"),
    };
    let first = wait_at(&mut lane, 3000);
    for _ in 0..40 {
        lane.deferred(0, at(3000));
    }
    let later = wait_at(&mut lane, 3000);
    assert_eq!((first, later), (ms(3000), ms(33_000)));
    // Two seconds on they are due, here or with another instance.
    assert_eq!(wait_at(&mut lane, 6000), ms(6000));
}

#[test]
fn a_share_of_the_starts_is_for_what_has_waited() {
    let mut lane = busy(1);
    for _ in 0..8 {
        offer(&mut lane, 0, Queue::Fresh);
    }
    for _ in 0..2 {
        offer(&mut lane, 0, Queue::Old);
    }
    let mut starts = Vec::new();
    for n in 0..10 {
        match next(&mut lane, n) {
            Turn::Start(queue) => starts.push(queue == Queue::Old),
            turn => assert_eq!(turn, Turn::Rest),
        }
        lane.ended(ms(1), Signal::Good, at(n));
    }
    let old: Vec<_> = (0..starts.len()).filter(|n| starts[*n]).collect();
    // One fresh delivery had started before.
    assert_eq!(old, [2, 6]);
}

#[test]
fn a_breaker_opens_on_timeouts_and_probes_with_one_delivery() {
    let mut lane = busy(1);
    let mut now = 0;
    for _ in 0..7 {
        now += 1000;
        lane.ended(ms(1000), Signal::TimedOut, at(now));
        assert!(matches!(offer(&mut lane, now, Queue::Old), Offer::Queue));
        assert!(matches!(next(&mut lane, now), Turn::Start(_)));
    }
    // What is queued when it opens is put off, and so is what arrives.
    offer(&mut lane, now, Queue::Fresh);
    now += 1000;
    lane.ended(ms(1000), Signal::TimedOut, at(now));
    let open = Duration::from_secs(15);
    assert!(matches!(next(&mut lane, now), Turn::Defer(Queue::Fresh, wait) if wait >= open));
    assert_eq!(next(&mut lane, now), Turn::Rest);
    assert!(matches!(
        offer(&mut lane, now, Queue::Fresh),
        Offer::Defer(wait) if wait >= open
    ));
    let probe = now + 15_000;
    assert!(matches!(
        offer(&mut lane, probe, Queue::Fresh),
        Offer::Queue
    ));
    assert!(matches!(next(&mut lane, probe), Turn::Start(_)));
    assert!(matches!(
        offer(&mut lane, probe, Queue::Fresh),
        Offer::Defer(_)
    ));
    lane.ended(ms(3), Signal::Failed, at(probe + 3));
    assert!(matches!(
        offer(&mut lane, probe + 3, Queue::Fresh),
        Offer::Queue
    ));
}

#[test]
fn failures_that_answer_do_not_open_it() {
    let mut lane = busy(1);
    for n in 0..100 {
        lane.ended(ms(1), Signal::Failed, at(n));
        assert!(matches!(offer(&mut lane, n, Queue::Old), Offer::Queue));
        assert!(matches!(next(&mut lane, n), Turn::Start(_)));
    }
}

#[test]
fn retry_after_holds_the_lane_and_puts_its_queue_off() {
    let mut lane = busy(4);
    offer(&mut lane, 1, Queue::Fresh);
    lane.ended(ms(1), Signal::Busy(Some(ms(1500))), at(1));
    assert_eq!(next(&mut lane, 1), Turn::Wait(ms(1500)));
    lane.ended(ms(1), Signal::Busy(Some(ms(9000))), at(1));
    assert!(matches!(next(&mut lane, 1), Turn::Defer(Queue::Fresh, wait) if wait >= ms(9000)));
    assert_eq!(next(&mut lane, 1), Turn::Rest);
    lane.ended(ms(1), Signal::Good, at(1));
    lane.ended(ms(1), Signal::Good, at(1));
    assert!(matches!(offer(&mut lane, 2, Queue::Old), Offer::Defer(_)));
    assert!(matches!(offer(&mut lane, 9001, Queue::Fresh), Offer::Queue));
    assert_eq!(next(&mut lane, 9001), Turn::Start(Queue::Fresh));
}

#[test]
fn failing_lanes_share_half_of_the_process() {
    let mut lane = busy(2);
    lane.ended(ms(1), Signal::Failed, at(1));
    let half = Pressure {
        failing: 500,
        ..CALM
    };
    assert!(matches!(
        lane.offer(at(2), Queue::Fresh, half, &Unlimited),
        Offer::Defer(_)
    ));
    lane.ended(ms(1), Signal::Good, at(3));
    assert!(matches!(
        lane.offer(at(4), Queue::Fresh, half, &Unlimited),
        Offer::Queue
    ));
}

/// A burst that fills the process evenly is served by taking in no more; one lane's flood is not.
#[test]
fn a_flood_is_put_off_and_an_even_burst_is_not() {
    let limits = Limits {
        concurrency: 4,
        queue: 10_000,
        wait: Duration::from_secs(2),
    };
    let flood = |active: usize, count: usize| {
        let mut lane = Lane::new(limits);
        let mut put_off = 0;
        for taken in 0..count {
            let pressure = Pressure {
                slots: 1000,
                free: 650usize.saturating_sub(taken * active.min(100)),
                active,
                failing: 0,
            };
            // Its receiver has been busy for a while.
            match lane.offer(at(600), Queue::Fresh, pressure, &Unlimited) {
                Offer::Queue => {}
                Offer::Defer(_) => put_off += 1,
            }
            while let Turn::Start(_) = lane.next(at(0), &mut Unlimited) {}
        }
        put_off
    };
    assert_eq!(flood(100, 10), 0);
    assert!(flood(4, 600) > 0);
}

/// Gives a start every so often, and notes them.
struct Every {
    interval: Duration,
    free: Timestamp,
}

impl Pace for Every {
    fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        if now < self.free {
            return Err(self.free.since(now));
        }
        self.free = now + self.interval;
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}

#[test]
fn a_rate_limit_queues_for_a_moment_and_defers_the_rest() {
    let mut lane = Lane::new(LIMITS);
    let mut pace = Every {
        interval: ms(500),
        free: Timestamp::EPOCH,
    };
    let mut waits = Vec::new();
    for _ in 0..8 {
        match lane.offer(at(0), Queue::Fresh, CALM, &pace) {
            Offer::Queue => waits.push(0),
            Offer::Defer(wait) => {
                lane.deferred(0, at(0));
                waits.push(wait.as_millis());
            }
        }
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 2500, 3000, 3500]);
    assert_eq!(lane.next(at(0), &mut pace), Turn::Start(Queue::Fresh));
    assert_eq!(lane.next(at(0), &mut pace), Turn::Wait(ms(500)));
    assert_eq!(lane.next(at(500), &mut pace), Turn::Start(Queue::Fresh));
}

#[test]
fn an_idle_lane_is_forgotten_when_nothing_of_it_is_out() {
    let mut lane = busy(1);
    assert!(!lane.is_forgettable(at(1_000_000)));
    lane.ended(ms(1), Signal::Good, at(1));
    assert!(!lane.is_forgettable(at(60_000)));
    assert!(lane.is_forgettable(at(200_000)));
    lane.deferred(4, at(200_000));
    assert!(!lane.is_forgettable(at(400_000)));
}

fn signal() -> impl Strategy<Value = Signal> {
    prop_oneof![
        4 => Just(Signal::Good),
        1 => Just(Signal::Failed),
        1 => Just(Signal::None),
        1 => Just(Signal::TimedOut),
        1 => (0u64..20_000).prop_map(|wait| Signal::Busy(Some(ms(wait)))),
    ]
}

proptest! {
    /// DL5: never more in flight than the limit, never more queued than the limit, and what is
    /// offered is started, queued or deferred, never forgotten. While something could start, it does,
    /// or a wait is given.
    #[test]
    fn bounded_and_conserving(
        steps in proptest::collection::vec((0u8..4, 0i64..2000, signal(), 0usize..1000), 1..400),
        interval in prop_oneof![Just(0u64), 1u64..500],
    ) {
        let mut lane = Lane::new(LIMITS);
        let mut pace = Every { interval: ms(interval), free: Timestamp::EPOCH };
        let (mut offered, mut started, mut deferred, mut ended) = (0, 0, 0, 0);
        let mut now = 0;
        for (what, later, signal, failing) in steps {
            now += later;
            if what < 3 {
                offered += 1;
                let queue = [Queue::Fresh, Queue::Old][usize::from(what > 0)];
                let pressure = Pressure { failing, ..CALM };
                if let Offer::Defer(_) = lane.offer(at(now), queue, pressure, &pace) {
                    deferred += 1;
                    lane.deferred(0, at(now));
                }
            } else if lane.in_flight() > 0 {
                ended += 1;
                lane.ended(Duration::from_millis(later.unsigned_abs()), signal, at(now));
            }
            let last = loop {
                match lane.next(at(now), &mut pace) {
                    Turn::Start(_) => started += 1,
                    Turn::Defer(..) => deferred += 1,
                    last => break last,
                }
            };
            prop_assert!(lane.in_flight() <= LIMITS.concurrency);
            prop_assert!(lane.queued() <= LIMITS.queue);
            prop_assert_eq!(lane.in_flight(), started - ended);
            prop_assert_eq!(offered, started + lane.queued() + deferred);
            match last {
                Turn::Rest => prop_assert!(lane.queued() == 0 || lane.in_flight() > 0),
                Turn::Wait(wait) => prop_assert!(lane.queued() > 0 && wait > Duration::ZERO),
                _ => prop_assert!(false),
            }
        }
    }
}
