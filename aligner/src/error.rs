//! What can go wrong, named with its place and remedy.

use std::path::PathBuf;

use orrery_protocol::{AlignedError, PayloadError, TaiNanos};

/// A failure of the aligner or of a question put to its store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus failed.
    #[error("the aligner's bus failed: {0}")]
    Bus(#[from] orrery_bus::BusError),
    /// SQLite failed.
    #[error("the catalog {path} failed: {source}; check the disk's free space and the folder's permissions")]
    Catalog {
        /// The catalog file.
        path: PathBuf,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// The catalog's bytes are damaged.
    #[error(
        "the catalog {path} is damaged: {reason}; restore the data folder from a backup, or keep what it can still read \
         with `sqlite3 {path} .recover`; segments and the archive of envelopes are files beside it and are untouched"
    )]
    CatalogDamaged {
        /// The catalog file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The catalog has another format.
    #[error("the catalog {path} has format {found}, this program reads {expected}: use the version that wrote it")]
    CatalogFormat {
        /// The catalog file.
        path: PathBuf,
        /// Found.
        found: i64,
        /// Expected.
        expected: i64,
    },
    /// There is no catalog.
    #[error("no catalog at {path}: is this an Orrery data folder that has run before?")]
    NoCatalog {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another owner took over.
    #[error(
        "the catalog was opened again since this opening of it (epoch {ours} is no longer current), so this one must not \
         write: give every process a data folder of its own"
    )]
    EpochLost {
        /// Our epoch.
        ours: i64,
    },
    /// A segment is gone or altered.
    #[error(
        "segment {path} of `{table}` ({from} to {to}) is {what}: restore the file from a backup; everything outside this range still reads"
    )]
    Segment {
        /// The file, relative to the segments folder.
        path: String,
        /// The stream or table.
        table: String,
        /// First row's time.
        from: TaiNanos,
        /// Last row's time.
        to: TaiNanos,
        /// `missing`, `corrupted: …`.
        what: String,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No such stream.
    #[error("there is no stream `{asked}`{}", suggestion(.nearest))]
    UnknownStream {
        /// What was asked for.
        asked: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// No such revision.
    #[error("revision {asked} does not exist; the latest is {latest}")]
    UnknownRevision {
        /// What was asked for.
        asked: u64,
        /// The latest commit.
        latest: u64,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    Request(String),
    /// SQL that cannot run.
    #[error("{0}")]
    Sql(String),
    /// Enrolling a second key under one name.
    #[error(
        "device `{device}` is already enrolled with key {known}: revoke that key first with `orrery device revoke {device} \
         {known}`, or enrol under another name"
    )]
    KeyConflict {
        /// The device.
        device: String,
        /// Its key.
        known: String,
    },
    /// Enrolling a key that was revoked.
    #[error(
        "key {key} of device `{device}` was revoked and stays so: stop its agent, remove the file `{device}.key` from the \
         agent's folder of keys, and enrol the key that it makes at its next start"
    )]
    KeyRevoked {
        /// The device.
        device: String,
        /// The revoked key.
        key: String,
    },
    /// No such key.
    #[error(
        "device `{device}` has no key {key}: `orrery device list` shows the devices, and GET /api/v1/devices their keys"
    )]
    UnknownKey {
        /// The device asked for.
        device: String,
        /// The key asked for.
        key: String,
    },
    /// Something within the aligner that must not happen; no fault of whoever asked.
    #[error("{0}; this is a defect of Orrery: please report it with the log")]
    Internal(String),
    /// Arrow refused a batch.
    #[error("columns of `{table}`: {source}")]
    Arrow {
        /// The stream or table.
        table: String,
        /// What Arrow says.
        source: datafusion::arrow::error::ArrowError,
    },
    /// Stored bytes that do not decode.
    #[error("{what} in the catalog does not decode: {why}")]
    Stored {
        /// What was read.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// An aligned block that does not encode.
    #[error(transparent)]
    Aligned(#[from] AlignedError),
    /// A payload that does not decode.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The aligner is not running.
    #[error("the aligner is not running (yet): try again in a moment")]
    NotRunning,
}

fn suggestion(name: &Option<String>) -> String {
    name.as_ref().map_or_else(
        || ": `orrery stream list` shows those that are stored".to_owned(),
        |name| format!(": did you mean `{name}`? `orrery stream list` shows all"),
    )
}

impl Error {
    pub(crate) fn arrow(table: &str) -> impl FnOnce(datafusion::arrow::error::ArrowError) -> Self {
        let table = table.to_owned();
        move |source| Self::Arrow { table, source }
    }
}
