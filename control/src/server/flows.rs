//! `GET /v1/flows`: one connection a line, however many there are.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::InQuery;
use super::routes::{Failure, blocking};
use crate::connections::{Connections, Filter};
use crate::intent::Intent;
use crate::refusal::Refusal;
use crate::show::flows::FlowView;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Where {
    /// Which, such as `host 10.1.0.2 and tcp port 80`; all where it is absent.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    filter: Option<String>,
}

/// The connections there are, as JSON lines.
#[utoipa::path(
    get, path = "/v1/flows", params(Where),
    responses(
        (status = 200, body = FlowView, content_type = "application/x-ndjson", description = "One on each line."),
        (status = 422, body = Refusal, description = "The filter is not understood."),
    )
)]
pub(super) async fn get_flows(
    State(intent): State<Arc<Intent>>,
    InQuery(query): InQuery<Where>,
) -> Result<Response, Failure> {
    let filter = Filter::parse(query.filter.as_deref().unwrap_or_default())?;
    let connections = blocking(intent, |intent| intent.plane().connections()).await?;
    let pages = futures_util::stream::unfold(Some((connections, filter, 0)), |state| async {
        let page = tokio::task::spawn_blocking(move || page(state?)).await.ok()?;
        page.map(|(lines, next)| (Ok::<_, Infallible>(Bytes::from(lines)), next))
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(pages)).into_response())
}

/// Where to go on, if anywhere.
type Place = Option<(Connections, Filter, u32)>;

/// The next lines; pages without any are passed over.
fn page((connections, filter, mut from): (Connections, Filter, u32)) -> Option<(Vec<u8>, Place)> {
    loop {
        let (flows, next) = connections.page(&filter, from);
        let mut lines = vec![];
        for flow in &flows {
            // A view of texts and numbers is always written.
            serde_json::to_writer(&mut lines, flow).ok()?;
            lines.push(b'\n');
        }
        match (lines.is_empty(), next) {
            (true, None) => return None,
            (true, Some(next)) => from = next,
            (false, next) => return Some((lines, next.map(|next| (connections, filter, next)))),
        }
    }
}
