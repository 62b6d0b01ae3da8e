//! Connections to receivers: one client for all webhooks, and one for each TLS setting besides.
//!
//! A client keeps idle connections per host and has no limit to them in all. With 100,000 webhooks
//! there are as many hosts, so [`Pool`] counts the connections that it opens, and at `idle_max` of
//! them it goes on with a fresh client: what the old one kept idle is closed when the last request on
//! it ends. A host in use is connected to once more for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use parking_lot::RwLock;
use reqwest::{Certificate, Identity};
use ringback_core::lookup::Lookup;
use ringback_core::secret::Secret;
use ringback_core::target::Reach;
use tower::{Layer, Service};

use super::resolver::Checked;
use super::response::chain;
use crate::config::Config;

/// Who all requests say that they are from.
pub(super) const USER_AGENT: &str = concat!("Ringback/", env!("CARGO_PKG_VERSION"));

/// Makes clients that keep connections and do nothing of their own accord.
pub(super) struct Maker {
    config: Config,
    reach: Arc<Reach>,
    lookup: Lookup,
    /// Trusted besides the platform's.
    authorities: Vec<Certificate>,
    proxy_password: Option<Secret>,
}

/// What a client trusts and shows instead of what is usual.
#[derive(Default)]
pub(super) struct Setting {
    /// The only authorities that it trusts; empty: the usual ones.
    pub(super) authorities: Vec<Certificate>,
    /// The certificate that it shows, and its key.
    pub(super) identity: Option<Identity>,
}

impl Maker {
    /// Reads what the settings name, such as the bundle of authorities.
    pub(super) fn new(config: &Config, reach: Arc<Reach>, lookup: Lookup) -> Result<Self, String> {
        // Another part of the process may have chosen a provider before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorities = match &config.ca_file {
            None => Vec::new(),
            Some(path) => {
                let failed = |reason: String| {
                    format!("reading dispatcher.ca_file {}: {reason}", path.display())
                };
                let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
                let bundle = Certificate::from_pem_bundle(&pem);
                let bundle = bundle.map_err(|error| failed(chain(&error)))?;
                if bundle.is_empty() {
                    return Err(failed("it has no PEM certificate in it".to_owned()));
                }
                bundle
            }
        };
        Ok(Self {
            config: config.clone(),
            reach,
            lookup,
            authorities,
            proxy_password: config.read_proxy_password()?,
        })
    }

    fn make(&self, setting: &Setting, opened: Arc<AtomicUsize>) -> Result<reqwest::Client, String> {
        let config = &self.config;
        let failed = |error: reqwest::Error| format!("making the HTTP client: {}", chain(&error));
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            // R9: a redirect does not acknowledge, and is never followed.
            .redirect(reqwest::redirect::Policy::none())
            // A repeated request is a new attempt, and attempts are counted.
            .retry(reqwest::retry::never())
            .connect_timeout(config.connect_timeout)
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_per_host.min(config.idle_max))
            .connector_layer(Counting(opened))
            .tcp_nodelay(true);
        builder = match &config.proxy {
            // The proxy is the operator's, wherever it is, and resolves the webhooks' names itself.
            Some(proxy) => {
                let mut proxy = reqwest::Proxy::all(proxy).map_err(failed)?;
                if let (Some(name), Some(password)) = (&config.proxy_username, &self.proxy_password)
                {
                    proxy = proxy.basic_auth(name, password.expose());
                }
                builder.proxy(proxy)
            }
            None => {
                let resolver = Checked::new(self.reach.clone(), self.lookup.clone());
                builder.no_proxy().dns_resolver(resolver)
            }
        };
        builder = match setting.authorities.is_empty() {
            true => builder.tls_certs_merge(self.authorities.iter().cloned()),
            false => builder.tls_certs_only(setting.authorities.iter().cloned()),
        };
        if let Some(identity) = &setting.identity {
            builder = builder.identity(identity.clone());
        }
        builder.build().map_err(failed)
    }
}

/// A client that is replaced before it keeps too many connections.
pub(super) struct Pool {
    setting: Setting,
    current: RwLock<Generation>,
}

struct Generation {
    client: reqwest::Client,
    opened: Arc<AtomicUsize>,
}

impl Pool {
    pub(super) fn new(maker: &Maker, setting: Setting) -> Result<Self, String> {
        let opened = Arc::<AtomicUsize>::default();
        let client = maker.make(&setting, opened.clone())?;
        Ok(Self {
            setting,
            current: RwLock::new(Generation { client, opened }),
        })
    }

    /// The client to send the next request with.
    pub(super) fn client(&self, maker: &Maker) -> reqwest::Client {
        {
            let current = self.current.read();
            let full = current.opened.load(Ordering::Relaxed) >= maker.config.idle_max;
            // Whoever takes the count away makes the next client; the others need not wait.
            if !full || current.opened.swap(0, Ordering::Relaxed) < maker.config.idle_max {
                return current.client.clone();
            }
        }
        let opened = Arc::<AtomicUsize>::default();
        match maker.make(&self.setting, opened.clone()) {
            Ok(client) => {
                *self.current.write() = Generation {
                    client: client.clone(),
                    opened,
                };
                client
            }
            Err(error) => {
                tracing::warn!(error, "idle connections to webhooks are kept for longer");
                self.current.read().client.clone()
            }
        }
    }
}

/// Counts the connections that are opened.
#[derive(Clone)]
struct Counting(Arc<AtomicUsize>);

/// A connector that is counted.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    opened: Arc<AtomicUsize>,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            opened: self.0.clone(),
        }
    }
}

impl<S, R> Service<R> for Counted<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (connecting, opened) = (self.inner.call(request), self.opened.clone());
        Box::pin(async move {
            let connection = connecting.await?;
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(connection)
        })
    }
}
