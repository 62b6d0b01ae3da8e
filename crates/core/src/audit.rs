//! The audit: who changed what, as it stands in topic `audit`. No secret is in it, sealed or not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::event::TenantId;
use crate::time::Timestamp;

/// Version of the records written here.
pub const VERSION: u32 = 1;

/// What stands for a secret.
const SET: &str = "(set)";
/// What stands for one that is another than before.
const CHANGED: &str = "(changed)";

/// Members of configuration records that hold a hash, which is nobody's business.
const HIDDEN: [&str; 2] = ["hash", "password"];
/// Members of configuration records that say nothing about a change.
const OWN: [&str; 3] = ["version", "updated", "generation"];

/// By what somebody was known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The operator token.
    OperatorToken,
    /// A tenant's token.
    Token,
    /// A person's account.
    Account,
    /// Nobody asked: Ringback itself.
    Ringback,
    /// Something that a newer release knows.
    #[serde(other)]
    Unknown,
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// By what he was known.
    pub kind: ActorKind,
    /// The token's or account's id.
    pub id: Option<Uuid>,
    /// The token's name, the account's login.
    pub name: String,
}

impl Actor {
    /// Nobody asked.
    pub fn ringback() -> Self {
        Self {
            kind: ActorKind::Ringback,
            id: None,
            name: "Ringback".to_owned(),
        }
    }
}

/// What it was done to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Target {
    /// `tenant`, `webhook`, `token`, `account`, and so on.
    pub kind: String,
    /// Its id, where it has one.
    pub id: Option<String>,
    /// What people call it.
    pub name: String,
}

/// Something that was done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the record.
    pub version: u32,
    /// Its own id.
    pub id: Uuid,
    /// When, by the clock of the administration that did it.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What: `webhook.change`, say.
    pub action: String,
    /// The tenant whose it is; `None` for what is the operators' own.
    pub tenant: Option<TenantId>,
    /// To what.
    pub target: Target,
    /// How it was, as far as it is another now. Null for what was not there.
    pub before: Value,
    /// How it is. Null for what is not there any more.
    pub after: Value,
    /// The request that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Uuid>,
    /// Where that came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

/// What is shown of a change of a configuration record: all of one that came or went, of one that was
/// changed what differs; of secrets only that they are there, or are others.
pub fn shown(before: Option<&Value>, after: Option<&Value>) -> (Value, Value) {
    match (before, after) {
        (Some(before), Some(after)) => {
            let differs = |name: &str| before.get(name) != after.get(name);
            let told = |of: &Value, other: Option<&Value>| match of {
                Value::Object(members) => members
                    .iter()
                    .filter(|(name, _)| differs(name) && !OWN.contains(&name.as_str()))
                    .map(|(name, value)| {
                        let other = other.and_then(|other| other.get(name));
                        (name.clone(), member(name, value, other))
                    })
                    .collect::<Map<_, _>>()
                    .into(),
                of => veiled(of, other),
            };
            (told(before, None), told(after, Some(before)))
        }
        (before, after) => {
            let alone = |of: Option<&Value>| of.map_or(Value::Null, |of| veiled(of, None));
            (alone(before), alone(after))
        }
    }
}

/// A value without its secrets; `before` is what was there.
fn veiled(value: &Value, before: Option<&Value>) -> Value {
    if is_sealed(value) {
        return veil(value, before);
    }
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let before = before.and_then(|before| before.get(name));
                (name.clone(), member(name, value, before))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(place, item)| veiled(item, before.and_then(|before| before.get(place))))
            .collect(),
        other => other.clone(),
    }
}

fn member(name: &str, value: &Value, before: Option<&Value>) -> Value {
    match HIDDEN.contains(&name) && value.is_string() {
        true => veil(value, before),
        false => veiled(value, before),
    }
}

fn veil(value: &Value, before: Option<&Value>) -> Value {
    match before {
        Some(before) if before != value => CHANGED.into(),
        _ => SET.into(),
    }
}

