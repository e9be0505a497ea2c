//! The edge agent: beside instruments, signing telemetry and never losing it.
//!
//! ```text
//! connector ─▶ device ─▶ spool ─▶ sink
//!  readings    batch,    journal,  bus or gateway,
//!  probes      sign      fsync     in order, again until taken
//! ```
//!
//! - [`connector`]: how to talk to an instrument, and how to write the next connector
//! - [`device`]: one device's chain: batches, seals, heartbeats, clock evidence
//! - [`spool`]: store and forward on the bus's journal
//! - [`sink`]: the bus of this process, or a gateway over HTTPS
//! - [`probe`]: clock probes of the gateway
//! - [`command`]: set-points, from a verified command to its acknowledgement
//! - [`service`]: starts all of it and stops it in order
//! - [`strict`]: configuration texts that refuse what they do not know
//! - [`clock`]: the only place in Orrery that reads the system's clocks

pub mod clock;
pub mod command;
pub mod config;
pub mod connector;
pub mod device;
pub mod discover;
pub mod error;
mod files;
mod garbage;
pub mod gateway;
pub mod keys;
pub mod probe;
pub mod service;
pub mod sink;
pub mod spool;
pub mod status;
pub mod strict;
mod units;

pub use clock::SystemClock;
pub use config::Config;
pub use error::{ConfigError, Error};
pub use service::{Deps, run};
pub use status::Status;

/// Writes a line to standard error. A reader that has gone (`2>&1 | head`) is no failure; `eprintln!` would panic.
#[macro_export]
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// A log filter for libraries whose messages the connectors say better, with place and remedy: a refused connection, a missing
/// certificate where no security is asked for, a client that only looks whether the rig's broker answers.
pub const QUIET_LIBRARIES: &str = "opcua_core=off,opcua_client=off,opcua_crypto=off,opcua_server=off,opcua_types=off,\
                                   rumqttc=off,rumqttd::server::broker=off";
