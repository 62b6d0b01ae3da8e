//! TLS as clients that others wrote see it, while certificates come and go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Router, routing::get};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use ringback_core::time::{Clock, Timestamp};
use ringback_server::{Serving, Tls, TlsConfig, Unusable, serve};
use ringback_telemetry::Metrics;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

fn clock() -> Clock {
    Clock::new(
        || {
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
            Timestamp::EPOCH + since
        },
        || Duration::ZERO,
    )
}

/// A certificate for localhost that vouches for itself, valid until a year, and its key.
fn certificate(until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Both files are replaced as a whole, the key first.
fn put(dir: &Path, (certificate, key): &(String, String)) {
    for (name, text) in [("key.pem", key), ("certificate.pem", certificate)] {
        let beside = dir.join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, dir.join(name)).unwrap();
    }
}

fn config(dir: &Path) -> TlsConfig {
    TlsConfig {
        certificate_file: Some(dir.join("certificate.pem")),
        key_file: Some(dir.join("key.pem")),
    }
}

struct Rig {
    dir: tempfile::TempDir,
    address: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Rig {
    async fn new(first: &(String, String)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), first);
        let metrics = Metrics::new();
        let tls = Tls::open("admin", &config(dir.path()), clock(), metrics.clone()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
            format!("hello {}\n", peer.ip())
        };
        let router = Router::new().route("/", get(peer));
        let shutdown = CancellationToken::new();
        let serving = Serving {
            patience: Duration::from_secs(30),
            tls,
        };
        tokio::spawn(serve(listener, router, serving, shutdown.clone()));
        Self {
            dir,
            address,
            metrics,
            shutdown,
        }
    }

    /// What curl gets, when it trusts this certificate alone.
    async fn curl(&self, trusted: &(String, String)) -> Result<String, i32> {
        let path = self.dir.path().join("trusted.pem");
        std::fs::write(&path, &trusted.0).unwrap();
        let port = self.address.port();
        let answer = Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--max-time", "30", "--cacert"])
            .arg(path)
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .arg(format!("https://localhost:{port}/"))
            .output()
            .await
            .expect("curl is needed: apt-get install -y --no-install-recommends curl");
        match answer.status.success() {
            true => Ok(String::from_utf8(answer.stdout).unwrap()),
            false => Err(answer.status.code().unwrap()),
        }
    }

    /// Waits until curl is shown this certificate.
    async fn until(&self, trusted: &(String, String)) {
        while self.curl(trusted).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the metrics have this line.
    async fn told(&self, line: &str) {
        while !self.metrics.expose().lines().any(|told| told == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A connection that stays open.
async fn connect(rig: &Rig, trusted: &(String, String)) -> impl AsyncFnMut() -> String {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(trusted.0.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    async move || {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello 127.0.0.1\n") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(answer).unwrap()
    }
}

/// A new certificate is shown to new connections, and open ones go on. One that cannot be used is said
/// to be so, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_open_connections() {
    let (first, second) = (certificate(2090), certificate(2091));
    let rig = Rig::new(&first).await;
    rig.told("ringback_tls_certificate_expiry_seconds{server=\"admin\"} 3786912000")
        .await;
    assert_eq!(rig.curl(&first).await.as_deref(), Ok("hello 127.0.0.1\n"));
    // 60: the server's certificate is not to be trusted.
    assert_eq!(rig.curl(&second).await, Err(60));
    let mut open = connect(&rig, &first).await;
    assert!(open().await.starts_with("HTTP/1.1 200"));

    put(rig.dir.path(), &second);
    rig.until(&second).await;
    assert_eq!(rig.curl(&first).await, Err(60));
    assert!(open().await.starts_with("HTTP/1.1 200"));
    rig.told("ringback_tls_certificate_expiry_seconds{server=\"admin\"} 3818448000")
        .await;

    let failed = |count: u32| {
        format!("ringback_tls_reloads_total{{result=\"failed\",server=\"admin\"}} {count}")
    };
    let before = (0..100).find(|count| rig.metrics.expose().contains(&failed(*count)));
    let before = before.unwrap_or(0);
    std::fs::write(rig.dir.path().join("certificate.pem"), "no certificate").unwrap();
    rig.told(&failed(before + 1)).await;
    assert_eq!(rig.curl(&second).await.as_deref(), Ok("hello 127.0.0.1\n"));
    assert!(open().await.starts_with("HTTP/1.1 200"));
    put(rig.dir.path(), &first);
    rig.until(&first).await;
}

/// What openssl makes of it: TLS 1.3 and 1.2, nothing older.
#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_not_spoken() {
    let rig = Rig::new(&certificate(2090)).await;
    for (version, spoken) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-connect", &rig.address.to_string(), version])
            .args(["-servername", "localhost", "-brief"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is needed: apt-get install -y --no-install-recommends openssl");
        let mut said = String::new();
        let mut told = openssl.stderr.take().unwrap();
        told.read_to_string(&mut said).await.unwrap();
        openssl.wait().await.unwrap();
        assert_eq!(
            said.contains("CONNECTION ESTABLISHED"),
            spoken,
            "{version}: {said}"
        );
    }
}

#[test]
fn what_cannot_be_used_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let opened = Tls::open("admin", &config(dir.path()), clock(), Metrics::new());
        opened.map(|_| ()).unwrap_err()
    };
    assert!(matches!(open(), Unusable::File { .. }));
    let (first, second) = (certificate(2090), certificate(2091));
    put(dir.path(), &(first.0.clone(), "no key".to_owned()));
    assert!(matches!(open(), Unusable::NoKey(_)));
    put(dir.path(), &(first.1.clone(), first.1.clone()));
    assert!(matches!(open(), Unusable::NoCertificate(_)));
    put(dir.path(), &(first.0.clone(), second.1));
    let error = open();
    assert!(matches!(error, Unusable::Refused { .. }), "{error}");
    put(dir.path(), &certificate(2021));
    let error = open().to_string();
    assert!(error.contains("expired on 2021-01-01"), "{error}");
    let none = Tls::open("admin", &TlsConfig::default(), clock(), Metrics::new());
    assert!(none.unwrap().is_none());
}
