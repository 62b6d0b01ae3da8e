//! What a receiver answers: data, so that a test or a demo can change it while it runs.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringback_core::digest::{self, Challenge, Login};
use ringback_core::secret::Secret;
use ringback_core::signature::{Refused, Signed, Verifier};
use ringback_core::time::Timestamp;
use uuid::Uuid;

/// What a receiver answers. The default is 200 to everything, at once.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// Answered to the requests that are chosen, by default all; the others get 200.
    pub(crate) status: u16,
    /// Chooses the first so many requests after this behaviour was set.
    pub(crate) first: Option<u64>,
    /// Chooses this share of requests, 0 to 1.
    pub(crate) share: Option<f64>,
    /// Decides which requests `share` chooses.
    pub(crate) seed: u64,
    /// How long those that are chosen wait for their answer.
    pub(crate) hang: Duration,
    /// How long every answer takes at least.
    pub(crate) delay: Duration,
    /// Headers of every answer.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Requests without these are answered 401.
    pub(crate) credentials: Option<Credentials>,
    /// Requests without a signature that this verifies are answered 401.
    pub(crate) verifier: Option<Verifier>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            status: 200,
            first: None,
            share: None,
            seed: 0,
            hang: Duration::ZERO,
            delay: Duration::ZERO,
            headers: Vec::new(),
            credentials: None,
            verifier: None,
        }
    }
}

/// How one request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) after: Duration,
}

impl Behaviour {
    /// The answer to the request number `number`, from 0, that may ask.
    pub(super) fn answer(&self, number: u64) -> Answer {
        let first = self.first.is_none_or(|first| number < first);
        let share = self
            .share
            .is_none_or(|share| fraction(self.seed, number) < share);
        match first && share {
            true => Answer {
                status: StatusCode::from_u16(self.status)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                after: self.delay + self.hang,
            },
            false => Answer {
                status: StatusCode::OK,
                after: self.delay,
            },
        }
    }

    /// Whether the request shows the credentials, if any are required.
    pub(super) fn is_authorized(&self, asked: &Asked<'_>) -> bool {
        let right = |required: &Credentials| required.are_shown(asked);
        self.credentials.as_ref().is_none_or(right)
    }

    /// The answer to who does not show that it may.
    pub(super) fn unauthorized(&self) -> Answer {
        Answer {
            status: StatusCode::UNAUTHORIZED,
            after: self.delay,
        }
    }

    /// Whether a request is signed; `None` when nobody asks.
    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Option<Result<(), Refused>> {
        let verifier = self.verifier.as_ref()?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let signed = || {
            Some(Signed {
                id: text("webhook-id")?,
                timestamp: text("webhook-timestamp")?,
                signatures: text("webhook-signature")?,
                body,
            })
        };
        Some(match signed() {
            Some(signed) => verifier.verify(signed, now),
            None => Err(Refused::Missing),
        })
    }
}

/// A number from 0 to below 1, the same for the same seed and number (SplitMix64).
fn fraction(seed: u64, number: u64) -> f64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The upper 53 bits: as many as an f64 holds exactly.
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

/// A request, as far as credentials cover it.
pub(super) struct Asked<'a> {
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) body: &'a [u8],
}

/// What requests must show.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    required: Required,
    /// Answered as `www-authenticate`.
    pub(super) challenge: HeaderValue,
}

#[derive(Clone, Debug)]
enum Required {
    /// Exactly this `authorization`.
    Header(Secret),
    /// A reply to the challenge.
    Digest {
        username: String,
        password: Secret,
        challenge: Box<Challenge>,
    },
}

impl Credentials {
    /// `user:password`.
    pub(crate) fn basic(user_and_password: &Secret) -> Self {
        let pair = STANDARD.encode(user_and_password.expose());
        Self {
            required: Required::Header(Secret::new(format!("Basic {pair}"))),
            challenge: HeaderValue::from_static("Basic realm=\"ringback listen\""),
        }
    }

    /// A bearer token.
    pub(crate) fn bearer(token: &Secret) -> Self {
        Self {
            required: Required::Header(Secret::new(format!("Bearer {}", token.expose()))),
            challenge: HeaderValue::from_static("Bearer"),
        }
    }

    /// `user:password` for Digest. The nonce is good while the receiver runs.
    pub(crate) fn digest(user_and_password: &Secret, nonce: Uuid) -> Result<Self, String> {
        let text = user_and_password.expose();
        let (username, password) = text.split_once(':').ok_or("use user:password")?;
        let challenge = format!(
            "Digest realm=\"ringback listen\", qop=\"auth\", algorithm=SHA-256, charset=UTF-8, nonce=\"{}\"",
            nonce.as_simple()
        );
        let read = Challenge::strongest([challenge.as_bytes()]);
        Ok(Self {
            required: Required::Digest {
                username: username.to_owned(),
                password: Secret::new(password),
                challenge: Box::new(read.map_err(|error| error.to_string())?),
            },
            challenge: HeaderValue::try_from(challenge).map_err(|error| error.to_string())?,
        })
    }

