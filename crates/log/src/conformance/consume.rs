//! Promises about consuming in a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringback_core::catalogue::Family;
use ringback_core::log::{Appended, Committed, Consumer, GroupView, Log, Offset};
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_core::tracker::METADATA_BYTES_MAX;

use super::DEADLINE;
use super::support::{Taking, Writing, group, numbered, topic};

const NO_DRAIN: Duration = Duration::ZERO;

/// A new group gets every partition and every record from the earliest on, once and in order, those
/// that come later too, and never more per poll than it has room for.
pub fn every_record_once_from_the_earliest<L: Log>(log: &L) {
    let topics = [
        topic(log, Role::Events(Family::Resource)),
        topic(log, Role::Retry(0)),
    ];
    let writing = Writing::new(log);
    let mut written = Vec::new();
    for topic in topics {
        written.extend(writing.texts(topic, &numbered(150)));
    }
    let mut consumer = join(log, "every", &topics);
    let mut taking = Taking::default();
    for partition in topics
        .into_iter()
        .flat_map(|topic| log.topics().partitions(topic))
    {
        taking.room.insert(partition, 7);
    }
    let all = taking.room.len();
    taking.until(&mut consumer, "all partitions and records", |taking| {
        taking.assigned.len() >= all && taking.records.len() >= 300
    });
    let assigned: BTreeSet<_> = taking
        .assigned
        .iter()
        .map(|given| given.partition)
        .collect();
    assert_eq!(assigned, taking.room.keys().copied().collect());
    for given in &taking.assigned {
        assert_eq!(
            (&given.committed, given.log_start),
            (&None, 0),
            "{:?}",
            given.partition
        );
    }
    written.extend(writing.texts(topics[0], &numbered(50)));
    taking.until(&mut consumer, "records that came later", |taking| {
        taking.records.len() >= 350
    });
    check_all(&taking, &written);
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
    check_all(&taking, &written);
}

/// Who is not in a group sees who is, what each owns, and what was committed.
pub fn a_group_is_seen_from_outside<L: Log>(log: &L) {
    let topic = topic(log, Role::Retry(3));
    let writing = Writing::new(log);
    writing.texts(topic, &numbered(40));
    let (name, partitions) = (group(log, "seen"), log.topics().partitions(topic).count());
    let look = || log.group(&name, &[topic]).expect("looking at the group");
    assert_eq!(look(), GroupView::default(), "nobody was ever in it");
    let mut consumer = log.consumer(&name, &[topic]).expect("joining");
    let mut taking = Taking::default();
    taking.until(&mut consumer, "all records", |taking| {
        taking.records.len() >= 40
    });
    let seen = look();
    assert_eq!(seen.members.len(), 1, "{seen:?}");
    assert_eq!(seen.members[0].partitions.len(), partitions, "{seen:?}");
    let last: BTreeMap<_, _> = log
        .topics()
        .partitions(topic)
        .map(|partition| {
            let next = taking.offsets(partition).last().map_or(0, |last| last + 1);
            (partition, next)
        })
        .filter(|(_, next)| *next > 0)
        .collect();
    taking.last = last
        .iter()
        .map(|(partition, next)| {
            let committed = Committed {
                offset: *next,
                metadata: String::new(),
            };
            (*partition, committed)
        })
        .collect();
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
    let seen = look();
    assert_eq!(seen.committed.into_iter().collect::<BTreeMap<_, _>>(), last);
    assert!(seen.members.is_empty(), "{:?}", seen.members);
}

/// A partition without room keeps its records, does not end the wait, and gives them later.
pub fn no_room_holds_records_without_ending_the_wait<L: Log>(log: &L) {
    let topic = topic(log, Role::Retry(1));
    let writing = Writing::new(log);
    let written = writing.texts(topic, &numbered(40));
    let partitions: Vec<_> = log.topics().partitions(topic).collect();
    let of = |partition: Partition| offsets_of(&written, partition);
    let mut consumer = join(log, "room", &[topic]);
    let mut taking = Taking::default();
    taking.room.insert(partitions[0], 0);
    taking.until(&mut consumer, "the partition with room", |taking| {
        taking.offsets(partitions[1]).len() >= of(partitions[1]).len()
            && taking.assigned.len() == partitions.len()
    });
    // Now only records without room are left, and a wait takes its time. A group may have news of
    // its own once or twice.
    let wait = Duration::from_millis(300);
    let waited = (0..5).any(|_| {
        let began = Instant::now();
        taking.poll(&mut consumer, wait);
        began.elapsed() >= wait - Duration::from_millis(20)
    });
    assert!(waited, "records without room end the wait");
    assert!(
        taking.offsets(partitions[0]).is_empty(),
        "there was no room"
    );
    taking.room.insert(partitions[0], 3);
    taking.until(&mut consumer, "the records that were held", |taking| {
        taking.records.len() >= written.len()
    });
    check_all(&taking, &written);
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
}

