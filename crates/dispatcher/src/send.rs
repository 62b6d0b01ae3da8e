//! One HTTP request for one delivery (contract R5, R9 to R11).

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use ringback_core::cloudevent::http_headers;
use ringback_core::record::Delivery;
use ringback_core::secret::{KeyRing, SecretError};
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Outcome, parse_retry_after};
use ringback_core::webhook::{Authentication, Format, Webhook};

use crate::config::Config;

/// How much of a response is kept in the attempt record.
const RESPONSE_BYTES_KEPT: usize = 4096;
/// How much of a response is read so that its connection can be used again.
const RESPONSE_BYTES_READ: usize = 65_536;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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
    client: reqwest::Client,
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
    /// The webhook's URL cannot be used.
    #[error("the URL cannot be used: {0}")]
    Url(String),
}

impl Http {
    /// A client with these settings; `keys` open the webhooks' secrets.
    pub fn new(config: &Config, keys: KeyRing) -> Result<Self, String> {
        // Another part of the process may have chosen a provider before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("Ringback/", env!("CARGO_PKG_VERSION")))
            // R9: a redirect does not acknowledge, and is never followed.
            .redirect(reqwest::redirect::Policy::none())
            // A repeated request is a new attempt, and attempts are counted.
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(config.connect_timeout)
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_per_host)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| format!("making the HTTP client: {}", chain(&error)))?;
        Ok(Self {
            client,
            keys,
            timeout: config.timeout,
        })
    }

    fn headers(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<HeaderMap, Unsendable> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if webhook.format == Format::CloudEvents {
            for (name, text) in http_headers(&delivery.event) {
                headers.insert(HeaderName::from_static(name), value(text, "attribute")?);
            }
        }
        let id = delivery.event.id.as_hyphenated().to_string();
        headers.insert(WEBHOOK_ID, value(id, "event id")?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_secs()));
        headers.insert(
            WEBHOOK_ATTEMPT,
            HeaderValue::from(u16::from(delivery.attempt)),
        );
        if let Some(traceparent) = &delivery.event.traceparent
            && let Ok(value) = HeaderValue::from_str(traceparent)
        {
            headers.insert(TRACEPARENT, value);
        }
        if let Some(mut authorization) = self.authorization(webhook)? {
            authorization.set_sensitive(true);
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(headers)
    }

    /// The `Authorization` header (contract R3): RFC 7617 §2, RFC 6750 §2.1. Digest (RFC 7616) needs
    /// the receiver's challenge, and takes its place here.
    fn authorization(&self, webhook: &Webhook) -> Result<Option<HeaderValue>, Unsendable> {
        use base64::Engine as _;
        let text = match &webhook.authentication {
            Authentication::None => return Ok(None),
            Authentication::Basic { username, password } => {
                let password = self.keys.open(password, webhook.id, "password")?;
                let pair = format!("{username}:{}", password.expose());
                format!(
                    "Basic {}",
                    base64::engine::general_purpose::STANDARD.encode(pair)
                )
            }
            Authentication::Bearer { token } => {
                format!(
                    "Bearer {}",
                    self.keys.open(token, webhook.id, "token")?.expose()
                )
            }
        };
        value(text, "authentication secret").map(Some)
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
        let url = url::Url::parse(&webhook.url).map_err(|e| Unsendable::Url(e.to_string()))?;
        let headers = self.headers(webhook, delivery, now)?;
        let body = match webhook.format {
            Format::Standard => body,
            Format::CloudEvents => delivery.event.data.clone(),
        };
        let began = Instant::now();
        let request = self
            .client
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
                match read(response).await {
                    Ok(body) => (Outcome::Status(status), None, body),
                    // R11: an answer that breaks off is a failed attempt, whatever its status.
                    Err(error) => (classify(&error), Some(chain(&error)), None),
                }
            }
            Err(error) => (classify(&error), Some(chain(&error)), None),
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

fn value(text: String, what: &'static str) -> Result<HeaderValue, Unsendable> {
    HeaderValue::try_from(text).map_err(|_| Unsendable::Header(what))
}

/// Reads the body: enough of it to keep, and to the end where that is near, so that the connection
/// can be used again. A longer body costs its connection, nothing else.
async fn read(mut response: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while let Some(chunk) = response.chunk().await? {
        let room = RESPONSE_BYTES_KEPT - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        seen += chunk.len();
        if seen >= RESPONSE_BYTES_READ {
            break;
        }
    }
    Ok((!kept.is_empty()).then(|| String::from_utf8_lossy(&kept).into_owned()))
}

fn classify(error: &reqwest::Error) -> Outcome {
    if error.is_timeout() {
        return Outcome::Timeout;
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if inner.is::<rustls::Error>() {
            return Outcome::Tls;
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if is_tls(io) {
                return Outcome::Tls;
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Outcome::Refused,
                io::ErrorKind::TimedOut => return Outcome::Timeout,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
                | io::ErrorKind::UnexpectedEof => return Outcome::Reset,
                _ => {}
            }
        }
        let text = inner.to_string();
        if text.contains("dns error") {
            return match inner.source().is_some_and(is_resolver_fault) {
                true => Outcome::Resolver,
                false => Outcome::Dns,
            };
        }
        if text.contains("connection closed") {
            return Outcome::Reset;
        }
        source = inner.source();
    }
    if error.is_connect() {
        Outcome::Refused
    } else {
        Outcome::Protocol
    }
}

/// Whether resolving failed for want of a resolver that answers. The standard library gives no code
/// of `getaddrinfo`, only its text, which for `EAI_AGAIN` is this in glibc and musl (they do not
/// translate without `setlocale`, which nobody calls).
fn is_resolver_fault(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("temporary failure in name resolution") || text.contains("try again")
}

/// Whether an I/O error carries one of TLS, however often it was wrapped.
fn is_tls(mut io: &io::Error) -> bool {
    while let Some(inner) = io.get_ref() {
        if inner.is::<rustls::Error>() {
            return true;
        }
        match inner.downcast_ref::<io::Error>() {
            Some(next) => io = next,
            None => return false,
        }
    }
    false
}

/// An error with its causes, without the URL: its query may carry a secret.
fn chain(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    let text = match causes.is_empty() {
        true if error.is_timeout() => "the request took too long".to_owned(),
        true => "the request failed".to_owned(),
        false => causes.join(": "),
    };
    text.chars().take(512).collect()
}
