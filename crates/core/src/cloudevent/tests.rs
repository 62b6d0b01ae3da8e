//! What producers write, and what is read.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Defaults, Event};
use crate::log::{Header, Record};
use crate::record::decode_event;
use crate::schedule::Schedule;
use crate::time::Timestamp;
use crate::topics::{Partition, Role, Topics, TopicsConfig};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn post(ce: CloudEvent<'_>, token_of: Option<&str>) -> Result<Event, InvalidEvent> {
    let tenant = token_of.map(|tenant| TenantId::parse(tenant).unwrap());
    let source = Source::parse("unused").unwrap();
    let defaults = Defaults {
        tenant: tenant.as_ref(),
        source: &source,
        id: Uuid::from_u128(7),
        now: NOW,
        age_max: Some(Duration::from_secs(86_400)),
    };
    Event::from_cloud_event(ce, &defaults)
}

fn post_json(text: &str) -> Result<Event, InvalidEvent> {
    post(CloudEvent::parse_json(text.as_bytes())?, Some("acme"))
}

/// An event whose attributes can be changed.
fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut event = json!({
        "specversion": "1.0", "id": "A-1", "source": "/pbx/1", "type": "cdr.completed",
        "time": "2026-11-21T03:19:59Z", "data": { "n": 1 },
    });
    change(&mut event);
    event.to_string()
}

fn read(headers: &[(&str, &[u8])], value: Option<&[u8]>) -> Result<Event, String> {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let topic = topics
        .find(Role::Events(crate::catalogue::Family::Cdr))
        .unwrap();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| Header { name, value })
        .collect();
    let record = Record {
        partition: Partition { topic, index: 0 },
        offset: 0,
        appended: NOW,
        key: None,
        headers: &headers,
        value,
    };
    decode_event(&record).map_err(|error| error.to_string())
}

fn read_json(text: &str) -> Result<Event, String> {
    let form: &[u8] = b"application/cloudevents+json; charset=UTF-8";
    read(&[("content-type", form)], Some(text.as_bytes()))
}

#[test]
fn attributes_are_checked_and_named() {
    let said = |text: &str| post_json(text).unwrap_err().to_string();
    for name in ["specversion", "id", "source", "type", "data"] {
        let text = with(|event| drop(event.as_object_mut().unwrap().remove(name)));
        assert!(said(&text).contains(name), "{name}: {}", said(&text));
        // Null is not given (JSON format 2.2).
        let text = with(|event| event[name] = Value::Null);
        assert!(said(&text).contains(name), "{name}: {}", said(&text));
    }
    for (name, bad) in [
        ("specversion", "0.3"),
        ("specversion", "1.1"),
        ("source", "two words"),
        ("type", "com.example.some-type"),
        ("time", "yesterday"),
        ("subject", "a\nb"),
        ("tenant", "other"),
        ("datacontenttype", "application/xml"),
        ("datacontenttype", "json"),
    ] {
        let text = with(|event| event[name] = bad.into());
        assert!(said(&text).contains(name), "{name}: {}", said(&text));
    }
    for data in [json!([]), json!("{}"), json!(7)] {
        let text = with(|event| event["data"] = data);
        assert_eq!(post_json(&text).unwrap_err().code(), "data_not_object");
    }
    for text in ["", "[]", "7", "{", r#"{"id":"a","id":"b"}"#] {
        assert_eq!(post_json(text).unwrap_err().code(), "not_json", "{text}");
    }
}

#[test]
fn extensions_that_mean_nothing_are_ignored() {
    let text = with(|event| {
        event["partitionkey"] = "x".into();
        event["sampledrate"] = 5.into();
        event["backfill"] = 17.into();
        event["traceparent"] = "not one".into();
    });
    let event = post_json(&text).unwrap();
    assert_eq!(event, post_json(&with(|_| {})).unwrap());
    assert_eq!(event.traceparent, None);
}

#[test]
fn a_flag_is_true_or_the_text_of_it() {
    for (flag, expected) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!(1), false),
    ] {
        let text = with(|event| {
            event["tenant"] = "acme".into();
            event["backfill"] = flag.clone();
        });
        assert_eq!(read_json(&text).unwrap().backfill, expected, "{flag}");
    }
}

