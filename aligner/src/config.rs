//! What the aligner can be told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The aligner's configuration; every value has a default but the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder: holds `catalog.sqlite` and `segments/`.
    pub data: PathBuf,
    /// How long rows may wait for the commit that holds them, in milliseconds.
    pub commit_ms: u64,
    /// Commits sooner when this many bytes wait.
    pub commit_bytes: u64,
    /// A segment closes at this size, in bytes.
    pub segment_bytes: u64,
    /// A segment closes after this much stream time, in seconds.
    pub segment_seconds: u64,
    /// A segment of the raw archive closes at this size, in bytes: its tail lives in memory.
    pub raw_segment_bytes: u64,
    /// How long a hole in a chain holds its streams' watermarks back, in milliseconds of the device's own time.
    pub hole_wait_ms: u64,
    /// The bound on the least delay of a device that only stamps one way, in milliseconds.
    pub one_way_bound_ms: u64,
    /// Segment files in no catalog are removed when older than this, in seconds.
    pub orphan_seconds: u64,
    /// Memory one SQL query may use, in bytes; beyond it spills to disk or is refused.
    pub query_memory_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            commit_ms: 250,
            commit_bytes: 8 << 20,
            segment_bytes: 64 << 20,
            segment_seconds: 3600,
            raw_segment_bytes: 16 << 20,
            hole_wait_ms: 30_000,
            one_way_bound_ms: 20,
            orphan_seconds: 3600,
            query_memory_bytes: 256 << 20,
        }
    }
}

impl Config {
    /// The defaults for a data folder.
    pub fn for_data(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }
}
