//! A TCP proxy that can be slow, for what lies behind it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Most that is read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks on their way, per connection and direction. Beyond, the sender has to wait.
const CHUNKS: usize = 64;

/// How slow every connection is, in each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slow {
    /// How long every byte is on its way.
    pub delay: Duration,
    /// Bytes per second; `None`: as fast as they come.
    pub rate: Option<u32>,
    /// Nothing gets through, and nobody is told.
    pub hold: bool,
}

/// A proxy on a loopback port of its own; stops when dropped, and its connections end.
pub struct Proxy {
    pub address: SocketAddr,
    slow: watch::Sender<Slow>,
    target: watch::Sender<String>,
    task: JoinHandle<()>,
    /// Connections last as long as this.
    _running: watch::Sender<()>,
}

impl Proxy {
    /// Listens. Connections are refused until there is a [target](Self::forward_to).
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// The same at this address, such as that of one that was dropped.
    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (slow, slowness) = watch::channel(Slow::default());
        let (target, targets) = watch::channel(String::new());
        let (running, runs) = watch::channel(());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (slowness, target) = (slowness.clone(), targets.borrow().clone());
                let mut runs = runs.clone();
                tokio::spawn(async move {
                    // A target that is away closes the client's connection, as it would itself.
                    let Ok(server) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = carry(from_client, to_server, slowness.clone()) => {}
                        () = carry(from_server, to_client, slowness) => {}
                        _ = runs.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            slow,
            target,
            task,
            _running: running,
        }
    }

    /// Where new connections lead to: `host:port`.
    pub fn forward_to(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    /// From now on, also for what is on its way.
    pub fn be(&self, slow: Slow) {
        self.slow.send_replace(slow);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one direction until it ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut slow: watch::Receiver<Slow>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let chunk = (Instant::now(), buffer[..length].to_vec());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((came, chunk)) = chunks.recv().await {
            if slow.wait_for(|slow| !slow.hold).await.is_err() {
                return;
            }
            let Slow { delay, rate, .. } = *slow.borrow();
            tokio::time::sleep_until(came + delay).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
            if let Some(rate) = rate {
                let seconds = chunk.len() as f64 / f64::from(rate);
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
        }
    };
    tokio::join!(read, write);
}
