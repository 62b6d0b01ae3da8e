//! TLS of a single webhook: whom it trusts, and which certificate is shown to it.

use serde::{Deserialize, Serialize};

use crate::secret::Sealed;
use crate::webhook::{InvalidWebhook, invalid};

/// The field that a client certificate's key is sealed with.
pub const TLS_KEY: &str = "tls_key";
/// Longest PEM text, in bytes: a chain, or a few authorities.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// What is different from the deployment's TLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Tls {
    /// PEM certificates of the only authorities that its receiver's certificate may come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// PEM certificate that is shown to the receiver, and its chain. It needs the key, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificate's private key in PEM, sealed with field [`TLS_KEY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Sealed>,
}

impl Tls {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Checks PEM text with certificates. What is in them is known only when they are used.
pub fn check_certificates(what: &'static str, pem: &str) -> Result<(), InvalidWebhook> {
    check(what, pem, |label| label == "CERTIFICATE")
}

/// Checks PEM text with a private key, which does not appear in errors.
pub fn check_key(pem: &str) -> Result<(), InvalidWebhook> {
    check("tls.key", pem, |label| {
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].contains(&label)
    })
}

fn check(what: &'static str, pem: &str, right: fn(&str) -> bool) -> Result<(), InvalidWebhook> {
    let wrong = |rule| Err(invalid(what, "", rule));
    if pem.len() > PEM_BYTES_MAX {
        return wrong("at most 65,536 bytes");
    }
    let labels = pem.lines().filter_map(|line| {
        let label = line.trim().strip_prefix("-----BEGIN ")?;
        label.strip_suffix("-----")
    });
    let (mut some, mut all) = (false, true);
    for label in labels {
        some = true;
        all &= right(label);
    }
    match some && all {
        true => Ok(()),
        false => wrong(
            "use PEM: -----BEGIN CERTIFICATE----- in ca and certificate, -----BEGIN PRIVATE KEY----- (not encrypted) in key, and nothing else",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_told_from_what_is_none() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";
        check_certificates("tls.ca", &format!("# ours\n{certificate}{certificate}")).unwrap();
        check_key(key).unwrap();
        for wrong in ["", "hello", key, &format!("{certificate}{key}")] {
            let error = check_certificates("tls.ca", wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for wrong in ["", "hunter2", certificate, &encrypted] {
            let error = check_key(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        check_key(&key.repeat(2000)).unwrap_err();
    }
}
