//! The HTTP client of the command line's tools.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Certificate;
use rustls::{CertificateError, Error};
use url::Url;

use crate::failure::Failure;

/// Whose certificates are trusted.
#[derive(Args, Clone, Default)]
pub(crate) struct Trust {
    /// PEM file of the only authorities that the server's certificate may come from [default: those of
    /// the system]
    #[arg(long, env = "RINGBACK_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A client for this machine and the operator's own, which are never reached through a proxy. With
/// authorities, only their certificates are trusted.
pub(crate) fn direct(authorities: Option<Vec<Certificate>>) -> Result<reqwest::Client, Failure> {
    choose_cryptography();
    let mut builder = reqwest::Client::builder().no_proxy();
    if let Some(authorities) = authorities {
        builder = builder.tls_certs_only(authorities);
    }
    builder
        .build()
        .map_err(|error| Failure::new(format!("making the HTTP client: {}", describe(&error))))
}

/// The authorities in a PEM file, or what is wrong with it.
pub(crate) fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        Ok(_) => Err("there is no certificate in PEM in it".to_owned()),
        // The wrong file may hold a key: nothing of it is repeated.
        Err(_) => Err("a certificate in it is damaged".to_owned()),
    }
}

impl Trust {
    /// A client that trusts them.
    pub(crate) fn client(&self) -> Result<reqwest::Client, Failure> {
        // As an environment has it that means to set nothing.
        let Some(path) = self.ca.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return direct(None);
        };
        let authorities = authorities(path).map_err(|reason| {
            let path = path.display();
            Failure::usage(format!(
                "the authorities in {path} (--ca, RINGBACK_CA) cannot be used: {reason}"
            ))
        })?;
        direct(Some(authorities))
    }
}

/// A client that trusts whom the system trusts.
pub(crate) fn client() -> Result<reqwest::Client, Failure> {
    Trust::default().client()
}

/// Why a server's certificate is not trusted, and what to do about it.
pub(crate) fn distrust(error: &reqwest::Error) -> Option<&'static str> {
    let Some(Error::InvalidCertificate(reason)) = tls_error(error) else {
        return None;
    };
    Some(match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not from an authority that is trusted here; name the authority's certificate (PEM) with --ca or RINGBACK_CA"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name; use a name in the address that the certificate has"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; it has to be renewed there"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks right?"
        }
        _ => "its certificate is not accepted",
    })
}

/// The error of TLS among the causes, which I/O errors wrap, and each other.
pub(crate) fn tls_error(error: &reqwest::Error) -> Option<&Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return Some(tls);
        }
        let mut io = error.downcast_ref::<std::io::Error>();
        while let Some(inner) = io.and_then(|io| io.get_ref()) {
            if let Some(tls) = inner.downcast_ref::<Error>() {
                return Some(tls);
            }
            io = inner.downcast_ref::<std::io::Error>();
        }
        cause = error.source();
    }
    None
}

/// Chooses what TLS is made with, for the process.
pub(crate) fn choose_cryptography() {
    // Somebody else may have chosen before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error with its causes.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An address of the API below `base`, which is of http or https.
pub(crate) fn api_url(base: &Url, path: &[&str], query: &[(&str, String)]) -> Url {
    let mut url = base.clone();
    // An address of http has a path.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("v1").extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
