//! Connections to receivers.

use std::sync::Arc;

use ringback_core::target::Reach;

use super::resolver::{Checked, Lookup};
use super::response::chain;
use crate::config::Config;

/// A client that keeps connections and does nothing of its own accord.
pub(super) fn build(
    config: &Config,
    reach: Arc<Reach>,
    lookup: Lookup,
) -> Result<reqwest::Client, String> {
    // Another part of the process may have chosen a provider before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("Ringback/", env!("CARGO_PKG_VERSION")))
        // R9: a redirect does not acknowledge, and is never followed.
        .redirect(reqwest::redirect::Policy::none())
        // A repeated request is a new attempt, and attempts are counted.
        .retry(reqwest::retry::never())
        .no_proxy()
        .dns_resolver(Checked::new(reach, lookup))
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(config.idle_timeout)
        .pool_max_idle_per_host(config.idle_per_host)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| format!("making the HTTP client: {}", chain(&error)))
}
