//! The socket: HTTP/1.1 and JSON over a Unix socket, after `interface.md`.
//!
//! A client that is slow, dead or hostile costs itself its connection and nobody else anything: headers, bodies and
//! answers have deadlines, connections and bytes have limits, and at the limit the connection that has waited longest
//! without asking anything makes room.

mod body;
mod capture;
mod connection;
mod explain;
mod extract;
mod flow_logs;
mod flows;
mod patience;
mod recommend;
mod routes;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::intent::Intent;
use connection::Connections;
pub use explain::ExplainRequest;
pub use flows::DeletedFlows;
pub use routes::{ApplyAnswer, File, Files, Health, TraceRequest, openapi};
pub use socket::BindError;
pub(crate) use socket::bind_unix;

/// How long what is being answered may go on once the server stops.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long to wait after an `accept` that failed: descriptors are short, and come back as connections end.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// What one client, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Time for the header of a request, counted from the end of the one before.
    pub header: Duration,
    /// Time for the body of a request.
    pub body: Duration,
    /// Time without progress while an answer is written.
    pub stalled_answer: Duration,
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Bytes of all bodies being received or worked on.
    pub all_bodies_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            stalled_answer: Duration::from_secs(30),
            body_bytes: 64 << 20,
            all_bodies_bytes: 256 << 20,
        }
    }
}

/// A server that has its addresses and does not answer yet.
pub struct Server {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    path: PathBuf,
    limits: Limits,
}

impl Server {
    /// Takes the socket at `path` (mode 0660, a dead predecessor's is replaced) and, for `/metrics` alone, the TCP
    /// address. Needs a tokio runtime around it.
    pub fn bind(path: &Path, metrics: Option<SocketAddr>, limits: Limits) -> Result<Self, BindError> {
        let tcp = metrics.map(socket::bind_tcp).transpose()?;
        let unix = socket::bind_unix(path)?;
        Ok(Self {
            unix,
            tcp,
            path: path.to_owned(),
            limits,
        })
    }

    /// The TCP address of `/metrics`, if it was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Answers until `stop` is done, then removes the socket.
    pub async fn serve(self, intent: Arc<Intent>, stop: impl Future<Output = ()>) {
        let everything = routes::router(intent.clone());
        let metrics_only = routes::metrics_router(intent);
        let unix_connections = Connections::new(self.limits);
        let tcp_connections = Connections::new(self.limits);
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.unix.accept() => {
                    admit(&mut tasks, &unix_connections, &everything, accepted.map(|(stream, _)| stream)).await;
                }
                accepted = accept(self.tcp.as_ref()) => {
                    admit(&mut tasks, &tcp_connections, &metrics_only, accepted).await;
                }
                // Ended connections are forgotten as they end, so the set does not grow.
                Some(_) = tasks.join_next() => {}
            }
        }
        let finished = async { while tasks.join_next().await.is_some() {} };
        unix_connections.dismiss_waiting();
        tcp_connections.dismiss_waiting();
        // Whoever is still there afterwards is cut off when `tasks` goes.
        let _ = tokio::time::timeout(LAST_WORDS, finished).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn admit<S>(tasks: &mut JoinSet<()>, connections: &Connections, router: &Router, accepted: io::Result<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    match accepted {
        Ok(stream) => {
            tasks.spawn(connections.admit(stream, router.clone()));
        }
        Err(error) => {
            tracing::warn!(%error, "a client could not be accepted");
            tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
        }
    }
}
