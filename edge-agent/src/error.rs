//! What can go wrong in the agent, each with the thing, the place and the remedy.

use std::path::PathBuf;

use orrery_protocol::DeviceId;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}; check the path given with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text is not TOML, or has a key that does not exist.
    #[error("{place}: {message}")]
    Syntax {
        /// The file.
        place: String,
        /// Line, key and the nearest known key.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{place}: {what}")]
    Value {
        /// The file.
        place: String,
        /// The device, the key and the remedy.
        what: String,
    },
    /// An environment variable that names no key.
    #[error("the environment variable {name} names no key of the configuration; write ORRERY__SECTION__KEY")]
    Variable {
        /// The variable.
        name: String,
    },
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the agent's own cannot be read or written.
    #[error("cannot {doing} {}: {source}; check the folder's owner, permissions and free space", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the agent's own does not hold what it should.
    #[error("{} is damaged: {what}; {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The spool cannot be opened.
    #[error("the spool in {} cannot be opened: {source}", path.display())]
    Spool {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        source: orrery_bus::BusError,
    },
    /// An envelope could not be made.
    #[error("device `{device}`: {source}")]
    Envelope {
        /// The device.
        device: DeviceId,
        /// Why not.
        source: orrery_protocol::EnvelopeError,
    },
    /// A task of the agent ended although nothing stopped it.
    #[error("the task `{0}` ended unexpectedly; this is a defect")]
    Task(String),
}
