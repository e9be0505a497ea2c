//! Why the gateway could not start or had to stop.

use std::path::PathBuf;

/// A failure that ends the gateway.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program has the port.
    #[error(
        "{listen} is in use by another program: stop it, or choose another address with --listen ADDRESS:PORT \
         (port 0 takes a free one)"
    )]
    PortInUse {
        /// The address asked for.
        listen: String,
    },
    /// The address could not be bound for another reason.
    #[error("cannot listen on {listen}: {source}; give an address of this machine with --listen ADDRESS:PORT")]
    Listen {
        /// The address asked for.
        listen: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of tokens or keys could not be read or written.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The connection to a service that runs apart could not be set up.
    #[error("cannot set up the proxy to {base_url}: {source}")]
    Proxy {
        /// Where the service was said to be.
        base_url: String,
        /// What the HTTP client said.
        source: reqwest::Error,
    },
    /// A task of the gateway ended that must not end.
    #[error("the gateway's {task} task failed: {reason}")]
    Task {
        /// Which task.
        task: &'static str,
        /// How it ended.
        reason: String,
    },
}

/// A file of tokens or keys that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}; check that this user owns the folder and that the disk has room")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file does not hold what it must.
    #[error("{path} is damaged ({reason}): restore it from a backup, or move it away to start afresh ({loss})")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What moving it away costs.
        loss: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(String),
}
