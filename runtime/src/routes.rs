//! The runtime's HTTP routes: graphs, looks ahead, control, models. Mounted by the gateway under `/api/v1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use orrery_protocol::{DeviceId, Principal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::control::{Change, CommandStatus, ControlView, LeaseView, Review};
use crate::forecast::{Forecast, MAX_HORIZON_S};
use crate::graph::nearest;
use crate::handle::{Activity, GraphHandle};
use crate::progress::Event;
use crate::refusal::Refusal;
use crate::service::Runtime;

const DEFAULT_HORIZON_S: u32 = 90;

/// The routes, relative to `/api/v1`.
pub(crate) fn routes(runtime: Arc<Runtime>) -> Router {
    let solver = crate::solver::routes(runtime.engine_kind());
    Router::new()
        .route("/graphs", get(graphs))
        .route("/graphs/{id}/forecast", get(forecast))
        .route("/graphs/{id}/what-if", post(what_if))
        .route("/graphs/{id}/reset", post(reset))
        .route("/graphs/{id}/parameters", post(parameters))
        .route("/control", get(control))
        .route("/control/keys", get(control_keys))
        .route("/control/lease", post(take_lease).delete(release_lease))
        .route("/control/review", post(review))
        .route("/control/send", post(send))
        .route("/control/set", post(set))
        .route("/control/off", post(off))
        .route("/control/commands/{id}", get(command))
        .with_state(runtime)
        .merge(solver)
}

/// The OpenAPI paths of these routes, relative to `/api/v1`.
pub fn openapi() -> serde_json::Value {
    let path = |method: &str, summary: &str| {
        json!({ method: { "tags": ["runtime"], "summary": summary, "responses": {
        "200": { "description": "done", "content": { "application/json": {} } },
        "4XX": { "description": "refused, with the reason", "content": { "application/problem+json": {} } } } } })
    };
    let post = |summary: &str| {
        let mut item = path("post", summary);
        item["post"]["requestBody"] = json!({ "required": true, "content": { "application/json": {} } });
        item
    };
    let mut paths = json!({
        "/graphs": path("get", "Graphs with their model, bindings, state and counters"),
        "/graphs/{id}/forecast": path("get", "The model run ahead with its inputs held"),
        "/graphs/{id}/what-if": post("The model run ahead with some inputs changed"),
        "/graphs/{id}/reset": path("post", "Start a new run from the measured values at the next tick; revives a graph that failed"),
        "/graphs/{id}/parameters": post("Change tunable parameters at the next tick"),
        "/control": path("get", "What can be set, the interlocks and the lease"),
        "/control/keys": path("get", "Public keys (Ed25519, hexadecimal) whose commands agents may carry out"),
        "/control/lease": { "post": path("post", "Take or renew control for 30 minutes")["post"], "delete": path("delete", "Release control")["delete"] },
        "/control/review": post("What a change would do, and whether the interlocks allow it; valid for 30 s"),
        "/control/send": post("Send a reviewed change after checking it again"),
        "/control/set": post("Check and send one change, or several as `changes`: all of them or none"),
        "/control/off": post("Send every channel, or those of one `device`, its off value; nothing stands in the way"),
        "/control/commands/{id}": path("get", "What became of a command"),
    });
    if let (Some(paths), serde_json::Value::Object(solver)) = (paths.as_object_mut(), crate::solver::openapi()) {
        paths.extend(solver);
    }
    json!({ "paths": paths })
}

#[derive(Serialize)]
struct GraphView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelView>,
    tick_ms: Option<u32>,
    inputs: Vec<serde_json::Value>,
    outputs: Vec<serde_json::Value>,
    parameters: Vec<serde_json::Value>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    pairs: Vec<serde_json::Value>,
    statistics: serde_json::Value,
}

#[derive(Serialize)]
struct ModelView {
    name: String,
    digest: String,
    version: String,
}

async fn graphs(State(runtime): State<Arc<Runtime>>) -> Json<serde_json::Value> {
    let mut views: Vec<GraphView> = runtime.graphs().iter().map(|graph| view(graph, &runtime)).collect();
    views.extend(runtime.unloadable().iter().map(|graph| GraphView {
        id: graph.id.clone(),
        title: None,
        model: None,
        tick_ms: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        parameters: Vec::new(),
        state: "failed",
        reason: Some(graph.reason.clone()),
        pairs: Vec::new(),
        statistics: json!({}),
    }));
    Json(json!({ "graphs": views }))
}

