//! TLS: which certificates are believed, which versions spoken.

use std::convert::Infallible;
use std::process::Stdio;

use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use ringback_core::verdict::Outcome;
use ringback_tests::certificates::{Authority, write};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::*;

pub(super) const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

/// A server with this certificate and key. It counts what it has answered over HTTP/2.
pub(super) async fn tls(
    (certificate, key): &(String, String),
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Authority>,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
            roots.add(root).unwrap();
            let verifier = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let newer = Arc::<AtomicUsize>::default();
    let counted = newer.clone();
    let (address, _) = serve(move |stream| {
        let (acceptor, counted) = (acceptor.clone(), counted.clone());
        async move {
            let stream = match acceptor.accept(stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut stream)) => {
                    // Closed with something unread, it would be reset, and the alert with it.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    return;
                }
            };
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let service = service_fn(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok::<_, Infallible>(hyper::Response::new(
                    Empty::<Bytes>::new(),
                )))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    (address, newer)
}

/// Settings that trust this authority besides.
pub(super) fn trusting(dir: &tempfile::TempDir, authority: &Authority) -> Config {
    Config {
        ca_file: Some(write(dir.path(), "ca.pem", authority.pem())),
        ..config()
    }
}

/// Names of a certificate, and nothing else about it.
pub(super) fn names(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

#[tokio::test]
async fn a_private_authority_is_trusted_once_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a deployment's own");
    let certificate = authority.issue("receiver");
    for versions in [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13],
        BOTH,
    ] {
        let (address, newer) = tls(&certificate, versions, None).await;
        let url = format!("https://localhost:{}/", address.port());
        let trusting = http(&trusting(&dir, &authority));
        for _ in 0..2 {
            let answer = sent(&trusting, &url).await;
            assert_eq!(answer.outcome, Outcome::Status(200), "{answer:?}");
        }
        assert_eq!(newer.load(Ordering::SeqCst), 2, "HTTP/2 is agreed on");
        let answer = sent(&http(&config()), &url).await;
        assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
    }
}

/// What is wrong with each, and what the attempt's error says of it.
#[tokio::test]
async fn certificates_that_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("trusted");
    let mut expired = names(&["localhost"]);
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = names(&["localhost"]);
    early.not_before = date_time_ymd(2090, 1, 1);
    early.not_after = date_time_ymd(2091, 1, 1);
    let key = KeyPair::generate().unwrap();
    let alone = names(&["localhost"]).self_signed(&key).unwrap();
    for (certificate, says) in [
        (authority.sign(expired), "expired"),
        (authority.sign(early), "not valid yet"),
        (
            authority.sign(names(&["crm.example.com"])),
            "not valid for name",
        ),
        (authority.sign(names(&[])), "not valid for name"),
        ((alone.pem(), key.serialize_pem()), "UnknownIssuer"),
        (Authority::new("another").issue("receiver"), "UnknownIssuer"),
    ] {
        let (address, newer) = tls(&certificate, BOTH, None).await;
        let http = http(&trusting(&dir, &authority));
        let answer = sent(&http, &format!("https://localhost:{}/", address.port())).await;
        assert_eq!(answer.outcome, Outcome::Tls, "{says}: {answer:?}");
        let error = answer.error.unwrap();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(newer.load(Ordering::SeqCst), 0, "{says}");
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_is_told_none() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("both sides");
    let certificate = authority.issue("receiver");
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let (address, newer) = tls(&certificate, versions, Some(&authority)).await;
        let http = http(&trusting(&dir, &authority));
        let answer = sent(&http, &format!("https://localhost:{}/", address.port())).await;
        assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
        assert_eq!(newer.load(Ordering::SeqCst), 0);
    }
}

/// TLS 1.1: as a server says it by its alert, and as OpenSSL does where it still can.
#[tokio::test]
async fn old_versions_are_not_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("old");
    let trusting = http(&trusting(&dir, &authority));
    let (address, _) = serve(|mut stream| async move {
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello).await;
        // Alert, TLS 1.1: fatal, protocol_version (RFC 4346 §7.2).
        let _ = stream.write_all(&[21, 3, 2, 0, 2, 2, 70]).await;
        let _ = stream.read(&mut hello).await;
    })
    .await;
    let answer = sent(&trusting, &format!("https://localhost:{}/", address.port())).await;
    assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
    assert!(answer.error.unwrap().contains("ProtocolVersion"));

    let (certificate, key) = authority.issue("receiver");
    let (certificate, key) = (
        write(dir.path(), "old.pem", &certificate),
        write(dir.path(), "old.key", &key),
    );
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let server = tokio::process::Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-tls1_1",
            "-cipher",
            "DEFAULT@SECLEVEL=0",
        ])
        .args(["-accept", &format!("127.0.0.1:{port}"), "-cert"])
        .arg(certificate)
        .arg("-key")
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut server) = server else {
        return;
    };
    loop {
        let answer = sent(&trusting, &format!("https://localhost:{port}/")).await;
        match answer.outcome {
            // Not listening yet; or it ended, because it knows nothing as old as this.
            Outcome::Refused if server.try_wait().unwrap().is_none() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Outcome::Refused => break,
            outcome => {
                assert_eq!(outcome, Outcome::Tls, "{answer:?}");
                break;
            }
        }
    }
}

