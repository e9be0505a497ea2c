//! The commands that ask a running instance or a stopped folder.

pub mod config;
pub mod control;
pub mod device;
pub mod local;
pub mod model;
pub mod provenance;
pub mod query;
pub mod replay;
pub mod run;
pub mod stream;

use std::io::Write;
use std::time::Duration;

use orrery_edge_agent::clock::SystemClock;
use orrery_protocol::{Clock, TaiNanos};

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
    if let Some(ago) = text.strip_prefix('-').and_then(span) {
        return Ok(SystemClock::new().wall().minus(ago));
    }
    TaiNanos::parse_rfc3339(text).map_err(|error| {
        let message = format!("{option}: {error}, or a time ago: -30s, -5m, -2h, -1d");
        Failure::new(Exit::Usage, message)
    })
}

/// The digest of nothing looks like any other.
pub fn say_empty() {
    orrery_edge_agent::tell!("orrery: there is no row in this window: the digest is that of nothing");
}

/// `90s`, `5m`, `2h` or `1d`.
fn span(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u32 = text[..at].parse().ok()?;
    Some(Duration::from_secs(u64::from(count) * seconds))
}
