//! Signatures of requests after Standard Webhooks 1.0.0: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) over
//! `{webhook-id}.{webhook-timestamp}.{body}`, and the texts their keys are written as.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use ring::{hmac, signature};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::time::Timestamp;

/// Bytes of randomness that a new key needs.
pub const RANDOM_BYTES: usize = 32;
/// How far `webhook-timestamp` may be from the clock of who verifies; what the published libraries use.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Bytes of a symmetric secret: 192 to 512 bits.
const HMAC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of an Ed25519 seed, and of a public key (RFC 8032 §5.1.5).
const ED25519_BYTES: usize = 32;
/// Signatures of one header that are looked at: it comes from outside.
pub(crate) const SIGNATURES_MAX: usize = 16;

/// Base64 as people paste it, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HMAC-SHA256, `v1`: both sides know the secret, `whsec_…`.
    Hmac,
    /// Ed25519, `v1a`: the key `whsk_…` stays here, the receiver has the public key `whpk_…`.
    Ed25519,
}

impl Kind {
    /// Its name in records and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A text is no key. Says nothing about the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidKey {
    /// It begins with nothing that we know.
    #[error("a signing secret begins with whsec_ (HMAC) or whsk_ (Ed25519)")]
    Prefix,
    /// The public key cannot sign.
    #[error("whpk_ is a public key, which cannot sign; give the private one, whsk_…")]
    Public,
    /// Not base64.
    #[error("what follows whsec_, whsk_ or whpk_ in a signing secret must be base64")]
    Base64,
    /// Too short or too long.
    #[error("a secret whsec_… has 24 to 64 bytes, written as base64")]
    HmacBytes,
    /// Not an Ed25519 key.
    #[error(
        "an Ed25519 key whsk_… is the 32 bytes of the seed, or these and the 32 of its public key, written as base64"
    )]
    Ed25519Bytes,
}

/// A key that signs. It never shows itself.
pub enum Signer {
    /// See [`Kind::Hmac`].
    Hmac(hmac::Key),
    /// See [`Kind::Ed25519`].
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} key]", self.kind().name())
    }
}

impl Signer {
    /// Reads `whsec_…` or `whsk_…`.
    pub fn read(secret: &Secret) -> Result<Self, InvalidKey> {
        let text = secret.expose().trim();
        if let Some(text) = text.strip_prefix("whsec_") {
            let bytes = BASE64.decode(text).map_err(|_| InvalidKey::Base64)?;
            return match HMAC_BYTES.contains(&bytes.len()) {
                true => Ok(Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
                false => Err(InvalidKey::HmacBytes),
            };
        }
        if let Some(text) = text.strip_prefix("whsk_") {
            let bytes = BASE64.decode(text).map_err(|_| InvalidKey::Base64)?;
            let pair = match bytes.split_at_checked(ED25519_BYTES) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
                Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
                None => return Err(InvalidKey::Ed25519Bytes),
            };
            let pair = pair.map_err(|_| InvalidKey::Ed25519Bytes)?;
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        Err(match text.starts_with("whpk_") {
            true => InvalidKey::Public,
            false => InvalidKey::Prefix,
        })
    }

    /// How it signs.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hmac(_) => Kind::Hmac,
            Self::Ed25519(_) => Kind::Ed25519,
        }
    }

    /// The public key as a receiver takes it, `whpk_…`; HMAC has none.
    pub fn public(&self) -> Option<String> {
        match self {
            Self::Hmac(_) => None,
            Self::Ed25519(pair) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key()))),
        }
    }

    /// The signature as it stands in the header: `v1,…` or `v1a,…`. `timestamp` is in seconds, as in
    /// `webhook-timestamp`; `body` must be what is sent, byte for byte.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(format!("{id}.{timestamp}.").as_bytes());
                context.update(body);
                format!("v1,{}", STANDARD.encode(context.sign()))
            }
            Self::Ed25519(pair) => {
                let content = content(id, &timestamp.to_string(), body);
                format!("v1a,{}", STANDARD.encode(pair.sign(&content)))
            }
        }
    }
}

/// A new key of this kind as text; `random` must be fresh.
pub fn generate(kind: Kind, random: [u8; RANDOM_BYTES]) -> Secret {
    let prefix = match kind {
        Kind::Hmac => "whsec_",
        Kind::Ed25519 => "whsk_",
    };
    Secret::new(format!("{prefix}{}", STANDARD.encode(random)))
}

fn content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(id.len() + timestamp.len() + 2 + body.len());
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        content.extend_from_slice(part);
    }
    content
}

/// Verifies signatures, as a receiver does: with `whsec_…` or `whpk_…`. It never shows itself.
#[derive(Clone)]
pub struct Verifier(Known);

#[derive(Clone)]
enum Known {
    Hmac(hmac::Key),
    Ed25519(UnparsedPublicKey<Vec<u8>>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[verifier]")
    }
}

/// Why a request is not accepted as signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// One of the three headers is missing.
    #[error("webhook-id, webhook-timestamp or webhook-signature is missing")]
    Missing,
    /// No number of seconds.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// Older or newer than [`TOLERANCE`] allows.
    #[error("webhook-timestamp is more than 5 minutes away from this clock")]
    Time,
    /// None of the signatures is made with this key over this id, timestamp and body.
    #[error("no signature matches: another key, or id, timestamp or body were changed")]
    Signature,
}

/// What a request says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`
    pub signatures: &'a str,
    /// The body as it came.
    pub body: &'a [u8],
}

impl Verifier {
    /// Reads `whsec_…`, `whpk_…`, or `whsk_…` (of which it takes the public part).
    pub fn read(secret: &Secret) -> Result<Self, InvalidKey> {
        let public = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            Self(Known::Ed25519(UnparsedPublicKey::new(&ED25519, bytes)))
        };
        if let Some(text) = secret.expose().trim().strip_prefix("whpk_") {
            let bytes = BASE64.decode(text).map_err(|_| InvalidKey::Base64)?;
            return match bytes.len() == ED25519_BYTES {
                true => Ok(public(&bytes)),
                false => Err(InvalidKey::Ed25519Bytes),
            };
        }
        Ok(match Signer::read(secret)? {
            Signer::Hmac(key) => Self(Known::Hmac(key)),
            Signer::Ed25519(pair) => public(pair.public_key().as_ref()),
        })
    }

    /// Whether one of the signatures is right and the timestamp is of now.
    pub fn verify(&self, signed: Signed<'_>, now: Timestamp) -> Result<(), Refused> {
        let seconds: i64 = signed.timestamp.parse().map_err(|_| Refused::Timestamp)?;
        let away = Duration::from_secs(now.as_secs().abs_diff(seconds));
        if away > TOLERANCE {
            return Err(Refused::Time);
        }
        let content = content(signed.id, signed.timestamp, signed.body);
        let mut signatures = signed.signatures.split(' ').take(SIGNATURES_MAX);
        match signatures.any(|signature| self.made(signature, &content)) {
            true => Ok(()),
            false => Err(Refused::Signature),
        }
    }

    fn made(&self, signature: &str, content: &[u8]) -> bool {
        let Some((version, encoded)) = signature.split_once(',') else {
            return false;
        };
        let Ok(bytes) = STANDARD.decode(encoded) else {
            return false;
        };
        match (&self.0, version) {
            (Known::Hmac(key), "v1") => hmac::verify(key, content, &bytes).is_ok(),
            (Known::Ed25519(key), "v1a") => {
                signature::UnparsedPublicKey::verify(key, content, &bytes).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
