//! One HTTP request for one delivery (contract R5, R9 to R11).
//!
//! | file | subject |
//! |---|---|
//! | `client` | connections: what is reached, and how |
//! | `post` | one request, and its answer |
//! | `headers` | what a request says |
//! | `authorization` | how it authenticates |
//! | `signature` | what it is signed with |
//! | `digest` | the same for Digest, which may take a second request |
//! | `challenges` | what receivers said for that, kept |
//! | `resolver` | names to addresses that may be dialled |
//! | `tls` | webhooks with a TLS setting of their own |
//! | `response` | what came back |
//! | `exchanged` | the headers of both, as they are recorded |

mod authorization;
mod challenges;
mod client;
mod digest;
mod exchanged;
mod headers;
mod post;
pub(crate) mod resolver;
mod response;
mod signature;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringback_core::lookup::Lookup;
use ringback_core::record::Delivery;
use ringback_core::secret::{KeyRing, SecretError};
use ringback_core::signature::InvalidKey;
use ringback_core::target::{Reach, Unreachable};
use ringback_core::time::Timestamp;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::{Format, Webhook};
use uuid::Uuid;

use self::challenges::Challenges;
use self::client::{Maker, Pool, Setting};
pub use self::exchanged::Exchanged;
use self::exchanged::Keep;
use self::post::{Post, Proxy};
use self::signature::{Signers, WEBHOOK_SIGNATURE};
use self::tls::Clients;
use crate::config::{Config, RecordHeaders};

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
    special: Clients,
    proxy: Option<Proxy>,
    reach: Arc<Reach>,
    keys: KeyRing,
    signers: Signers,
    challenges: Challenges,
    timeout: Duration,
    record_headers: RecordHeaders,
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
    /// What both sides said, where that is recorded.
    pub headers: Option<Box<Exchanged>>,
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
    /// The webhook's own TLS setting cannot be used.
    #[error("the webhook's TLS setting cannot be used: {0}; set it again")]
    Tls(String),
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
            special: Clients::default(),
            maker,
            proxy: config.proxy.as_ref().map(|_| Proxy {
                authenticated: config.proxy_username.is_some(),
            }),
            reach,
            keys,
            signers: Signers::default(),
            challenges: Challenges::new()?,
            timeout: config.timeout,
            record_headers: config.record_headers,
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
            Format::CloudEvents | Format::Raw => delivery.event.data.clone(),
        };
        let client = match &webhook.tls {
            None => self.pool.client(&self.maker),
            Some(tls) => {
                let pool = self.special.pool(&self.maker, &self.keys, webhook, tls)?;
                pool.client(&self.maker)
            }
        };
        if let Some(value) = self.signature(webhook, delivery.event.id, &body, now)? {
            headers.insert(WEBHOOK_SIGNATURE, value);
        }
        let began = Instant::now();
        let post = Post {
            client,
            url,
            headers,
            body,
            began,
            now,
            keep: Keep::of(webhook, delivery, self.record_headers),
        };
        let answer = self.exchange(webhook, post).await?;
        Ok(Sent {
            outcome: answer.outcome,
            error: answer.error,
            response: answer.response,
            took: began.elapsed(),
            retry_after: answer.retry_after,
            headers: answer.exchanged,
        })
    }
}
