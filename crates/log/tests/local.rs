//! The local engine: the conformance suite, and what only it promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringback_core::catalogue::Family;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Consumer, Follower, Handler, Log, Offset, Reader, Record,
};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId, Topics, TopicsConfig};
use ringback_log::conformance;
use ringback_log::local::{Clock, LocalLog, LocalOptions};

const CHILD_DIR: &str = "RINGBACK_TEST_CHILD_DIR";
const CDR: Role = Role::Events(Family::Cdr);

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(|topics| LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap());
}

/// The suite again with slices so short that they turn all the time.
#[test]
fn conforms_while_slices_turn() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(|topics| {
        let options = LocalOptions {
            slice: Some(Duration::from_millis(5)),
            ..LocalOptions::default()
        };
        LocalLog::open(dir.path(), topics, options).unwrap()
    });
}

#[test]
fn second_opener_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LocalOptions::default());
    let error = LocalLog::open(dir.path(), table(DAY), LocalOptions::default())
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(!error.retriable);
    drop(log);
    open(dir.path(), LocalOptions::default());
}

#[test]
fn second_member_of_a_group_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LocalOptions::default());
    let cdr = topic(&log, CDR);
    let first = log.consumer("group", &[cdr]).unwrap();
    assert!(log.consumer("group", &[cdr]).is_err());
    log.consumer("other", &[cdr]).unwrap();
    drop(first);
    log.consumer("group", &[cdr]).unwrap();
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), LocalOptions::default()));
    let meta = dir.path().join("meta.sqlite");
    let refusal = || {
        let opened = LocalLog::open(dir.path(), table(DAY), LocalOptions::default());
        opened.err().unwrap().to_string()
    };
    let sql = |sql| {
        rusqlite::Connection::open(&meta)
            .unwrap()
            .execute_batch(sql)
            .unwrap()
    };
    sql("PRAGMA user_version = 9");
    let text = refusal();
    assert!(
        text.contains("version 9") && text.contains("meta.sqlite"),
        "{text}"
    );
    sql("PRAGMA application_id = 7");
    let text = refusal();
    assert!(text.contains("not a file of the local log"), "{text}");
    std::fs::write(&meta, vec![b'x'; 8192]).unwrap();
    let text = refusal();
    assert!(
        text.contains("meta.sqlite") && text.contains("damaged"),
        "{text}"
    );
}

#[test]
fn partitions_are_added_and_offsets_go_on_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LocalOptions::default());
    let cdr = topic(&log, CDR);
    let last = put(&log, cdr, b"k", b"1");
    drop(log);
    let more = TopicsConfig {
        event_partitions: 5,
        ..config(DAY)
    };
    let more = Topics::new(&more, &[]);
    let log = LocalLog::open(dir.path(), more, LocalOptions::default()).unwrap();
    assert!(
        log.check_topics()
            .unwrap()
            .iter()
            .all(|problem| problem.setting == "partitions")
    );
    assert_eq!(log.check_topics().unwrap().len(), 5);
    // Until they are created, records go where they went before.
    assert_eq!(put(&log, cdr, b"k", b"2").offset, last.offset + 1);
    assert_eq!(log.create_topics().unwrap(), []);
    let mut reader = log.reader().unwrap();
    for index in 0..5 {
        reader.bounds(Partition { topic: cdr, index }).unwrap();
    }
}

