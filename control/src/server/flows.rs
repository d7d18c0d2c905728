//! `GET /v1/flows`: one connection a line, however many there are.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::InQuery;
use super::routes::{Failure, blocking};
use crate::api::Plane;
use crate::connections::{Connections, Filter, Sort};
use crate::intent::Intent;
use crate::refusal::Refusal;
use crate::show::flows::{FlowEvent, FlowView};
use crate::show::{Shown, View};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Where {
    /// Which, such as `host 10.1.0.2 and tcp port 80`; all where it is absent.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    filter: Option<String>,
    /// Instead of those there are: what becomes of them from now on, until the client goes.
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Of the view `flows`: which, such as `host 10.1.0.2 and tcp port 80`; all where it is absent.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    filter: Option<String>,
    /// Of the view `flows`: which come first; those that carried most bytes where it is absent.
    #[param(inline)]
    sort: Option<Sort>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Ended {
    /// Which, such as `host 10.1.0.2 and tcp port 80`.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    filter: Option<String>,
    /// True in the place of a filter: every one.
    #[serde(default)]
    all: bool,
}

/// How many connections were deleted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeletedFlows {
    /// So many.
    pub deleted: u64,
}

/// How to look at a view, of which part was asked for.
pub(super) fn look(view: View, which: &Which) -> Result<impl FnOnce(&dyn Plane) -> Shown + use<>, Refusal> {
    let asks = which.filter.is_some() || which.sort.is_some();
    if asks && view != View::Flows {
        let sentence = format!("`where` and `sort` are for the view `flows`; `{view}` is shown whole");
        return Err(Refusal::new(sentence));
    }
    let filter = Filter::parse(which.filter.as_deref().unwrap_or_default())?;
    let sort = which.sort.unwrap_or_default();
    Ok(move |plane: &dyn Plane| match asks {
        true => Shown::Flows(plane.connections().first(&filter, sort)),
        false => view.look(plane),
    })
}

/// End connections: what follows of them is treated as if it were the first packet.
#[utoipa::path(
    delete, path = "/v1/flows", params(Ended),
    responses(
        (status = 200, body = DeletedFlows),
        (status = 422, body = Refusal, description = "The filter is not understood, or there is none."),
    )
)]
pub(super) async fn delete_flows(
    State(intent): State<Arc<Intent>>,
    InQuery(Ended { filter, all }): InQuery<Ended>,
) -> Result<Json<DeletedFlows>, Failure> {
    let filter = Filter::parse(filter.as_deref().unwrap_or_default())?;
    if filter.is_empty() != all {
        let sentence = match all {
            true => "expected a filter or `all`, not both: which connections are to end?",
            false => {
                "which connections are to end? expected a filter, such as `host 10.1.0.2 and tcp port 80`, or `all`"
            }
        };
        return Err(Refusal::new(sentence).into());
    }
    let deleted = blocking(intent, move |intent| intent.plane().connections().delete(&filter)).await??;
    tracing::info!(deleted, "connections were deleted on request");
    Ok(Json(DeletedFlows { deleted }))
}

/// The connections there are, or what becomes of them, as JSON lines.
#[utoipa::path(
    get, path = "/v1/flows", params(Where),
    responses(
        (status = 200, body = FlowLine, content_type = "application/x-ndjson", description = "One on each line."),
        (status = 422, body = Refusal, description = "The filter is not understood, or too many follow."),
    )
)]
pub(super) async fn get_flows(
    State(intent): State<Arc<Intent>>,
    InQuery(query): InQuery<Where>,
) -> Result<Response, Failure> {
    let filter = Filter::parse(query.filter.as_deref().unwrap_or_default())?;
    let connections = blocking(intent, |intent| intent.plane().connections()).await?;
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    if query.follow {
        let lines = futures_util::stream::unfold(connections.follow(filter)?, |mut following| async {
            let lines = following.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(lines)), following))
        });
        return Ok((content_type, Body::from_stream(lines)).into_response());
    }
    let pages = futures_util::stream::unfold(Some((connections, filter, 0)), |state| async {
        let page = tokio::task::spawn_blocking(move || page(state?)).await.ok()?;
        page.map(|(lines, next)| (Ok::<_, Infallible>(Bytes::from(lines)), next))
    });
    Ok((content_type, Body::from_stream(pages)).into_response())
}

/// A line of the answer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is serialised line by line")]
#[schema(as = FlowLine)]
#[serde(untagged)]
enum FlowLine {
    #[schema(title = "connection")]
    Connection(FlowView),
    #[schema(title = "event")]
    Event(FlowEvent),
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
