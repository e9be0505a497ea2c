//! Models over HTTP: solved on the spot, within bounds of size and time, away from the executor's threads.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::routing::post;
use orrery_protocol::Principal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::error::SolveError;
use super::gradient::Gradient;
use super::loss::Loss;
use super::options::{InputSeries, Limits, Method, SolveOptions};
use super::problem::{Problem, ProblemOptions};
use super::run::Solution;
use super::schedule::Output;
use super::second::Along;
use crate::config::EngineKind;
use crate::engine::Engine;
use crate::refusal::Refusal;

/// A request's text and data together.
const MAX_BODY: usize = 1 << 20;
/// Numbers in an answer.
const MAX_VALUES: usize = 2_000_000;
/// Solves at a time; the rest of the machine belongs to the graphs.
const AT_ONCE: usize = 2;
/// The rest of a module's memory is for rows.
const MOST_GRADIENT_MIB: u32 = 128;
const LIMITS: Limits = Limits {
    memory_mib: 256,
    gradient_bytes: 64 << 20,
    max_steps: 5_000_000,
    deadline_ms: Some(10_000),
};

struct Solver {
    kind: EngineKind,
    engine: OnceLock<Engine>,
    permits: Arc<Semaphore>,
}

/// The routes, relative to `/api/v1`.
pub(crate) fn routes(kind: EngineKind) -> Router {
    let solver = Solver {
        kind,
        engine: OnceLock::new(),
        permits: Arc::new(Semaphore::new(AT_ONCE)),
    };
    Router::new()
        .route("/models/solve", post(solve))
        .route("/models/gradient", post(gradient))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(solver))
}

