//! CloudEvents over HTTP: binary, structured and batched.

use ringback_core::catalogue::Family;
use ringback_core::event::Event;
use ringback_core::log::{Log, Reader, Record};
use ringback_core::record::decode_event;
use ringback_core::topics::Role;
use ringback_producer::Config;
use serde_json::{Value, json};

use super::rig::{Answer, JSON, Rig};

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

/// The data of the tests: its bytes must stay as they are.
const DATA: &str = r#"{ "n" : 1.50e0 }"#;

fn structured(id: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/pbx/1","type":"cdr.completed","subject":"call/Zoë 1","time":"2020-11-21T03:19:59+00:00","data":{DATA}}}"#
    )
}

const ATTRIBUTES: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "A-1"),
    ("ce-source", "/pbx/1"),
    ("ce-type", "cdr.completed"),
    ("ce-subject", "call/Zo%C3%AB%201"),
    ("ce-time", "2020-11-21T03:19:59Z"),
];

impl Rig {
    async fn post_headers(&self, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}?backfill=true", self.url);
        let request = self.client.post(url).bearer_auth(self.own.expose());
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = request.body(DATA).send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            retry_after: false,
            body: response.json().await.unwrap(),
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut reader = self.log.reader().unwrap();
        let topic = self.log.topics().find(Role::Events(Family::Cdr)).unwrap();
        for partition in self.log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            let take = &mut |record: Record<'_>| events.push(decode_event(&record).unwrap());
            reader.read(partition, bounds, take).unwrap();
        }
        events
    }
}

fn codes(body: &Value) -> Vec<(u64, &str)> {
    let refused = body["refused"].as_array().unwrap().iter();
    refused
        .map(|row| {
            (
                row["index"].as_u64().unwrap(),
                row["code"].as_str().unwrap(),
            )
        })
        .collect()
}

/// One event in all three modes is one event, with the same derived id and the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn all_modes_give_the_same_event() {
    let rig = Rig::start().await;
    let url = format!("{}?backfill=true", rig.url);
    let one = rig
        .post_to(&url, &rig.own, STRUCTURED, structured("A-1"))
        .await;
    assert_eq!(one.status, 202, "{}", one.body);
    let body = format!("[{}]", structured("A-1"));
    let batch = rig.post_to(&url, &rig.own, BATCH, body).await;
    assert_eq!((batch.status, &batch.body["accepted"]), (202, &json!(1)));
    for kind in [JSON, "application/vnd.pbx+json"] {
        let headers = [&ATTRIBUTES[..], &[("content-type", kind)]].concat();
        let binary = rig.post_headers(&headers).await;
        assert_eq!((binary.status, &binary.body), (202, &one.body));
    }
    // Without a content type the data is taken for JSON.
    assert_eq!(rig.post_headers(&ATTRIBUTES).await.body, one.body);
    let events = rig.events();
    assert_eq!(events.len(), 5);
    assert_eq!(events[0].id.to_string(), one.body["id"].as_str().unwrap());
    assert_eq!(events[0].id.get_version_num(), 5);
    assert_eq!(events[0].subject.as_ref().unwrap().as_str(), "call/Zoë 1");
    assert_eq!(events[0].tenant.as_str(), "acme");
    assert_eq!(&events[0].data[..], DATA.as_bytes());
    for event in &events {
        assert_eq!(*event, events[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_in_headers_is_named() {
    let rig = Rig::start().await;
    for missing in &ATTRIBUTES[..4] {
        let headers: Vec<_> = ATTRIBUTES.into_iter().filter(|h| h != missing).collect();
        let answer = rig.post_headers(&headers).await;
        let name = missing.0.strip_prefix("ce-").unwrap();
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(answer.status == 400 && detail.starts_with(name), "{detail}");
    }
    for (extra, status, code) in [
        (
            ("content-type", "application/xml"),
            415,
            "unsupported_media_type",
        ),
        (
            ("content-type", "application/x-ndjson"),
            415,
            "unsupported_media_type",
        ),
        (("ce-id", "A-2"), 400, "illegal_attribute"),
        (("ce-tenant", "other"), 400, "illegal_attribute"),
    ] {
        let headers = [&ATTRIBUTES[..], &[extra]].concat();
        let answer = rig.post_headers(&headers).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (status, &json!(code))
        );
    }
    let other = "application/cloudevents+xml";
    let answer = rig.post(&rig.own, other, "<event/>").await;
    assert_eq!(answer.status, 415);
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("cloudevents+json")
    );
    // Old as it is, it is accepted only when that is meant.
    let answer = rig.post(&rig.own, STRUCTURED, structured("A")).await;
    assert_eq!(answer.body["code"], "too_old");
    assert!(rig.accepted().is_empty());
}

/// Every element has its verdict; what is no batch is refused as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_element_does_not_hurt_its_neighbours() {
    let config = Config {
        batch_events_max: 6,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    let good = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"a","type":"cdr.completed","data":{{}}}}"#
        )
    };
    let elements = [
        good("1"),
        "7".to_owned(),
        good("2").replace("1.0", "0.3"),
        good("3").replace(r#""data":{}"#, r#""data_base64":"AAEC""#),
        good("4").replace("cdr.completed", "webhook.disabled"),
        good("5"),
    ];
    let answer = rig
        .post(&rig.own, BATCH, format!("[{}]", elements.join(",")))
        .await;
    assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(2)));
    let expected = [
        (1, "not_json"),
        (2, "illegal_attribute"),
        (3, "data_not_object"),
        (4, "illegal_attribute"),
    ];
    assert_eq!(codes(&answer.body), expected);
    assert_eq!(rig.accepted().len(), 2);
    let all_bad = rig.post(&rig.own, BATCH, "[7]").await;
    assert_eq!(
        (all_bad.status, codes(&all_bad.body)),
        (400, vec![(0, "not_json")])
    );
    let empty = rig.post(&rig.own, BATCH, " [] ").await;
    assert_eq!((empty.status, &empty.body["accepted"]), (202, &json!(0)));
    for (body, status, code) in [
        (good("6"), 400, "not_json"),
        (format!("[{}", good("6")), 400, "not_json"),
        (
            format!("[{}]", [good("6").as_str(); 7].join(",")),
            413,
            "too_many_events",
        ),
    ] {
        let answer = rig.post(&rig.own, BATCH, body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (status, &json!(code))
        );
    }
    assert_eq!(rig.accepted().len(), 2);
}
