//! Answers that are none: each ends in bounded time with a reason, and leaves nothing behind for the
//! next request.

use std::time::Instant;

use ringback_core::verdict::Outcome;
use tokio::io::AsyncWriteExt;

use super::*;

/// A server that answers each request on a connection with these bytes, and keeps it open.
async fn answering(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    serve(move |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the other tests' "not used again" is measured by.
#[tokio::test]
async fn a_good_answer_keeps_its_connection() {
    let (address, connections) = answering(OK).await;
    let http = http(&config());
    for _ in 0..3 {
        let sent = sent(&http, &format!("http://{address}/")).await;
        assert_eq!(sent.outcome, Outcome::Status(200));
        assert_eq!(sent.response.as_deref(), Some("ok"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn malformed_answers_are_failures_with_a_reason() {
    for (what, answer) in [
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("no version", "200 OK\r\n\r\n"),
        ("another version", "HTTP/9.9 200 OK\r\n\r\n"),
        ("no number", "HTTP/1.1 OK\r\n\r\n"),
        ("two digits", "HTTP/1.1 20 OK\r\n\r\n"),
        ("a header without a colon", "HTTP/1.1 200 OK\r\nabc\r\n\r\n"),
        ("a header with a space", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n"),
        (
            "a length that is none",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ),
        (
            "a negative length",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "a chunk that is none",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nab\r\n",
        ),
    ] {
        let (address, connections) = answering(answer).await;
        let http = http(&config());
        for used in 1..=2 {
            let sent = sent(&http, &format!("http://{address}/")).await;
            assert_eq!(sent.outcome, Outcome::Protocol, "{what}: {sent:?}");
            assert!(sent.error.is_some_and(|text| text.len() > 5), "{what}");
            assert_eq!(connections.load(Ordering::SeqCst), used, "{what}");
        }
    }
}

/// More headers than anybody needs, without an end.
#[tokio::test]
async fn a_header_bomb_is_stopped() {
    for (what, line) in [
        ("many headers", "X-A: 1\r\n".to_owned()),
        ("long headers", format!("X-A: {}\r\n", "a".repeat(10_000))),
        ("one header", "a".repeat(10_000)),
    ] {
        let start = if line.ends_with('\n') { "" } else { "X-A: " };
        let (address, _) = serve(move |mut stream| {
            let line = line.clone();
            async move {
                let _ = read_request(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\n{start}");
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(line.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let sent = sent(&http(&config()), &format!("http://{address}/")).await;
        assert_eq!(sent.outcome, Outcome::Protocol, "{what}: {sent:?}");
        assert!(sent.error.is_some(), "{what}");
    }
}

/// It is read as far as it is wanted, and its connection is given up.
#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
    let (address, connections) = serve(move |mut stream| {
        let chunk = chunk.clone();
        async move {
            let _ = read_request(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    })
    .await;
    let http = http(&config());
    for used in 1..=2 {
        let sent = sent(&http, &format!("http://{address}/")).await;
        assert_eq!(sent.outcome, Outcome::Status(200), "{sent:?}");
        assert_eq!(sent.response.unwrap().len(), 4096);
        assert_eq!(connections.load(Ordering::SeqCst), used);
    }
}

/// Whatever dribbles ends with the time of the whole request, not with that of a single read.
#[tokio::test]
async fn dribbling_ends_with_the_requests_time() {
    for (what, head, drop) in [
        (
            "a body",
            "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            "a",
        ),
        ("headers", "HTTP/1.1 200 OK\r\nX-A: ", "a"),
        ("interim answers", "", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let (address, connections) = serve(move |mut stream| async move {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            let _ = stream.write_all(head.as_bytes()).await;
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(drop.as_bytes()).await.is_ok() {
                pace.tick().await;
            }
        })
        .await;
        let hurried = Config {
            timeout: Duration::from_millis(600),
            ..config()
        };
        let http = http(&hurried);
        for used in 1..=2 {
            let began = Instant::now();
            let sent = sent(&http, &format!("http://{address}/")).await;
            assert_eq!(sent.outcome, Outcome::Timeout, "{what}: {sent:?}");
            assert!(sent.error.is_some(), "{what}");
            assert!(began.elapsed() >= hurried.timeout, "{what}");
            assert_eq!(connections.load(Ordering::SeqCst), used, "{what}");
        }
    }
}

/// A receiver answers in the middle of a large request, and reads no more of it.
#[tokio::test]
async fn an_answer_before_the_request_is_complete_costs_its_connection() {
    let (address, connections) = serve(|mut stream| async move {
        let mut some = [0; 1024];
        let _ = stream.read(&mut some).await;
        let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
        // Open, and nothing is read: the rest of the request cannot be written.
        std::future::pending::<()>().await;
    })
    .await;
    let http = http(&config());
    let webhook = webhook(&format!("http://{address}/"), json!({}));
    let large = Bytes::from(vec![b' '; 16 << 20]);
    for used in 1..=2 {
        let sent = post(&http, &webhook, large.clone()).await.unwrap();
        assert_eq!(sent.outcome, Outcome::Status(413), "{sent:?}");
        assert_eq!(connections.load(Ordering::SeqCst), used);
    }
}

/// What a receiver says unasked is never taken for the answer to the next request.
#[tokio::test]
async fn a_second_answer_is_not_the_next_requests() {
    let (address, connections) = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let http = http(&config());
    for used in 1..=3 {
        let sent = sent(&http, &format!("http://{address}/")).await;
        assert_eq!(sent.outcome, Outcome::Status(200), "{sent:?}");
        assert_eq!(connections.load(Ordering::SeqCst), used);
    }
}

#[tokio::test]
async fn an_early_close_is_a_failure_whatever_the_status() {
    for (what, answer) in [
        ("nothing", ""),
        ("half a status line", "HTTP/1.1 20"),
        ("no end of the headers", "HTTP/1.1 200 OK\r\nX-A: 1\r\n"),
        (
            "half a body",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        ),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        ),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
    ] {
        let (address, connections) = serve(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let http = http(&config());
        for used in 1..=2 {
            let sent = sent(&http, &format!("http://{address}/")).await;
            let failed = matches!(sent.outcome, Outcome::Reset | Outcome::Protocol);
            assert!(failed, "{what}: {sent:?}");
            assert!(sent.error.is_some(), "{what}");
            assert_eq!(connections.load(Ordering::SeqCst), used, "{what}");
        }
    }
}

/// R9: it is a failure that says where it pointed, and nobody goes there.
#[tokio::test]
async fn a_redirect_says_where_it_pointed() {
    for (location, shown) in [
        (
            "https://new.example/hook?token=hunter2#x",
            "https://new.example/hook,",
        ),
        ("https://u:hunter2@new.example/", "https://new.example/,"),
        ("/elsewhere", "/elsewhere,"),
        ("http://[hunter2", "what is no URL,"),
    ] {
        let (address, connections) = serve(move |mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                let answer = format!(
                    "HTTP/1.1 308 Permanent Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let sent = sent(&http(&config()), &format!("http://{address}/")).await;
        assert_eq!(sent.outcome, Outcome::Status(308));
        let said = sent.error.unwrap();
        assert!(said.contains(shown) && !said.contains("hunter2"), "{said}");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

/// Idle connections to many hosts do not add up for ever, and those in use are not harmed.
#[tokio::test]
async fn idle_connections_are_bounded_in_all() {
    const HOSTS: usize = 40;
    let open = Arc::<AtomicUsize>::default();
    let mut urls = Vec::new();
    for _ in 0..HOSTS {
        let open = open.clone();
        let (address, _) = serve(move |mut stream| {
            let open = open.clone();
            open.fetch_add(1, Ordering::SeqCst);
            async move {
                while read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(OK.as_bytes()).await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .await;
        urls.push(format!("http://{address}/"));
    }
    let few = Config {
        idle_max: 16,
        ..config()
    };
    let http = http(&few);
    for url in &urls {
        assert_eq!(sent(&http, url).await.outcome, Outcome::Status(200));
    }
    // The servers see the ends of connections when they see them.
    for _ in 0..600 {
        if open.load(Ordering::SeqCst) <= 16 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} connections stay open", open.load(Ordering::SeqCst));
}

/// What a webhook's owner adds, and the data alone.
#[tokio::test]
async fn headers_and_raw_data_arrive() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(8);
    let (address, _) = serve(move |mut stream| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_request(&mut stream).await {
                heads.send(head).await.unwrap();
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        }
    })
    .await;
    let fields = json!({
        "format": "raw",
        "headers": { "x-tenant": "acme 7", "webhook-id": "forged", "content-type": "text/plain" },
    });
    let webhook = webhook(&format!("http://{address}/"), fields);
    let http = http(&config());
    let answer = post(&http, &webhook, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    assert_eq!(answer.outcome, Outcome::Status(200));
    let head = seen.recv().await.unwrap();
    assert!(head.contains("x-tenant: acme 7"), "{head}");
    // Only a record that no administration wrote can hold these; ours win.
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(
        !head.contains("forged") && !head.contains("\nce-"),
        "{head}"
    );
}
