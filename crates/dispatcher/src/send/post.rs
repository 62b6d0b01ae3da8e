//! One request of an attempt, and its answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use ringback_core::check_invariant;
use ringback_core::target::Reach;
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Outcome, parse_retry_after};

use super::exchanged::{Exchanged, Keep};
use super::resolver::refusal;
use super::response::{chain, classify, explain, read};
use super::{Http, Unsendable};

/// What the client says of a proxy that answers `CONNECT` with 407.
const TUNNEL_REFUSED: &str = "proxy authorization required";

/// The proxy that requests go through.
#[derive(Clone, Copy)]
pub(super) struct Proxy {
    /// Whether it is told who we are.
    pub(super) authenticated: bool,
}

impl Proxy {
    /// What to say of its 407.
    fn refusal(self) -> &'static str {
        match self.authenticated {
            true => {
                "the proxy (dispatcher.proxy) refuses dispatcher.proxy_username with its password; it must take Basic"
            }
            false => {
                "the proxy (dispatcher.proxy) wants authentication; set dispatcher.proxy_username and its password"
            }
        }
    }
}

/// A request that can be made again within the same attempt.
#[derive(Clone)]
pub(super) struct Post {
    /// What carries it.
    pub(super) client: reqwest::Client,
    pub(super) url: url::Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// When the attempt began: its time runs from there, whichever request of it this is.
    pub(super) began: Instant,
    /// The time of that.
    pub(super) now: Timestamp,
    /// Whether its headers are recorded.
    pub(super) keep: Keep,
}

/// What came of one request.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) response: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) headers: HeaderMap,
    /// The headers of both sides, where they are recorded.
    pub(super) exchanged: Option<Box<Exchanged>>,
}

/// Whoever answered is at an address that is open.
fn check_dialled(reach: &Reach, address: Option<SocketAddr>) {
    let refused = address.and_then(|address| reach.check_addresses("it", [address]).err());
    check_invariant!(
        DL9,
        refused.is_none(),
        "a request left for an address that is not open: {refused:?}"
    );
}

impl Http {
    pub(super) async fn post(&self, post: &Post) -> Result<Answer, Unsendable> {
        let mut answer = self.post_once(post).await?;
        if post.keep.wants(answer.outcome) {
            answer.exchanged = Some(Box::new(Exchanged::of(post, &answer)));
        }
        Ok(answer)
    }

    async fn post_once(&self, post: &Post) -> Result<Answer, Unsendable> {
        let request = post
            .client
            .post(post.url.clone())
            .headers(post.headers.clone())
            .body(post.body.clone())
            .timeout(self.timeout.saturating_sub(post.began.elapsed()));
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                return match refusal(&error) {
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(self.failed(&error, HeaderMap::new())),
                };
            }
        };
        if self.proxy.is_none() {
            check_dialled(&self.reach, response.remote_addr());
        }
        let (outcome, error) = match (response.status().as_u16(), &self.proxy) {
            // The proxy wants to know who we are: the receiver knows nothing of it.
            (407, Some(proxy)) => (Outcome::Proxy, Some(proxy.refusal().to_owned())),
            (status, _) => (Outcome::Status(status), explain(&response)),
        };
        let headers = std::mem::take(response.headers_mut());
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| parse_retry_after(text, post.now + post.began.elapsed()));
        Ok(match read(response).await {
            Ok(response) => Answer {
                outcome,
                error,
                response,
                retry_after,
                headers,
                exchanged: None,
            },
            // R11: an answer that breaks off is a failed attempt, whatever its status.
            Err(error) => Answer {
                retry_after,
                ..self.failed(&error, headers)
            },
        })
    }

    fn failed(&self, error: &reqwest::Error, headers: HeaderMap) -> Answer {
        let mut text = chain(error);
        if let Some(proxy) = self.proxy.filter(|_| text.contains(TUNNEL_REFUSED)) {
            text = proxy.refusal().to_owned();
        }
        Answer {
            outcome: self.classify(error),
            error: Some(text),
            response: None,
            retry_after: None,
            headers,
            exchanged: None,
        }
    }

    fn classify(&self, error: &reqwest::Error) -> Outcome {
        match classify(error) {
            // Nobody but the proxy is connected to; what it cannot reach is not known to be at fault.
            outcome if self.proxy.is_some() && error.is_connect() && outcome != Outcome::Tls => {
                Outcome::Proxy
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use ringback_core::invariant::{Invariant, violations};

    use super::*;

    #[test]
    fn an_answer_from_a_forbidden_address_is_counted() {
        let reach = Reach::default();
        check_dialled(&reach, None);
        check_dialled(&reach, Some(([203, 0, 114, 1], 443).into()));
        let before = violations(Invariant::DL9);
        let metadata = Some(([169, 254, 169, 254], 80).into());
        assert!(std::panic::catch_unwind(|| check_dialled(&reach, metadata)).is_err());
        assert_eq!(violations(Invariant::DL9), before + 1);
    }
}
