//! A server's certificate and key, looked into before they are used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_core::time::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};

/// Later than any certificate is valid.
const FAR_FUTURE: Duration = Duration::from_secs(300_000_000_000);

/// A certificate cannot be used. Says nothing of the key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("reading {path}: {reason}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// There is no certificate in it, or it is damaged.
    #[error("{0} is no PEM of a certificate and its chain")]
    NoCertificate(PathBuf),
    /// There is no private key in it, or it is damaged.
    #[error("{0} is no PEM of a private key")]
    NoKey(PathBuf),
    /// The two cannot be used together, or at all.
    #[error("the certificate of {path} cannot be used: {reason}")]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is not valid any more.
    #[error("the certificate of {path} expired on {on}; put a new one there")]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        on: Timestamp,
    },
}

/// The two files as they were read, to see that they are others now.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Blocking: reads both.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, Unusable> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| Unusable::File {
                path: path.to_owned(),
                reason: error.to_string(),
            })
        };
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?,
        })
    }

    /// The certificate with its key, and when it expires.
    pub(crate) fn open(
        &self,
        certificate: &Path,
        key: &Path,
        now: Timestamp,
    ) -> Result<(CertifiedKey, Timestamp), Unusable> {
        let refused = |error: Error| Unusable::Refused {
            path: certificate.to_owned(),
            reason: error.to_string(),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        // Why is not told: it may repeat a line, and the wrong file may hold a key.
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| Unusable::NoCertificate(certificate.to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| Unusable::NoKey(key.to_owned()))?;
        let until = expiry(&chain).map_err(refused)?;
        if until <= now {
            let path = certificate.to_owned();
            return Err(Unusable::Expired { path, on: until });
        }
        let opened = CertifiedKey::from_der(chain, key, &default_provider()).map_err(refused)?;
        Ok((opened, until))
    }
}

/// When the first of a chain expires.
fn expiry(chain: &[CertificateDer<'_>]) -> Result<Timestamp, Error> {
    let Some((first, others)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    let parsed = ParsedCertificate::try_from(first)?;
    // Without authorities it never succeeds; the times are checked before these are looked for.
    let nobody = RootCertStore::empty();
    let later = UnixTime::since_unix_epoch(FAR_FUTURE);
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, others, later, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Ok(Timestamp::EPOCH + Duration::from_secs(not_after.as_secs()))
        }
        Err(error) => Err(error),
        Ok(()) => Err(Error::General("it does not say when it expires".to_owned())),
    }
}