/// A waker ends the wait from another thread.
pub fn waker_ends_the_wait<L: Log>(log: &L) {
    let topic = topic(log, Role::Defer(0));
    let mut consumer = join(log, "waker", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "assignment", |taking| {
        taking.assigned.len() == 2
    });
    let waker = consumer.waker();
    let woken = AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !woken.load(Ordering::Acquire) {
                waker.wake();
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        taking.poll(&mut consumer, DEADLINE);
        woken.store(true, Ordering::Release);
    });
    assert!(began.elapsed() < DEADLINE / 2, "the wait went on");
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
}

/// What was committed, by `commit` or at the end by `revoked`, comes back with its metadata to the
/// next member, which goes on from there.
pub fn commits_come_back_with_their_metadata<L: Log>(log: &L) {
    let topic = topic(log, Role::Defer(1));
    let writing = Writing::new(log);
    let written = writing.texts(topic, &numbered(40));
    let partitions: Vec<_> = log.topics().partitions(topic).collect();
    let position = |partition, index: usize, metadata: String| Committed {
        offset: offsets_of(&written, partition)[index],
        metadata,
    };
    let mut consumer = join(log, "commits", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "all records", |taking| {
        taking.records.len() >= 40
    });
    let first = position(partitions[0], 5, "x".repeat(4096));
    let second = position(partitions[1], 3, "ä+2".to_owned());
    let early = position(partitions[1], 1, String::new());
    let positions = [(partitions[0], first.clone()), (partitions[1], early)];
    consumer.commit(&positions).expect("committing");
    taking.last.insert(partitions[1], second.clone());
    consumer.close(NO_DRAIN, &mut taking).expect("closing");

    let mut consumer = join(log, "commits", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "the rest", |taking| {
        taking.assigned.len() == 2 && taking.records.len() >= 40 - 5 - 3
    });
    assert_eq!(taking.assignment(partitions[0]).committed, Some(first));
    assert_eq!(taking.assignment(partitions[1]).committed, Some(second));
    for (partition, skipped) in [(partitions[0], 5), (partitions[1], 3)] {
        assert_eq!(
            taking.offsets(partition),
            offsets_of(&written, partition)[skipped..]
        );
    }
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
}

/// A commit that fails is told, at once or by a later poll, and the next one is good again.
pub fn a_failed_commit_is_told<L: Log>(log: &L) {
    let topic = topic(log, Role::Attempts);
    let written = Writing::new(log).texts(topic, &numbered(20));
    let partitions: Vec<_> = log.topics().partitions(topic).collect();
    let ends = |metadata: &dyn Fn(Partition) -> String| -> Vec<_> {
        let end = |partition| offsets_of(&written, partition).len() as Offset;
        let position = |partition| Committed {
            offset: end(partition),
            metadata: metadata(partition),
        };
        partitions.iter().map(|p| (*p, position(*p))).collect()
    };
    let mut consumer = join(log, "failed", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "all records", |taking| {
        taking.records.len() >= 20
    });
    // No log keeps so much.
    let too_much = |partition| match partition == partitions[0] {
        true => "x".repeat(METADATA_BYTES_MAX + 1),
        false => String::new(),
    };
    if consumer.commit(&ends(&too_much)).is_ok() {
        taking.until(&mut consumer, "to be told", |taking| {
            !taking.not_committed.is_empty()
        });
        assert!(taking.not_committed.contains(&partitions[0]));
        taking.not_committed.clear();
    }
    consumer
        .commit(&ends(&|_| String::new()))
        .expect("committing");
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
    assert_eq!(taking.not_committed, []);

    let mut consumer = join(log, "failed", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "assignment", |taking| {
        taking.assigned.len() == partitions.len()
    });
    for (partition, committed) in ends(&|_| String::new()) {
        let found = &taking.assignment(partition).committed;
        assert_eq!(found.as_ref(), Some(&committed), "{partition:?}");
    }
    consumer.close(NO_DRAIN, &mut taking).expect("closing");
}

/// A member that committed nothing leaves everything to the next one.
pub fn what_was_not_committed_is_read_again<L: Log>(log: &L) {
    let topic = topic(log, Role::Defer(2));
    let written = Writing::new(log).texts(topic, &numbered(20));
    for round in 0..2 {
        let mut consumer = join(log, "again", &[topic]);
        let mut taking = Taking::default();
        taking.until(&mut consumer, "all records", |taking| {
            taking.records.len() >= 20
        });
        check_all(&taking, &written);
        for given in &taking.assigned {
            assert_eq!(given.committed, None, "round {round}");
        }
        consumer.close(NO_DRAIN, &mut taking).expect("closing");
    }
}

