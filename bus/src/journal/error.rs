use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::MAX_RECORD_BYTES;

/// Why the journal could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk is full. Nothing is damaged.
    #[error("the disk that holds the journal {path} is full: free some space; appending goes on by itself then")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The filesystem failed.
    #[error("could not {what} journal {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The filesystem's reason.
        source: Arc<io::Error>,
    },
    /// Another process has the folder.
    #[error("journal {folder} is in use by another process: stop that one, or use another folder")]
    Locked {
        /// The journal's folder.
        folder: PathBuf,
    },
    /// A record above the limit.
    #[error("a record of {bytes} bytes is above the journal's limit of {MAX_RECORD_BYTES} bytes: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The writer has stopped.
    #[error("journal {folder} has stopped writing: restart the process; its log says why")]
    Closed {
        /// The journal's folder.
        folder: PathBuf,
    },
}

impl JournalError {
    pub(crate) fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Io {
                what,
                path: path.to_owned(),
                source: Arc::new(error),
            },
        }
    }

    pub(crate) fn locked(folder: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Locked {
                folder: folder.to_owned(),
            },
            _ => Self::io("lock", folder, error),
        }
    }
}
