//! How a receiver is reached: the transport alone, without a log, against servers that are odd in
//! every way.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod http2;
mod parking;
mod proxy;
mod rebinding;
mod tls;
mod urls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringback_core::address::Opening;
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use ringback_dispatcher::{Config, Http, Sent, Transport, Unsendable};
use ringback_tests::rig::keys;
use ringback_tests::sender::{delivery, webhook};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};

/// Settings that reach this machine. Long enough for a machine under load.
fn config() -> Config {
    Config {
        allow_networks: Some(vec![Opening::LOOPBACK]),
        timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(30),
        ..Config::default()
    }
}

fn http(config: &Config) -> Http {
    Http::new(config, keys()).unwrap()
}

/// One attempt with this body.
async fn post(http: &Http, webhook: &Webhook, body: Bytes) -> Result<Sent, Unsendable> {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let delivery = delivery(webhook.id, now, body.clone());
    http.send(webhook, &delivery, body, now).await
}

/// A small attempt, which must be made.
async fn sent(http: &Http, url: &str) -> Sent {
    let body = Bytes::from_static(b"{}");
    post(http, &webhook(url, json!({})), body).await.unwrap()
}

/// A server that does this to every connection, and how many there were.
async fn serve<F: Future<Output = ()> + Send + 'static>(
    with: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicUsize>::default();
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(with(stream));
        }
    });
    (address, count)
}

/// Reads to the end of a request with a small body; tells its head, or nothing at the end of the
/// stream.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let value = line.strip_prefix("content-length: ")?;
            value.parse::<usize>().ok()
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(head.to_owned());
        }
    }
}
