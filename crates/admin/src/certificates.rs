//! Certificates and keys of webhooks, looked into: what TLS would refuse at the first connection is
//! refused when it is configured.

use std::fmt;
use std::time::Duration;

use ringback_core::secret::Secret;
use ringback_core::time::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

use crate::problem::Problem;

/// Whether these are authorities that a receiver's certificate can be checked with.
pub(crate) fn check_authorities(pem: &str) -> Result<(), Problem> {
    let mut roots = RootCertStore::empty();
    for (place, certificate) in (1..).zip(read_chain("tls.ca", pem)?) {
        let added = roots.add(certificate);
        added.map_err(|error| unusable("tls.ca", place, &error))?;
    }
    Ok(())
}

/// Whether a client can show this certificate with this key. The key does not appear in errors.
pub(crate) fn check_identity(pem: &str, key: &Secret) -> Result<(), Problem> {
    let chain = read_chain("tls.certificate", pem)?;
    for (place, certificate) in (1..).zip(&chain) {
        let parsed = ParsedCertificate::try_from(certificate);
        parsed.map_err(|error| unusable("tls.certificate", place, &error))?;
    }
    let key = read_key(key)?;
    let key = any_supported_type(&key).map_err(|_| {
        invalid("tls.key is of a kind that is not supported; use RSA, ECDSA (P-256, P-384, P-521) or Ed25519")
    })?;
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err(invalid(
            "tls.key is not the key of tls.certificate; the certificate that is first in the chain and its own key belong together",
        )),
    }
}

/// What is to be said of the time that a client certificate is valid for.
pub(crate) fn check_validity(pem: &str, now: Timestamp) -> Option<String> {
    let chain = read_chain("tls.certificate", pem).ok()?;
    let (first, others) = chain.split_first()?;
    let parsed = ParsedCertificate::try_from(first).ok()?;
    let now = UnixTime::since_unix_epoch(now.since(Timestamp::EPOCH));
    // Without authorities it never succeeds; the times are checked before these are looked for.
    let nobody = RootCertStore::empty();
    let checked = verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, others, now, &[]);
    match checked {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let day = day(not_after);
            Some(format!(
                "the client certificate (tls.certificate) expired on {day}: receivers refuse it; set a new one"
            ))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => {
            let day = day(not_before);
            Some(format!(
                "the client certificate (tls.certificate) is not valid before {day}: receivers refuse it until then"
            ))
        }
        _ => None,
    }
}

fn day(time: UnixTime) -> String {
    let time = Timestamp::EPOCH + Duration::from_secs(time.as_secs());
    time.to_string().chars().take(10).collect()
}

fn read_chain(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(invalid(format!("there is no certificate in {what}"))),
        // Why is not told: it may repeat a line, and the wrong file may hold a key.
        Err(_) => Err(invalid(format!(
            "{what} is no PEM: a BEGIN or END line, or base64 in between, is damaged"
        ))),
    }
}

fn read_key(key: &Secret) -> Result<PrivateKeyDer<'static>, Problem> {
    let sections: Result<Vec<_>, _> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(key.expose().as_bytes()).collect();
    let one = match sections {
        Ok(mut sections) if sections.len() == 1 => sections.pop(),
        Ok(_) => return Err(invalid("tls.key must hold one private key, and no more")),
        Err(_) => None,
    };
    let key = one.and_then(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    key.ok_or_else(|| {
        invalid("tls.key is no PEM of a private key: a BEGIN or END line, or base64 in between, is damaged")
    })
}

fn unusable(what: &str, place: usize, error: &dyn fmt::Display) -> Problem {
    invalid(format!(
        "certificate {place} in {what} cannot be used: {error}"
    ))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::field("tls", detail)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, date_time_ymd};

    use super::*;

    /// A certificate and its key.
    fn pair() -> (String, Secret) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["ringback".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), Secret::new(key.serialize_pem()))
    }

    /// With nothing of the key in it.
    fn said<T: fmt::Debug>(result: Result<T, Problem>, key: &Secret) -> String {
        let detail = result.unwrap_err().detail().to_owned();
        for line in key.expose().lines().filter(|line| !line.starts_with('-')) {
            assert!(!detail.contains(line), "{detail}");
        }
        detail
    }

    #[test]
    fn a_key_must_be_that_of_the_certificate() {
        let ((certificate, key), (other, foreign)) = (pair(), pair());
        check_identity(&certificate, &key).unwrap();
        check_identity(&format!("{certificate}{other}"), &key).unwrap();
        for certificate in [&other, &format!("{other}{certificate}")] {
            let said = said(check_identity(certificate, &key), &key);
            assert!(said.contains("not the key of tls.certificate"), "{said}");
        }
        let both = Secret::new(format!("{}{}", key.expose(), foreign.expose()));
        let said = said(check_identity(&certificate, &both), &key);
        assert_eq!(said, "tls.key must hold one private key, and no more");
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let shown = CertificateParams::default().self_signed(&ed25519).unwrap();
        check_identity(&shown.pem(), &Secret::new(ed25519.serialize_pem())).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_shown() {
        let (certificate, key) = pair();
        let label = |name: &str, body: &str| {
            format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n")
        };
        for (pem, expected) in [
            (
                label("CERTIFICATE", "AAAA"),
                "certificate 1 in tls.ca cannot be used: ",
            ),
            (
                format!("{certificate}{}", label("CERTIFICATE", "AAAA")),
                "certificate 2 in tls.ca ",
            ),
            (label("CERTIFICATE", "no base64!"), "tls.ca is no PEM: "),
            (
                certificate.replace("-----END", "----END"),
                "tls.ca is no PEM: ",
            ),
            (key.expose().to_owned(), "there is no certificate in tls.ca"),
        ] {
            let said = said(check_authorities(&pem), &key);
            assert!(said.starts_with(expected), "{said}");
        }
        check_authorities(&format!("ours:\n{certificate}{certificate}")).unwrap();
        for (text, expected) in [
            (
                key.expose().replace("-----END", "----END"),
                "tls.key is no PEM of a private key",
            ),
            (
                key.expose().replace('M', "!"),
                "tls.key is no PEM of a private key",
            ),
            (
                label("PRIVATE KEY", "aHVudGVyMg=="),
                "tls.key is of a kind that is not supported",
            ),
            (certificate.clone(), "tls.key is no PEM of a private key"),
        ] {
            let damaged = Secret::new(text);
            let said = said(check_identity(&certificate, &damaged), &damaged);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn a_certificate_has_its_time() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["ringback".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 2, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let at = |time| check_validity(&pem, Timestamp::parse(time).unwrap());
        assert_eq!(at("2026-03-01T00:00:00Z"), None);
        let said = at("2026-05-01T00:00:00Z").unwrap();
        assert!(said.contains(" expired on 2026-04-01: "), "{said}");
        let said = at("2026-01-01T00:00:00Z").unwrap();
        assert!(said.contains(" not valid before 2026-02-01: "), "{said}");
    }
}
