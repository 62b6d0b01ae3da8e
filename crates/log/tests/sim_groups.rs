//! The simulated engine's groups: members that join, leave, crash, are rebalanced with time or lose
//! what they have without being asked.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod sim_support;

use std::collections::BTreeSet;
use std::time::Duration;

use ringback_core::log::{Consumer, Log};
use ringback_core::topics::Partition;
use ringback_log::sim::{Chances, Seen, SimConsumer, SimLog};

use crate::sim_support::{CDR, GROUP, Took, World, partitioned, position};

const NOW: Duration = Duration::ZERO;
const RECORDS: usize = 40;

/// Four partitions with ten records each.
fn world() -> World {
    let world = World::with(0, partitioned(4));
    for n in 0..RECORDS {
        world.put("t.events.cdr", &n.to_string()).unwrap();
    }
    world
}

struct Member {
    consumer: SimConsumer,
    took: Took,
}

impl Member {
    fn join(world: &World, log: &SimLog) -> Self {
        Self {
            consumer: world.member(log),
            took: world.took(),
        }
    }

    fn poll(&mut self) {
        self.consumer.poll(NOW, &mut self.took).unwrap();
    }

    fn commit(&mut self) {
        let positions = self.took.positions();
        self.consumer.commit(&positions).unwrap();
    }

    fn owned(&self) -> BTreeSet<Partition> {
        self.took.owned.keys().copied().collect()
    }
}

fn settle<const N: usize>(mut members: [&mut Member; N]) {
    for _ in 0..4 {
        for member in &mut members {
            member.poll();
        }
    }
}

/// What all have taken, sorted; nobody has what somebody else has.
fn all_taken(members: &[&Member]) -> Vec<usize> {
    let owned: usize = members.iter().map(|member| member.owned().len()).sum();
    let distinct: BTreeSet<_> = members.iter().flat_map(|member| member.owned()).collect();
    assert_eq!(
        (owned, distinct.len()),
        (4, 4),
        "each partition has one owner"
    );
    let texts = members.iter().flat_map(|member| &member.took.texts);
    let mut all: Vec<usize> = texts.map(|text| text.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

fn once() -> Vec<usize> {
    (0..RECORDS).collect()
}

#[test]
fn a_second_member_gets_half_and_nothing_is_read_twice() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    assert_eq!(first.owned().len(), 4);
    let mut second = Member::join(&world, &world.sim.open(partitioned(4)));
    second.poll();
    assert_eq!(second.owned().len(), 0, "not before the first gave it up");
    settle([&mut first, &mut second]);
    assert_eq!((first.owned().len(), second.owned().len()), (2, 2));
    assert_eq!(all_taken(&[&first, &second]), once());
    // It leaves, and the first has everything again.
    second.consumer.close(NOW, &mut second.took).unwrap();
    assert_eq!(second.took.revoked, 2);
    settle([&mut first]);
    assert_eq!(first.owned().len(), 4);
    world.seen(Seen {
        revoked: 4,
        ..Seen::default()
    });
    assert_eq!(
        world.sim.unfinished(GROUP).len(),
        20,
        "the first has not committed"
    );
    first.commit();
    assert_eq!(world.sim.unfinished(GROUP).len(), 0);
}

#[test]
fn a_rebalance_asks_and_waits_for_what_is_in_flight() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    let mut second = Member::join(&world, &world.log);
    settle([&mut first, &mut second]);
    let before = (first.owned(), second.owned());
    first.took.busy = true;
    world.sim.rebalance(GROUP);
    settle([&mut first, &mut second]);
    assert!(first.took.asked > 0 && first.took.revoked == 0, "it waits");
    assert!(
        first.owned().is_superset(&before.0),
        "it keeps them meanwhile"
    );
    first.took.busy = false;
    settle([&mut first, &mut second]);
    assert_eq!(
        (second.owned(), first.owned()),
        before,
        "they have changed over"
    );
    assert_eq!(all_taken(&[&first, &second]), once());
    assert_eq!(world.sim.seen().lost, 0);
}

#[test]
fn a_rebalance_ends_when_the_time_is_over() {
    let world = world();
    let mut only = Member::join(&world, &world.log);
    only.poll();
    only.took.busy = true;
    world.sim.rebalance(GROUP);
    only.poll();
    world.sim.clock().advance(Duration::from_millis(4_999));
    only.poll();
    assert_eq!(only.took.revoked, 0, "its time was not over");
    world.sim.clock().advance(Duration::from_millis(1));
    only.poll();
    assert_eq!(only.took.revoked, 4);
    settle([&mut only]);
    assert_eq!(
        all_taken(&[&only]),
        once(),
        "away and back, with its commits"
    );
}

