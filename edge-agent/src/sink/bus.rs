use async_trait::async_trait;
use bytes::Bytes;
use orrery_bus::{Record, SharedBus};
use orrery_protocol::{Unverified, topics};

use super::{Sink, SinkError};

/// Publishes on `orrery.raw` of the bus of this process.
pub struct BusSink {
    bus: SharedBus,
}

impl BusSink {
    /// A sink to this bus.
    pub fn new(bus: SharedBus) -> Self {
        Self { bus }
    }
}

#[async_trait]
impl Sink for BusSink {
    async fn send(&self, envelopes: &[Bytes]) -> Result<(), SinkError> {
        let records = envelopes.iter().filter_map(record).collect();
        self.bus
            .publish(topics::RAW, records)
            .await
            .map(drop)
            .map_err(|error| SinkError::Unreachable(format!("the bus does not take envelopes: {error}")))
    }
}

/// The envelope with its CloudEvents headers. What is no envelope cannot be routed: the spool's checksums make that a defect.
fn record(bytes: &Bytes) -> Option<Record> {
    match Unverified::parse(bytes.to_vec()) {
        Ok(envelope) => {
            let claims = envelope.claims();
            let key = Bytes::copy_from_slice(claims.device_id.as_str().as_bytes());
            Some(Record::new(key, bytes.clone()).with_headers(orrery_bus::cloudevents(claims)))
        }
        Err(error) => {
            tracing::error!("the spool holds what is no envelope: {error}");
            None
        }
    }
}
