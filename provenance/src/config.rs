use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the provenance service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The log's folder.
    pub folder: PathBuf,
    /// The log's name, unique in the world; it is signed into every checkpoint and never changes.
    pub origin: String,
    /// Which bus the log follows, as the user names it. Offsets of one bus mean nothing on another: with a
    /// new name here the topic is taken from its oldest record.
    pub source: String,
    /// How often the log asks whether it has everything that was published.
    pub check_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("provenance"),
            origin: "orrery.local/provenance".to_owned(),
            source: "journal".to_owned(),
            check_interval_ms: 1_000,
        }
    }
}
