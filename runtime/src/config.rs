//! What the runtime is told at start.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Configuration of the runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for snapshots and the issuer epoch: `<data folder>/runtime`.
    #[serde(skip)]
    pub data: PathBuf,
    /// Graph files to run, named from the file that lists them.
    pub graphs: Vec<PathBuf>,
    /// Which engine runs models; both give the same bits.
    pub engine: EngineKind,
    /// How often a running graph's state is made durable.
    pub snapshot_every_ms: u64,
    /// The name commands carry as their issuer.
    pub issuer: String,
    /// How long a sent command may take to reach its device.
    pub apply_within_ms: u64,
}

/// A way of running Wasm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Compiled to machine code.
    #[default]
    Cranelift,
    /// Interpreted, where machine code may not be made.
    Pulley,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("runtime"),
            graphs: Vec::new(),
            engine: EngineKind::Cranelift,
            snapshot_every_ms: 3_000,
            issuer: "orrery".to_owned(),
            apply_within_ms: 5_000,
        }
    }
}