/// Whether it is a [`Sealed`](crate::secret::Sealed), wherever it stands.
fn is_sealed(value: &Value) -> bool {
    value.as_object().is_some_and(|members| {
        ["key", "nonce", "sealed"]
            .iter()
            .all(|name| members.get(*name).is_some_and(Value::is_string))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::{KeyRing, Secret};

    fn sealed(nonce: u8) -> Value {
        let key = format!("{}=", "A".repeat(43));
        let ring = KeyRing::new("k", [("k", key.as_str())]).unwrap();
        let sealed = ring.seal(
            &Secret::new("hunter2"),
            Uuid::nil(),
            "password",
            [nonce; 24],
        );
        serde_json::to_value(sealed.unwrap()).unwrap()
    }

    fn webhook(url: &str, password: u8) -> Value {
        json!({
            "version": 1, "name": "cdr", "url": url, "updated": password,
            "authentication": { "method": "basic", "username": "pbx", "password": sealed(password) },
            "signing": [{ "kind": "hmac", "secret": sealed(9) }],
        })
    }

    #[test]
    fn what_came_or_went_is_shown_without_secrets() {
        let (before, after) = shown(None, Some(&webhook("http://x/", 1)));
        assert_eq!(before, Value::Null);
        let expected = json!({
            "version": 1, "name": "cdr", "url": "http://x/", "updated": 1,
            "authentication": { "method": "basic", "username": "pbx", "password": "(set)" },
            "signing": [{ "kind": "hmac", "secret": "(set)" }],
        });
        assert_eq!(after, expected);
        let (before, after) = shown(Some(&webhook("http://x/", 1)), None);
        assert_eq!((before, after), (expected, Value::Null));
        assert_eq!(shown(None, None), (Value::Null, Value::Null));
    }

    #[test]
    fn of_a_change_is_shown_what_differs() {
        let (before, after) = shown(
            Some(&webhook("http://x/", 1)),
            Some(&webhook("http://y/", 2)),
        );
        let authentication = |password| {
            json!({
                "method": "basic", "username": "pbx", "password": password,
            })
        };
        assert_eq!(
            before,
            json!({ "url": "http://x/", "authentication": authentication("(set)") })
        );
        assert_eq!(
            after,
            json!({ "url": "http://y/", "authentication": authentication("(changed)") })
        );
        let (before, after) = shown(
            Some(&webhook("http://x/", 1)),
            Some(&webhook("http://x/", 1)),
        );
        assert_eq!((before, after), (json!({}), json!({})));
        let mut renamed = webhook("http://x/", 1);
        renamed["authentication"]["username"] = "other".into();
        let (_, after) = shown(Some(&webhook("http://x/", 1)), Some(&renamed));
        let authentication = json!({ "method": "basic", "username": "other", "password": "(set)" });
        assert_eq!(after, json!({ "authentication": authentication }));
        let (before, after) = shown(Some(&json!({ "a": 1 })), Some(&json!({ "b": 2 })));
        assert_eq!((before, after), (json!({ "a": 1 }), json!({ "b": 2 })));
    }

    #[test]
    fn hashes_are_hidden() {
        let account = |hash: &str| json!({ "login": "ann", "password": hash, "hash": "h" });
        let (before, after) = shown(Some(&account("$1")), Some(&account("$2")));
        assert_eq!(before, json!({ "password": "(set)" }));
        assert_eq!(after, json!({ "password": "(changed)" }));
        let (_, after) = shown(None, Some(&account("$1")));
        assert_eq!(
            after,
            json!({ "login": "ann", "password": "(set)", "hash": "(set)" })
        );
        // What only looks like it is shown.
        let other =
            json!({ "password": { "set": true }, "x": { "key": 1, "nonce": "", "sealed": "" } });
        assert_eq!(shown(None, Some(&other)).1, other);
        assert_eq!(
            shown(Some(&json!(1)), Some(&json!(2))),
            (json!(1), json!(2))
        );
    }

    #[test]
    fn records_of_a_newer_release_are_read() {
        let record = json!({
            "version": 1, "id": Uuid::nil(), "time": Timestamp::EPOCH, "action": "x.y",
            "actor": { "kind": "robot", "id": null, "name": "R" }, "tenant": null, "more": 1,
            "target": { "kind": "x", "id": null, "name": "" }, "before": null, "after": {},
        });
        let entry: Entry = serde_json::from_value(record).unwrap();
        assert_eq!(entry.actor.kind, ActorKind::Unknown);
        assert_eq!((entry.request, entry.client), (None, None));
        assert_eq!(Actor::ringback().kind, ActorKind::Ringback);
    }
}