/// The OpenAPI paths of these routes.
pub(crate) fn openapi() -> serde_json::Value {
    let answer =
        |description: &str| json!({ "description": description, "content": { "application/problem+json": {} } });
    let number = json!({ "type": "number" });
    let request = json!({ "type": "object", "required": ["source", "until"], "properties": {
        "source": { "type": "string", "description": "Modelica text" },
        "model": { "type": "string", "description": "the model to take where the text holds several" },
        "set": { "type": "object", "additionalProperties": number, "description": "values: p, or start(x)" },
        "from": { "type": "number", "default": 0 },
        "until": number,
        "every": { "type": "number", "description": "seconds between rows; without it the first and the last row" },
        "at": { "type": "array", "items": number, "description": "times of rows, instead of every" },
        "method": { "type": "string", "enum": ["auto", "tsit5", "rodas5p", "esdirk", "rk4"], "default": "auto" },
        "step": { "type": "number", "description": "for rk4" },
        "rtol": { "type": "number", "default": 1e-6 },
        "atol": { "type": "number", "default": 1e-9 },
        "inputs": { "type": "object", "additionalProperties": { "type": "object", "required": ["times", "values"],
            "properties": { "mode": { "type": "string", "enum": ["hold", "linear"] },
                "times": { "type": "array", "items": number }, "values": { "type": "array", "items": number } } } },
    } });
    let mut differentiable = request.clone();
    differentiable["required"] = json!(["source", "until", "loss"]);
    differentiable["properties"]["direction"] = json!({ "type": "object", "additionalProperties": number, "description":
        "instead of wrt: the answer is value, first and second, the derivatives along this line" });
    differentiable["properties"]["loss"] = json!({ "type": "object", "description":
        "one of terminal, path (an expression), least_squares (series), gaussian ([series, noise]), student_t, sum; a \
         series is {of, times, values, weights}, noise {name, scale}" });
    differentiable["properties"]["wrt"] = json!({ "type": "array", "items": { "type": "string" },
        "description": "parameters, inputs (by their knots), start(x), names of unknown noise" });
    differentiable["properties"]["memory_mib"] = json!({ "type": "integer", "minimum": 1, "maximum": MOST_GRADIENT_MIB,
        "default": LIMITS.gradient_bytes >> 20, "description": "memory for the steps of a gradient; a run that needs more is \
         solved a second time in pieces, with the same numbers" });
    let path = |summary: &str, schema: &serde_json::Value, good: &str| {
        json!({ "post": {
            "tags": ["runtime"],
            "summary": summary,
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema } } },
            "responses": {
                "200": { "description": good, "content": { "application/json": {} } },
                "400": answer("the body is not what this route takes"),
                "422": answer("the model is refused, with its diagnostics, or fails, with its equation and time"),
                "503": answer("other models are being solved; try again"),
            } } })
    };
    json!({
        "/models/solve": path("Compile a model and solve it, within 10 s and 2,000,000 numbers", &request,
            "time, series and statistics"),
        "/models/gradient": path("A loss of a model's solution and its exact gradient", &differentiable,
            "value and gradient, or value, first and second"),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    source: String,
    model: Option<String>,
    #[serde(default)]
    set: BTreeMap<String, f64>,
    #[serde(default)]
    from: f64,
    until: f64,
    every: Option<f64>,
    at: Option<Vec<f64>>,
    method: Option<MethodName>,
    step: Option<f64>,
    rtol: Option<f64>,
    atol: Option<f64>,
    #[serde(default)]
    inputs: BTreeMap<String, Knots>,
    /// For a gradient.
    loss: Option<Loss>,
    #[serde(default)]
    wrt: Vec<String>,
    memory_mib: Option<u32>,
    /// Instead of `wrt`: a line along which there are second derivatives.
    #[serde(default)]
    direction: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MethodName {
    Auto,
    Tsit5,
    Rodas5p,
    Esdirk,
    Rk4,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Knots {
    #[serde(default)]
    mode: Mode,
    times: Vec<f64>,
    values: Vec<f64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Hold,
    Linear,
}

/// What `/models/gradient` answers.
#[derive(Serialize)]
#[serde(untagged)]
enum Differentiated {
    Gradient(Gradient),
    Along(Along),
}

async fn solve(
    State(solver): State<Arc<Solver>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Solution>, Refusal> {
    let request = read(&who, &body)?;
    apart(&solver, move |solver| solver.solve(request)).await
}

async fn gradient(
    State(solver): State<Arc<Solver>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Result<Json<Differentiated>, Refusal> {
    let request = read(&who, &body)?;
    apart(&solver, move |solver| solver.gradient(request)).await
}

fn read(who: &Principal, body: &Bytes) -> Result<Request, Refusal> {
    if !who.is_operator() {
        return Err(Refusal::NotOperator);
    }
    serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))
}

/// Does the work on a thread that may block, if one is free for it.
async fn apart<T: Send + 'static>(
    solver: &Arc<Solver>,
    work: impl FnOnce(&Solver) -> Result<T, SolveError> + Send + 'static,
) -> Result<Json<T>, Refusal> {
    let permit = Arc::clone(&solver.permits)
        .try_acquire_owned()
        .map_err(|_| Refusal::Busy)?;
    let solver = Arc::clone(solver);
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&solver)
    });
    match work.await {
        Ok(done) => Ok(Json(done?)),
        Err(error) => Err(Refusal::Solve(SolveError::Module(format!(
            "the solve ended early: {error}"
        )))),
    }
}

