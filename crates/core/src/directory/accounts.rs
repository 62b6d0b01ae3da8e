//! What of the directory comes from the topics `tokens`, `uses` and `accounts`: tokens and when they were
//! used, accounts, and sessions that have ended.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Directory, InvalidConfig, Versioned, is_about, read};
use crate::account::uses::TokenUse;
use crate::account::{Account, EndedSession, Key, Login, Token};
use crate::log::{Record, Revision};
use crate::time::Timestamp;

#[derive(Default, Debug)]
pub(super) struct Accounts {
    tokens: BTreeMap<Uuid, Versioned<Token>>,
    uses: BTreeMap<Uuid, Versioned<TokenUse>>,
    accounts: BTreeMap<Login, Versioned<Account>>,
    ended: BTreeMap<Uuid, Versioned<EndedSession>>,
}

impl Accounts {
    pub(super) fn apply_token(
        &mut self,
        key: &str,
        record: &Record<'_>,
        invalid: &impl Fn(String) -> InvalidConfig,
    ) -> Result<(), InvalidConfig> {
        let id = Uuid::try_parse(key).map_err(|error| invalid(error.to_string()))?;
        let token: Option<Versioned<Token>> = read(record, Revision(record.offset), invalid)?;
        is_about(token.as_ref().map(|token| &token.value.id), &id, invalid)?;
        put(&mut self.tokens, id, token);
        Ok(())
    }

    /// Several processes write of one token, each when it saw it: the latest counts.
    pub(super) fn apply_use(
        &mut self,
        key: &str,
        record: &Record<'_>,
        invalid: &impl Fn(String) -> InvalidConfig,
    ) -> Result<(), InvalidConfig> {
        let id = Uuid::try_parse(key).map_err(|error| invalid(error.to_string()))?;
        let mut new: Option<Versioned<TokenUse>> = read(record, Revision(record.offset), invalid)?;
        is_about(new.as_ref().map(|new| &new.value.token), &id, invalid)?;
        if let (Some(new), Some(old)) = (&mut new, self.uses.get(&id)) {
            new.value.used = new.value.used.max(old.value.used);
        }
        put(&mut self.uses, id, new);
        Ok(())
    }

    pub(super) fn apply(
        &mut self,
        key: &str,
        record: &Record<'_>,
        invalid: &impl Fn(String) -> InvalidConfig,
    ) -> Result<(), InvalidConfig> {
        let revision = Revision(record.offset);
        match Key::parse(key).map_err(invalid)? {
            Key::Account(login) => {
                let account: Option<Versioned<Account>> = read(record, revision, invalid)?;
                let about = account.as_ref().map(|account| &account.value.login);
                is_about(about, &login, invalid)?;
                put(&mut self.accounts, login, account);
            }
            Key::EndedSession(id) => {
                let ended: Option<Versioned<EndedSession>> = read(record, revision, invalid)?;
                is_about(ended.as_ref().map(|ended| &ended.value.id), &id, invalid)?;
                put(&mut self.ended, id, ended);
            }
            Key::Unknown => {}
        }
        Ok(())
    }
}

