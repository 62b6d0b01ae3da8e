//! Who may publish events, read or write, for which tenant: API tokens here, people's accounts, their
//! sessions and passwords beside. Tokens stand in topic `tokens`; the others in `accounts`, which nobody
//! but the administration reads, told apart by their keys ([`Key`]).

mod local;
pub mod password;
mod session;
pub mod throttle;
pub mod uses;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::event::TenantId;
use crate::secret::Secret;
use crate::time::Timestamp;

pub use local::{Account, AccountRole, InvalidLogin, Login};
pub use session::{EndedSession, Over, Session, SignedInAs};

/// Bytes of randomness in a token.
pub const TOKEN_BYTES: usize = 32;

const PREFIX: &str = "rbk_";

/// What a token opens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Hands in events.
    Publish,
    /// Looks at webhooks, attempts and parked deliveries; never at a secret.
    Read,
    /// Changes webhooks, replays, and does everything that [`Read`](Self::Read) does.
    Write,
    /// Something that a newer release knows.
    #[serde(other)]
    Unknown,
}

impl Scope {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Write => "write",
            Self::Unknown => "unknown",
        }
    }
}

/// What a token of before there were scopes opens.
fn publishing() -> BTreeSet<Scope> {
    BTreeSet::from([Scope::Publish])
}

/// A token as it stands in topic `tokens`: only a hash of it. Its 256 random bits need no slow
/// hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Version of the record.
    pub version: u32,
    /// Its id, which is the record's key and part of the token's text.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// The tenant it is for; `None`: every tenant, and each event names its own.
    pub tenant: Option<TenantId>,
    /// What it opens there.
    #[serde(default = "publishing")]
    pub scopes: BTreeSet<Scope>,
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
        scopes: BTreeSet<Scope>,
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
            scopes,
            hash,
            created,
        };
        (token, Secret::new(text))
    }

    /// Whether it opens this.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
            || (scope == Scope::Read && self.scopes.contains(&Scope::Write))
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

/// What a record of topic `accounts` is about, by its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// `account/LOGIN`, so that two cannot have the same login.
    Account(Login),
    /// `session/ID`: one that ended before its time.
    EndedSession(Uuid),
    /// A kind that a newer release knows.
    Unknown,
}

impl Key {
    /// Reads a key.
    pub fn parse(key: &str) -> Result<Self, String> {
        let id = |text| Uuid::try_parse(text).map_err(|error| error.to_string());
        match key.split_once('/') {
            None => Err("it has no kind in front".to_owned()),
            Some(("account", login)) => match Login::parse(login) {
                Ok(login) => Ok(Self::Account(login)),
                Err(error) => Err(error.to_string()),
            },
            Some(("session", session)) => Ok(Self::EndedSession(id(session)?)),
            Some(_) => Ok(Self::Unknown),
        }
    }

    /// The key of an account's record.
    pub fn of_account(login: &Login) -> String {
        format!("account/{login}")
    }

    /// The key of the record of a session that ended.
    pub fn of_ended_session(session: Uuid) -> String {
        format!("session/{session}")
    }
}

/// The token in the value of an `Authorization` header; `None` where it is not of the scheme `Bearer`.
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Whether two secrets are equal, in time that does not depend on where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    hash_of(a).as_bytes().ct_eq(hash_of(b).as_bytes()).into()
}

/// SHA-256 in hexadecimal, of what has enough randomness to need no slow hash.
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
        let scopes = BTreeSet::from([Scope::Write]);
        let now = Timestamp::EPOCH;
        let (token, text) = Token::issue(id, "pbx".into(), None, scopes, now, [7; 32]);
        assert_eq!(Token::id_of(text.expose()), Some(id));
        assert!(token.verify(text.expose()));
        assert!(!token.verify(&text.expose().replace("07", "08")));
        assert!(!token.verify(""));
        assert_eq!(Token::id_of("rbk_x_y"), None);
        let record = serde_json::to_string(&token).unwrap();
        assert!(!record.contains(&hex(&[7; 32])), "{record}");
    }

    #[test]
    fn a_scope_is_called_as_it_is_written() {
        for scope in [Scope::Publish, Scope::Read, Scope::Write, Scope::Unknown] {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }

    #[test]
    fn only_bearers_have_tokens() {
        assert_eq!(bearer("Bearer  x "), Some("x"));
        assert_eq!(bearer("bEARER x"), Some("x"));
        for none in ["Basic x", "x", "Bearer", ""] {
            assert_eq!(bearer(none), None, "{none}");
        }
    }

    #[test]
    fn secrets_are_compared() {
        assert!(same_secret("a secret", "a secret"));
        assert!(!same_secret("a secret", "a Secret"));
    }

    #[test]
    fn kinds_of_records_are_told_apart_by_their_keys() {
        let id = Uuid::from_u128(7);
        let login = Login::parse("ann@example.com").unwrap();
        assert!(Key::parse(&id.to_string()).is_err());
        let account = Key::of_account(&login);
        assert_eq!(account, "account/ann@example.com");
        assert_eq!(Key::parse(&account), Ok(Key::Account(login)));
        let session = Key::of_ended_session(id);
        assert_eq!(Key::parse(&session), Ok(Key::EndedSession(id)));
        assert_eq!(Key::parse("passkey/whatever it is"), Ok(Key::Unknown));
        for wrong in ["", "x", "account/", "account/A B", "session/x"] {
            assert!(Key::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scopes_open_what_they_say() {
        let with = |scopes: serde_json::Value| {
            let record = serde_json::json!({
                "version": 1, "id": Uuid::nil(), "name": "x", "tenant": null, "hash": "",
                "scopes": scopes, "created": "2026-11-21T00:00:00Z",
            });
            let token: Token = serde_json::from_value(record).unwrap();
            [Scope::Publish, Scope::Read, Scope::Write].map(|scope| token.allows(scope))
        };
        assert_eq!(with(["publish"].into()), [true, false, false]);
        assert_eq!(with(["read"].into()), [false, true, false]);
        assert_eq!(with(["write"].into()), [false, true, true]);
        // What a newer release grants is nothing to us.
        assert_eq!(with(["admire", "read"].into()), [false, true, false]);
        let before = r#"{"version":1,"id":"00000000-0000-0000-0000-000000000000","name":"x",
            "tenant":"acme","hash":"","created":"2026-11-21T00:00:00Z"}"#;
        let before: Token = serde_json::from_str(before).unwrap();
        assert_eq!(before.scopes, [Scope::Publish].into());
    }
}