#[test]
fn slices_turn_and_retention_drops_them() {
    let dir = tempfile::tempdir().unwrap();
    let time = TestTime::default();
    let options = || LocalOptions {
        slice: Some(secs(2)),
        ..time.options()
    };
    let log = open_table(dir.path(), table(secs(10)), options());
    let (cdr, replay) = (topic(&log, CDR), topic(&log, Role::Replay));
    let mut partition = None;
    for n in 0..40 {
        // Twice as long kept: a class, and files, of its own.
        let offsets = [cdr, replay].map(|topic| put(&log, topic, b"k", format!("{n}").as_bytes()));
        assert_eq!(offsets.map(|appended| appended.offset), [n, n]);
        partition = Some(offsets.map(|appended| appended.partition));
        time.advance(secs(1));
    }
    let [events, replays] = partition.unwrap();
    let mut reader = log.reader().unwrap();
    // The last append was at 39 s; a slice goes when its newest record, 1 s after its first, is due.
    let bounds = reader.bounds(events).unwrap();
    assert!((28..=30).contains(&bounds.start), "{bounds:?}");
    assert_eq!(bounds.end, 40);
    let long = reader.bounds(replays).unwrap();
    assert!((18..=20).contains(&long.start), "{long:?}");
    for (partition, bounds) in [(events, bounds.clone()), (replays, long)] {
        let found = texts(&mut reader, partition, 0..100);
        let expected: Vec<_> = bounds.map(|n| (n, n.to_string())).collect();
        assert_eq!(found, expected, "reading goes on across slices");
    }
    assert!(
        slice_files(dir.path()).len() <= 6 + 11,
        "{:?}",
        slice_files(dir.path())
    );

    // A group that had read little learns where the log starts now.
    let mut group = Taking::default();
    let mut consumer = log.consumer("group", &[cdr]).unwrap();
    consumer.poll(Duration::ZERO, &mut group).unwrap();
    let given = group
        .assigned
        .iter()
        .find(|given| given.partition == events)
        .unwrap();
    assert_eq!(given.log_start, bounds.start, "DL10");
    drop(consumer);
    drop(reader);
    drop(log);

    // Retention holds for the time when nobody was there, too; offsets are not used again.
    time.advance(secs(3600));
    let log = open_table(dir.path(), table(secs(10)), options());
    assert_eq!(log.reader().unwrap().bounds(events).unwrap(), 40..40);
    assert_eq!(slice_files(dir.path()), Vec::<PathBuf>::new());
    assert_eq!(put(&log, cdr, b"k", b"after").offset, 40);
    drop(log);
    let log = open_table(dir.path(), table(secs(10)), options());
    assert_eq!(log.reader().unwrap().bounds(events).unwrap(), 40..41);
}

#[test]
fn who_is_overtaken_by_retention_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let time = TestTime::default();
    let options = LocalOptions {
        slice: Some(secs(2)),
        ..time.options()
    };
    let log = open_table(dir.path(), table(secs(10)), options);
    let cdr = topic(&log, CDR);
    let partition = put(&log, cdr, b"k", b"0").partition;
    let mut taking = Taking::default();
    let mut consumer = log.consumer("group", &[cdr]).unwrap();
    taking.until(&mut consumer, |taking| {
        taking.offsets.contains(&(partition, 0))
    });
    let committed = Committed {
        offset: 1,
        metadata: "m".to_owned(),
    };
    consumer.commit(&[(partition, committed.clone())]).unwrap();
    for n in 1..30 {
        time.advance(secs(1));
        put(&log, cdr, b"k", format!("{n}").as_bytes());
    }
    let start = log.reader().unwrap().bounds(partition).unwrap().start;
    assert!(start > 1);
    taking.until(&mut consumer, |taking| {
        taking.offsets.contains(&(partition, 29))
    });
    assert_eq!(taking.lost, [partition]);
    let again = taking.assigned.last().unwrap();
    assert_eq!(
        (again.log_start, &again.committed),
        (start, &Some(committed))
    );
    let expected: Vec<_> = std::iter::once(0).chain(start..30).collect();
    let found: Vec<_> = taking.offsets.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(found, expected);
}

