//! The simulated engine: the conformance suite, and that each fault happens when it is asked for and
//! only then.

mod sim_support;

use std::time::Duration;

use ringback_core::log::{
    AppendError, Committed, Consumer, Follower, Log, LogError, Reader, Revision, WriteError,
};
use ringback_core::topics::Role;
use ringback_log::conformance;
use ringback_log::sim::{AppendFault, Chances, Drive, Seen, SetFault, Sim, SimClock, SimOptions};

use crate::sim_support::{CDR, START, World, at, table};

const NOW: Duration = Duration::ZERO;

#[test]
fn conforms() {
    let sim = Sim::new(SimOptions::default()).unwrap();
    conformance::all(|topics| sim.open(topics));
    let Seen {
        revoked, exposed, ..
    } = sim.seen();
    // Members of the suite come and go, and some commit nothing.
    let unasked = Seen {
        revoked,
        exposed,
        ..Seen::default()
    };
    assert_eq!(sim.seen(), unasked, "nothing fails that was not asked to");
}

#[test]
fn a_failed_append_is_not_in_the_log() {
    let world = World::new();
    world.sim.fault_append("t.events.cdr", AppendFault::Fail);
    let other = world.put("t.retry.1s", "elsewhere");
    assert!(other.is_ok(), "only the topic that was asked for");
    let failed = world.put("t.events.cdr", "one");
    assert!(matches!(failed, Err(AppendError::Unavailable { .. })));
    assert_eq!(world.texts("t.events.cdr"), [""; 0]);
    assert!(world.put("t.events.cdr", "two").is_ok(), "only once");
    assert_eq!(world.texts("t.events.cdr"), ["two"]);
    world.seen(Seen {
        failed: 1,
        ..Seen::default()
    });
}

#[test]
fn a_lost_acknowledgement_leaves_the_record() {
    let world = World::new();
    let fault = AppendFault::LoseAcknowledgement;
    world.sim.fault_append("t.events.cdr", fault);
    let lost = world.put("t.events.cdr", "one");
    assert!(matches!(lost, Err(AppendError::Unavailable { .. })));
    assert_eq!(world.texts("t.events.cdr"), ["one"]);
    world.seen(Seen {
        acknowledgements_lost: 1,
        ..Seen::default()
    });
}

#[test]
fn a_duplicate_is_there_twice_and_acknowledged_once() {
    let world = World::new();
    world
        .sim
        .fault_append("t.events.cdr", AppendFault::Duplicate);
    assert_eq!(world.put("t.events.cdr", "one").unwrap().offset, 0);
    assert_eq!(world.put("t.events.cdr", "two").unwrap().offset, 2);
    assert_eq!(world.texts("t.events.cdr"), ["one", "one", "two"]);
    assert_eq!(world.ends.lock().len(), 2);
    world.seen(Seen {
        duplicates: 1,
        ..Seen::default()
    });
}

#[test]
fn a_gap_is_left_before_a_record() {
    let world = World::new();
    world.sim.fault_append("t.events.cdr", AppendFault::Gap);
    assert_eq!(world.put("t.events.cdr", "one").unwrap().offset, 1);
    let mut member = world.member(&world.log);
    let mut took = world.took();
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.texts, ["one"]);
    world.seen(Seen {
        gaps: 1,
        ..Seen::default()
    });
}

#[test]
fn a_delayed_acknowledgement_comes_when_its_time_has_come() {
    let world = World::new();
    let second = Duration::from_secs(1);
    let delay = AppendFault::Delay(second);
    world.sim.fault_append("t.events.cdr", delay);
    let ticket = world.start("t.events.cdr", "one");
    // Those behind it in its partition wait for it, those of other partitions do not.
    let behind = world.start("t.events.cdr", "two");
    let beside = world.start("t.retry.1s", "three");
    world.run();
    let ended = |ticket| world.ends.lock().contains_key(&ticket);
    assert_eq!([ticket, behind, beside].map(ended), [false, false, true]);
    assert_eq!(world.texts("t.events.cdr"), ["one", "two"]);
    assert_eq!(world.sim.next_due(), Some(at(1_000)));
    world.sim.clock().advance(second - Duration::from_millis(1));
    world.run();
    assert!(!ended(ticket), "early");
    world.sim.clock().advance(Duration::from_millis(1));
    world.run();
    assert_eq!([ticket, behind].map(ended), [true, true]);
    assert_eq!(
        world.end(ticket).unwrap().at,
        at(0),
        "the time of its append"
    );
    world.seen(Seen {
        delayed: 1,
        ..Seen::default()
    });
}

