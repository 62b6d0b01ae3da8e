//! A running receiver, for `ringback listen` and to be embedded in a demo or a test.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request as HttpRequest, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use ringback_core::signature::Refused;
use ringback_core::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::listen::behaviour::{Asked, Behaviour};

/// An event is at most 256 KiB; what is written around it and a careless sender fit as well.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Ids that are told apart; later ones are counted, but not known again.
const IDS_MAX: usize = 1_000_000;
/// How long a receiver that stops waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);

/// The id of a delivery's event, the same in every attempt (Standard Webhooks).
pub(super) const ID_HEADER: &str = "webhook-id";

/// A request, and how it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// From 0, in order of arrival.
    pub(crate) number: u64,
    /// When its body had arrived.
    pub(crate) at: Timestamp,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// As they came; `authorization` and others may be secret.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) status: StatusCode,
    /// Its event was seen before.
    pub(crate) duplicate: bool,
    /// Whether its signature is right, if it is asked for.
    pub(crate) signature: Option<Result<(), Refused>>,
}

/// What a receiver got so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Received {
    /// All requests.
    pub(crate) requests: u64,
    /// Requests answered 200.
    pub(crate) acknowledged: u64,
    /// Distinct events, by `webhook-id`.
    pub(crate) distinct: u64,
    /// Distinct events of which a request was answered 200.
    pub(crate) delivered: u64,
    /// Requests for an event that was seen before: retries and repetitions.
    pub(crate) repeated: u64,
    /// Requests answered 200 for an event that had been answered 200 before.
    pub(crate) duplicates: u64,
}

#[derive(Default)]
struct Books {
    received: Received,
    behaviour: Arc<Behaviour>,
    /// Requests since the behaviour was set.
    number: u64,
    /// Hashes of ids: a fixed few bytes each, whatever a sender calls its events.
    seen: HashSet<u64>,
    delivered: HashSet<u64>,
}

struct Shared {
    books: Mutex<Books>,
    hasher: RandomState,
    watcher: mpsc::Sender<Request>,
}

