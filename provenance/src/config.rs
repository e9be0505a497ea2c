use std::path::PathBuf;

/// Settings of the provenance service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The log's folder.
    pub folder: PathBuf,
    /// The log's name; it is signed into every checkpoint and never changes.
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
