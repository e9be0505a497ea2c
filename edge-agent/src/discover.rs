//! Finding out what an instrument offers before configuring it.

use std::collections::BTreeMap;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, Packet, QoS};

use crate::connector::mqtt::{MqttConfig, without_password};
use crate::connector::opcua::nodes::{FoundVariable, browse_variables};
use crate::connector::opcua::{Connection, OpcUaConfig};
use crate::connector::{ConnectError, json};

/// A topic heard, with one of its messages.
#[derive(Debug, Clone)]
pub struct HeardTopic {
    /// The topic.
    pub topic: String,
    /// How many messages came.
    pub messages: u64,
    /// The last of them.
    pub payload: Vec<u8>,
}

/// What a stream can be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// JSON pointers of the numbers; the empty pointer is a message that is a plain number.
    pub numbers: Vec<String>,
    /// The JSON pointer of the stamp.
    pub time: Option<String>,
}

/// Listens to topics for a while, or until one message came when `only_first`.
///
/// # Errors
/// Says why the broker cannot be listened to.
pub async fn mqtt_topics(
    config: &MqttConfig,
    filter: &str,
    span: Duration,
    only_first: bool,
) -> Result<Vec<HeardTopic>, ConnectError> {
    let mut suffix = [0u8; 4];
    let _ = getrandom::fill(&mut suffix);
    let options = config
        .options(&format!("orrery-discover-{}", hex::encode(suffix)))
        .map_err(ConnectError::Settings)?;
    let url = without_password(&config.url);
    let (client, mut events) = AsyncClient::new(options, 16);
    let mut heard: BTreeMap<String, HeardTopic> = BTreeMap::new();
    let listen = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client
                        .try_subscribe(filter, QoS::AtMostOnce)
                        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let entry = heard.entry(publish.topic.clone()).or_insert_with(|| HeardTopic {
                        topic: publish.topic.clone(),
                        messages: 0,
                        payload: Vec::new(),
                    });
                    entry.messages += 1;
                    entry.payload = publish.payload.to_vec();
                    if only_first {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) => return Err(crate::connector::mqtt::explain(&url, &error)),
            }
        }
    };
    // Out of time is the normal end.
    if let Ok(result) = tokio::time::timeout(span, listen).await {
        result?;
    }
    Ok(heard.into_values().collect())
}

/// The numeric fields of a message.
///
/// # Errors
/// Says why nothing can be made of the message.
pub fn fields(payload: &[u8]) -> Result<Fields, String> {
    let message: serde_json::Value = serde_json::from_slice(payload).map_err(|_| {
        format!(
            "the message is neither JSON nor a number: {}",
            crate::connector::excerpt(payload)
        )
    })?;
    let (numbers, time) = json::discover(&message);
    let is_plain_number = matches!(&message, serde_json::Value::String(text) if text.trim().parse::<f64>().is_ok());
    if is_plain_number {
        return Ok(Fields {
            numbers: vec![String::new()],
            time: None,
        });
    }
    if numbers.is_empty() {
        return Err(format!(
            "the message has no numeric field: {}",
            crate::connector::excerpt(payload)
        ));
    }
    Ok(Fields { numbers, time })
}

/// The variables of an OPC UA server.
///
/// # Errors
/// Says why the server cannot be browsed.
pub async fn opcua_variables(config: &OpcUaConfig, limit: usize) -> Result<Vec<FoundVariable>, ConnectError> {
    let connection = Connection::open(config).await?;
    let found = browse_variables(&connection.session, limit).await;
    connection.close().await;
    found.map_err(ConnectError::Unreachable)
}

/// The serial ports of this host, with what the system knows of them.
pub fn serial_ports() -> Vec<(String, String)> {
    let ports = serialport::available_ports().unwrap_or_default();
    ports
        .into_iter()
        .map(|port| {
            let what = match port.port_type {
                serialport::SerialPortType::UsbPort(usb) => format!(
                    "USB {:04x}:{:04x} {}",
                    usb.vid,
                    usb.pid,
                    usb.product.or(usb.manufacturer).unwrap_or_default()
                ),
                _ => String::new(),
            };
            (port.port_name, what.trim().to_owned())
        })
        .collect()
}
