//! The Kafka engine against a real broker: what only Kafka does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use ringback_core::log::*;
use ringback_core::topics::{Partition, Role, TopicId, Topics, TopicsConfig};
use ringback_log::conformance;
use ringback_log::kafka::{KafkaConfig, KafkaLog};
use ringback_tests::kafka::{self, KafkaOptions, KafkaServer};

const PATIENCE: Duration = Duration::from_secs(60);

/// A table of topics of its own on the shared broker.
fn table(prefix: &str) -> Arc<Topics> {
    let config = TopicsConfig {
        prefix: format!("{prefix}."),
        event_partitions: 6,
        work_partitions: 2,
        replication: 1,
        ..TopicsConfig::default()
    };
    Topics::new(&config, &[Duration::from_secs(32)])
}

fn open(bootstrap: &str, prefix: &str) -> KafkaLog {
    let config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        group_prefix: format!("{prefix}."),
        ..KafkaConfig::default()
    };
    KafkaLog::open(config, table(prefix)).unwrap()
}

/// Runs the conformance suite; it chooses tables that nobody else uses.
fn conform(bootstrap: &str, replication: u16) {
    let open = |topics: Arc<Topics>| {
        let config = KafkaConfig {
            bootstrap: bootstrap.to_owned(),
            ..KafkaConfig::default()
        };
        KafkaLog::open(config, topics).unwrap()
    };
    conformance::all_replicated(replication, open);
}

#[test]
fn it_conforms() {
    conform(kafka::shared().bootstrap(), 1);
}

#[test]
fn three_nodes_conform_and_lose_nothing_with_a_leader() {
    let three = KafkaOptions {
        nodes: 3,
        ..KafkaOptions::default()
    };
    let mut server = KafkaServer::start_with(&three).unwrap();
    conform(server.bootstrap(), 3);
    leaders_die(&mut server);
}

/// Three copies, two of them in sync at least: the leader of some of the partitions is killed in
/// mid-stream, and nothing that was acknowledged is lost, without its return.
fn leaders_die(server: &mut KafkaServer) {
    let config = KafkaConfig {
        bootstrap: server.bootstrap().to_owned(),
        group_prefix: "leader.".to_owned(),
        ..KafkaConfig::default()
    };
    let topics = TopicsConfig {
        prefix: "leader.".to_owned(),
        event_partitions: 6,
        work_partitions: 2,
        replication: 3,
        ..TopicsConfig::default()
    };
    let log = KafkaLog::open(config, Topics::new(&topics, &[Duration::from_secs(32)])).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    nothing_is_lost(server, &log, |server| {
        let admin: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", server.bootstrap())
            .create()
            .unwrap();
        let metadata = admin
            .client()
            .fetch_metadata(Some("leader.attempts"), PATIENCE);
        let leader = metadata.unwrap().topics()[0].partitions()[0].leader();
        server
            .kill_node(usize::try_from(leader - 1).unwrap())
            .unwrap();
        false
    });
}

fn created(bootstrap: &str, prefix: &str) -> KafkaLog {
    let log = open(bootstrap, prefix);
    assert_eq!(log.create_topics().unwrap(), []);
    log
}

fn topic(log: &KafkaLog, role: Role) -> TopicId {
    log.topics().find(role).unwrap()
}

type Report = (u64, Result<Appended, AppendError>);

/// Sends every report on.
struct Reports(mpsc::Sender<Report>);

impl Completion for Reports {
    type Token = u64;

    fn done(&self, token: u64, result: Result<Appended, AppendError>) {
        self.0.send((token, result)).unwrap();
    }
}

fn reporting(log: &KafkaLog) -> (impl Appender<Reports>, mpsc::Receiver<Report>) {
    let (sender, reports) = mpsc::channel();
    let options = AppenderOptions {
        timeout: Duration::from_secs(5),
        ..AppenderOptions::default()
    };
    (log.appender(options, Reports(sender)).unwrap(), reports)
}

fn append(appender: &impl Appender<Reports>, topic: TopicId, number: u64) {
    let key = number.to_string();
    let record = Append {
        topic,
        key: Some(key.as_bytes()),
        headers: &[],
        value: Some(key.as_bytes()),
    };
    appender.append(record, number).unwrap();
}

