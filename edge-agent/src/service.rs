//! The agent: starts a device's tasks for each instrument, one sender, one prober, and stops them in order.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use orrery_bus::SharedBus;
use orrery_protocol::{Clock, DeviceId, PublicKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::command::{self, BusCommands, CommandDeps, CommandSource, ControlSlot, GatewayCommands, Routed, route};
use crate::config::{Config, DeviceConfig};
use crate::connector::{self, Emitter};
use crate::device::{self, DeviceDeps};
use crate::error::Error;
use crate::gateway::{GatewayClient, GatewayError};
use crate::keys;
use crate::probe::{self, GatewayReference, LocalReference, Reference, ReferenceTime};
use crate::sink::{BusSink, HttpsSink, Sink, forward};
use crate::spool::Spool;
use crate::status::Status;

/// What the agent is given from outside.
pub struct Deps {
    /// The agent's clocks.
    pub clock: Arc<dyn Clock>,
    /// Where envelopes go.
    pub sink: Arc<dyn Sink>,
    /// Who knows reference time.
    pub reference: Arc<dyn Reference>,
    /// Where commands come from; none: the devices cannot be commanded.
    pub commands: Option<Box<dyn CommandSource>>,
    /// Whose commands are carried out, besides `commands.issuer_keys`.
    pub issuers: Vec<PublicKey>,
    /// Counters that the host process reads.
    pub status: Arc<Status>,
}

impl Deps {
    /// For an agent inside a process that has the bus: that process is the reference.
    pub fn with_bus(config: &Config, bus: SharedBus, clock: Arc<dyn Clock>, issuers: Vec<PublicKey>) -> Self {
        let devices: Vec<DeviceId> = config.devices.iter().map(|device| device.id.clone()).collect();
        let commands = BusCommands::new(Arc::clone(&bus), "edge-agent", devices);
        Self {
            clock,
            sink: Arc::new(BusSink::new(bus)),
            reference: Arc::new(LocalReference),
            commands: Some(Box::new(commands)),
            issuers,
            status: Status::new(),
        }
    }

    /// For an agent that reaches its gateway over HTTP.
    ///
    /// # Errors
    /// When `url` is not an address.
    pub fn with_gateway(
        config: &Config,
        url: &str,
        token: &str,
        clock: Arc<dyn Clock>,
        issuers: Vec<PublicKey>,
    ) -> Result<Self, GatewayError> {
        let gateway = GatewayClient::new(url, token)?;
        let devices: Vec<DeviceId> = config.devices.iter().map(|device| device.id.clone()).collect();
        let can_be_commanded = config.devices.iter().any(|device| !command::rules(device).is_empty());
        let commands = can_be_commanded.then(|| {
            Box::new(GatewayCommands::new(gateway.clone(), &devices, &config.folder)) as Box<dyn CommandSource>
        });
        Ok(Self {
            clock,
            sink: Arc::new(HttpsSink::new(gateway.clone())),
            reference: Arc::new(GatewayReference::new(gateway)),
            commands,
            issuers,
            status: Status::new(),
        })
    }
}

type Tasks = JoinSet<(String, Result<(), Error>)>;

/// Runs the agent until `shutdown`, then flushes, spools and sends within `drain_ms`.
///
/// # Errors
/// When the agent's own files cannot be used. A device, a network or a gateway that fails is never an error here.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    config.check("the edge agent's configuration")?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let Deps {
        clock,
        sink,
        reference,
        commands,
        issuers,
        status,
    } = deps;
    let spool = {
        let (folder, max_bytes) = (config.spool_folder(), config.spool.max_bytes);
        let (clock, status) = (Arc::clone(&clock), Arc::clone(&status));
        let opened = tokio::task::spawn_blocking(move || Spool::open(&folder, max_bytes, clock, status)).await;
        Arc::new(opened.map_err(|error| Error::Task(error.to_string()))??)
    };
    let time = Arc::new(ReferenceTime::default());
    let (wave_sender, waves) = watch::channel(None);
    let stages = Stages::default();

    let mut support = Tasks::new();
    let sending = forward(
        Arc::clone(&spool),
        sink,
        Arc::clone(&status),
        stages.devices_ended.clone(),
        stages.deadline.clone(),
    );
    support.spawn(async move { ("sender".to_owned(), sending.await) });
    let probing = probe::run(
        reference,
        Arc::clone(&clock),
        config.clock.clone(),
        wave_sender,
        Arc::clone(&time),
        Arc::clone(&status),
        stages.stop.clone(),
    );
    support.spawn(async move {
        probing.await;
        ("clock prober".to_owned(), Ok(()))
    });

    let mut devices = Tasks::new();
    let mut routes = BTreeMap::new();
    for device in &config.devices {
        let key = keys::load_or_create(&config.keys_folder(), &device.id)?;
        let shared = Shared {
            config: &config,
            clock: &clock,
            spool: &spool,
            status: &status,
            time: &time,
            waves: &waves,
        };
        if let Some(sender) = start_device(&mut devices, &shared, device, key, &stages) {
            routes.insert(device.id.clone(), sender);
        }
    }
    if let Some(source) = commands.filter(|_| !routes.is_empty()) {
        let issuers = issuers
            .into_iter()
            .chain(config.commands.issuer_keys.iter().copied())
            .collect();
        let routing = route(source, issuers, routes, stages.stop.clone());
        support.spawn(async move {
            routing.await;
            ("command router".to_owned(), Ok(()))
        });
    }

    let outcome = supervise(&mut devices, &mut support, &shutdown).await;
    let drained = drain(&config, devices, support, stages).await;
    outcome.and(drained)
}

