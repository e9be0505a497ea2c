//! Refusals as HTTP responses (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orrery_protocol::Problem;

/// A [`Problem`] on its way out.
#[derive(Debug, Clone)]
pub struct Refusal {
    problem: Problem,
    retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal of kind `urn:orrery:<name>`.
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            problem: Problem::new(status.as_u16(), name, title, detail),
            retry_after_s: None,
        }
    }

    /// The request is not what the route takes.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Request not understood", detail)
    }

    /// Nobody is known to be asking.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Token needed", detail)
    }

    /// The caller is known and may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// The body is larger than the route takes.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// It may work later.
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        let refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not available now",
            detail,
        );
        Self {
            retry_after_s: Some(retry_after_s),
            ..refusal
        }
    }

    /// The gateway itself failed; the cause goes to the log, not to the caller.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed inside the gateway");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "the gateway could not do this; its log has the cause",
        )
    }

    /// Passes a service's own refusal on.
    pub fn passed_on(problem: Problem) -> Self {
        Self {
            problem,
            retry_after_s: None,
        }
    }

    /// The problem inside.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"orrery\""),
            );
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Puts what a service's framework refuses in plain words (a body of the wrong type, a query that does not parse)
/// into the one form that errors have.
pub async fn in_our_form(response: Response) -> Response {
    const LONGEST: usize = 64 * 1024;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_plain = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_plain {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), LONGEST).await;
    let detail = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    let title = status.canonical_reason().unwrap_or("Refused");
    let name = title.to_lowercase().replace(' ', "-");
    Refusal::new(status, &name, title, detail).into_response()
}

/// Answers for a path under `/api/v1` that no service has.
pub async fn unknown_route(uri: axum::extract::OriginalUri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown-route",
        "No such route",
        format!(
            "{} is not a route here; /api/v1/openapi.json lists them all",
            uri.path()
        ),
    )
}

/// Answers for a route that exists with another method.
pub async fn wrong_method(method: axum::http::Method, uri: axum::extract::OriginalUri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong-method",
        "Method not allowed",
        format!(
            "{} does not take {method}; /api/v1/openapi.json lists what it takes",
            uri.path()
        ),
    )
}
