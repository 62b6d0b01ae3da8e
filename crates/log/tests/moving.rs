//! Moving an installation from the local engine to another log, with faults and kills on the way: what
//! waited waits there, what was finished does not come back, and nothing in the source changes.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod moving_support;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ringback_core::health::Snapshot;
use ringback_core::log::{Consumer, Log};
use ringback_core::secret::KeyRing;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Cleanup, Role, group};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::moving::{self, Environment, MoveError, Progress};
use ringback_log::sim::{Chances, SimClock, SimLog};

use crate::moving_support::{
    GROUPS, KEY, OTHER_KEY, Seen, Source, Target, WEBHOOK, Worker, all_records, each, keys, live,
    newest, seen, table, values, waiting,
};

/// One attempt that ends when the progress is kept for the `ends`-th time.
fn attempt(
    source: &Source,
    target: &Target,
    kept: &mut Progress,
    mut ends: usize,
) -> Result<Progress, MoveError> {
    let log = target.open();
    let progress = kept.clone();
    let ended = moving::run(
        &source.log,
        &log,
        Environment {
            progress,
            keep: &mut |progress| {
                if ends == 0 {
                    return Err(MoveError::Progress("killed by the test".to_owned()));
                }
                ends -= 1;
                *kept = progress.clone();
                Ok(())
            },
            clock: source.clock.clock(),
        },
    );
    log.kill();
    ended
}

fn faults() -> Chances {
    Chances {
        fail: 20,
        lose_acknowledgement: 10,
        duplicate: 5,
        gap: 20,
        conflict: 100,
        lose_answer: 100,
        fail_set: 100,
        lose_commit: 100,
        fail_commit: 100,
        ..Chances::default()
    }
}

/// The steered clock stands unless somebody moves it; appends that time out need it to go.
fn moved(seed: u64, faults: Chances, kills: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    let clock = SimClock::steered(Timestamp::parse("2026-11-21T10:00:00Z").unwrap());
    let source = Source::open(dir.path(), clock.clone());
    live(&source);
    let mut before: Vec<_> = GROUPS.map(|name| waiting(&source.log, name)).into();
    // These are in a window, though its group has not committed them.
    let in_window = |seen: &Seen| seen.value.starts_with("attempt 2");
    before[3].retain(|seen| !in_window(seen));
    assert!(before.iter().all(|waiting| waiting.len() >= 30));
    let (records, at) = (all_records(&source.log), clock.now());
    // Another prefix, other partitions, and none of the tiers.
    let target = Target::new(seed, clock.clone(), table("new.", 3, &[5, 70]));
    let log = target.open();
    moving::check_secrets(&source.log, &keys(KEY)).unwrap();
    moving::check_target(&source.log, &log).unwrap();

    target.sim.chances(faults);
    let mut kept = Progress::default();
    for ends in kills {
        attempt(&source, &target, &mut kept, *ends).unwrap_err();
    }
    let done = attempt(&source, &target, &mut kept, usize::MAX).unwrap();
    assert_eq!(done, kept);
    moving::check_begun(&log, &done).unwrap();
    let other = Target::new(seed, clock.clone(), table("new.", 3, &[5, 70]));
    let error = moving::check_begun(&other.open(), &done).unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
    target.sim.chances(Chances::default());
    // What is moved is not moved again, when the word of the end is lost.
    let count = count(&log);
    attempt(&source, &target, &mut kept, usize::MAX).unwrap();
    assert_eq!(self::count(&log), count);

    assert_eq!(all_records(&source.log), records, "the source is only read");
    let repeated = kills.len() as u64 * 500 + {
        let seen = target.sim.seen();
        seen.acknowledgements_lost + seen.duplicates
    };
    let mut again = 0;
    for (name, before) in GROUPS.into_iter().zip(before) {
        let after = waiting(&log, name);
        again += check_waiting(&source, &log, name, at, &before, after);
    }
    assert!(
        again <= repeated,
        "{again} duplicates, of which {repeated} have a cause"
    );
    for role in [Role::Tenants, Role::Webhooks, Role::Tokens, Role::Health] {
        assert_eq!(newest(&source.log, role), newest(&log, role), "{role:?}");
    }
    for role in [Role::Parked, Role::Attempts, Role::Replay] {
        let set = |values: Vec<String>| values.into_iter().collect::<BTreeSet<_>>();
        let (old, new) = (values(&source.log, role), values(&log, role));
        assert_eq!(set(old), set(new), "{role:?}");
    }
    check_window(&source, &log);
}

