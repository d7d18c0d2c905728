//! What the socket answers. The OpenAPI document is made from these definitions, so it cannot say anything else.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::capture;
use super::explain;
use super::extract::{InPath, InQuery};
use super::flow_logs;
use super::flows;
use super::recommend;
use crate::api::TRACE_MAX;
use crate::intent::{Applied, Intent, Outcome};
use crate::metrics;
use crate::refusal::Refusal;
use crate::resource::{Format, Key, Kind, Resource, Source, read, read_keys};
use crate::show::trace::TracedPacket;
use crate::show::{Shown, View};
use crate::store::Request;

/// An answer that is no success: a status and the sentence.
pub(super) struct Failure(StatusCode, Refusal);

impl Failure {
    /// A failure that concerns no document.
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self(status, Refusal::new(sentence))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// Everything the Unix socket answers.
pub(super) fn router(intent: Arc<Intent>) -> Router {
    let (router, _) = definitions().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        // The body is here already, within the limits of the connection.
        .layer(DefaultBodyLimit::disable())
        .with_state(intent)
}

/// What the TCP address of the metrics answers.
pub(super) fn metrics_router(intent: Arc<Intent>) -> Router {
    let metrics = axum::routing::get(get_metrics);
    Router::new()
        .route("/metrics", metrics)
        .fallback(no_such_path)
        .with_state(intent)
}

/// The OpenAPI document that `/v1/openapi.json` serves.
pub fn openapi() -> OpenApi {
    let (_, mut openapi) = definitions().split_for_parts();
    // What befalls any request before its path is looked at: too slow, too large, too many.
    let refusal = ResponseBuilder::new()
        .description("Any other status: why the request was not carried out.")
        .content("application/json", Content::new(Some(Ref::from_schema_name("Refusal"))))
        .build();
    for item in openapi.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            operation
                .responses
                .responses
                .insert("default".to_owned(), RefOr::T(refusal.clone()));
        }
    }
    openapi
}

static OPENAPI: LazyLock<OpenApi> = LazyLock::new(openapi);

fn definitions() -> OpenApiRouter<Arc<Intent>> {
    let info = utoipa::openapi::InfoBuilder::new()
        .title("Margay")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The control socket of a userspace packet-processing data plane."))
        .build();
    let openapi = utoipa::openapi::OpenApiBuilder::new().info(info).build();
    OpenApiRouter::with_openapi(openapi)
        .routes(routes!(post_apply))
        .routes(routes!(post_delete))
        .routes(routes!(get_all_resources))
        .routes(routes!(get_resources))
        .routes(routes!(get_resource))
        .routes(routes!(get_view))
        .routes(routes!(post_trace, get_trace, delete_trace))
        .routes(routes!(explain::post_explain))
        .routes(routes!(capture::post_capture))
        .routes(routes!(flows::get_flows, flows::delete_flows))
        .routes(routes!(flow_logs::get_flow_logs))
        .routes(routes!(recommend::get_recommendation))
        .routes(routes!(get_health))
        .routes(routes!(get_metrics))
        .routes(routes!(get_openapi))
}

/// Documents with the names of the files they stand in, so that sentences can name them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The files, in order.
    pub files: Vec<File>,
}

/// A file of documents.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name; JSON where it ends in `.json`, else YAML.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A document, an array of documents, or files of documents.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a body that is read as text, for its sentences")]
#[schema(as = Documents)]
enum DocumentsBody {
    #[schema(title = "files")]
    Files(Files),
    #[schema(title = "document")]
    Document(serde_json::Map<String, Value>),
    #[schema(title = "documents")]
    Documents(Vec<serde_json::Map<String, Value>>),
}

/// What became of the resources of a request, in its order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApplyAnswer {
    /// One for each document.
    pub results: Vec<Applied>,
    /// What was done all the same, but the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl From<Outcome> for ApplyAnswer {
    fn from(Outcome { results, warnings }: Outcome) -> Self {
        Self { results, warnings }
    }
}

/// Whether the plane is ready.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Every port asked for at start is up.
    pub ready: bool,
}

/// Packets to trace.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// How many, 1 to 1,000.
    pub count: u32,
    /// Which: a pcap-filter expression; every packet where it is empty.
    #[serde(default)]
    pub filter: String,
}

