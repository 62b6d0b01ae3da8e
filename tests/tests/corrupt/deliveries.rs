//! What a dispatcher reads: events, in both modes of CloudEvents, and deliveries that wait or are
//! replayed. What cannot be read is parked with its place and its reason, its neighbours are sent.

use std::collections::{HashMap, HashSet};

use ringback_core::log::{Log, Reader};
use ringback_core::record::header;
use ringback_core::topics::Role;
use ringback_telemetry::Counter;
use ringback_tests::simulation::{Dice, Simulation};
use uuid::Uuid;

use crate::{Raw, until};

/// What becomes of a record.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// Parked as it is, as `undeliverable`; the detail is its place, and contains this.
    Unreadable(&'static str),
    /// Parked for each webhook, for this reason, with this in the detail.
    Parked(&'static str, &'static str),
    /// A request is made.
    Sent,
    /// It is of no tenant that has webhooks.
    Nobody,
}
use Becomes::{Nobody, Parked, Sent, Unreadable};

/// A change of a good record.
#[derive(Clone, Copy, Debug)]
enum Change {
    Header(&'static str, &'static [u8]),
    Without(&'static str),
    Value(&'static [u8]),
    NoValue,
    ValueOf(usize),
    NoHeaders,
    /// A structured CloudEvent with these members besides the required ones, of which it has no `time`.
    Structured(&'static str),
    Nothing,
}
use Change::{Header, NoHeaders, NoValue, Nothing, Structured, Value, ValueOf, Without};

/// More than is kept of headers.
static LARGE: [u8; 70_000] = [b'x'; 70_000];

/// True of every record that holds an event.
const ANY: &[(Change, Becomes)] = &[
    (Nothing, Sent),
    (NoHeaders, Unreadable("header rb_webhook is missing")),
    (NoValue, Unreadable("the record has no value")),
    (Without(header::ID), Unreadable("header ce_id is missing")),
    (
        Without(header::TYPE),
        Unreadable("header ce_type is missing"),
    ),
    (
        Without(header::TENANT),
        Unreadable("header ce_tenant is missing"),
    ),
    (
        Without(header::SOURCE),
        Unreadable("header ce_source is missing"),
    ),
    (Without(header::SPECVERSION), Sent),
    (Without(header::CONTENT_TYPE), Sent),
    (
        Header(header::TYPE, b"\xff\xfe"),
        Unreadable("header ce_type"),
    ),
    (
        Header(header::TENANT, b"\xc3\x28"),
        Unreadable("header ce_tenant"),
    ),
    (
        Header(header::TENANT, b"no tenant"),
        Unreadable("no tenant"),
    ),
    (
        Header(header::SPECVERSION, b"2.0"),
        Unreadable("specversion"),
    ),
    (Header(header::TYPE, b""), Unreadable("type")),
    (
        Header(header::CONTENT_TYPE, b"application/cloudevents+avro"),
        Unreadable("cloudevents+avro"),
    ),
    (
        Header(header::CONTENT_TYPE, b"application/cloudevents-batch+json"),
        Unreadable("batch"),
    ),
    (Header("rb_from_the_future", b"\x00\xff"), Sent),
    (Header("ce_from_the_future", b"1"), Sent),
    (Header(header::VERSION, b"2"), Sent),
    (Header(header::VERSION, b"two"), Sent),
    // Times: the year 0, before the epoch, and the epoch are too old for any attempt (R13), the far
    // future is clamped to when it was written, and what is no time is no time.
    (
        Header(header::TIME, b"0000-01-01T00:00:00Z"),
        Parked("expired", ""),
    ),
    (
        Header(header::TIME, b"1969-12-31T23:59:59Z"),
        Parked("expired", ""),
    ),
    (
        Header(header::TIME, b"1970-01-01T00:00:00Z"),
        Parked("expired", ""),
    ),
    (Header(header::TIME, b"9999-12-30T00:00:00Z"), Sent),
    (Header(header::TIME, b"2031-01-01T00:00:00+14:00"), Sent),
    (
        Header(header::TIME, b"10000-01-01T00:00:00Z"),
        Unreadable("use RFC 3339"),
    ),
    (
        Header(header::TIME, b"9223372036854775808"),
        Unreadable("use RFC 3339"),
    ),
    (Header(header::TIME, b"-1"), Unreadable("use RFC 3339")),
    (Header(header::TIME, b""), Unreadable("use RFC 3339")),
    (ValueOf(256 * 1024 + 1), Unreadable("is left out here")),
    (
        ValueOf(1_000_000),
        Unreadable("its value of 1000000 bytes is left out here"),
    ),
    // With the reason beside it the log would not take it.
    (
        ValueOf(1_048_000),
        Unreadable("its value of 1048000 bytes is left out here"),
    ),
    (
        Header(header::TYPE, &LARGE),
        Unreadable("; 1 of its headers left out here"),
    ),
];

/// True of events.
const EVENTS: &[(Change, Becomes)] = &[
    (NoHeaders, Unreadable("header ce_id is missing")),
    (Without(header::TIME), Sent),
    (Header(header::TENANT, b"nobody"), Nobody),
    (Value(b""), Parked("undeliverable", "must be a JSON object")),
    (Value(b"{\"cut\":"), Parked("undeliverable", "EOF")),
    (Value(b"[1]"), Parked("undeliverable", "JSON object")),
    (Value(b"{\"a\":\"\xff\"}"), Parked("undeliverable", "UTF-8")),
    (Value(b"{} {}"), Parked("undeliverable", "trailing")),
    // Headers of ours mean nothing here.
    (Header(header::ATTEMPT, b"x"), Sent),
    (Structured(""), Sent),
    (Structured(r#","unknown":{"a":[1]}"#), Sent),
    (
        Structured(r#","time":"1970-01-01T00:00:00Z""#),
        Parked("expired", ""),
    ),
    (
        Structured(r#","time":"yesterday""#),
        Unreadable("use RFC 3339"),
    ),
    (
        Structured(r#","time":-9223372036854775809"#),
        Unreadable("expected a string"),
    ),
    (Structured(r#","tenant":"twice""#), Unreadable("tenant")),
    (Structured(r#","cut"#), Unreadable("EOF")),
];

/// True of deliveries.
const DELIVERIES: &[(Change, Becomes)] = &[
    (Header(header::ID, b"no-uuid"), Unreadable("no-uuid")),
    (
        Header(header::ID, b"00000000-0000-0000-0000-000000000000"),
        Unreadable("use a UUID"),
    ),
    (
        Without(header::WEBHOOK),
        Unreadable("header rb_webhook is missing"),
    ),
    (
        Without(header::ATTEMPT),
        Unreadable("header rb_attempt is missing"),
    ),
    (Without(header::RUN), Unreadable("header rb_run is missing")),
    (
        Without(header::ACCEPTED),
        Unreadable("header rb_accepted is missing"),
    ),
    (
        Without(header::DEFERRALS),
        Unreadable("header rb_deferrals is missing"),
    ),
    (Without(header::VERSION), Sent),
    (
        Header(header::WEBHOOK, b"main"),
        Unreadable("header rb_webhook \"main\" cannot be read"),
    ),
    (
        Header(header::WEBHOOK, b"\xff"),
        Unreadable("header rb_webhook"),
    ),
    (
        Header(header::WEBHOOK, b"00000000-0000-0000-0000-00000000dead"),
        Parked("removed", ""),
    ),
    // The fourth webhook of the simulation is another tenant's.
    (
        Header(header::WEBHOOK, b"00000000-0000-0004-0000-000000000000"),
        Parked("undeliverable", "the event is of tenant acme"),
    ),
    (
        Header(header::TENANT, b"nobody"),
        Parked("undeliverable", "the event is of tenant nobody"),
    ),
    (Header(header::ATTEMPT, b"255"), Sent),
    (
        Header(header::ATTEMPT, b"256"),
        Unreadable("header rb_attempt \"256\" cannot be read"),
    ),
    (Header(header::ATTEMPT, b"-1"), Unreadable("rb_attempt")),
    (Header(header::ATTEMPT, b" 1"), Unreadable("rb_attempt")),
    (Header(header::RUN, b"4294967295"), Sent),
    (Header(header::RUN, b"4294967296"), Unreadable("rb_run")),
    (Header(header::DEFERRALS, b"255"), Sent),
    (
        Header(header::DEFERRALS, b"many"),
        Unreadable("header rb_deferrals \"many\" cannot be read"),
    ),
    (Header(header::DEFERRALS, b""), Unreadable("rb_deferrals")),
    (
        Header(header::ACCEPTED, b"1970-01-01T00:00:00Z"),
        Parked("expired", ""),
    ),
    (Header(header::ACCEPTED, b"9999-12-30T00:00:00Z"), Sent),
    (
        Header(header::ACCEPTED, b"9223372036854775808"),
        Unreadable("rb_accepted"),
    ),
    (Value(b"{\"cut\":"), Unreadable("EOF")),
    (Value(b"\xff\xff"), Unreadable("UTF-8")),
    (Value(b""), Unreadable("JSON object")),
];

/// A good record for a topic, about the event of this number.
fn good(delivery: bool, number: u128, now: &str) -> Raw {
    let id = Uuid::from_u128(number).to_string();
    let mut headers = vec![
        (header::CONTENT_TYPE, "application/json"),
        (header::SPECVERSION, "1.0"),
        (header::ID, &id),
        (header::SOURCE, "pbx"),
        (header::TYPE, "cdr.completed"),
        (header::TIME, now),
        (header::TENANT, "acme"),
    ];
    if delivery {
        headers.extend([
            (header::VERSION, "1"),
            // The first webhook of the simulation.
            (header::WEBHOOK, "00000000-0000-0001-0000-000000000000"),
            (header::ATTEMPT, "1"),
            (header::RUN, "0"),
            (header::ACCEPTED, now),
            (header::DEFERRALS, "0"),
        ]);
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
    Raw {
        key: None,
        headers: headers.into_iter().map(owned).collect(),
        value: Some(b"{}".to_vec()),
    }
}

fn change(record: &mut Raw, change: Change, number: u128) {
    match change {
        Nothing => {}
        NoHeaders => record.headers.clear(),
        NoValue => record.value = None,
        Value(value) => record.value = Some(value.to_vec()),
        ValueOf(bytes) => {
            let filling = "x".repeat(bytes - r#"{"a":""}"#.len());
            record.value = Some(format!(r#"{{"a":"{filling}"}}"#).into_bytes());
        }
        Without(name) => record.headers.retain(|(other, _)| other != name),
        Header(name, value) => {
            record.headers.retain(|(other, _)| other != name);
            record.headers.push((name.to_owned(), value.to_vec()));
        }
        Structured(more) => {
            let form = b"application/cloudevents+json".to_vec();
            record.headers = vec![(header::CONTENT_TYPE.to_owned(), form)];
            let id = Uuid::from_u128(number);
            let end = if more.ends_with("cut") { "" } else { "}" };
            let event = format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"pbx","type":"cdr.completed","tenant":"acme","data":{{}}{more}{end}"#
            );
            record.value = Some(event.into_bytes());
        }
    }
}

/// A record that was written.
struct Case {
    change: Change,
    /// Its event.
    number: u128,
    place: String,
    record: Raw,
    becomes: Becomes,
}

/// Reason and detail of everything parked: by the place in the detail, and by event.
#[derive(Default)]
struct ParkedRecords {
    by_place: HashMap<String, (String, String, Raw)>,
    by_event: HashMap<Vec<u8>, Vec<(String, String)>>,
}

impl ParkedRecords {
    /// What did not become of a record as it should.
    fn problem(&self, case: &Case, sent: bool) -> Option<String> {
        let id = Uuid::from_u128(case.number).to_string().into_bytes();
        let (as_it_is, of_event) = (self.by_place.get(&case.place), self.by_event.get(&id));
        let as_expected = match case.becomes {
            Sent => sent && as_it_is.is_none(),
            Nobody => !sent && as_it_is.is_none() && of_event.is_none(),
            Parked(reason, says) => {
                let right = |(is, detail): &(String, String)| is == reason && detail.contains(says);
                !sent && as_it_is.is_none() && of_event.is_some_and(|all| all.iter().all(right))
            }
            Unreadable(says) => {
                !sent
                    && as_it_is.is_some_and(|(reason, detail, copy)| {
                        let value = match detail.contains("bytes is left out") {
                            true => &None,
                            false => &case.record.value,
                        };
                        reason == "undeliverable"
                            && detail.contains(says)
                            && (copy.headers == case.record.headers
                                || detail.contains("headers left out"))
                            && copy.value == *value
                    })
            }
        };
        let as_it_is = as_it_is.map(|(reason, detail, _)| (reason, detail));
        let became = format!("sent {sent}, as it is {as_it_is:?}, deliveries {of_event:?}");
        (!as_expected).then(|| format!("should be {:?}, is {became}", case.becomes))
    }
}

fn parked(simulation: &Simulation) -> ParkedRecords {
    let log = &simulation.log;
    let topic = log.topics().find(Role::Parked).unwrap();
    let (mut reader, mut parked) = (log.reader().unwrap(), ParkedRecords::default());
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        let read = reader.read(partition, bounds, &mut |record| {
            let text = |name| String::from_utf8_lossy(record.header(name).unwrap_or_default());
            let (reason, detail) = (text(header::REASON), text(header::DETAIL));
            let (reason, detail) = (reason.into_owned(), detail.into_owned());
            if record.key.is_some() {
                let id = record.header(header::ID).unwrap().to_vec();
                parked
                    .by_event
                    .entry(id)
                    .or_default()
                    .push((reason, detail));
                return;
            }
            let raw = Raw {
                key: None,
                headers: record
                    .headers
                    .iter()
                    .map(|header| (header.name.to_owned(), header.value.to_vec()))
                    .filter(|(name, _)| !matches!(&**name, header::REASON | header::DETAIL))
                    .collect(),
                value: record.value.map(<[u8]>::to_vec),
            };
            let place = detail.split(": ").next().unwrap().to_owned();
            let again = parked.by_place.insert(place, (reason, detail, raw));
            assert!(again.is_none(), "parked once");
        });
        read.unwrap();
    }
    parked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_parked_and_its_neighbours_are_sent() {
    let mut simulation = Simulation::new(11);
    let process = simulation.start();
    let now = simulation.sim.clock().now().to_string();
    let mut number = 1_u128 << 100;
    let (mut cases, mut neighbours) = (Vec::new(), Vec::new());
    for (topic, delivery) in [
        ("events.cdr", false),
        ("events.extension", false),
        ("retry.32s", true),
        ("retry.2h", true),
        ("defer.2s", true),
        ("defer.1h", true),
        ("replay", true),
    ] {
        let own = if delivery { DELIVERIES } else { EVENTS };
        // What is said of this topic wins over what is said of all.
        let overrides = |change: &Change| {
            let same =
                |(other, _): &&(Change, Becomes)| format!("{other:?}") == format!("{change:?}");
            own.iter().find(same).is_some()
        };
        let common = ANY.iter().filter(|(change, _)| !overrides(change));
        for (what, becomes) in common.chain(own) {
            number += 2;
            let mut record = good(delivery, number, &now);
            change(&mut record, *what, number);
            let place = record.append(&simulation.log, topic);
            good(delivery, number + 1, &now).append(&simulation.log, topic);
            neighbours.push((number + 1, place.clone()));
            cases.push(Case {
                change: *what,
                number,
                place,
                record,
                becomes: *becomes,
            });
        }
    }
    // Panics when a partition stands still.
    simulation.until_at_rest().await;

    let (parked, requests) = (parked(&simulation), simulation.receivers.requests());
    let sent = |number| {
        let id = Uuid::from_u128(number);
        requests.iter().any(|request| request.event == id)
    };
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let problem = parked.problem(case, sent(case.number))?;
            Some(format!("{:?} at {}: {problem}", case.change, case.place))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unreadable = cases
        .iter()
        .filter(|case| matches!(case.becomes, Unreadable(_)))
        .count();
    assert_eq!(parked.by_place.len(), unreadable, "and nothing else");
    for (number, place) in neighbours {
        assert!(sent(number), "the record behind {place} was not sent");
    }
    let undeliverable = simulation
        .metrics
        .count(Counter::Parked, &["undeliverable"]);
    assert!(undeliverable >= unreadable as u64, "{undeliverable}");
    process.drain(simulation.sim.clock()).await;
}

/// Configuration that cannot be read changes nothing, is counted, and what follows is obeyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_that_cannot_be_read_changes_nothing() {
    let mut simulation = Simulation::new(12);
    let process = simulation.start();
    let webhook = serde_json::to_value(&simulation.webhooks[0]).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut changed = webhook.clone();
        changed[field] = value;
        serde_json::to_vec(&changed).unwrap()
    };
    let key = simulation.webhooks[0].key();
    let mut bad = HashSet::new();
    for (topic, key, value) in [
        ("webhooks", &*key, b"{\"cut\":".to_vec()),
        ("webhooks", &key, b"\xff".to_vec()),
        ("webhooks", &key, b"".to_vec()),
        ("webhooks", &key, b"[]".to_vec()),
        ("webhooks", &key, with("tenant", "other".into())),
        ("webhooks", &key, with("name", "other".into())),
        ("webhooks", &key, with("id", "main".into())),
        ("webhooks", &key, with("subscription", "cdr.*".into())),
        ("webhooks", &key, with("updated", "99999-01-01".into())),
        ("webhooks", &key, with("generation", (-1).into())),
        ("webhooks", "acme", with("url", "http://x/".into())),
        ("webhooks", "", with("url", "http://x/".into())),
        ("health", "hook1", b"{}".to_vec()),
        ("health", "00000000-0000-0001-0000-000000000000", b"null".to_vec()),
        // A verdict of another webhook must not disable this one.
        (
            "health",
            "00000000-0000-0001-0000-000000000000",
            br#"{"version":1,"webhook":"00000000-0000-0002-0000-000000000000","tenant":"acme","generation":1,"state":"disabled","since":"2026-11-21T00:00:00Z","reason":"x"}"#.to_vec(),
        ),
    ] {
        Raw::keyed(key, value).append(&simulation.log, topic);
        bad.insert((topic, key));
    }
    // A newer release may say more.
    let mut newer = webhook.clone();
    newer["version"] = 2.into();
    newer["a_field_of_the_future"] = serde_json::json!({ "nested": [1] });
    Raw::keyed(&key, serde_json::to_vec(&newer).unwrap()).append(&simulation.log, "webhooks");
    // This one is mended. Two more, so that they are never as many before.
    bad.remove(&("webhooks", &*key));
    for key in ["later", "last"] {
        Raw::keyed(key, b"{}".to_vec()).append(&simulation.log, "webhooks");
        bad.insert(("webhooks", key));
    }
    let said = format!("ringback_config_records_unreadable {}", bad.len());
    until("they are counted", || {
        simulation.metrics.expose().lines().any(|line| line == said)
    })
    .await;
    let mut dice = Dice::new(12);
    for _ in 0..20 {
        simulation.event(&mut dice);
    }
    simulation.until_at_rest().await;
    process.drain(simulation.sim.clock()).await;
    let sums = ringback_tests::simulation::books::check(&simulation);
    assert!(sums.delivered > 0 && sums.duplicates == 0, "{sums:?}");
}
