//! The aligner's HTTP routes. The gateway mounts them and says who asks.

use std::convert::Infallible;
use std::str::FromStr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use base64::Engine as _;
use futures_util::stream;
use orrery_protocol::{DeviceId, KeyId, Principal, Problem, PublicKey, RecordKind, Role, StreamId, Subject, TaiNanos};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::render::{Renderer, replay_batch, replay_schema};
use crate::{Error, Format, Handle, QueryStream, Replay, ReplayRequest, Run, WindowRequest};

/// Output is sent on in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;

/// The routes, to be mounted under `/api/v1`. They answer 503 until the service runs.
pub fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/devices", get(devices).post(enrol))
        .route("/devices/{device}/keys/{key}/revoke", post(revoke))
        .route("/streams", get(streams))
        .route("/streams/{device}/{name}/window", get(window))
        .route("/presence", get(presence))
        .route("/replay", get(replay))
        .route("/seek", get(seek))
        .route("/query", post(query))
        .route("/aligner/status", get(status))
        .with_state(handle)
}

/// An error as RFC 9457 problem details.
struct Refusal(Problem);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (
            status,
            [(header::CONTENT_TYPE, Problem::CONTENT_TYPE)],
            Json(self.0).into_response().into_body(),
        )
            .into_response()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, name, title) = match &error {
            Error::UnknownStream { .. } => (404, "unknown-stream", "No such stream"),
            Error::UnknownRevision { .. } => (404, "unknown-revision", "No such revision"),
            Error::Request(_) => (400, "bad-request", "The request makes no sense"),
            Error::Sql(_) => (400, "bad-sql", "The query cannot be answered"),
            Error::KeyConflict { .. } => (409, "key-conflict", "Another key is enrolled"),
            Error::KeyRevoked { .. } => (409, "key-revoked", "This key was revoked"),
            Error::UnknownKey { .. } => (404, "unknown-key", "No such key"),
            Error::Internal(_) => (500, "internal", "The aligner failed"),
            Error::Segment { .. } => (500, "segment", "A part of the store is damaged"),
            Error::NotRunning => (503, "not-running", "The aligner is not running"),
            _ => (500, "aligner", "The aligner failed"),
        };
        Self(Problem::new(status, name, title, error.to_string()))
    }
}

type Answer<T> = Result<T, Refusal>;

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::from(Error::Request(detail.into()))
}

