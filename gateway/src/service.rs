//! The gateway's start, its only loop, and its stop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use orrery_bus::SharedBus;
use orrery_protocol::{Clock, PublicKey};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Shared, router};
use crate::auth::{Origins, Trust};
use crate::config::Config;
use crate::error::Error;
use crate::health::Check;
use crate::ingest::Attestor;
use crate::inside::Inside;
use crate::live::{self, Hub};
use crate::metrics::{MetricSource, Metrics};
use crate::{openapi, proxy};

/// What the gateway works with.
pub struct Deps {
    /// The bus.
    pub bus: SharedBus,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The services behind `/api/v1`.
    pub services: Vec<Mount>,
    /// Keys whose commands agents may carry out; handed to them at enrolment.
    pub command_keys: Vec<PublicKey>,
    /// Counters of the services.
    pub metrics: Vec<MetricSource>,
    /// What must hold before `/readyz` says so.
    pub checks: Vec<Check>,
    /// What runs: version and commit.
    pub build: String,
    /// Is told the address and the token once requests are taken.
    pub bound: Option<oneshot::Sender<Bound>>,
}

/// A service behind the gateway.
pub enum Mount {
    /// In this process: its routes without the `/api/v1` prefix.
    Local {
        /// Its name.
        service: &'static str,
        /// Its routes.
        routes: Router,
        /// Its part of the OpenAPI document.
        openapi: Value,
    },
    /// In another process, whose routes are wrapped in [`behind_gateway`](crate::behind_gateway).
    Proxy {
        /// Its name.
        service: &'static str,
        /// The paths it owns, such as `/devices`; everything below them is its too.
        prefixes: Vec<String>,
        /// Where it listens, such as `http://127.0.0.1:7071`; its routes lie under `/api/v1` there too.
        base_url: String,
        /// What both sides were started with.
        secret: String,
        /// Its part of the OpenAPI document.
        openapi: Value,
    },
}

/// Where the gateway listens, and how an operator gets in.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The address, with the port it got.
    pub address: SocketAddr,
    /// The base URL for programs.
    pub url: String,
    /// The operator's token.
    pub operator_token: String,
}

impl Bound {
    /// The URL that opens the page signed in.
    pub fn sign_in_url(&self) -> String {
        format!("{}/?token={}", self.url, self.operator_token)
    }
}

/// Runs the gateway until `shutdown`: then it takes no more, lets requests end, closes the streams, and returns after
/// [`Config::drain`] at the latest.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = bind(&config.listen).await?;
    let address = listener.local_addr().map_err(|source| Error::Listen {
        listen: config.listen.clone(),
        source,
    })?;
    let Deps {
        bus,
        clock,
        services,
        command_keys,
        metrics,
        checks,
        build,
        bound,
    } = deps;
    let fragments = services.iter().map(|mount| match mount {
        Mount::Local { service, openapi, .. } | Mount::Proxy { service, openapi, .. } => (*service, openapi),
    });
    let openapi = openapi::document(&build, fragments).to_string();
    let services = mount(services)?;
    let app: Shared = Arc::new(App {
        build,
        trust: Arc::new(Trust::open(&config.keys_dir)?),
        origins: Origins::new(config.public_url.as_deref()),
        attestor: Attestor::open(config.keys_dir.clone(), &*clock)?,
        command_keys,
        inside: Inside::new(services.clone()),
        hub: Arc::new(Hub::new(config.client_queue_kib.saturating_mul(1024))),
        metrics: Metrics::default(),
        metric_sources: metrics,
        checks,
        openapi,
        ingest_room: semaphore(config.ingest_in_flight_mib.saturating_mul(1024)),
        live_room: semaphore(config.max_streams),
        control_room: semaphore(config.max_streams),
        stopping: shutdown.clone(),
        tracker: TaskTracker::new(),
        bus,
        clock,
        config,
    });
    serve(listener, address, app, services, bound, shutdown).await
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    app: Shared,
    services: Router,
    bound: Option<oneshot::Sender<Bound>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    tasks.spawn(live::run_feed(
        Arc::clone(&app.hub),
        Arc::clone(&app.bus),
        shutdown.clone(),
    ));
    tasks.spawn(live::run_topics(
        Arc::clone(&app.hub),
        app.inside.clone(),
        shutdown.clone(),
    ));
    // A sample must not wait in the kernel for the next one.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's delay");
        }
    });
    let routes = router(Arc::clone(&app), services).into_make_service();
    let server = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let mut server = std::pin::pin!(server.into_future());
    if let Some(bound) = bound {
        // Whoever asked may have gone; the gateway serves all the same.
        let _ = bound.send(announce(&app, address));
    }
    tokio::select! {
        served = &mut server => return served.map_err(|source| Error::Listen { listen: address.to_string(), source }),
        Some(ended) = tasks.join_next() => if !shutdown.is_cancelled() {
            let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            return Err(Error::Task { task: "live stream", reason });
        },
        () = shutdown.cancelled() => {}
    }
    let drained = timeout(app.config.drain(), async {
        let _ = server.await;
        app.tracker.close();
        app.tracker.wait().await;
        while tasks.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(waited = ?app.config.drain(), "requests that had not ended are cut off");
    }
    Ok(())
}

fn announce(app: &App, address: SocketAddr) -> Bound {
    let reachable = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    };
    let public = app
        .config
        .public_url
        .as_deref()
        .map(|url| url.trim_end_matches('/').to_owned());
    let url = public.unwrap_or_else(|| format!("http://{reachable}"));
    if !address.ip().is_loopback() && !app.origins.https {
        tracing::warn!(%address, "tokens and data cross the network in clear: put a TLS proxy in front and set gateway.public_url");
    }
    Bound {
        address,
        url,
        operator_token: app.trust.operator().expose().to_owned(),
    }
}

async fn bind(listen: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse {
            listen: listen.to_owned(),
        },
        _ => Error::Listen {
            listen: listen.to_owned(),
            source,
        },
    })
}

fn mount(services: Vec<Mount>) -> Result<Router, Error> {
    services.into_iter().try_fold(Router::new(), |router, mount| {
        let routes = match mount {
            Mount::Local { routes, .. } => routes,
            Mount::Proxy {
                service,
                prefixes,
                base_url,
                secret,
                ..
            } => proxy::routes(service, &prefixes, &base_url, &secret)?,
        };
        Ok(router.merge(routes))
    })
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}
