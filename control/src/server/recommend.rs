//! `GET /v1/recommend`: policies that would allow what was seen.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::InQuery;
use super::routes::{Failure, blocking};
use crate::intent::Intent;
use crate::recommend::{Form, Recommendation, recommend};
use crate::refusal::Refusal;
use crate::resource::check_label;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct For {
    /// Only for workloads of this namespace.
    namespace: Option<String>,
    /// In whose words: those of Calico, or of Kubernetes.
    #[serde(default)]
    form: Form,
}

/// Staged policies that would allow the flows that are kept, and no others.
#[utoipa::path(
    get, path = "/v1/recommend", params(For),
    responses((status = 200, body = Recommendation), (status = 422, body = Refusal))
)]
pub(super) async fn get_recommendation(
    State(intent): State<Arc<Intent>>,
    InQuery(For { namespace, form }): InQuery<For>,
) -> Result<Json<Recommendation>, Failure> {
    if let Some(namespace) = &namespace {
        check_label(namespace).map_err(Refusal::new)?;
    }
    let made = blocking(intent, move |intent| {
        let logs = intent.plane().flow_log().logs;
        recommend(&logs, &intent.store(), namespace.as_deref(), form)
    });
    Ok(Json(made.await?))
}
