//! What the log shows over HTTP. Hashes are base64, as in checkpoints; 64-bit integers are strings.
//!
//! Below `/provenance` also lie `checkpoint` and `tile/…` exactly as C2SP tlog-tiles names them, so that its clients
//! work with that prefix.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as FromState};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use orrery_protocol::{Problem, TaiNanos};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::log::tiles::TileName;
use crate::service::{Handle, State};
use crate::tree::Hash;
use crate::{Entry, LogError, ModelEntry};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1_000;

/// A query that was understood, or why not.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// What the routes answer, as a fragment of an OpenAPI 3.1 document.
pub fn openapi() -> serde_json::Value {
    let get = |summary: &str, query: &[&str]| {
        let parameters: Vec<_> = query
            .iter()
            .map(|name| serde_json::json!({ "name": name, "in": "query", "schema": { "type": "integer" } }))
            .collect();
        let responses = serde_json::json!({ "200": { "description": "the answer" } });
        serde_json::json!({ "get": { "tags": ["provenance"], "summary": summary, "parameters": parameters, "responses": responses } })
    };
    let mut paths = serde_json::json!({ "paths": {
        "/provenance/checkpoint": get("The latest signed checkpoint (C2SP tlog-checkpoint)", &[]),
        "/provenance/proof": get("An inclusion proof of one record (RFC 6962)", &["index"]),
        "/provenance/consistency": get("A consistency proof between two sizes (RFC 6962)", &["from", "to"]),
        "/provenance/entries": get("Records as they were hashed", &["from", "limit"]),
        "/provenance/tile/{path}": get("A tile of the tree or of the entries (C2SP tlog-tiles); the path has slashes", &[]),
        "/provenance/status": get("Size, root, and until when the log knows everything", &[]),
    } });
    paths["paths"]["/provenance"] = serde_json::json!({ "get": {
        "tags": ["provenance"],
        "summary": "What the log had at an instant: size, root and models; whether it can be relied on",
        "parameters": [{ "name": "at", "in": "query", "description": "RFC 3339; now when left out",
            "schema": { "type": "string", "format": "date-time" } }],
        "responses": { "200": { "description": "the answer" }, "503": { "description": "the entries are still being read" } },
    } });
    paths
}

/// The routes of the service, to be mounted under `/api/v1`.
pub fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/provenance", get(moment))
        .route("/provenance/status", get(status))
        .route("/provenance/checkpoint", get(checkpoint))
        .route("/provenance/proof", get(proof))
        .route("/provenance/consistency", get(consistency))
        .route("/provenance/entries", get(entries))
        .route("/provenance/tile/{*path}", get(tile))
        .with_state(handle)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MomentQuery {
    at: Option<String>,
}

#[derive(Serialize)]
struct MomentBody {
    at: Option<String>,
    size: String,
    root: String,
    models: Vec<ModelEntry>,
    head: Head,
    state: State,
    why: Option<String>,
    until: Option<String>,
    verified: Option<String>,
    origin: String,
    key: String,
}

/// The whole log as it stands.
#[derive(Serialize)]
struct Head {
    size: String,
    root: String,
}

async fn moment(FromState(handle): FromState<Handle>, query: Asked<MomentQuery>) -> Result<Response, Refusal> {
    let Query(MomentQuery { at }) = query.map_err(bad_query)?;
    let at = at.as_deref().map(TaiNanos::parse_rfc3339).transpose();
    let at = at.map_err(|error| Refusal(Problem::new(400, "bad-query", "Not a time", format!("at: {error}"))))?;
    // Nothing asked is everything there is.
    let asked = at.unwrap_or(TaiNanos(i64::MAX));
    let read = handle.clone();
    let moment = tokio::task::spawn_blocking(move || read.moment(asked)).await;
    let moment = moment.map_err(|_| Refusal::broken("reading the log failed"))??;
    let status = handle.status();
    let moment = moment.ok_or_else(|| match status.state {
        State::Mismatch => Refusal::broken(status.why.as_deref().unwrap_or("run `orrery provenance verify`")),
        _ => Refusal(Problem::new(
            503,
            "log-being-read",
            "The log is being read",
            "its entries are checked first; ask again in a moment",
        )),
    })?;
    let log = handle.log();
    let key = log.verifier_key();
    Ok(json(&MomentBody {
        at: at.map(TaiNanos::to_rfc3339),
        size: moment.size.to_string(),
        root: hex::encode(moment.root),
        models: moment.models,
        head: Head {
            size: log.size().to_string(),
            root: hex::encode(log.root()),
        },
        state: status.state,
        why: status.why,
        until: status.until.map(TaiNanos::to_rfc3339),
        verified: status.verified.map(TaiNanos::to_rfc3339),
        origin: key.name.clone(),
        key: key.to_string(),
    }))
}

#[derive(Serialize)]
struct StatusBody {
    size: String,
    root: String,
    until: Option<String>,
    state: State,
    origin: String,
    key: String,
    refused: String,
    why: Option<String>,
}

async fn status(FromState(handle): FromState<Handle>) -> Response {
    let status = handle.status();
    let log = handle.log();
    let key = log.verifier_key();
    json(&StatusBody {
        size: log.size().to_string(),
        root: hex::encode(log.root()),
        until: status.until.map(|until| until.to_rfc3339()),
        state: status.state,
        origin: key.name.clone(),
        key: key.to_string(),
        refused: status.refused.to_string(),
        why: status.why,
    })
}

