//! What a webhook's name resolves to while it is configured (`docs/addresses.md`). The dispatchers
//! decide, at every connection; this tells a person at once what can be known now.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::lookup::Lookup;
use ringback_core::target::{Reach, Unreachable};
use ringback_core::time::duration_label;
use tokio::sync::Semaphore;

use crate::config::Config;

/// Lookups at a time. One that is given up goes on in the system's resolver, which takes a thread until
/// it has its answer: it counts for so long.
const LOOKUPS_MAX: usize = 16;

/// Looks names up and judges what they resolve to.
pub(crate) struct Names {
    /// `None`: a proxy does.
    lookup: Option<Lookup>,
    within: Duration,
    under_way: Arc<Semaphore>,
}

impl Names {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lookup: config.lookup.clone(),
            within: config.lookup_within,
            under_way: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Refuses a URL that cannot be used; warns of one that may be trouble.
    pub(crate) async fn check(
        &self,
        reach: &Reach,
        url: &str,
    ) -> Result<Option<String>, Unreachable> {
        let url = reach.check(url)?;
        let (Some(lookup), Some(name)) = (&self.lookup, url.domain()) else {
            return Ok(None);
        };
        match tokio::time::timeout(self.within, self.find(lookup, name)).await {
            Ok(found) => judge(reach, name, found),
            Err(_) => Ok(Some(format!(
                "{name} was not resolved within {}, so its addresses were not checked; the first delivery shows whether they are open to webhooks",
                duration_label(self.within)
            ))),
        }
    }

    async fn find(&self, lookup: &Lookup, name: &str) -> io::Result<Vec<SocketAddr>> {
        let permit = self.under_way.clone().acquire_owned().await;
        let looking = lookup.find(name);
        let task = tokio::spawn(async move {
            let found = looking.await;
            drop(permit);
            found
        });
        task.await.unwrap_or_else(|error| Err(error.into()))
    }
}

/// What is to be said of a name that resolves to this.
fn judge(
    reach: &Reach,
    name: &str,
    found: io::Result<Vec<SocketAddr>>,
) -> Result<Option<String>, Unreachable> {
    let reason = match &found {
        Ok(addresses) if addresses.is_empty() => Some("it has no address".to_owned()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        return Ok(Some(format!(
            "{name} does not resolve ({reason}): deliveries fail until it does"
        )));
    }
    let addresses = found.unwrap_or_default();
    reach.check_addresses(name, addresses.iter().copied())?;
    let refused =
        addresses
            .iter()
            .find_map(|address| match reach.check_addresses(name, [*address]) {
                Err(Unreachable::Name { refused, .. }) => Some(refused),
                _ => None,
            });
    Ok(refused.map(|refused| {
        format!("{name} also resolves to {refused}; until then only its other addresses are used")
    }))
}
