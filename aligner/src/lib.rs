//! The aligner: verifies envelopes, estimates clocks, puts every sample on one timeline, keeps the replay store and
//! answers SQL.
//!
//! [`engine`] is the pure part: from messages to rows, watermarks and records to publish. [`run`] carries out what it
//! decides: it publishes at once, then commits. [`Store`] reads what was committed, live or from a stopped folder.

mod align;
mod archive;
pub mod clocks;
mod columns;
mod config;
mod door;
mod engine;
mod error;
mod handle;
mod render;
mod replay;
mod routes;
mod seek;
mod service;
mod sql;
mod status;
mod store;
mod window;

pub use config::Config;
pub use door::{Admission, ChainState, Device, Door, EnrolledKey, Enrolment, Gap, Refusal, Verdict};
pub use engine::{Engine, Outbox};
pub use error::Error;
pub use handle::Handle;
pub use render::{Format, Renderer, replay_batch, replay_schema, seek_json};
pub use replay::{Replay, ReplayRequest, Run};
pub use routes::{openapi, routes};
pub use seek::LastRow;
pub use service::{Deps, run};
pub use sql::QueryStream;
pub use status::StreamInfo;
pub use store::{Commit, Recovered, Store, Table, View, Writer};
pub use window::{Window, WindowRequest};
