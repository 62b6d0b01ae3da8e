//! HTTP Digest (RFC 7616), the client's side: which challenge of an answer is taken up, and what is
//! replied. Pure: the client's nonce and the count of uses come from outside.
//!
//! | file | subject |
//! |---|---|
//! | `header` | the headers in which a server challenges |
//! | `reply` | the `Authorization` header |
//!
//! docs/adr/0010-digest.md says why no crate does all of this.

pub(crate) mod header;
mod reply;

use sha2::{Digest as _, Sha256};

pub use self::header::Malformed;
use self::header::{Params, params, schemes};
pub use self::reply::{Login, Request};
use crate::account::hex;

/// Longest realm, nonce or `opaque` that is taken, in bytes: challenges are kept for many webhooks.
pub(crate) const PART_BYTES_MAX: usize = 1024;
/// Most names of schemes that an error shows, and characters of each.
const NAMES_SHOWN_MAX: usize = 4;
const NAME_CHARS_MAX: usize = 24;

/// A challenge that can be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    pub(crate) realm: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) opaque: Option<Vec<u8>>,
    algorithm: Algorithm,
    /// Whether the server named the algorithm: only then the reply does (RFC 2617 §3.2.2).
    named: bool,
    qop: Option<Qop>,
    /// `charset=UTF-8`: the server knows `username*`.
    utf8: bool,
    userhash: bool,
    stale: bool,
}

/// A hash, and whether its key is made for a session (`-sess`, RFC 7616 §3.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Algorithm {
    hash: Hash,
    session: bool,
}

/// From weak to strong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hash {
    Md5,
    Sha256,
    Sha512_256,
}

/// What a reply covers: the request line, or the body too (RFC 7616 §3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Qop {
    Auth,
    AuthInt,
}