fn number(record: &Record<'_>) -> u64 {
    std::str::from_utf8(record.value.unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What all members of a group saw.
#[derive(Default)]
struct Seen {
    owners: HashMap<Partition, usize>,
    records: HashMap<u64, usize>,
    violations: Vec<String>,
}

/// One member. It finishes each record at once, but asks for time before it gives a partition up.
struct Member {
    id: usize,
    seen: Arc<Mutex<Seen>>,
    next: HashMap<Partition, Offset>,
    asked: HashMap<Partition, usize>,
}

/// Deletes the records of a partition before an offset, as retention does.
fn delete_records(bootstrap: &str, topic: &str, partition: i32, before: Offset) {
    use rdkafka::TopicPartitionList;
    use rdkafka::admin::{AdminClient, AdminOptions};
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let offset = rdkafka::Offset::Offset(before);
    list.add_partition_offset(topic, partition, offset).unwrap();
    wait(admin.delete_records(&list, &AdminOptions::new())).unwrap();
}

/// DL10: what retention drops before it is read is named, whether the group was away or just slow.
#[test]
fn what_retention_drops_unread_is_named() {
    /// Takes as many as it may, and notes what it was told.
    #[derive(Default)]
    struct Notes {
        room: usize,
        assigned: Option<Assignment>,
        read: Vec<Offset>,
        gaps: Vec<std::ops::Range<Offset>>,
    }
    impl Handler for Notes {
        fn assigned(&mut self, assignment: Assignment) {
            self.assigned = Some(assignment);
        }
        fn room(&mut self, _: Partition) -> usize {
            self.room
        }
        fn record(&mut self, record: Record<'_>) {
            self.room -= 1;
            self.read.push(record.offset);
        }
        fn revoking(&mut self, _: Partition) -> bool {
            true
        }
        fn revoked(&mut self, _: Partition) -> Option<Committed> {
            let offset = self.read.last()? + 1;
            let metadata = String::new();
            Some(Committed { offset, metadata })
        }
        fn lost(&mut self, _: Partition) {}
        fn gap(&mut self, _: Partition, lost: std::ops::Range<Offset>) {
            self.gaps.push(lost);
        }
    }
    let bootstrap = kafka::shared().bootstrap();
    created(bootstrap, "gap");
    let mut config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        group_prefix: "gap.".to_owned(),
        ..KafkaConfig::default()
    };
    // Reads hardly anything ahead, so that it can be overtaken.
    for (name, value) in [
        ("queued.min.messages", "1"),
        ("queued.max.messages.kbytes", "1"),
        ("fetch.message.max.bytes", "1"),
    ] {
        config.properties.insert(name.into(), value.into());
    }
    let log = KafkaLog::open(config, table("gap")).unwrap();
    let audit = topic(&log, Role::Audit);
    let (appender, _reports) = reporting(&log);
    // A batch each, since whole batches are fetched.
    for number in 0..200 {
        append(&appender, audit, number);
        assert!(appender.flush(PATIENCE));
    }
    let mut consumer = log.consumer("slow", &[audit]).unwrap();
    let mut notes = Notes {
        room: 1,
        ..Notes::default()
    };
    let read = |notes: &mut Notes, consumer: &mut <KafkaLog as Log>::Consumer, count| {
        notes.room = count;
        let before = notes.read.len();
        eventually("they are read", || {
            consumer.poll(Duration::from_millis(50), notes).unwrap();
            notes.read.len() == before + count
        });
    };
    read(&mut notes, &mut consumer, 1);
    delete_records(bootstrap, "gap.audit", 0, 150);
    // What was read ahead still comes; then the gap is named once, up to the log's start.
    let rest = |notes: &Notes| notes.read.last() == Some(&199);
    notes.room = 200;
    eventually("the end is read", || {
        consumer
            .poll(Duration::from_millis(50), &mut notes)
            .unwrap();
        rest(&notes)
    });
    assert_eq!(notes.gaps.len(), 1, "{:?}", notes.gaps);
    let gap = notes.gaps[0].clone();
    assert_eq!(gap.end, 150, "{gap:?}");
    let expected: Vec<Offset> = (0..gap.start).chain(150..200).collect();
    assert_eq!(notes.read, expected);
    consumer.close(PATIENCE, &mut notes).unwrap();

    // Away: committed at 200, and more is dropped before it comes back.
    for number in 200..220 {
        append(&appender, audit, number);
    }
    assert!(appender.flush(PATIENCE));
    delete_records(bootstrap, "gap.audit", 0, 210);
    let mut consumer = log.consumer("slow", &[audit]).unwrap();
    let mut notes = Notes::default();
    read(&mut notes, &mut consumer, 10);
    let assigned = notes.assigned.unwrap();
    assert_eq!(
        (assigned.committed.unwrap().offset, assigned.log_start),
        (200, 210)
    );
    assert_eq!(notes.gaps, [], "once is enough");
    assert_eq!(notes.read, (210..220).collect::<Vec<_>>());
}

impl Handler for Member {
    fn assigned(&mut self, assignment: Assignment) {
        let mut seen = self.seen.lock().unwrap();
        if let Some(other) = seen.owners.insert(assignment.partition, self.id) {
            let partition = assignment.partition;
            let id = self.id;
            seen.violations
                .push(format!("{partition:?} belongs to {other} and to {id}"));
        }
        let from = assignment.committed.map_or(0, |committed| committed.offset);
        self.next.insert(assignment.partition, from);
    }

    fn room(&mut self, _: Partition) -> usize {
        50
    }

    fn record(&mut self, record: Record<'_>) {
        let mut seen = self.seen.lock().unwrap();
        if seen.owners.get(&record.partition) != Some(&self.id) {
            seen.violations.push(format!("{record:?} is not ours"));
        }
        *seen.records.entry(number(&record)).or_default() += 1;
        self.next.insert(record.partition, record.offset + 1);
    }

    fn revoking(&mut self, partition: Partition) -> bool {
        let asked = self.asked.entry(partition).or_default();
        *asked += 1;
        *asked > 3
    }

    fn revoked(&mut self, partition: Partition) -> Option<Committed> {
        self.seen.lock().unwrap().owners.remove(&partition);
        self.asked.remove(&partition);
        Some(Committed {
            offset: self.next.remove(&partition).unwrap(),
            metadata: format!("by {}", self.id),
        })
    }

    fn lost(&mut self, partition: Partition) {
        let mut seen = self.seen.lock().unwrap();
        seen.violations.push(format!("{partition:?} was lost"));
        seen.owners.remove(&partition);
    }
}

/// Runs a member until told to stop.
fn member(
    log: &KafkaLog,
    id: usize,
    topic: TopicId,
    seen: &Arc<Mutex<Seen>>,
) -> (Arc<AtomicBool>, thread::JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut handler = Member {
        id,
        seen: seen.clone(),
        next: HashMap::new(),
        asked: HashMap::new(),
    };
    let mut consumer = log.consumer("group", &[topic]).unwrap();
    let stopping = stop.clone();
    let thread = thread::spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            let result = consumer.poll(Duration::from_millis(200), &mut handler);
            result.unwrap();
        }
        consumer.close(PATIENCE, &mut handler).unwrap();
    });
    (stop, thread)
}