async fn checkpoint(FromState(handle): FromState<Handle>) -> Response {
    let note = handle.log().checkpoint().to_owned();
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        note,
    )
        .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofQuery {
    index: u64,
}

#[derive(Serialize)]
struct ProofBody {
    index: String,
    size: String,
    leaf_hash: String,
    root: String,
    proof: Vec<String>,
    checkpoint: String,
}

async fn proof(FromState(handle): FromState<Handle>, query: Asked<ProofQuery>) -> Result<Response, Refusal> {
    let Query(ProofQuery { index }) = query.map_err(bad_query)?;
    let log = handle.log();
    let path = log.prove_inclusion(index)?;
    let leaf = log.leaf(index)?;
    Ok(json(&ProofBody {
        index: index.to_string(),
        size: log.size().to_string(),
        leaf_hash: base64(&leaf),
        root: base64(&log.root()),
        proof: path.iter().map(base64).collect(),
        checkpoint: log.checkpoint().to_owned(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsistencyQuery {
    from: u64,
    to: Option<u64>,
}

#[derive(Serialize)]
struct ConsistencyBody {
    from: String,
    to: String,
    from_root: String,
    to_root: String,
    proof: Vec<String>,
}

async fn consistency(
    FromState(handle): FromState<Handle>,
    query: Asked<ConsistencyQuery>,
) -> Result<Response, Refusal> {
    let Query(ConsistencyQuery { from, to }) = query.map_err(bad_query)?;
    let log = handle.log();
    let to = to.unwrap_or_else(|| log.size());
    let path = log.prove_consistency(from, to)?;
    Ok(json(&ConsistencyBody {
        from: from.to_string(),
        to: to.to_string(),
        from_root: base64(&log.root_at(from)?),
        to_root: base64(&log.root_at(to)?),
        proof: path.iter().map(base64).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntriesQuery {
    from: u64,
    limit: u64,
}

impl Default for EntriesQuery {
    fn default() -> Self {
        Self {
            from: 0,
            limit: DEFAULT_LIMIT,
        }
    }
}

#[derive(Serialize)]
struct EntriesBody {
    size: String,
    entries: Vec<EntryBody>,
    /// Where the next page starts; absent on the last.
    next: Option<String>,
}

#[derive(Serialize)]
struct EntryBody {
    index: String,
    leaf_hash: String,
    /// The entry's exact bytes: they are JSON, and hashing them again must give the leaf hash.
    statement: Box<RawValue>,
}

async fn entries(FromState(handle): FromState<Handle>, query: Asked<EntriesQuery>) -> Result<Response, Refusal> {
    let Query(EntriesQuery { from, limit }) = query.map_err(bad_query)?;
    let limit = limit.clamp(1, MAX_LIMIT);
    let read = tokio::task::spawn_blocking(move || {
        let log = handle.log();
        log.entries(from.min(log.size()), limit)
            .map(|entries| (entries, log.size()))
    });
    let (entries, size) = read
        .await
        .map_err(|_| Refusal::broken("reading the entries failed"))??;
    let end = from.saturating_add(entries.len() as u64);
    let entries: Result<Vec<EntryBody>, Refusal> = entries.into_iter().map(entry_body).collect();
    Ok(json(&EntriesBody {
        size: size.to_string(),
        entries: entries?,
        next: (end < size).then(|| end.to_string()),
    }))
}

fn entry_body(entry: Entry) -> Result<EntryBody, Refusal> {
    let text = String::from_utf8(entry.bytes)
        .ok()
        .and_then(|text| RawValue::from_string(text).ok());
    let broken = || {
        Refusal::broken(&format!(
            "entry {} is not JSON: run `orrery provenance verify`",
            entry.index
        ))
    };
    let statement = text.ok_or_else(broken)?;
    Ok(EntryBody {
        index: entry.index.to_string(),
        leaf_hash: base64(&entry.leaf_hash),
        statement,
    })
}

async fn tile(FromState(handle): FromState<Handle>, Path(path): Path<String>) -> Result<Response, Refusal> {
    let missing = || {
        Refusal(Problem::new(
            404,
            "unknown-tile",
            "No such tile",
            format!("the log has no tile/{path}"),
        ))
    };
    let name = TileName::parse(&path).ok_or_else(missing)?;
    let read = tokio::task::spawn_blocking(move || match name.level {
        Some(level) => Ok(handle.log().hash_tile(level, name.index, name.width)),
        None => handle.log().entry_bundle(name.index, name.width),
    });
    let bytes = read
        .await
        .map_err(|_| Refusal::broken("reading the tile failed"))??
        .ok_or_else(missing)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// An RFC 9457 problem on its way out.
struct Refusal(Problem);

impl Refusal {
    fn broken(detail: &str) -> Self {
        Self(Problem::new(500, "log-damaged", "The log cannot be read", detail))
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Outside { .. } => Self(Problem::new(
                404,
                "outside-the-log",
                "Not in the log",
                error.to_string(),
            )),
            _ => Self::broken(&error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0)).into_response();
        let problem = header::HeaderValue::from_static(Problem::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        response
    }
}

fn bad_query(rejection: QueryRejection) -> Refusal {
    Refusal(Problem::new(
        400,
        "bad-query",
        "The query is not understood",
        rejection.body_text(),
    ))
}

fn json(body: &impl Serialize) -> Response {
    axum::Json(body).into_response()
}

fn base64(hash: &Hash) -> String {
    BASE64.encode(hash)
}
