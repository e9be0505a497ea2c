//! Settings of the gateway.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the gateway listens, what it remembers and how much it lets a caller use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `ADDRESS:PORT` to listen on; port 0 takes a free one.
    pub listen: String,
    /// The folder of tokens and keys; the gateway makes its files readable by their owner alone.
    #[serde(skip)]
    pub keys_dir: PathBuf,
    /// The URL under which browsers reach the gateway when it is not the listen address, such as that of a TLS proxy.
    pub public_url: Option<String>,
    /// How long a stop waits for requests and streams to end.
    pub drain_ms: u64,
    /// How many live streams and control streams may be open at once, each kind for itself.
    pub max_streams: usize,
    /// How much a live client may fall behind before its oldest messages are dropped.
    pub client_queue_kib: usize,
    /// How much of envelopes may be on its way to the bus at once.
    pub ingest_in_flight_mib: usize,
    /// How long a one-time enrolment token lives when its maker does not say.
    pub enrolment_token_minutes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            keys_dir: PathBuf::from("keys"),
            public_url: None,
            drain_ms: 3_000,
            max_streams: 1_024,
            client_queue_kib: 1_024,
            ingest_in_flight_mib: 64,
            enrolment_token_minutes: 60,
        }
    }
}

impl Config {
    /// How long a stop waits for requests and streams to end.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}