fn share_a_group(prefix: &str, properties: &[(&str, &str)]) {
    let prefix = prefix.to_owned();
    created(kafka::shared().bootstrap(), &prefix);
    let mut config = KafkaConfig {
        bootstrap: kafka::shared().bootstrap().to_owned(),
        group_prefix: prefix.clone(),
        ..KafkaConfig::default()
    };
    for (name, value) in properties {
        config.properties.insert((*name).into(), (*value).into());
    }
    let log = KafkaLog::open(config, table(&prefix)).unwrap();
    let attempts = topic(&log, Role::Attempts);
    let (appender, _reports) = reporting(&log);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut appended = 0..0;
    let mut append_more = |count: u64| {
        appended.end += count;
        for number in appended.end - count..appended.end {
            append(&appender, attempts, number);
        }
        assert!(appender.flush(PATIENCE));
        appended.end
    };
    let owned_by = |id: usize| {
        let seen = seen.lock().unwrap();
        seen.owners.values().filter(|owner| **owner == id).count()
    };
    let all = |count: u64| seen.lock().unwrap().records.len() as u64 == count;

    let count = append_more(500);
    let (stop_first, first) = member(&log, 1, attempts, &seen);
    eventually("the first has everything", || all(count));
    let (stop_second, second) = member(&log, 2, attempts, &seen);
    // While the partitions move, records keep coming.
    eventually("they share", || {
        append_more(10);
        owned_by(1) == 3 && owned_by(2) == 3
    });
    let count = append_more(500);
    eventually("both have everything", || all(count));
    stop_first.store(true, Ordering::Relaxed);
    first.join().unwrap();
    let count = append_more(500);
    eventually("the second has everything", || {
        owned_by(2) == 6 && all(count)
    });
    stop_second.store(true, Ordering::Relaxed);
    second.join().unwrap();

    let seen = seen.lock().unwrap();
    assert_eq!(seen.violations, Vec::<String>::new());
    let again: Vec<_> = seen
        .records
        .iter()
        .filter(|(_, times)| **times > 1)
        .collect();
    assert!(again.is_empty(), "handed over more than once: {again:?}");
}

