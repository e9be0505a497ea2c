use std::io;
use std::path::{Path, PathBuf};

use orrery_bus::BusError;

use crate::note::NoteError;

/// Why a log could not be opened, grown or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filesystem failed.
    #[error("could not {what} {path}: {source}; check the free space, the owner and the permissions there")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("the provenance log in {dir} is in use by another process: stop that one, or use another folder")]
    Locked {
        /// The log's folder.
        dir: PathBuf,
    },
    /// The files of the log do not agree with each other.
    #[error(
        "the provenance log in {dir} does not match its checkpoint ({why}): nothing more is added to it; \
         `orrery provenance verify` names the records"
    )]
    Damaged {
        /// The log's folder.
        dir: PathBuf,
        /// What does not agree.
        why: String,
    },
    /// Another origin or key than the one the log was made with.
    #[error("the provenance log in {dir} belongs to {found}, not to {given}: restore its key, or use another folder")]
    OtherOwner {
        /// The log's folder.
        dir: PathBuf,
        /// The verifier key in the folder.
        found: String,
        /// The verifier key of this process.
        given: String,
    },
    /// An origin that cannot be a key name.
    #[error("`{0}` cannot name a log: leave out spaces, control characters and '+'")]
    BadOrigin(String),
    /// An entry above what tiles can hold.
    #[error("a provenance record of {bytes} bytes is above the limit of 65535: name large content by its digest")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Nothing is signed, so nothing can be proved.
    #[error("{0} is missing: without it no record is proved; restore the folder from a backup")]
    NoCheckpoint(PathBuf),
    /// A checkpoint that is not one.
    #[error("{path}: {source}")]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
    /// A range outside the log.
    #[error("the log has {size} entries: {asked} is outside")]
    Outside {
        /// Number of entries.
        size: u64,
        /// What was asked for.
        asked: String,
    },
}

impl LogError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Why the service stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}
