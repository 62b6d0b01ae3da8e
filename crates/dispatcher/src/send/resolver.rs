//! Names to addresses that may be dialled. What was checked is what is dialled: nobody resolves the
//! name again in between (DNS rebinding).

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ringback_core::lookup::Lookup;
use ringback_core::target::{Reach, Unreachable};

/// A resolver that hands over only what the operator's policy allows.
pub(super) struct Checked {
    reach: Arc<Reach>,
    lookup: Lookup,
}

impl Checked {
    pub(super) fn new(reach: Arc<Reach>, lookup: Lookup) -> Self {
        Self { reach, lookup }
    }
}

/// The system's resolver.
pub(crate) fn system() -> Lookup {
    Lookup::new(|name| async move {
        // Port 0 stands for that of the URL.
        let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
        Ok(addresses.collect())
    })
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let (reach, looking) = (self.reach.clone(), self.lookup.find(&name));
        Box::pin(async move {
            let found = looking.await?;
            let open = reach.check_addresses(&name, found)?;
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

/// Why the policy stopped a request, if that is what failed it.
pub(super) fn refusal(error: &reqwest::Error) -> Option<Unreachable> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Unreachable>() {
            return Some(refusal.clone());
        }
        cause = error.source();
    }
    None
}
