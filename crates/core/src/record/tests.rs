//! Records written and read back, and what is read of others.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::schedule::Schedule;
use crate::topics::{Role, Topics, TopicsConfig};

fn record<'a>(headers: &'a [Header<'a>], value: Option<&'a [u8]>) -> Record<'a> {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let topic = topics.find(Role::Replay).unwrap();
    Record {
        partition: crate::topics::Partition { topic, index: 0 },
        offset: 0,
        appended: Timestamp::from_millis(1_795_000_000_000),
        key: None,
        headers,
        value,
    }
}

prop_compose! {
    fn delivery()(
        id in 1u128.., webhook in any::<u128>(), attempt in any::<u8>(), run in any::<u32>(),
        accepted in 0i64..1_795_000_000_000_000, time in 0i64..1_795_000_000_000_000,
        subject in proptest::option::of("\\PC{1,40}"), backfill in any::<bool>(),
        replay in proptest::option::of(any::<u128>()),
    ) -> Delivery {
        let event = Event {
            id: Uuid::from_u128(id),
            name: EventName::parse("cdr.completed").unwrap(),
            time: Timestamp::from_micros(time),
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx-1").unwrap(),
            subject: subject.and_then(|subject| Subject::parse(&subject).ok()),
            data: Bytes::from_static(b"{}"),
            backfill,
            traceparent: None,
        };
        Delivery {
            event: event.into(),
            webhook: Uuid::from_u128(webhook),
            attempt,
            run,
            accepted: Timestamp::from_micros(accepted),
            deferrals: attempt,
            replay: replay.map(Uuid::from_u128),
        }
    }
}

proptest! {
    #[test]
    fn deliveries_read_back(delivery in delivery()) {
        let mut buf = HeaderBuf::default();
        buf.push_delivery(&delivery);
        let headers = buf.headers();
        let record = record(&headers, Some(&delivery.event.data));
        prop_assert_eq!(decode_delivery(&record).unwrap(), delivery);
    }

    /// R13: the 24 hours never begin after acceptance.
    #[test]
    fn the_day_never_begins_after_acceptance(delivery in delivery()) {
        prop_assert!(delivery.began() <= delivery.accepted);
    }

    #[test]
    fn any_headers_are_refused_or_read(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 9)) {
        use header::*;
        let names = [ID, TYPE, TENANT, SOURCE, TIME, WEBHOOK, ATTEMPT, RUN, ACCEPTED];
        let headers: Vec<_> = names
            .iter()
            .zip(&values)
            .map(|(name, value)| Header { name, value })
            .collect();
        let read = decode_delivery(&record(&headers, Some(b"{}")));
        prop_assert!(read.is_err());
    }
}

/// R13: a run that seems to be accepted in the future was accepted when it was written.
#[test]
fn nothing_is_accepted_after_it_was_written() {
    for (accepted, read) in [
        ("9999-12-30T00:00:00Z", "2026-11-18T11:06:40Z"),
        ("2026-11-18T01:46:39Z", "2026-11-18T01:46:39Z"),
        ("-009999-01-02T01:59:59Z", "-009999-01-02T01:59:59Z"),
    ] {
        let headers = [
            (header::WEBHOOK, "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e"),
            (header::ID, "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e"),
            (header::TYPE, "cdr.completed"),
            (header::TENANT, "acme"),
            (header::SOURCE, "pbx"),
            (header::ATTEMPT, "0"),
            (header::RUN, "1"),
            (header::DEFERRALS, "0"),
            (header::ACCEPTED, accepted),
        ]
        .map(|(name, value)| Header {
            name,
            value: value.as_bytes(),
        });
        let delivery = decode_delivery(&record(&headers, Some(b"{}"))).unwrap();
        assert_eq!(delivery.began(), Timestamp::parse(read).unwrap());
    }
}

