//! Moving an installation from the local engine to another log, with faults and kills on the way: what
//! waited waits there, what was finished does not come back, and nothing in the source changes.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::catalogue::Family;
use ringback_core::health::Snapshot;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Consumer, Handler, Header, Log, Offset, Reader, Record,
};
use ringback_core::record::decode_event;
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Cleanup, Partition, Role, Topics, TopicsConfig, group};
use ringback_core::tracker::{Begin, Tracker};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::moving::{self, Environment, MoveError, Progress};
use ringback_log::sim::{Chances, Sim, SimClock, SimLog, SimOptions};

const CDR: Role = Role::Events(Family::Cdr);
const WEBHOOK: &str = "0190b5f0-0000-7000-8000-000000000001";
const OTHER: &str = "0190b5f0-0000-7000-8000-000000000002";
const GROUPS: [&str; 4] = [
    group::EVENTS,
    group::RETRIES,
    group::DEFERRALS,
    group::ATTEMPTS,
];

fn table(prefix: &str, event_partitions: u32, tiers: &[u64]) -> Arc<Topics> {
    let config = TopicsConfig {
        prefix: prefix.to_owned(),
        event_partitions,
        work_partitions: 2,
        replication: 1,
        ..TopicsConfig::default()
    };
    let tiers: Vec<_> = tiers
        .iter()
        .map(|tier| Duration::from_secs(*tier))
        .collect();
    Topics::new(&config, &tiers)
}

fn keys(key: &str) -> KeyRing {
    KeyRing::new("k", [("k", key)]).unwrap()
}

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "QUJDREVGR0g0OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Nothing fails in the source.
struct Reply;

impl Completion for Reply {
    type Token = ();

    fn done(&self, (): (), result: Result<Appended, AppendError>) {
        result.unwrap();
    }
}

/// An installation that has run for a while on the local engine.
struct Source {
    log: LocalLog,
    clock: SimClock,
    appender: <LocalLog as Log>::Appender<Reply>,
}

impl Source {
    fn open(dir: &Path, clock: SimClock) -> Self {
        let options = LocalOptions {
            clock: clock.clock(),
            ..LocalOptions::default()
        };
        let log = LocalLog::open(dir, table("old.", 2, &[32, 240]), options).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        let appender = log.appender(AppenderOptions::default(), Reply).unwrap();
        Self {
            log,
            clock,
            appender,
        }
    }

    fn append(&self, role: Role, key: Option<&str>, headers: &[(&str, &str)], value: &str) {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        let record = Append {
            topic: self.log.topics().find(role).unwrap(),
            key: key.map(str::as_bytes),
            headers: &headers,
            value: Some(value.as_bytes()),
        };
        assert!(self.appender.append(record, ()).is_ok());
    }

    /// Waits until everything is there.
    fn settle(&self) {
        assert!(self.appender.flush(Duration::from_secs(60)));
    }

    fn set(&self, role: Role, key: &str, value: Option<&str>) {
        let topic = self.log.topics().find(role).unwrap();
        let there = newest(&self.log, role).contains_key(key);
        let revision = there.then(|| revision(&self.log, role, key));
        let value = value.map(str::as_bytes);
        self.log
            .compare_and_set(topic, key, revision, value)
            .unwrap();
    }

    /// Works off what a group reads, but for records whose value `wants` says no to.
    fn work_off(&self, name: &str, wants: fn(&str) -> bool) {
        self.settle();
        let mut worker = Worker::new(wants);
        consume(&self.log, name, &mut worker);
    }
}

fn revision<L: Log>(log: &L, role: Role, key: &str) -> ringback_core::log::Revision {
    let mut found = None;
    each(log, role, |record| {
        if record.key == Some(key.as_bytes()) {
            found = Some(ringback_core::log::Revision(record.offset));
        }
    });
    found.unwrap()
}

/// A member that finishes what it wants to.
struct Worker {
    wants: fn(&str) -> bool,
    trackers: HashMap<Partition, Tracker>,
    /// The next offset to read.
    next: HashMap<Partition, Offset>,
    seen: Vec<Seen>,
}

impl Worker {
    fn new(wants: fn(&str) -> bool) -> Self {
        Self {
            wants,
            trackers: HashMap::new(),
            next: HashMap::new(),
            seen: Vec::new(),
        }
    }
}

/// A record that a group was given.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    partition: Partition,
    appended: Timestamp,
    time: Option<Timestamp>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    value: String,
}

fn seen(record: &Record<'_>) -> Seen {
    let headers = record.headers.iter();
    Seen {
        partition: record.partition,
        appended: record.appended,
        time: decode_event(record).ok().map(|event| event.time),
        key: record.key.map(<[u8]>::to_vec),
        headers: headers
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect(),
        value: String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap(),
    }
}

