//! One failure type for the command line: a message with its remedy, and the exit code it stands for.

use std::fmt;

/// Exit codes, as docs/guides/replay-and-sql.md tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did not work.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Not allowed.
    Denied = 4,
    /// Something else holds the place.
    Conflict = 5,
    /// Nobody answers there.
    Unreachable = 6,
    /// A proof does not hold.
    ProofFailed = 7,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// A failure of the general kind, from any error.
    pub fn from_error(error: impl fmt::Display) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }

    /// A failure of an HTTP answer.
    pub fn from_problem(status: u16, text: &str) -> Self {
        let exit = match status {
            400 | 422 => Exit::Usage,
            401 | 403 => Exit::Denied,
            404 | 410 => Exit::NotFound,
            409 | 423 => Exit::Conflict,
            502..=504 => Exit::Unreachable,
            _ => Exit::Failure,
        };
        let message = match serde_json::from_str::<orrery_protocol::Problem>(text) {
            Ok(problem) => format!("{}: {}", problem.title, problem.detail),
            Err(_) if text.trim().is_empty() => format!("the server answered {status}"),
            Err(_) => format!("the server answered {status}: {}", text.trim()),
        };
        Self::new(exit, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
