//! Foreign records on raw topics: each becomes an event, is left out, or is parked.

use std::collections::BTreeMap;
use std::time::Duration;

use ringback_core::catalogue::Family;
use ringback_core::event::{Event, id_of_place};
use ringback_core::log::{
    Append, Appended, AppenderOptions, Assignment, Committed, Consumer, Handler, Header, Log,
    Offset, Reader, Record,
};
use ringback_core::record::decode_event;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_log::batch::{Acknowledgement, Batch};
use ringback_producer::mapping::MappingConfig;
use ringback_producer::{Config, RawConfig, RawIntake};
use ringback_telemetry::{Counter, Health};

use super::faults::{Fault, Faults};
use super::rig::Rig;

/// Reason, detail, value and names of the headers of what is parked.
type Parked = (String, String, Option<Vec<u8>>, Vec<String>);

/// Two sources: one whose records have an identity, one whose records have none.
fn config() -> Config {
    let text = |text: &str| Some(text.to_owned());
    let asterisk = MappingConfig {
        type_from: text("kind"),
        types: BTreeMap::from([("CDR".to_owned(), "cdr.completed".to_owned())]),
        tenant_from: text("account"),
        id_from: vec!["uniqueid".to_owned()],
        subject_from: text("linkedid"),
        subject_prefix: text("call/"),
        ..MappingConfig::default()
    };
    let plain = MappingConfig {
        kind: text("cdr.updated"),
        tenant: text("acme"),
        ..MappingConfig::default()
    };
    let raw = [("asterisk", asterisk), ("plain", plain)].map(|(source, mapping)| RawConfig {
        source: source.to_owned(),
        mapping,
    });
    Config {
        raw: raw.into(),
        ..Config::default()
    }
}

impl Rig {
    /// Starts reading the raw topics.
    fn read_raw(&self) -> RawIntake {
        let (directory, metrics) = (self.directory.clone(), self.metrics.clone());
        let started = RawIntake::start(&self.log, directory, &self.config, metrics, &Health::new());
        started.unwrap().unwrap()
    }

    /// What somebody else puts on a raw topic.
    fn put_raw(&self, source: &str, value: Option<&[u8]>) -> Appended {
        let log = self.log.local();
        let topic = log.topics().find_name(&format!("ringback.raw.{source}"));
        let headers = [("trace", "7"), ("rb_webhook", "forged")].map(|(name, value)| Header {
            name,
            value: value.as_bytes(),
        });
        let append = Append {
            topic: topic.unwrap(),
            key: None,
            headers: &headers,
            value,
        };
        let options = AppenderOptions::default();
        let appender = log.appender(options, Acknowledgement).unwrap();
        let mut batch = Batch::new(&appender);
        batch.append(append).unwrap();
        batch.finish().unwrap().unwrap()
    }

    fn cdr(&self, n: u32) -> Appended {
        let record = format!(
            r#" {{"kind":"CDR", "account":"acme","uniqueid":"1795231199.{n}","linkedid":"{n}","cost":1.50}} "#
        );
        self.put_raw("asterisk", Some(record.as_bytes()))
    }

    fn each(&self, topic: TopicId, take: &mut dyn FnMut(Record<'_>)) {
        let mut reader = self.log.reader().unwrap();
        for partition in self.log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            reader.read(partition, bounds, take).unwrap();
        }
    }

    fn cdrs(&self) -> Vec<Event> {
        let topic = self.log.topics().find(Role::Events(Family::Cdr)).unwrap();
        let mut events = Vec::new();
        self.each(topic, &mut |record| {
            events.push(decode_event(&record).unwrap())
        });
        events
    }