#[test]
fn an_acknowledgement_after_the_timeout_is_lost() {
    let world = World::new();
    let delay = AppendFault::Delay(Duration::from_secs(60));
    world.sim.fault_append("t.events.cdr", delay);
    let ticket = world.start("t.events.cdr", "one");
    world.run();
    world.sim.clock().advance(Duration::from_secs(10));
    world.run();
    assert!(matches!(
        world.end(ticket),
        Err(AppendError::Unavailable { .. })
    ));
    assert_eq!(world.texts("t.events.cdr"), ["one"]);
    assert_eq!(world.sim.seen().acknowledgements_lost, 1);
}

#[test]
fn acknowledgements_overtake_across_partitions_only() {
    let order = |reorder| {
        let world = World::new();
        world.sim.chances(Chances {
            reorder,
            ..Chances::default()
        });
        let tickets: Vec<_> = (0..30)
            .map(|n| {
                let topic = ["t.events.cdr", "t.retry.1s", "t.parked"][n % 3];
                world.start(topic, "x")
            })
            .collect();
        world.run();
        let ended = world.order.lock().clone();
        for lane in 0..3 {
            let of = |all: &[u64]| -> Vec<u64> {
                let mine = tickets.iter().skip(lane).step_by(3);
                let mine: Vec<_> = mine.copied().collect();
                all.iter().copied().filter(|t| mine.contains(t)).collect()
            };
            assert_eq!(of(&ended), of(&tickets), "order within a partition");
        }
        (ended == tickets, world.sim.seen().reordered)
    };
    assert_eq!(order(0), (true, 0));
    let (same, reordered) = order(500);
    assert!(!same && reordered > 0, "{reordered}");
}

#[test]
fn a_log_that_is_away_takes_and_gives_nothing() {
    let world = World::new();
    world.put("t.events.cdr", "before").unwrap();
    let mut member = world.member(&world.log);
    let mut follower = world.log.follower(world.topic(Role::Webhooks)).unwrap();
    world.sim.away(true);
    let ticket = world.start("t.events.cdr", "one");
    world.run();
    assert!(!world.ends.lock().contains_key(&ticket), "it waits");
    let mut took = world.took();
    let retriable = |error: LogError| error.retriable;
    assert!(member.poll(NOW, &mut took).is_err_and(retriable));
    assert!(member.commit(&[]).is_err_and(retriable));
    assert!(follower.poll(NOW, &mut |_| {}).is_err_and(retriable));
    let reader = world.log.reader().unwrap().bounds(world.partition(CDR));
    assert!(reader.is_err_and(retriable));
    world.sim.clock().advance(Duration::from_secs(10));
    world.run();
    assert!(world.end(ticket).is_err(), "its time is over");
    let late = world.start("t.events.cdr", "two");
    world.sim.away(false);
    world.run();
    assert!(world.end(late).is_ok());
    assert_eq!(world.texts("t.events.cdr"), ["before", "two"]);
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.texts, ["before", "two"]);
}

#[test]
fn a_held_follower_does_not_know_the_end() {
    let world = World::new();
    let webhooks = world.topic(Role::Webhooks);
    let mut follower = world.log.follower(webhooks).unwrap();
    let mut poll = || {
        let mut keys = Vec::new();
        let end = follower.poll(NOW, &mut |record| {
            keys.push(String::from_utf8(record.key.unwrap().to_vec()).unwrap());
        });
        (keys, end.unwrap())
    };
    let set = |key: &str| world.log.compare_and_set(webhooks, key, None, Some(b"x"));
    set("one").unwrap();
    assert_eq!(poll(), (vec!["one".to_owned()], true));
    world.sim.hold("t.webhooks");
    set("two").unwrap();
    assert_eq!(poll(), (vec![], false));
    world.sim.release("t.webhooks");
    assert_eq!(poll(), (vec!["two".to_owned()], true));
}

