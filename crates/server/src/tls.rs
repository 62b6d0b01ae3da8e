//! TLS of a server: its certificate, and another one when the files change.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringback_core::time::{Clock, Timestamp};
use ringback_telemetry::{Counter, Gauge, Metrics};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use crate::certificate::{Files, Unusable};

/// How often the files are looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);

/// `tls` of a server in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate of this server, its chain behind it; with `key_file` it speaks
    /// TLS 1.2 and 1.3, and nothing in clear. Both files are looked at every 2 s and at SIGHUP:
    /// another certificate is used for new connections, and one that cannot be used leaves the one
    /// of before (a warning, and `ringback_tls_reloads_total{result="failed"}`).
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Both files, when there shall be TLS.
    fn files(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.certificate_file.as_ref().zip(self.key_file.as_ref())
    }

    /// Whether there shall be TLS.
    pub fn is_on(&self) -> bool {
        self.files().is_some()
    }

    /// What cannot work, as `key: problem`. The files are looked at where they are read.
    pub fn problems(&self) -> Vec<String> {
        let missing = match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => "key_file",
            (None, Some(_)) => "certificate_file",
            _ => return Vec::new(),
        };
        vec![format!(
            "{missing}: TLS needs certificate_file and key_file"
        )]
    }
}

/// TLS of a server. Clones share the certificate.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    /// Which server, for metrics and messages.
    server: &'static str,
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    /// As they were read last, used or not.
    seen: Mutex<Option<Files>>,
    clock: Clock,
    metrics: Metrics,
    acceptor: TlsAcceptor,
}

/// The certificate that is shown now.
struct Current(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl Tls {
    /// Blocking: reads the files. `None` when there shall be no TLS. What cannot be used at the start
    /// is an error: nothing is served in clear instead.
    pub fn open(
        server: &'static str,
        config: &TlsConfig,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Option<Self>, Unusable> {
        let Some((certificate, key)) = config.files() else {
            return Ok(None);
        };
        let files = Files::read(certificate, key)?;
        let (opened, until) = files.open(certificate, key, clock.now())?;
        let current = Arc::new(Current(RwLock::new(Arc::new(opened))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let refused = |error: rustls::Error| Unusable::Refused {
            path: certificate.clone(),
            reason: error.to_string(),
        };
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = Self(Arc::new(Inner {
            server,
            certificate: certificate.clone(),
            key: key.clone(),
            current,
            seen: Mutex::new(Some(files)),
            clock,
            metrics,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
        }));
        tls.tell(until);
        Ok(Some(tls))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.acceptor.clone()
    }

    fn tell(&self, until: Timestamp) {
        let Inner {
            server, metrics, ..
        } = &*self.0;
        #[allow(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
        let seconds = until.since(Timestamp::EPOCH).as_secs() as f64;
        metrics.set(Gauge::TlsExpiry, &[server], seconds);
        tracing::info!(server, %until, "TLS with the certificate that is valid until then");
    }

    /// Looks at the files every two seconds, and at SIGHUP, for good.
    pub(crate) async fn watch(&self) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP reloads no certificate"))
            .ok();
        let mut every = tokio::time::interval(LOOKED_AT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let again = tokio::select! {
                _ = every.tick() => false,
                _ = asked => true,
            };
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || tls.look(again)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at the certificate's files");
            }
        }
    }

    /// Blocking: uses the files if they are others than before, or `again`. Those that cannot be used
    /// change nothing, and are said once.
    fn look(&self, again: bool) {
        let Inner {
            server,
            certificate,
            key,
            ..
        } = &*self.0;
        let files = Files::read(certificate, key);
        let now = self.0.clock.now();
        {
            let mut seen = self.0.seen.lock();
            let same = *seen == files.as_ref().ok().cloned();
            if same && !again {
                return;
            }
            *seen = files.as_ref().ok().cloned();
        }
        let opened = files.and_then(|files| files.open(certificate, key, now));
        let result = match opened {
            Ok((opened, until)) => {
                *self.0.current.0.write() = Arc::new(opened);
                self.tell(until);
                "ok"
            }
            Err(error) => {
                // Between the two files of a replacement this is seen for a moment.
                tracing::warn!(server, %error, "going on with the certificate of before");
                "failed"
            }
        };
        self.0.metrics.inc(Counter::TlsReloads, &[server, result]);
    }
}
