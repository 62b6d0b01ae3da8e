//! The HTTP server: routes, and what holds for every one of them.

use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use ringback_core::account::Scope;
use ringback_core::log::Log;
use ringback_server::{Serving, Tls};
use ringback_telemetry::{Counter, Histogram};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::{self, Gate, Needs};
use crate::problem::Problem;
use crate::request::BODY_BYTES_MAX;
use crate::state::AdminState;
use crate::{
    accounts, attempts, audit, erasures, events, export, health, import, notify, openapi,
    operations, parked, portal, projection_status, replay, replay_runner, sessions, stats, stream,
    tenants, test_event, tokens, webhook_secret, webhooks,
};

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may be idle, and take for a request's head.
const PATIENCE: Duration = Duration::from_secs(60);
/// Our name in metrics.
const SERVER: &str = "admin";

/// A method of a path, and what it needs of who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// `GET`, say.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    /// Checked before the handler is called.
    pub needs: Needs,
}

/// All routes, for whoever looks at each.
pub fn routes<L: Log>() -> Vec<Route> {
    handlers::<L>()
        .into_iter()
        .map(|(route, _)| route)
        .collect()
}

/// The one list of routes: none comes into being without saying what it needs.
fn handlers<L: Log>() -> Vec<(Route, MethodRouter<AdminState<L>>)> {
    const PUBLIC: Needs = Needs::Public;
    const SESSION: Needs = Needs::Session;
    const READ: Needs = Needs::Tenant(Scope::Read);
    const WRITE: Needs = Needs::Tenant(Scope::Write);
    const OPERATOR: Needs = Needs::Operator;
    macro_rules! routes {
        ($($path:literal { $($method:ident $needs:ident => $handler:path,)+ })+) => {
            vec![$($((
                Route {
                    method: stringify!($method),
                    path: $path,
                    needs: $needs,
                },
                on(MethodFilter::$method, $handler),
            ),)+)+]
        };
    }
    routes! {
        "/v1/openapi.json" {
            GET PUBLIC => openapi::show::<L>,
        }
        "/v1/session" {
            GET SESSION => sessions::show::<L>,
            POST PUBLIC => sessions::sign_in::<L>,
            DELETE SESSION => sessions::sign_out::<L>,
        }
        "/v1/session/password" {
            PUT SESSION => sessions::change_password::<L>,
        }
        "/v1/accounts" {
            GET WRITE => accounts::list::<L>,
            POST WRITE => accounts::add::<L>,
        }
        "/v1/accounts/{account}" {
            GET WRITE => accounts::show::<L>,
            PATCH WRITE => accounts::change::<L>,
            DELETE WRITE => accounts::remove::<L>,
        }
        "/v1/tenants" {
            GET READ => tenants::list::<L>,
            POST OPERATOR => tenants::add::<L>,
        }
        "/v1/tenants/{tenant}" {
            GET READ => tenants::show::<L>,
            PUT OPERATOR => tenants::put::<L>,
            DELETE OPERATOR => tenants::remove::<L>,
        }
        "/v1/tenants/{tenant}/notify" {
            GET READ => notify::show::<L>,
            PUT WRITE => notify::put::<L>,
        }
        "/v1/tenants/{tenant}/erasures" {
            GET WRITE => erasures::list::<L>,
            POST WRITE => erasures::add::<L>,
        }
        "/v1/tenants/{tenant}/webhooks" {
            GET READ => webhooks::list::<L>,
            POST WRITE => webhooks::add::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}" {
            GET READ => webhooks::show::<L>,
            PUT WRITE => webhooks::put::<L>,
            PATCH WRITE => webhooks::change::<L>,
            DELETE WRITE => webhooks::remove::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/pause" {
            POST WRITE => webhooks::pause::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/resume" {
            POST WRITE => webhooks::resume::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/enable" {
            POST WRITE => webhooks::enable::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/test" {
            POST WRITE => test_event::send::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/secret" {
            GET WRITE => webhook_secret::show::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/secret/rotate" {
            POST WRITE => webhook_secret::rotate::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/secret/ed25519" {
            DELETE WRITE => webhook_secret::remove_ed25519::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/attempts" {
            GET READ => attempts::list::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/attempts/stream" {
            GET READ => stream::show::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/health" {
            GET READ => health::show::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/parked" {
            GET READ => parked::list::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/replay" {
            POST WRITE => replay::begin::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/replays" {
            GET READ => replay::list::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/replays/{replay}" {
            GET READ => replay::show::<L>,
            DELETE WRITE => replay::cancel::<L>,
        }
        "/v1/tenants/{tenant}/webhooks/{webhook}/stats" {
            GET READ => stats::show::<L>,
        }
        "/v1/tenants/{tenant}/events/{event}" {
            GET READ => events::show::<L>,
        }
        "/v1/tokens" {
            GET WRITE => tokens::list::<L>,
            POST WRITE => tokens::add::<L>,
        }
        "/v1/tokens/{token}" {
            DELETE WRITE => tokens::remove::<L>,
        }
        "/v1/operations/webhooks" {
            GET OPERATOR => operations::webhooks::<L>,
        }
        "/v1/operations/lag" {
            GET OPERATOR => operations::lag::<L>,
        }
        "/v1/operations/dispatchers" {
            GET OPERATOR => operations::dispatchers::<L>,
        }
        "/v1/operations/partitions" {
            GET OPERATOR => operations::partitions::<L>,
        }
        "/v1/tenants/{tenant}/audit" {
            GET WRITE => audit::list_tenants::<L>,
        }
        "/v1/audit" {
            GET OPERATOR => audit::list_all::<L>,
        }
        "/v1/parked" {
            GET OPERATOR => parked::list_all::<L>,
        }
        "/v1/projection" {
            GET OPERATOR => projection_status::show::<L>,
        }
        "/v1/projection/rebuild" {
            POST OPERATOR => projection_status::rebuild::<L>,
        }
        "/v1/secrets/reseal" {
            POST OPERATOR => webhooks::reseal_all::<L>,
        }
        "/v1/export" {
            POST OPERATOR => export::export::<L>,
        }
        "/v1/import" {
            POST OPERATOR => import::import::<L>,
        }
    }
}

