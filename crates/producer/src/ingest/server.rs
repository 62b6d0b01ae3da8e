//! Connections: bounded in number, and none of them may dawdle.
//!
//! `axum::serve` sets no timer, so that a peer which never finishes its request's head keeps its
//! connection for good; hence hyper's own builder here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at a time; more wait in the listener's backlog until one ends.
const CONNECTIONS_MAX: usize = 4096;

/// Serves HTTP/1.1 until `shutdown`, then finishes the requests it has. A connection that is idle,
/// or whose next head is not complete, for `patience` is closed.
pub(super) async fn serve(
    mut listener: TcpListener,
    router: Router,
    patience: Duration,
    shutdown: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            let Ok(place) = room.clone().acquire_owned().await else {
                return; // Nobody closes the semaphore.
            };
            // Waits by itself when the process is out of file descriptors.
            let (stream, _) = Listener::accept(&mut listener).await;
            let connection = connection(stream, router.clone(), builder.clone(), shutdown.clone());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    builder: http1::Builder,
    shutdown: CancellationToken,
) {
    // Small answers, at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY");
    }
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the ingest broke");
                }
                return;
            }
            () = shutdown.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
