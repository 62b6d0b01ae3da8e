//! A webhook's signing keys between the API and its record: made or brought along, sealed, rotated,
//! and shown to whoever sets up the receiver, on request only.

use std::time::Duration;

use ringback_core::account::same_secret;
use ringback_core::secret::{Sealed, Secret};
use ringback_core::signature::{InvalidKey, Kind, RANDOM_BYTES, Signer, generate};
use ringback_core::signing::{
    FIELD, GRACE, GRACE_MAX, KEYS_MAX, SigningKey, TooManyKeys, in_force, rotated,
};
use ringback_core::time::{Timestamp, duration_label, parse_duration};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authentication::{Vault, fill_random};
use crate::problem::Problem;

/// Longest text of a key: an Ed25519 pair in base64 has far less.
const TEXT_BYTES_MAX: usize = 256;

/// A rotation as it is posted. Read by hand and never shown, so that no error can repeat a secret.
#[derive(Deserialize)]
pub(crate) struct RotationForm(Value);

/// What is asked of a rotation.
pub(crate) struct Rotation {
    kind: Kind,
    secret: Option<Secret>,
    /// How long those before still sign.
    pub(crate) grace: Duration,
}

/// What the key of a new webhook is called in its form.
const GIVEN: &str = "signing_secret";

impl RotationForm {
    pub(crate) fn read(&self) -> Result<Rotation, Problem> {
        let Value::Object(form) = &self.0 else {
            let detail = "a rotation must be an object such as {}";
            return Err(Problem::invalid("invalid_signing_secret", detail));
        };
        let is_known = |name: &&String| ["kind", "secret", "grace"].contains(&name.as_str());
        if let Some(name) = form.keys().find(|name| !is_known(name)) {
            return Err(invalid(
                name,
                "a rotation takes only kind, secret and grace",
            ));
        }
        let secret = text(form, "secret")?.map(Secret::new);
        let brought = secret.as_ref().map(read).transpose()?;
        let brought = brought.map(|signer| signer.kind());
        let asked = match text(form, "kind")? {
            None => None,
            Some("hmac") => Some(Kind::Hmac),
            Some("ed25519") => Some(Kind::Ed25519),
            Some(_) => return Err(invalid("kind", "must be hmac or ed25519")),
        };
        let kind = match (asked, brought) {
            (Some(asked), Some(brought)) if asked != brought => {
                let detail = "kind and secret do not go together; leave kind out";
                return Err(invalid("kind", detail));
            }
            (asked, brought) => asked.or(brought).unwrap_or(Kind::Hmac),
        };
        let grace = match text(form, "grace")? {
            None => GRACE,
            Some(text) => read_grace(text).map_err(|error| invalid("grace", error))?,
        };
        Ok(Rotation {
            kind,
            secret,
            grace,
        })
    }
}

/// How long what is replaced is still good: a duration, or 0 for not at all.
pub(crate) fn read_grace(text: &str) -> Result<Duration, String> {
    let grace = match text {
        "0" => Some(Duration::ZERO),
        _ => parse_duration(text).ok(),
    };
    grace.filter(|grace| *grace <= GRACE_MAX).ok_or_else(|| {
        let most = duration_label(GRACE_MAX);
        format!("grace must be a duration such as 24h, at most {most}, or 0")
    })
}

impl Rotation {
    /// How the new key signs.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The keys after this rotation.
    pub(crate) fn apply(
        &self,
        keys: &[SigningKey],
        vault: &Vault<'_>,
        now: Timestamp,
    ) -> Result<Vec<SigningKey>, Problem> {
        if let Some(secret) = &self.secret {
            for key in in_force(keys, now) {
                if equal(&vault.open(&key.secret, FIELD)?, secret)? {
                    let detail = "this secret signs for the webhook already; give another one, or none to have one made";
                    return Err(Problem::conflict("signing_secret_in_use", detail));
                }
            }
        }
        let new = made(self.kind, self.secret.as_ref(), vault, now)?;
        rotated(keys, new, self.grace, now).map_err(|error: TooManyKeys| {
            Problem::conflict("too_many_signing_keys", error.to_string())
        })
    }
}

/// The key of a new webhook: made here, unless a secret was brought along.
pub(crate) fn first(
    secret: Option<&Secret>,
    vault: &Vault<'_>,
    now: Timestamp,
) -> Result<SigningKey, Problem> {
    let is_hmac = |signer: &Signer| signer.kind() == Kind::Hmac;
    if let Some(secret) = secret
        && !is_hmac(&read(secret).map_err(|problem| problem.with("field", GIVEN))?)
    {
        let detail = "every webhook is signed with HMAC: give whsec_…, and add an Ed25519 key with a rotation";
        return Err(invalid(GIVEN, detail));
    }
    made(Kind::Hmac, secret, vault, now)
}