impl Handler for Worker {
    fn assigned(&mut self, assignment: Assignment) {
        let tracker = Tracker::new(assignment.committed.as_ref(), assignment.log_start);
        self.trackers.insert(assignment.partition, tracker);
        let committed = assignment.committed.map(|committed| committed.offset);
        let next = committed.unwrap_or(assignment.log_start);
        self.next.insert(assignment.partition, next);
    }

    fn room(&mut self, _: Partition) -> usize {
        100
    }

    fn record(&mut self, record: Record<'_>) {
        self.next.insert(record.partition, record.offset + 1);
        let tracker = self.trackers.get_mut(&record.partition).unwrap();
        if tracker.begin(record.offset) == Begin::New {
            let seen = seen(&record);
            if (self.wants)(&seen.value) {
                tracker.finish(record.offset);
            }
            self.seen.push(seen);
        }
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.trackers.get_mut(&partition)?.commit()
    }

    fn lost(&mut self, partition: Partition) {
        self.trackers.remove(&partition);
    }
}

/// Reads all that a group has to work off.
fn consume<L: Log>(log: &L, name: &str, worker: &mut Worker) {
    let topics = log.topics();
    let of_group = topics
        .iter()
        .filter(|(_, spec)| spec.role.group() == Some(name));
    let of_group: Vec<_> = of_group.map(|(topic, _)| topic).collect();
    let mut reader = log.reader().unwrap();
    let all: Vec<_> = of_group
        .iter()
        .flat_map(|topic| topics.partitions(*topic))
        .collect();
    let mut consumer = log.consumer(name, &of_group).unwrap();
    let at_end = |worker: &Worker, reader: &mut L::Reader| {
        all.iter().all(|partition| {
            let bounds = reader.bounds(*partition).unwrap();
            worker.next.get(partition) >= Some(&bounds.end)
        })
    };
    while !at_end(worker, &mut reader) {
        consumer.poll(Duration::from_millis(10), worker).unwrap();
    }
    consumer.close(Duration::from_secs(5), worker).unwrap();
}

/// What a group of the log would be given now, without finishing any of it.
fn waiting<L: Log>(log: &L, name: &str) -> Vec<Seen> {
    let mut worker = Worker::new(|_| false);
    consume(log, name, &mut worker);
    worker.seen
}

fn each<L: Log>(log: &L, role: Role, mut handler: impl FnMut(&Record<'_>)) {
    let mut reader = log.reader().unwrap();
    let topic = log.topics().find(role).unwrap();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        reader
            .read(partition, bounds, &mut |record| handler(&record))
            .unwrap();
    }
}

fn newest<L: Log>(log: &L, role: Role) -> BTreeMap<String, Vec<u8>> {
    let mut newest = BTreeMap::new();
    each(log, role, |record| {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        match record.value {
            Some(value) => newest.insert(key, value.to_vec()),
            None => newest.remove(&key),
        };
    });
    newest
}

fn values<L: Log>(log: &L, role: Role) -> Vec<String> {
    let mut values = Vec::new();
    each(log, role, |record| values.push(seen(record).value));
    values.sort_unstable();
    values
}

/// Everything that stands in a log, but for compacted topics.
fn all_records(log: &LocalLog) -> Vec<(Offset, Seen)> {
    let mut all = Vec::new();
    for (_, spec) in log.topics().iter() {
        each(log, spec.role, |record| {
            all.push((record.offset, seen(record)))
        });
    }
    all
}

fn webhook(keys: &KeyRing) -> String {
    let id = WEBHOOK.parse().unwrap();
    let sealed = keys
        .seal(&Secret::new("secret"), id, "token", [7; 24])
        .unwrap();
    let sealed = serde_json::to_value(sealed).unwrap();
    serde_json::json!({
        "version": 1, "id": id, "tenant": "acme", "name": "cdr", "subscription": ["cdr.*"],
        "url": "https://example.com/", "authentication": { "method": "bearer", "token": sealed },
        "enabled": true, "generation": 3,
        "created": "2026-11-21T09:00:00Z", "updated": "2026-11-21T09:00:00Z",
    })
    .to_string()
}

fn window(next: Offset) -> String {
    let window = ringback_core::health::Window::new(3);
    let snapshot = Snapshot {
        version: 1,
        tenant: ringback_core::event::TenantId::parse("acme").unwrap(),
        next,
        window,
        repaired: false,
    };
    serde_json::to_string(&snapshot).unwrap()
}