/// What waited waits there in the same form, and not for less; how much of it twice.
fn check_waiting(
    source: &Source,
    log: &SimLog,
    name: &str,
    at: Timestamp,
    before: &[Seen],
    after: Vec<Seen>,
) -> u64 {
    let mut found: HashMap<String, Vec<Seen>> = HashMap::new();
    for seen in after {
        found.entry(seen.value.clone()).or_default().push(seen);
    }
    let old = source.log.topics();
    let mut again = 0;
    for seen in before {
        let delay = old.delay(seen.partition.topic);
        // What waits on a tier may wait on a rung there, in another group.
        let copies = match (found.remove(&seen.value), delay.is_zero()) {
            (Some(copies), _) => copies,
            (None, true) => panic!("{name}: {} is lost", seen.value),
            (None, false) => of_other_group(log, &seen.value),
        };
        assert!(!copies.is_empty(), "{name}: {} is lost", seen.value);
        again += copies.len() as u64 - 1;
        for copy in copies {
            assert_eq!(
                (&copy.key, copy.time),
                (&seen.key, seen.time),
                "{}",
                seen.value
            );
            let own = seen.headers.iter().find(|(name, _)| name == "ce_time");
            let own = own.map(|(_, time)| std::str::from_utf8(time).unwrap());
            let own = own.map(|time| Timestamp::parse(time).unwrap());
            if own == seen.time {
                assert_eq!(copy.headers, seen.headers);
            }
            let new_delay = log.topics().delay(copy.partition.topic);
            let (due, new_due) = (seen.appended + delay, copy.appended + new_delay);
            assert!(new_due >= due, "{} is early", seen.value);
            let rest = due.since(at);
            assert!(
                new_due.since(at) <= rest.max(Duration::from_secs(2)) * 8,
                "{} waits {new_delay:?} instead of {rest:?}",
                seen.value
            );
        }
    }
    // What is left is of another group, which looks for it itself, or was finished before.
    for value in found.keys() {
        let delayed = ["short", "long", "hour"];
        let is_delayed = delayed.iter().any(|kind| value.starts_with(kind));
        let finished = match name {
            _ if !is_delayed => true,
            _ if value.starts_with("hour") => value.ends_with('5'),
            _ => value.ends_with('3'),
        };
        assert!(!finished, "{name}: {value} comes back");
    }
    again
}

/// Records of all topics but the compacted ones.
fn count(log: &SimLog) -> usize {
    let topics = log.topics().iter();
    let kept = topics.filter(|(_, spec)| spec.cleanup != Cleanup::Compact);
    let mut count = 0;
    kept.for_each(|(_, spec)| each(log, spec.role, |_| count += 1));
    count
}

fn of_other_group(log: &SimLog, value: &str) -> Vec<Seen> {
    let mut copies = Vec::new();
    for (topic, spec) in log.topics().iter() {
        if !log.topics().delay(topic).is_zero() {
            each(log, spec.role, |record| {
                if record.value == Some(value.as_bytes()) {
                    copies.push(seen(record));
                }
            });
        }
    }
    copies
}

/// The window counts every attempt once: what it had is before where it goes on, the rest behind.
fn check_window(source: &Source, log: &SimLog) {
    let windows = newest(log, Role::Windows);
    let read = |value: &[u8]| serde_json::from_slice::<Snapshot>(value).unwrap();
    let snapshot = read(&windows[WEBHOOK]);
    let old = read(&newest(&source.log, Role::Windows)[WEBHOOK]);
    assert_eq!(
        snapshot,
        Snapshot {
            next: snapshot.next,
            ..old
        }
    );
    each(log, Role::Attempts, |record| {
        let number = |value: &str| value.strip_prefix("attempt ")?.parse::<u32>().ok();
        if let Some(number) = number(&seen(record).value) {
            let is_counted = record.offset < snapshot.next;
            assert_eq!(is_counted, number < 30, "attempt {number}");
        }
    });
}

#[test]
fn everything_that_waits_is_moved() {
    moved(1, Chances::default(), &[]);
}

#[test]
fn faults_and_kills_lose_nothing() {
    for seed in 2..6 {
        moved(seed, faults(), &[0, 1, 3, 2, 4, 1]);
    }
}

