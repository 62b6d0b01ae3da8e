//! OAUTHBEARER: tokens (JWT) that somebody else keeps fresh in a file, such as Kubernetes' projected
//! service account tokens or the agent of an identity provider.
//!
//! librdkafka asks for a new token when four fifths of the old one's life are over; the file is then
//! read again.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

/// Largest token that is read, in bytes; brokers take far less.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Where a client's tokens come from; `None`: it needs none.
#[derive(Clone, Default)]
pub(super) struct Tokens(pub(super) Option<PathBuf>);

impl Tokens {
    /// The token as it is now; `None` when this client needs none.
    pub(super) fn current(&self) -> Option<Result<Token, String>> {
        self.0.as_deref().map(Token::read)
    }

    /// For `ClientContext::generate_oauth_token`.
    pub(super) fn generate(&self) -> Result<OAuthToken, Box<dyn Error>> {
        match self.current() {
            Some(Ok(token)) => Ok(OAuthToken {
                token: token.value,
                principal_name: token.principal,
                lifetime_ms: token.expires_ms,
            }),
            Some(Err(problem)) => Err(problem.into()),
            None => Err("no token file is configured".into()),
        }
    }
}

/// A token and what it says about itself. It has no `Debug`: its value is secret.
pub(super) struct Token {
    pub(super) value: String,
    pub(super) principal: String,
    /// Milliseconds since 1970.
    pub(super) expires_ms: i64,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970; some issuers write fractions.
    exp: f64,
}

impl Token {
    /// Reads a token from its file. The signature is the broker's to check.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text =
            fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        Self::parse(text.trim()).ok_or_else(|| {
            format!("{shown} does not hold a JWT with the claims \"sub\" and \"exp\"")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = text.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        if claims.sub.is_empty() || claims.sub.contains('\0') || !claims.exp.is_finite() {
            return None;
        }
        Some(Self {
            value: text.to_owned(),
            principal: claims.sub,
            expires_ms: (claims.exp * 1_000.0) as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_it_is_for_and_how_long() {
        let payload =
            URL_SAFE_NO_PAD.encode(br#"{"sub":"ringback","exp":1800000000,"aud":"kafka"}"#);
        let token = Token::parse(&format!("e30.{payload}.")).unwrap();
        assert_eq!(token.principal, "ringback");
        assert_eq!(token.expires_ms, 1_800_000_000_000);
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let no_exp = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(br#"{"sub":"hunter2"}"#));
        for text in ["hunter2", "hunter2.hunter2.hunter2", "a b.c.d", &no_exp, ""] {
            fs::write(&path, text).unwrap();
            let problem = Token::read(&path).err().unwrap();
            assert!(problem.contains("JWT"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
