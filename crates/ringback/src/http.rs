//! The HTTP client of the command line's tools.

use std::error::Error as _;

use crate::failure::Failure;

/// A client; loopback and the operator's own machines are never reached through a proxy.
pub(crate) fn client() -> Result<reqwest::Client, Failure> {
    // Somebody else in this process may have chosen a provider before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|error| Failure::new(format!("making the HTTP client: {}", describe(&error))))
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
