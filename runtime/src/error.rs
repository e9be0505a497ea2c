//! What can go wrong, named by who can do something about it.

use std::path::PathBuf;

use orrery_protocol::StreamId;

/// The service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A graph file is wrong.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The Wasm engine does not work on this machine.
    #[error("the Wasm engine does not start: {0}; try `engine = \"pulley\"` in the runtime's configuration")]
    Engine(String),
    /// A state file cannot be read or written.
    #[error("{path}: {source}; check that the folder exists, is writable and has space")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] orrery_bus::BusError),
}

/// A graph file that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The file cannot be read.
    #[error("{path}: {source}; name an existing file")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not a graph.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// What is wrong, with the nearest known key.
        message: String,
    },
    /// A value is not possible.
    #[error("{file}: {key}: {problem}")]
    Value {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// The model does not compile.
    #[error("{}", .0.join("\n"))]
    Model(Vec<String>),
    /// The graph and its model do not fit.
    #[error("graph `{graph}`: {key}: {problem}")]
    Binding {
        /// The graph.
        graph: String,
        /// The key of the graph file.
        key: String,
        /// What does not fit and what would.
        problem: String,
    },
}

/// A model that failed: always a value, never a panic of the host.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NodeError {
    /// The numbers went wrong; earlier outputs stay valid.
    #[error("{message}")]
    Numerical {
        /// What, in which equation, at which time.
        message: String,
    },
    /// The module needs more memory than the graph grants.
    #[error("the model wants more than {limit_mib} MiB of memory; raise limits.memory_mib in the graph file")]
    Memory {
        /// The granted memory.
        limit_mib: u32,
    },
    /// The host's deadline ended the solve.
    #[error("the model did not finish a solve within {deadline_ms} ms; raise limits.deadline_ms or simplify it")]
    Deadline {
        /// The granted time.
        deadline_ms: u64,
    },
    /// The module trapped: a defect of the module, not of the data.
    #[error("the model's module trapped: {0}; compile the model again with this version")]
    Trap(String),
    /// The module is not one of ours.
    #[error("the module breaks the ABI: {0}; compile the model again with this version")]
    Abi(String),
    /// An output is not a number.
    #[error("output `{output}` is not finite at tick {tick}; check the inputs' units and the parameters")]
    NotFinite {
        /// The output.
        output: String,
        /// The tick, counted from 1970.
        tick: i64,
    },
    /// A snapshot that does not belong to this module.
    #[error("the saved state does not fit this model: {0}; it is set aside and the run starts anew")]
    State(String),
}

/// Aligned rows that a graph cannot read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("stream `{stream}`: {problem}")]
pub struct RowError {
    /// The stream.
    pub stream: StreamId,
    /// What is wrong with the block.
    pub problem: String,
}
