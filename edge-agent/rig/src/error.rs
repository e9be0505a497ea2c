use std::io;
use std::path::PathBuf;

use crate::playback::RecordingError;

/// Why the rig did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// No pseudo-terminal for the board.
    #[error("cannot open a pseudo-terminal for the board: {0}; is /dev/pts mounted?")]
    PseudoTerminal(io::Error),
    /// The stable path for the board's port cannot be made.
    #[error("cannot make the serial link {}: {source}; choose another path with `serial_link`", path.display())]
    SerialLink {
        /// The link.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A port is taken, or may not be used.
    #[error(
        "the {what} cannot listen on 127.0.0.1:{port}: {source}; free it, or choose another with `{key}` (0 takes any)"
    )]
    Port {
        /// Which server.
        what: &'static str,
        /// The port asked for.
        port: u16,
        /// The configuration key.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The recording cannot be played.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The OPC UA server refused its configuration, or failed while running.
    #[error("the chamber controller's OPC UA server failed: {0}")]
    OpcUa(String),
    /// The embedded MQTT broker did not start.
    #[error("the embedded MQTT broker did not start: {0}")]
    Broker(String),
    /// The address of a foreign broker cannot be read.
    #[error("`{0}` is not the address of an MQTT broker: write mqtt://[user:password@]host[:port]")]
    BrokerUrl(String),
    /// The board's end of the serial line failed.
    #[error("the board's serial line failed: {0}")]
    Serial(io::Error),
    /// A task of the rig ended in a way that it never should.
    #[error("a task of the rig died: {0}")]
    Died(String),
}
