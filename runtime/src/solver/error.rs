//! Why a model was not solved, for whoever asked.

use orrery_lang::Diagnostic;

use crate::error::NodeError;

/// Why there is no solution.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// The text is not a model that can be solved.
    #[error("{}", .0.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n"))]
    Model(Vec<Diagnostic>),
    /// A name that the model does not have.
    #[error("model `{model}` has no {what} `{name}`{hint}")]
    Unknown {
        /// The model.
        model: String,
        /// What kind of thing.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The nearest one.
        hint: String,
    },
    /// A value that cannot be.
    #[error("{what} is {value}: {remedy}")]
    Value {
        /// Which.
        what: String,
        /// The value given.
        value: String,
        /// What it must be.
        remedy: String,
    },
    /// Times that no grid of reasonable size holds.
    #[error(
        "the times asked for have a common grid of {grid_s} s, which takes {rows} rows: round them to a coarser grid"
    )]
    Grid {
        /// Seconds between two rows of the grid.
        grid_s: f64,
        /// Rows on it.
        rows: u64,
    },
    /// The numbers went wrong; rows handed on before stay valid.
    #[error("{0}")]
    Numerical(String),
    /// The run needs more memory than it may have.
    #[error("the run needs more than {limit_mib} MiB of module memory: ask for fewer rows or allow more memory")]
    Memory {
        /// What it may have.
        limit_mib: u32,
    },
    /// The steps of a gradient do not fit the memory granted for them.
    #[error(
        "the gradient does not fit its memory of {budget_bytes} bytes: allow at least {needed_bytes} bytes, ask for fewer rows, \
         or loosen the tolerance"
    )]
    GradientMemory {
        /// What it may have.
        budget_bytes: u64,
        /// What takes it beyond the step at which this was noticed.
        needed_bytes: u64,
    },
    /// The run took longer than it may.
    #[error("the run did not end within {deadline_ms} ms and was stopped: solve a shorter span or allow more time")]
    Deadline {
        /// What it may take.
        deadline_ms: u64,
    },
    /// The module is broken or not ours.
    #[error("{0}")]
    Module(String),
    /// Whoever takes the rows wants no more.
    #[error("the output was refused: {0}")]
    Output(String),
}

impl SolveError {
    pub(crate) fn value(what: &str, value: f64, remedy: &str) -> Self {
        Self::Value {
            what: what.to_owned(),
            value: value.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}

impl From<NodeError> for SolveError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Numerical { message } => Self::Numerical(message),
            NodeError::Memory { limit_mib } => Self::Memory { limit_mib },
            NodeError::Deadline { deadline_ms } => Self::Deadline { deadline_ms },
            other => Self::Module(other.to_string()),
        }
    }
}
