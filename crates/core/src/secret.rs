//! Secrets of webhooks at rest: authenticated encryption (XChaCha20-Poly1305), bound to the webhook
//! and the field they belong to, so that a sealed secret copied elsewhere does not open.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes of randomness that sealing needs.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A secret in clear, on its way to or from its sealed form. It never shows itself.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("writeOnly" = true))]
pub struct Secret(String);

impl Secret {
    /// Wraps.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// For a secret among settings, wherever these are shown.
pub fn serialize_hidden<S: serde::Serializer>(
    _: &Option<Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("(hidden)")
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// A sealed secret as it stands in a configuration record.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sealed {
    /// Id of the key it was sealed with.
    key: String,
    /// Base64.
    nonce: String,
    /// Base64: ciphertext and tag.
    sealed: String,
}

impl Sealed {
    /// Id of the key it was sealed with.
    pub fn key_id(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[sealed with key {:?}]", self.key)
    }
}

/// A secret cannot be sealed or opened. Says nothing about its content.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// The key that sealed it is not configured.
    #[error(
        "the key {key:?} that sealed {field} of webhook {webhook} is not in the key ring; add it to secrets.keys"
    )]
    UnknownKey {
        /// Its id.
        key: String,
        /// Whose secret.
        webhook: Uuid,
        /// Which secret.
        field: &'static str,
    },
    /// It was changed, moved from elsewhere, or sealed with another key of the same id.
    #[error("{field} of webhook {webhook} does not open with key {key:?}; set it again")]
    DoesNotOpen {
        /// Id of the key.
        key: String,
        /// Whose secret.
        webhook: Uuid,
        /// Which secret.
        field: &'static str,
    },
    /// A configured key is unusable.
    #[error("key {key:?}: {problem}")]
    BadKey {
        /// Its id.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The master keys: one seals, all open. Rotation: add a key, make it primary, seal again, remove the
/// old one.
#[derive(Clone)]
pub struct KeyRing {
    primary: String,
    keys: BTreeMap<String, XChaCha20Poly1305>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("primary", &self.primary)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// A ring of base64 keys by id, of which `primary` seals.
    pub fn new<'a>(
        primary: &str,
        keys: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SecretError> {
        let bad = |key: &str, problem| SecretError::BadKey {
            key: key.to_owned(),
            problem,
        };
        let mut ring = BTreeMap::new();
        for (id, text) in keys {
            let bytes = STANDARD
                .decode(text.trim())
                .map_err(|_| bad(id, "it is not base64"))?;
            if bytes.len() != KEY_BYTES {
                return Err(bad(id, "it does not have 32 bytes"));
            }
            ring.insert(
                id.to_owned(),
                XChaCha20Poly1305::new(Key::from_slice(&bytes)),
            );
        }
        if !ring.contains_key(primary) {
            return Err(bad(
                primary,
                "it is named as primary but is not among the keys",
            ));
        }
        Ok(Self {
            primary: primary.to_owned(),
            keys: ring,
        })
    }

    /// Id of the key that seals.
    pub fn primary(&self) -> &str {
        &self.primary
    }

    /// Seals. `nonce` must be fresh randomness.
    pub fn seal(
        &self,
        secret: &Secret,
        webhook: Uuid,
        field: &'static str,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Sealed, SecretError> {
        let key = self.primary.clone();
        let failed = || SecretError::DoesNotOpen {
            key: key.clone(),
            webhook,
            field,
        };
        let aad = bound_to(webhook, field);
        let payload = Payload {
            msg: secret.0.as_bytes(),
            aad: &aad,
        };
        let cipher = self.keys.get(&key).ok_or_else(failed)?;
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| failed())?;
        Ok(Sealed {
            key,
            nonce: STANDARD.encode(nonce),
            sealed: STANDARD.encode(sealed),
        })
    }

    /// Opens what was sealed for this webhook and field.
    pub fn open(
        &self,
        sealed: &Sealed,
        webhook: Uuid,
        field: &'static str,
    ) -> Result<Secret, SecretError> {
        let key = sealed.key.clone();
        let Some(cipher) = self.keys.get(&key) else {
            return Err(SecretError::UnknownKey {
                key,
                webhook,
                field,
            });
        };
        let failed = || SecretError::DoesNotOpen {
            key: key.clone(),
            webhook,
            field,
        };
        let nonce = STANDARD.decode(&sealed.nonce).map_err(|_| failed())?;
        if nonce.len() != NONCE_BYTES {
            return Err(failed());
        }
        let message = STANDARD.decode(&sealed.sealed).map_err(|_| failed())?;
        let aad = bound_to(webhook, field);
        let payload = Payload {
            msg: &message,
            aad: &aad,
        };
        let clear = cipher
            .decrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| failed())?;
        String::from_utf8(clear).map(Secret).map_err(|_| failed())
    }
}