fn view(graph: &GraphHandle, runtime: &Runtime) -> GraphView {
    let (file, layout, meta) = (&graph.file.graph, &graph.layout, graph.model.meta());
    let status = graph.status();
    let (state, reason) = match status.activity {
        Activity::Running => ("running", None),
        Activity::Waiting(reason) => ("waiting", Some(reason)),
        Activity::Failed(reason) => ("failed", Some(reason)),
    };
    let input = |(name, binding): (&String, &crate::graph::InputBinding)| json!({ "name": name, "stream": binding.stream, "channel": binding.channel, "unit": binding.unit, "mode": binding.mode });
    let stream = file.output_stream();
    let output = |(name, binding): (&String, &crate::graph::OutputBinding)| json!({ "name": name, "channel": format!("{stream}.{name}"), "from": binding.from, "unit": binding.unit, "title": binding.title });
    let pair = |(name, binding): (&String, &crate::graph::OutputBinding)| {
        let measured = binding.measured.as_ref()?;
        Some(json!({
            "measured": measured,
            "output": format!("{stream}.{name}"),
            "sd": format!("{stream}.{name}_sd"),
            "residual": format!("{stream}.{name}_residual"),
        }))
    };
    let parameter = |(index, var): (usize, &orrery_lang::Var)| {
        let given = layout
            .parameters
            .iter()
            .find(|(at, _)| *at == index)
            .map_or(var.default, |(_, value)| *value);
        json!({ "name": var.name, "unit": var.unit, "value": given, "description": var.description })
    };
    let counters = status.statistics;
    let behind = counters
        .last_tick
        .map(|last| runtime.clock().wall().nanos_since(last) as f64 / 1e6);
    GraphView {
        id: file.id.to_string(),
        title: Some(file.title.clone()),
        model: Some(ModelView {
            name: meta.model.clone(),
            digest: graph.model_digest().to_string(),
            version: meta.compiler.clone(),
        }),
        tick_ms: Some(file.tick_ms),
        inputs: file.inputs.iter().map(input).collect(),
        outputs: file.outputs.iter().map(output).collect(),
        parameters: meta.parameters.iter().enumerate().map(parameter).collect(),
        state,
        reason,
        pairs: file.outputs.iter().filter_map(pair).collect(),
        statistics: json!({
            "ticks": counters.ticks.to_string(),
            "ticks_waived": counters.ticks_waived.to_string(),
            "runs": counters.runs.to_string(),
            "late_rows": counters.late_rows.to_string(),
            "unreadable_blocks": counters.unreadable_blocks.to_string(),
            "last_tick": counters.last_tick.map(|time| time.to_rfc3339()),
            "behind_ms": behind,
        }),
    }
}

#[derive(Deserialize)]
struct Horizon {
    horizon_s: Option<u32>,
}