impl Solver {
    fn engine(&self) -> Result<&Engine, SolveError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(self.kind).map_err(|error| SolveError::Module(error.to_string()))?;
        Ok(self.engine.get_or_init(|| engine))
    }

    fn problem(&self, request: &Request) -> Result<Problem, SolveError> {
        let mut limits = LIMITS;
        if let Some(mib) = request.memory_mib {
            if !(1..=MOST_GRADIENT_MIB).contains(&mib) {
                let remedy = format!("it must be between 1 and {MOST_GRADIENT_MIB}");
                return Err(SolveError::value("memory_mib", f64::from(mib), &remedy));
            }
            limits.gradient_bytes = u64::from(mib) << 20;
        }
        let (expressions, integrals) = request.loss.as_ref().map(Loss::expressions).unwrap_or_default();
        let options = ProblemOptions {
            model: request.model.clone(),
            set: request.set.clone().into_iter().collect(),
            limits,
            expressions,
            integrals,
            second_derivatives: !request.direction.is_empty(),
        };
        Problem::compile(self.engine()?, &request.source, "model.mo", &options)
    }

    fn gradient(&self, mut request: Request) -> Result<Differentiated, SolveError> {
        let problem = self.problem(&request)?;
        let loss = request.loss.take().ok_or_else(|| SolveError::Value {
            what: "loss".to_owned(),
            value: "absent".to_owned(),
            remedy: r#"give one, such as {"terminal": "x"}"#.to_owned(),
        })?;
        if request.direction.is_empty() {
            let wrt = problem.wrt(&request.wrt.join(","), &loss.noise())?;
            let gradient = problem.gradient(&loss, &wrt, &request.options()?)?;
            return Ok(Differentiated::Gradient(gradient));
        }
        if !request.wrt.is_empty() {
            return Err(SolveError::Value {
                what: "wrt".to_owned(),
                value: "given with a direction".to_owned(),
                remedy: "give one of them: a direction says what changes along it".to_owned(),
            });
        }
        let components: Vec<(String, f64)> = std::mem::take(&mut request.direction).into_iter().collect();
        let direction = problem.direction(&components, &loss.noise())?;
        let along = problem.loss_along(&loss, &direction, &request.options()?)?;
        Ok(Differentiated::Along(along))
    }

    fn solve(&self, request: Request) -> Result<Solution, SolveError> {
        let problem = self.problem(&request)?;
        let options = request.options()?;
        let mut solution = Solution {
            names: problem.names(),
            rows: orrery_lang::abi::Rows {
                times: Vec::new(),
                values: Vec::new(),
                columns: problem.meta().columns.len(),
            },
            statistics: Default::default(),
        };
        let rows = &mut solution.rows;
        solution.statistics = problem.stream(&options, &mut |piece| {
            if rows.values.len() + rows.times.len() + piece.values.len() + piece.times.len() > MAX_VALUES {
                let problem = format!("it has more than {MAX_VALUES} numbers; ask for fewer rows");
                return Err(SolveError::Output(problem));
            }
            rows.times.extend_from_slice(&piece.times);
            rows.values.extend_from_slice(&piece.values);
            Ok(())
        })?;
        Ok(solution)
    }
}

