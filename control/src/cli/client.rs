//! One request to the socket, one answer.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::Error;
use crate::refusal::Refusal;

/// How long an answer may take: a large request is worked on for seconds, a hung process for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A text as a segment of a path, or a value in a query (RFC 3986 section 2.1).
pub(super) fn escaped(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}

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

    /// Gives what a request is answered to `each`, as it comes, until it ends or the user ends it with Ctrl-C.
    pub(super) fn stream(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Failed(format!("cannot send this: {error}")))?;
        self.receive(Method::POST, path, Some(body), each)
    }

    /// As [`stream`](Self::stream), of what is at a path.
    pub(super) fn follow(&self, path: &str, each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        self.receive(Method::GET, path, None, each)
    }

    fn receive(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.runtime.block_on(async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let bytes = body.collect().await.map_err(|error| self.broken(&error))?.to_bytes();
                return Err(self.refused(status, &bytes));
            }
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = tokio::signal::ctrl_c() => None,
                };
                match frame {
                    None => return Ok(()),
                    Some(frame) => {
                        let frame = frame.map_err(|error| self.broken(&error))?;
                        frame.data_ref().map_or(Ok(()), |piece| each(piece))?;
                    }
                }
            }
        })
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
        Err(self.refused(status, &body))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        Error::Failed(match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("{} answered with {status}", self.socket.display()),
        })
    }

    fn broken(&self, error: &hyper::Error) -> Error {
        Error::Failed(format!("{} broke off the conversation: {error}", self.socket.display()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(StatusCode, Bytes), Error> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        Ok((status, body.map_err(|error| self.broken(&error))?.to_bytes()))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // What ends the connection ends the request too, and is said there.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "margay");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Error::Usage(format!("{path} cannot be asked for: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
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