#[test]
fn compacted_topics_keep_the_newest_and_forget_old_removals() {
    let dir = tempfile::tempdir().unwrap();
    let time = TestTime::default();
    let log = open(dir.path(), time.options());
    let health = topic(&log, Role::Health);
    let partition = Partition {
        topic: health,
        index: 0,
    };
    for n in 0..10 {
        put(
            &log,
            health,
            format!("k{}", n % 2).as_bytes(),
            format!("{n}").as_bytes(),
        );
    }
    let keyless = Append {
        topic: health,
        key: None,
        headers: &[],
        value: Some(b"x"),
    };
    assert!(matches!(
        try_put(&log, keyless),
        Err(AppendError::Refused { .. })
    ));
    let removal = Append {
        topic: health,
        key: Some(b"k1"),
        headers: &[],
        value: None,
    };
    assert_eq!(try_put(&log, removal).unwrap().offset, 10);
    let offsets = |log: &LocalLog| -> Vec<Offset> {
        let read = texts(&mut log.reader().unwrap(), partition, 0..100);
        read.into_iter().map(|(offset, _)| offset).collect()
    };
    assert_eq!(offsets(&log), [8, 10]);
    drop(log);
    time.advance(2 * DAY);
    let log = open(dir.path(), time.options());
    assert_eq!(offsets(&log), [8]);
    assert_eq!(
        put(&log, health, b"k1", b"new").offset,
        11,
        "an offset is not used twice"
    );
}

/// The clock of the log does not go back, whatever the machine's does.
#[test]
fn append_time_is_monotone() {
    let dir = tempfile::tempdir().unwrap();
    let time = TestTime::default();
    time.advance(secs(100));
    let log = open(dir.path(), time.options());
    let cdr = topic(&log, CDR);
    let first = put(&log, cdr, b"k", b"1").at;
    time.0.store(50_000_000, Ordering::Release);
    assert_eq!(put(&log, cdr, b"k", b"2").at, first);
    drop(log);
    let log = open(dir.path(), time.options());
    assert_eq!(put(&log, cdr, b"k", b"3").at, first);
}

/// Killed at any moment, in the middle of commits and turning slices: nothing acknowledged is lost,
/// no offset is missing or used twice.
#[test]
fn kill_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<(String, u32, Offset), String> = BTreeMap::new();
    for round in 0..6 {
        let mut child = child("child_appends", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let enough = acknowledged.len() + 700 + 411 * round;
        let mut line = String::new();
        let mut killed = false;
        loop {
            line.clear();
            // After the kill: what it had said before. A line cut short was not said.
            if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                break;
            }
            let Some(ack) = line.trim_end().strip_prefix("ack ") else {
                continue;
            };
            let [role, index, offset, value] = ack.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let at = (
                role.to_owned(),
                index.parse().unwrap(),
                offset.parse().unwrap(),
            );
            let before = acknowledged.insert(at, value.to_owned());
            assert_eq!(before, None, "offset used twice: {line}");
            if !killed && acknowledged.len() > enough {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(
            killed,
            "the child ended by itself after {} lines",
            acknowledged.len()
        );

        let log = open(dir.path(), LocalOptions::default());
        let mut reader = log.reader().unwrap();
        let mut found = BTreeMap::new();
        for (name, role) in CHILD_TOPICS {
            for partition in log.topics().partitions(topic(&log, role)) {
                let read = texts(&mut reader, partition, 0..Offset::MAX);
                let offsets: Vec<_> = read.iter().map(|(offset, _)| *offset).collect();
                let dense: Vec<_> = (0..read.len() as Offset).collect();
                assert_eq!(offsets, dense, "offsets of {partition:?}");
                let key = |offset| (name.to_owned(), partition.index, offset);
                found.extend(read.into_iter().map(|(offset, text)| (key(offset), text)));
            }
        }
        for (at, value) in &acknowledged {
            assert_eq!(
                found.get(at),
                Some(value),
                "{at:?} was acknowledged in round {round}"
            );
        }
        let values: BTreeSet<_> = found.values().collect();
        assert_eq!(values.len(), found.len(), "a record is there twice");
    }
}

const CHILD_TOPICS: [(&str, Role); 2] = [("cdr", CDR), ("audit", Role::Audit)];

#[test]
#[ignore = "run by kill_loses_nothing_acknowledged in a process of its own"]
fn child_appends() {
    struct Said(mpsc::Sender<()>);
    impl Completion for Said {
        type Token = (&'static str, String);
        fn done(&self, (name, value): Self::Token, result: Result<Appended, AppendError>) {
            let Appended {
                partition, offset, ..
            } = result.unwrap();
            let line = format!("ack {name} {} {offset} {value}\n", partition.index);
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            self.0.send(()).unwrap();
        }
    }
    let options = LocalOptions {
        slice: Some(Duration::from_millis(30)),
        ..LocalOptions::default()
    };
    let log = open(&child_dir(), options);
    let topics = CHILD_TOPICS.map(|(name, role)| (name, topic(&log, role)));
    let (said, next) = mpsc::channel();
    for _ in 0..64 {
        said.send(()).unwrap();
    }
    let appender = log
        .appender(AppenderOptions::default(), Said(said))
        .unwrap();
    for n in 0.. {
        next.recv().unwrap();
        let (name, topic) = topics[usize::from(n % 5 == 0)];
        let value = format!("{}-{n}", std::process::id());
        let record = Append {
            topic,
            key: None,
            headers: &[],
            value: Some(value.as_bytes()),
        };
        appender
            .append(record, (name, value.clone()))
            .map_err(|(_, error)| error)
            .unwrap();
    }
}

/// A full disk: a clean error, reads go on, and so do appends when there is space again.
#[test]
fn full_disk_is_survived_in_place() {
    let dir = tempfile::tempdir().unwrap();
    // A small file system of its own, in a name space of its own: gone with the child.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=16m none \"$1\" || exit 77; shift; exec \"$@\"")
        .arg("sh")
        .arg(dir.path());
    let inner = child("child_fills_disk", dir.path());
    command
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(CHILD_DIR, dir.path());
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(77) || !unshare_works() => {
            eprintln!("skipped: this machine allows no mount: {output:?}");
        }
        Ok(output) => panic!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => eprintln!("skipped: no unshare: {error}"),
    }
}

fn unshare_works() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "true"]);
    probe.status().is_ok_and(|status| status.success())
}

