//! One HTTP request for one delivery (contract R5, R9 to R11).
//!
//! | file | subject |
//! |---|---|
//! | `client` | connections: what is reached, and how |
//! | `headers` | what a request says |
//! | `authorization` | how it authenticates |
//! | `signature` | what it is signed with |
//! | `digest` | the same for Digest, which may take a second request |
//! | `challenges` | what receivers said for that, kept |
//! | `resolver` | names to addresses that may be dialled |
//! | `response` | what came back |

mod authorization;
mod challenges;
mod client;
mod digest;
mod headers;
mod resolver;
mod response;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use ringback_core::record::Delivery;
use ringback_core::secret::{KeyRing, SecretError};
use ringback_core::signature::InvalidKey;
use ringback_core::target::{Reach, Unreachable};
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Outcome, parse_retry_after};
use ringback_core::webhook::{Format, Webhook};
use uuid::Uuid;

use self::challenges::Challenges;
use self::client::{Maker, Pool, Setting};
use self::resolver::{Lookup, refusal};
use self::response::{chain, classify, explain, read};
use self::signature::{Signers, WEBHOOK_SIGNATURE};
use crate::config::Config;

/// What carries a delivery to its webhook: HTTP, or a simulation in tests.
pub trait Transport: Send + Sync + 'static {
    /// Makes one request, `now` being the time that it carries, and waits for its answer.
    fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        body: Bytes,
        now: Timestamp,
    ) -> impl Future<Output = Result<Sent, Unsendable>> + Send;
}

/// HTTP over kept connections.
pub struct Http {
    maker: Maker,
    pool: Pool,
    via_proxy: bool,
    reach: Arc<Reach>,
    keys: KeyRing,
    signers: Signers,
    challenges: Challenges,
    timeout: Duration,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, for people; without the URL, whose query may carry a secret.
    pub error: Option<String>,
    /// The beginning of the response body.
    pub response: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// After how long the receiver wants to be asked again (`Retry-After`).
    pub retry_after: Option<Duration>,
}

/// The request cannot be made at all, whatever the receiver does.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// A secret of the webhook does not open.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A signing key of the webhook opens, but is none.
    #[error("a signing key of webhook {0} cannot be used: {1}; rotate it with grace 0")]
    SigningKey(Uuid, InvalidKey),
    /// Something that a header must carry has characters that it cannot.
    #[error("the {0} cannot stand in an HTTP header; set it again")]
    Header(&'static str),
    /// The webhook's URL breaks the rules, or leads where nothing may be sent.
    #[error(transparent)]
    Target(#[from] Unreachable),
}

impl Http {
    /// A client with these settings; `keys` open the webhooks' secrets.
    pub fn new(config: &Config, keys: KeyRing) -> Result<Self, String> {
        Self::resolving(config, keys, resolver::system())
    }

    fn resolving(config: &Config, keys: KeyRing, lookup: Lookup) -> Result<Self, String> {
        let reach = Arc::new(config.reach());
        let maker = Maker::new(config, reach.clone(), lookup)?;
        Ok(Self {
            pool: Pool::new(&maker, Setting::default())?,
            maker,
            via_proxy: config.proxy.is_some(),
            reach,
            keys,
            signers: Signers::default(),
            challenges: Challenges::new()?,
            timeout: config.timeout,
        })
    }
}

impl Transport for Http {
    async fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Sent, Unsendable> {
        let url = self.reach.check(&webhook.url)?;
        let mut headers = self.headers(webhook, delivery, now)?;
        let body = match webhook.format {
            Format::Standard => body,
            Format::CloudEvents => delivery.event.data.clone(),
        };
        if let Some(value) = self.signature(webhook, delivery.event.id, &body, now)? {
            headers.insert(WEBHOOK_SIGNATURE, value);
        }
        let began = Instant::now();
        let post = Post {
            url,
            headers,
            body,
            began,
            now,
        };
        let answer = self.exchange(webhook, post).await?;
        Ok(Sent {
            outcome: answer.outcome,
            error: answer.error,
            response: answer.response,
            took: began.elapsed(),
            retry_after: answer.retry_after,
        })
    }
}

/// A request that can be made again within the same attempt.
struct Post {
    url: url::Url,
    headers: HeaderMap,
    body: Bytes,
    /// When the attempt began: its time runs from there, whichever request of it this is.
    began: Instant,
    /// The time of that.
    now: Timestamp,
}

/// What came of one request.
struct Answer {
    outcome: Outcome,
    error: Option<String>,
    response: Option<String>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
}

impl Http {
    async fn post(&self, post: &Post) -> Result<Answer, Unsendable> {
        let request = self
            .pool
            .client(&self.maker)
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
        let outcome = match response.status().as_u16() {
            // The proxy wants to know who we are: the receiver knows nothing of it.
            407 if self.via_proxy => Outcome::Proxy,
            status => Outcome::Status(status),
        };
        let error = explain(&response, self.via_proxy);
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
            },
            // R11: an answer that breaks off is a failed attempt, whatever its status.
            Err(error) => Answer {
                retry_after,
                ..self.failed(&error, headers)
            },
        })
    }

    fn failed(&self, error: &reqwest::Error, headers: HeaderMap) -> Answer {
        Answer {
            outcome: self.classify(error),
            error: Some(chain(error)),
            response: None,
            retry_after: None,
            headers,
        }
    }

    fn classify(&self, error: &reqwest::Error) -> Outcome {
        match classify(error) {
            // Nobody but the proxy is connected to; what it cannot reach is not known to be at fault.
            outcome if self.via_proxy && error.is_connect() && outcome != Outcome::Tls => {
                Outcome::Proxy
            }
            outcome => outcome,
        }
    }
}
