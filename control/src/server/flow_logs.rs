//! `GET /v1/flow-logs`: what is kept, one log a line, and with `follow` what comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::InQuery;
use super::routes::{Failure, blocking};
use crate::flow_logs::{FlowLog, FlowLogs};
use crate::intent::Intent;
use crate::refusal::Refusal;

/// How often somebody who follows is told of what is new.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// Whether to go on with what comes, until the client goes. Who reads slower than logs are kept misses some.
    #[serde(default)]
    follow: bool,
}

/// The flow logs that are kept, as JSON lines.
#[utoipa::path(
    get, path = "/v1/flow-logs", params(Follow),
    responses(
        (status = 200, body = FlowLog, content_type = "application/x-ndjson", description = "One on each line."),
        (status = 400, body = Refusal),
    )
)]
pub(super) async fn get_flow_logs(
    State(intent): State<Arc<Intent>>,
    InQuery(Follow { follow }): InQuery<Follow>,
) -> Result<Response, Failure> {
    let logs = blocking(intent, |intent| intent.plane().flow_logs()).await?;
    let pieces = futures_util::stream::unfold(Some((logs, 0)), move |state| async move {
        let (logs, mut from) = state?;
        loop {
            let (lines, next) = lines(&logs, from)?;
            if !follow {
                return Some((Ok::<_, Infallible>(Bytes::from(lines)), None));
            }
            if !lines.is_empty() {
                return Some((Ok(Bytes::from(lines)), Some((logs, next))));
            }
            from = next;
            tokio::time::sleep(PAUSE).await;
        }
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(pieces)).into_response())
}

/// Those from a number on, and the number to go on with.
fn lines(logs: &FlowLogs, from: u64) -> Option<(Vec<u8>, u64)> {
    let page = logs.page(from);
    let mut lines = vec![];
    for log in &page.logs {
        // A log of texts and numbers is always written.
        serde_json::to_writer(&mut lines, &**log).ok()?;
        lines.push(b'\n');
    }
    Some((lines, page.next))
}