    fn parked(&self) -> Vec<Parked> {
        let topic = self.log.topics().find(Role::Parked).unwrap();
        let mut parked = Vec::new();
        self.each(topic, &mut |record| {
            let text = |name| String::from_utf8(record.header(name).unwrap().to_vec()).unwrap();
            parked.push((
                text("rb_reason"),
                text("rb_detail"),
                record.value.map(<[u8]>::to_vec),
                record.headers.iter().map(|h| h.name.to_owned()).collect(),
            ));
        });
        parked
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_become_events_are_left_out_or_parked() {
    let rig = Rig::start_with(config()).await;
    let bad: [(&str, Option<&[u8]>, &str); 7] = [
        ("asterisk", Some(b"nonsense"), "JSON"),
        ("asterisk", Some(b"\xff"), "UTF-8"),
        ("asterisk", None, "no value"),
        (
            "asterisk",
            Some(br#"{"kind":"CDR","account":"acme"}"#),
            "uniqueid",
        ),
        (
            "asterisk",
            Some(br#"{"kind":"CDR","account":"nobody","uniqueid":"7","linkedid":"7"}"#),
            "no tenant",
        ),
        (
            "asterisk",
            Some(br#"{"kind":"CDR","account":"A B","uniqueid":"7","linkedid":"7"}"#),
            "tenant",
        ),
        ("plain", Some(b"[]"), "object"),
    ];
    for (source, value, _) in bad {
        rig.put_raw(source, value);
    }
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    rig.put_raw("plain", Some(large.as_bytes()));
    rig.put_raw("asterisk", Some(br#"{"kind":"CEL"}"#));
    rig.cdr(1);
    let place = rig.put_raw("plain", Some(br#"{"n" : 1}"#));
    let raw = rig.read_raw();
    rig.wait_for("two events and eight parked", |rig| {
        rig.cdrs().len() == 2 && rig.parked().len() == 8
    })
    .await;
    raw.drain().await;
    let cdrs = rig.cdrs();
    let own = cdrs
        .iter()
        .find(|e| e.source.as_str() == "asterisk")
        .unwrap();
    assert_eq!(own.name.as_str(), "cdr.completed");
    assert_eq!(own.subject.as_ref().unwrap().as_str(), "call/1");
    assert!(own.data.ends_with(br#""cost":1.50}"#));
    let plain = cdrs.iter().find(|e| e.source.as_str() == "plain").unwrap();
    assert_eq!(&plain.data[..], br#"{"n" : 1}"#);
    assert_eq!(plain.time, place.at);
    let (partition, offset) = (place.partition.index, place.offset);
    let id = id_of_place("ringback.raw.plain", partition, offset, place.at);
    assert_eq!(plain.id, id);
    let parked = rig.parked();
    for (source, value, said) in bad {
        let found = parked.iter().any(|(reason, detail, kept, _)| {
            reason == "undeliverable"
                && detail.contains(&format!("ringback.raw.{source}/"))
                && detail.contains(said)
                && kept.as_deref() == value
        });
        assert!(found, "{source} {said}: {parked:?}");
    }
    for (.., headers) in &parked {
        assert_eq!(headers, &["rb_reason", "rb_detail", "trace"]);
    }
    let count = |source, outcome| rig.metrics.count(Counter::RawRecords, &[source, outcome]);
    assert_eq!(
        (count("asterisk", "accepted"), count("asterisk", "left_out")),
        (1, 1)
    );
    assert_eq!(
        (count("asterisk", "parked"), count("plain", "parked")),
        (6, 2)
    );
    // All of it is done: read again, nothing comes.
    let raw = rig.read_raw();
    rig.cdr(2);
    rig.wait_for("the third event", |rig| rig.cdrs().len() >= 3)
        .await;
    raw.drain().await;
    assert_eq!((rig.cdrs().len(), rig.parked().len()), (3, 8));
}

/// Nothing is done before the log has acknowledged it, and nothing is lost or overtaken.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_appended_again() {
    let rig = Rig::start_with(config()).await;
    let faults = [Fault::QueueFull, Fault::Unacknowledged, Fault::QueueFull];
    rig.faults.next(faults);
    let raw = rig.read_raw();
    for n in 0..50 {
        rig.cdr(n);
    }
    rig.wait_for("all events", |rig| rig.cdrs().len() >= 50)
        .await;
    // The log is away for a while.
    rig.faults.always(Fault::Unacknowledged);
    let before = rig.faults.appends();
    for n in 50..60 {
        rig.cdr(n);
    }
    rig.wait_for("tries", |rig| rig.faults.appends() > before + 30)
        .await;
    assert_eq!(rig.cdrs().len(), 50);
    rig.faults.always(Fault::None);
    rig.wait_for("the rest", |rig| rig.cdrs().len() >= 60).await;
    raw.drain().await;
    let mut ids: Vec<_> = rig.cdrs().iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 60);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

/// What the log refuses for good is parked; what even `parked` cannot hold, without its value.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_refuses_is_parked() {
    let rig = Rig::start_with(config()).await;
    rig.faults.next([Fault::Refused]);
    let raw = rig.read_raw();
    rig.cdr(1);
    rig.wait_for("one parked", |rig| rig.parked().len() == 1)
        .await;
    let (_, detail, value, headers) = rig.parked().remove(0);
    assert!(
        detail.contains("asterisk/")
            && detail.contains("on command")
            && headers.contains(&"ce_id".to_owned()),
        "{detail}"
    );
    assert!(value.unwrap().ends_with(b"1.50}"));
    rig.faults.next([Fault::Refused, Fault::Refused]);
    rig.cdr(2);
    rig.wait_for("two parked", |rig| rig.parked().len() == 2)
        .await;
    let parked = rig.parked();
    let (_, detail, ..) = parked
        .iter()
        .find(|(_, _, value, _)| value.is_none())
        .unwrap();
    assert!(detail.contains("bytes are refused"), "{detail}");
    raw.drain().await;
    assert!(rig.cdrs().is_empty());
}

/// Notes what the group has committed, and takes nothing.
#[derive(Default)]
struct Positions(BTreeMap<Partition, Offset>);

impl Handler for Positions {
    fn assigned(&mut self, assignment: Assignment) {
        let committed = assignment.committed.map_or(0, |committed| committed.offset);
        self.0.insert(assignment.partition, committed);
    }

    fn room(&mut self, _: Partition) -> usize {
        0
    }

    fn record(&mut self, _: Record<'_>) {}

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        None
    }

    fn lost(&mut self, _: Partition) {}
}

/// A commit that failed is made again, even if nothing comes after it: otherwise the next member would
/// make events of the same records, maybe days later.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_made_again() {
    failed_commits(Faults::commits_fail).await;
    failed_commits(Faults::commits_fail_later).await;
}

async fn failed_commits(fail: fn(&Faults, bool)) {
    let rig = Rig::start_with(config()).await;
    fail(&rig.faults, true);
    let raw = rig.read_raw();
    let place = rig.cdr(1);
    rig.wait_for("a failed commit of its event", |rig| {
        rig.metrics.count(Counter::CommitFailures, &[]) > 0 && rig.cdrs().len() == 1
    })
    .await;
    fail(&rig.faults, false);
    raw.drain().await;
    let topic = place.partition.topic;
    let mut next = rig.log.consumer("producer.raw", &[topic]).unwrap();
    let mut positions = Positions::default();
    while positions.0.is_empty() {
        next.poll(Duration::from_millis(20), &mut positions)
            .unwrap();
    }
    next.close(Duration::ZERO, &mut positions).unwrap();
    assert_eq!(positions.0.get(&place.partition), Some(&(place.offset + 1)));
}

/// DL10: what retention drops while it reads is counted, as what it dropped before.
#[tokio::test(flavor = "multi_thread")]
async fn records_lost_to_retention_are_counted() {
    let rig = Rig::start_with(config()).await;
    let place = rig.cdr(1);
    rig.faults.gap(place.partition, 40..47);
    let raw = rig.read_raw();
    rig.wait_for("the loss is counted", |rig| {
        rig.metrics.total(Counter::RecordsLost) == 7 && rig.cdrs().len() == 1
    })
    .await;
    raw.drain().await;
}
