//! The chamber controller: an OPC UA server whose every stamp, and whose `Server/ServerStatus/CurrentTime`, come from its own
//! erroneous clock.
//!
//! Its readings come in steps of 0.01 °C, so that one may equal the one before. As OPC UA has it, a subscription hears of such
//! a sample only if it asks for the trigger `StatusValueTimestamp`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opcua::nodes::VariableBuilder;
use opcua::server::address_space::AccessLevel;
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{
    CoreNodeManagerBuilder, InMemoryNodeManagerBuilder, SimpleNodeManager, simple_node_manager,
};
use opcua::server::{Server, ServerBuilder, ServerHandle};
use opcua::types::{DataTypeId, DataValue, DateTime, NodeId, ObjectId, StatusCode, VariableTypeId, Variant};
use orrery_protocol::{Clock, DeviceNanos, MonoNanos};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bench::SharedBench;
use crate::device_clock::DeviceClock;
use crate::error::RigError;
use crate::opcua_clock::DeviceClockNodes;
use crate::schedule::Schedule;

/// How often the controller measures.
pub const PERIOD: Duration = Duration::from_secs(1);

const NAMESPACE: &str = "urn:orrery:rig:chamber-ctl";
const AIR_TEMPERATURE: &str = "Chamber.AirTemperature";
/// How long clients get to take their leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// The server, listening and not yet serving.
pub struct Chamber {
    server: Server,
    handle: ServerHandle,
    listener: TcpListener,
    port: u16,
    air: NodeId,
    device_clock: Arc<DeviceClock>,
    _pki: PkiFolder,
}

