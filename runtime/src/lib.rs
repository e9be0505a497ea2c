//! Runs graphs of models on live or recorded streams, looks ahead of them, and issues the commands they guard.
//!
//! [`progress`] decides and is pure: snapshot and ordered log in, ticks out. [`engine`] is the sandbox, [`node`] what
//! runs in it. [`service`] and its per-graph tasks act: they read `orrery.aligned`, publish `orrery.traces`, keep
//! snapshots. [`replay`] runs the same progress over a recorded log, with the same bytes as a result. [`control`]
//! issues commands behind the interlocks of [`interlocks`]. [`solver`] solves models by themselves: the command line's and
//! HTTP's way to them.
//!
//! The runtime cannot tell a live stream from a replay. A guest's failure is a value and never ends the process.

pub mod config;
pub mod control;
pub mod engine;
pub mod error;
pub mod forecast;
pub mod graph;
pub mod handle;
pub mod inputs;
pub mod interlocks;
pub mod layout;
mod model;
pub mod node;
pub mod progress;
pub mod readings;
pub mod refusal;
pub mod replay;
mod routes;
mod runner;
pub mod service;
pub mod snapshot;
pub mod solver;
pub mod trace;
mod units;

pub use config::{Config, EngineKind};
pub use engine::{Engine, Model};
pub use error::{Error, GraphError, NodeError};
pub use graph::{Graph, GraphFile};
pub use model::{compile_file, model_check};
pub use orrery_lang::Diagnostic;
pub use refusal::Refusal;
pub use replay::{ReplayError, Replayed, replay_graph};
pub use routes::openapi;
pub use service::{Deps, Runtime, load, run};
