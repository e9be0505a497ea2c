//! Calls from the gateway to the services it mounts, without a socket: the same routers, the same HTTP.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orrery_protocol::{DeviceId, Principal, Problem, PublicKey, Role};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::problems::Refusal;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The services' routes, behind the door.
#[derive(Debug, Clone)]
pub struct Inside {
    services: Router,
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// No service has this route.
    #[error("no mounted service has {0}")]
    NoRoute(String),
    /// The service refused.
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Problem),
    /// The service did not answer in time, or not with a JSON object.
    #[error("{path}: {reason}")]
    NoAnswer {
        /// The route.
        path: String,
        /// What came instead.
        reason: String,
    },
}

impl Inside {
    /// Calls go to these routes.
    pub fn new(services: Router) -> Self {
        Self { services }
    }

    /// Reads a route as `principal`.
    pub async fn get(&self, principal: &Principal, path: &str) -> Result<Map<String, Value>, InsideError> {
        self.call(Method::GET, principal, path, Body::empty())
            .await
            .map(|(_, answer)| answer)
    }

    /// The keys whose commands agents may carry out, as the runtime says, in this process or apart.
    pub async fn command_keys(&self) -> Vec<PublicKey> {
        let gateway = Principal {
            name: "gateway".to_owned(),
            role: Role::Operator,
        };
        match self.get(&gateway, "/control/keys").await {
            Ok(answer) => answer
                .get("keys")
                .and_then(|keys| serde_json::from_value(keys.clone()).ok())
                .unwrap_or_default(),
            Err(InsideError::NoRoute(_)) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "an agent is enrolled that will refuse commands: the runtime does not say its key");
                Vec::new()
            }
        }
    }

    /// Enrols a device's key with the aligner.
    pub async fn enrol(
        &self,
        principal: &Principal,
        device: &DeviceId,
        key: &PublicKey,
        title: Option<&str>,
        protocol: Option<&str>,
    ) -> Result<(), Refusal> {
        let mut body = json!({ "device_id": device, "public_key": URL_SAFE_NO_PAD.encode(key.as_bytes()) });
        for (name, value) in [("title", title), ("protocol", protocol)] {
            if let Some(value) = value {
                body[name] = Value::from(value);
            }
        }
        match self
            .call(Method::POST, principal, "/devices", Body::from(body.to_string()))
            .await
        {
            Ok(_) => Ok(()),
            Err(InsideError::Refused(problem)) => Err(Refusal::passed_on(problem)),
            Err(error @ (InsideError::NoRoute(_) | InsideError::NoAnswer { .. })) => {
                tracing::warn!(%device, %error, "a device could not be enrolled");
                Err(Refusal::unavailable(
                    "the aligner does not take enrolments now: try again when it runs",
                    5,
                ))
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        principal: &Principal,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, Map<String, Value>), InsideError> {
        let no_answer = |reason: String| InsideError::NoAnswer {
            path: path.to_owned(),
            reason,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .extension(principal.clone())
            .body(body)
            .map_err(|error| no_answer(error.to_string()))?;
        let answer = async {
            let response = match self.services.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let status = response.status();
            let typed = response.headers().contains_key(header::CONTENT_TYPE);
            (
                status,
                typed,
                axum::body::to_bytes(response.into_body(), MAX_ANSWER).await,
            )
        };
        let (status, typed, bytes) = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| no_answer("no answer in 5 s".to_owned()))?;
        let bytes = bytes.map_err(|error| no_answer(error.to_string()))?;
        if status.is_success() {
            let answer = if bytes.is_empty() {
                Ok(Map::new())
            } else {
                serde_json::from_slice(&bytes)
            };
            return answer
                .map(|answer| (status, answer))
                .map_err(|error| no_answer(error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(InsideError::Refused(problem)),
            Err(_) if status == StatusCode::NOT_FOUND && !typed => Err(InsideError::NoRoute(path.to_owned())),
            Err(_) => Err(no_answer(format!("status {status}"))),
        }
    }
}
