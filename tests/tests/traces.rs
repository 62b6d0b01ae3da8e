//! Traces, as a collector of OpenTelemetry gets them: from who sends an event over the log to who
//! receives it.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use ringback_tests::collector::{Collector, Span};
use ringback_tests::installation::{Installation, eventually};
use ringback_tests::process::LOGS_JSON;
use ringback_tests::receiver::Answer;
use ringback_tests::{kafka, ports};
use serde_json::json;

const SENDER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn start(collector: &str, ratio: &str) -> Installation {
    let endpoint = format!("telemetry.traces.endpoint={collector}");
    let ratio = format!("telemetry.traces.sample_ratio={ratio}");
    let settings = [&endpoint, &ratio, "schedule.tiers=['300ms']"];
    Installation::start(kafka::shared().bootstrap(), &settings).await
}

/// Posts an event in a trace of its sender's, or in none. Its id.
async fn post(installation: &Installation, traceparent: Option<&str>) -> String {
    let url = format!("{}/v1/events", installation.producer.url("ingest"));
    let mut request = installation.client.post(url);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let event =
        json!({ "type": "cdr.completed", "subject": "call/7", "data": { "secret": "hunter2" } });
    let response = request
        .bearer_auth(&installation.token)
        .json(&event)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let accepted: serde_json::Value = response.json().await.unwrap();
    accepted["id"].as_str().unwrap().to_owned()
}

/// The spans about an event, when there are so many.
async fn spans(collector: &Collector, event: &str, count: usize) -> Vec<Span> {
    let of_event = || {
        let mut spans = collector.spans();
        spans.retain(|span| span.attributes["cloudevents.event_id"] == event);
        spans
    };
    eventually("the spans are there", async || of_event().len() >= count).await;
    let mut spans = of_event();
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans.sort_by_key(|span| {
        (
            span.name.clone(),
            span.attributes.get("http.request.resend_count").cloned(),
        )
    });
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_sender_to_the_receiver() {
    let collector = Collector::start();
    let installation = start(&collector.url(), "0").await;
    let dispatcher = installation.dispatcher().await;
    installation
        .receiver
        .first("cdr", vec![Answer::Status(503)]);
    let event = post(&installation, Some(SENDER)).await;
    let arrived = |count| {
        let event = event.clone();
        move |books: &ringback_tests::receiver::Books| books.count("cdr", &event) == count
    };
    installation
        .receiver
        .wait("the retry arrives", arrived(2))
        .await;
    let spans = spans(&collector, &event, 3).await;
    let [accept, first, second] = &spans[..] else {
        panic!("{spans:#?}");
    };
    for span in &spans {
        assert_eq!(span.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.attributes["ringback.tenant"], "acme");
    }
    assert_eq!((&*accept.name, &*accept.kind), ("accept", "Producer"));
    assert_eq!(
        (&*accept.service, &*accept.parent),
        ("ringback-producer", "00f067aa0ba902b7")
    );
    let says = |span: &Span, name: &str| span.attributes[name].clone();
    for (span, status, next, outcome) in [
        (first, "503", "retry.300ms", "Error"),
        (second, "200", "delivered", "Unset"),
    ] {
        assert_eq!((&*span.name, &*span.kind), ("deliver", "Client"));
        assert_eq!(
            (&*span.service, &span.parent),
            ("ringback-dispatcher", &accept.id)
        );
        assert_eq!(says(span, "http.response.status_code"), status);
        assert_eq!(says(span, "ringback.next"), next);
        assert_eq!(span.status, outcome);
    }
    assert_eq!(first.links, Vec::<String>::new());
    assert_eq!(second.links, std::slice::from_ref(&first.id));
    // What the receiver does follows from the attempt.
    let got = installation.receiver.books(|books| books.at("cdr"));
    for (request, span) in got.iter().zip([first, second]) {
        let expected = format!("00-{}-{}-01", span.trace, span.id);
        assert_eq!(request.header("traceparent"), expected);
    }
    assert!(!format!("{spans:?}").contains("hunter2"));
    drop(dispatcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_what_comes_without_a_trace_is_recorded() {
    let collector = Collector::start();
    let installation = start(&collector.url(), "1").await;
    let dispatcher = installation.dispatcher().await;
    let event = post(&installation, None).await;
    let spans = spans(&collector, &event, 2).await;
    // An event's id is enough to find its trace.
    assert_eq!(spans[0].trace, event.replace('-', ""));
    assert_eq!((&*spans[0].parent, &spans[1].parent), ("", &spans[0].id));
    // Who does not want to be recorded is not, and his trace goes through as it is.
    let unsampled = SENDER.replace("-01", "-00");
    let event = post(&installation, Some(&unsampled)).await;
    let arrives = |books: &ringback_tests::receiver::Books| books.count("cdr", &event) == 1;
    installation.receiver.wait("it arrives", arrives).await;
    let got = installation.receiver.books(|books| books.at("cdr"));
    let got = got.iter().find(|request| request.id() == event).unwrap();
    assert_eq!(got.header("traceparent"), unsampled);
    assert_eq!(
        dispatcher
            .metric("ringback_spans_total{result=\"made\"}")
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_hinders_nothing() {
    let port = ports::free().unwrap();
    let installation = start(&format!("http://127.0.0.1:{port}"), "1").await;
    let dispatcher = installation.dispatcher().await;
    let event = post(&installation, None).await;
    let arrives = |books: &ringback_tests::receiver::Books| books.count("cdr", &event) == 1;
    installation.receiver.wait("it arrives", arrives).await;
    eventually("the loss is counted", async || {
        dispatcher
            .metric("ringback_spans_total{result=\"failed\"}")
            .await
            == 1.0
    })
    .await;
    // It comes back, and gets what comes then.
    let collector = Collector::start_at(port);
    let event = post(&installation, None).await;
    spans(&collector, &event, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_about_an_event_have_its_id_and_its_trace() {
    let levels = "telemetry.log=info,ringback_dispatcher=debug,ringback_producer=debug";
    let settings = [LOGS_JSON, levels, "schedule.tiers=['300ms']"];
    let installation = Installation::start(kafka::shared().bootstrap(), &settings).await;
    let _dispatcher = installation.dispatcher().await;
    installation
        .receiver
        .first("cdr", vec![Answer::Status(503)]);
    let event = post(&installation, Some(SENDER)).await;
    let about = |command: &str, message: &str| {
        let mut lines = installation.logged(command);
        lines.retain(|line| line["message"] == message);
        lines
    };
    eventually("both attempts are logged", async || {
        about("dispatcher", "attempted").len() == 2
    })
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let [accepted] = &about("producer", "accepted")[..] else {
        panic!("{:?}", installation.logged("producer"));
    };
    assert_eq!(accepted["level"], "DEBUG");
    assert_eq!(
        (&accepted["event"], &accepted["trace"]),
        (&json!(event), &json!(trace))
    );
    for (attempt, line) in about("dispatcher", "attempted").iter().enumerate() {
        let span = &line["span"];
        assert_eq!(
            (&span["event"], &span["trace"]),
            (&json!(event), &json!(trace))
        );
        assert_eq!(
            (&span["tenant"], &span["attempt"]),
            (&json!("acme"), &json!(attempt))
        );
        assert_eq!(line["status"], [503, 200][attempt]);
    }
    // None has what is in it, nor how the webhook is authenticated to.
    for command in ["admin", "producer", "dispatcher"] {
        for line in installation.logged(command) {
            assert!(!line.to_string().contains("hunter2"), "{line}");
            assert!(
                line["timestamp"].is_string() && line["level"].is_string(),
                "{line}"
            );
        }
    }
}
