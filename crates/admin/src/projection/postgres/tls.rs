//! TLS to PostgreSQL.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::projection::SslMode;

/// What servers with TLS from the first byte insist on.
const PROTOCOL: &[u8] = b"postgresql";

/// How the way to the server is protected.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    mode: SslMode,
    ca_file: Option<PathBuf>,
}

impl Tls {
    pub(crate) fn new(mode: SslMode, ca_file: Option<PathBuf>) -> Self {
        Self { mode, ca_file }
    }

    pub(super) fn mode(&self) -> postgres::config::SslMode {
        match self.mode {
            SslMode::Disable => postgres::config::SslMode::Disable,
            SslMode::Require | SslMode::VerifyFull => postgres::config::SslMode::Require,
        }
    }

    /// For one connection, so that authorities that were replaced are known.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("preparing TLS: {error}"))?;
        let builder = match (self.mode, &self.ca_file) {
            (SslMode::Disable | SslMode::Require, _) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(algorithms))),
            (SslMode::VerifyFull, Some(_)) => builder.with_root_certificates(self.authorities()?),
            (SslMode::VerifyFull, None) => builder.with_platform_verifier().map_err(|error| {
                format!(
                    "reading the system's authorities: {error}; name those of the server by \
                     admin.projection.ca_file"
                )
            })?,
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    fn authorities(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca_file else {
            return Ok(roots);
        };
        let doing = format!("reading admin.projection.ca_file {}", path.display());
        let pem = std::fs::read(path).map_err(|error| format!("{doing}: {error}"))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("{doing}: {error}"))?;
            let added = roots.add(certificate);
            added.map_err(|error| format!("{doing}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("{doing}: it has no certificate in PEM"));
        }
        Ok(roots)
    }
}

/// What to do when TLS is why there is no connection.
pub(super) fn advice(error: &postgres::Error) -> &'static str {
    let Some(cause) = error.source() else {
        return "";
    };
    if cause.to_string() == "server does not support TLS" {
        return ": turn it on there (ssl = on), or set admin.projection.sslmode = \"disable\" if the way \
                to it is safe";
    }
    let told = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let Some(Error::InvalidCertificate(problem)) = told.and_then(|told| told.downcast_ref()) else {
        return "";
    };
    match problem {
        CertificateError::UnknownIssuer => {
            ": name its authority's certificate by admin.projection.ca_file, and see that it is the \
             right server"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ": use a name of its certificate in admin.projection.url, or give it one for this name"
        }
        _ => ": give the server a certificate that is valid",
    }
}

/// Takes any certificate, of whoever has its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
