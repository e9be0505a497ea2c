//! Services that run apart: the gateway passes requests on, and tells the service who is asking.
//!
//! The principal travels in a header that the service believes only beside a secret both sides were started with;
//! `behind_gateway` is that other side.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orrery_protocol::Principal;

use crate::auth::Fingerprint;
use crate::error::Error;
use crate::problems::Refusal;

const PRINCIPAL: HeaderName = HeaderName::from_static("x-orrery-principal");
const SECRET: HeaderName = HeaderName::from_static("x-orrery-gateway");
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Headers of one connection (RFC 9110 §7.6.1), and those that are the gateway's own business.
const NOT_PASSED_ON: [HeaderName; 12] = [
    header::CONNECTION,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    header::AUTHORIZATION,
    header::COOKIE,
    PRINCIPAL,
    SECRET,
];

struct Upstream {
    service: &'static str,
    base_url: String,
    secret: HeaderValue,
    client: reqwest::Client,
}

/// Routes that pass `prefixes` and what is below them on to `base_url`, where they lie under `/api/v1` too.
pub fn routes(service: &'static str, prefixes: &[String], base_url: &str, secret: &str) -> Result<Router, Error> {
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|source| Error::Proxy {
            base_url: base_url.to_owned(),
            source,
        })?;
    let upstream = Arc::new(Upstream {
        service,
        base_url: base_url.trim_end_matches('/').to_owned(),
        secret: in_header(secret),
        client,
    });
    let router = prefixes.iter().fold(Router::new(), |router, prefix| {
        let prefix = prefix.trim_end_matches('/');
        router
            .route(prefix, any(pass_on))
            .route(&format!("{prefix}/{{*rest}}"), any(pass_on))
    });
    Ok(router.with_state(upstream))
}

fn in_header(text: &str) -> HeaderValue {
    HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(text)).expect("base64url is always a header value")
}

async fn pass_on(State(upstream): State<Arc<Upstream>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = without_hops(parts.headers);
    if let Some(principal) = parts.extensions.get::<Principal>() {
        let principal = serde_json::to_string(principal).map_err(|error| Refusal::internal(&error))?;
        headers.insert(PRINCIPAL, in_header(&principal));
        headers.insert(SECRET, upstream.secret.clone());
    }
    let answer = upstream
        .client
        .request(parts.method, format!("{}/api/v1{path}", upstream.base_url))
        .headers(headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await
        .map_err(|error| {
            tracing::warn!(service = upstream.service, %error, "a service that runs apart does not answer");
            Refusal::new(
                StatusCode::BAD_GATEWAY,
                "service-unreachable",
                "Service unreachable",
                format!(
                    "{} does not answer at {}: start it with `orrery serve {}`",
                    upstream.service, upstream.base_url, upstream.service
                ),
            )
        })?;
    let (status, headers) = (answer.status(), without_hops(answer.headers().clone()));
    let mut response = Body::from_stream(answer.bytes_stream()).into_response();
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn without_hops(mut headers: HeaderMap) -> HeaderMap {
    for name in &NOT_PASSED_ON {
        headers.remove(name);
    }
    headers
}

/// The other side: a service's routes that take their [`Principal`] from a gateway with the same secret, and answer
/// nobody else.
pub fn behind_gateway(routes: Router, secret: &str) -> Router {
    let expected = Arc::new(Fingerprint::of(secret));
    routes.layer(middleware::from_fn_with_state(expected, believe))
}

async fn believe(State(expected): State<Arc<Fingerprint>>, mut request: Request, next: Next) -> Response {
    let told = from_header(request.headers(), &SECRET).filter(|secret| Fingerprint::of(secret).same(&expected));
    let principal = told
        .and_then(|_| from_header(request.headers(), &PRINCIPAL))
        .and_then(|text| serde_json::from_str::<Principal>(&text).ok());
    match principal {
        Some(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        None => Refusal::forbidden("this service answers only its gateway: ask the gateway instead").into_response(),
    }
}

fn from_header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(headers.get(name)?.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}