impl Request {
    fn options(self) -> Result<SolveOptions, SolveError> {
        let method = match self.method.unwrap_or(MethodName::Auto) {
            MethodName::Auto => Method::Auto,
            MethodName::Tsit5 => Method::Tsit5,
            MethodName::Rodas5p => Method::Rodas5p,
            MethodName::Esdirk => Method::Esdirk,
            MethodName::Rk4 => Method::Rk4 {
                step: self.step.or(self.every).unwrap_or(f64::NAN),
            },
        };
        let output = match (self.every, self.at) {
            (Some(_), Some(_)) => {
                return Err(SolveError::Value {
                    what: "output".to_owned(),
                    value: "every and at".to_owned(),
                    remedy: "give one of them".to_owned(),
                });
            }
            (Some(step), None) => Output::Every(step),
            (None, Some(at)) => Output::At(at),
            (None, None) => Output::Ends,
        };
        let input = |(name, knots): (String, Knots)| InputSeries {
            name,
            mode: match knots.mode {
                Mode::Hold => super::InputMode::Hold,
                Mode::Linear => super::InputMode::Linear,
            },
            times: knots.times,
            values: knots.values,
        };
        let default = SolveOptions::until(self.until);
        Ok(SolveOptions {
            from: self.from,
            output,
            method,
            rtol: self.rtol.unwrap_or(default.rtol),
            atol: self.atol.unwrap_or(default.atol),
            inputs: self.inputs.into_iter().map(input).collect(),
            ..default
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request as HttpRequest, StatusCode};
    use orrery_protocol::{Principal, Role};
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;

    const DECAY: &str = "model Decay parameter Real k = 2; output Real x(start = 1, fixed = true); \
                         equation der(x) = -k*x; end Decay;";

    async fn post_as(who: Principal, body: Value) -> (StatusCode, Value) {
        let path = if body.get("loss").is_some() {
            "/models/gradient"
        } else {
            "/models/solve"
        };
        let request = HttpRequest::post(path)
            .extension(who)
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = routes(EngineKind::Cranelift).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 64 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn post(body: Value) -> (StatusCode, Value) {
        post_as(Principal::operator(), body).await
    }

    #[tokio::test]
    async fn a_model_is_solved() {
        let (status, answer) = post(json!({ "source": DECAY, "until": 1, "every": 0.5, "set": { "k": 1 } })).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["time"], json!([0.0, 0.5, 1.0]));
        assert!((answer["series"]["x"][2].as_f64().unwrap() - (-1.0_f64).exp()).abs() < 1e-5);
        assert_eq!(answer["statistics"]["method"], "tsit5");
    }

    #[tokio::test]
    async fn a_loss_is_differentiated() {
        let series = json!({ "of": "2*x", "times": [0.5, 1.0], "values": [0.0, 0.0] });
        let body = json!({ "source": DECAY, "until": 1, "rtol": 1e-10, "atol": 1e-12,
            "loss": { "least_squares": [series] }, "wrt": ["k", "start(x)"] });
        let (status, answer) = post(body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (a, b) = ((-2.0_f64).exp(), (-4.0_f64).exp());
        let near = |answer: &Value, exact: f64| assert!((answer.as_f64().unwrap() - exact).abs() < 1e-7, "{answer}");
        near(&answer["value"], 4.0 * (a + b));
        near(&answer["gradient"]["k"], -4.0 * (a + 2.0 * b));
        near(&answer["gradient"]["start(x)"], 8.0 * (a + b));
    }

    #[tokio::test]
    async fn a_gradient_in_little_memory_is_the_same() {
        let body = |memory: Option<u32>| {
            let mut body = json!({ "source": DECAY, "until": 100, "method": "rk4", "step": 0.005,
                "loss": { "path": "x^2" }, "wrt": ["k", "start(x)"] });
            if let Some(mib) = memory {
                body["memory_mib"] = json!(mib);
            }
            body
        };
        let (status, whole) = post(body(None)).await;
        assert_eq!(status, StatusCode::OK, "{whole}");
        let (status, pieces) = post(body(Some(1))).await;
        assert_eq!((status, pieces), (StatusCode::OK, whole));
        let (status, answer) = post(body(Some(4096))).await;
        assert!(
            status.is_client_error() && answer.to_string().contains("memory_mib"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_loss_has_second_derivatives_along_a_line() {
        let body = json!({ "source": DECAY, "until": 1, "rtol": 1e-11, "atol": 1e-13,
            "loss": { "least_squares": [{ "of": "x", "times": [1.0], "values": [0.0] }] },
            "direction": { "k": 1, "start(x)": 0.5 } });
        let (status, answer) = post(body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        // x0²·e^(−2k) at x0 = 1 + s/2, k = 2 + s.
        let e = (-4.0_f64).exp();
        for (name, exact) in [("value", e), ("first", -e), ("second", 0.5 * e)] {
            assert!((answer[name].as_f64().unwrap() - exact).abs() < 1e-9, "{name} {answer}");
        }
        let both =
            json!({ "source": DECAY, "until": 1, "loss": { "terminal": "x" }, "wrt": ["k"], "direction": { "k": 1 } });
        let (status, answer) = post(both).await;
        assert!(
            status.is_client_error() && answer.to_string().contains("direction"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_solved_is_a_problem() {
        let refused = async |body: Value, kind: &str| {
            let (status, answer) = post(body).await;
            assert!(status.is_client_error(), "{status} {answer}");
            assert!(answer["type"].as_str().unwrap().ends_with(kind), "{answer}");
        };
        refused(json!({ "source": "model M", "until": 1 }), "model-refused").await;
        refused(json!({ "source": DECAY, "until": 1, "colour": 2 }), "bad-body").await;
        refused(json!({ "source": DECAY, "until": -1 }), "bad-request").await;
        refused(json!({ "source": DECAY, "until": 1, "every": 1e-8 }), "model-failed").await;
        let who = Principal {
            name: "agent".to_owned(),
            role: Role::Enroller,
        };
        let (status, _) = post_as(who, json!({ "source": DECAY, "until": 1 })).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}