#[test]
#[ignore = "run by full_disk_is_survived_in_place in a process of its own"]
fn child_fills_disk() {
    let dir = child_dir();
    let log = open(&dir.join("log"), LocalOptions::default());
    let (cdr, health) = (topic(&log, CDR), topic(&log, Role::Health));
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0_u8; 8 << 20]).unwrap();
    let value = vec![b'x'; 40_000];
    let record = Append {
        topic: cdr,
        key: Some(b"k"),
        headers: &[],
        value: Some(&value),
    };
    let mut acknowledged = Vec::new();
    let mut fill = || {
        let error = loop {
            match try_put(&log, record) {
                Ok(appended) => acknowledged.push(appended),
                Err(error) => break error,
            }
            assert!(acknowledged.len() < 1000, "16 MiB do not hold 40 MB");
        };
        assert!(matches!(error, AppendError::Unavailable { .. }), "{error}");
        let mut reader = log.reader().unwrap();
        for appended in &acknowledged {
            let range = appended.offset..appended.offset + 1;
            let found = texts(&mut reader, appended.partition, range);
            assert_eq!(found.len(), 1, "reads go on: {appended:?}");
        }
        acknowledged.last().unwrap().offset
    };
    let last = fill();
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(
        put(&log, cdr, b"k", b"after").offset,
        last + 1,
        "no offset is left out"
    );
    put(&log, health, b"k", b"after");
    let again = fill();
    assert!(
        again > last + 50,
        "the space that came back is used: {last} to {again}"
    );
}