/// The order of a stop: connectors, then devices, then the sender.
#[derive(Default)]
struct Stages {
    stop: CancellationToken,
    devices_ended: CancellationToken,
    deadline: CancellationToken,
}

struct Shared<'a> {
    config: &'a Arc<Config>,
    clock: &'a Arc<dyn Clock>,
    spool: &'a Arc<Spool>,
    status: &'a Arc<Status>,
    time: &'a Arc<ReferenceTime>,
    waves: &'a watch::Receiver<Option<Arc<device::Wave>>>,
}

fn start_device(
    tasks: &mut Tasks,
    shared: &Shared<'_>,
    device: &DeviceConfig,
    key: orrery_protocol::SealKey,
    stages: &Stages,
) -> Option<mpsc::Sender<Routed>> {
    let status = shared.status.device(&device.id);
    let (emit, input, in_flight) = Emitter::new(device.id.as_str(), Arc::clone(shared.clock), Arc::clone(&status));
    let (seal, requests) = mpsc::channel(64);
    let control: ControlSlot = Arc::default();

    let deps = DeviceDeps {
        clock: Arc::clone(shared.clock),
        spool: Arc::clone(shared.spool),
        status: Arc::clone(&status),
        input,
        in_flight,
        waves: shared.waves.clone(),
        requests,
    };
    let sealing = device::run(
        Arc::clone(shared.config),
        device.clone(),
        key,
        deps,
        stages.deadline.clone(),
    );
    let name = format!("device {}", device.id);
    tasks.spawn(async move { (name, sealing.await) });

    let connecting = keep_connected(device.clone(), emit, Arc::clone(&control), stages.stop.clone());
    let name = format!("connector {}", device.id);
    tasks.spawn(async move {
        connecting.await;
        (name, Ok(()))
    });

    if command::rules(device).is_empty() {
        return None;
    }
    let (sender, commands) = mpsc::channel(64);
    let deps = CommandDeps {
        clock: Arc::clone(shared.clock),
        time: Arc::clone(shared.time),
        status,
        control,
        seal,
        commands,
    };
    let commanding = command::run(shared.config.folder.clone(), device.clone(), deps, stages.stop.clone());
    let name = format!("commands of {}", device.id);
    tasks.spawn(async move { (name, commanding.await) });
    Some(sender)
}

/// Runs a connector, and another one should it ever panic: one instrument's defect must not stop the others.
async fn keep_connected(device: DeviceConfig, emit: Emitter, control: ControlSlot, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let connector = match connector::build(&device) {
            Ok(connector) => connector,
            Err(problem) => {
                // The configuration was checked with this very function.
                emit.disconnected(&problem);
                return;
            }
        };
        *control.lock().unwrap_or_else(PoisonError::into_inner) = connector.control();
        let mut inner = JoinSet::new();
        inner.spawn(connector.run(emit.clone(), stop.clone()));
        match inner.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                emit.disconnected("its connector panicked, which is a defect of Orrery; it starts again in 5 s");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    () = stop.cancelled() => {}
                }
            }
            _ => return,
        }
    }
}

/// Waits for the stop, or for a task that ends although nobody stopped it.
async fn supervise(devices: &mut Tasks, support: &mut Tasks, shutdown: &CancellationToken) -> Result<(), Error> {
    let ended = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        Some(ended) = devices.join_next() => ended,
        Some(ended) = support.join_next() => ended,
    };
    match ended {
        Ok((_, Err(error))) => Err(error),
        Ok((name, Ok(()))) => Err(Error::Task(name)),
        Err(error) => Err(Error::Task(error.to_string())),
    }
}

/// Stops intake, seals and spools what is there, sends what can be sent before the deadline. What is left stays in the spool.
async fn drain(config: &Config, mut devices: Tasks, mut support: Tasks, stages: Stages) -> Result<(), Error> {
    let budget = Duration::from_millis(config.drain_ms);
    let until = tokio::time::Instant::now() + budget;
    let mut outcome = Ok(());
    stages.stop.cancel();
    let half = tokio::time::Instant::now() + budget / 2;
    while let Ok(Some(ended)) = tokio::time::timeout_at(half, devices.join_next()).await {
        outcome = outcome.and(result_of(ended));
    }
    if !devices.is_empty() {
        // A connector that does not end: its device seals what it has.
        stages.deadline.cancel();
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, devices.join_next()).await {
            outcome = outcome.and(result_of(ended));
        }
    }
    stages.devices_ended.cancel();
    while let Ok(Some(ended)) = tokio::time::timeout_at(until, support.join_next()).await {
        outcome = outcome.and(result_of(ended));
    }
    stages.deadline.cancel();
    // The sender only has to write where it stands.
    let last = until + Duration::from_secs(1);
    while let Ok(Some(ended)) = tokio::time::timeout_at(last, support.join_next()).await {
        outcome = outcome.and(result_of(ended));
    }
    devices.shutdown().await;
    support.shutdown().await;
    outcome
}

fn result_of(ended: Result<(String, Result<(), Error>), tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok((_, result)) => result,
        Err(error) => Err(Error::Task(error.to_string())),
    }
}
