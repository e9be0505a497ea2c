//! `orrery up` and `orrery serve`: wires the services, says where they answer, waits, stops.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::ValueEnum;
use orrery_bus::{BusUrl, SharedBus};
use orrery_edge_agent::Status as AgentStatus;
use orrery_edge_agent::clock::SystemClock;
use orrery_edge_agent::config::Config as AgentConfig;
use orrery_gateway::{Bound, Check, MetricSource, Mount};
use orrery_protocol::{Clock, Digest, Record, RecordKind, SealKey, Subject, leap, topics};
use orrery_rig::RigConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::aligner;
use crate::cli::{Serve, Service, Up};
use crate::config::Config;
use crate::counted_bus::CountedBus;
use crate::demo;
use crate::error::{Exit, Failure};
use crate::folder::{Endpoint, Folder, private_dir, write_private};
use crate::metrics;
use crate::tasks::Tasks;

/// How long the aligner may take to open its store before the agent starts.
const READY: Duration = Duration::from_secs(60);

/// Runs everything in one process until a signal.
///
/// # Errors
/// What could not start, or which service stopped and why.
pub async fn up(arguments: &Up) -> Result<(), Failure> {
    let clock =
        SystemClock::scaled(arguments.speed).map_err(|error| Failure::new(Exit::Usage, format!("--speed: {error}")))?;
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let mut config = Config::load(&arguments.data.data, arguments.config.as_deref())?;
    if let Some(listen) = &arguments.listen {
        config.gateway.listen.clone_from(listen);
    }
    if let Some(bus) = &arguments.bus {
        config.bus.url = bus.clone();
    }
    let folder = Folder::own(&arguments.data.data)?;
    warn_of_leap_table(&*clock);
    let stop = stop_signal()?;

    let mut tasks = Tasks::default();
    let mut agent = config.agent(&folder.path("edge"));
    if arguments.demo {
        let rig = RigConfig {
            seed: arguments.seed.unwrap_or(1),
            play: arguments.play.clone(),
            folder: Some(folder.path("rig")),
            ..RigConfig::default()
        };
        let rig = orrery_rig::start(rig, Arc::clone(&clock), tasks.intake.stop()).await;
        let rig = rig.map_err(Failure::from_error)?;
        demo::add_devices(&mut agent, &rig)?;
        config.runtime.graphs.push(install_twin(&folder)?);
        tasks.intake.spawn("rig", rig.join());
    }
    let everything = Service::value_variants().iter().copied().collect();
    let bound = start(&config, agent, &everything, &folder, &clock, &mut tasks).await?;
    folder.announce(&endpoint(&bound))?;
    say_where(&bound.sign_in_url());
    let result = tasks.run(stop).await;
    folder.withdraw();
    result
}

/// Runs the services named, behind the gateway of this process or of another.
///
/// # Errors
/// What could not start, or which service stopped and why.
pub async fn serve(arguments: &Serve) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut config = Config::load(&arguments.data.data, arguments.config.as_deref())?;
    if let Some(listen) = &arguments.listen {
        config.gateway.listen.clone_from(listen);
    }
    if let Some(bus) = &arguments.bus {
        config.bus.url = bus.clone();
    }
    if config.bus.url == BusUrl::Journal {
        let message =
            "services that run apart share a bus: give --bus kafka://HOST:PORT (the journal serves one process)";
        return Err(Failure::new(Exit::Usage, message));
    }
    let folder = Folder::own(&arguments.data.data)?;
    warn_of_leap_table(&*clock);
    let stop = stop_signal()?;
    let mut tasks = Tasks::default();
    let agent = config.agent(&folder.path("edge"));
    let wanted: BTreeSet<Service> = arguments.services.iter().copied().collect();
    if wanted.contains(&Service::Gateway) {
        let bound = start(&config, agent, &wanted, &folder, &clock, &mut tasks).await?;
        folder.announce(&endpoint(&bound))?;
        say_where(&bound.sign_in_url());
    } else {
        let url = start_apart(&config, agent, &wanted, &folder, &clock, &mut tasks).await?;
        say_where(&url);
    }
    let result = tasks.run(stop).await;
    folder.withdraw();
    result
}

