//! `/metrics`, `/healthz` and `/readyz`.

use std::io;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, Metrics};

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(expose))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state((metrics, health));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn expose(State((metrics, health)): State<(Metrics, Health)>) -> Response {
    metrics.set_ready(health.standing().not_ready.is_empty());
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.expose()).into_response()
}

async fn ready(State((_, health)): State<(Metrics, Health)>) -> Response {
    let standing = health.standing();
    let status = match standing.not_ready.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        status,
        Json(serde_json::json!({
            "parts": standing.parts,
            "not_ready": standing.not_ready,
            "degraded": standing.degraded,
        })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_metrics_and_health_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, health) = (Metrics::of("dispatcher"), Health::new());
        let shutdown = CancellationToken::new();
        let part = health.component("dispatcher");
        let server = tokio::spawn(serve(listener, metrics, health.clone(), shutdown.clone()));

        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let unready = ask(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
        assert!(
            unready.contains(r#""not_ready":{"dispatcher":"starting"}"#),
            "{unready}"
        );
        let ready = async || {
            let told = ask(address, "/metrics").await;
            let is = |n| {
                told.contains(&format!(
                    "\nringback_ready{{component=\"dispatcher\"}} {n}\n"
                ))
            };
            assert!(is(0) ^ is(1), "{told}");
            is(1)
        };
        assert!(!ready().await);
        part.ready();
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ready().await);
        part.not_ready("the log is away");
        let degraded = ask(address, "/readyz").await;
        assert!(degraded.starts_with("HTTP/1.1 200"), "{degraded}");
        assert!(degraded.contains(r#""degraded":{"dispatcher":"the log is away"}"#));
        health.drain();
        let draining = ask(address, "/readyz").await;
        assert!(draining.starts_with("HTTP/1.1 503"), "{draining}");
        assert!(draining.contains(r#""process":"draining""#), "{draining}");
        assert!(!ready().await);
        let metrics = ask(address, "/metrics").await;
        assert!(
            metrics.contains("\nringback_events_unrouted_total 0\n"),
            "{metrics}"
        );

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
