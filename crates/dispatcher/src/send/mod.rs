//! One HTTP request for one delivery (contract R5, R9 to R11).
//!
//! | file | subject |
//! |---|---|
//! | `client` | connections: what is reached, and how |
//! | `headers` | what a request says |
//! | `authorization` | how it authenticates |
//! | `resolver` | names to addresses that may be dialled |
//! | `tls` | webhooks with a TLS setting of their own |
//! | `response` | what came back |

mod authorization;
mod client;
mod headers;
mod resolver;
mod response;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use ringback_core::record::Delivery;
use ringback_core::secret::{KeyRing, SecretError};
use ringback_core::target::{Reach, Unreachable};
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Outcome, parse_retry_after};
use ringback_core::webhook::{Format, Webhook};

use self::client::{Maker, Pool, Setting};
use self::resolver::{Lookup, refusal};
use self::response::{chain, classify, explain, read};
use self::tls::Clients;
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
    special: Clients,
    via_proxy: bool,
    reach: Arc<Reach>,
    keys: KeyRing,
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
            via_proxy: config.proxy.is_some(),
            reach,
            keys,
            timeout: config.timeout,
        })
    }
}

impl Http {
    /// What a failed request tells.
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

impl Transport for Http {
    async fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Sent, Unsendable> {
        let url = self.reach.check(&webhook.url)?;
        let headers = self.headers(webhook, delivery, now)?;
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
        let began = Instant::now();
        let request = client
            .post(url)
            .headers(headers)
            .body(body)
            .timeout(self.timeout);
        let mut retry_after = None;
        let (outcome, error, response) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let header = response.headers().get(RETRY_AFTER);
                retry_after = header
                    .and_then(|value| value.to_str().ok())
                    .and_then(|text| parse_retry_after(text, now + began.elapsed()));
                let said = explain(&response, self.via_proxy);
                match read(response).await {
                    // The proxy wants to know who we are: the receiver knows nothing of it.
                    Ok(body) if self.via_proxy && status == 407 => (Outcome::Proxy, said, body),
                    Ok(body) => (Outcome::Status(status), said, body),
                    // R11: an answer that breaks off is a failed attempt, whatever its status.
                    Err(error) => (self.classify(&error), Some(chain(&error)), None),
                }
            }
            Err(error) => match refusal(&error) {
                Some(refusal) => return Err(refusal.into()),
                None => (self.classify(&error), Some(chain(&error)), None),
            },
        };
        Ok(Sent {
            outcome,
            error,
            response,
            took: began.elapsed(),
            retry_after,
        })
    }
}
