//! Ordered durable topics behind one trait, [`Bus`]: Apache Kafka, or the embedded journal.
//!
//! Everything is at-least-once. [`Bus::publish`] resolves when the records survive a crash; a subscription
//! starts from a position the caller kept, or from a group's committed one. Records of one key keep their
//! order. Both implementations are held to the one suite in [`conformance`].
//!
//! [`journal::Journal`] alone, without topics, is the spool of the edge agent.
//!
//! This crate does not look into values: it knows nothing of envelopes but the headers in [`cloudevents`].

mod bus;
mod cloudevents;
mod config;
#[doc(hidden)]
pub mod conformance;
mod error;
pub mod fs;
pub mod journal;
mod journal_bus;
mod kafka;

pub use bus::{Bus, From, MAX_RECORD_BYTES, Message, Position, Record, SharedBus, Subscription};
pub use cloudevents::cloudevents;
pub use config::{BusUrl, KafkaConfig, SaslConfig};
pub use error::BusError;
pub use journal_bus::JournalBus;
pub use kafka::KafkaBus;
