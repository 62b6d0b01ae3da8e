//! A webhook's TLS between the API and its record; its private key goes as other secrets do, see
//! [`crate::authentication`].

use ringback_core::secret::{Sealed, Secret};
use ringback_core::tls::{TLS_KEY, Tls, check_certificates, check_key};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authentication::Vault;
use crate::certificates;
use crate::problem::Problem;

/// TLS as it is posted. The whole setting: what is absent is taken away, but for the key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsForm {
    ca: Option<String>,
    certificate: Option<String>,
    /// Absent, the one that is set stays, as long as there is a certificate.
    #[schemars(with = "Option<String>")]
    key: Option<Secret>,
}

impl TlsForm {
    /// The setting after this change; `None` when it says nothing.
    pub(crate) fn apply(
        &self,
        current: Option<&Tls>,
        vault: &Vault<'_>,
    ) -> Result<Option<Tls>, Problem> {
        if let Some(ca) = &self.ca {
            check_certificates("tls.ca", ca)?;
            certificates::check_authorities(ca)?;
        }
        if let Some(certificate) = &self.certificate {
            check_certificates("tls.certificate", certificate)?;
        }
        let old = current.and_then(|tls| tls.key.clone());
        let key = match (&self.certificate, &self.key, old) {
            (None, None, _) => None,
            (Some(certificate), None, Some(old)) => {
                let shown = current.and_then(|tls| tls.certificate.as_ref());
                if shown != Some(certificate) {
                    certificates::check_identity(certificate, &vault.open(&old, TLS_KEY)?)?;
                }
                Some(old)
            }
            (Some(certificate), Some(key), _) => {
                check_key(key.expose())?;
                certificates::check_identity(certificate, key)?;
                Some(vault.seal(key, TLS_KEY)?)
            }
            (Some(_), None, None) | (None, Some(_), _) => {
                let detail = "a client certificate needs tls.certificate and tls.key, both";
                return Err(Problem::field("tls", detail));
            }
        };
        let tls = Tls {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key,
        };
        Ok((!tls.is_empty()).then_some(tls))
    }
}

/// As the API shows it.
pub(crate) fn view(tls: Option<&Tls>) -> Value {
    match tls {
        None => Value::Null,
        Some(tls) => json!({
            "ca": tls.ca,
            "certificate": tls.certificate,
            "key": tls.key.as_ref().map(|_| json!({ "set": true })),
        }),
    }
}

/// The same, its key opened with the keys of `from` and sealed with those of `to`.
pub(crate) fn transfer(
    tls: Option<&Tls>,
    from: &Vault<'_>,
    to: &Vault<'_>,
) -> Result<Option<Tls>, Problem> {
    let Some((with, key)) = with_key(tls) else {
        return Ok(tls.cloned());
    };
    Ok(Some(Tls {
        key: Some(from.carry(key, TLS_KEY, to)?),
        ..with.clone()
    }))
}

/// Whether both are the same, whatever their keys are sealed with.
pub(crate) fn same(
    a: (Option<&Tls>, &Vault<'_>),
    b: (Option<&Tls>, &Vault<'_>),
) -> Result<bool, Problem> {
    let ((a, from), (b, to)) = (a, b);
    match (with_key(a), with_key(b)) {
        (None, None) => Ok(a == b),
        (Some((left, key)), Some((right, other))) => {
            let alike = from.same(key, (other, to), TLS_KEY)?;
            Ok(alike && (&left.ca, &left.certificate) == (&right.ca, &right.certificate))
        }
        _ => Ok(false),
    }
}

fn with_key(tls: Option<&Tls>) -> Option<(&Tls, &Sealed)> {
    tls.and_then(|tls| Some((tls, tls.key.as_ref()?)))
}
