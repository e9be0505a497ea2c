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

use orrery_protocol::TaiNanos;

use crate::error::{Exit, Failure};

/// Reads a time of the command line.
pub fn time(option: &str, text: &str) -> Result<TaiNanos, Failure> {
    TaiNanos::parse_rfc3339(text).map_err(|error| Failure::new(Exit::Usage, format!("{option}: {error}")))
}