#[test]
fn members_share_without_loss_or_double_ownership() {
    share_a_group("share", &[]);
}

#[test]
fn members_share_by_the_eager_protocol_too() {
    share_a_group("eager", &[("partition.assignment.strategy", "range")]);
}

#[test]
fn members_share_by_the_brokers_protocol_too() {
    share_a_group("kip848", &[("group.protocol", "consumer")]);
}

/// Every record of a topic, by its number.
fn read_all(log: &KafkaLog, topic: TopicId) -> HashMap<u64, usize> {
    let mut reader = log.reader().unwrap();
    let mut found = HashMap::new();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        let mut count = |record: Record<'_>| *found.entry(number(&record)).or_default() += 1;
        reader.read(partition, bounds, &mut count).unwrap();
    }
    found
}

#[test]
fn what_was_acknowledged_survives_a_killed_broker() {
    let mut server = KafkaServer::start().unwrap();
    let log = created(server.bootstrap(), "killed");
    nothing_is_lost(&mut server, &log, |server| {
        server.kill().unwrap();
        true
    });
}

/// Appends on and on while something happens to the brokers, and checks the books. `harm` says
/// whether appends must fail until the brokers are started again.
fn nothing_is_lost(
    server: &mut KafkaServer,
    log: &KafkaLog,
    harm: impl FnOnce(&mut KafkaServer) -> bool,
) {
    let attempts = topic(log, Role::Attempts);
    let (appender, reports) = reporting(log);
    let stop = Arc::new(AtomicBool::new(false));
    let handed_over = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (appender, stop, handed_over) = (appender.clone(), stop.clone(), handed_over.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                let number = handed_over.load(Ordering::Relaxed);
                let key = number.to_string();
                let record = Append {
                    topic: attempts,
                    key: Some(key.as_bytes()),
                    headers: &[],
                    value: Some(key.as_bytes()),
                };
                match appender.append(record, number) {
                    Ok(()) => drop(handed_over.fetch_add(1, Ordering::Relaxed)),
                    Err((back, AppendError::QueueFull)) => {
                        assert_eq!(back, number);
                        thread::yield_now();
                    }
                    Err((_, error)) => panic!("{error}"),
                }
            }
        }
    });
    let mut results: HashMap<u64, Result<Appended, AppendError>> = HashMap::new();
    let mut collect = |until: &mut dyn FnMut(&Result<Appended, AppendError>) -> bool| {
        loop {
            let (number, result) = reports.recv_timeout(PATIENCE).unwrap();
            let stop = until(&result);
            let before = results.insert(number, result);
            assert_eq!(before, None, "append {number} ended twice");
            if stop {
                return;
            }
        }
    };
    let mut good = 0;
    collect(&mut |result| {
        good += u32::from(result.is_ok());
        good == 2_000
    });
    if harm(server) {
        collect(&mut |result| result.is_err());
        server.restart().unwrap();
    }
    let mut good = 0;
    collect(&mut |result| {
        good += u32::from(result.is_ok());
        good == 20_000
    });
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(appender.flush(PATIENCE));
    drop(appender);
    for (number, result) in reports {
        assert_eq!(results.insert(number, result), None);
    }
    assert_eq!(results.len() as u64, handed_over.load(Ordering::Relaxed));

    let found = read_all(log, attempts);
    for (number, result) in results {
        match result {
            Ok(_) => assert!(found.contains_key(&number), "lost {number}"),
            Err(AppendError::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn dropping_an_appender_ends_every_append_once() {
    // Nobody listens there.
    let log = open("127.0.0.1:1", "nobody");
    let (appender, reports) = reporting(&log);
    let attempts = topic(&log, Role::Attempts);
    for number in 0..1_000 {
        append(&appender, attempts, number);
    }
    assert!(!appender.flush(Duration::from_millis(1)));
    drop(appender);
    let mut numbers: Vec<u64> = reports
        .into_iter()
        .map(|(number, result)| {
            assert!(matches!(result, Err(AppendError::Unavailable { .. })));
            number
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_consumer_closes_without_brokers() {
    let mut server = KafkaServer::start().unwrap();
    let log = created(server.bootstrap(), "away");
    let attempts = topic(&log, Role::Attempts);
    let mut never = log.consumer("never", &[attempts]).unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut handler = Member {
        id: 1,
        seen: seen.clone(),
        next: HashMap::new(),
        asked: HashMap::new(),
    };
    eventually("it owns all", || {
        // A broker that just made the topics may not lead them yet; that is tried again.
        if let Err(error) = never.poll(Duration::from_millis(100), &mut handler) {
            assert!(error.retriable, "{error}");
        }
        seen.lock().unwrap().owners.len() == 6
    });
    server.kill().unwrap();
    let started = Instant::now();
    // Its last commit cannot be made.
    never
        .close(Duration::from_secs(1), &mut handler)
        .unwrap_err();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(seen.lock().unwrap().owners.is_empty());

    let mut follower = log.follower(topic(&log, Role::Tenants)).unwrap();
    let error = follower
        .poll(Duration::from_millis(100), &mut |_| {})
        .unwrap_err();
    assert!(error.retriable, "{error}");
    server.restart().unwrap();
    eventually("the follower is at the end", || {
        follower.poll(Duration::from_millis(100), &mut |_| {}) == Ok(true)
    });
}

#[test]
fn two_administrators_lose_no_update() {
    let bootstrap = kafka::shared().bootstrap();
    let log = created(bootstrap, "cas");
    let tenants = topic(&log, Role::Tenants);
    const EACH: u64 = 10;
    let writers: Vec<_> = (0..2)
        .map(|writer: u64| {
            // A handle of its own, as if in a process of its own.
            let log = open(bootstrap, "cas");
            thread::spawn(move || {
                let mut follower = log.follower(tenants).unwrap();
                let (mut current, mut value) = (None, 0);
                let mut done = 0;
                while done < EACH {
                    // Twice the count, and who wrote it.
                    let next = (value / 2 + 1) * 2 + writer;
                    let text = next.to_string();
                    let written =
                        log.compare_and_set(tenants, "counter", current, Some(text.as_bytes()));
                    let mut seen = false;
                    let mut read = |record: Record<'_>| {
                        (current, value) = (Some(Revision(record.offset)), number(&record));
                        seen |= value == next;
                    };
                    while !follower
                        .poll(Duration::from_millis(100), &mut read)
                        .unwrap()
                    {}
                    match written {
                        Ok(_) => done += 1,
                        Err(WriteError::Conflict { .. }) => {}
                        // Nobody knows whether it was written, but by looking.
                        Err(WriteError::Log(error)) if error.retriable => done += u64::from(seen),
                        Err(WriteError::Log(error)) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let mut last = 0;
    let mut follower = log.follower(tenants).unwrap();
    let mut read = |record: Record<'_>| last = number(&record);
    while !follower
        .poll(Duration::from_millis(100), &mut read)
        .unwrap()
    {}
    assert_eq!(last / 2, 2 * EACH);
}

#[test]
fn the_check_names_a_wrong_setting() {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    let bootstrap = kafka::shared().bootstrap();
    let log = open(bootstrap, "wrong");
    let missing = log.check_topics().unwrap();
    assert_eq!(missing.len(), log.topics().iter().count());
    assert!(missing.iter().all(|problem| problem.found == "missing"));
    assert_eq!(log.create_topics().unwrap(), []);

    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let name = "wrong.parked";
    let alter = AlterConfig::new(ResourceSpecifier::Topic(name))
        .set("message.timestamp.type", "LogAppendTime")
        .set("unclean.leader.election.enable", "false")
        .set("retention.ms", "1000");
    let (alter, options) = ([alter], AdminOptions::new());
    let results = wait(admin.alter_configs(&alter, &options)).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut problems = Vec::new();
    eventually("the change is seen", || {
        problems = log.check_topics().unwrap();
        !problems.is_empty()
    });
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        ["topic wrong.parked: retention.ms is 1000, expected 604800000"]
    );
    assert_eq!(log.create_topics().unwrap(), problems, "it changes nothing");

    // A table that wants more partitions than there are.
    let config = TopicsConfig {
        prefix: "wrong.".to_owned(),
        event_partitions: 7,
        work_partitions: 2,
        replication: 1,
        ..TopicsConfig::default()
    };
    let more = Topics::new(&config, &[Duration::from_secs(32)]);
    let config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        ..KafkaConfig::default()
    };
    let problems = KafkaLog::open(config, more)
        .unwrap()
        .check_topics()
        .unwrap();
    let attempts = problems
        .iter()
        .find(|problem| problem.topic == "wrong.attempts");
    let attempts = attempts.unwrap().to_string();
    assert_eq!(
        attempts,
        "topic wrong.attempts: partitions is 6, expected 7"
    );
}

fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Any client may send such headers, only Rust's does not; so they go by the C interface.
#[allow(unsafe_code)]
fn produce_strange(producer: &BaseProducer, topic: &std::ffi::CStr, value: &[u8]) {
    use rdkafka::bindings as sys;
    use sys::rd_kafka_vtype_t::*;
    let headers: [(&[u8], Option<&[u8]>); 4] = [
        (b"\xff\xfe", Some(b"1")),
        (b"no-value", None),
        (b"empty", Some(b"")),
        (b"good", Some(b"\xff")),
    ];
    // SAFETY: all pointers are valid for the calls, which copy what they point to; the headers are
    // the producer's own once it has taken the record, which is checked.
    let error = unsafe {
        let list = sys::rd_kafka_headers_new(4);
        for (name, value) in headers {
            let (pointer, size) = match value {
                Some(value) => (value.as_ptr(), value.len() as isize),
                None => (std::ptr::null(), -1),
            };
            let (size_of_name, name) = (name.len() as isize, name.as_ptr());
            let result =
                sys::rd_kafka_header_add(list, name.cast(), size_of_name, pointer.cast(), size);
            assert_eq!(result as i32, 0);
        }
        sys::rd_kafka_producev(
            producer.client().native_ptr(),
            RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            RD_KAFKA_VTYPE_PARTITION,
            0i32,
            RD_KAFKA_VTYPE_MSGFLAGS,
            sys::RD_KAFKA_MSG_F_COPY,
            RD_KAFKA_VTYPE_VALUE,
            value.as_ptr(),
            value.len(),
            RD_KAFKA_VTYPE_HEADERS,
            list,
            RD_KAFKA_VTYPE_END,
        )
    };
    assert_eq!(error as i32, 0);
}

#[test]
fn strange_headers_do_not_stop_a_consumer() {
    let bootstrap = kafka::shared().bootstrap();
    let log = created(bootstrap, "headers");
    let replay = topic(&log, Role::Replay);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    produce_strange(&producer, c"headers.replay", b"7");
    producer.flush(PATIENCE).unwrap();

    type Found = Vec<(String, Vec<u8>)>;
    fn found(record: &Record<'_>) -> Found {
        let headers = record.headers.iter();
        headers
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect()
    }
    struct Keep(Option<Found>);
    impl Handler for Keep {
        fn assigned(&mut self, _: Assignment) {}
        fn room(&mut self, _: Partition) -> usize {
            1
        }
        fn record(&mut self, record: Record<'_>) {
            self.0 = Some(found(&record));
        }
        fn revoking(&mut self, _: Partition) -> bool {
            true
        }
        fn revoked(&mut self, _: Partition) -> Option<Committed> {
            None
        }
        fn lost(&mut self, _: Partition) {}
    }
    let expected: Found = vec![
        ("empty".to_owned(), Vec::new()),
        ("good".to_owned(), vec![0xff]),
    ];
    let mut keep = Keep(None);
    let mut consumer = log.consumer("headers", &[replay]).unwrap();
    eventually("the record is there", || {
        consumer
            .poll(Duration::from_millis(100), &mut keep)
            .unwrap();
        keep.0.is_some()
    });
    assert_eq!(keep.0, Some(expected.clone()));
    consumer.close(PATIENCE, &mut keep).unwrap();

    let mut read = None;
    let partition = Partition {
        topic: replay,
        index: 0,
    };
    let mut handler = |record: Record<'_>| read = Some(found(&record));
    let mut reader = log.reader().unwrap();
    reader
        .read(partition, 0..Offset::MAX, &mut handler)
        .unwrap();
    assert_eq!(read, Some(expected));
}
