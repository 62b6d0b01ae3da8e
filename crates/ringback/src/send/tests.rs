//! Sending against an ingest that answers as it is told: the counts always add up, and what was
//! not acknowledged is sent again or named.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use ringback_core::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufReader};

use super::report::Counts;
use super::*;

/// What the ingest answers to one request.
#[derive(Clone, Copy)]
enum Script {
    Accept,
    /// The log is away.
    Unavailable,
    /// The second half of the lines is not acknowledged.
    Half,
    /// The first line is bad.
    RefuseFirst,
    /// More lines than this are too many.
    AtMost(usize),
    /// Fewer verdicts than lines.
    Miscounted,
    Unauthorized,
}

#[derive(Default)]
struct Books {
    script: Mutex<VecDeque<Script>>,
    /// What follows when the script has ended.
    then: Mutex<Option<Script>>,
    /// Ids of acknowledged lines, in order.
    accepted: Mutex<Vec<String>>,
    requests: Mutex<Vec<usize>>,
}

struct Fake {
    url: String,
    books: Arc<Books>,
}

async fn fake(script: &[Script], then: Script) -> Fake {
    let books = Arc::new(Books::default());
    books.script.lock().extend(script);
    *books.then.lock() = Some(then);
    let router = Router::new().fallback(answer).with_state(books.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Fake { url, books }
}

async fn answer(State(books): State<Arc<Books>>, body: Bytes) -> Response {
    let ids: Vec<String> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            event["id"].as_str().unwrap().to_owned()
        })
        .collect();
    books.requests.lock().push(ids.len());
    let next = books.script.lock().pop_front();
    let script = next.or(*books.then.lock()).unwrap();
    let problem = |status, detail: &str| {
        let headers = [(RETRY_AFTER, "0")];
        let body = json!({ "detail": detail }).to_string();
        (status, headers, body).into_response()
    };
    let verdicts = |accepted: &[String], refused: Vec<(usize, &str)>| {
        books.accepted.lock().extend_from_slice(accepted);
        let refused: Vec<_> = refused
            .into_iter()
            .map(|(index, code)| json!({"index": index, "code": code, "reason": "told to"}))
            .collect();
        json!({"accepted": accepted.len(), "refused": refused})
            .to_string()
            .into_response()
    };
    match script {
        Script::Accept => verdicts(&ids, vec![]),
        Script::Unavailable => problem(StatusCode::SERVICE_UNAVAILABLE, "the log is away"),
        Script::Half => {
            let half = ids.len() / 2;
            let rest = half..ids.len();
            verdicts(&ids[..half], rest.map(|i| (i, "unavailable")).collect())
        }
        Script::RefuseFirst => verdicts(&ids[1..], vec![(0, "data_not_object")]),
        Script::AtMost(most) if ids.len() <= most => verdicts(&ids, vec![]),
        Script::AtMost(_) => problem(StatusCode::PAYLOAD_TOO_LARGE, "too many"),
        Script::Miscounted => verdicts(&ids[1..], vec![]),
        Script::Unauthorized => problem(StatusCode::UNAUTHORIZED, "the token is not known"),
    }
}

fn events(count: usize) -> String {
    (0..count)
        .map(|i| json!({"id": i.to_string(), "type": "call.ended", "data": {}}).to_string() + "\n")
        .collect()
}

const PACE: Pace = Pace {
    batch: 10,
    in_flight: 1,
    rate: None,
    keep_going: false,
};

/// Longer than any test takes.
const PATIENT: Duration = Duration::from_secs(60);

async fn send(
    fake: &Fake,
    count: usize,
    pace: Pace,
    patience: Duration,
) -> (Result<(), Failure>, Counts) {
    let ingest = Ingest::new(
        &fake.url,
        &Trust::default(),
        Secret::new("t"),
        false,
        patience,
    )
    .unwrap();
    let lines = Lines::of(
        "events",
        BufReader::new(std::io::Cursor::new(events(count))),
    );
    let report = Report::quiet();
    let sent = send_lines(lines, Mapping::Events, ingest, pace, report.clone()).await;
    let counts = report.counts();
    let ends = counts.accepted + counts.refused + counts.skipped + counts.unacknowledged;
    assert_eq!(counts.read, ends, "{counts:?}");
    assert_eq!(counts.accepted, fake.books.accepted.lock().len() as u64);
    (sent.map(drop), counts)
}

