//! Promises about compacted topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringback_core::log::{Append, Follower, Header, Log, Offset, Reader, Revision, WriteError};
use ringback_core::topics::{Partition, Role, TopicId};

use super::DEADLINE;
use super::support::{Copied, Writing, topic};

/// A follower hands over what is there, says when it has reached the end and not before, and goes on
/// with what comes, removals included.
pub fn follower_reaches_the_end_and_follows<L: Log>(log: &L) {
    let topic = topic(log, Role::Health);
    let writing = Writing::new(log);
    let mut state = BTreeMap::new();
    let mut follower = log.follower(topic).expect("a follower");
    follow(&mut follower, &mut state);
    assert_eq!(state.len(), 0, "an empty topic has an end");
    for n in 0..50 {
        writing.text(topic, &format!("k{}", n % 20), &format!("v{n}"));
    }
    // Appended before the call, so within the end that it has to reach.
    follow(&mut follower, &mut state);
    let value = |n: usize| Some(format!("v{}", if n < 10 { n + 40 } else { n + 20 }));
    let expected: BTreeMap<_, _> = (0..20).map(|n| (format!("k{n}"), value(n))).collect();
    assert_eq!(state, expected);

    let tombstone = Append {
        topic,
        key: Some(b"k3"),
        headers: &[],
        value: None,
    };
    let removed = writing.put(tombstone);
    let mut seen = Vec::new();
    follow_with(&mut follower, |record| seen.push(record));
    let removal = seen.iter().find(|record| record.offset == removed.offset);
    let removal = removal.expect("who follows sees a removal");
    assert_eq!(
        (removal.key.as_deref(), &removal.value),
        (Some(&b"k3"[..]), &None)
    );

    // A new one sees the same; k3 is gone or removed.
    let mut fresh = BTreeMap::new();
    follow(&mut log.follower(topic).expect("a follower"), &mut fresh);
    let mut expected = expected;
    expected.remove("k3");
    fresh.retain(|_, value| value.is_some());
    assert_eq!(fresh, expected);
}

/// Creating, updating, removing and creating again need the revision that is there; who has another
/// one learns the current one.
pub fn compare_and_set_needs_the_revision<L: Log>(log: &L) {
    let topic = topic(log, Role::Webhooks);
    let set = |expected, value: Option<&str>| {
        log.compare_and_set(topic, "a/b", expected, value.map(str::as_bytes))
    };
    let first = set(None, Some("one")).expect("creating");
    assert_eq!(
        set(None, Some("two")),
        conflict(Some(first)),
        "it exists already"
    );
    let second = set(Some(first), Some("two")).expect("updating");
    assert!(second > first);
    assert_eq!(
        set(Some(first), Some("three")),
        conflict(Some(second)),
        "an old revision"
    );
    assert_eq!(
        set(Some(first), None),
        conflict(Some(second)),
        "an old revision"
    );
    let other = log
        .compare_and_set(topic, "other", None, Some(b"x"))
        .expect("another key");
    assert!(other > second);
    assert_eq!(
        value_at(log, topic, second).as_deref(),
        Some("two"),
        "a revision is an offset"
    );
    let removed = set(Some(second), None).expect("removing");
    assert!(removed > other);
    assert_eq!(
        set(Some(second), Some("four")),
        conflict(None),
        "it was removed"
    );
    set(None, Some("again")).expect("creating again");
    let mut state = BTreeMap::new();
    follow(&mut log.follower(topic).expect("a follower"), &mut state);
    state.retain(|_, value| value.is_some());
    let expected = [("a/b", "again"), ("other", "x")];
    let expected = expected.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    assert_eq!(state, BTreeMap::from(expected));
}

/// What is told of a change is there with the change: for each once, and for no conflict.
pub fn what_is_told_of_a_change_is_there_with_it<L: Log>(log: &L) {
    let (topic, audit) = (topic(log, Role::Tenants), topic(log, Role::Audit));
    let before = told(log, audit);
    let set = |expected, value: Option<&str>, told: &str| {
        let beside = Append {
            topic: audit,
            key: Some(b"told"),
            headers: &[Header {
                name: "kind",
                value: b"test",
            }],
            value: Some(told.as_bytes()),
        };
        let value = value.map(str::as_bytes);
        log.compare_and_set_beside(topic, "told", expected, value, Some(beside))
    };
    let first = set(None, Some("one"), "added").expect("creating");
    assert_eq!(set(None, Some("x"), "a conflict"), conflict(Some(first)));
    let second = set(Some(first), Some("two"), "changed").expect("updating");
    set(Some(second), None, "removed").expect("removing");
    assert_eq!(set(Some(second), None, "too late"), conflict(None));
    let without = log.compare_and_set(topic, "told", None, Some(b"x"));
    log.compare_and_set(topic, "told", Some(without.expect("creating")), None)
        .expect("removing");
    let after = told(log, audit);
    assert_eq!(after[before.len()..], ["added", "changed", "removed"]);
    // To a topic whose records replace each other nothing is told.
    let beside = Append {
        topic,
        key: Some(b"x"),
        headers: &[],
        value: Some(b"x"),
    };
    let refused = log.compare_and_set_beside(topic, "refused", None, Some(b"x"), Some(beside));
    assert!(matches!(refused, Err(WriteError::Log(error)) if !error.retriable));
}

