//! A webhook's authentication between the API and its record: what comes in is sealed, what goes out
//! says only that a secret is set. Every method of authentication is here and nowhere else in the
//! API.

use std::time::Duration;

use axum::http::StatusCode;
use ringback_core::account::same_secret;
use ringback_core::secret::{KeyRing, NONCE_BYTES, Sealed, Secret};
use ringback_core::webhook::{Authentication, PASSWORD, TOKEN};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::problem::Problem;
use crate::signing::read_grace;

/// Longest user name, password or token, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// For how long what a change replaces is still good.
const GRACE: &str = "grace";

/// Authentication as it is posted. Read by hand and never shown, so that no error can repeat a
/// secret.
#[derive(Deserialize)]
pub(crate) struct AuthenticationForm(Value);

/// Seals and opens the secrets of one webhook.
pub(crate) struct Vault<'a> {
    pub(crate) keys: &'a KeyRing,
    pub(crate) webhook: Uuid,
}

impl Vault<'_> {
    pub(crate) fn open(&self, sealed: &Sealed, field: &'static str) -> Result<Secret, Problem> {
        Ok(self.keys.open(sealed, self.webhook, field)?)
    }

    pub(crate) fn seal(&self, secret: &Secret, field: &'static str) -> Result<Sealed, Problem> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        Ok(self.keys.seal(secret, self.webhook, field, nonce)?)
    }

    /// The same secret, sealed for `to`.
    pub(crate) fn carry(
        &self,
        sealed: &Sealed,
        field: &'static str,
        to: &Self,
    ) -> Result<Sealed, Problem> {
        to.seal(&self.open(sealed, field)?, field)
    }

    /// Whether ours and what `other` sealed are the same secret.
    pub(crate) fn same(
        &self,
        sealed: &Sealed,
        other: (&Sealed, &Self),
        field: &'static str,
    ) -> Result<bool, Problem> {
        let (ours, theirs) = (self.open(sealed, field)?, other.1.open(other.0, field)?);
        Ok(same_secret(ours.expose(), theirs.expose()))
    }
}

/// Fresh randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), Problem> {
    getrandom::fill(bytes).map_err(|error| {
        tracing::error!(%error, "the system has no randomness");
        let detail = "the system gives no randomness; try again";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no_randomness", detail)
    })
}

impl AuthenticationForm {
    /// For how long what it replaces is still tried; `None` when it does not say.
    pub(crate) fn grace(&self) -> Result<Option<Duration>, Problem> {
        let grace = match self.0.as_object() {
            Some(form) => text(form, GRACE)?,
            None => None,
        };
        grace
            .map(|text| read_grace(text).map_err(invalid))
            .transpose()
    }

    /// The authentication after this change. Secrets that it does not mention are kept.
    pub(crate) fn apply(
        &self,
        current: &Authentication,
        vault: &Vault<'_>,
    ) -> Result<Authentication, Problem> {
        let Value::Object(form) = &self.0 else {
            return Err(invalid(
                "authentication must be an object such as {\"method\":\"none\"}",
            ));
        };
        let method = text(form, "method")?.unwrap_or_else(|| current.method());
        match method {
            "none" => {
                only(form, method, &[])?;
                Ok(Authentication::None)
            }
            "basic" => {
                let old = match current {
                    Authentication::Basic { username, password } => Some((username, password)),
                    _ => None,
                };
                let (username, password) = login(form, method, old, vault)?;
                Ok(Authentication::Basic { username, password })
            }
            "digest" => {
                let old = match current {
                    Authentication::Digest { username, password } => Some((username, password)),
                    _ => None,
                };
                let (username, password) = login(form, method, old, vault)?;
                Ok(Authentication::Digest { username, password })
            }
            "bearer" => {
                only(form, method, &[TOKEN])?;
                let old = match current {
                    Authentication::Bearer { token } => Some(token),
                    _ => None,
                };
                let token = secret(form, TOKEN, old, vault, check_token)?;
                Ok(Authentication::Bearer { token })
            }
            _ => Err(invalid(
                "the authentication method must be none, basic, digest or bearer",
            )),
        }
    }
}

/// As the API shows it.
pub(crate) fn view(authentication: &Authentication) -> Value {
    let method = authentication.method();
    let set = json!({ "set": true });
    match authentication {
        Authentication::None => json!({ "method": method }),
        Authentication::Basic { username, .. } | Authentication::Digest { username, .. } => {
            json!({ "method": method, "username": username, PASSWORD: set })
        }
        Authentication::Bearer { .. } => json!({ "method": method, TOKEN: set }),
    }
}