/// A log that nobody uses costs nothing, even with consumers and followers waiting.
#[test]
fn idle_log_uses_no_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("child_idles", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

#[test]
#[ignore = "run by idle_log_uses_no_cpu in a process of its own"]
fn child_idles() {
    let log = open(&child_dir(), LocalOptions::default());
    let cdr = topic(&log, CDR);
    put(&log, cdr, b"k", b"v");
    let mut consumer = log.consumer("group", &[cdr]).unwrap();
    let mut follower = log.follower(topic(&log, Role::Health)).unwrap();
    std::thread::spawn(move || {
        let mut taking = Taking::default();
        loop {
            consumer.poll(secs(60), &mut taking).unwrap();
        }
    });
    std::thread::spawn(move || {
        loop {
            follower.poll(secs(60), &mut |_| {}).unwrap();
        }
    });
    // The fields of /proc/self/stat count hundredths of a second; one of a hundred is one percent.
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<_> = fields.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, began) = (ticks(), Instant::now());
    std::thread::sleep(secs(1));
    let share = (ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(share < 0.05, "idle, but {:.1} % of a core", share * 100.0);
}

const DAY: Duration = Duration::from_secs(86_400);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config(retention: Duration) -> TopicsConfig {
    TopicsConfig {
        event_partitions: 3,
        work_partitions: 2,
        retention,
        ..TopicsConfig::default()
    }
}

fn table(retention: Duration) -> Arc<Topics> {
    Topics::new(&config(retention), &[])
}

fn open(dir: &Path, options: LocalOptions) -> LocalLog {
    open_table(dir, table(DAY), options)
}

fn open_table(dir: &Path, topics: Arc<Topics>, options: LocalOptions) -> LocalLog {
    let log = LocalLog::open(dir, topics, options).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    log
}

fn topic(log: &LocalLog, role: Role) -> TopicId {
    log.topics().find(role).unwrap()
}

fn put(log: &LocalLog, topic: TopicId, key: &[u8], value: &[u8]) -> Appended {
    try_put(
        log,
        Append {
            topic,
            key: Some(key),
            headers: &[],
            value: Some(value),
        },
    )
    .unwrap()
}

fn try_put(log: &LocalLog, record: Append<'_>) -> Result<Appended, AppendError> {
    struct Told(mpsc::Sender<Result<Appended, AppendError>>);
    impl Completion for Told {
        type Token = ();
        fn done(&self, (): (), result: Result<Appended, AppendError>) {
            self.0.send(result).unwrap();
        }
    }
    let (told, result) = mpsc::channel();
    let appender = log
        .appender(AppenderOptions::default(), Told(told))
        .unwrap();
    appender.append(record, ()).map_err(|((), error)| error)?;
    result.recv().unwrap()
}

fn texts(
    reader: &mut impl Reader,
    partition: Partition,
    range: std::ops::Range<Offset>,
) -> Vec<(Offset, String)> {
    let mut found = Vec::new();
    let mut take = |record: Record<'_>| {
        let value = record.value.unwrap_or_default();
        found.push((record.offset, String::from_utf8_lossy(value).into_owned()));
    };
    reader.read(partition, range, &mut take).unwrap();
    found
}

fn slice_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("slices"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sqlite")
        })
        .collect();
    files.sort();
    files
}

/// This test binary, to run one of its ignored tests on a directory.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_DIR, dir);
    command
}

fn child_dir() -> PathBuf {
    std::env::var_os(CHILD_DIR)
        .expect("run by another test")
        .into()
}

/// A clock that goes when it is told to.
#[derive(Clone, Default)]
struct TestTime(Arc<AtomicI64>);

impl TestTime {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::AcqRel);
    }

    fn options(&self) -> LocalOptions {
        let now = self.0.clone();
        LocalOptions {
            clock: Clock::new(
                move || Timestamp::from_micros(now.load(Ordering::Acquire)),
                Duration::default,
            ),
            ..LocalOptions::default()
        }
    }
}

#[derive(Default)]
struct Taking {
    assigned: Vec<Assignment>,
    offsets: Vec<(Partition, Offset)>,
    lost: Vec<Partition>,
}

impl Taking {
    fn until(&mut self, consumer: &mut impl Consumer, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + conformance::DEADLINE;
        while !done(self) {
            assert!(Instant::now() < until, "{:?}", self.offsets);
            consumer.poll(secs(1), self).unwrap();
        }
    }
}

impl Handler for Taking {
    fn assigned(&mut self, assignment: Assignment) {
        self.assigned.push(assignment);
    }

    fn room(&mut self, _: Partition) -> usize {
        usize::MAX
    }

    fn record(&mut self, record: Record<'_>) {
        self.offsets.push((record.partition, record.offset));
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        None
    }

    fn lost(&mut self, partition: Partition) {
        self.lost.push(partition);
    }
}
