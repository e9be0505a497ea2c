//! Why something about control or graphs was not done, for people and as RFC 9457 problems.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use orrery_protocol::Problem;

use crate::handle::LookError;
use crate::interlocks::Report;
use crate::solver::SolveError;

/// Why not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The caller may not.
    #[error("Only an operator may do this. Sign in with an operator's token.")]
    NotOperator,
    /// Someone else is in control.
    #[error("{holder} holds control. Ask {holder} to release it, or wait until the lease ends.")]
    LeaseHeld {
        /// Who.
        holder: String,
    },
    /// Nobody is.
    #[error("You do not hold control. Take control first.")]
    NoLease,
    /// No change was given.
    #[error("No change was given. Name at least one device, channel and value.")]
    NoChange,
    /// The same channel twice.
    #[error("{0} stands twice. Give each channel one value.")]
    Twice(String),
    /// A channel that cannot be set.
    #[error("{asked} cannot be set. Channels that can: {}. Others need a [[control]] in a graph.", listed(.known))]
    UnknownChannel {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The review is not there.
    #[error("There is no review {0}, or it was sent already. Review again.")]
    UnknownReview(String),
    /// The review is too old.
    #[error("The review is older than 30 s. Review again.")]
    ReviewExpired,
    /// An interlock does not hold.
    #[error("{}: {}. {}", .0.text, .0.margin, .0.reason.as_deref().unwrap_or("It does not hold."))]
    Interlock(Box<Report>),
    /// There is no such graph.
    #[error("There is no graph `{asked}`{hint}.")]
    UnknownGraph {
        /// What was asked for.
        asked: String,
        /// The nearest one.
        hint: String,
    },
    /// There is no such command.
    #[error("There is no command {0}. The last 1000 are kept.")]
    UnknownCommand(String),
    /// There is no such parameter.
    #[error("{0}")]
    Parameter(String),
    /// A number out of range.
    #[error("{0}")]
    Range(String),
    /// The body is not what this route takes.
    #[error("The body is not what this route takes: {0}.")]
    Body(String),
    /// No look ahead.
    #[error(transparent)]
    Look(#[from] LookError),
    /// No solution.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// Enough is being solved.
    #[error("Other models are being solved. Try again in a few seconds.")]
    Busy,
    /// The work ended early: a defect.
    #[error("The answer was not finished: {0}. Report this with the log.")]
    Ended(String),
    /// The bus failed.
    #[error("The command is not known to be sent: {0}")]
    Bus(String),
    /// No randomness.
    #[error("The operating system gives no randomness: {0}")]
    Randomness(String),
}

impl Refusal {
    /// The refusal as a problem.
    pub fn problem(&self) -> Problem {
        let (status, name, title) = match self {
            Self::NotOperator => (403, "not-operator", "Not allowed"),
            Self::LeaseHeld { .. } => (409, "lease-held", "Another holds control"),
            Self::NoLease => (409, "no-lease", "Control is not taken"),
            Self::NoChange | Self::Twice(_) => (422, "bad-change", "Not a change"),
            Self::UnknownChannel { .. } => (404, "unknown-channel", "No such channel"),
            Self::UnknownReview(_) => (404, "unknown-review", "No such review"),
            Self::ReviewExpired => (409, "review-expired", "The review is too old"),
            Self::Interlock(_) => (409, "interlock", "An interlock does not hold"),
            Self::UnknownGraph { .. } => (404, "unknown-graph", "No such graph"),
            Self::UnknownCommand(_) => (404, "unknown-command", "No such command"),
            Self::Parameter(_) => (422, "bad-parameter", "Not a parameter value"),
            Self::Range(_) => (422, "out-of-range", "Out of range"),
            Self::Body(_) => (400, "bad-body", "Not a valid body"),
            Self::Look(LookError::NotRunning(_)) => (409, "not-running", "The graph is not running"),
            Self::Look(LookError::UnknownInput { .. }) => (422, "unknown-input", "No such input"),
            Self::Look(LookError::Node(_)) => (422, "model-failed", "The model failed"),
            Self::Solve(SolveError::Model(_)) => (422, "model-refused", "Not a model"),
            Self::Solve(SolveError::Deadline { .. }) => (422, "deadline", "It takes too long"),
            Self::Solve(SolveError::Unknown { .. } | SolveError::Value { .. } | SolveError::Grid { .. }) => {
                (422, "bad-request", "Not something to solve")
            }
            Self::Solve(_) => (422, "model-failed", "The model failed"),
            Self::Busy => (503, "busy", "Busy"),
            Self::Ended(_) => (500, "ended", "The answer was not finished"),
            Self::Bus(_) => (503, "bus", "The bus does not answer"),
            Self::Randomness(_) => (500, "randomness", "No randomness"),
        };
        Problem::new(status, name, title, self.to_string())
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() {
        "none; no graph declares a control".to_owned()
    } else {
        known.join(", ")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (
            status,
            [(header::CONTENT_TYPE, Problem::CONTENT_TYPE)],
            axum::Json(problem),
        )
            .into_response()
    }
}