/// The same secret, opened with the keys of `from` and sealed with those of `to`.
pub(crate) fn transfer(
    authentication: &Authentication,
    from: &Vault<'_>,
    to: &Vault<'_>,
) -> Result<Authentication, Problem> {
    let Some((sealed, field)) = authentication.secret() else {
        return Ok(Authentication::None);
    };
    Ok(authentication.with_secret(from.carry(sealed, field, to)?))
}

/// Whether both authenticate in the same way with the same secret, whatever this is sealed with.
pub(crate) fn same(
    a: (&Authentication, &Vault<'_>),
    b: (&Authentication, &Vault<'_>),
) -> Result<bool, Problem> {
    match (a.0.secret(), b.0.secret()) {
        (Some((ours, field)), Some((theirs, _))) => {
            Ok(a.0.with_secret(theirs.clone()) == *b.0 && a.1.same(ours, (theirs, b.1), field)?)
        }
        _ => Ok(a.0 == b.0),
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::invalid("invalid_authentication", detail).with("field", "authentication")
}

/// Refuses fields that the method does not have: a password that is silently ignored is a trap.
fn only(form: &Map<String, Value>, method: &str, fields: &[&str]) -> Result<(), Problem> {
    let known = |name: &str| ["method", GRACE].contains(&name) || fields.contains(&name);
    match form.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(_) if fields.is_empty() => Err(invalid(format!(
            "authentication {method} takes no further fields"
        ))),
        Some(_) => {
            let fields = fields.join(" and ");
            Err(invalid(format!(
                "authentication {method} takes only {fields}"
            )))
        }
    }
}

fn text<'a>(form: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    match form.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{name} must be text"))),
    }
}

/// User name and password, of which those that are not mentioned are kept.
fn login(
    form: &Map<String, Value>,
    method: &str,
    old: Option<(&String, &Sealed)>,
    vault: &Vault<'_>,
) -> Result<(String, Sealed), Problem> {
    only(form, method, &["username", PASSWORD])?;
    let username = match (text(form, "username")?, old) {
        (Some(new), _) => check_username(new)?.to_owned(),
        (None, Some((old, _))) => old.clone(),
        (None, None) => {
            return Err(invalid(format!("{method} authentication needs a username")));
        }
    };
    let old = old.map(|(_, password)| password);
    let password = secret(form, PASSWORD, old, vault, check_password)?;
    Ok((username, password))
}

fn secret(
    form: &Map<String, Value>,
    name: &'static str,
    old: Option<&Sealed>,
    vault: &Vault<'_>,
    check: fn(&str) -> Result<(), Problem>,
) -> Result<Sealed, Problem> {
    // What the API shows may be sent back, and keeps the secret.
    let shown = json!({ "set": true });
    let new = if form.get(name) == Some(&shown) {
        None
    } else {
        text(form, name)?
    };
    match (new, old) {
        (Some(new), _) => {
            check(new)?;
            vault.seal(&Secret::new(new), name)
        }
        (None, Some(old)) => Ok(old.clone()),
        (None, None) => Err(invalid(format!("this authentication needs a {name}"))),
    }
}

/// RFC 7617 §2: no colon, no control characters. For Digest a colon would make the end of the name
/// ambiguous in what is hashed (RFC 7616 §3.4.2).
fn check_username(text: &str) -> Result<&str, Problem> {
    let legal = !text.is_empty() && !text.contains(':') && !text.chars().any(char::is_control);
    match legal && text.len() <= TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(invalid(
            "a username is 1 to 4,096 bytes without ':' and control characters",
        )),
    }
}

/// RFC 7617 §2: no control characters. It may be empty: some receivers take a key as user name.
fn check_password(text: &str) -> Result<(), Problem> {
    match text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(invalid(
            "a password is at most 4,096 bytes without control characters",
        )),
    }
}