#[test]
fn compare_and_set_conflicts_and_unknown_results() {
    let world = World::new();
    let webhooks = world.topic(Role::Webhooks);
    let set = |expected, value: &[u8]| {
        let key = "one";
        world
            .log
            .compare_and_set(webhooks, key, expected, Some(value))
    };
    let unknown = |result: Result<Revision, WriteError>| {
        matches!(
            result,
            Err(WriteError::Log(LogError {
                retriable: true,
                ..
            }))
        )
    };
    let first = set(None, b"1").unwrap();
    world.sim.fault_set("t.webhooks", SetFault::Conflict);
    let Err(WriteError::Conflict { current }) = set(Some(first), b"2") else {
        panic!("no conflict");
    };
    assert!(current > Some(first));
    assert_eq!(world.texts("t.webhooks"), ["1", "1"], "the rival's write");
    world.sim.fault_set("t.webhooks", SetFault::Fail);
    assert!(unknown(set(current, b"3")));
    assert_eq!(world.texts("t.webhooks").len(), 2, "not written");
    world.sim.fault_set("t.webhooks", SetFault::LoseAnswer);
    assert!(unknown(set(current, b"4")));
    assert_eq!(world.texts("t.webhooks"), ["1", "1", "4"], "written");
    world.sim.compact("t.webhooks");
    assert_eq!(world.texts("t.webhooks"), ["4"]);
    let last = set(Some(Revision(2)), b"5");
    assert_eq!(last, Ok(Revision(3)), "no fault was left");
    world.seen(Seen {
        conflicts: 1,
        unknown_sets: 2,
        ..Seen::default()
    });
}

#[test]
fn retention_removes_what_was_not_read() {
    let world = World::new();
    for n in 0..10 {
        world.put("t.events.cdr", &n.to_string()).unwrap();
    }
    let mut member = world.member(&world.log);
    let mut took = world.took();
    took.room = 3;
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.texts, ["0", "1", "2"]);
    let committed = Committed {
        offset: 3,
        metadata: String::new(),
    };
    member
        .commit(&[(world.partition(CDR), committed.clone())])
        .unwrap();
    world.sim.forget_before("t.events.cdr", 0, 7);
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.lost, 1);
    let again = took.assigned.last().unwrap();
    assert_eq!((&again.committed, again.log_start), (&Some(committed), 7));
    took.room = 100;
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.texts[3..], ["7", "8", "9"]);
    assert_eq!(world.sim.seen().removed_unread, 4);
    // By age: everything is a week old and a bit.
    world.sim.clock().advance(Duration::from_secs(8 * 86_400));
    world.put("t.events.cdr", "new").unwrap();
    world.sim.retain();
    assert_eq!(world.texts("t.events.cdr"), ["new"]);
    assert_eq!(world.sim.seen().removed_unread, 4 + 3);
}

#[test]
fn chances_depend_on_the_seed_alone() {
    let history = |seed| {
        let world = World::with_seed(seed);
        world.sim.chances(Chances {
            fail: 100,
            lose_acknowledgement: 100,
            duplicate: 100,
            gap: 100,
            delay: 300,
            delay_max: Duration::from_secs(5),
            reorder: 300,
            ..Chances::default()
        });
        for n in 0..200 {
            world.start(["t.events.cdr", "t.retry.1s"][n % 2], &n.to_string());
        }
        while let Some(due) = world.sim.next_due() {
            world.run();
            let clock = world.sim.clock();
            clock.advance(due.since(clock.now()));
            world.run();
        }
        let ends: Vec<_> = world.order.lock().iter().map(|t| world.end(*t)).collect();
        let (texts, seen) = (world.texts("t.events.cdr"), world.sim.seen());
        (format!("{ends:?}"), texts, seen)
    };
    let one = history(1);
    assert_eq!(one, history(1));
    assert_ne!(one.0, history(2).0);
    let Seen {
        failed,
        acknowledgements_lost,
        duplicates,
        delayed,
        gaps,
        reordered,
        ..
    } = one.2;
    let all = [failed, acknowledgements_lost, duplicates, gaps];
    assert!(all.iter().all(|n| (5..50).contains(n)), "{all:?} of 200");
    assert!((30..100).contains(&delayed), "{delayed} of 200");
    assert!(reordered > 0);
}

#[test]
fn nothing_happens_by_itself_in_steps() {
    let options = SimOptions {
        clock: SimClock::steered(START),
        drive: Drive::Steps,
        ..SimOptions::default()
    };
    let sim = Sim::new(options).unwrap();
    let log = sim.open(table());
    log.create_topics().unwrap();
    assert!(!sim.step(), "there is nothing to do");
    assert_eq!((sim.next_due(), sim.open_appends()), (None, 0));
    sim.clock().advance(Duration::from_secs(1));
    assert_eq!(sim.clock().now(), at(1000));
    assert_eq!(sim.seen(), Seen::default());
}