/// Why a 401 cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswerable {
    /// There is no `WWW-Authenticate` (which RFC 9110 §15.5.2 demands).
    #[error("its answer has no WWW-Authenticate header, so there is nothing to reply to")]
    NoChallenge,
    /// It wants something else.
    #[error("it asks for {0}, not for Digest; set the method that it asks for")]
    OtherSchemes(String),
    /// It wants a kind of Digest that we do not have.
    #[error("its Digest challenge asks for {0}, which is not supported")]
    Unsupported(String),
    /// Its challenge lacks something.
    #[error("its Digest challenge has no {0}")]
    Lacks(&'static str),
    /// Its challenge is of an absurd size.
    #[error("the {0} of its Digest challenge has more than {PART_BYTES_MAX} bytes")]
    TooLong(&'static str),
    /// Its header cannot be read.
    #[error("its WWW-Authenticate header cannot be read: {0}")]
    Malformed(#[from] Malformed),
}

impl Challenge {
    /// The strongest challenge of an answer's `WWW-Authenticate` headers that can be answered; of equal
    /// ones the first (RFC 7616 §3.7). Without any, why not.
    pub fn strongest<'a>(
        headers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, Unanswerable> {
        let mut best: Option<Self> = None;
        let mut problem = None;
        let mut others: Vec<String> = Vec::new();
        for header in headers {
            let (schemes, malformed) = schemes(header);
            for scheme in schemes {
                if !scheme.name.eq_ignore_ascii_case("digest") {
                    others.push(shortened(scheme.name));
                    continue;
                }
                match Self::read(&scheme.params) {
                    Ok(challenge) => match &best {
                        Some(best) if best.algorithm.hash >= challenge.algorithm.hash => {}
                        _ => best = Some(challenge),
                    },
                    Err(error) => problem = problem.or(Some(error)),
                }
            }
            problem = malformed.map(Unanswerable::Malformed).or(problem);
        }
        best.ok_or_else(|| match (problem, others.is_empty()) {
            (Some(problem), _) => problem,
            (None, true) => Unanswerable::NoChallenge,
            (None, false) => Unanswerable::OtherSchemes(listed(others)),
        })
    }

    fn read(params: &Params<'_>) -> Result<Self, Unanswerable> {
        let part = |name: &'static str| match params.get(name) {
            Some(part) if part.len() > PART_BYTES_MAX => Err(Unanswerable::TooLong(name)),
            part => Ok(part.map(<[u8]>::to_vec)),
        };
        let algorithm = params.get("algorithm");
        let realm = part("realm")?.ok_or(Unanswerable::Lacks("realm"))?;
        let nonce = part("nonce")?.ok_or(Unanswerable::Lacks("nonce"))?;
        let charset = params.get("charset");
        Ok(Self {
            realm,
            nonce,
            opaque: part("opaque")?,
            algorithm: algorithm.map_or(Ok(Algorithm::DEFAULT), Algorithm::read)?,
            named: algorithm.is_some(),
            qop: Qop::choose(params.get("qop"))?,
            utf8: charset.is_some_and(|charset| charset.eq_ignore_ascii_case(b"utf-8")),
            userhash: params.is_true("userhash"),
            stale: params.is_true("stale"),
        })
    }

    /// Whether only the nonce of the last reply was too old, and its credentials right (RFC 7616 §3.3).
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether both count uses of the same nonce.
    pub fn same_nonce(&self, other: &Self) -> bool {
        self.nonce == other.nonce && self.realm == other.realm
    }

    /// Its algorithm, as the RFC writes it.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The challenge for the requests after an answer with this `Authentication-Info` header, if it names
    /// another nonce (RFC 7616 §3.5).
    pub fn next(&self, authentication_info: &[u8]) -> Option<Self> {
        let params = params(authentication_info).ok()?;
        let nonce = params.get("nextnonce")?;
        let usable = (1..=PART_BYTES_MAX).contains(&nonce.len()) && nonce != self.nonce;
        usable.then(|| Self {
            nonce: nonce.to_vec(),
            stale: false,
            ..self.clone()
        })
    }
}

/// The names of the schemes that `WWW-Authenticate` headers ask for, for people; empty if none.
pub fn schemes_asked_for<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> String {
    let names = headers
        .into_iter()
        .flat_map(|header| schemes(header).0)
        .map(|scheme| shortened(scheme.name));
    listed(names.collect())
}

/// A client's nonce: unpredictable without the seed, another for each number.
pub fn cnonce(seed: &[u8; 32], number: u64) -> String {
    let hash = Sha256::new()
        .chain_update(seed)
        .chain_update(number.to_be_bytes())
        .finalize();
    hex(hash.get(..16).unwrap_or_default())
}

impl Algorithm {
    /// RFC 7616 §3.3.
    const DEFAULT: Self = Self {
        hash: Hash::Md5,
        session: false,
    };

    fn read(name: &[u8]) -> Result<Self, Unanswerable> {
        let all = [Hash::Md5, Hash::Sha256, Hash::Sha512_256]
            .into_iter()
            .flat_map(|hash| [false, true].map(|session| Self { hash, session }));
        let mut all =
            all.filter(|algorithm| name.eq_ignore_ascii_case(algorithm.name().as_bytes()));
        all.next().ok_or_else(|| unsupported("algorithm", name))
    }

    fn name(self) -> &'static str {
        match (self.hash, self.session) {
            (Hash::Md5, false) => "MD5",
            (Hash::Md5, true) => "MD5-sess",
            (Hash::Sha256, false) => "SHA-256",
            (Hash::Sha256, true) => "SHA-256-sess",
            (Hash::Sha512_256, false) => "SHA-512-256",
            (Hash::Sha512_256, true) => "SHA-512-256-sess",
        }
    }
}

