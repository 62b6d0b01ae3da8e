//! Sessions: that somebody has signed in. A session is sealed into its cookie and kept nowhere else;
//! what is kept is that one has ended before its time (docs/adr/0011-sessions-in-sealed-cookies.md).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Account, Login, Token, hash_of, same_secret};
use crate::time::Timestamp;

/// How much older `seen` may get before the cookie is written anew: not at every request.
const RENEWED_AFTER: Duration = Duration::from_secs(60);

/// Who has signed in, and by what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SignedInAs {
    /// The operator, by the operator token.
    Operator {
        /// Hash of that token: another token ends the session.
        token: String,
    },
    /// A tenant, by one of its tokens.
    Token {
        /// Its id.
        id: Uuid,
    },
    /// A person.
    Account {
        /// The account's id.
        id: Uuid,
        /// Its login.
        login: Login,
        /// The password's generation.
        generation: u64,
    },
}

impl SignedInAs {
    /// By the operator token.
    pub fn operator(token: &str) -> Self {
        let token = hash_of(token);
        Self::Operator { token }
    }

    /// By a tenant's token.
    pub fn token(token: &Token) -> Self {
        Self::Token { id: token.id }
    }

    /// By an account's password.
    pub fn account(account: &Account) -> Self {
        Self::Account {
            id: account.id,
            login: account.login.clone(),
            generation: account.generation,
        }
    }

    /// Whether this is still the operator token that was shown.
    pub fn is_operator(&self, current: &str) -> bool {
        match self {
            Self::Operator { token } => same_secret(token, &hash_of(current)),
            _ => false,
        }
    }

    /// Whether this account is the one, with the password of then. A generation that is not known
    /// here yet was made by another administration, which knew more.
    pub fn is_account(&self, current: &Account) -> bool {
        match self {
            Self::Account { id, generation, .. } => {
                *id == current.id && *generation >= current.generation
            }
            _ => false,
        }
    }
}

/// A session, as it is sealed into its cookie.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// Who.
    pub who: SignedInAs,
    /// What requests that change something must show besides: another site can make a browser send
    /// the cookie, but cannot read this.
    pub csrf: String,
    /// When it ends at the latest.
    pub ends: Timestamp,
    /// When it was used last, or up to a minute before.
    pub seen: Timestamp,
}

/// A session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over;

impl Session {
    /// When it ends if it is used no more and `idle` is how long it lasts then.
    pub fn expires(&self, idle: Duration) -> Timestamp {
        (self.seen + idle).min(self.ends)
    }

    /// The session as it is after a use now: `Some` when that is worth a new cookie.
    pub fn used(&self, now: Timestamp, idle: Duration) -> Result<Option<Self>, Over> {
        if now >= self.expires(idle) {
            return Err(Over);
        }
        let renewed = now.since(self.seen) > RENEWED_AFTER.min(idle / 2);
        Ok(renewed.then(|| Self {
            seen: now,
            ..self.clone()
        }))
    }
}

/// A session that was ended, as it stands in topic `accounts` until nobody could use it anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndedSession {
    /// Version of the record.
    pub version: u32,
    /// Its id, which is in the record's key.
    pub id: Uuid,
    /// When it would have ended by itself; from then on the record is of no use.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountRole;

    const IDLE: Duration = Duration::from_secs(600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    fn session(seen: i64) -> Session {
        Session {
            id: Uuid::nil(),
            who: SignedInAs::Token { id: Uuid::nil() },
            csrf: "x".into(),
            ends: at(3600),
            seen: at(seen),
        }
    }

    #[test]
    fn sessions_end_when_idle_and_at_last() {
        assert_eq!(session(0).used(at(599), IDLE), Ok(Some(session(599))));
        assert_eq!(session(0).used(at(600), IDLE), Err(Over));
        assert_eq!(session(3300).used(at(3599), IDLE), Ok(Some(session(3599))));
        assert_eq!(session(3300).used(at(3600), IDLE), Err(Over));
        assert_eq!(session(100).expires(IDLE), at(700));
        assert_eq!(session(3300).expires(IDLE), at(3600));
    }

    #[test]
    fn a_cookie_is_not_written_at_every_use() {
        assert_eq!(session(100).used(at(160), IDLE), Ok(None));
        assert_eq!(session(100).used(at(161), IDLE), Ok(Some(session(161))));
        // Another administration's clock is ahead.
        assert_eq!(session(100).used(at(50), IDLE), Ok(None));
        let short = Duration::from_secs(20);
        assert_eq!(session(100).used(at(111), short), Ok(Some(session(111))));
    }

    #[test]
    fn another_operator_token_ends_sessions() {
        let who = SignedInAs::operator("one token");
        assert!(who.is_operator("one token"));
        assert!(!who.is_operator("another token"));
        assert!(!SignedInAs::Token { id: Uuid::nil() }.is_operator("one token"));
        let cookie = serde_json::to_string(&who).unwrap();
        assert!(!cookie.contains("one token"), "{cookie}");
    }

    #[test]
    fn a_new_password_or_another_account_ends_sessions() {
        let account = |id, generation| Account {
            version: 1,
            id: Uuid::from_u128(id),
            login: Login::parse("ann").unwrap(),
            name: "Ann".into(),
            role: AccountRole::Operator,
            tenant: None,
            password: String::new(),
            generation,
            created: at(0),
            updated: at(0),
        };
        let who = SignedInAs::account(&account(1, 3));
        assert!(who.is_account(&account(1, 3)));
        assert!(!who.is_account(&account(1, 4)));
        assert!(!who.is_account(&account(2, 3)));
        // An administration that does not know of the new password yet.
        assert!(who.is_account(&account(1, 2)));
        assert!(!SignedInAs::operator("x").is_account(&account(1, 3)));
    }
}
