//! What is reached and what is not, over real sockets.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringback_core::event::{Event, EventName, Source};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn keys() -> KeyRing {
    KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]).unwrap()
}

fn webhook(url: &str) -> Webhook {
    let record = json!({
        "version": 1, "id": "00000000-0000-0000-0000-000000000008", "tenant": "acme", "name": "cdr",
        "subscription": ["*"], "url": url, "authentication": { "method": "none" }, "enabled": true,
        "generation": 0, "created": "2026-11-21T00:00:00Z", "updated": "2026-11-21T00:00:00Z",
    });
    serde_json::from_value(record).unwrap()
}

fn delivery(webhook: &Webhook) -> Delivery {
    let now = Timestamp::from_millis(1_000_000);
    Delivery {
        event: Arc::new(Event {
            id: webhook.id,
            name: EventName::parse("cdr.completed").unwrap(),
            time: now,
            tenant: webhook.tenant.clone(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: None,
        }),
        webhook: webhook.id,
        attempt: 0,
        run: 0,
        accepted: now,
        deferrals: 0,
        replay: None,
    }
}

async fn post(http: &Http, webhook: &Webhook) -> Result<Sent, Unsendable> {
    let body = Bytes::from_static(b"{}");
    let now = Timestamp::from_millis(1_000_000);
    http.send(webhook, &delivery(webhook), body, now).await
}

/// Settings with these networks opened.
fn opening(networks: &[&str]) -> Config {
    Config {
        allow_networks: Some(networks.iter().map(|text| text.parse().unwrap()).collect()),
        timeout: Duration::from_secs(20),
        ..Config::default()
    }
}

/// Answers every request with 200 and closes. Counts connections.
fn serve(listener: TcpListener) -> (SocketAddr, Arc<AtomicUsize>) {
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicUsize>::default();
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, count)
}

/// Listeners on 127.0.0.2 and 127.0.0.1 with the same port.
async fn twins() -> (TcpListener, TcpListener) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        // Another process may have it.
        if let Ok(second) = TcpListener::bind(("127.0.0.1", port)).await {
            return (first, second);
        }
    }
    panic!("no port is free on both addresses");
}

/// A resolver that tells another set of addresses at each call, and the last for ever.
fn answering(answers: &[&[&str]]) -> Lookup {
    let parse = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
    let answers: Vec<Vec<SocketAddr>> = answers
        .iter()
        .map(|texts| texts.iter().map(parse).collect())
        .collect();
    let calls = AtomicUsize::new(0);
    Lookup::new(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        let answer = answers[call.min(answers.len() - 1)].clone();
        async move { Ok(answer) }
    })
}

fn refused(result: Result<Sent, Unsendable>) -> String {
    match result {
        Err(Unsendable::Target(refusal)) => refusal.to_string(),
        other => panic!("it is not refused: {other:?}"),
    }
}

/// The name is public when it is looked at first, and this machine afterwards: nobody dials it.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_not_followed() {
    let (public, secret) = twins().await;
    let ((public, reached), (_, robbed)) = (serve(public), serve(secret));
    let lookup = answering(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1", "127.0.0.2"]]);
    let http = Http::resolving(&opening(&["127.0.0.2"]), keys(), lookup).unwrap();
    let webhook = webhook(&format!("http://rebinding.example:{}/", public.port()));

    let sent = post(&http, &webhook).await.unwrap();
    assert_eq!(sent.outcome, Outcome::Status(200));
    let text = refused(post(&http, &webhook).await);
    assert_eq!(
        text,
        "the URL cannot be used: rebinding.example resolves to 127.0.0.1, a loopback address; an operator can open it with dispatcher.allow_networks"
    );
    // Of several addresses only the open one is dialled.
    let sent = post(&http, &webhook).await.unwrap();
    assert_eq!(sent.outcome, Outcome::Status(200));
    assert_eq!(reached.load(Ordering::SeqCst), 2);
    assert_eq!(robbed.load(Ordering::SeqCst), 0);
}

/// The client does not ask its resolver about addresses.
#[tokio::test]
async fn an_address_in_the_url_is_checked_as_well() {
    let (address, robbed) = serve(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let lookup = Lookup::new(|name| async move { panic!("{name} is looked up") });
    let http = Http::resolving(&opening(&[]), keys(), lookup).unwrap();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "localhost",
    ] {
        let webhook = webhook(&format!("http://{host}:{}/", address.port()));
        let text = refused(post(&http, &webhook).await);
        assert!(text.contains("a loopback address"), "{host}: {text}");
    }
    assert_eq!(robbed.load(Ordering::SeqCst), 0);
}

/// The system's resolver finds this machine under its own name.
#[tokio::test]
async fn the_systems_names_are_checked() {
    let (address, reached) = serve(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let webhook = webhook(&format!("http://localhost:{}/", address.port()));
    let open = Http::new(&opening(&["127.0.0.1"]), keys()).unwrap();
    let sent = post(&open, &webhook).await.unwrap();
    assert_eq!(sent.outcome, Outcome::Status(200));
    assert_eq!(reached.load(Ordering::SeqCst), 1);
    let kind = Http::new(&opening(&["loopback"]), keys()).unwrap();
    assert!(post(&kind, &webhook).await.is_ok());
}

/// What is accepted as a URL can be made a request: no record waits for what can never be sent.
#[test]
fn every_accepted_url_can_be_requested() {
    let reach = Reach::default();
    for code in 0..0x180_u32 {
        let Some(letter) = char::from_u32(code) else {
            continue;
        };
        for text in [
            format!("https://a.example/{letter}"),
            format!("https://a.example/?{letter}"),
            format!("https://a{letter}b.example/"),
        ] {
            if let Ok(url) = reach.check(&text) {
                let made: Result<http::Uri, _> = url.as_str().parse();
                assert!(made.is_ok(), "{text:?} becomes {url}");
            }
        }
    }
}
