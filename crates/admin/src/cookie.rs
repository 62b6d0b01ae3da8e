//! The cookie of a session: sealed with the key ring, so that every administration reads it and nobody
//! else writes one.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_core::account::Session;
use ringback_core::secret::{KeyRing, NONCE_BYTES, Secret};
use ringback_core::time::Timestamp;
use uuid::Uuid;

use crate::authentication::fill_random;
use crate::problem::Problem;

pub(crate) const NAME: &str = "ringback";
/// Browsers take this name only from a page of this very host, by TLS.
pub(crate) const NAME_SECURE: &str = "__Host-ringback";
/// What it is sealed for: nothing else that is sealed opens as a session.
const FIELD: &str = "session";
/// Longest value that is looked at.
const BYTES_MAX: usize = 4096;

/// How sessions stand in cookies.
pub(crate) struct Cookies<'a> {
    pub(crate) keys: &'a KeyRing,
    /// For TLS alone.
    pub(crate) secure: bool,
}

impl Cookies<'_> {
    fn name(&self) -> &'static str {
        match self.secure {
            true => NAME_SECURE,
            false => NAME,
        }
    }

    /// The header that sets the cookie of a session.
    pub(crate) fn set(&self, session: &Session, now: Timestamp) -> Result<HeaderValue, Problem> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let text = serde_json::to_string(session).map_err(|error| unwritable(&error))?;
        let sealed = self
            .keys
            .seal(&Secret::new(text), Uuid::nil(), FIELD, nonce)?;
        let sealed = serde_json::to_vec(&sealed).map_err(|error| unwritable(&error))?;
        let value = URL_SAFE_NO_PAD.encode(sealed);
        self.header(&value, session.ends.since(now).as_secs())
    }

    /// The header that removes it.
    pub(crate) fn remove(&self) -> Result<HeaderValue, Problem> {
        self.header("", 0)
    }

    fn header(&self, value: &str, seconds: u64) -> Result<HeaderValue, Problem> {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.name();
        let cookie =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(cookie).map_err(|error| unwritable(&error))
    }

    /// Whether there is a cookie of ours, whatever is in it.
    pub(crate) fn is_there(&self, headers: &HeaderMap) -> bool {
        self.value(headers).is_some()
    }

    /// The session in the cookie; `None` when there is none that we have written.
    pub(crate) fn read(&self, headers: &HeaderMap) -> Option<Session> {
        let value = self
            .value(headers)
            .filter(|value| value.len() <= BYTES_MAX)?;
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let sealed = serde_json::from_slice(&sealed).ok()?;
        let text = self.keys.open(&sealed, Uuid::nil(), FIELD).ok()?;
        serde_json::from_str(text.expose()).ok()
    }

    fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == self.name())
            .map(|(_, value)| value)
    }
}

fn unwritable(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a session's cookie cannot be written");
    let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(
        status,
        "internal",
        "the session could not be begun; Ringback's log says more",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringback_core::account::SignedInAs;

    use super::*;

    fn ring(byte: char) -> KeyRing {
        let key = format!("{}=", byte.to_string().repeat(43));
        KeyRing::new("k", [("k", key.as_str())]).unwrap()
    }

    fn session() -> Session {
        let now = Timestamp::EPOCH;
        Session {
            id: Uuid::from_u128(1),
            who: SignedInAs::Token {
                id: Uuid::from_u128(2),
            },
            csrf: "x".to_owned(),
            ends: now + Duration::from_secs(600),
            seen: now,
        }
    }

    fn sent_back(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        let others = format!("other=1; {pair}; last=2");
        HeaderMap::from_iter([(header::COOKIE, others.parse().unwrap())])
    }

    #[test]
    fn a_session_survives_its_cookie() {
        for secure in [false, true] {
            let keys = ring('A');
            let cookies = Cookies {
                keys: &keys,
                secure,
            };
            let set = cookies.set(&session(), Timestamp::EPOCH).unwrap();
            let text = set.to_str().unwrap();
            let flags = "; Path=/; Max-Age=600; HttpOnly; SameSite=Lax";
            let (name, flags) = match secure {
                true => ("__Host-ringback=", format!("{flags}; Secure")),
                false => ("ringback=", flags.to_owned()),
            };
            assert!(text.starts_with(name) && text.ends_with(&flags), "{text}");
            assert_eq!(cookies.read(&sent_back(&set)), Some(session()));
            // That of the other kind is not taken for it.
            let other = Cookies {
                keys: &keys,
                secure: !secure,
            };
            assert_eq!(other.read(&sent_back(&set)), None);
            let removed = cookies.remove().unwrap();
            assert!(removed.to_str().unwrap().contains("=; Path=/; Max-Age=0"));
        }
    }

    #[test]
    fn nobody_else_writes_one() {
        let (ours, other) = (ring('A'), ring('E'));
        let cookies = |keys| Cookies {
            keys,
            secure: false,
        };
        let set = cookies(&other).set(&session(), Timestamp::EPOCH).unwrap();
        assert_eq!(cookies(&ours).read(&sent_back(&set)), None);
        let set = cookies(&ours).set(&session(), Timestamp::EPOCH).unwrap();
        let text = set.to_str().unwrap();
        for byte in ["ringback=".len(), text.find(';').unwrap() - 5] {
            let mut forged = text.as_bytes().to_vec();
            forged[byte] = if forged[byte] == b'x' { b'y' } else { b'x' };
            let forged = HeaderValue::from_bytes(&forged).unwrap();
            assert_eq!(cookies(&ours).read(&sent_back(&forged)), None);
        }
        // A sealed secret of a webhook is no session.
        let text = serde_json::to_string(&session()).unwrap();
        let nonce = [0; NONCE_BYTES];
        let sealed = ours
            .seal(&Secret::new(text), Uuid::nil(), "password", nonce)
            .unwrap();
        let value = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&sealed).unwrap());
        let headers = sent_back(&format!("ringback={value}").parse().unwrap());
        assert!(cookies(&ours).is_there(&headers));
        assert_eq!(cookies(&ours).read(&headers), None);
        for nothing in ["", "ringback", "ringback=", "ringback=%", "x=ringback=1"] {
            let headers = HeaderMap::from_iter([(header::COOKIE, nothing.parse().unwrap())]);
            assert_eq!(cookies(&ours).read(&headers), None, "{nothing}");
        }
    }
}
