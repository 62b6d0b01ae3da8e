//! Digest against a receiver of the test's own: what the servers of `servers.rs` do not do on demand.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use ringback_core::digest::{Challenge, Login, Request};
use ringback_core::secret::Secret;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::Webhook;
use ringback_dispatcher::{Config, Sent};
use ringback_tests::captured::Captured;
use ringback_tests::sender::Sender;
use ringback_tests::servers;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const PASSWORD: &str = "correct-horse-battery";

/// What to answer: a status and headers. `None`: nothing, ever.
type Answer = Option<(u16, Vec<(&'static str, String)>)>;
/// Knows the number of the request, from 0, and its `Authorization`.
type Behaviour = Box<dyn FnMut(usize, &str) -> Answer + Send>;

/// A receiver that notes the `Authorization` of each request.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    async fn start(behaviour: impl FnMut(usize, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(behaviour)));
        let noted = seen.clone();
        let router = Router::new().fallback(async move |uri: Uri, headers: HeaderMap| {
            assert_eq!(uri, "/hook?x=1");
            let authorization = headers
                .get("authorization")
                .map_or("", |v| v.to_str().unwrap());
            let answer = {
                let mut noted = noted.lock();
                noted.push(authorization.to_owned());
                behaviour.lock()(noted.len() - 1, authorization)
            };
            let Some((status, headers)) = answer else {
                return std::future::pending().await;
            };
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body("noted".to_owned()).unwrap()
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    /// The requests since the last time.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn challenge(nonce: &str, more: &str) -> Answer {
    let header = format!("Digest realm=\"r\", qop=\"auth\", nonce=\"{nonce}\"{more}");
    Some((401, vec![("www-authenticate", header)]))
}

fn ok() -> Answer {
    Some((200, vec![]))
}

fn webhook(sender: &Sender, receiver: &Receiver) -> Webhook {
    let login = json!({ "method": "digest", "username": "pbx", "password": PASSWORD });
    sender.webhook(&receiver.url, login)
}

/// Parts of an `Authorization` header.
fn part<'a>(header: &'a str, name: &str) -> &'a str {
    let begin = format!(" {name}=");
    let rest = header.split_once(&begin).expect(header).1;
    rest.split_once(',')
        .map_or(rest, |(part, _)| part)
        .trim_matches('"')
}

/// A receiver whose nonces live 30 s at ten requests a second: its clock goes by requests. It insists on
/// each use of a nonce being new.
fn short_lived() -> impl FnMut(usize, &str) -> Answer + Send + 'static {
    let mut uses = BTreeSet::new();
    move |number, authorization| {
        let current = format!("n{}", number / 300);
        if authorization.is_empty() {
            return challenge(&current, "");
        }
        let (nonce, count) = (part(authorization, "nonce"), part(authorization, "nc"));
        assert!(
            uses.insert((nonce.to_owned(), count.to_owned())),
            "{authorization}"
        );
        match nonce == current {
            true => ok(),
            false => challenge(&current, ", stale=true"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_delivery_is_one_request() {
    const DELIVERIES: usize = 1000;
    let receiver = Receiver::start(short_lived()).await;
    let sender = Sender::new();
    let webhook = webhook(&sender, &receiver);
    // Eight at a time; what a nonce's end costs is one request for each that is on its way.
    let sent = futures_util::stream::iter(0..DELIVERIES)
        .map(|_| sender.send(&webhook))
        .buffer_unordered(8);
    sent.for_each(|sent| async move { assert_eq!(sent.outcome, Outcome::Status(200), "{sent:?}") })
        .await;
    let requests = receiver.requests().len();
    let figure = requests as f64 / DELIVERIES as f64;
    println!("figure digest.requests_per_delivery {figure:.3} requests");
    assert!(
        requests > DELIVERIES + 3,
        "{requests} requests: no nonce ended"
    );
    assert!(figure <= 1.05, "{figure}");
}

/// The attempt, and how many requests it made.
async fn attempt(
    behaviour: impl FnMut(usize, &str) -> Answer + Send + 'static,
) -> (Sent, Vec<String>) {
    let receiver = Receiver::start(behaviour).await;
    let sender = Sender::new();
    let sent = sender.send(&webhook(&sender, &receiver)).await;
    let shown = format!("{sent:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    (sent, receiver.requests())
}

#[tokio::test]
async fn an_attempt_makes_two_requests_or_three() {
    // The 401 that carries the challenge is part of the attempt.
    let (sent, requests) = attempt(|number, _| match number {
        0 => challenge("a", ""),
        _ => ok(),
    })
    .await;
    assert_eq!((sent.outcome, sent.error), (Outcome::Status(200), None));
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], "");
    assert_eq!(part(&requests[1], "uri"), "/hook?x=1");
    // Refused: no third.
    let (sent, requests) = attempt(|_, _| challenge("a", "")).await;
    assert_eq!((sent.outcome, requests.len()), (Outcome::Status(401), 2));
    let refused = "the receiver refused the credentials (Digest, MD5)";
    assert_eq!(sent.error.as_deref(), Some(refused));
    // Stale: a third, and no fourth.
    let (sent, requests) = attempt(|number, _| match number {
        0 | 1 => challenge(&format!("n{number}"), ", stale=true"),
        _ => ok(),
    })
    .await;
    assert_eq!((sent.outcome, requests.len()), (Outcome::Status(200), 3));
    let (sent, requests) = attempt(|n, _| challenge(&format!("n{n}"), ", stale=true")).await;
    assert_eq!((sent.outcome, requests.len()), (Outcome::Status(401), 3));
    let stale = "the receiver calls every nonce stale that it gives (Digest)";
    assert_eq!(sent.error.as_deref(), Some(stale));
}

#[tokio::test]
async fn a_challenge_that_cannot_be_answered_fails_the_attempt() {
    for (header, why) in [
        (None, "no WWW-Authenticate header"),
        (Some("Basic realm=\"x\""), "asks for Basic, not for Digest"),
        (Some("Digest"), "no realm"),
        (Some("Digest realm=\"x"), "cannot be read"),
        (Some("Digest realm=x, nonce=y, algorithm=SHA3"), "\"SHA3\""),
        (Some("="), "cannot be read"),
    ] {
        let headers: Vec<_> = header
            .map(|header| ("www-authenticate", header.to_owned()))
            .into_iter()
            .collect();
        let (sent, requests) = attempt(move |_, _| Some((401, headers.clone()))).await;
        assert_eq!((sent.outcome, requests.len()), (Outcome::Status(401), 1));
        let error = sent.error.unwrap();
        assert!(error.contains(why), "{header:?}: {error}");
    }
}

#[tokio::test]
async fn other_methods_say_that_they_were_refused() {
    let basic = json!({ "method": "basic", "username": "pbx", "password": PASSWORD });
    let bearer = json!({ "method": "bearer", "token": PASSWORD });
    let none = json!({ "method": "none" });
    let wants = "the receiver wants credentials";
    for (authentication, asks, expected) in [
        (
            &basic,
            "Basic realm=x",
            "the receiver refused the credentials (Basic)".to_owned(),
        ),
        (
            &basic,
            "",
            "the receiver refused the credentials (Basic)".to_owned(),
        ),
        (
            &basic,
            "Digest realm=x, nonce=y",
            "the receiver refused the credentials (Basic); it asks for Digest".to_owned(),
        ),
        (
            &bearer,
            "Bearer",
            "the receiver refused the credentials (Bearer)".to_owned(),
        ),
        (
            &none,
            "Basic",
            format!("{wants} (Basic), and the webhook has none"),
        ),
        (&none, "", format!("{wants}, and the webhook has none")),
    ] {
        let headers = vec![("www-authenticate", asks.to_owned())];
        let receiver = Receiver::start(move |_, _| Some((401, headers.clone()))).await;
        let sender = Sender::new();
        let sent = sender
            .send(&sender.webhook(&receiver.url, authentication.clone()))
            .await;
        assert_eq!(sent.outcome, Outcome::Status(401));
        assert_eq!(sent.error, Some(expected), "{authentication} {asks}");
        assert_eq!(receiver.requests().len(), 1);
    }
}

/// The nonce of `Authentication-Info` is used next, from the beginning (RFC 7616 §3.5).
#[tokio::test]
async fn the_next_nonce_is_used() {
    let receiver = Receiver::start(|number, _| match number {
        0 => challenge("n0", ""),
        n => Some((
            200,
            vec![("authentication-info", format!("nextnonce=\"n{n}\""))],
        )),
    })
    .await;
    let sender = Sender::new();
    let webhook = webhook(&sender, &receiver);
    for _ in 0..3 {
        assert_eq!(sender.send(&webhook).await.outcome, Outcome::Status(200));
    }
    let requests = receiver.requests();
    let uses: Vec<_> = requests[1..]
        .iter()
        .map(|header| (part(header, "nonce"), part(header, "nc")))
        .collect();
    let first = "00000001";
    assert_eq!(uses, [("n0", first), ("n1", first), ("n2", first)]);
}

/// A server that was restarted, and does not say `stale`; and a webhook whose password was changed.
#[tokio::test]
async fn a_nonce_that_is_good_no_more_costs_one_request() {
    let good = Arc::new(Mutex::new("n0"));
    let current = good.clone();
    let receiver = Receiver::start(move |_, authorization| {
        let good = *current.lock();
        match authorization.contains(&format!("nonce=\"{good}\"")) {
            true => ok(),
            false => challenge(good, ""),
        }
    })
    .await;
    let sender = Sender::new();
    let webhook = webhook(&sender, &receiver);
    let deliver = async |webhook: &Webhook| {
        assert_eq!(sender.send(webhook).await.outcome, Outcome::Status(200));
        receiver.requests()
    };
    assert_eq!(deliver(&webhook).await.len(), 2);
    assert_eq!(deliver(&webhook).await.len(), 1);
    *good.lock() = "n1";
    assert_eq!(deliver(&webhook).await.len(), 2);
    assert_eq!(deliver(&webhook).await.len(), 1);
    // Changed credentials begin without the challenge that was kept for the others.
    let login = json!({ "method": "digest", "username": "pbx", "password": "another" });
    let changed = sender.change(&webhook, login);
    let requests = deliver(&changed).await;
    assert_eq!((requests.len(), requests[0].as_str()), (2, ""));
}

/// The time of an attempt is for both requests.
#[tokio::test]
async fn the_timeout_covers_the_challenge() {
    let receiver = Receiver::start(|number, _| match number {
        0 => challenge("a", ""),
        _ => None,
    })
    .await;
    let sender = Sender::with(&Config {
        timeout: Duration::from_millis(500),
        ..Config::default()
    });
    let sent = sender.send(&webhook(&sender, &receiver)).await;
    assert_eq!(sent.outcome, Outcome::Timeout);
    assert!(sent.took >= Duration::from_millis(490), "{:?}", sent.took);
}

/// Not even at the level at which libraries tell everything.
#[tokio::test]
async fn no_log_shows_what_authenticates() {
    let captured = Captured::start();
    let login = |method: &str| json!({ "method": method, "username": "pbx", "password": PASSWORD });
    let mut secrets = vec![PASSWORD.to_owned()];
    for authentication in [
        login("digest"),
        login("basic"),
        json!({ "method": "bearer", "token": PASSWORD }),
    ] {
        let receiver = Receiver::start(|_, _| challenge("a", "")).await;
        let sender = Sender::new();
        let webhook = sender.webhook(&receiver.url, authentication);
        let sent = sender.send(&webhook).await;
        let shown = format!("{sent:?} {webhook:?}");
        let last = receiver.requests().pop().unwrap();
        secrets.push(match last.starts_with("Digest") {
            true => part(&last, "response").to_owned(),
            false => last.split_once(' ').unwrap().1.to_owned(),
        });
        for secret in &secrets {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
    // The same login for a proxy, which refuses it.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sender = Sender::with(&Config {
        proxy: Some(format!("http://{}", proxy.local_addr().unwrap())),
        proxy_username: Some("pbx".to_owned()),
        proxy_password: Some(Secret::new(PASSWORD)),
        ..Config::default()
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = proxy.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    for url in ["http://crm.example.com/", "https://crm.example.com/"] {
        let sent = sender
            .send(&sender.webhook(url, json!({ "method": "none" })))
            .await;
        assert_eq!(sent.outcome, Outcome::Proxy, "{sent:?}");
        let shown = format!("{sent:?}");
        for secret in &secrets {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
    let logged = captured.text();
    for secret in secrets {
        assert!(!logged.contains(&secret), "{secret} is logged");
    }
}

/// The replies of curl to the same challenges, given its nonce and count, are ours. (Versions of curl
/// before 8.10 have another idea of SHA-512-256, which lighttpd proves.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_replies_the_same() {
    let programs = tokio::task::spawn_blocking(servers::prepare)
        .await
        .unwrap()
        .unwrap();
    for kind in [
        "",
        ", algorithm=MD5",
        ", algorithm=MD5-sess, opaque=\"o/=\"",
        ", algorithm=SHA-256",
        ", algorithm=SHA-256-sess",
    ] {
        let header = format!("Digest realm=\"a \\\"b\\\"\", qop=\"auth\", nonce=\"n/1==\"{kind}");
        let given = header.clone();
        let receiver = Receiver::start(move |number, _| match number {
            0 => Some((401, vec![("www-authenticate", given.clone())])),
            _ => ok(),
        })
        .await;
        let mut curl = programs.curl();
        curl.args([
            "--digest",
            "--user",
            &format!("pbx:{PASSWORD}"),
            "--data",
            "{}",
        ]);
        curl.arg(&receiver.url);
        let output = tokio::task::spawn_blocking(move || curl.output())
            .await
            .unwrap()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let theirs = receiver.requests().pop().unwrap();
        let login = Login {
            username: "pbx",
            password: PASSWORD,
        };
        let request = Request {
            method: "POST",
            uri: "/hook?x=1",
            body: b"{}",
        };
        let challenge = Challenge::strongest([header.as_bytes()]).unwrap();
        let ours = challenge.reply(login, request, part(&theirs, "cnonce"), 1);
        let ours = String::from_utf8(ours).unwrap();
        for name in ["response", "realm", "nonce", "uri", "nc", "qop"] {
            assert_eq!(
                part(&ours, name),
                part(&theirs, name),
                "{kind}: {ours}\n{theirs}"
            );
        }
    }
}
