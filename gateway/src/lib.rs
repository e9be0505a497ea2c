//! The front door of Orrery: it knows who is asking, takes envelopes in, mounts the services' routes under `/api/v1`,
//! fans the live stream out and serves the dashboard.
//!
//! Only this crate knows about HTTP authentication; services receive a [`Principal`](orrery_protocol::Principal) in the
//! request's extensions. It knows of services nothing but their HTTP.

mod app;
mod auth;
mod clock;
mod config;
mod control_stream;
mod error;
mod files;
mod health;
mod ingest;
mod inside;
mod live;
mod metrics;
mod openapi;
mod pages;
mod problems;
mod proxy;
mod service;

pub use config::Config;
pub use error::{Error, KeysError};
pub use health::Check;
pub use ingest::{ENVELOPES, MAX_BODY};
pub use metrics::{Metric, MetricKind, MetricSource};
pub use proxy::behind_gateway;
pub use service::{Bound, Deps, Mount, run};