/// Something else on the port of a URL, and the other way round.
#[tokio::test]
async fn plain_and_secret_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("both");
    let trusting = http(&trusting(&dir, &authority));
    let (plain, _) = serve(|mut stream| async move {
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let answer = sent(&trusting, &format!("https://{plain}/")).await;
    assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
    let (secret, newer) = tls(&authority.issue("receiver"), BOTH, None).await;
    let answer = sent(&trusting, &format!("http://{secret}/")).await;
    let failed = matches!(answer.outcome, Outcome::Protocol | Outcome::Reset);
    assert!(failed, "{answer:?}");
    assert_eq!(newer.load(Ordering::SeqCst), 0);
}

#[test]
fn a_bundle_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (path, says) in [
        (dir.path().join("none.pem"), "No such file"),
        (write(dir.path(), "empty.pem", ""), "no PEM certificate"),
        (write(dir.path(), "text.pem", "hello"), "no PEM certificate"),
    ] {
        let config = Config {
            ca_file: Some(path),
            ..config()
        };
        let error = Http::new(&config, keys()).err().unwrap();
        assert!(
            error.contains("dispatcher.ca_file") && error.contains(says),
            "{error}"
        );
    }
}

/// A webhook's own setting: its authority alone is believed, its certificate shown, and nobody else
/// travels on connections that were made with it.
#[tokio::test]
async fn a_webhook_has_authorities_and_a_certificate_of_its_own() {
    let (deployment, private) = (Authority::new("deployment"), Authority::new("private"));
    let dir = tempfile::tempdir().unwrap();
    let http = http(&trusting(&dir, &deployment));
    let (certificate, key) = private.issue("ringback");
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let (asking, newer) = tls(&private.issue("receiver"), versions, Some(&private)).await;
        let url = format!("https://localhost:{}/", asking.port());
        let plain = webhook(&url, json!({}));
        let key = sealed(plain.id, &key);
        let body = Bytes::from_static(b"{}");
        let full = json!({ "ca": private.pem(), "certificate": certificate, "key": key });
        let mutual = webhook(&url, json!({ "tls": full }));
        let answer = post(&http, &mutual, body.clone()).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Status(200), "{answer:?}");
        assert_eq!(newer.load(Ordering::SeqCst), 1);
        // The same host, where a connection is open by now.
        for tls in [Value::Null, json!({ "ca": private.pem() })] {
            let other = webhook(&url, json!({ "tls": tls }));
            let answer = post(&http, &other, body.clone()).await.unwrap();
            assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
        }
        assert_eq!(newer.load(Ordering::SeqCst), 1);
        // Its own authority, not the deployment's as well.
        let (usual, _) = tls(&deployment.issue("receiver"), versions, None).await;
        let url = format!("https://localhost:{}/", usual.port());
        assert_eq!(sent(&http, &url).await.outcome, Outcome::Status(200));
        let strict = webhook(&url, json!({ "tls": { "ca": private.pem() } }));
        let answer = post(&http, &strict, body).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Tls, "{answer:?}");
    }
}

fn sealed(webhook: uuid::Uuid, key: &str) -> Value {
    let secret = ringback_core::secret::Secret::new(key);
    let sealed = keys().seal(&secret, webhook, "tls_key", [7; 24]).unwrap();
    serde_json::to_value(sealed).unwrap()
}

/// What cannot be used is said, and nothing of the key.
#[tokio::test]
async fn a_setting_that_cannot_be_used_is_not_sent_with() {
    let authority = Authority::new("any");
    let ((certificate, key), (_, other)) = (authority.issue("a"), authority.issue("b"));
    let http = http(&config());
    let id = webhook("https://localhost/", json!({})).id;
    for tls in [
        json!({ "ca": "hello" }),
        json!({ "ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }),
        json!({ "certificate": certificate, "key": sealed(id, &other) }),
        json!({ "certificate": "hello", "key": sealed(id, &key) }),
        json!({ "certificate": certificate, "key": sealed(id, "hunter2") }),
        json!({ "certificate": certificate, "key": sealed(uuid::Uuid::nil(), &key) }),
    ] {
        let webhook = webhook("https://localhost:40001/", json!({ "tls": tls }));
        let error = post(&http, &webhook, Bytes::from_static(b"{}")).await;
        let error = error.unwrap_err().to_string();
        assert!(error.to_lowercase().contains("tls"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
