//! `/healthz`: the process answers. `/readyz`: it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::app::Shared;

/// Something that must hold before requests are sent here.
pub struct Check {
    /// Its name in the answer.
    pub name: String,
    /// Looks; an error says what is missing. It must not wait.
    pub look: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", tag = "gateway", responses((status = 200, body = Object)))]
pub async fn healthz(State(app): State<Shared>) -> Json<Value> {
    Json(json!({ "status": "alive", "build": app.build }))
}

/// Whether it can do its work, and which check fails.
#[utoipa::path(get, path = "/readyz", tag = "gateway",
    responses((status = 200, body = Object), (status = 503, body = Object)))]
pub async fn readyz(State(app): State<Shared>) -> (StatusCode, Json<Value>) {
    let reading = if app.hub.is_reading() {
        Ok(())
    } else {
        Err("the bus is not being read".to_owned())
    };
    let staying = if app.stopping.is_cancelled() {
        Err("the gateway stops".to_owned())
    } else {
        Ok(())
    };
    let own = [("bus".to_owned(), reading), ("gateway".to_owned(), staying)];
    let registered = app.checks.iter().map(|check| (check.name.clone(), (check.look)()));
    let found: Vec<_> = own.into_iter().chain(registered).collect();
    let ready = found.iter().all(|(_, result)| result.is_ok());
    let checks: serde_json::Map<String, Value> = (found.into_iter())
        .map(|(name, result)| (name, Value::from(result.err().unwrap_or_else(|| "ok".to_owned()))))
        .collect();
    let (code, status) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    (code, Json(json!({ "status": status, "checks": checks })))
}
