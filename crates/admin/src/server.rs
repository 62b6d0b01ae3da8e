//! The HTTP server: routes, and what holds for every one of them.

use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use ringback_core::log::Log;
use ringback_telemetry::{Counter, Histogram};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
use crate::request::BODY_BYTES_MAX;
use crate::state::AdminState;
use crate::{
    attempts, export, import, parked, replay, tenants, test_event, tokens, webhook_secret, webhooks,
};

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Our name in metrics.
const SERVER: &str = "admin";

/// Every route: methods, path.
pub const ROUTES: &[(&[&str], &str)] = &[
    (&["GET", "POST"], "/v1/tenants"),
    (&["GET", "PUT", "DELETE"], "/v1/tenants/{tenant}"),
    (&["GET", "POST"], "/v1/tenants/{tenant}/webhooks"),
    (
        &["GET", "PUT", "PATCH", "DELETE"],
        "/v1/tenants/{tenant}/webhooks/{webhook}",
    ),
    (&["POST"], "/v1/tenants/{tenant}/webhooks/{webhook}/pause"),
    (&["POST"], "/v1/tenants/{tenant}/webhooks/{webhook}/resume"),
    (&["POST"], "/v1/tenants/{tenant}/webhooks/{webhook}/enable"),
    (&["POST"], "/v1/tenants/{tenant}/webhooks/{webhook}/test"),
    (&["GET"], "/v1/tenants/{tenant}/webhooks/{webhook}/secret"),
    (
        &["POST"],
        "/v1/tenants/{tenant}/webhooks/{webhook}/secret/rotate",
    ),
    (
        &["DELETE"],
        "/v1/tenants/{tenant}/webhooks/{webhook}/secret/ed25519",
    ),
    (&["GET"], "/v1/tenants/{tenant}/webhooks/{webhook}/attempts"),
    (&["GET"], "/v1/tenants/{tenant}/webhooks/{webhook}/parked"),
    (&["POST"], "/v1/tenants/{tenant}/webhooks/{webhook}/replay"),
    (&["GET", "POST"], "/v1/tokens"),
    (&["DELETE"], "/v1/tokens/{token}"),
    (&["GET"], "/v1/parked"),
    (&["POST"], "/v1/secrets/reseal"),
    (&["POST"], "/v1/export"),
    (&["POST"], "/v1/import"),
];

/// The whole API, for whoever serves it otherwise than [`serve`].
pub fn router<L: Log>(state: AdminState<L>) -> Router {
    let webhook = Router::new()
        .route(
            "/",
            get(webhooks::show::<L>)
                .put(webhooks::put::<L>)
                .patch(webhooks::change::<L>)
                .delete(webhooks::remove::<L>),
        )
        .route("/pause", post(webhooks::pause::<L>))
        .route("/resume", post(webhooks::resume::<L>))
        .route("/enable", post(webhooks::enable::<L>))
        .route("/test", post(test_event::send::<L>))
        .route("/secret", get(webhook_secret::show::<L>))
        .route("/secret/rotate", post(webhook_secret::rotate::<L>))
        .route(
            "/secret/ed25519",
            delete(webhook_secret::remove_ed25519::<L>),
        )
        .route("/attempts", get(attempts::list::<L>))
        .route("/parked", get(parked::list::<L>))
        .route("/replay", post(replay::replay::<L>));
    Router::new()
        .route(
            "/v1/tenants",
            get(tenants::list::<L>).post(tenants::add::<L>),
        )
        .route(
            "/v1/tenants/{tenant}",
            get(tenants::show::<L>)
                .put(tenants::put::<L>)
                .delete(tenants::remove::<L>),
        )
        .route(
            "/v1/tenants/{tenant}/webhooks",
            get(webhooks::list::<L>).post(webhooks::add::<L>),
        )
        .nest("/v1/tenants/{tenant}/webhooks/{webhook}", webhook)
        .route("/v1/tokens", get(tokens::list::<L>).post(tokens::add::<L>))
        .route("/v1/tokens/{token}", delete(tokens::remove::<L>))
        .route("/v1/parked", get(parked::list_all::<L>))
        .route("/v1/secrets/reseal", post(webhooks::reseal_all::<L>))
        .route("/v1/export", post(export::export::<L>))
        .route("/v1/import", post(import::import::<L>))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Last, so that it is around everything, the fallbacks included.
        .layer(from_fn_with_state(state.clone(), guard::<L>))
        .with_state(state)
}

/// Serves until `shutdown`, then finishes the requests it has.
pub async fn serve<L: Log>(
    listener: TcpListener,
    state: AdminState<L>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(state))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// Around every request: the operator's token, a time limit, metrics, and nothing kept by caches.
async fn guard<L: Log>(
    State(state): State<AdminState<L>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let mut response = match authorise(&state, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                let detail = format!(
                    "the request took longer than {seconds} s; look at what it did before you repeat it"
                );
                Problem::unavailable("timeout", detail).into_response()
            }
        },
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

fn authorise<L: Log>(state: &AdminState<L>, request: &Request) -> Result<(), Problem> {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if given.is_some_and(|(_, token)| state.is_operator(token.trim())) {
        return Ok(());
    }
    let detail = match given {
        None => "send the operator token as: Authorization: Bearer TOKEN",
        Some(_) => "this is not the operator token",
    };
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        detail,
    ))
}

async fn no_such_route() -> Problem {
    Problem::not_found(
        "no_such_route",
        "there is nothing here; the API is described in docs/admin.md",
    )
}

async fn no_such_method() -> Problem {
    let detail = "this method does not exist here; the API is described in docs/admin.md";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", detail)
}