/// A running receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Receiver {
    /// Serves this listener and hands every request over before it is answered. When the channel is
    /// full, answers wait; when nobody reads from it any more, they do not.
    pub(crate) fn watched(
        listener: TcpListener,
        behaviour: Behaviour,
        watcher: mpsc::Sender<Request>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let books = Books {
            behaviour: Arc::new(behaviour),
            ..Books::default()
        };
        let shared = Arc::new(Shared {
            books: Mutex::new(books),
            hasher: RandomState::new(),
            watcher,
        });
        let router = Router::new().fallback(receive).with_state(shared.clone());
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        Ok(Self {
            address,
            shared,
            shutdown,
            server,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves like this from the next request on.
    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        let mut books = self.shared.books.lock();
        books.behaviour = Arc::new(behaviour);
        books.number = 0;
    }

    /// What it got so far.
    pub(crate) fn received(&self) -> Received {
        self.shared.books.lock().received
    }

    /// Lets answers under way go out, for a moment, and says what it got.
    pub(crate) async fn stop(mut self) -> Received {
        self.shutdown.cancel();
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.received()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: HttpRequest<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let id = parts
        .headers
        .get(ID_HEADER)
        .map(|id| shared.hasher.hash_one(id.as_bytes()));
    let at = ringback_log::system_clock().now();
    let verifying = shared.books.lock().behaviour.clone();
    let signature = verifying.verify(&parts.headers, &body, at);
    let authorized = verifying.is_authorized(&Asked {
        authorization: parts.headers.get(header::AUTHORIZATION),
        method: parts.method.as_str(),
        target: parts.uri.path_and_query().map_or("", |uri| uri.as_str()),
        body: &body,
    });
    let (number, behaviour, answer, duplicate) = {
        let mut books = shared.books.lock();
        let behaviour = books.behaviour.clone();
        let answer = match authorized && !matches!(signature, Some(Err(_))) {
            true => behaviour.answer(books.number),
            false => behaviour.unauthorized(),
        };
        // Who may not ask is none of those that are chosen.
        books.number += u64::from(authorized);
        let number = books.received.requests;
        let duplicate = books.enter(id, answer.status);
        (number, behaviour, answer, duplicate)
    };
    let request = Request {
        number,
        at,
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
        status: answer.status,
        duplicate,
        signature,
    };
    // Nobody looks any more: it is answered all the same.
    let _ = shared.watcher.send(request).await;
    if !answer.after.is_zero() {
        tokio::time::sleep(answer.after).await;
    }
    let mut response = answer.status.into_response();
    if answer.status == StatusCode::UNAUTHORIZED
        && let Some(credentials) = &behaviour.credentials
    {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, credentials.challenge.clone());
    }
    response
        .headers_mut()
        .extend(behaviour.headers.iter().cloned());
    response
}

impl Books {
    /// Counts a request; whether its event was seen before.
    fn enter(&mut self, id: Option<u64>, status: StatusCode) -> bool {
        let acknowledged = status == StatusCode::OK;
        let received = &mut self.received;
        received.requests += 1;
        received.acknowledged += u64::from(acknowledged);
        let Some(id) = id else { return false };
        let known = |ids: &mut HashSet<u64>| match ids.len() < IDS_MAX {
            true => !ids.insert(id),
            false => ids.contains(&id),
        };
        let repeated = known(&mut self.seen);
        match repeated {
            true => received.repeated += 1,
            false => received.distinct += 1,
        }
        if acknowledged {
            match known(&mut self.delivered) {
                true => received.duplicates += 1,
                false => received.delivered += 1,
            }
        }
        repeated
    }
}

#[cfg(test)]
mod tests {
    use ringback_core::secret::Secret;
    use ringback_core::signature::{Signer, Verifier};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::listen::behaviour::Credentials;

    /// Sends a request and returns the head of the answer.
    async fn post(to: &Receiver, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(to.address()).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST /cdr HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.to_lowercase()
    }

    async fn unwatched(behaviour: Behaviour) -> Receiver {
        let (sender, _) = mpsc::channel(1);
        Receiver::watched(listener().await, behaviour, sender).unwrap()
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn keeps_books_and_changes_its_behaviour() {
        let fail = Behaviour {
            status: 503,
            first: Some(1),
            ..Behaviour::default()
        };
        let receiver = unwatched(fail.clone()).await;
        for (id, status) in [("a", 503), ("a", 200), ("b", 200), ("a", 200)] {
            let answer = post(&receiver, &format!("webhook-id: {id}\r\n"), "{}").await;
            assert!(
                answer.starts_with(&format!("http/1.1 {status} ")),
                "{answer}"
            );
        }
        let expected = Received {
            requests: 4,
            acknowledged: 3,
            distinct: 2,
            delivered: 2,
            repeated: 2,
            duplicates: 1,
        };
        assert_eq!(receiver.received(), expected);

        receiver.set_behaviour(fail);
        assert!(post(&receiver, "", "").await.starts_with("http/1.1 503 "));
        assert_eq!(
            receiver.stop().await,
            Received {
                requests: 5,
                ..expected
            }
        );
    }

    #[tokio::test]
    async fn signatures_are_verified_when_a_secret_is_given() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let verifier = Some(Verifier::read(&secret).unwrap());
        let behaviour = Behaviour {
            verifier,
            ..Behaviour::default()
        };
        let (sender, mut requests) = mpsc::channel(1);
        let receiver = Receiver::watched(listener().await, behaviour, sender).unwrap();
        let now = ringback_log::system_clock().now().as_secs();
        let signature = Signer::read(&secret).unwrap().sign("e1", now, b"{}");
        let headers = format!(
            "webhook-id: e1\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n"
        );
        for (headers, body, status, said) in [
            (headers.as_str(), "{}", 200, Ok(())),
            (headers.as_str(), "{ }", 401, Err(Refused::Signature)),
            ("webhook-id: e1\r\n", "{}", 401, Err(Refused::Missing)),
        ] {
            let answer = post(&receiver, headers, body).await;
            let expected = format!("http/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{answer}");
            assert_eq!(requests.recv().await.unwrap().signature, Some(said));
        }
        receiver.set_behaviour(Behaviour::default());
        assert!(post(&receiver, "", "{}").await.starts_with("http/1.1 200 "));
        assert_eq!(requests.recv().await.unwrap().signature, None);
    }

    #[tokio::test]
    async fn shows_requests_before_they_are_answered() {
        let (sender, mut requests) = mpsc::channel(1);
        let headers = vec![(header::RETRY_AFTER, header::HeaderValue::from_static("30"))];
        let credentials = Some(Credentials::bearer(&Secret::new("t")));
        let behaviour = Behaviour {
            headers,
            credentials,
            ..Behaviour::default()
        };
        let receiver = Receiver::watched(listener().await, behaviour, sender).unwrap();

        let answer = post(&receiver, "authorization: Bearer t\r\n", "x").await;
        assert!(
            answer.starts_with("http/1.1 200 ") && answer.contains("retry-after: 30"),
            "{answer}"
        );
        let shown = requests.recv().await.unwrap();
        assert_eq!(
            (shown.number, &shown.body[..], shown.uri.path()),
            (0, &b"x"[..], "/cdr")
        );

        let answer = post(&receiver, "authorization: Bearer u\r\n", "x").await;
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        assert!(answer.contains("www-authenticate: bearer"), "{answer}");
        assert_eq!(
            requests.recv().await.unwrap().status,
            StatusCode::UNAUTHORIZED
        );

        // Nobody looks any more.
        drop(requests);
        assert!(post(&receiver, "", "").await.starts_with("http/1.1 401 "));
        assert_eq!(receiver.stop().await.requests, 3);
    }

    #[tokio::test]
    async fn a_body_beyond_the_cap_is_refused() {
        let receiver = unwatched(Behaviour::default()).await;
        let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            BODY_BYTES_MAX + 1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The refusal may come before all is written.
        let _ = stream.write_all(&vec![b'x'; BODY_BYTES_MAX + 1]).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        assert_eq!(receiver.received().requests, 0);
    }
}