async fn forecast(
    State(runtime): State<Arc<Runtime>>,
    Path(id): Path<String>,
    Query(query): Query<Horizon>,
) -> Result<Json<Forecast>, Refusal> {
    look(&runtime, &id, Vec::new(), query.horizon_s).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhatIf {
    set: BTreeMap<String, f64>,
    horizon_s: Option<u32>,
}

async fn what_if(
    State(runtime): State<Arc<Runtime>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Forecast>, Refusal> {
    let WhatIf { set, horizon_s } = parse(&body)?;
    look(&runtime, &id, set.into_iter().collect(), horizon_s)
        .await
        .map(Json)
}

async fn look(
    runtime: &Arc<Runtime>,
    id: &str,
    set: Vec<(String, f64)>,
    horizon_s: Option<u32>,
) -> Result<Forecast, Refusal> {
    let graph = find(runtime, id)?;
    let horizon_s = horizon_s.unwrap_or(DEFAULT_HORIZON_S);
    if !(1..=MAX_HORIZON_S).contains(&horizon_s) {
        return Err(Refusal::Range(format!(
            "horizon_s is {horizon_s}; choose 1 to {MAX_HORIZON_S}."
        )));
    }
    if let Some((name, value)) = set.iter().find(|(_, value)| !value.is_finite()) {
        return Err(Refusal::Range(format!("{name} is {value}; give a number.")));
    }
    let clock = Arc::clone(runtime.clock());
    Ok(aside(move || graph.look(&set, horizon_s, clock.as_ref())).await??)
}

/// Runs what may run a model off the executor's threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Refusal::Ended(error.to_string()))
}

async fn reset(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    operator(&who)?;
    find(&runtime, &id)?.request(Event::Reset);
    Ok(StatusCode::ACCEPTED)
}

async fn parameters(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    operator(&who)?;
    let graph = find(&runtime, &id)?;
    let values: BTreeMap<String, f64> = parse(&body)?;
    let meta = graph.model.meta();
    let mut events = Vec::with_capacity(values.len());
    for (name, value) in values {
        let known = nearest(&name, meta.parameters.iter().map(|var| var.name.as_str()));
        let unknown = || Refusal::Parameter(format!("Model `{}` has no parameter `{name}`{known}.", meta.model));
        let index = meta.parameter(&name).ok_or_else(unknown)?;
        let var = &meta.parameters[index];
        let inside =
            value.is_finite() && var.min.is_none_or(|min| value >= min) && var.max.is_none_or(|max| value <= max);
        if !inside {
            return Err(Refusal::Parameter(format!(
                "{name} = {value} {} is outside the model's bounds.",
                var.unit
            )));
        }
        events.push(Event::SetParameter { index, value });
    }
    events.into_iter().for_each(|event| graph.request(event));
    Ok(StatusCode::ACCEPTED)
}

async fn control(State(runtime): State<Arc<Runtime>>) -> Result<Json<ControlView>, Refusal> {
    aside(move || runtime.control().view()).await.map(Json)
}

async fn control_keys(State(runtime): State<Arc<Runtime>>) -> Json<serde_json::Value> {
    Json(json!({ "keys": [runtime.control().public_key()] }))
}

async fn take_lease(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
) -> Result<Json<LeaseView>, Refusal> {
    operator(&who)?;
    runtime.control().take_lease(&who.name).map(Json)
}

async fn release_lease(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
) -> Result<StatusCode, Refusal> {
    operator(&who)?;
    runtime.control().release_lease(&who.name);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    changes: Vec<Change>,
}

async fn review(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Review>, Refusal> {
    operator(&who)?;
    let Changes { changes } = parse(&body)?;
    aside(move || runtime.control().review(changes, &who.name))
        .await?
        .map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendReviewed {
    review_id: String,
}

#[derive(Serialize)]
struct Sent {
    commands: Vec<CommandStatus>,
}

async fn send(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Sent>, Refusal> {
    operator(&who)?;
    let SendReviewed { review_id } = parse(&body)?;
    let commands = runtime.control().send(&review_id, &who.name).await?;
    Ok(Json(Sent { commands }))
}

async fn set(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Sent>, Refusal> {
    operator(&who)?;
    // One change may come without its list.
    let value: serde_json::Value = parse(&body)?;
    let changes = match value.get("changes") {
        Some(_) => parse::<Changes>(&body)?.changes,
        None => vec![parse(&body)?],
    };
    let commands = runtime.control().set(changes, &who.name).await?;
    Ok(Json(Sent { commands }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Off {
    device: Option<DeviceId>,
}

async fn off(
    State(runtime): State<Arc<Runtime>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Sent>, Refusal> {
    operator(&who)?;
    let Off { device } = if body.is_empty() { Off::default() } else { parse(&body)? };
    let commands = runtime.control().off(device.as_ref(), &who.name).await?;
    Ok(Json(Sent { commands }))
}

async fn command(State(runtime): State<Arc<Runtime>>, Path(id): Path<String>) -> Result<Json<CommandStatus>, Refusal> {
    runtime
        .control()
        .command(&id)
        .map(Json)
        .ok_or(Refusal::UnknownCommand(id))
}

fn find(runtime: &Runtime, id: &str) -> Result<Arc<GraphHandle>, Refusal> {
    let graphs = runtime.graphs();
    graphs
        .iter()
        .find(|graph| graph.id() == id)
        .cloned()
        .ok_or_else(|| Refusal::UnknownGraph {
            asked: id.to_owned(),
            hint: nearest(id, graphs.iter().map(|graph| graph.id())),
        })
}

fn operator(who: &Principal) -> Result<(), Refusal> {
    if who.is_operator() {
        Ok(())
    } else {
        Err(Refusal::NotOperator)
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))
}
