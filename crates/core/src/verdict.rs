//! What an attempt's outcome means (contract R9, R10, R11).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The receiver answered with this status.
    Status(u16),
    /// No answer in time, be it to connect or to respond.
    Timeout,
    /// The connection was refused.
    Refused,
    /// The connection broke after it was made.
    Reset,
    /// The name could not be resolved: it does not exist, or has no address.
    Dns,
    /// Our own resolver failed, so nothing is known about the receiver.
    Resolver,
    /// The deployment's proxy failed, or could not connect, so nothing is known about the receiver.
    Proxy,
    /// TLS could not be agreed on.
    Tls,
    /// The answer was not HTTP, or any other failure on the receiver's side.
    Protocol,
}

impl Outcome {
    /// Its name in attempt records and metrics; a status is `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dns => "dns",
            Self::Resolver => "resolver",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
        }
    }

    /// Whether it is a fault of our own deployment, which no webhook answers for.
    pub fn is_ours(label: &str) -> bool {
        [Self::Resolver, Self::Proxy]
            .iter()
            .any(|ours| ours.label() == label)
    }

    /// The status, where there was one.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            other => f.write_str(other.label()),
        }
    }
}

/// Which statuses acknowledge an event, per webhook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Acknowledge {
    /// Only 200 (contract R9).
    #[default]
    #[serde(rename = "200")]
    Only200,
    /// Any 2xx, by the receiver's choice.
    #[serde(rename = "2xx")]
    Any2xx,
}

/// What an outcome means for the delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The event arrived.
    Delivered,
    /// The receiver does not want this event: 404 (contract R10).
    Rejected,
    /// The attempt failed and may be repeated (contract R11).
    Failed,
}

impl Verdict {
    /// The verdict on an outcome.
    pub fn on(outcome: Outcome, acknowledge: Acknowledge) -> Self {
        match (outcome, acknowledge) {
            (Outcome::Status(200), _) => Self::Delivered,
            (Outcome::Status(201..=299), Acknowledge::Any2xx) => Self::Delivered,
            (Outcome::Status(404), _) => Self::Rejected,
            _ => Self::Failed,
        }
    }
}

/// Reads a `Retry-After` header (RFC 9110 §10.2.3): seconds, or an HTTP date. A time that has passed is
/// zero; what is neither is `None`.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Timestamp::from_micros(date.as_microsecond()).since(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse("2026-11-21T09:30:00Z").unwrap();
        let read = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 0 "), Some(0));
        assert_eq!(read("Sat, 21 Nov 2026 09:31:40 GMT"), Some(100));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(read("99999999999999999999999"), Some(u64::MAX));
        for wrong in ["", "soon", "-5", "1.5", "2026-11-21T09:31:40Z"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn retry_after_is_a_wait(text in ".{0,60}| *[0-9]{1,25}|(Sun, )?[0-9]{1,2} (Nov|Feb) [0-9]{4} [0-2][0-9]:[0-5][0-9]:[0-6][0-9] (GMT|[+-][0-9]{4})", now in any::<i64>()) {
            crate::properties::retry_after_is_a_wait(&text, Timestamp::from_micros(now));
        }

        /// R9, R10, R11 over every status that a response can carry.
        #[test]
        fn only_200_acknowledges_and_only_404_rejects(status in 100u16..1000) {
            let verdict = Verdict::on(Outcome::Status(status), Acknowledge::Only200);
            let expected = match status {
                200 => Verdict::Delivered,
                404 => Verdict::Rejected,
                _ => Verdict::Failed,
            };
            prop_assert_eq!(verdict, expected);
            let loose = Verdict::on(Outcome::Status(status), Acknowledge::Any2xx);
            let expected = if (200..300).contains(&status) { Verdict::Delivered } else { expected };
            prop_assert_eq!(loose, expected);
        }
    }

    #[test]
    fn what_is_no_answer_failed() {
        use Outcome::*;
        for outcome in [Timeout, Refused, Reset, Dns, Resolver, Proxy, Tls, Protocol] {
            assert_eq!(Verdict::on(outcome, Acknowledge::Any2xx), Verdict::Failed);
        }
    }
}