impl Chamber {
    /// Listens on `port` of the loopback interface; 0 takes any.
    ///
    /// # Errors
    /// [`RigError::Port`] when the port is taken, [`RigError::OpcUa`] when the server refuses.
    pub async fn listen(port: u16, device_clock: DeviceClock, clock: Arc<dyn Clock>) -> Result<Self, RigError> {
        let refused = |source| RigError::Port {
            what: "chamber controller (OPC UA)",
            port,
            key: "opcua_port",
            source,
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let pki = PkiFolder::for_port(port);
        let device_clock = Arc::new(device_clock);
        let namespace = NamespaceMetadata {
            namespace_uri: NAMESPACE.to_owned(),
            ..Default::default()
        };
        let mut builder = ServerBuilder::new_anonymous("chamber-ctl")
            .without_node_managers()
            // The first to own a node answers for it: CurrentTime before the standard address space.
            .with_node_manager(DeviceClockNodes::builder(device_clock.clone(), clock))
            .with_node_manager(InMemoryNodeManagerBuilder::new(CoreNodeManagerBuilder))
            .with_node_manager(simple_node_manager(namespace, "chamber"))
            .application_uri(NAMESPACE)
            .product_uri(NAMESPACE)
            .host("127.0.0.1")
            .port(port)
            .pki_dir(&pki.0)
            .subscription_poll_interval_ms(20);
        let subscriptions = &mut builder.limits_mut().subscriptions;
        subscriptions.min_publishing_interval_ms = 20.0;
        subscriptions.min_sampling_interval_ms = 20.0;
        subscriptions.max_monitored_item_queue_size = 1_000;
        let (server, handle) = builder.build().map_err(RigError::OpcUa)?;
        let air = add_nodes(&handle)?;
        Ok(Self {
            server,
            handle,
            listener,
            port,
            air,
            device_clock,
            _pki: pki,
        })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/", self.port)
    }

    /// The air temperature's node, as clients write it.
    pub fn air_node(&self) -> String {
        self.air.to_string()
    }

    /// Serves and measures until `shutdown`.
    ///
    /// # Errors
    /// [`RigError::OpcUa`] when the server fails.
    pub async fn run(
        self,
        bench: SharedBench,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<(), RigError> {
        let Self {
            server,
            handle,
            listener,
            air,
            device_clock,
            _pki,
            ..
        } = self;
        let measure = async {
            let mut schedule = Schedule::new(PERIOD, clock.monotonic());
            loop {
                let now = clock.monotonic();
                let celsius = bench.at(now).air_celsius();
                publish(&handle, &air, celsius, device_clock.stamp(now, schedule.index()))?;
                let due = schedule.next(clock.monotonic());
                sleep(clock.real(due.since(clock.monotonic()))).await;
            }
        };
        let serve = server.run_with(listener);
        tokio::pin!(serve);
        tokio::select! {
            served = &mut serve => return served.map_err(RigError::OpcUa),
            failed = measure => return failed,
            () = shutdown.cancelled() => handle.cancel(),
        }
        match timeout(FAREWELL, serve).await {
            Ok(served) => served.map_err(RigError::OpcUa),
            Err(_) => Ok(()),
        }
    }
}

fn chamber_nodes(handle: &ServerHandle) -> Result<Arc<SimpleNodeManager>, RigError> {
    let missing = || RigError::OpcUa("its address space is missing".to_owned());
    handle
        .node_managers()
        .get_of_type::<SimpleNodeManager>()
        .ok_or_else(missing)
}

fn add_nodes(handle: &ServerHandle) -> Result<NodeId, RigError> {
    let namespace = handle
        .get_namespace_index(NAMESPACE)
        .ok_or_else(|| RigError::OpcUa(format!("its namespace {NAMESPACE} is missing")))?;
    let folder = NodeId::new(namespace, "Chamber");
    let air = NodeId::new(namespace, AIR_TEMPERATURE);
    let nodes = chamber_nodes(handle)?;
    let mut space = nodes.address_space().write();
    space.add_folder(&folder, "Chamber", "Chamber", &ObjectId::ObjectsFolder.into());
    VariableBuilder::new(&air, "AirTemperature", "Air temperature")
        .description("Air temperature of the chamber, degrees Celsius")
        .data_type(DataTypeId::Double)
        .access_level(AccessLevel::CURRENT_READ)
        .user_access_level(AccessLevel::CURRENT_READ)
        .has_type_definition(VariableTypeId::BaseDataVariableType)
        .component_of(&folder)
        .value(0.0)
        .insert(&mut *space);
    Ok(air)
}

fn publish(handle: &ServerHandle, air: &NodeId, celsius: f64, stamp: DeviceNanos) -> Result<(), RigError> {
    let value = data_value(Variant::Double(celsius), stamp);
    chamber_nodes(handle)?
        .set_value(handle.subscriptions(), air, None, value)
        .map_err(|status| RigError::OpcUa(format!("{air}: {status}")))
}

/// A good value with both stamps from the device's clock: the server has no other.
pub fn data_value(value: Variant, stamp: DeviceNanos) -> DataValue {
    let time = date_time(stamp);
    DataValue {
        value: Some(value),
        status: Some(StatusCode::Good),
        source_timestamp: Some(time),
        server_timestamp: Some(time),
        ..Default::default()
    }
}

/// OPC UA counts ticks of 100 ns from 1601.
pub fn date_time(stamp: DeviceNanos) -> DateTime {
    const TICKS_FROM_1601_TO_1970: i64 = 116_444_736_000_000_000;
    DateTime::from(stamp.0.div_euclid(100) + TICKS_FROM_1601_TO_1970)
}

/// What the device's clock shows now, as an OPC UA value.
pub fn current_time(device_clock: &DeviceClock, now: MonoNanos) -> DataValue {
    let shown = device_clock.device_from_host(now);
    data_value(Variant::from(date_time(shown)), shown)
}

/// The server insists on a folder for certificates, though it has none.
struct PkiFolder(PathBuf);

impl PkiFolder {
    const PREFIX: &str = "orrery-rig-";

    fn for_port(port: u16) -> Self {
        let folder = std::env::temp_dir();
        Self::sweep(&folder, Path::new("/proc"));
        Self(folder.join(format!("{}{}-{port}", Self::PREFIX, std::process::id())))
    }

    /// Removes what killed rigs left behind, where the processes that live can be told.
    fn sweep(folder: &Path, processes: &Path) {
        if !processes.join("self").exists() {
            return;
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = (name.to_str())
                .and_then(|name| name.strip_prefix(Self::PREFIX)?.split('-').next())
                .and_then(|process| process.parse::<u32>().ok());
            if owner.is_some_and(|process| !processes.join(process.to_string()).exists()) {
                drop(Self(entry.path()));
            }
        }
    }
}

impl Drop for PkiFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(folder = %self.0.display(), %error, "could not remove the certificate folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_rigs_are_swept_and_no_others() {
        let (folder, processes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for process in ["self", "7"] {
            std::fs::create_dir(processes.path().join(process)).unwrap();
        }
        let names = [
            "orrery-rig-7-4840",
            "orrery-rig-8-4840",
            "orrery-rig-notes",
            "other-8-1",
        ];
        for name in names {
            std::fs::create_dir_all(folder.path().join(name).join("own")).unwrap();
        }
        PkiFolder::sweep(folder.path(), processes.path());
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true, true]);
    }
}
