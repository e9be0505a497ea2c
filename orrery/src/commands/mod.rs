//! The commands that ask a running instance or a stopped folder.

pub mod config;
pub mod control;
pub mod local;
pub mod model;
pub mod provenance;
pub mod query;
pub mod replay;
pub mod run;
pub mod stream;

use std::io::Write;

use orrery_protocol::TaiNanos;

use crate::error::{Exit, Failure};

/// Writes to standard output; false when the reader has seen enough (`| head`), which is no failure.
pub fn print(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::from_error(format!("standard output: {error}"))),
    }
}

/// Writes a text and the end of its line.
pub fn say(text: impl std::fmt::Display) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes()).map(drop)
}

/// Reads a time of the command line.
pub fn time(option: &str, text: &str) -> Result<TaiNanos, Failure> {
    TaiNanos::parse_rfc3339(text).map_err(|error| Failure::new(Exit::Usage, format!("{option}: {error}")))
}