/// A dispatcher that runs on the target would be robbed of its partitions.
#[test]
fn a_target_that_works_is_refused() {
    let clock = SimClock::machine();
    let target = Target::new(1, clock, table("new.", 2, &[32]));
    let log = target.open();
    moving::check_idle(&log, Duration::from_secs(30)).unwrap();
    let topics: Vec<_> = [Role::Replay, Role::Defer(0)].into();
    let topics: Vec<_> = topics
        .iter()
        .filter_map(|role| log.topics().find(*role))
        .collect();
    let mut worker = Worker::new(|_| true);
    let mut member = target.open().consumer(group::DEFERRALS, &topics).unwrap();
    while worker.trackers.len() < 4 {
        member.poll(Duration::from_millis(10), &mut worker).unwrap();
    }
    let error = moving::check_idle(&log, Duration::from_secs(1)).unwrap_err();
    assert!(
        error.to_string().contains("somebody else works there"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_used_there_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SimClock::steered(Timestamp::parse("2026-11-21T10:00:00Z").unwrap());
    let source = Source::open(dir.path(), clock.clone());
    live(&source);
    let error = moving::check_secrets(&source.log, &keys(OTHER_KEY)).unwrap_err();
    assert!(error.to_string().contains("does not open"), "{error}");
    let missing = KeyRing::new("other", [("other", KEY)]).unwrap();
    let error = moving::check_secrets(&source.log, &missing).unwrap_err();
    assert!(error.to_string().contains("secrets.keys"), "{error}");

    // A secret of any kind is looked at: sealed as a token, it is neither of these.
    let one: serde_json::Value =
        serde_json::from_str(&moving_support::webhook(&keys(KEY))).unwrap();
    let sealed = &one["authentication"]["token"];
    let kinds = [
        (
            "signing",
            serde_json::json!([{
                "kind": "hmac", "secret": sealed, "created": "2026-11-21T09:00:00Z",
            }]),
        ),
        (
            "tls",
            serde_json::json!({ "certificate": "", "key": sealed }),
        ),
    ];
    for (kind, value) in kinds {
        let mut record = one.clone();
        record["authentication"] = serde_json::json!({ "method": "none" });
        record[kind] = value;
        let dir = tempfile::tempdir().unwrap();
        let source = Source::open(dir.path(), clock.clone());
        let webhooks = source.log.topics().find(Role::Webhooks).unwrap();
        let record = record.to_string();
        source
            .log
            .compare_and_set(webhooks, "acme/cdr", None, Some(record.as_bytes()))
            .unwrap();
        let error = moving::check_secrets(&source.log, &keys(KEY)).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }

    let target = Target::new(1, clock, table("new.", 2, &[32]));
    let log = target.open();
    let tenants = log.topics().find(Role::Tenants).unwrap();
    log.compare_and_set(tenants, "acme", None, Some(b"another"))
        .unwrap();
    let error = moving::check_target(&source.log, &log).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // Somebody who configures there during the move is not overwritten.
    let error = attempt(&source, &target, &mut Progress::default(), 9).unwrap_err();
    assert!(error.to_string().contains("differ"), "{error}");
    assert_eq!(newest(&log, Role::Tenants)["acme"], b"another");
}

/// `ringback move` knows only the directory: names, tiers, partitions and retention are those of then.
#[test]
fn a_local_log_is_opened_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SimClock::steered(Timestamp::parse("2026-11-21T10:00:00Z").unwrap());
    let error = LocalLog::open_existing(dir.path(), LocalOptions::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("there is none"), "{error}");
    let records = {
        let source = Source::open(dir.path(), clock.clone());
        live(&source);
        let held = LocalLog::open_existing(dir.path(), LocalOptions::default()).err();
        assert!(held.unwrap().to_string().contains("has it open"));
        all_records(&source.log).len()
    };
    // By its own clock: by the real one retention would have dropped some.
    let options = LocalOptions {
        clock: clock.clock(),
        ..LocalOptions::default()
    };
    let log = LocalLog::open_existing(dir.path(), options).unwrap();
    assert_eq!(log.check_topics().unwrap(), []);
    assert_eq!(all_records(&log).len(), records);
    assert_eq!(log.topics().tiers(), [32, 240].map(Duration::from_secs));
}