async fn start(
    config: &Config,
    agent: AgentConfig,
    wanted: &BTreeSet<Service>,
    folder: &Folder,
    clock: &Arc<dyn Clock>,
    tasks: &mut Tasks,
) -> Result<Bound, Failure> {
    let shared = Shared::open(config, folder, clock).await?;
    let mut front = start_services(config, &shared, wanted, folder, tasks).await?;
    if !agent.devices.is_empty() {
        front.metrics.push(metrics::edge(Arc::clone(&shared.agent)));
        front.checks.push(metrics::edge_check(Arc::clone(&shared.agent)));
    }
    for (service, name, url) in config.apart.places() {
        if !wanted.contains(&service) {
            front.mounts.push(elsewhere(config, service, name, url)?);
        }
    }
    let bound = start_gateway(config, front, &shared, tasks).await?;
    start_agent(agent, &shared, tasks).await?;
    Ok(bound)
}

/// Services without a gateway: they answer only the gateway that knows the secret.
async fn start_apart(
    config: &Config,
    agent: AgentConfig,
    wanted: &BTreeSet<Service>,
    folder: &Folder,
    clock: &Arc<dyn Clock>,
    tasks: &mut Tasks,
) -> Result<String, Failure> {
    let secret = config.apart.secret()?;
    let shared = Shared::open(config, folder, clock).await?;
    let mounts = start_services(config, &shared, wanted, folder, tasks).await?.mounts;
    start_agent(agent, &shared, tasks).await?;
    let mut routes = Router::new();
    for mount in mounts {
        if let Mount::Local { routes: of_service, .. } = mount {
            routes = routes.merge(of_service);
        }
    }
    let routes = orrery_gateway::behind_gateway(Router::new().nest("/api/v1", routes), secret);
    let listen = &config.gateway.listen;
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| {
        Failure::new(
            Exit::Conflict,
            format!("cannot listen on {listen}: {error}; give another address with --listen"),
        )
    })?;
    let address = listener.local_addr().map_err(Failure::from_error)?;
    let stop = tasks.rest.stop();
    tasks.rest.spawn("routes", async move {
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    });
    Ok(format!("http://{address}"))
}

/// What the services of one process share.
struct Shared {
    bus: SharedBus,
    counted: Arc<CountedBus>,
    agent: Arc<AgentStatus>,
    clock: Arc<dyn Clock>,
    control_key: SealKey,
    aligner: orrery_aligner::Handle,
}

impl Shared {
    async fn open(config: &Config, folder: &Folder, clock: &Arc<dyn Clock>) -> Result<Self, Failure> {
        let bus_folder = folder.path("bus");
        private_dir(&bus_folder)?;
        let counted = CountedBus::open(&config.bus, &bus_folder, Arc::clone(clock)).await;
        let counted = counted.map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))?;
        let bus: SharedBus = Arc::clone(&counted) as SharedBus;
        record_configuration(config, &bus, &**clock).await?;
        let control_key = folder.key("control")?;
        Ok(Self {
            bus,
            counted,
            agent: AgentStatus::new(),
            clock: Arc::clone(clock),
            control_key,
            aligner: orrery_aligner::Handle::new(),
        })
    }
}

/// What the gateway puts in front of the services of this process.
#[derive(Default)]
struct Front {
    mounts: Vec<Mount>,
    metrics: Vec<MetricSource>,
    checks: Vec<Check>,
}

