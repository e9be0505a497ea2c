//! Writing variables of the server that is connected now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use opcua::client::Session;
use opcua::types::{AttributeId, DataValue, NodeId, NumericRange, StatusCode, TimestampsToReturn, Variant, WriteValue};

use super::super::{Control, ControlError};

type Commanded = (Arc<Session>, HashMap<String, NodeId>);

/// Writes variables of the server that is connected now.
#[derive(Default)]
pub struct NodeControl(Mutex<Option<Commanded>>);

impl NodeControl {
    /// The session and the nodes by source, or none while there is no session.
    pub fn set(&self, commanded: Option<Commanded>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = commanded;
    }

    fn find(&self, source: &str) -> Result<(Arc<Session>, NodeId), ControlError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, nodes) = held
            .as_ref()
            .ok_or_else(|| ControlError::NotConnected("no session".to_owned()))?;
        let node = nodes
            .get(source)
            .ok_or_else(|| ControlError::Refused(format!("no node for `{source}`")))?;
        Ok((Arc::clone(session), node.clone()))
    }

    async fn value(session: &Session, node: &NodeId) -> Result<Variant, ControlError> {
        let lost = |what: String| ControlError::NotConnected(what);
        let read = session.read(&[node.into()], TimestampsToReturn::Neither, 0.0).await;
        let values = read.map_err(|error| lost(error.to_string()))?;
        values
            .into_iter()
            .next()
            .and_then(|value| value.value)
            .ok_or_else(|| lost(format!("{node} has no value")))
    }
}

#[async_trait]
impl Control for NodeControl {
    async fn set(&self, source: &str, value: f64) -> Result<f64, ControlError> {
        let (session, node) = self.find(source)?;
        let kind = Self::value(&session, &node).await?;
        let wanted = match kind.scalar_type_id() {
            Some(_) => Variant::Double(value).convert(kind.type_id()),
            None => Variant::Double(value),
        };
        let write = WriteValue {
            node_id: node,
            attribute_id: AttributeId::Value as u32,
            index_range: NumericRange::None,
            value: DataValue::value_only(wanted),
        };
        match session.write(&[write]).await {
            Ok(statuses) if statuses.first().is_some_and(StatusCode::is_good) => {}
            Ok(statuses) => {
                let status = statuses.first().copied().unwrap_or(StatusCode::BadUnexpectedError);
                return Err(ControlError::Refused(status.to_string()));
            }
            Err(error) => return Err(ControlError::Unknown(error.to_string())),
        }
        self.read_back(source)
            .await
            .map_err(|error| ControlError::Unknown(error.to_string()))
    }

    async fn read_back(&self, source: &str) -> Result<f64, ControlError> {
        let (session, node) = self.find(source)?;
        let value = Self::value(&session, &node).await?;
        value
            .as_f64()
            .ok_or_else(|| ControlError::Refused(format!("`{source}` is not a number")))
    }
}