#[test]
fn an_expelled_member_loses_all_and_its_commits_do_not_count() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    let mut second = Member::join(&world, &world.log);
    settle([&mut first, &mut second]);
    first.commit();
    world.put("t.events.cdr", "40").unwrap();
    settle([&mut first, &mut second]);
    assert!(world.sim.expel(GROUP, first.consumer.member()));
    // It does not know yet, and commits what it has taken.
    first.commit();
    second.poll();
    assert_eq!(second.owned().len(), 4);
    let theirs = second.took.assigned.iter().rev().take(2);
    let offsets: Vec<_> = theirs.map(|a| a.committed.clone()).collect();
    assert_eq!(offsets, [Some(position(10)), Some(position(10))]);
    first.poll();
    assert_eq!((first.took.lost, first.took.revoked), (2, 0));
    settle([&mut first, &mut second]);
    assert_eq!(
        (first.owned().len(), second.owned().len()),
        (2, 2),
        "it is back"
    );
    assert_eq!(world.sim.members(GROUP).len(), 2);
    let Seen { lost, expired, .. } = world.sim.seen();
    assert_eq!((lost, expired), (2, 1));
    let twice = all_taken(&[&first, &second]).len() - RECORDS - 1;
    assert_eq!(
        world.sim.seen().exposed,
        twice as u64,
        "read again, and counted"
    );
    assert!(!world.sim.expel(GROUP, somebody_who_left(&world)), "gone");
}

/// A member that has left.
fn somebody_who_left(world: &World) -> ringback_log::sim::MemberId {
    let mut member = Member::join(world, &world.log);
    let id = member.consumer.member();
    member.consumer.close(NOW, &mut member.took).unwrap();
    id
}

#[test]
fn a_killed_process_is_read_again_from_its_last_commit() {
    let world = world();
    let process = world.sim.open(partitioned(4));
    let mut first = Member::join(&world, &process);
    first.took.room = 6;
    first.poll();
    first.commit();
    first.poll();
    assert_eq!(first.took.texts.len(), RECORDS, "all taken, 24 committed");
    process.kill();
    let mut second = Member::join(&world, &world.log);
    second.poll();
    assert_eq!(second.owned().len(), 0, "its session goes on");
    assert!(first.consumer.poll(NOW, &mut first.took).is_err());
    assert!(first.consumer.commit(&first.took.positions()).is_err());
    assert!(first.consumer.close(NOW, &mut first.took).is_err());
    assert!(process.reader().is_ok_and(|mut reader| {
        use ringback_core::log::Reader;
        reader.bounds(world.partition(CDR)).is_err()
    }));
    world.sim.clock().advance(Duration::from_secs(10));
    settle([&mut second]);
    assert_eq!(second.took.texts.len(), 16);
    world.seen(Seen {
        killed: 1,
        expired: 1,
        exposed: 16,
        ..Seen::default()
    });
}

#[test]
fn a_member_that_is_dropped_is_gone_when_its_session_ends() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    drop(first);
    let mut second = Member::join(&world, &world.log);
    second.poll();
    assert_eq!(second.owned().len(), 0);
    world.sim.clock().advance(Duration::from_secs(10));
    settle([&mut second]);
    assert_eq!(second.took.texts.len(), RECORDS);
}

#[test]
fn a_lost_commit_costs_repetitions() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    world.sim.chances(Chances {
        lose_commit: 1000,
        ..Chances::default()
    });
    first.commit();
    assert_eq!(world.sim.unfinished(GROUP).len(), RECORDS);
    assert_eq!(world.sim.seen().commits_lost, 4);
    world.sim.chances(Chances::default());
    first.commit();
    assert_eq!(world.sim.unfinished(GROUP).len(), 0);
    assert_eq!(world.sim.seen().commits_lost, 4);
}

#[test]
fn a_failed_commit_says_so() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    world.sim.chances(Chances {
        fail_commit: 1000,
        ..Chances::default()
    });
    let positions = first.took.positions();
    let failed = first.consumer.commit(&positions);
    assert!(failed.is_err_and(|error| error.retriable));
    assert_eq!(world.sim.unfinished(GROUP).len(), RECORDS);
    world.seen(Seen {
        commits_failed: 1,
        ..Seen::default()
    });
}

#[test]
fn a_commit_that_fails_later_is_told_once() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    world.sim.chances(Chances {
        fail_commit_later: 1000,
        ..Chances::default()
    });
    first.commit();
    assert_eq!(first.took.not_committed, 0);
    assert_eq!(world.sim.unfinished(GROUP).len(), RECORDS);
    first.poll();
    first.poll();
    assert_eq!(first.took.not_committed, 4);
    // What was taken away meanwhile is nobody's business any more.
    first.commit();
    let member = world.sim.members(GROUP)[0];
    world.sim.expel(GROUP, member);
    let mut second = Member::join(&world, &world.log);
    settle([&mut second]);
    first.poll();
    assert_eq!(world.sim.seen().commits_failed, 2);
}