/// Rolling upgrade: what a newer release writes besides is ignored, whatever version it states
/// (the rule is in docs/upgrading.md).
#[test]
fn records_of_a_newer_version_are_read() {
    let event = Event {
        id: Uuid::from_u128(7),
        name: EventName::parse("cdr.completed").unwrap(),
        time: Timestamp::from_millis(1_794_999_999_000),
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("pbx-1").unwrap(),
        subject: None,
        data: Bytes::from_static(b"{}"),
        backfill: false,
        traceparent: None,
    };
    let delivery = Delivery {
        event: event.into(),
        webhook: Uuid::from_u128(8),
        attempt: 3,
        run: 1,
        accepted: Timestamp::from_millis(1_794_999_999_500),
        deferrals: 2,
        replay: None,
    };
    let mut buf = HeaderBuf::default();
    buf.push_delivery(&delivery);
    let mut headers = buf.headers();
    headers.retain(|header| header.name != header::VERSION);
    for (name, value) in [
        ("rb_version", &b"2"[..]),
        ("rb_lane_hint", b"\xff\x00"),
        ("ce_newattribute", b"x"),
        ("x-other", b""),
    ] {
        headers.insert(0, Header { name, value });
    }
    assert_eq!(
        decode_delivery(&record(&headers, Some(b"{}"))).unwrap(),
        delivery
    );
    // Nor does a version that is no number keep anybody from reading.
    headers[3].value = b"two";
    assert_eq!(headers[3].name, header::VERSION);
    assert_eq!(
        decode_delivery(&record(&headers, Some(b"{}"))).unwrap(),
        delivery
    );

    let attempt = r#"{"version":2,"event":"00000000-0000-0000-0000-000000000007",
        "type":"cdr.completed","tenant":"acme",
        "webhook":"00000000-0000-0000-0000-000000000008","generation":1,"run":0,"attempt":0,
        "started":"2026-11-21T00:00:00Z","duration_ms":5,"outcome":"delivered",
        "next":"a_word_of_version_2","dispatcher":"d","new":{"nested":[1]}}"#;
    let attempt: Attempt = serde_json::from_str(attempt).unwrap();
    assert_eq!(
        (attempt.version, &*attempt.next),
        (2, "a_word_of_version_2")
    );
}

#[test]
fn what_is_missing_is_named() {
    // An event's id may be any text, a delivery's was made by us.
    let headers = [
        (header::WEBHOOK, "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e"),
        (header::ACCEPTED, "2026-11-21T03:19:59Z"),
        (header::ID, "not-a-uuid"),
    ]
    .map(|(name, value)| Header {
        name,
        value: value.as_bytes(),
    });
    let error = decode_delivery(&record(&headers, Some(b"{}"))).unwrap_err();
    assert!(error.to_string().contains("not-a-uuid"), "{error}");
    let error = decode_event(&record(&[], Some(b"{}"))).unwrap_err();
    assert_eq!(error, InvalidRecord::Missing(header::ID));
}

#[test]
fn a_missing_time_is_the_append_time_and_a_future_one_is_clamped() {
    for time in [None, Some("2099-01-01T00:00:00Z")] {
        let mut headers = vec![
            Header {
                name: header::ID,
                value: b"01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e",
            },
            Header {
                name: header::TYPE,
                value: b"cdr.completed",
            },
            Header {
                name: header::TENANT,
                value: b"acme",
            },
            Header {
                name: header::SOURCE,
                value: b"pbx",
            },
        ];
        headers.extend(time.map(|t| Header {
            name: header::TIME,
            value: t.as_bytes(),
        }));
        let record = record(&headers, Some(b"{}"));
        assert_eq!(decode_event(&record).unwrap().time, record.appended);
    }
}

#[test]
fn a_reason_is_called_as_it_is_written() {
    for reason in Reason::ALL {
        let name = serde_json::to_value(reason).unwrap();
        assert_eq!(name, reason.as_str());
        assert_eq!(name, reason.to_string());
        assert_eq!(Reason::find(reason.as_str()), Some(reason));
    }
    assert_eq!(Reason::find("bored"), None);
}

/// R13.
#[test]
fn the_24_hours_begin_with_the_event_or_with_who_asked() {
    let at = Timestamp::from_millis;
    let began = |time, run, backfill| {
        let event = Event {
            id: Uuid::from_u128(7),
            name: EventName::parse("cdr.completed").unwrap(),
            time: at(time),
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx-1").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill,
            traceparent: None,
        };
        let delivery = Delivery {
            event: event.into(),
            webhook: Uuid::from_u128(8),
            attempt: 3,
            run,
            accepted: at(100),
            deferrals: 2,
            replay: None,
        };
        delivery.began()
    };
    assert_eq!(began(50, 0, false), at(50));
    assert_eq!(began(150, 0, false), at(100));
    assert_eq!(began(50, 0, true), at(100));
    assert_eq!(began(50, 1, false), at(100));
}