/// What has been told with key `told`, in order.
fn told<L: Log>(log: &L, audit: TopicId) -> Vec<String> {
    let partitions = log.topics().spec(audit).partitions;
    let index = ringback_core::log::partition_of(b"told", partitions);
    let partition = Partition {
        topic: audit,
        index,
    };
    let mut reader = log.reader().expect("a reader");
    let bounds = reader.bounds(partition).expect("bounds");
    let mut told = Vec::new();
    let mut remember = |record: ringback_core::log::Record<'_>| {
        if record.key == Some(b"told") {
            assert_eq!(record.header("kind"), Some(&b"test"[..]));
            told.push(Copied::of(&record).text());
        }
    };
    reader
        .read(partition, bounds, &mut remember)
        .expect("reading");
    told
}

/// Eight writers add their lines to one record: none is lost, none is there twice.
pub fn compare_and_set_loses_no_update<L: Log>(log: &L) {
    const WRITERS: usize = 8;
    const LINES: usize = 5;
    let topic = topic(log, Role::Accounts);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for line in 0..LINES {
                    add_line(log, topic, &format!("writer {writer} line {line}"));
                }
            });
        }
    });
    let (_, text) = current(log, topic);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<_> = (0..WRITERS)
        .flat_map(|writer| (0..LINES).map(move |line| format!("writer {writer} line {line}")))
        .collect();
    expected.sort();
    assert_eq!(lines, expected);
}

fn add_line<L: Log>(log: &L, topic: TopicId, line: &str) {
    let until = Instant::now() + DEADLINE;
    let (mut revision, mut text) = current(log, topic);
    loop {
        assert!(
            Instant::now() < until,
            "no turn for {line} within {DEADLINE:?}"
        );
        let added = format!("{text}{line}\n");
        match log.compare_and_set(topic, "shared", revision, Some(added.as_bytes())) {
            Ok(_) => return,
            Err(WriteError::Conflict { current }) => {
                assert_ne!(current, revision, "a conflict names another revision");
                revision = current;
                text = current
                    .and_then(|found| value_at(log, topic, found))
                    .unwrap_or_default();
                if current.is_some() && text.is_empty() {
                    // Written over between the conflict and our reading.
                    (revision, text) = self::current(log, topic);
                }
            }
            Err(WriteError::Log(error)) => {
                assert!(error.retriable, "{error}");
                // It is not known whether it was written: look.
                (revision, text) = current(log, topic);
                if text.lines().any(|known| known == line) {
                    return;
                }
            }
        }
    }
}

/// The revision and text of the shared record.
fn current<L: Log>(log: &L, topic: TopicId) -> (Option<Revision>, String) {
    let mut reader = log.reader().expect("a reader");
    let partition = Partition { topic, index: 0 };
    let bounds = reader.bounds(partition).expect("bounds");
    let mut last = (None, String::new());
    let mut remember = |record: ringback_core::log::Record<'_>| {
        let copied = Copied::of(&record);
        last = (Some(Revision(copied.offset)), copied.text());
    };
    reader
        .read(partition, bounds, &mut remember)
        .expect("reading");
    last
}

fn value_at<L: Log>(log: &L, topic: TopicId, Revision(at): Revision) -> Option<String> {
    let mut reader = log.reader().expect("a reader");
    let mut found = None;
    let mut remember = |record: ringback_core::log::Record<'_>| {
        found = Some(Copied::of(&record).text());
    };
    let range: std::ops::Range<Offset> = at..at + 1;
    reader
        .read(Partition { topic, index: 0 }, range, &mut remember)
        .expect("reading");
    found
}

fn conflict(current: Option<Revision>) -> Result<Revision, WriteError> {
    Err(WriteError::Conflict { current })
}

/// Follows to the end; the newest value of each key, `None` for a removal.
fn follow(follower: &mut impl Follower, state: &mut BTreeMap<String, Option<String>>) {
    follow_with(follower, |record| {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let value = record.value.is_some().then(|| record.text());
        state.insert(key, value);
    });
}

fn follow_with(follower: &mut impl Follower, mut handler: impl FnMut(Copied)) {
    let until = Instant::now() + DEADLINE;
    loop {
        assert!(
            Instant::now() < until,
            "the end was not reached within {DEADLINE:?}"
        );
        let polled = follower.poll(Duration::from_millis(250), &mut |record| {
            handler(Copied::of(&record))
        });
        match polled {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => assert!(error.retriable, "{error}"),
        }
    }
}
