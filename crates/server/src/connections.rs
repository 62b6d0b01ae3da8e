//! Connections: bounded in number, and none of them may dawdle.
//!
//! `axum::serve` sets no timer, so that a peer which never finishes its request's head keeps its
//! connection for good; hence hyper's own builder here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls::Tls;

/// Most connections at a time; more wait in the listener's backlog until one ends.
const CONNECTIONS_MAX: usize = 4096;

/// How a server serves.
pub struct Serving {
    /// How long a connection may be idle, or take for its next head, or for its TLS handshake.
    pub patience: Duration,
    /// With TLS, or in clear.
    pub tls: Option<Tls>,
}

/// Serves HTTP/1.1 until `shutdown`, then finishes the requests it has. Requests carry the address they
/// came from as [`ConnectInfo`].
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    serving: Serving,
    shutdown: CancellationToken,
) {
    let Serving { patience, tls } = serving;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    let acceptor = tls.as_ref().map(Tls::acceptor);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            let Ok(place) = room.clone().acquire_owned().await else {
                return; // Nobody closes the semaphore.
            };
            // Waits by itself when the process is out of file descriptors.
            let (stream, peer) = Listener::accept(&mut listener).await;
            let connection = Connection {
                router: router.clone().layer(Extension(ConnectInfo(peer))),
                builder: builder.clone(),
                shutdown: shutdown.clone(),
            };
            let work = accepted(stream, peer, acceptor.clone(), patience, connection);
            connections.spawn(async move {
                work.await;
                drop(place);
            });
        }
    };
    let renew = async {
        match &tls {
            Some(tls) => tls.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = accept => {}
        () = renew => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

struct Connection {
    router: Router,
    builder: http1::Builder,
    shutdown: CancellationToken,
}

async fn accepted(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    patience: Duration,
    connection: Connection,
) {
    // Small answers, at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY");
    }
    let Some(acceptor) = acceptor else {
        return connection.run(stream).await;
    };
    let shutdown = connection.shutdown.clone();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(patience, acceptor.accept(stream)) => handshake,
        // It has no request yet.
        () = shutdown.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => connection.run(stream).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

impl Connection {
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = TowerToHyperService::new(self.router);
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