fn bound_to(webhook: Uuid, field: &str) -> Vec<u8> {
    [webhook.as_bytes(), field.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K1: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const K2: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

    proptest! {
        #[test]
        fn opens_only_where_it_belongs(text in any::<String>(), nonce in any::<[u8; 24]>(), id in any::<u128>(), flip in any::<u8>()) {
            let webhook = Uuid::from_u128(id);
            let ring = KeyRing::new("k1", [("k1", K1)]).unwrap();
            let secret = Secret::new(text);
            let sealed = ring.seal(&secret, webhook, "password", nonce).unwrap();
            prop_assert_eq!(ring.open(&sealed, webhook, "password").unwrap(), secret);
            prop_assert!(ring.open(&sealed, webhook, "token").is_err());
            prop_assert!(ring.open(&sealed, Uuid::from_u128(id ^ 1), "password").is_err());
            let mut bytes = STANDARD.decode(&sealed.sealed).unwrap();
            let at = usize::from(flip) % bytes.len();
            bytes[at] ^= 1;
            let changed = Sealed { sealed: STANDARD.encode(bytes), ..sealed };
            prop_assert!(ring.open(&changed, webhook, "password").is_err());
        }
    }

    #[test]
    fn rotation() {
        let webhook = Uuid::from_u128(1);
        let old = KeyRing::new("k1", [("k1", K1)]).unwrap();
        let sealed = old
            .seal(&Secret::new("s"), webhook, "token", [7; 24])
            .unwrap();
        let both = KeyRing::new("k2", [("k1", K1), ("k2", K2)]).unwrap();
        assert_eq!(both.open(&sealed, webhook, "token").unwrap().expose(), "s");
        assert_eq!(
            both.seal(&Secret::new("s"), webhook, "token", [8; 24])
                .unwrap()
                .key_id(),
            "k2"
        );
        let new = KeyRing::new("k2", [("k2", K2)]).unwrap();
        let error = new.open(&sealed, webhook, "token").unwrap_err();
        assert!(matches!(error, SecretError::UnknownKey { .. }), "{error}");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::new("hunter2");
        let ring = KeyRing::new("k1", [("k1", K1)]).unwrap();
        let sealed = ring
            .seal(&secret, Uuid::from_u128(1), "token", [7; 24])
            .unwrap();
        let shown = format!(
            "{secret:?} {sealed:?} {ring:?} {}",
            serde_json::to_string(&sealed).unwrap()
        );
        assert!(!shown.contains("hunter2") && !shown.contains(K1), "{shown}");
        assert_eq!(format!("{sealed:?}"), "[sealed with key \"k1\"]");
        assert_eq!(format!("{ring:?}"), "KeyRing { primary: \"k1\", .. }");
        assert_eq!(ring.primary(), "k1");
    }

    #[test]
    fn bad_keys_are_named() {
        assert!(KeyRing::new("k1", [("k1", "short")]).is_err());
        assert!(KeyRing::new("k2", [("k1", K1)]).is_err());
    }
}