/// Resources, as `kubectl` has them; can be applied as it is.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is serialised from borrowed resources")]
struct List {
    #[schema(rename = "apiVersion")]
    api_version: String,
    kind: String,
    items: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Namespace {
    /// Only resources of this namespace.
    namespace: Option<String>,
}

/// Make resources what the documents say, all or nothing.
#[utoipa::path(
    post, path = "/v1/apply",
    request_body(content((DocumentsBody = "application/json"), (String = "application/yaml"))),
    responses(
        (status = 200, body = ApplyAnswer),
        (status = 400, body = Refusal, description = "The body is not text, or did not come whole."),
        (status = 413, body = Refusal, description = "The body is over 64 MiB."),
        (status = 415, body = Refusal, description = "The body is neither JSON nor YAML."),
        (status = 422, body = Refusal, description = "Nothing was changed."),
    )
)]
async fn post_apply(
    State(intent): State<Arc<Intent>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<ApplyAnswer>, Failure> {
    let sources = sources(&headers, &body)?;
    let outcome = blocking(intent, move |intent| intent.carry_out(Request::Apply(read(&sources)?))).await??;
    Ok(Json(outcome.into()))
}

/// Remove the resources the documents name, all or nothing.
#[utoipa::path(
    post, path = "/v1/delete",
    request_body(content((DocumentsBody = "application/json"), (String = "application/yaml"))),
    responses(
        (status = 200, body = ApplyAnswer),
        (status = 400, body = Refusal, description = "The body is not text, or did not come whole."),
        (status = 413, body = Refusal, description = "The body is over 64 MiB."),
        (status = 415, body = Refusal, description = "The body is neither JSON nor YAML."),
        (status = 422, body = Refusal, description = "Nothing was changed."),
    )
)]
async fn post_delete(
    State(intent): State<Arc<Intent>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<ApplyAnswer>, Failure> {
    let sources = sources(&headers, &body)?;
    let outcome = blocking(intent, move |intent| {
        intent.carry_out(Request::Delete(read_keys(&sources)?))
    })
    .await??;
    Ok(Json(outcome.into()))
}

/// All resources.
#[utoipa::path(get, path = "/v1/resources", params(Namespace), responses((status = 200, body = List)))]
async fn get_all_resources(
    State(intent): State<Arc<Intent>>,
    InQuery(query): InQuery<Namespace>,
) -> Result<Response, Failure> {
    list(intent, None, query).await
}

/// The resources of a kind.
#[utoipa::path(
    get, path = "/v1/resources/{kind}", params(("kind" = String, Path, description = "Such as `Port` or `ports`."), Namespace),
    responses((status = 200, body = List), (status = 404, body = Refusal))
)]
async fn get_resources(
    State(intent): State<Arc<Intent>>,
    InPath(kind): InPath<String>,
    InQuery(query): InQuery<Namespace>,
) -> Result<Response, Failure> {
    let kind = known_kind(&kind)?;
    list(intent, Some(kind), query).await
}

/// One resource.
#[utoipa::path(
    get, path = "/v1/resources/{kind}/{name}",
    params(("kind" = String, Path, description = "Such as `Port` or `ports`."), ("name" = String, Path), Namespace),
    responses((status = 200, body = Object), (status = 404, body = Refusal))
)]
async fn get_resource(
    State(intent): State<Arc<Intent>>,
    InPath((kind, name)): InPath<(String, String)>,
    InQuery(Namespace { namespace }): InQuery<Namespace>,
) -> Result<Response, Failure> {
    let kind = known_kind(&kind)?;
    let namespace = kind
        .namespaced()
        .then(|| namespace.unwrap_or_else(|| "default".to_owned()));
    let key = Key { kind, namespace, name };
    let found = blocking(intent, move |intent| intent.store().get(&key).cloned().ok_or(key)).await?;
    match found {
        Ok(resource) => Ok(Json(&*resource).into_response()),
        Err(key) => Err(Failure::new(StatusCode::NOT_FOUND, format!("{key} does not exist"))),
    }
}

/// What `margay show VIEW` prints.
#[utoipa::path(
    get, path = "/v1/show/{view}",
    params(("view" = String, Path, description = "Such as `ports` or `runtime`."), flows::Which),
    responses((status = 200, body = Shown), (status = 404, body = Refusal), (status = 422, body = Refusal))
)]
async fn get_view(
    State(intent): State<Arc<Intent>>,
    InPath(name): InPath<String>,
    InQuery(which): InQuery<flows::Which>,
) -> Result<Json<Shown>, Failure> {
    let Some(view) = View::from_name(&name) else {
        let sentence = format!(
            "there is no view `{}`; expected one of {}",
            name.escape_debug(),
            View::list()
        );
        return Err(Failure::new(StatusCode::NOT_FOUND, sentence));
    };
    let look = flows::look(view, &which)?;
    Ok(Json(blocking(intent, move |intent| look(&**intent.plane())).await?))
}

