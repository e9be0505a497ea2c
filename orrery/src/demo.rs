//! The demo: the simulated bench, and the agent configuration that connects to it.

use orrery_edge_agent::config::{
    ChannelConfig, CommandConfig, Config as AgentConfig, ConnectorConfig, DeviceConfig, MqttConfig, OpcUaConfig,
    StreamConfig, TcLabConfig, TimeConfig, TimeFormat,
};
use orrery_protocol::DeviceId;
use orrery_rig::{Connection, Rig, RigDevice};

use crate::error::Failure;

/// The twin's graph and its model, as they ship.
pub const TWIN_GRAPH: &str = include_str!("../../deploy/graphs/twin.toml");
/// The model of the board.
pub const TCLAB_MODEL: &str = include_str!("../../deploy/models/tclab.mo");

/// The most a heater may be set to, in percent: the interlock's limit, and the agent's own.
const HEATER_LIMIT_PERCENT: f64 = 80.0;

/// Adds the rig's devices to the agent's.
///
/// # Errors
/// When a device of the same name is configured already.
pub fn add_devices(config: &mut AgentConfig, rig: &Rig) -> Result<(), Failure> {
    for device in &rig.devices {
        let id = DeviceId::new(device.device_id).map_err(Failure::from_error)?;
        let title = Some(device.title.to_owned());
        let (connector, stream) = describe(device);
        config.devices.push(DeviceConfig {
            id,
            title,
            connector,
            batch: Default::default(),
            streams: vec![stream],
        });
    }
    config.check("--demo").map_err(Failure::from_error)
}

fn describe(device: &RigDevice) -> (ConnectorConfig, StreamConfig) {
    match &device.connection {
        Connection::Serial { path } => {
            let port = path.display().to_string();
            let connector = TcLabConfig {
                port,
                baud: 115_200,
                rate_hz: device.rate_hz,
            };
            (ConnectorConfig::TcLab(connector), board(device.rate_hz))
        }
        Connection::OpcUa { url, node } => {
            let air = ChannelConfig {
                title: Some("air".to_owned()),
                resolution: Some(0.01),
                uncertainty: Some(0.15),
                ..ChannelConfig::float("temperature", "Cel", node)
            };
            (
                ConnectorConfig::OpcUa(OpcUaConfig::at(url)),
                stream("air", "Chamber air", device.rate_hz, vec![air]),
            )
        }
        Connection::Mqtt { url, topic } => {
            let connector = MqttConfig {
                url: url.clone(),
                username: None,
                password: None,
                client_id: None,
                ca_file: None,
            };
            let described = if device.device_id == "power-meter" {
                let power = ChannelConfig {
                    title: Some("power".to_owned()),
                    resolution: Some(0.01),
                    uncertainty: Some(0.025),
                    ..ChannelConfig::float("power", "W", "/power")
                };
                stream("supply", "Supply", device.rate_hz, vec![power])
            } else {
                let humidity = ChannelConfig {
                    title: Some("humidity".to_owned()),
                    resolution: Some(0.1),
                    uncertainty: Some(1.0),
                    ..ChannelConfig::float("humidity", "%", "/humidity")
                };
                let temperature = ChannelConfig {
                    title: Some("air".to_owned()),
                    resolution: Some(0.1),
                    uncertainty: Some(0.25),
                    ..ChannelConfig::float("temperature", "Cel", "/temperature")
                };
                stream("room", "Room", device.rate_hz, vec![humidity, temperature])
            };
            let time = Some(TimeConfig {
                source: "/ts".to_owned(),
                format: TimeFormat::UnixS,
            });
            (
                ConnectorConfig::Mqtt(connector),
                StreamConfig {
                    topic: Some(topic.clone()),
                    time,
                    ..described
                },
            )
        }
    }
}

fn board(rate_hz: f64) -> StreamConfig {
    let temperature = |name: &str, title: &str, source: &str| ChannelConfig {
        title: Some(title.to_owned()),
        resolution: Some(0.01),
        uncertainty: Some(0.1),
        ..ChannelConfig::float(name, "Cel", source)
    };
    let heater = |name: &str, title: &str, source: &str| ChannelConfig {
        title: Some(title.to_owned()),
        low: Some(0.0),
        high: Some(100.0),
        command: Some(CommandConfig {
            safe: 0.0,
            low: Some(0.0),
            high: Some(HEATER_LIMIT_PERCENT),
            tolerance: 0.3,
        }),
        ..ChannelConfig::float(name, "%", source)
    };
    let channels = vec![
        temperature("t1", "heater 1 plate", "T1"),
        temperature("t2", "heater 2 plate", "T2"),
        heater("q1", "heater 1 power", "Q1"),
        heater("q2", "heater 2 power", "Q2"),
    ];
    stream("board", "TCLab board", rate_hz, channels)
}

fn stream(name: &str, title: &str, rate_hz: f64, channels: Vec<ChannelConfig>) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        title: Some(title.to_owned()),
        nominal_rate_hz: Some(rate_hz),
        droppable: false,
        // Stale after five missed samples, and not before two seconds.
        max_silence_ms: Some((5_000.0 / rate_hz).max(2_000.0) as u64),
        calibration: None,
        topic: None,
        time: None,
        channels,
    }
}
