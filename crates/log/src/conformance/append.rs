//! Promises about appending.

use std::collections::{BTreeMap, BTreeSet};

use ringback_core::catalogue::Family;
use ringback_core::log::{Append, AppendError, Appender, AppenderOptions, Log, partition_of};
use ringback_core::topics::Role;

use super::DEADLINE;
use super::support::{Writing, numbered, topic};

/// An acknowledgement says partition, offset and time; equal keys go to the partition that
/// [`partition_of`] says; offsets and times of a partition do not go back.
pub fn acknowledges_with_position_and_time<L: Log>(log: &L) {
    let topic = topic(log, Role::Events(Family::Cdr));
    let partitions = log.topics().spec(topic).partitions;
    let writing = Writing::new(log);
    let mut last = BTreeMap::new();
    for round in 0..2 {
        for ((key, _), appended) in numbered(30).iter().zip(writing.texts(topic, &numbered(30))) {
            let key = key.as_deref().unwrap_or_default();
            assert_eq!(appended.partition.topic, topic);
            let index = partition_of(key.as_bytes(), partitions);
            assert_eq!(
                appended.partition.index, index,
                "partition of {key} in round {round}"
            );
            let before = last.insert(appended.partition, appended);
            if let Some(before) = before {
                assert!(
                    before.offset < appended.offset,
                    "{before:?} then {appended:?}"
                );
                assert!(before.at <= appended.at, "{before:?} then {appended:?}");
            } else {
                assert_eq!(
                    appended.offset, 0,
                    "the first offset of {:?}",
                    appended.partition
                );
            }
            assert!(appended.at.as_micros() > 0, "an append has a time");
        }
    }
    assert!(writing.appender.flush(DEADLINE), "nothing is left");
}

/// Records without a key reach every partition.
pub fn records_without_a_key_are_spread<L: Log>(log: &L) {
    let topic = topic(log, Role::Retry(2));
    let writing = Writing::new(log);
    let mut reached = BTreeSet::new();
    let all = log.topics().spec(topic).partitions as usize;
    // A client library may stay with one partition for a while.
    for _ in 0..2000 {
        let record = Append {
            topic,
            key: None,
            headers: &[],
            value: Some(b"x"),
        };
        reached.insert(writing.put(record).partition);
        if reached.len() == all {
            return;
        }
    }
    panic!("2,000 records without a key reached {reached:?} only");
}

/// A record that is too large is refused for good, not endlessly unavailable.
pub fn append_refuses_what_is_too_large<L: Log>(log: &L) {
    let topic = topic(log, Role::Replay);
    let value = vec![b'x'; 4 << 20];
    let record = Append {
        topic,
        key: Some(b"large"),
        headers: &[],
        value: Some(&value),
    };
    match Writing::new(log).try_put(record) {
        Err(AppendError::Refused { topic: name, .. }) => {
            assert_eq!(name, log.topics().spec(topic).full_name);
        }
        other => panic!("4 MiB: {other:?}"),
    }
}

/// A bounded queue says that it is full; what it has accepted ends, each once, in good order.
pub fn full_queue_says_so<L: Log>(log: &L) {
    let topic = topic(log, Role::Replay);
    let writing = Writing::with(
        log,
        AppenderOptions {
            queue: 4,
            ..AppenderOptions::default()
        },
    );
    let record = Append {
        topic,
        key: Some(b"same"),
        headers: &[],
        value: Some(b"x"),
    };
    let mut accepted = Vec::new();
    let mut full = 0;
    for _ in 0..100_000 {
        match writing.start(record) {
            Ok(token) => accepted.push(token),
            Err(AppendError::QueueFull) => full += 1,
            Err(other) => panic!("{other}"),
        }
        if full == 100 {
            break;
        }
    }
    assert!(
        full > 0,
        "{} appends at once did not fill a queue of 4",
        accepted.len()
    );
    assert!(writing.appender.flush(DEADLINE), "accepted appends end");
    let offsets: Vec<_> = accepted
        .into_iter()
        .map(|token| writing.end_of(token).expect("an accepted append").offset)
        .collect();
    assert!(
        offsets.is_sorted_by(|a, b| a < b),
        "appends of one caller keep their order"
    );
}