/// Configures, delivers some and leaves some, two hours long.
fn live(source: &Source) {
    source.set(Role::Tenants, "acme", Some(r#"{"id":"acme"}"#));
    source.set(Role::Tenants, "gone", Some(r#"{"id":"gone"}"#));
    source.set(Role::Tenants, "gone", None);
    source.set(Role::Webhooks, "acme/cdr", Some(&webhook(&keys(KEY))));
    source.set(Role::Accounts, "token", Some(r#"{"hash":"…"}"#));
    source.append(Role::Health, Some(WEBHOOK), &[], "verdict 1");
    source.append(Role::Health, Some(WEBHOOK), &[], "verdict 2");
    let id = "0190b5f0-0000-7000-8000-00000000";
    for number in 0..2400 {
        let (id, subject) = (
            format!("{id}{number:04}"),
            format!("acme/call/{}", number % 7),
        );
        let mut headers = vec![
            ("ce_id", id.as_str()),
            ("ce_source", "pbx"),
            ("ce_type", "cdr.completed"),
            ("ce_tenant", "acme"),
        ];
        // One has no time, and one a clock that is ahead: what stands for it must not change.
        if number % 5 == 1 {
            headers.push(("ce_time", "2026-11-23T09:00:00.000Z"));
        } else if number % 5 > 1 {
            headers.push(("ce_time", "2026-11-20T09:00:00.000Z"));
            headers.push(("ce_unknown", "kept"));
        }
        source.append(
            CDR,
            Some(&subject),
            &headers,
            &format!("{{\"n\":{number}}}"),
        );
    }
    // The first are finished, then every second, in gaps of the metadata.
    source.work_off(group::EVENTS, |value| {
        let number: u32 = value[5..value.len() - 1].parse().unwrap();
        number < 300 || number.is_multiple_of(2)
    });
    for number in 0..40 {
        source.append(Role::Retry(1), None, &[], &format!("long {number}"));
        source.append(
            Role::Defer(4),
            None,
            &[("rb_deferrals", "3")],
            &format!("hour {number}"),
        );
        source.append(
            Role::Replay,
            Some(WEBHOOK),
            &[],
            &format!("replay {number}"),
        );
        source.append(
            Role::Parked,
            Some(WEBHOOK),
            &[],
            &format!("parked {number}"),
        );
        source.append(
            Role::Attempts,
            Some(WEBHOOK),
            &[],
            &format!("attempt {number}"),
        );
        source.append(Role::Attempts, Some(OTHER), &[], &format!("other {number}"));
    }
    source.settle();
    // The window of one webhook is ahead of what its group commits; the other has none.
    let attempts = source.log.topics().find(Role::Attempts).unwrap();
    let index = ringback_core::log::partition_of(WEBHOOK.as_bytes(), 2);
    let mut next = 0;
    each(&source.log, Role::Attempts, |record| {
        let of_it = record.partition
            == Partition {
                topic: attempts,
                index,
            };
        if of_it && record.value == Some(b"attempt 29") {
            next = record.offset + 1;
        }
    });
    source.append(Role::Windows, Some(WEBHOOK), &[], &window(next));
    source.work_off(group::ATTEMPTS, |value| {
        let number: u32 = value.rsplit_once(' ').unwrap().1.parse().unwrap();
        number < 20
    });
    source.work_off(group::DEFERRALS, |value| value.ends_with('5'));
    source.clock.advance(Duration::from_secs(100));
    for number in 0..40 {
        source.append(Role::Retry(0), None, &[], &format!("short {number}"));
    }
    source.work_off(group::RETRIES, |value| value.ends_with('3'));
    source.clock.advance(Duration::from_secs(20));
}

struct Target {
    sim: Sim,
    topics: Arc<Topics>,
}

impl Target {
    fn new(seed: u64, clock: SimClock, topics: Arc<Topics>) -> Self {
        let options = SimOptions {
            seed,
            clock,
            session: Duration::ZERO,
            ..SimOptions::default()
        };
        let sim = Sim::new(options).unwrap();
        let target = Self { sim, topics };
        target.open().create_topics().unwrap();
        target
    }

    fn open(&self) -> SimLog {
        self.sim.open(self.topics.clone())
    }
}

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
    for role in [Role::Tenants, Role::Webhooks, Role::Accounts, Role::Health] {
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
        let source = Source::open(dir.path(), clock);
        live(&source);
        let held = LocalLog::open_existing(dir.path(), LocalOptions::default()).err();
        assert!(held.unwrap().to_string().contains("has it open"));
        all_records(&source.log).len()
    };
    let log = LocalLog::open_existing(dir.path(), LocalOptions::default()).unwrap();
    assert_eq!(log.check_topics().unwrap(), []);
    assert_eq!(all_records(&log).len(), records);
    assert_eq!(log.topics().tiers(), [32, 240].map(Duration::from_secs));
}
