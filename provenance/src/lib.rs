//! The provenance log: an append-only Merkle tree (RFC 6962) of in-toto statements, with signed checkpoints
//! (C2SP tlog-checkpoint) and tiles on disk (C2SP tlog-tiles), so that tools that are not ours verify it.
//!
//! [`tree`] and [`note`] are pure. [`Log`] keeps one log in one folder and is durable when `append` returns.
//! [`verify_dir`] checks a folder offline. [`run`] and [`routes`] are the service: it takes what is published on
//! `orrery.provenance` into the log and answers over HTTP.
//!
//! Of the statements this crate knows their kind, their time and whom they name, not what they mean.

mod config;
mod error;
mod index;
mod log;
pub mod note;
mod routes;
mod service;
pub mod tree;
mod verify;

pub use config::Config;
pub use error::{Error, LogError};
pub use index::ModelEntry;
pub use log::{Entry, Log};
pub use routes::{openapi, routes};
pub use service::{Deps, Handle, Moment, State, Status, run};
pub use verify::{Mismatch, Report, verify_dir};
