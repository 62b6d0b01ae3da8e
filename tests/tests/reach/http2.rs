//! Answers over HTTP/2 that are none: each ends in bounded time with a reason.

use std::convert::Infallible;
use std::io;
use std::time::Instant;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringback_core::verdict::Outcome;
use ringback_tests::certificates::Authority;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::tls::trusting;
use super::*;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = hyper::Response<Body>;

fn empty() -> Body {
    Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body of these pieces, one every 20 ms, for ever; with `breaks` it fails after the first.
fn endless(piece: &'static [u8], breaks: bool) -> Body {
    let pieces = futures_util::stream::unfold(0, move |number| async move {
        if number > 0 && piece.len() < 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let next = match breaks && number > 0 {
            true => Err(io::Error::other("broken off")),
            false => Ok(Frame::data(Bytes::from_static(piece))),
        };
        Some((next, number + 1))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A server that answers each request with this, and with nothing where there is none.
async fn answering(
    authority: &Authority,
    answer: impl Fn() -> Option<Answer> + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (certificate, key) = authority.issue("receiver");
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |_| {
                let answer = answer().ok_or_else(|| io::Error::other("no answer"));
                std::future::ready(answer)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

async fn outcome(
    authority: &Authority,
    config: &Config,
    answer: impl Fn() -> Option<Answer> + Clone + Send + Sync + 'static,
) -> Sent {
    let (address, _) = answering(authority, answer).await;
    let url = format!("https://localhost:{}/", address.port());
    sent(&http(config), &url).await
}

#[tokio::test]
async fn streams_that_end_early_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("receivers");
    let config = trusting(&dir, &authority);
    let reset = outcome(&authority, &config, || None).await;
    let broken = outcome(&authority, &config, || {
        Some(Answer::new(endless(b"abc", true)))
    })
    .await;
    for (what, sent) in [("reset", reset), ("half a body", broken)] {
        let failed = matches!(sent.outcome, Outcome::Reset | Outcome::Protocol);
        assert!(failed, "{what}: {sent:?}");
        assert!(sent.error.is_some_and(|text| text.len() > 5), "{what}");
    }
}

#[tokio::test]
async fn a_header_bomb_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("receivers");
    let sent = outcome(&authority, &trusting(&dir, &authority), || {
        let mut answer = Answer::new(empty());
        for number in 0..100 {
            let name = format!("x-{number}")
                .parse::<hyper::header::HeaderName>()
                .unwrap();
            answer
                .headers_mut()
                .insert(name, "a".repeat(10_000).parse().unwrap());
        }
        Some(answer)
    })
    .await;
    assert_eq!(sent.outcome, Outcome::Protocol, "{sent:?}");
    assert!(sent.error.is_some());
}

/// A long body costs its stream, not the connection and what else is on it.
#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("receivers");
    let (address, connections) = answering(&authority, || {
        Some(Answer::new(endless(&[b'a'; 16_384], false)))
    })
    .await;
    let http = http(&trusting(&dir, &authority));
    let url = format!("https://localhost:{}/", address.port());
    for _ in 0..3 {
        let sent = sent(&http, &url).await;
        assert_eq!(sent.outcome, Outcome::Status(200), "{sent:?}");
        assert_eq!(sent.response.unwrap().len(), 4096);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn dribbling_ends_with_the_requests_time() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("receivers");
    let hurried = Config {
        timeout: Duration::from_secs(1),
        ..trusting(&dir, &authority)
    };
    let began = Instant::now();
    let sent = outcome(&authority, &hurried, || {
        Some(Answer::new(endless(b"a", false)))
    })
    .await;
    assert_eq!(sent.outcome, Outcome::Timeout, "{sent:?}");
    assert!(sent.error.is_some() && began.elapsed() >= hurried.timeout);
}
