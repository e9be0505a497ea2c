//! What every request can reach, and the order in which requests pass the layers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use orrery_bus::SharedBus;
use orrery_protocol::{Clock, PublicKey, TaiNanos};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::compression::CompressionLayer;

use crate::auth::{self, Origins, Trust};
use crate::config::Config;
use crate::health::{self, Check};
use crate::ingest::{self, Attestor};
use crate::inside::Inside;
use crate::live::{self, Hub};
use crate::metrics::{self, MetricSource, Metrics};
use crate::problems::{self, Refusal};
use crate::{clock, control_stream, pages};

/// The gateway's state.
pub struct App {
    pub config: Config,
    pub build: String,
    pub bus: SharedBus,
    pub clock: Arc<dyn Clock>,
    pub trust: Arc<Trust>,
    pub origins: Origins,
    pub attestor: Attestor,
    pub command_keys: Vec<PublicKey>,
    pub inside: Inside,
    pub hub: Arc<Hub>,
    pub metrics: Metrics,
    pub metric_sources: Vec<MetricSource>,
    pub checks: Vec<Check>,
    pub openapi: String,
    pub ingest_room: Arc<Semaphore>,
    pub live_room: Arc<Semaphore>,
    pub control_room: Arc<Semaphore>,
    pub stopping: CancellationToken,
    /// Connections that are no longer the HTTP server's: WebSockets.
    pub tracker: TaskTracker,
}

/// The state as handlers take it.
pub type Shared = Arc<App>;

/// When a request's head was read: the first thing that is done with it.
#[derive(Debug, Clone, Copy)]
pub struct Arrived(pub TaiNanos);

impl App {
    /// A place among the live clients.
    pub fn live_room(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.live_room.clone().try_acquire_owned().map_err(|_| {
            Refusal::unavailable(
                format!(
                    "{} live streams are open already: close some, or raise gateway.max_streams",
                    self.config.max_streams
                ),
                5,
            )
        })
    }
}

/// All routes: the API behind its gate, health and metrics, and the page.
pub fn router(app: Shared, services: Router) -> Router {
    let own = Router::new()
        .route(
            "/envelopes",
            post(ingest::take).layer(DefaultBodyLimit::max(ingest::MAX_BODY)),
        )
        .route("/clock/probe", post(clock::probe))
        .route("/control/stream", get(control_stream::commands))
        .route("/enrollments", post(auth::routes::enroll))
        .route("/enrollment-tokens", post(auth::routes::make_token))
        .route("/live", get(live::routes::live))
        .route("/live/events", get(live::routes::events))
        .route("/openapi.json", get(openapi))
        .with_state(Arc::clone(&app));
    // Only what services answer is worth compressing: streams, probes and acknowledgements must leave at once.
    let services = services
        .layer(middleware::map_response(problems::in_our_form))
        .layer(CompressionLayer::new());
    let api = own
        .merge(services)
        .fallback(problems::unknown_route)
        .method_not_allowed_fallback(problems::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::gate));
    let pages = Router::new()
        .route("/login", get(auth::sign_in))
        .fallback(get(pages::page))
        .with_state(Arc::clone(&app));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .with_state(Arc::clone(&app))
        .nest("/api/v1", api)
        .merge(pages)
        .layer(middleware::from_fn(pages::security_headers))
        .layer(middleware::from_fn_with_state(app, observe))
}

/// The outermost layer: the arrival stamp, and the count and time of requests.
async fn observe(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Arrived(app.clock.wall()));
    let started = app.clock.monotonic();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let took = app.clock.real(Duration::from_nanos(
        app.clock.monotonic().nanos_since(started).max(0) as u64
    ));
    app.metrics.count_request(
        route.as_ref().map(MatchedPath::as_str),
        &method,
        response.status().as_u16(),
        took,
    );
    response
}

async fn openapi(State(app): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}