fn put<K: Ord, T>(map: &mut BTreeMap<K, T>, key: K, value: Option<T>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Directory {
    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = &Versioned<Token>> {
        self.accounts.tokens.values()
    }

    /// The token with this text.
    pub fn verify_token(&self, text: &str) -> Option<&Token> {
        let token = &self.token(Token::id_of(text)?)?.value;
        token.verify(text).then_some(token)
    }

    /// A token by its id.
    pub fn token(&self, id: Uuid) -> Option<&Versioned<Token>> {
        self.accounts.tokens.get(&id)
    }

    /// When tokens were used, by the tokens' ids; of removed ones, too, for a while.
    pub fn uses(&self) -> impl Iterator<Item = &Versioned<TokenUse>> {
        self.accounts.uses.values()
    }

    /// When a token was used last, about; `None`: never, as far as is known.
    pub fn last_use(&self, token: Uuid) -> Option<Timestamp> {
        Some(self.accounts.uses.get(&token)?.value.used)
    }

    /// All accounts, by login.
    pub fn accounts(&self) -> impl Iterator<Item = &Versioned<Account>> {
        self.accounts.accounts.values()
    }

    /// An account by its login, or by its id in text form.
    pub fn account(&self, login: &str) -> Option<&Versioned<Account>> {
        match Uuid::try_parse(login) {
            Ok(id) => self.accounts().find(|account| account.value.id == id),
            Err(_) => self.accounts.accounts.get(&Login::parse(login).ok()?),
        }
    }

    /// Sessions that were ended before their time, by id.
    pub fn ended_sessions(&self) -> impl Iterator<Item = &Versioned<EndedSession>> {
        self.accounts.ended.values()
    }

    /// Whether this session was ended.
    pub fn has_ended(&self, session: Uuid) -> bool {
        self.accounts.ended.contains_key(&session)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schedule::Schedule;
    use crate::topics::{Partition, Role, Topics, TopicsConfig};

    fn apply(
        directory: &mut Directory,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), InvalidConfig> {
        apply_to(directory, Role::Accounts, key, value)
    }

    fn apply_to(
        directory: &mut Directory,
        role: Role,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), InvalidConfig> {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let value = value.map(|value| value.to_string());
        let record = Record {
            partition: Partition {
                topic: topics.find(role).unwrap(),
                index: 0,
            },
            offset: 5,
            appended: Timestamp::EPOCH,
            key: Some(key.as_bytes()),
            headers: &[],
            value: value.as_deref().map(str::as_bytes),
        };
        directory.apply(role, &record)
    }

    fn account(login: &str) -> Value {
        json!({
            "version": 1, "id": Uuid::from_u128(9), "login": login, "name": "Ann",
            "role": "operator", "tenant": null, "password": "$", "created": Timestamp::EPOCH,
            "updated": Timestamp::EPOCH,
        })
    }

    #[test]
    fn accounts_are_found_by_login_and_by_id() {
        let mut directory = Directory::default();
        apply(&mut directory, "account/ann", Some(account("ann"))).unwrap();
        let id = Uuid::from_u128(9);
        for name in ["ann", "ANN", &id.to_string()] {
            let found = directory.account(name).unwrap();
            assert_eq!(found.value.id, id);
            assert_eq!(found.revision, Revision(5));
        }
        assert!(directory.account("bob").is_none());
        assert!(directory.account(&Uuid::nil().to_string()).is_none());
        assert_eq!(directory.accounts().count(), 1);
        apply(&mut directory, "account/ann", Some(account("bob"))).unwrap_err();
        assert!(directory.account("ann").is_some());
        apply(&mut directory, "account/ann", None).unwrap();
        assert!(directory.account("ann").is_none());
    }

    #[test]
    fn ended_sessions_are_known_until_they_are_removed() {
        let mut directory = Directory::default();
        let id = Uuid::from_u128(3);
        let key = Key::of_ended_session(id);
        let ended = json!({ "version": 1, "id": id, "until": Timestamp::EPOCH });
        apply(&mut directory, &key, Some(ended)).unwrap();
        assert!(directory.has_ended(id));
        assert!(!directory.has_ended(Uuid::nil()));
        assert_eq!(directory.ended_sessions().count(), 1);
        let other = json!({ "version": 1, "id": Uuid::nil(), "until": Timestamp::EPOCH });
        apply(&mut directory, &key, Some(other)).unwrap_err();
        apply(&mut directory, &key, None).unwrap();
        assert!(!directory.has_ended(id));
    }

    #[test]
    fn of_the_uses_of_a_token_the_latest_counts() {
        let mut directory = Directory::default();
        let id = Uuid::from_u128(3);
        let key = id.to_string();
        let used = |token: Uuid, second: i64| {
            let used = Timestamp::from_millis(second * 1000);
            Some(json!({ "version": 1, "token": token, "used": used }))
        };
        assert_eq!(directory.last_use(id), None);
        for (second, latest) in [(5, 5), (9, 9), (7, 9)] {
            apply_to(&mut directory, Role::Uses, &key, used(id, second)).unwrap();
            let latest = Timestamp::from_millis(latest * 1000);
            assert_eq!(directory.last_use(id), Some(latest));
        }
        apply_to(&mut directory, Role::Uses, &key, used(Uuid::nil(), 8)).unwrap_err();
        assert_eq!(directory.uses().count(), 1);
        apply_to(&mut directory, Role::Uses, &key, None).unwrap();
        assert_eq!(directory.last_use(id), None);
    }

    #[test]
    fn kinds_of_a_newer_release_are_passed_over() {
        let mut directory = Directory::default();
        apply(&mut directory, "passkey/1", Some(json!([]))).unwrap();
        assert_eq!(directory.unreadable(), 0);
        apply(&mut directory, "session/1", Some(json!([]))).unwrap_err();
        assert_eq!(directory.unreadable(), 1);
    }
}