#[test]
fn what_must_never_be_committed_is_counted() {
    let world = world();
    let mut first = Member::join(&world, &world.log);
    first.poll();
    first.commit();
    let (partition, _) = first.took.positions()[0];
    let back = [(partition, position(3))];
    first.consumer.commit(&back).unwrap();
    assert_eq!(world.sim.seen().commits_back, 1, "DL2");
    let mut second = Member::join(&world, &world.log);
    second.consumer.commit(&back).unwrap();
    assert_eq!(world.sim.seen().commits_unowned, 1, "DL8");
    second.poll();
}

/// Members come, go and are thrown out by the dice, while records fail and are repeated: one thread
/// drives it all, and equal calls give equal histories. In the end every record was taken.
#[test]
fn equal_calls_give_equal_histories() {
    let history = |seed: u64| {
        let world = World::with(seed, partitioned(4));
        world.sim.chances(Chances {
            lose_acknowledgement: 50,
            duplicate: 50,
            gap: 50,
            delay: 200,
            delay_max: Duration::from_secs(3),
            reorder: 200,
            lose_commit: 100,
            fail_commit: 100,
            fail_commit_later: 100,
            ..Chances::default()
        });
        let mut members = vec![Member::join(&world, &world.log)];
        let (mut dice, mut gone) = (seed, Vec::new());
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % sides
        };
        for n in 0..600 {
            let at = usize::try_from(roll(members.len() as u64)).unwrap();
            match roll(12) {
                0..4 => drop(world.start("t.events.cdr", &n.to_string())),
                4..7 => members[at].poll(),
                7 => {
                    // One that fails is made up for by the next.
                    let positions = members[at].took.positions();
                    let _ = members[at].consumer.commit(&positions);
                }
                8 => world.sim.clock().advance(Duration::from_millis(roll(4000))),
                9 => world.run(),
                10 if members.len() < 4 => members.push(Member::join(&world, &world.log)),
                _ => match roll(4) {
                    0 => world.sim.rebalance(GROUP),
                    1 => drop(world.sim.expel(GROUP, members[at].consumer.member())),
                    2 if members.len() > 1 => gone.push(members.swap_remove(at).took.texts),
                    _ => {}
                },
            }
        }
        world.sim.clock().advance(Duration::from_secs(60));
        world.run();
        for _ in 0..10 {
            members.iter_mut().for_each(Member::poll);
        }
        let left = members.iter().map(|member| member.took.texts.clone());
        gone.extend(left);
        let taken: BTreeSet<_> = gone.iter().flatten().cloned().collect();
        let there: BTreeSet<_> = world.texts("t.events.cdr").into_iter().collect();
        assert_eq!(taken, there, "seed {seed}");
        (gone, world.order.lock().clone(), world.sim.seen())
    };
    for seed in 1..30 {
        let one = history(seed);
        assert_eq!(one, history(seed), "seed {seed}");
        assert_ne!(one, history(seed + 100));
        let Seen {
            commits_back,
            commits_unowned,
            ..
        } = one.2;
        assert_eq!((commits_back, commits_unowned), (0, 0), "seed {seed}");
    }
}

/// As `SIGSTOP` would have it: what it handed over stays where it is, it hears nothing, and who stands
/// for longer than a session has lost what it owned.
#[test]
fn a_process_that_stands_still_hears_nothing_and_loses_its_sessions() {
    let world = World::new();
    let standing = world.log.clone();
    let (mut member, mut took) = (world.member(&standing), world.took());
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.owned.len(), 1);
    standing.suspend();
    let ticket = world.start("t.events.cdr", "one");
    world.run();
    assert!(world.ends.lock().is_empty() && world.texts("t.events.cdr").is_empty());
    standing.resume();
    world.run();
    assert!(world.end(ticket).is_ok());
    member.poll(NOW, &mut took).unwrap();
    assert_eq!((took.texts.len(), took.lost), (1, 0), "not for so long");

    standing.suspend();
    let other = world.sim.open(world.log.topics().clone());
    let (mut heir, mut inherited) = (world.member(&other), world.took());
    world.sim.clock().advance(Duration::from_secs(30));
    heir.poll(NOW, &mut inherited).unwrap();
    assert_eq!(inherited.owned.len(), 1);
    standing.resume();
    member.poll(NOW, &mut took).unwrap();
    assert_eq!(took.lost, 1);
}

/// Else whoever takes the turns would not know that there is one to take.
#[test]
fn to_be_woken_is_news_after_each_look() {
    let world = World::new();
    let (mut member, mut took) = (world.member(&world.log), world.took());
    let waker = member.waker();
    for _ in 0..2 {
        member.poll(NOW, &mut took).unwrap();
        let before = world.sim.version();
        waker.wake();
        assert!(world.sim.version() > before);
    }
}