/// What can stand in the header; more than the grammar of RFC 6750 §2.1 allows, as receivers do.
fn check_token(text: &str) -> Result<(), Problem> {
    let legal = (1..=TEXT_BYTES_MAX).contains(&text.len());
    match legal && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(invalid(
            "a bearer token is 1 to 4,096 visible ASCII characters",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBHOOK: Uuid = Uuid::from_u128(7);

    fn keys(primary: &str) -> KeyRing {
        let old = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let new = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        KeyRing::new(primary, [("old", old), ("new", new)]).unwrap()
    }

    fn apply(current: &Authentication, form: Value) -> Result<Authentication, Problem> {
        let keys = keys("old");
        AuthenticationForm(form).apply(
            current,
            &Vault {
                keys: &keys,
                webhook: WEBHOOK,
            },
        )
    }

    fn basic() -> Authentication {
        let form = json!({"method": "basic", "username": "pbx", "password": "hunter2"});
        apply(&Authentication::None, form).unwrap()
    }

    #[test]
    fn secrets_are_kept_unless_mentioned() {
        for keeps in [
            json!({}),
            json!({"method": "basic"}),
            json!({"username": "pbx"}),
            json!({"password": null}),
            view(&basic()),
        ] {
            let current = basic();
            assert_eq!(apply(&current, keeps).unwrap(), current);
        }
        let changed = apply(&basic(), json!({"password": "other"})).unwrap();
        let Authentication::Basic { password, .. } = changed else {
            panic!()
        };
        let opened = keys("old").open(&password, WEBHOOK, PASSWORD).unwrap();
        assert_eq!(opened.expose(), "other");
    }

    #[test]
    fn digest_has_a_password_of_its_own() {
        let form = json!({"method": "digest", "username": "Jäsøn Doe", "password": "hunter2"});
        let digest = apply(&Authentication::None, form).unwrap();
        let shown = json!({"method": "digest", "username": "Jäsøn Doe", "password": {"set": true}});
        assert_eq!(view(&digest), shown);
        assert_eq!(apply(&digest, shown).unwrap(), digest);
        assert!(apply(&basic(), json!({"method": "digest", "username": "x"})).is_err());
        let keys = keys("new");
        let vault = Vault {
            keys: &keys,
            webhook: WEBHOOK,
        };
        let renewed = transfer(&digest, &vault, &vault).unwrap();
        assert!(same((&digest, &vault), (&renewed, &vault)).unwrap());
        assert!(!same((&basic(), &vault), (&renewed, &vault)).unwrap());
        let elsewhere = Vault {
            keys: &keys,
            webhook: Uuid::from_u128(8),
        };
        let moved = transfer(&renewed, &vault, &elsewhere).unwrap();
        assert!(same((&moved, &elsewhere), (&digest, &vault)).unwrap());
    }

    #[test]
    fn a_change_of_method_needs_its_secret() {
        assert!(apply(&basic(), json!({"method": "bearer"})).is_err());
        let bearer = apply(&basic(), json!({"method": "bearer", "token": "t0ken"})).unwrap();
        assert!(apply(&bearer, json!({"method": "basic", "username": "x"})).is_err());
        let none = apply(&bearer, json!({"method": "none"})).unwrap();
        assert_eq!(none, Authentication::None);
    }

    #[test]
    fn what_is_wrong_is_refused_without_repeating_it() {
        for wrong in [
            json!("hunter2"),
            json!(["hunter2"]),
            json!({"method": "hunter2"}),
            json!({"method": "basic", "username": "a:hunter2", "password": ""}),
            json!({"method": "digest", "username": "a:hunter2", "password": ""}),
            json!({"method": "digest", "username": "a", "token": "hunter2"}),
            json!({"method": "basic", "username": "a", "password": 2, "hunter2": 1}),
            json!({"method": "basic", "username": "a", "password": {"set": "hunter2"}}),
            json!({"method": "basic", "username": "a", "password": "hunter2\n"}),
            json!({"method": "basic", "username": "a", "token": "hunter2"}),
            json!({"method": "none", "token": "hunter2"}),
            json!({"method": "bearer", "token": "hunter2 hunter2"}),
            json!({"method": "bearer", "token": ""}),
        ] {
            let problem = apply(&Authentication::None, wrong.clone()).unwrap_err();
            assert!(
                !problem.detail().contains("hunter2"),
                "{wrong}: {problem:?}"
            );
        }
    }

    #[test]
    fn views_and_debug_show_no_secret() {
        let shown = format!("{} {:?}", view(&basic()), basic());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(view(&basic())["password"], json!({"set": true}));
    }

    #[test]
    fn resealing_changes_the_key_and_nothing_else() {
        let keys = keys("new");
        let vault = Vault {
            keys: &keys,
            webhook: WEBHOOK,
        };
        let renewed = transfer(&basic(), &vault, &vault).unwrap();
        let Authentication::Basic { username, password } = &renewed else {
            panic!()
        };
        assert_eq!((username.as_str(), password.key_id()), ("pbx", "new"));
        assert_eq!(
            keys.open(password, WEBHOOK, PASSWORD).unwrap().expose(),
            "hunter2"
        );
    }
}
