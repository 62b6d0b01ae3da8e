//! The headers of an exchange as they stand in an attempt record: what a person needs to see why a
//! receiver refused, without what would let them in.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ringback_core::record::{Delivery, HeaderLines, TEST_EVENT};
use ringback_core::verdict::{Acknowledge, Outcome, Verdict};
use ringback_core::webhook::Webhook;

use super::client::USER_AGENT;
use super::post::{Answer, Post};
use crate::config::RecordHeaders;

/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 512;
/// Kept of each side: names and values together, in bytes.
const BYTES_MAX: usize = 4096;
/// Headers that carry secrets, and parts of the names that people give such headers.
const SECRET: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "authentication-info",
    "proxy-authentication-info",
];
const SECRET_PARTS: [&str; 6] = ["token", "secret", "passw", "api-key", "apikey", "session"];

/// What both sides said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exchanged {
    /// We.
    pub request: HeaderLines,
    /// The receiver, if it answered.
    pub response: Option<HeaderLines>,
}

/// Whether the headers of an attempt are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    Always,
    /// When it is not acknowledged by this.
    Failure(Acknowledge),
    Never,
}

impl Keep {
    pub(super) fn of(webhook: &Webhook, delivery: &Delivery, configured: RecordHeaders) -> Self {
        match configured {
            // Somebody wants to see it.
            _ if delivery.event.name.as_str() == TEST_EVENT => Self::Always,
            RecordHeaders::All => Self::Always,
            RecordHeaders::Failures => Self::Failure(webhook.acknowledge),
            RecordHeaders::None => Self::Never,
        }
    }

    pub(super) fn wants(self, outcome: Outcome) -> bool {
        match self {
            Self::Always => true,
            Self::Failure(acknowledge) => Verdict::on(outcome, acknowledge) != Verdict::Delivered,
            Self::Never => false,
        }
    }
}

impl Exchanged {
    pub(super) fn of(post: &Post, answer: &Answer) -> Self {
        let mut request = vec![
            ("host".to_owned(), authority(&post.url)),
            ("user-agent".to_owned(), USER_AGENT.to_owned()),
            ("content-length".to_owned(), post.body.len().to_string()),
        ];
        request.extend(lines(&post.headers));
        let answered = answer.outcome.status().is_some() || !answer.headers.is_empty();
        Self {
            request,
            response: answered.then(|| lines(&answer.headers).collect()),
        }
    }
}

fn authority(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn lines(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let mut room = BYTES_MAX;
    let shown = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), shown_value(name, value)));
    shown.map_while(move |(name, value)| {
        room = room.checked_sub(name.len() + value.len())?;
        Some((name, value))
    })
}

fn shown_value(name: &HeaderName, value: &HeaderValue) -> String {
    let name = name.as_str();
    let is_secret = SECRET.contains(&name) || SECRET_PARTS.iter().any(|part| name.contains(part));
    if is_secret || value.is_sensitive() {
        return HIDDEN.to_owned();
    }
    let bytes = value.as_bytes();
    let kept = String::from_utf8_lossy(&bytes[..bytes.len().min(VALUE_BYTES_MAX)]);
    match bytes.len() > VALUE_BYTES_MAX {
        true => format!("{kept}…"),
        false => kept.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &'static str, value: &str) -> String {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        shown_value(&HeaderName::from_static(name), &value)
    }

    #[test]
    fn secrets_are_hidden_and_long_values_are_cut() {
        for name in SECRET {
            assert_eq!(shown(name, "hunter2"), HIDDEN, "{name}");
        }
        for name in ["x-api-key", "x-auth-token", "x-session-id", "client-secret"] {
            assert_eq!(shown(name, "hunter2"), HIDDEN, "{name}");
        }
        assert_eq!(
            shown("content-type", "application/json"),
            "application/json"
        );
        assert_eq!(shown("webhook-signature", "v1,abc"), "v1,abc");
        let long = "ä".repeat(VALUE_BYTES_MAX);
        let cut = shown("x-long", &long);
        assert!(
            cut.ends_with('…') && cut.len() <= VALUE_BYTES_MAX + 3,
            "{cut}"
        );
        let many: HeaderMap = (1000..2000)
            .map(|n| {
                let name = HeaderName::try_from(format!("x-{n}")).unwrap();
                (name, HeaderValue::from_static("ab"))
            })
            .collect();
        assert_eq!(lines(&many).count(), BYTES_MAX / 8);
    }

    #[test]
    fn only_what_somebody_will_look_at_is_kept() {
        let only = Keep::Failure(Acknowledge::Only200);
        assert!(!only.wants(Outcome::Status(200)));
        assert!(only.wants(Outcome::Status(204)) && only.wants(Outcome::Timeout));
        assert!(!Keep::Failure(Acknowledge::Any2xx).wants(Outcome::Status(204)));
        assert!(Keep::Always.wants(Outcome::Status(200)));
        assert!(!Keep::Never.wants(Outcome::Timeout));
    }
}