async fn start_services(
    config: &Config,
    shared: &Shared,
    wanted: &BTreeSet<Service>,
    folder: &Folder,
    tasks: &mut Tasks,
) -> Result<Front, Failure> {
    let stop = tasks.rest.stop();
    let (bus, clock) = (&shared.bus, &shared.clock);
    let mut front = Front::default();
    front.metrics.push(metrics::bus(Arc::clone(&shared.counted)));
    front.checks.push(metrics::bus_check(Arc::clone(&shared.counted)));
    if wanted.contains(&Service::Provenance) {
        let log = orrery_provenance::Config {
            folder: folder.path("provenance"),
            source: config.bus.url.to_string(),
            ..Default::default()
        };
        let key = folder.key("log")?;
        let handle = orrery_provenance::Handle::open(&log, key).map_err(Failure::from_error)?;
        let deps = orrery_provenance::Deps {
            bus: Arc::clone(bus),
            clock: Arc::clone(clock),
            handle: handle.clone(),
        };
        tasks
            .rest
            .spawn("provenance log", orrery_provenance::run(log, deps, stop.clone()));
        front.metrics.push(metrics::provenance(handle.clone()));
        front.mounts.push(local(
            "provenance",
            orrery_provenance::routes(handle),
            orrery_provenance::openapi(),
        )?);
    }
    if wanted.contains(&Service::Aligner) {
        let handle = shared.aligner.clone();
        let deps = orrery_aligner::Deps {
            bus: Arc::clone(bus),
            clock: Arc::clone(clock),
            handle: handle.clone(),
        };
        tasks
            .rest
            .spawn("aligner", aligner::keep(config.aligner.clone(), deps, stop.clone()));
        let routes = orrery_aligner::routes(handle.clone());
        front.metrics.push(metrics::aligner(routes.clone()));
        front.checks.push(metrics::aligner_check(handle));
        front.mounts.push(local("aligner", routes, orrery_aligner::openapi())?);
    }
    if wanted.contains(&Service::Runtime) {
        let control_key = shared.control_key.clone();
        let deps = orrery_runtime::Deps {
            bus: Arc::clone(bus),
            clock: Arc::clone(clock),
            control_key,
        };
        let runtime = orrery_runtime::Runtime::open(config.runtime.clone(), deps).map_err(Failure::from_error)?;
        front.metrics.push(metrics::runtime(Arc::clone(&runtime)));
        front
            .mounts
            .push(local("runtime", runtime.routes(), orrery_runtime::openapi())?);
        tasks.rest.spawn("runtime", runtime.run(stop));
    }
    Ok(front)
}

fn local(service: &'static str, routes: Router, openapi: impl serde::Serialize) -> Result<Mount, Failure> {
    let openapi = serde_json::to_value(openapi).map_err(Failure::from_error)?;
    Ok(Mount::Local {
        service,
        routes,
        openapi,
    })
}

fn elsewhere(config: &Config, service: Service, name: &'static str, url: &str) -> Result<Mount, Failure> {
    let (prefixes, openapi) = match service {
        Service::Aligner => (
            &[
                "/devices",
                "/streams",
                "/presence",
                "/replay",
                "/seek",
                "/query",
                "/aligner",
            ][..],
            serde_json::to_value(orrery_aligner::openapi()),
        ),
        Service::Runtime => (
            &["/graphs", "/control", "/models/solve", "/models/gradient"][..],
            serde_json::to_value(orrery_runtime::openapi()),
        ),
        Service::Provenance => (&["/provenance"][..], serde_json::to_value(orrery_provenance::openapi())),
        Service::Gateway => (&[][..], Ok(serde_json::Value::Null)),
    };
    Ok(Mount::Proxy {
        service: name,
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        base_url: url.to_owned(),
        secret: config.apart.secret()?.to_owned(),
        openapi: openapi.map_err(Failure::from_error)?,
    })
}

/// Enrols the agent's devices with the aligner of this process and starts the agent.
async fn start_agent(agent: AgentConfig, shared: &Shared, tasks: &mut Tasks) -> Result<(), Failure> {
    if agent.devices.is_empty() {
        return Ok(());
    }
    tokio::select! {
        () = shared.aligner.ready() => {}
        failure = tasks.failed() => return Err(failure),
        () = tokio::time::sleep(READY) => {
            return Err(Failure::from_error(format!("the aligner did not open its store within {READY:?}")));
        }
    }
    for device in &agent.devices {
        let key = orrery_edge_agent::keys::load_or_create(&agent.keys_folder(), &device.id);
        let key = key.map_err(Failure::from_error)?.public();
        let protocol = Some(device.connector.protocol().to_owned());
        let enrolled = shared
            .aligner
            .enrol(device.id.clone(), key, device.title.clone(), protocol)
            .await;
        enrolled.map_err(Failure::from_error)?;
    }
    let issuers = vec![shared.control_key.public()];
    let deps = orrery_edge_agent::Deps {
        status: Arc::clone(&shared.agent),
        ..orrery_edge_agent::Deps::with_bus(&agent, Arc::clone(&shared.bus), Arc::clone(&shared.clock), issuers)
    };
    let stop = tasks.intake.stop();
    tasks
        .intake
        .spawn("edge agent", orrery_edge_agent::run(agent, deps, stop));
    Ok(())
}