/// Each group reads everything, whatever another one has committed.
pub fn groups_are_independent<L: Log>(log: &L) {
    let topic = topic(log, Role::Defer(3));
    let written = Writing::new(log).texts(topic, &numbered(20));
    let mut consumers = ["left", "right"].map(|name| join(log, name, &[topic]));
    for consumer in &mut consumers {
        let mut taking = Taking::default();
        taking.until(consumer, "all records", |taking| taking.records.len() >= 20);
        check_all(&taking, &written);
        let ends: Vec<_> = log
            .topics()
            .partitions(topic)
            .map(|partition| {
                let offset = offsets_of(&written, partition).len() as Offset;
                (
                    partition,
                    Committed {
                        offset,
                        metadata: String::new(),
                    },
                )
            })
            .collect();
        consumer.commit(&ends).expect("committing");
    }
    for consumer in consumers {
        consumer
            .close(NO_DRAIN, &mut Taking::default())
            .expect("closing");
    }
}

/// `close` asks until nothing is in flight, takes the last commits, and makes them durable.
pub fn close_asks_until_nothing_is_in_flight<L: Log>(log: &L) {
    let topic = topic(log, Role::Defer(4));
    let written = Writing::new(log).texts(topic, &numbered(20));
    let partitions: Vec<_> = log.topics().partitions(topic).collect();
    let mut consumer = join(log, "close", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "all records", |taking| {
        taking.records.len() >= 20
    });
    taking.busy.insert(partitions[0], 3);
    for partition in &partitions {
        let offset = offsets_of(&written, *partition).len() as Offset;
        taking.last.insert(
            *partition,
            Committed {
                offset,
                metadata: "m".to_owned(),
            },
        );
    }
    consumer.close(DEADLINE, &mut taking).expect("closing");
    assert!(
        taking.asked >= 4,
        "asked {} times, {partitions:?}[0] needed 4",
        taking.asked
    );
    assert_eq!(taking.busy[&partitions[0]], 0, "it was not waited for");
    let revoked: BTreeSet<_> = taking.revoked.iter().copied().collect();
    assert_eq!(revoked, partitions.iter().copied().collect());

    let mut again = Taking::default();
    let mut consumer = join(log, "close", &[topic]);
    again.until(&mut consumer, "assignment", |again| {
        again.assigned.len() == 2
    });
    for partition in &partitions {
        let committed = again.assignment(*partition).committed.as_ref();
        assert_eq!(
            committed,
            taking.last.get(partition),
            "the last commit is durable"
        );
    }
    consumer.close(NO_DRAIN, &mut again).expect("closing");
    assert!(again.records.is_empty(), "everything was committed");
}

/// A partition that never says yes is given up when the time is over.
pub fn close_ends_when_the_time_is_over<L: Log>(log: &L) {
    let topic = topic(log, Role::SystemEvents);
    let mut consumer = join(log, "drain", &[topic]);
    let mut taking = Taking::default();
    taking.until(&mut consumer, "assignment", |taking| {
        taking.assigned.len() == 1
    });
    let partition = taking.assigned[0].partition;
    taking.busy.insert(partition, usize::MAX);
    let drain = Duration::from_millis(200);
    let began = Instant::now();
    consumer.close(drain, &mut taking).expect("closing");
    assert!(began.elapsed() >= drain, "it was given up early");
    assert!(began.elapsed() < DEADLINE, "it was not given up");
    assert_eq!(taking.revoked, [partition], "it is told all the same");
}

fn join<L: Log>(log: &L, name: &str, topics: &[TopicId]) -> L::Consumer {
    log.consumer(&group(log, name), topics).expect("a consumer")
}

fn offsets_of(written: &[Appended], partition: Partition) -> Vec<Offset> {
    let of = written
        .iter()
        .filter(|appended| appended.partition == partition);
    of.map(|appended| appended.offset).collect()
}

/// Everything that was written was taken, once and in order.
fn check_all(taking: &Taking, written: &[Appended]) {
    let mut expected: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
    for appended in written {
        let at = (appended.offset, appended.at);
        expected.entry(appended.partition).or_default().push(at);
    }
    let mut found: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
    for record in &taking.records {
        let at = (record.offset, record.appended);
        found.entry(record.partition).or_default().push(at);
    }
    assert_eq!(found, expected);
}
