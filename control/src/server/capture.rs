//! `POST /v1/capture`: an answer that grows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::routes::{Failure, blocking};
use crate::capture::CaptureRequest;
use crate::intent::Intent;
use crate::refusal::Refusal;

/// How often a capture without packets is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Capture packets: the answer is a file of pcapng that grows until enough were caught, or the client goes.
#[utoipa::path(
    post, path = "/v1/capture", request_body = CaptureRequest,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-pcapng"),
        (status = 400, body = Refusal),
        (status = 422, body = Refusal),
    )
)]
pub(super) async fn post_capture(State(intent): State<Arc<Intent>>, body: Bytes) -> Result<Response, Failure> {
    let request: CaptureRequest = serde_json::from_slice(&body).map_err(|error| {
        let sentence = format!(
            "the request to capture is not understood: {error}; \
             expected {{\"where\":\"rx\",\"count\":10,\"filter\":\"icmp\"}}"
        );
        Failure::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    let capturing = blocking(intent, move |intent| intent.plane().capture(&request)).await??;
    let pieces = futures_util::stream::unfold(capturing, |mut capturing| async {
        loop {
            let piece = capturing.next_piece()?;
            if !piece.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(piece)), capturing));
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-pcapng")];
    Ok((content_type, Body::from_stream(pieces)).into_response())
}