fn made(
    kind: Kind,
    secret: Option<&Secret>,
    vault: &Vault<'_>,
    now: Timestamp,
) -> Result<SigningKey, Problem> {
    let secret = match secret {
        Some(secret) => Secret::new(secret.expose().trim()),
        None => {
            let mut random = [0; RANDOM_BYTES];
            fill_random(&mut random)?;
            generate(kind, random)
        }
    };
    Ok(SigningKey {
        kind,
        secret: vault.seal(&secret, FIELD)?,
        created: now,
        until: None,
    })
}

/// As lists show the keys: that they are there.
pub(crate) fn view(keys: &[SigningKey], now: Timestamp) -> Value {
    in_force(keys, now).map(described).collect()
}

/// With what a receiver verifies by: the secret of HMAC, the public key of Ed25519.
pub(crate) fn shown(
    keys: &[SigningKey],
    vault: &Vault<'_>,
    now: Timestamp,
) -> Result<Value, Problem> {
    let keys = in_force(keys, now).map(|key| {
        let mut shown = described(key);
        let secret = vault.open(&key.secret, FIELD)?;
        match read(&secret)?.public() {
            Some(public) => shown["public_key"] = public.into(),
            None => shown["secret"] = secret.expose().into(),
        }
        Ok(shown)
    });
    keys.collect()
}

fn described(key: &SigningKey) -> Value {
    json!({ "kind": key.kind, "created": key.created, "until": key.until })
}

/// The same keys, as far as they sign, opened with the keys of `from` and sealed with those of `to`.
/// They may come from a document: what is no key is refused.
pub(crate) fn transfer(
    keys: &[SigningKey],
    from: &Vault<'_>,
    to: &Vault<'_>,
    now: Timestamp,
) -> Result<Vec<SigningKey>, Problem> {
    let keys = in_force(keys, now).map(|key| {
        let secret = from.open(&key.secret, FIELD)?;
        if read(&secret)?.kind() != key.kind {
            return Err(invalid(
                "webhooks",
                "a signing key is of another kind than it says",
            ));
        }
        let secret: Sealed = to.seal(&secret, FIELD)?;
        Ok(SigningKey {
            secret,
            ..key.clone()
        })
    });
    let keys: Vec<_> = keys.collect::<Result<_, Problem>>()?;
    match keys.len() <= KEYS_MAX {
        true => Ok(keys),
        false => {
            let detail = format!("at most {KEYS_MAX} keys sign for a webhook");
            Err(invalid("webhooks", detail))
        }
    }
}