async fn start_gateway(config: &Config, front: Front, shared: &Shared, tasks: &mut Tasks) -> Result<Bound, Failure> {
    let (bound_sender, bound) = oneshot::channel();
    let deps = orrery_gateway::Deps {
        bus: Arc::clone(&shared.bus),
        clock: Arc::clone(&shared.clock),
        services: front.mounts,
        // The runtime says its own, wherever it runs.
        command_keys: Vec::new(),
        metrics: front.metrics,
        checks: front.checks,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        bound: Some(bound_sender),
    };
    let (ended_sender, ended) = oneshot::channel();
    let gateway = orrery_gateway::run(config.gateway.clone(), deps, tasks.rest.stop());
    tasks.rest.spawn("gateway", async move {
        let result = gateway.await.map_err(|error| {
            let exit = match error {
                orrery_gateway::Error::PortInUse { .. } => Exit::Conflict,
                _ => Exit::Failure,
            };
            Failure::new(exit, error.to_string())
        });
        if let Err(error) = &result {
            let _ = ended_sender.send(error.clone());
        }
        result
    });
    match bound.await {
        Ok(bound) => Ok(bound),
        Err(_) => Err(ended
            .await
            .unwrap_or_else(|_| Failure::from_error("the gateway did not start"))),
    }
}

/// The configuration in force is the first thing the log remembers of a start.
async fn record_configuration(config: &Config, bus: &SharedBus, clock: &dyn Clock) -> Result<(), Failure> {
    let text = toml::to_string(config).map_err(Failure::from_error)?;
    let record = Record {
        kind: RecordKind::Config,
        subject: vec![Subject {
            name: "configuration".to_owned(),
            sha256: Digest::of(text.as_bytes()),
        }],
        predicate: serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "bus": config.bus.url.to_string() }),
        at: clock.wall(),
    };
    let record = orrery_bus::Record::new(RecordKind::Config.as_str(), record.encode());
    bus.publish(topics::PROVENANCE, vec![record])
        .await
        .map(drop)
        .map_err(Failure::from_error)
}

/// Puts the shipped graph and model into the data folder, where a user may change them; a changed file is kept.
fn install_twin(folder: &Folder) -> Result<PathBuf, Failure> {
    let graph = folder.path("graphs/twin.toml");
    let model = folder.path("models/tclab.mo");
    for (path, text) in [(&graph, demo::TWIN_GRAPH), (&model, demo::TCLAB_MODEL)] {
        if !path.exists() {
            private_dir(path.parent().unwrap_or(Path::new(".")))?;
            write_private(path, text.as_bytes())?;
        }
    }
    Ok(graph)
}

fn endpoint(bound: &Bound) -> Endpoint {
    Endpoint {
        url: bound.url.clone(),
        token: bound.operator_token.clone(),
        pid: std::process::id(),
    }
}

fn say_where(url: &str) {
    if std::io::stderr().is_terminal() {
        orrery_edge_agent::tell!("Open this address in a browser; Ctrl-C stops everything:");
    }
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{url}").and_then(|()| out.flush());
}

fn warn_of_leap_table(clock: &dyn Clock) {
    if clock.wall().to_utc() > leap::expires() {
        tracing::warn!("the leap-second table has expired: UTC may be off by a second until Orrery is updated");
    }
}

/// Resolves at the first SIGINT or SIGTERM; the second ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::from_error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::from_error)?;
    let (first, stopped) = oneshot::channel();
    let watcher = async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match first.take() {
                Some(first) => drop(first.send(())),
                None => std::process::exit(130),
            }
        }
    };
    // Owned by the process: it must outlive the drain that it can cut short.
    let runtime = tokio::runtime::Handle::current();
    runtime.spawn(watcher);
    Ok(async move {
        let _ = stopped.await;
    })
}
