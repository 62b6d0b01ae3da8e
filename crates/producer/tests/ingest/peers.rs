//! Peers that dawdle, send too much or leave.

use std::time::Duration;

use ringback_producer::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{JSON, Rig};

impl Rig {
    async fn connect(&self) -> TcpStream {
        let address = self.url.trim_start_matches("http://");
        TcpStream::connect(address.split('/').next().unwrap())
            .await
            .unwrap()
    }

    /// The head of a request with a body, without the empty line at its end.
    fn head(&self, more: &str) -> String {
        let token = self.own.expose();
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{more}\r\n"
        )
    }
}

/// What the peer says until it closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    let closed = tokio::time::timeout(Duration::from_secs(30), read).await;
    // A reset is a close as well.
    let _ = closed.expect("the connection is never closed");
    String::from_utf8(text).unwrap()
}

fn hasty() -> Config {
    Config {
        body_timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

/// A connection that never finishes a head, or never begins one, is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_arrive_is_not_waited_for() {
    let rig = Rig::start_with(hasty()).await;
    for begun in ["", "POST /v1/ev", &rig.head("x-slow: 1")] {
        let mut stream = rig.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let rig = Rig::start_with(hasty()).await;
    for framing in ["content-length: 40", "transfer-encoding: chunked"] {
        let mut stream = rig.connect().await;
        let head = rig.head(framing);
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .await
            .unwrap();
        let answer = rest(stream).await;
        assert!(answer.contains("body_timeout"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_are_read_and_limited() {
    let config = Config {
        body_bytes_max: 2048,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    for (padding, status) in [(0, " 202 "), (4000, " 413 ")] {
        let event = format!(
            "{{\"type\":\"cdr.completed\",\"data\":{{}}}}{}",
            " ".repeat(padding)
        );
        let head = rig.head("connection: close\r\ntransfer-encoding: chunked");
        let mut request = format!("{head}\r\n");
        for part in event.as_bytes().chunks(7) {
            let part = std::str::from_utf8(part).unwrap();
            request.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
        }
        request.push_str("0\r\n\r\n");
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.contains(status), "{answer}");
    }
    assert_eq!(rig.accepted().len(), 1);
}

/// Memory is bounded: what does not fit is told to come back, and is not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits_is_told_to_come_back() {
    let config = Config {
        body_bytes_max: 4096,
        in_flight_bytes_max: 4096,
        ..Config::default()
    };
    let rig = Rig::start_with(config).await;
    let head = format!("{}\r\n{{", rig.head("content-length: 4000"));
    let event = r#"{"type":"cdr.completed","data":{}}"#;
    let mut refused = None;
    for _ in 0..200 {
        // A body that does not arrive takes all the room there is; unless the other one is there first, and it
        // is refused itself.
        let mut stream = rig.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rig
            .post(&rig.own, JSON, format!("{event}{}", " ".repeat(3000)))
            .await;
        if answer.status == 503 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the room is never full");
    assert!(refused.retry_after);
}