fn all(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again() {
    let script = [Script::Unavailable, Script::Half, Script::Unavailable];
    let fake = fake(&script, Script::Accept).await;
    let (sent, counts) = send(&fake, 25, PACE, PATIENT).await;
    sent.unwrap();
    assert_eq!((counts.accepted, counts.resent), (25, 10 + 5 + 5));
    assert_eq!(*fake.books.accepted.lock(), all(25));
}

#[tokio::test]
async fn a_bad_line_is_refused_once_and_does_not_hurt_its_neighbours() {
    let fake = fake(&[Script::RefuseFirst], Script::Accept).await;
    let (sent, counts) = send(&fake, 20, PACE, PATIENT).await;
    sent.unwrap();
    assert_eq!((counts.accepted, counts.refused, counts.resent), (19, 1, 0));
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_divided() {
    let small = fake(&[], Script::AtMost(3)).await;
    let (sent, counts) = send(&small, 10, PACE, PATIENT).await;
    sent.unwrap();
    assert_eq!(counts.accepted, 10);
    assert_eq!(*small.books.accepted.lock(), all(10));
    let none = fake(&[], Script::AtMost(0)).await;
    let (sent, counts) = send(&none, 3, PACE, PATIENT).await;
    sent.unwrap();
    assert_eq!(counts.refused, 3);
}

#[tokio::test]
async fn patience_ends_and_the_rest_is_counted() {
    const IMPATIENT: Duration = Duration::from_millis(250);
    let dead = fake(&[Script::Accept], Script::Unavailable).await;
    let (sent, counts) = send(&dead, 40, PACE, IMPATIENT).await;
    let message = sent.unwrap_err().message;
    assert!(message.contains("the log is away"), "{message}");
    assert!(counts.accepted == 10 && counts.unacknowledged >= 10);
    // The next request is tried all the same.
    let script = [Script::Unavailable; 3];
    let back = fake(&script, Script::Accept).await;
    let keep_going = Pace {
        keep_going: true,
        ..PACE
    };
    let (sent, counts) = send(&back, 40, keep_going, IMPATIENT).await;
    sent.unwrap();
    assert_eq!(counts.accepted + counts.unacknowledged, 40);
    assert!(counts.accepted >= 30, "{counts:?}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_trusted_ends_it() {
    for (script, said) in [
        (Script::Miscounted, "do not add up"),
        (Script::Unauthorized, "the token is not known"),
    ] {
        let fake = fake(&[], script).await;
        let ingest = Ingest::new(
            &fake.url,
            &Trust::default(),
            Secret::new("t"),
            false,
            PATIENT,
        )
        .unwrap();
        let lines = Lines::of("events", BufReader::new(std::io::Cursor::new(events(20))));
        let sent = send_lines(lines, Mapping::Events, ingest, PACE, Report::quiet()).await;
        let message = sent.map(drop).unwrap_err().message;
        assert!(message.contains(said), "{message}");
        assert_eq!(fake.books.requests.lock().len(), 1);
    }
}

/// As from `tail -F`: a line does not wait for a full batch.
#[tokio::test]
async fn slow_input_is_sent_as_it_comes() {
    let fake = fake(&[], Script::Accept).await;
    let ingest = Ingest::new(
        &fake.url,
        &Trust::default(),
        Secret::new("t"),
        false,
        PATIENT,
    )
    .unwrap();
    let (mut input, output) = tokio::io::duplex(4096);
    let lines = Lines::of("pipe", BufReader::new(output));
    let report = Report::quiet();
    let sending = tokio::spawn(send_lines(
        lines,
        Mapping::Events,
        ingest,
        PACE,
        report.clone(),
    ));
    for i in 1..=3 {
        let line = json!({"id": i.to_string(), "type": "call.ended", "data": {}}).to_string();
        // In two pieces: a line that is only begun is not sent.
        let (begin, end) = line.split_at(10);
        input.write_all(begin.as_bytes()).await.unwrap();
        input.flush().await.unwrap();
        input
            .write_all(format!("{end}\n").as_bytes())
            .await
            .unwrap();
        while report.counts().accepted < i {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    drop(input);
    sending.await.unwrap().unwrap();
    assert_eq!(report.counts().accepted, 3);
}
