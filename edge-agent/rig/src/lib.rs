//! The demo rig: simulated instruments that speak the real protocols, each with a clock error of its own.
//!
//! | device | protocol | clock | |
//! |---|---|---|---|
//! | `tclab-01` | the TCLab firmware's, on a pseudo-terminal | none | temperatures and heaters |
//! | `chamber-ctl` | OPC UA | its own | air temperature, 1 Hz |
//! | `power-meter` | MQTT | its own | supply power, 5 Hz |
//! | `room-sensor` | MQTT | its own | humidity and temperature, 0.2 Hz |
//!
//! They all measure one simulated bench ([`bench`]); with [`RigConfig::play`] the board gives a recording instead
//! ([`playback`]). A seed makes everything repeatable. All of it runs in the time of the clock it is given, sped up or not.

pub mod bench;
pub mod device_clock;
mod error;
pub mod firmware;
mod keep;
mod mqtt;
mod noise;
mod opcua;
mod opcua_clock;
pub mod physics;
pub mod playback;
mod pty;
mod rig;
mod schedule;
mod tclab;

pub use error::RigError;
pub use playback::{Progress, RecordingError};
pub use rig::{Connection, Rig, RigConfig, RigDevice, start};
