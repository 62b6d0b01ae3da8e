//! An account in a document of `/v1/export`: as it is, but the hash of its password is sealed with the
//! passphrase. People sign in as before where it is imported, and whoever finds the file cannot even
//! begin to guess.

use ringback_core::account::{Account, AccountRole};
use ringback_core::secret::{KeyRing, Secret};
use serde_json::Value;

use crate::authentication::Vault;
use crate::passwords;
use crate::problem::Problem;
use crate::tenants::check_title;

/// What the hash is sealed as.
const FIELD: &str = "account.password";
const MEMBER: &str = "password";

pub(crate) fn seal(account: &Account, ring: &KeyRing) -> Result<Value, Problem> {
    let hash = Secret::new(account.password.clone());
    let sealed = vault(account, ring).seal(&hash, FIELD)?;
    let named = |error: serde_json::Error| unusable(account.login.as_str(), &error.to_string());
    let mut carried = serde_json::to_value(account).map_err(named)?;
    carried[MEMBER] = serde_json::to_value(sealed).map_err(named)?;
    Ok(carried)
}

/// The account, as far as it may stand here: a document can be written by hand.
pub(crate) fn open(mut carried: Value, ring: &KeyRing) -> Result<Account, Problem> {
    let login = carried["login"].as_str().unwrap_or_default().to_owned();
    let wrong = |reason: &str| unusable(&login, reason);
    let Some(password) = carried.get_mut(MEMBER).map(Value::take) else {
        return Err(wrong("its password is missing"));
    };
    let unreadable = |error: serde_json::Error| wrong(&error.to_string());
    let sealed = serde_json::from_value(password).map_err(unreadable)?;
    carried[MEMBER] = Value::String(String::new());
    let account: Account = serde_json::from_value(carried).map_err(unreadable)?;
    let hash = vault(&account, ring).open(&sealed, FIELD).map_err(|_| {
        wrong("its password is not sealed with the key of the document, or for another account")
    })?;
    if !passwords::is_usable(hash.expose()) {
        return Err(wrong(
            "its password is no argon2id hash that would be checked here",
        ));
    }
    check_title("name", &account.name).map_err(|_| wrong("its name cannot be used"))?;
    match (account.role, &account.tenant) {
        (AccountRole::Operator, None) | (AccountRole::TenantAdministrator, Some(_)) => {}
        _ => return Err(wrong("its role and its tenant do not go together")),
    }
    Ok(Account {
        password: hash.expose().to_owned(),
        ..account
    })
}

fn vault<'a>(account: &Account, keys: &'a KeyRing) -> Vault<'a> {
    Vault {
        keys,
        webhook: account.id,
    }
}

fn unusable(login: &str, reason: &str) -> Problem {
    let login: String = login.chars().take(100).collect();
    Problem::invalid("invalid_document", format!("account {login:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use ringback_core::account::Login;
    use ringback_core::time::Timestamp;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn ring() -> KeyRing {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        KeyRing::new("export", [("export", key)]).unwrap()
    }

    fn account() -> Account {
        Account {
            version: 1,
            id: Uuid::from_u128(7),
            login: Login::parse("ann").unwrap(),
            name: "Ann".to_owned(),
            role: AccountRole::Operator,
            tenant: None,
            password: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
                .to_owned(),
            generation: 3,
            created: Timestamp::EPOCH,
            updated: Timestamp::EPOCH,
        }
    }

    #[test]
    fn an_account_is_carried_without_its_hash_in_clear() {
        let carried = seal(&account(), &ring()).unwrap();
        assert!(!carried.to_string().contains("argon2id"), "{carried}");
        assert_eq!(open(carried, &ring()).unwrap(), account());
    }

    #[test]
    fn what_was_meddled_with_is_refused() {
        let carried = seal(&account(), &ring()).unwrap();
        for (member, value, said) in [
            ("id", json!(Uuid::from_u128(8)), "for another account"),
            ("password", json!("$argon2id$"), "account \"ann\""),
            ("password", Value::Null, "account \"ann\""),
            ("login", json!("a b"), "a login has"),
            ("name", json!("a\nb"), "name cannot be used"),
            ("tenant", json!("acme"), "do not go together"),
            ("role", json!("tenant_administrator"), "do not go together"),
            ("role", json!("auditor"), "do not go together"),
        ] {
            let mut other = carried.clone();
            other[member] = value;
            let problem = open(other, &ring()).unwrap_err();
            assert!(problem.detail().contains(said), "{}", problem.detail());
        }
        let huge = Account {
            password: account().password.replace("m=19456", "m=4000000"),
            ..account()
        };
        let problem = open(seal(&huge, &ring()).unwrap(), &ring()).unwrap_err();
        assert!(
            problem.detail().contains("no argon2id hash"),
            "{}",
            problem.detail()
        );
        for nothing in [json!({}), json!([]), Value::Null] {
            open(nothing, &ring()).unwrap_err();
        }
    }
}
