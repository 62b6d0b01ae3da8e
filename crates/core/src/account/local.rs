//! Accounts of people, kept in the installation itself.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::event::TenantId;
use crate::time::Timestamp;

/// Longest login, in bytes.
const LOGIN_BYTES_MAX: usize = 100;

/// What somebody signs in as: an e-mail address, say. Upper and lower case are the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Login(String);

/// A login that is not allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a login has 1 to {LOGIN_BYTES_MAX} of these characters: letters a to z, digits, and . _ + - @; it begins with a letter or digit, and is no UUID"
)]
pub struct InvalidLogin;

impl Login {
    /// Checks, and folds to lower case.
    pub fn parse(text: &str) -> Result<Self, InvalidLogin> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-@".contains(&byte);
        // An account can be named by its id as well.
        let is_id = Uuid::try_parse(text).is_ok();
        let begins = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        match begins && !is_id && text.len() <= LOGIN_BYTES_MAX && text.bytes().all(legal) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(InvalidLogin),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Login {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Login {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What an account is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountRole {
    /// Everything, of every tenant.
    Operator,
    /// Everything of one tenant that is not the operators' alone.
    TenantAdministrator,
    /// Something that a newer release knows; it opens nothing here.
    #[serde(other)]
    Unknown,
}

/// An account as it stands in topic `accounts`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Version of the record.
    pub version: u32,
    /// Its id: an account that is made again with the same login is another one.
    pub id: Uuid,
    /// What its owner signs in as, which is the record's key.
    pub login: Login,
    /// For people.
    pub name: String,
    /// What it is for.
    pub role: AccountRole,
    /// The tenant of a tenant's administrator.
    pub tenant: Option<TenantId>,
    /// Hash of the password, as a PHC string (argon2id).
    pub password: String,
    /// Raised by every new password: sessions of an earlier one are over.
    #[serde(default)]
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was changed last.
    pub updated: Timestamp,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logins() {
        let login = |text: &str| Login::parse(text).map(|login| login.to_string());
        assert_eq!(
            login("Ann.B+pbx_1-2@Example.com").as_deref(),
            Ok("ann.b+pbx_1-2@example.com")
        );
        let longest = "a".repeat(100);
        assert_eq!(login(&longest).as_deref(), Ok(longest.as_str()));
        for wrong in [
            "",
            " ",
            "a b",
            "a/b",
            "ännchen",
            "@x",
            ".x",
            "-x",
            "a\n",
            &"a".repeat(101),
            &"0".repeat(32),
        ] {
            assert_eq!(login(wrong), Err(InvalidLogin), "{wrong:?}");
        }
        assert_eq!(Login::parse("Ann").unwrap().as_str(), "ann");
        serde_json::from_value::<Login>(json!("a b")).unwrap_err();
    }

    /// What a newer release adds is passed over; a role of which nothing is known opens nothing.
    #[test]
    fn records_of_a_newer_release_are_read() {
        let record = json!({
            "version": 1, "id": Uuid::nil(), "login": "ann", "name": "Ann", "role": "auditor",
            "tenant": "acme", "password": "$argon2id$", "passkeys": [], "created": Timestamp::EPOCH,
            "updated": Timestamp::EPOCH,
        });
        let account: Account = serde_json::from_value(record).unwrap();
        assert_eq!(account.role, AccountRole::Unknown);
        assert_eq!(account.generation, 0);
        let known = json!(["operator", "tenant_administrator"]);
        let known: Vec<AccountRole> = serde_json::from_value(known).unwrap();
        assert_eq!(
            known,
            [AccountRole::Operator, AccountRole::TenantAdministrator]
        );
    }
}
