//! One request to the socket, one answer.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::Error;
use crate::refusal::Refusal;

/// How long an answer may take: a large request is worked on for seconds, a hung process for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the socket.
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the socket at this path. Connects for each request, so that `--watch` survives a restart.
    pub(super) fn new(socket: &Path) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Failed(format!("cannot start: {error}")))?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// The JSON at a path.
    pub(super) fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, None)
    }

    /// What a request with a JSON body is answered.
    pub(super) fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<Value, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Failed(format!("cannot send this: {error}")))?;
        self.call(Method::POST, path, Some(body))
    }

    /// Deletes what is at a path.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::DELETE, path, None)
    }

    fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Value, Error> {
        // Within the runtime, whose clock it needs.
        let exchange = async { tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await };
        let (status, body) = self.runtime.block_on(exchange).unwrap_or_else(|_| {
            let (socket, limit_s) = (self.socket.display(), PATIENCE.as_secs());
            Err(Error::Failed(format!(
                "{socket} did not answer within {limit_s} s; is `margay run` stuck? its log may say why"
            )))
        })?;
        if status.is_success() {
            if body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&body).map_err(super::output::odd);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(Error::Failed(refusal.error)),
            Err(_) => Err(Error::Failed(format!(
                "{} answered with {status}",
                self.socket.display()
            ))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| {
            Error::Failed(format!("{} broke off the conversation: {error}", self.socket.display()))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // What ends the connection ends the request too, and is said there.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "margay");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Error::Usage(format!("{path} cannot be asked for: {error}")))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        Ok((status, body))
    }

    fn unreachable(&self, error: &io::Error) -> Error {
        let (what, help) = match error.kind() {
            ErrorKind::NotFound => ("no such file", "is `margay run` running? give its socket with --socket"),
            ErrorKind::ConnectionRefused => (
                "nobody answers",
                "start `margay run` again, or give its socket with --socket",
            ),
            ErrorKind::PermissionDenied => ("permission denied", "be root, or in the group of the socket"),
            _ => return Error::Failed(format!("cannot reach {}: {error}", self.socket.display())),
        };
        Error::Failed(format!("cannot reach {}: {what}; {help}", self.socket.display()))
    }
}
