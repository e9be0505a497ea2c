use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use orrery_edge_agent::SystemClock;
use orrery_protocol::Clock;
use orrery_rig::{RigConfig, RigError, start};
use tokio::task::JoinSet;

use super::{Failure, say, stop_on_signal};

#[derive(Args)]
pub struct RigArgs {
    /// What every clock error, noise and phase is drawn from.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Play a recording through the board instead of simulating it.
    #[arg(long, value_name = "CSV")]
    play: Option<PathBuf>,
    /// How many times faster than real time.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    speed: f64,
    /// A stable path for the board's serial port.
    #[arg(long, value_name = "PATH")]
    serial_link: Option<PathBuf>,
    /// Port of the OPC UA server; 0 takes any.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    opcua_port: u16,
    /// Port of the embedded MQTT broker; 0 takes any.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    mqtt_port: u16,
    /// Publish to this broker instead of an embedded one.
    #[arg(long, value_name = "URL")]
    mqtt_broker: Option<String>,
}

/// Starts the rig, prints one JSON line per device, and runs until it is stopped.
pub async fn run(arguments: RigArgs) -> Result<(), Failure> {
    let clock = SystemClock::scaled(arguments.speed).map_err(|error| Failure::usage(format!("--speed: {error}")))?;
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let config = RigConfig {
        seed: arguments.seed,
        play: arguments.play,
        serial_link: arguments.serial_link,
        opcua_port: arguments.opcua_port,
        mqtt_port: arguments.mqtt_port,
        mqtt_broker: arguments.mqtt_broker,
        ..RigConfig::default()
    };
    let mut tasks = JoinSet::new();
    let stop = stop_on_signal(&mut tasks)?;
    let rig = start(config, clock, stop.clone())
        .await
        .map_err(|error| Failure::new(in_arguments(error)))?;
    for device in &rig.devices {
        let line = serde_json::to_string(device).map_err(|error| Failure::new(error.to_string()))?;
        say(line)?;
    }
    orrery_edge_agent::tell!("the rig runs; Ctrl-C stops it");
    rig.join().await.map_err(|error| Failure::new(error.to_string()))
}

/// What went wrong, with the argument to change instead of the configuration key.
fn in_arguments(error: RigError) -> String {
    let key = match &error {
        RigError::Port { key, .. } => key,
        RigError::SerialLink { .. } => "serial_link",
        _ => return error.to_string(),
    };
    let argument = format!("`--{}`", key.replace('_', "-"));
    error.to_string().replace(&format!("`{key}`"), &argument)
}