async fn devices(State(handle): State<Handle>) -> Answer<Json<Value>> {
    Ok(Json(handle.devices().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolBody {
    device_id: String,
    public_key: String,
    title: Option<String>,
    protocol: Option<String>,
}

async fn enrol(
    State(handle): State<Handle>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<EnrolBody>,
) -> Answer<(StatusCode, Json<Value>)> {
    if !matches!(principal.role, Role::Operator | Role::Enroller) {
        let detail = format!("`{}` may not enrol devices: use an enrolment token", principal.name);
        return Err(Refusal(Problem::new(403, "forbidden", "Not allowed", detail)));
    }
    let device = DeviceId::new(&body.device_id).map_err(|error| bad(error.to_string()))?;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = engine
        .decode(body.public_key.trim_end_matches('='))
        .map_err(|_| bad("`public_key` is not base64url"))?;
    let public = PublicKey::from_bytes(&key).map_err(|error| bad(error.to_string()))?;
    let created = handle.enrol(device.clone(), public, body.title, body.protocol).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((
        status,
        Json(json!({ "device_id": device.as_str(), "kid": public.key_id().to_string() })),
    ))
}

/// Revokes a key and answers the device as it is then.
async fn revoke(
    State(handle): State<Handle>,
    Extension(principal): Extension<Principal>,
    Path((device, key)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    if principal.role != Role::Operator {
        let detail = format!("`{}` may not revoke keys: use the operator token", principal.name);
        return Err(Refusal(Problem::new(403, "forbidden", "Not allowed", detail)));
    }
    let device = DeviceId::new(&device).map_err(|error| bad(error.to_string()))?;
    let key_id = hex::decode(&key).map_err(|_| bad(format!("`{key}` is no key id: it has 32 hexadecimal digits")))?;
    handle.revoke(device.clone(), KeyId(key_id)).await?;
    let devices = handle.devices().await?;
    let mut known = devices["devices"].as_array().into_iter().flatten();
    let found = known.find(|known| known["device_id"] == device.as_str());
    found
        .cloned()
        .map(Json)
        .ok_or_else(|| Error::Internal(format!("device `{device}` is gone")).into())
}

async fn streams(State(handle): State<Handle>) -> Answer<Json<Value>> {
    let view = handle.store()?.view();
    Ok(Json(
        json!({ "revision": view.revision.to_string(), "streams": view.stream_infos() }),
    ))
}

#[derive(Deserialize)]
struct WindowQuery {
    from_ms: f64,
    to_ms: f64,
    columns: Option<usize>,
}

async fn window(
    State(handle): State<Handle>,
    Path((device, name)): Path<(String, String)>,
    Query(asked): Query<WindowQuery>,
) -> Answer<Json<Value>> {
    let stream = StreamId::new(format!("{device}/{name}")).map_err(|error| bad(error.to_string()))?;
    let (from_ms, to_ms) = (asked.from_ms, asked.to_ms);
    let request = WindowRequest {
        stream: stream.clone(),
        from_ms,
        to_ms,
        columns: asked.columns.unwrap_or(600),
    };
    let window = handle.store()?.window(&request).await?;
    let (from, to) = (TaiNanos::from_unix_millis(from_ms), TaiNanos::from_unix_millis(to_ms));
    let gaps = handle.gaps(stream.device(), from, to).await?;
    let mut body =
        serde_json::to_value(window).map_err(|error| Error::Internal(format!("a window is no JSON: {error}")))?;
    body["gaps"] = Value::from(gaps);
    Ok(Json(body))
}

async fn presence(State(handle): State<Handle>, Query(asked): Query<WindowQuery>) -> Answer<Json<Value>> {
    let devices = handle
        .store()?
        .presence(asked.from_ms, asked.to_ms, asked.columns.unwrap_or(300))
        .await?;
    Ok(Json(
        json!({ "from_ms": asked.from_ms, "to_ms": asked.to_ms, "devices": devices }),
    ))
}

#[derive(Deserialize)]
struct ReplayQuery {
    from: Option<String>,
    to: Option<String>,
    streams: Option<String>,
    revision: Option<u64>,
    format: Option<String>,
    /// Leave a record of the digest in the provenance log.
    #[serde(default)]
    record: bool,
}

async fn replay(State(handle): State<Handle>, Query(asked): Query<ReplayQuery>) -> Answer<Response> {
    let time = |text: &Option<String>, default: i64| match text {
        None => Ok(TaiNanos(default)),
        Some(text) => TaiNanos::parse_rfc3339(text).map_err(|error| bad(error.to_string())),
    };
    let request = ReplayRequest {
        from: time(&asked.from, i64::MIN)?,
        to: time(&asked.to, i64::MAX)?,
        streams: stream_list(asked.streams.as_deref())?,
        revision: asked.revision,
    };
    let replay = handle.store()?.replay(&request)?;
    match asked.format.as_deref().unwrap_or("ndjson") {
        "digest" => Ok(digest(&handle, replay, &asked, &request).await?.into_response()),
        format => {
            let format = Format::from_str(format)?;
            let schema = replay_schema(&replay.union_channels());
            let source = Source::Replay {
                replay: Box::new(replay),
                waiting: Vec::new(),
            };
            body(format, Renderer::new(format, schema.clone()), source, schema).await
        }
    }
}

/// Digests a replay; with `record` the provenance log keeps the digest.
async fn digest(handle: &Handle, replay: Replay, asked: &ReplayQuery, request: &ReplayRequest) -> Answer<Json<Value>> {
    let revision = replay.revision();
    let at = replay.view().stamp;
    let streams: Vec<String> = replay.schemas().map(|(stream, _)| stream.to_string()).collect();
    let (digest, rows) = replay.digest().await?;
    let answer = json!({
        "digest": digest.to_string(), "rows": rows.to_string(), "revision": revision.to_string(),
        "from": asked.from, "to": asked.to, "streams": streams,
    });
    if !asked.record {
        return Ok(Json(answer));
    }
    let record = orrery_protocol::Record {
        kind: RecordKind::Replay,
        subject: vec![Subject {
            name: "replay".to_owned(),
            sha256: digest,
        }],
        predicate: answer.clone(),
        at,
    };
    let key = request
        .streams
        .first()
        .map_or_else(|| "all".to_owned(), ToString::to_string);
    handle.record(key, record).await?;
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct SeekQuery {
    time: String,
    streams: Option<String>,
    revision: Option<u64>,
}

async fn seek(State(handle): State<Handle>, Query(asked): Query<SeekQuery>) -> Answer<Json<Value>> {
    let time = TaiNanos::parse_rfc3339(&asked.time).map_err(|error| bad(error.to_string()))?;
    let streams = stream_list(asked.streams.as_deref())?;
    let rows = handle.store()?.seek(time, &streams, asked.revision).await?;
    Ok(Json(crate::render::seek_json(&rows)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    sql: String,
    format: Option<String>,
}

async fn query(State(handle): State<Handle>, Json(asked): Json<QueryBody>) -> Answer<Response> {
    let format = Format::from_str(asked.format.as_deref().unwrap_or("json"))?;
    let stream = handle.store()?.query(&asked.sql).await?;
    let schema = stream.schema();
    body(
        format,
        Renderer::new(format, schema.clone()),
        Source::Query(Box::new(stream)),
        schema,
    )
    .await
}

async fn status(State(handle): State<Handle>) -> Answer<Json<Value>> {
    Ok(Json(handle.status().await?))
}

fn stream_list(text: Option<&str>) -> Answer<Vec<StreamId>> {
    text.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| StreamId::new(name).map_err(|error| bad(error.to_string())))
        .collect()
}

enum Source {
    Query(Box<QueryStream>),
    Replay { replay: Box<Replay>, waiting: Vec<Run> },
}

impl Source {
    async fn next(&mut self, schema: &arrow::datatypes::SchemaRef) -> Result<Option<arrow::array::RecordBatch>, Error> {
        match self {
            Self::Query(query) => query.next().await,
            Self::Replay { replay, waiting } => {
                // Interleaved streams give short runs: print many of them together.
                let mut rows = 0;
                while rows < 4096 {
                    let Some(run) = replay.next().await? else {
                        break;
                    };
                    rows += run.count;
                    waiting.push(run);
                }
                if waiting.is_empty() {
                    return Ok(None);
                }
                replay_batch(&std::mem::take(waiting), schema).map(Some)
            }
        }
    }
}

/// Streams an answer. The first piece is made before the head is sent, so that what fails at once is a problem, not a
/// broken body.
async fn body(
    format: Format,
    renderer: Renderer,
    source: Source,
    schema: arrow::datatypes::SchemaRef,
) -> Answer<Response> {
    let mut state = Some((renderer, source));
    let first = piece(&mut state, &schema).await?;
    // Fused: what compresses an answer asks once more after its end.
    let rest = futures_util::StreamExt::fuse(stream::unfold(Some((state, schema)), |held| async move {
        let (mut state, schema) = held?;
        match piece(&mut state, &schema).await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some((state, schema)))),
            Ok(None) => None,
            // The head is gone: breaking the connection is the only way to say that the answer is not whole.
            Err(error) => {
                tracing::warn!(%error, "an answer broke off");
                Some((Err(std::io::Error::other(error.to_string())), None))
            }
        }
    }));
    let first = stream::iter(first.map(Ok::<Bytes, Infallible>));
    let all = futures_util::StreamExt::chain(
        futures_util::StreamExt::map(first, |piece| piece.map_err(std::io::Error::other)),
        rest,
    );
    Ok(([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(all)).into_response())
}

async fn piece(
    state: &mut Option<(Renderer, Source)>,
    schema: &arrow::datatypes::SchemaRef,
) -> Result<Option<Bytes>, Error> {
    let Some((renderer, source)) = state else {
        return Ok(None);
    };
    let mut out = Vec::new();
    while out.len() < PIECE_BYTES {
        match source.next(schema).await? {
            Some(batch) => out.extend(renderer.batch(&batch)?),
            None => {
                let Some((renderer, _)) = state.take() else {
                    break;
                };
                out.extend(renderer.finish()?);
                break;
            }
        }
    }
    Ok(Some(Bytes::from(out)))
}

/// The OpenAPI fragment of these routes, with paths as mounted under `/api/v1`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItemBuilder};
    use utoipa::openapi::request_body::RequestBodyBuilder;
    use utoipa::openapi::{
        ContentBuilder, InfoBuilder, OpenApiBuilder, PathsBuilder, Required, ResponseBuilder, ResponsesBuilder,
    };
    type Row<'a> = (HttpMethod, &'a str, &'a str, &'a [(&'a str, bool)]);
    let table: [Row<'_>; 10] = [
        (
            HttpMethod::Get,
            "/api/v1/devices",
            "Devices: state, rate, clock, gaps, counters, keys",
            &[],
        ),
        (HttpMethod::Post, "/api/v1/devices", "Enrols a device's public key", &[]),
        (
            HttpMethod::Post,
            "/api/v1/devices/{device}/keys/{key}/revoke",
            "Revokes a device's key: what it signs later is kept out. Answers the device. For the operator",
            &[("device", true), ("key", true)],
        ),
        (
            HttpMethod::Get,
            "/api/v1/streams",
            "Streams: descriptors, rows, first and last time",
            &[],
        ),
        (
            HttpMethod::Get,
            "/api/v1/streams/{device}/{name}/window",
            "A chart's data: first, least, greatest and last value per pixel column",
            &[
                ("device", true),
                ("name", true),
                ("from_ms", true),
                ("to_ms", true),
                ("columns", false),
            ],
        ),
        (
            HttpMethod::Get,
            "/api/v1/presence",
            "Per device, whether it had samples in each stretch of a window",
            &[("from_ms", true), ("to_ms", true), ("columns", false)],
        ),
        (
            HttpMethod::Get,
            "/api/v1/replay",
            "Rows in the total order, or with format=digest their digest, which record=true keeps in the provenance log",
            &[
                ("from", false),
                ("to", false),
                ("streams", false),
                ("revision", false),
                ("format", false),
                ("record", false),
            ],
        ),
        (
            HttpMethod::Get,
            "/api/v1/seek",
            "The last row of each stream at or before a time",
            &[("time", true), ("streams", false), ("revision", false)],
        ),
        (HttpMethod::Post, "/api/v1/query", "Answers SQL", &[]),
        (
            HttpMethod::Get,
            "/api/v1/aligner/status",
            "Counters, watermarks, lag",
            &[],
        ),
    ];
    let mut paths = PathsBuilder::new();
    for (method, path, summary, parameters) in table {
        let responses =
            ResponsesBuilder::new().response("200", ResponseBuilder::new().description("the answer").build());
        let responses = responses.response(
            "default",
            ResponseBuilder::new().description("problem details (RFC 9457)").build(),
        );
        let mut operation = OperationBuilder::new()
            .summary(Some(summary))
            .tag("aligner")
            .responses(responses.build());
        let has_body = matches!(path, "/api/v1/devices" | "/api/v1/query");
        if has_body && matches!(method, HttpMethod::Post) {
            let json = ContentBuilder::new().build();
            let body = RequestBodyBuilder::new()
                .content("application/json", json)
                .required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        for (name, required) in parameters {
            let place = if path.contains(&format!("{{{name}}}")) {
                ParameterIn::Path
            } else {
                ParameterIn::Query
            };
            let required = if *required { Required::True } else { Required::False };
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(*name)
                    .parameter_in(place)
                    .required(required)
                    .build(),
            );
        }
        let item = PathItemBuilder::new().operation(method, operation.build()).build();
        paths = paths.path(path, item);
    }
    let info = InfoBuilder::new()
        .title("Orrery aligner")
        .version(env!("CARGO_PKG_VERSION"))
        .build();
    OpenApiBuilder::new().info(info).paths(paths.build()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_within_is_not_the_fault_of_whoever_asked() {
        assert_eq!(Refusal::from(Error::Internal("a task ended".to_owned())).0.status, 500);
        assert_eq!(bad("an empty window").0.status, 400);
    }
}