/// The API and the portal, for whoever serves them otherwise than [`serve`].
pub fn router<L: Log>(state: AdminState<L>) -> Router {
    portal::router(api(state))
}

fn api<L: Log>(state: AdminState<L>) -> Router {
    let mut router = Router::new();
    for (route, handler) in handlers::<L>() {
        let gate = Gate {
            state: state.clone(),
            needs: route.needs,
        };
        let handler = handler.layer(from_fn_with_state(gate, access::authorise::<L>));
        router = router.route(route.path, handler);
    }
    router
        .fallback(no_such_route::<L>)
        .method_not_allowed_fallback(no_such_method::<L>)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Last, so that it is around everything, the fallbacks included.
        .layer(from_fn_with_state(state.clone(), guard::<L>))
        .with_state(state)
}

/// Serves until `shutdown`, then finishes the requests it has.
pub async fn serve<L: Log>(
    listener: TcpListener,
    state: AdminState<L>,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let closing = state.admin().closing.clone();
    let replays = tokio::spawn(replay_runner::run(state.clone()));
    let serving = Serving {
        patience: PATIENCE,
        tls,
    };
    let served = ringback_server::serve(listener, router(state), serving, closing.clone());
    let ended = async {
        shutdown.cancelled().await;
        closing.cancel();
    };
    tokio::join!(served, ended);
    if let Err(error) = replays.await {
        tracing::error!(%error, "working on replays");
    }
    Ok(())
}

/// Around every request: a time limit, metrics, and nothing kept by caches.
async fn guard<L: Log>(
    State(state): State<AdminState<L>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let mut response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            let detail = format!(
                "the request took longer than {seconds} s; look at what it did before you repeat it"
            );
            Problem::unavailable("timeout", detail).into_response()
        }
    };
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    let metrics = state.metrics();
    metrics.inc(Counter::HttpRequests, &[SERVER, response.status().as_str()]);
    metrics.observe(
        Histogram::HttpSeconds,
        &[SERVER],
        began.elapsed().as_secs_f64(),
    );
    response
}

async fn no_such_route<L: Log>(State(state): State<AdminState<L>>, request: Request) -> Problem {
    access::refuse(&state, &request, access::no_such_route())
}

async fn no_such_method<L: Log>(State(state): State<AdminState<L>>, request: Request) -> Problem {
    let detail = "this method does not exist here; the API is described in docs/admin.md";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    access::refuse(
        &state,
        &request,
        Problem::new(status, "no_such_method", detail),
    )
}
