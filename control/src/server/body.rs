//! Bodies of requests: whole before anything is done with them, in bounded time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::Limits;
use super::routes::Failure;

/// How much of a body that is too large is read and thrown away, in times the limit. A client that is still sending
/// when the connection closes sees a reset instead of the answer.
const DRAINED: usize = 4;

/// The bytes of all bodies in memory.
pub(super) struct Bodies {
    limit: usize,
    held: AtomicUsize,
}

impl Bodies {
    /// None yet.
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limit: limits.all_bodies_bytes,
            held: AtomicUsize::new(0),
        })
    }
}

/// The bytes of one body, given back when it is done with.
pub(super) struct Held {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bodies.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bodies.limit
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The request with its whole body, or the answer to one whose body does not come, or is too large.
pub(super) async fn read_body(
    request: Request<Incoming>,
    limits: Limits,
    bodies: &Arc<Bodies>,
) -> Result<(Request<Body>, Held), Failure> {
    let (head, mut body) = request.into_parts();
    let announced = body.size_hint().lower();
    if announced > limits.body_bytes as u64 && head.headers.contains_key(header::EXPECT) {
        return Err(too_large(limits)); // The client waits for this before it sends.
    }
    let mut held = Held {
        bodies: bodies.clone(),
        bytes: 0,
    };
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| bad("the body of the request ended early"))?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                drop(bytes);
                drain(&mut body, limits).await;
                return Err(too_large(limits));
            }
            if !held.grow(data.len()) {
                let sentence = "too many large requests at once; try again soon";
                return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    };
    match tokio::time::timeout(limits.body, whole).await {
        Ok(bytes) => Ok((Request::from_parts(head, Body::from(bytes?)), held)),
        Err(_) => {
            let sentence = format!(
                "the body of the request did not come within {} s",
                limits.body.as_secs_f32()
            );
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, sentence))
        }
    }
}

async fn drain(body: &mut Incoming, limits: Limits) {
    let mut left = limits.body_bytes.saturating_mul(DRAINED);
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
        if left == 0 {
            return;
        }
    }
}

fn too_large(limits: Limits) -> Failure {
    let limit = crate::show::table::bytes(limits.body_bytes as u64);
    let sentence = format!("the body of the request is larger than {limit}; send it in parts");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

fn bad(sentence: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, sentence)
}
