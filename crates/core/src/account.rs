//! API tokens: who may publish events for which tenant.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::event::TenantId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Bytes of randomness in a token.
pub const TOKEN_BYTES: usize = 32;

const PREFIX: &str = "rbk_";

/// A token as it stands in topic `accounts`: only a hash of it. Its 256 random bits need no slow
/// hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Version of the record.
    pub version: u32,
    /// Its id, which is the record's key and part of the token's text.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// The tenant it may publish for; `None`: every tenant, named in each event.
    pub tenant: Option<TenantId>,
    /// SHA-256 of the whole token, in hexadecimal.
    pub hash: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Token {
    /// A token and its text, which is shown once and kept nowhere. `random` must be fresh.
    pub fn issue(
        id: Uuid,
        name: String,
        tenant: Option<TenantId>,
        created: Timestamp,
        random: [u8; TOKEN_BYTES],
    ) -> (Self, Secret) {
        let text = format!("{PREFIX}{}_{}", id.as_simple(), hex(&random));
        let hash = hash_of(&text);
        let token = Self {
            version: 1,
            id,
            name,
            tenant,
            hash,
            created,
        };
        (token, Secret::new(text))
    }

    /// Whether this text is the token's, in constant time.
    pub fn verify(&self, text: &str) -> bool {
        hash_of(text).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }

    /// The id in a token's text.
    pub fn id_of(text: &str) -> Option<Uuid> {
        let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Uuid::try_parse(id).ok()
    }
}

/// Whether two secrets are equal, in time that does not depend on where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    hash_of(a).as_bytes().ct_eq(hash_of(b).as_bytes()).into()
}

fn hash_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    struct Hex<'a>(&'a [u8]);
    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
    Hex(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tokens_own_text_verifies() {
        let id = Uuid::from_u128(5);
        let (token, text) = Token::issue(id, "pbx".into(), None, Timestamp::EPOCH, [7; 32]);
        assert_eq!(Token::id_of(text.expose()), Some(id));
        assert!(token.verify(text.expose()));
        assert!(!token.verify(&text.expose().replace("07", "08")));
        assert!(!token.verify(""));
        assert_eq!(Token::id_of("rbk_x_y"), None);
        let record = serde_json::to_string(&token).unwrap();
        assert!(!record.contains(&hex(&[7; 32])), "{record}");
    }
}
