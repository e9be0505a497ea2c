//! The live stream: one reader of the bus, many clients, the same JSON messages over WebSocket and server-sent events.
//!
//! ```text
//! bus ─▶ feed (decode, render once) ─▶ hub ─▶ a bounded queue per client ─▶ ws | sse
//!        topics (1 Hz, from services) ─▶
//! ```
//! The hub never waits for a client: a queue that is full loses its oldest messages, and its client is told which.

mod cursor;
mod feed;
mod hub;
mod message;
mod queue;
mod sse;
mod topics;
mod ws;

pub use feed::run as run_feed;
pub use hub::Hub;
pub use topics::run as run_topics;

pub mod routes {
    //! The handlers, with their OpenAPI paths.
    pub use super::sse::{__path_events, events};
    pub use super::ws::{__path_live, live};
}