/// Trace the next packets that match.
#[utoipa::path(
    post, path = "/v1/trace", request_body = TraceRequest,
    responses((status = 204), (status = 400, body = Refusal), (status = 422, body = Refusal))
)]
async fn post_trace(State(intent): State<Arc<Intent>>, body: Bytes) -> Result<StatusCode, Failure> {
    let TraceRequest { count, filter } = serde_json::from_slice(&body).map_err(|error| {
        let sentence =
            format!("the request to trace is not understood: {error}; expected {{\"count\":10,\"filter\":\"icmp\"}}");
        Failure::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    if !(1..=TRACE_MAX).contains(&count) {
        let sentence = format!("cannot trace {count} packets; expected a count from 1 to {TRACE_MAX}");
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, sentence));
    }
    blocking(intent, move |intent| intent.plane().trace_add(count, &filter)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The packets traced so far.
#[utoipa::path(get, path = "/v1/trace", responses((status = 200, body = Vec<TracedPacket>)))]
async fn get_trace(State(intent): State<Arc<Intent>>) -> Result<Json<Vec<TracedPacket>>, Failure> {
    Ok(Json(blocking(intent, |intent| intent.plane().trace_show()).await?))
}

/// Forget the packets traced and stop tracing.
#[utoipa::path(delete, path = "/v1/trace", responses((status = 204)))]
async fn delete_trace(State(intent): State<Arc<Intent>>) -> Result<StatusCode, Failure> {
    blocking(intent, |intent| intent.plane().trace_clear()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the plane is ready.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, body = Health), (status = 503, body = Refusal)))]
async fn get_health(State(intent): State<Arc<Intent>>) -> Result<Json<Health>, Failure> {
    if blocking(intent, |intent| intent.plane().ready()).await? {
        return Ok(Json(Health { ready: true }));
    }
    let sentence = "not ready: a port is not up yet; `margay show ports` says which and why";
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, sentence))
}

/// Counters in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
async fn get_metrics(State(intent): State<Arc<Intent>>) -> Result<Response, Failure> {
    let text = blocking(intent, |intent| metrics::text(&**intent.plane())).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object)))]
async fn get_openapi() -> Json<&'static OpenApi> {
    Json(&OPENAPI)
}

async fn no_such_path(method: Method, uri: Uri) -> Failure {
    let sentence = format!(
        "{method} {} is not served; GET /v1/openapi.json lists what is",
        uri.path()
    );
    Failure::new(StatusCode::NOT_FOUND, sentence)
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let sentence = format!(
        "{} does not take {method}; GET /v1/openapi.json lists what it takes",
        uri.path()
    );
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}

/// The plane may block, and other clients are not to wait for it.
pub(super) async fn blocking<T: Send + 'static>(
    intent: Arc<Intent>,
    work: impl FnOnce(&Intent) -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(move || work(&intent))
        .await
        .map_err(|error| {
            tracing::error!(%error, "a request failed inside");
            Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the data plane failed to answer; its log says why",
            )
        })
}

fn sources(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Source>, Failure> {
    let written = headers
        .get(header::CONTENT_TYPE)
        .map_or("application/json", |value| value.to_str().unwrap_or("?"));
    let media_type = written.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let format = match media_type.as_str() {
        "application/json" => Format::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Format::Yaml,
        _ => {
            let sentence = format!(
                "cannot read `{}`; send application/yaml or application/json",
                written.escape_debug()
            );
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        }
    };
    let text = str::from_utf8(body).map_err(|error| {
        let sentence = format!(
            "the body of the request is not UTF-8 after {} bytes",
            error.valid_up_to()
        );
        Failure::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    if format == Format::Json
        && let Ok(Files { files }) = serde_json::from_str(text)
    {
        return Ok(files
            .into_iter()
            .map(|File { name, text }| Source::file(name, text))
            .collect());
    }
    Ok(vec![Source {
        name: String::new(),
        text: text.to_owned(),
        format,
    }])
}

fn known_kind(text: &str) -> Result<Kind, Failure> {
    Kind::from_text(text).ok_or_else(|| {
        let sentence = format!("there is no kind `{}`; expected {}", text.escape_debug(), Kind::list());
        Failure::new(StatusCode::NOT_FOUND, sentence)
    })
}

async fn list(
    intent: Arc<Intent>,
    kind: Option<Kind>,
    Namespace { namespace }: Namespace,
) -> Result<Response, Failure> {
    let wanted = move |key: &Key| {
        kind.is_none_or(|kind| key.kind == kind)
            && (!key.kind.namespaced() || namespace.is_none() || key.namespace == namespace)
    };
    // The resources are shared, not copied, and the store is not held while they are written out.
    let items = move |intent: &Intent| -> Vec<Arc<Resource>> {
        intent
            .store()
            .all()
            .filter(|(key, _)| wanted(key))
            .map(|(_, resource)| resource.clone())
            .collect()
    };
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written<'a> {
        api_version: &'static str,
        kind: &'static str,
        items: Vec<&'a Resource>,
    }
    blocking(intent, move |intent| {
        let items = items(intent);
        Json(Written {
            api_version: "v1",
            kind: "List",
            items: items.iter().map(|item| &**item).collect(),
        })
        .into_response()
    })
    .await
}
