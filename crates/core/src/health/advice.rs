//! What whoever owns a webhook can do about its state, for people.

use super::State;

/// The last failed attempt, as its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure<'a> {
    /// [`crate::verdict::Outcome::label`].
    pub outcome: &'a str,
    /// The status that was answered.
    pub status: Option<u16>,
}

/// What to do about a webhook that is in this state, or paused.
pub fn advice(state: State, paused: bool, failure: Option<Failure<'_>>) -> String {
    let then = match (state, paused) {
        (State::Healthy, false) => return "nothing is to be done".to_owned(),
        (State::Healthy, true) => {
            return "resume the webhook when its events are wanted again; what was parked meanwhile \
                    can be replayed"
                .to_owned();
        }
        (State::Failing, true) => "then resume the webhook and replay what was parked",
        (State::Failing, false) => {
            "if this goes on, the webhook is disabled; what was parked can be replayed"
        }
        (State::Disabled, _) => "then enable the webhook and replay what was parked",
    };
    let cause = failure.map_or("look at its attempts", cause);
    format!("{cause}; {then}")
}

fn cause(failure: Failure<'_>) -> &'static str {
    match (failure.outcome, failure.status) {
        (_, Some(401 | 403)) => {
            "the receiver refuses the credentials: set the webhook's authentication again"
        }
        (_, Some(404 | 410)) => "the receiver knows nothing at this URL: correct it, here or there",
        (_, Some(405)) => "the receiver does not take POST at this URL: correct it, here or there",
        (_, Some(413)) => "the receiver finds the events too large: raise its limit",
        (_, Some(429)) => "the receiver is sent more than it takes: set the webhook's rate_limit",
        (_, Some(300..=399)) => {
            "the receiver redirects, which is not followed: make where it points the webhook's URL"
        }
        (_, Some(200..=299)) => {
            "the receiver answers with another success than 200: let it answer 200, or set \
             acknowledge to 2xx"
        }
        (_, Some(500..=599)) => "the receiver fails by itself: look at its log",
        (_, Some(_)) => "the receiver refuses the requests: the response says why",
        ("timeout", _) => {
            "the receiver does not answer in time: let it answer first and work later, or check \
             that a firewall lets us in"
        }
        ("refused", _) => "nobody listens at the URL's host and port: start the receiver",
        ("reset", _) => "the receiver breaks connections off: look at its log, or its proxy's",
        ("dns", _) => "the name in the URL does not resolve: correct it, or its zone",
        ("tls", _) => {
            "the receiver's certificate is not accepted, or TLS not agreed on: renew the \
             certificate, or set the webhook's tls"
        }
        ("resolver" | "proxy", _) => {
            "the fault is on this side, not the receiver's: tell the operator"
        }
        _ => "what answers is no HTTP server: correct the URL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(outcome: &str, status: Option<u16>) -> String {
        advice(State::Failing, false, Some(Failure { outcome, status }))
    }

    #[test]
    fn every_outcome_has_advice_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for status in [204, 301, 400, 401, 404, 405, 413, 429, 500] {
            assert!(seen.insert(of("status", Some(status))), "{status}");
        }
        for label in [
            "timeout", "refused", "reset", "dns", "tls", "resolver", "protocol",
        ] {
            assert!(seen.insert(of(label, None)), "{label}");
        }
        assert_eq!(of("status", Some(403)), of("status", Some(401)));
        assert_eq!(of("status", Some(410)), of("status", Some(404)));
        assert_eq!(of("proxy", None), of("resolver", None));
    }

    #[test]
    fn what_comes_afterwards_depends_on_the_state() {
        assert_eq!(advice(State::Healthy, false, None), "nothing is to be done");
        assert!(advice(State::Healthy, true, None).starts_with("resume"));
        assert!(advice(State::Failing, true, None).contains("then resume"));
        assert!(advice(State::Failing, false, None).contains("if this goes on"));
        for paused in [false, true] {
            let text = advice(State::Disabled, paused, None);
            assert!(
                text.starts_with("look at its attempts; then enable"),
                "{text}"
            );
        }
    }
}