/// Whether the same keys sign, whatever they are sealed with.
pub(crate) fn same(
    a: (&[SigningKey], &Vault<'_>),
    b: (&[SigningKey], &Vault<'_>),
    now: Timestamp,
) -> Result<bool, Problem> {
    if !in_force(a.0, now)
        .map(described)
        .eq(in_force(b.0, now).map(described))
    {
        return Ok(false);
    }
    for (left, right) in in_force(a.0, now).zip(in_force(b.0, now)) {
        if !a.1.same(&left.secret, (&right.secret, b.1), FIELD)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two texts are the same key: what they sign tells, whatever form they are written in.
fn equal(a: &Secret, b: &Secret) -> Result<bool, Problem> {
    let sign = |secret| Ok::<_, Problem>(read(secret)?.sign("", 0, b""));
    Ok(same_secret(&sign(a)?, &sign(b)?))
}

fn read(secret: &Secret) -> Result<Signer, Problem> {
    if secret.expose().len() > TEXT_BYTES_MAX {
        return Err(invalid("secret", InvalidKey::HmacBytes.to_string()));
    }
    Signer::read(secret).map_err(|error| invalid("secret", error.to_string()))
}

fn text<'a>(form: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    match form.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(name, "must be text")),
    }
}

fn invalid(field: &str, detail: impl Into<String>) -> Problem {
    Problem::invalid("invalid_signing_secret", detail).with("field", field)
}

#[cfg(test)]
mod tests {
    use ringback_core::secret::KeyRing;
    use uuid::Uuid;

    use super::*;

    const OWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const WHSK: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const WEBHOOK: Uuid = Uuid::from_u128(7);

    fn keys(primary: &str) -> KeyRing {
        let old = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let new = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        KeyRing::new(primary, [("old", old), ("new", new)]).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::parse("2026-11-21T00:00:00Z").unwrap() + Duration::from_secs(seconds)
    }

    fn rotate(current: &[SigningKey], form: Value) -> Result<Vec<SigningKey>, Problem> {
        let keys = keys("old");
        let vault = Vault {
            keys: &keys,
            webhook: WEBHOOK,
        };
        RotationForm(form).read()?.apply(current, &vault, at(0))
    }

    #[test]
    fn rotations_as_they_are_posted() {
        let one = rotate(&[], json!({})).unwrap();
        let two = rotate(&one, json!({ "secret": OWN, "grace": "1h" })).unwrap();
        assert_eq!(two[1].until, Some(at(3600)));
        let three = rotate(&two, json!({ "kind": "ed25519" })).unwrap();
        let kinds: Vec<_> = three.iter().map(|key| key.kind).collect();
        assert_eq!(kinds, [Kind::Hmac, Kind::Hmac, Kind::Ed25519]);
        let own = rotate(&three, json!({ "secret": WHSK, "grace": "0" })).unwrap();
        assert_eq!(own.len(), 3);
        let four = rotate(&own, json!({})).unwrap();
        assert!(rotate(&four, json!({})).is_err(), "too many");
        assert_eq!(rotate(&four, json!({ "grace": "0" })).unwrap().len(), 2);
        // In whatever form it is written.
        for known in [OWN.to_owned(), format!(" {OWN}\n")] {
            assert!(rotate(&two, json!({ "secret": known })).is_err());
        }
    }

    #[test]
    fn what_is_wrong_is_refused_without_repeating_it() {
        for wrong in [
            json!("hunter2"),
            json!(["hunter2"]),
            json!({ "hunter2": 1 }),
            json!({ "kind": "hunter2" }),
            json!({ "secret": "hunter2" }),
            json!({ "secret": ["hunter2"] }),
            json!({ "secret": "whsec_hunter2!" }),
            json!({ "secret": "whsec_aHVudGVyMg==" }),
            json!({ "secret": format!("whsec_{}", "hunter2".repeat(1000)) }),
            json!({ "secret": "whpk_hunter2" }),
            json!({ "secret": OWN, "kind": "ed25519" }),
            json!({ "grace": "hunter2" }),
            json!({ "grace": "31d" }),
            json!({ "grace": 5 }),
        ] {
            let problem = rotate(&[], wrong.clone()).unwrap_err();
            let detail = problem.detail();
            assert!(
                !detail.contains("hunter2") && !detail.contains(OWN) && !detail.contains("aHV"),
                "{wrong}: {problem:?}"
            );
        }
    }

    #[test]
    fn only_what_a_receiver_needs_is_shown() {
        let keys = keys("old");
        let vault = Vault {
            keys: &keys,
            webhook: WEBHOOK,
        };
        let signing = rotate(&[], json!({ "secret": OWN })).unwrap();
        let signing = rotate(&signing, json!({ "secret": WHSK })).unwrap();
        let shown = shown(&signing, &vault, at(0)).unwrap();
        assert_eq!(shown[0]["secret"], OWN);
        assert_eq!(
            shown[1]["public_key"],
            "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        );
        assert!(!shown.to_string().contains("whsk_"), "{shown}");
        let listed = format!("{} {signing:?}", view(&signing, at(0)));
        assert!(
            !listed.contains("whs") && !listed.contains("MfKQ"),
            "{listed}"
        );
    }

    #[test]
    fn resealing_changes_the_key_and_drops_what_signs_no_more() {
        let (old, new) = (keys("old"), keys("new"));
        let vault = |keys| Vault {
            keys,
            webhook: WEBHOOK,
        };
        let signing = rotate(&[], json!({ "secret": OWN })).unwrap();
        let signing = rotate(&signing, json!({ "grace": "1h" })).unwrap();
        let renewed = transfer(&signing, &vault(&new), &vault(&new), at(1)).unwrap();
        let (before, after) = ((&signing[..], &vault(&old)), (&renewed[..], &vault(&new)));
        assert!(same(before, after, at(1)).unwrap());
        assert!(renewed.iter().all(|key| key.secret.key_id() == "new"));
        let later = transfer(&signing, &vault(&new), &vault(&new), at(3600)).unwrap();
        assert_eq!(later.len(), 1);
        let others = rotate(&[], json!({})).unwrap();
        assert!(!same((&others, &vault(&old)), (&later, &vault(&new)), at(3600)).unwrap());
    }
}
