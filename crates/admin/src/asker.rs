//! Who the request at hand is from, for the audit.
//!
//! It goes with the task, and with the blocking work that it starts, instead of through every handler:
//! none can forget to hand it on, and none can say anything else.

use std::net::IpAddr;
use std::sync::Arc;

use ringback_core::audit::Actor;
use uuid::Uuid;

tokio::task_local! {
    static ASKER: Arc<Asker>;
}

/// A request, as the audit tells of it.
pub(crate) struct Asker {
    pub(crate) actor: Actor,
    pub(crate) request: Uuid,
    pub(crate) client: Option<IpAddr>,
}

/// The request at hand; `None` outside of one.
pub(crate) fn current() -> Option<Arc<Asker>> {
    ASKER.try_with(Arc::clone).ok()
}

/// Works on a request.
pub(crate) async fn working<F: Future>(asker: Asker, work: F) -> F::Output {
    ASKER.scope(Arc::new(asker), work).await
}

/// Goes on with a request on another thread.
pub(crate) fn going_on<R>(asker: Option<Arc<Asker>>, work: impl FnOnce() -> R) -> R {
    match asker {
        Some(asker) => ASKER.sync_scope(asker, work),
        None => work(),
    }
}