impl Qop {
    /// `auth` where it is offered, so that the body is hashed only for servers that insist. Without any
    /// the reply is RFC 2069's, which servers of that age still want.
    fn choose(offered: Option<&[u8]>) -> Result<Option<Self>, Unanswerable> {
        let Some(offered) = offered else {
            return Ok(None);
        };
        let is = |wanted: &str| {
            let mut options = offered.split(|byte| *byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match (is("auth"), is("auth-int")) {
            (true, _) => Ok(Some(Self::Auth)),
            (false, true) => Ok(Some(Self::AuthInt)),
            (false, false) if offered.trim_ascii().is_empty() => Ok(None),
            (false, false) => Err(unsupported("qop", offered)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

fn unsupported(what: &str, value: &[u8]) -> Unanswerable {
    let value = shortened(&String::from_utf8_lossy(value));
    Unanswerable::Unsupported(format!("{what} {value:?}"))
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

/// Distinct names, in their order.
fn listed(names: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if !distinct.contains(&name) && distinct.len() < NAMES_SHOWN_MAX {
            distinct.push(name);
        }
    }
    distinct.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strongest(headers: &[&str]) -> Result<Challenge, Unanswerable> {
        Challenge::strongest(headers.iter().map(|header| header.as_bytes()))
    }

    fn chosen(headers: &[&str]) -> String {
        let challenge = strongest(headers).unwrap();
        format!(
            "{} {}",
            challenge.algorithm(),
            String::from_utf8_lossy(&challenge.nonce)
        )
    }

    #[test]
    fn the_strongest_that_can_be_answered_is_taken_up() {
        let of = |algorithm: &str, nonce: u8| {
            format!("Digest realm=\"r\", qop=\"auth\", algorithm={algorithm}, nonce=\"{nonce}\"")
        };
        let [md5, sha, long, long_sess, next] = [
            of("md5", 1),
            of("SHA-256", 2),
            of("SHA-512-256", 3),
            of("sha-512-256-SESS", 4),
            of("SHA3-256", 5),
        ];
        assert_eq!(chosen(&[&md5, &sha, &long]), "SHA-512-256 3");
        assert_eq!(chosen(&[&format!("{next}, {sha}, {md5}")]), "SHA-256 2");
        // Of equal ones the first.
        assert_eq!(chosen(&[&long_sess, &long]), "SHA-512-256-sess 4");
        assert_eq!(chosen(&["NTLM", &format!("Basic realm=x, {md5}")]), "MD5 1");
        // What cannot be read or answered does not stand in the way.
        assert_eq!(chosen(&["\"", &md5, "Digest realm=\"r"]), "MD5 1");
        // RFC 7616 §3.3: without an algorithm it is MD5.
        assert_eq!(chosen(&["Digest nonce=n, realm=r"]), "MD5 n");
        // An empty offer of qop is none (RFC 2069).
        let none = strongest(&["Digest realm=r, nonce=n, qop=\" \""]).unwrap();
        assert_eq!(none.qop, None);
        let longest = "n".repeat(PART_BYTES_MAX);
        let header = format!("Digest realm=r, nonce={longest}");
        assert_eq!(chosen(&[&header]), format!("MD5 {longest}"));
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        let long = format!("Digest realm=r, nonce={}", "n".repeat(1025));
        for (headers, expected) in [
            (&[][..], "no WWW-Authenticate"),
            (&[" "], "no WWW-Authenticate"),
            (
                &["Basic realm=x, NTLM", "Basic"],
                "asks for Basic, NTLM, not",
            ),
            (&["Digest"], "no realm"),
            (&["Digest realm=\"r\""], "no nonce"),
            (&["Digest realm=r, nonce=n, algorithm=x"], "algorithm \"x\""),
            (&["Digest realm=r, nonce=n, qop=token"], "qop \"token\""),
            (&["Digest realm=\"r"], "cannot be read: byte 13"),
            (&[&long], "nonce of its Digest challenge has more than 1024"),
        ] {
            let error = strongest(headers).unwrap_err().to_string();
            assert!(error.contains(expected), "{headers:?}: {error}");
        }
    }

    #[test]
    fn the_next_nonce_is_taken_from_the_answer() {
        let first = strongest(&["Digest realm=r, nonce=n, stale=TRUE"]).unwrap();
        assert!(first.is_stale());
        let next = |info: &str| first.next(info.as_bytes());
        let second = next("rspauth=\"00\", nextnonce=\"m\", qop=auth").unwrap();
        assert_eq!((second.nonce.as_slice(), second.stale), (&b"m"[..], false));
        assert!(!second.same_nonce(&first));
        assert!(first.same_nonce(&first));
        let elsewhere = strongest(&["Digest realm=s, nonce=n"]).unwrap();
        assert!(
            !elsewhere.same_nonce(&first),
            "another realm counts for itself"
        );
        for none in ["", "nc=1", "nextnonce=\"\"", "nextnonce=n", "nextnonce=\"m"] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn asked_for_is_listed_once() {
        let asked = |headers: &[&str]| schemes_asked_for(headers.iter().map(|h| h.as_bytes()));
        assert_eq!(
            asked(&["Basic realm=a, Digest nonce=\"", "Basic"]),
            "Basic, Digest"
        );
        assert_eq!(asked(&["a, b, c, d, e"]), "a, b, c, d");
        assert_eq!(asked(&[]), "");
    }

    #[test]
    fn client_nonces_differ() {
        let (one, other) = (cnonce(&[1; 32], 0), cnonce(&[1; 32], 1));
        assert_ne!(one, other);
        assert_ne!(one, cnonce(&[2; 32], 0));
        assert_eq!(one.len(), 32);
    }

    proptest! {
        #[test]
        fn any_headers_are_answered_or_not(headers in prop::collection::vec("(Digest )?([a-z]{1,9}=?\"?[ -~é]{0,12}\"?,?){0,6}", 0..4)) {
            let headers: Vec<_> = headers.iter().map(|header| header.as_bytes()).collect();
            crate::properties::digest::any_headers_are_answered_or_not(&headers);
        }
    }
}