    fn are_shown(&self, asked: &Asked<'_>) -> bool {
        let Some(given) = asked.authorization.map(HeaderValue::as_bytes) else {
            return false;
        };
        match &self.required {
            Required::Header(header) => given == header.expose().as_bytes(),
            Required::Digest {
                username,
                password,
                challenge,
            } => {
                let login = Login {
                    username,
                    password: password.expose(),
                };
                let request = digest::Request {
                    method: asked.method,
                    uri: asked.target,
                    body: asked.body,
                };
                challenge.is_answered_by(given, login, request)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(behaviour: &Behaviour, count: u64) -> Vec<u16> {
        let status = |number| behaviour.answer(number).status.as_u16();
        (0..count).map(status).collect()
    }

    #[test]
    fn fails_all_the_first_or_a_share() {
        let fail = Behaviour {
            status: 503,
            ..Behaviour::default()
        };
        assert_eq!(statuses(&Behaviour::default(), 2), [200, 200]);
        assert_eq!(statuses(&fail, 2), [503, 503]);
        let first = Behaviour {
            first: Some(2),
            ..fail.clone()
        };
        assert_eq!(statuses(&first, 4), [503, 503, 200, 200]);
        let share = Behaviour {
            share: Some(0.3),
            ..fail
        };
        let failed = statuses(&share, 10_000)
            .iter()
            .filter(|status| **status == 503)
            .count();
        assert!((2_800..3_200).contains(&failed), "{failed}");
        assert_eq!(statuses(&share, 100), statuses(&share, 100));
        let other = Behaviour {
            seed: 1,
            ..share.clone()
        };
        assert_ne!(statuses(&other, 100), statuses(&share, 100));
    }

    #[test]
    fn only_the_chosen_hang_and_all_are_delayed() {
        let [second, minute] = [1, 60].map(Duration::from_secs);
        let behaviour = Behaviour {
            first: Some(1),
            delay: second,
            hang: minute,
            ..Behaviour::default()
        };
        assert_eq!(behaviour.answer(0).after, second + minute);
        assert_eq!(behaviour.answer(1).after, second);
    }

    #[test]
    fn credentials_are_required_and_not_shown() {
        let basic = Credentials::basic(&Secret::new("Aladdin:open sesame"));
        let behaviour = Behaviour {
            credentials: Some(basic),
            ..Behaviour::default()
        };
        let shown = |header: Option<&'static str>| {
            let header = header.map(HeaderValue::from_static);
            behaviour.is_authorized(&Asked {
                authorization: header.as_ref(),
                method: "POST",
                target: "/",
                body: b"",
            })
        };
        // The example of RFC 7617.
        assert!(shown(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")));
        assert!(!shown(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ")));
        assert!(!shown(None));
        assert!(!format!("{behaviour:?}").contains("QWxh"));
    }

    /// What our own client replies, and nothing else.
    #[test]
    fn digest_wants_a_reply_to_its_challenge() {
        let secret = Secret::new("Jäsøn:hunter2:x");
        let required = Credentials::digest(&secret, Uuid::from_u128(7)).unwrap();
        assert!(!format!("{required:?}").contains("hunter2"));
        let challenge = Challenge::strongest([required.challenge.as_bytes()]).unwrap();
        let request = |uri| digest::Request {
            method: "POST",
            uri,
            body: b"{}",
        };
        let reply = |username, password, uri| {
            let login = Login { username, password };
            let reply = challenge.reply(login, request(uri), "cnonce", 1);
            HeaderValue::try_from(reply).unwrap()
        };
        let shown = |header: &HeaderValue, target| {
            required.are_shown(&Asked {
                authorization: Some(header),
                method: "POST",
                target,
                body: b"{}",
            })
        };
        let right = reply("Jäsøn", "hunter2:x", "/cdr?a=1");
        assert!(shown(&right, "/cdr?a=1"));
        assert!(!shown(&right, "/cdr"));
        assert!(!shown(&reply("Jason", "hunter2:x", "/"), "/"));
        assert!(!shown(&reply("Jäsøn", "hunter2", "/"), "/"));
        for other in [
            "Basic QQ==",
            "Digest",
            "Digest nonce=",
            "Digest response=\"\"",
        ] {
            assert!(!shown(&HeaderValue::from_static(other), "/"), "{other}");
        }
        assert!(Credentials::digest(&Secret::new("hunter2"), Uuid::nil()).is_err());
    }
}
