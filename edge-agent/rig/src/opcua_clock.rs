//! `Server/ServerStatus/CurrentTime` from the device's clock. The library answers this node from the host's clock; this node
//! manager stands before it, owns that one node, and lets the library answer everything else about it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opcua::nodes::DefaultTypeTree;
use opcua::server::CreateMonitoredItem;
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::CoreNodeManager;
use opcua::server::node_manager::{
    BrowseNode, BrowsePathItem, DynNodeManager, MonitoredItemRef, NodeManager, NodeManagerBuilder, NodeManagersRef,
    ReadNode, RequestContext, ServerContext, SyncSampler,
};
use opcua::types::{AttributeId, NodeId, StatusCode, TimestampsToReturn, VariableId};
use orrery_protocol::Clock;

use crate::device_clock::DeviceClock;
use crate::opcua::current_time;

/// How often a subscribed CurrentTime is looked at.
const SAMPLING: Duration = Duration::from_millis(100);

/// Owns CurrentTime.
pub struct DeviceClockNodes {
    device_clock: Arc<DeviceClock>,
    clock: Arc<dyn Clock>,
    managers: NodeManagersRef,
    sampler: SyncSampler,
}

impl DeviceClockNodes {
    /// For the server's builder.
    pub fn builder(device_clock: Arc<DeviceClock>, clock: Arc<dyn Clock>) -> impl NodeManagerBuilder {
        Builder { device_clock, clock }
    }

    fn current_time_node() -> NodeId {
        VariableId::Server_ServerStatus_CurrentTime.into()
    }
}

struct Builder {
    device_clock: Arc<DeviceClock>,
    clock: Arc<dyn Clock>,
}

impl NodeManagerBuilder for Builder {
    fn build(self: Box<Self>, context: ServerContext) -> Arc<DynNodeManager> {
        Arc::new(DeviceClockNodes {
            device_clock: self.device_clock,
            clock: self.clock,
            managers: context.node_managers,
            sampler: SyncSampler::new(),
        })
    }
}

#[async_trait]
impl NodeManager for DeviceClockNodes {
    fn owns_node(&self, id: &NodeId) -> bool {
        *id == Self::current_time_node()
    }

    fn name(&self) -> &str {
        "device clock"
    }

    fn namespaces_for_user(&self, _context: &RequestContext) -> Vec<NamespaceMetadata> {
        Vec::new()
    }

    async fn init(&self, _type_tree: &mut DefaultTypeTree, context: ServerContext) {
        self.sampler.run(SAMPLING, context.subscriptions.clone());
    }

    async fn read(
        &self,
        context: &RequestContext,
        max_age: f64,
        timestamps_to_return: TimestampsToReturn,
        nodes_to_read: &mut [&mut ReadNode],
    ) -> Result<(), StatusCode> {
        let core = self
            .managers
            .get_of_type::<CoreNodeManager>()
            .ok_or(StatusCode::BadInternalError)?;
        core.read(context, max_age, timestamps_to_return, nodes_to_read).await?;
        for node in nodes_to_read {
            if node.node().attribute_id == AttributeId::Value && node.status().is_good() {
                node.set_result(current_time(&self.device_clock, self.clock.monotonic()));
            }
        }
        Ok(())
    }

    /// The standard address space browses it.
    async fn browse(&self, _context: &RequestContext, _nodes: &mut [BrowseNode]) -> Result<(), StatusCode> {
        Ok(())
    }

    /// The standard address space resolves it.
    async fn translate_browse_paths_to_node_ids(
        &self,
        _context: &RequestContext,
        _nodes: &mut [&mut BrowsePathItem],
    ) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn create_monitored_items(
        &self,
        _context: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        for item in items {
            if item.item_to_monitor().attribute_id != AttributeId::Value {
                item.set_status(StatusCode::BadAttributeIdInvalid);
                continue;
            }
            let (device_clock, clock) = (self.device_clock.clone(), self.clock.clone());
            item.set_initial_value(current_time(&device_clock, clock.monotonic()));
            item.set_status(StatusCode::Good);
            self.sampler.add_sampler(
                Self::current_time_node(),
                AttributeId::Value,
                move || Some(current_time(&device_clock, clock.monotonic())),
                item.monitoring_mode(),
                item.handle(),
                Duration::from_millis(item.sampling_interval() as u64),
            );
        }
        Ok(())
    }

    async fn delete_monitored_items(&self, _context: &RequestContext, items: &[&MonitoredItemRef]) {
        for item in items {
            self.sampler
                .remove_sampler(item.node_id(), item.attribute(), item.handle());
        }
    }
}