#[test]
fn what_is_no_batch_is_told_what_one_is() {
    let error = parse_batch(b"{}", 3).unwrap_err().to_string();
    assert!(error.contains("expected an array of events"), "{error}");
}

#[test]
fn a_trace_goes_on() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = with(|event| event["traceparent"] = trace.into());
    assert_eq!(
        post_json(&text).unwrap().traceparent.as_deref(),
        Some(trace)
    );
    for bad in [
        "",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4b-00-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ] {
        assert_eq!(traceparent(bad), None, "{bad}");
    }
}

#[test]
fn base64_is_taken_when_it_holds_a_json_object() {
    let text = |base64: &str, data: Value| {
        with(|event| {
            event["data"] = data;
            event["data_base64"] = base64.into();
        })
    };
    let event = post_json(&text("eyJhIjogMX0=", Value::Null)).unwrap();
    assert_eq!(&event.data[..], br#"{"a": 1}"#);
    for (bad, said) in [
        ("!", "not Base64"),
        ("/////w==", "not UTF-8"),
        ("WzFd", "object"),
    ] {
        let error = post_json(&text(bad, Value::Null)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let both = post_json(&text("eyJhIjogMX0=", json!({}))).unwrap_err();
    assert!(both.to_string().contains("both"), "{both}");
}

#[test]
fn ids_are_uuids_kept_or_derived() {
    let id = |id: &str, source: &str| {
        let event = post_json(&with(|event| {
            event["id"] = id.into();
            event["source"] = source.into();
        }));
        event.unwrap().id
    };
    let own = "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e";
    assert_eq!(id(own, "a").to_string(), own);
    let derived = id("1795231199.1", "a");
    assert_eq!(derived.get_version_num(), 5);
    assert_eq!(derived, id("1795231199.1", "a"));
    assert_ne!(derived, id("1795231199.1", "b"));
    assert_ne!(derived, id("1795231199.2", "a"));
    // A promise to senders: it must not change from version to version.
    assert_eq!(derived.to_string(), "c73f2dee-eb3a-538c-88b9-be7b32833c0f");
    let nil = id(&Uuid::nil().to_string(), "a");
    assert_eq!(nil.get_version_num(), 5);
}

#[test]
fn media_types() {
    for json in [
        "application/json",
        "APPLICATION/JSON; charset=utf-8",
        "text/json",
        "application/vnd.pbx+json",
    ] {
        assert!(is_json(json), "{json}");
    }
    for other in ["", "json", "text/plain", "application/x-ndjson", "a/json+x"] {
        assert!(!is_json(other), "{other}");
    }
    assert!(is_structured("Application/CloudEvents+json"));
    assert!(is_structured("application/cloudevents-batch+json"));
    assert!(!is_structured("application/cloud"));
}

#[test]
fn a_batch_is_cut_at_its_limit_and_counted() {
    let (events, more) = parse_batch(b" [ {\"a\":1} , 7, x ]", 2).unwrap_or((vec![], 99));
    assert!(events.is_empty() && more == 99, "x is not JSON");
    let (events, more) = parse_batch(b" [ {\"a\" : 1} , 7, [] ] ", 2).unwrap();
    let texts: Vec<_> = events.iter().map(|event| event.get()).collect();
    assert_eq!((texts, more), (vec!["{\"a\" : 1}", "7"], 1));
    assert_eq!(parse_batch(b"[]", 2).unwrap().0.len(), 0);
    for bad in [&b"{}"[..], b"", b"[1] [2]", b"[1", b"\xff"] {
        assert!(parse_batch(bad, 9).is_err());
    }
}

#[test]
fn headers_for_receivers_are_legal_and_complete() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = with(|event| {
        event["subject"] = "call/Zoë \"1\" 100%".into();
        event["traceparent"] = trace.into();
        event["time"] = "2026-11-18T03:19:59Z".into();
    });
    let event = post_json(&text).unwrap();
    let id = event.id.to_string();
    let expected = [
        ("ce-specversion", "1.0"),
        ("ce-id", &id),
        ("ce-source", "/pbx/1"),
        ("ce-type", "cdr.completed"),
        ("ce-time", "2026-11-18T03:19:59Z"),
        ("ce-tenant", "acme"),
        ("ce-subject", "call/Zo%C3%AB%20%221%22%20100%25"),
        ("ce-traceparent", trace),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    assert_eq!(http_headers(&event), expected);
}

#[test]
fn what_a_topic_cannot_hold_is_named() {
    let said = |headers: &[(&str, &[u8])], value: &[u8]| read(headers, Some(value)).unwrap_err();
    for form in [
        "application/cloudevents+avro",
        "application/cloudevents-batch+json",
    ] {
        let error = said(&[("content-type", form.as_bytes())], b"[]");
        assert!(error.contains(form), "{error}");
    }
    let structured: (&str, &[u8]) = ("content-type", b"application/cloudevents+json");
    assert!(read(&[structured], None).unwrap_err().contains("no value"));
    assert!(said(&[structured], b"nonsense").contains("JSON"));
    for name in ["specversion", "id", "source", "type", "tenant"] {
        let text = with(|event| {
            event["tenant"] = "acme".into();
            event.as_object_mut().unwrap().remove(name);
        });
        let error = read_json(&text).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    let binary: [(&str, &[u8]); 5] = [
        ("ce_id", b"A-1"),
        ("ce_type", b"cdr.completed"),
        ("ce_tenant", b"acme"),
        ("ce_source", b"pbx"),
        ("ce_specversion", b"0.3"),
    ];
    assert!(said(&binary, b"{}").contains("specversion"));
    let mut xml = binary.to_vec();
    xml[4] = ("content-type", b"application/xml");
    assert!(said(&xml, b"<a/>").contains("datacontenttype"));
    assert!(read(&binary[..4], Some(b"{}")).is_ok());
}

proptest! {
    /// The dispatcher sees the same event either way, with the bytes of the data untouched (DL7).
    #[test]
    fn both_modes_of_the_kafka_binding_give_the_same_event(
        id in "[ -~]{1,40}", subject in proptest::option::of("[ -~é€🙂]{1,40}"),
        micros in 0i64..1_795_000_000_000_000, backfill in any::<bool>(), text in any::<String>(),
        space in "[ \n]{0,3}", traced in any::<bool>(),
    ) {
        let text = serde_json::to_string(&text).unwrap();
        let data = format!("{{{space}\"text\" :{space}{text},\"n\":1.50e0}}");
        let time = Timestamp::from_micros(micros).to_string();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut attributes = vec![
            ("specversion", "1.0"), ("id", &id), ("source", "/pbx/1"), ("type", "cdr.completed"),
            ("time", &time), ("tenant", "acme"),
        ];
        attributes.extend(subject.as_deref().map(|subject| ("subject", subject)));
        attributes.extend(traced.then_some(("traceparent", trace)));
        attributes.extend(backfill.then_some(("backfill", "true")));
        let mut json = String::from("{");
        for (name, value) in &attributes {
            json.push_str(&format!("\"{name}\":{},{space}", serde_json::to_string(value).unwrap()));
        }
        json.push_str(&format!("\"data\":{space}{data}{space}}}"));
        let names: Vec<_> = attributes.iter().map(|(name, _)| format!("ce_{name}")).collect();
        let mut headers: Vec<(&str, &[u8])> = vec![("content-type", b"application/json")];
        headers.extend(names.iter().map(String::as_str).zip(attributes.iter().map(|(_, v)| v.as_bytes())));
        let binary = read(&headers, Some(data.as_bytes())).unwrap();
        let structured = read_json(&json).unwrap();
        prop_assert_eq!(&structured.data[..], data.as_bytes());
        prop_assert_eq!(structured.backfill, backfill);
        prop_assert_eq!(structured, binary);
    }

    /// Nothing that stands on a topic or is posted can make the reader panic.
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let form: (&str, &[u8]) = ("content-type", b"application/cloudevents+json");
        prop_assert!(read(&[form], Some(&bytes)).is_err());
        let _ = parse_batch(&bytes, 3);
    }
}
