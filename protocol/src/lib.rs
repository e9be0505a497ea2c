//! What two parties of Orrery must agree on: envelopes and their signatures, time, streams, samples,
//! commands and provenance records.
//!
//! This crate does no I/O, runs no task and reads no clock; it builds for `wasm32-unknown-unknown`.
//! Whatever crosses the bus, the network or the disk is defined here, byte for byte, and frozen in
//! `tests/fixtures`.

mod aligned;
mod cbor;
mod chain;
mod clock_model;
mod command;
mod digest;
mod envelope;
mod ids;
mod intervals;
mod ipc;
mod keys;
pub mod leap;
mod payload;
mod principal;
mod problem;
mod record;
mod samples;
mod stream;
mod time;
pub mod topics;

pub use aligned::{AlignedBlock, AlignedError, RowKey};
pub use chain::{Chain, Sealed};
pub use clock_model::{ClockKind, ClockModel};
pub use command::{Command, CommandError, seal_command, verify_command};
pub use digest::{Digest, ReplayDigest};
pub use envelope::{
    Claims, Envelope, EnvelopeError, MAX_ENVELOPE, MAX_PAYLOAD, PayloadType, Unverified, Verified, seal,
};
pub use ids::{BootId, ClockId, DeviceId, IdError, StreamId};
pub use intervals::IntervalSet;
pub use keys::{KeyId, PublicKey, SealKey};
pub use payload::{
    AckPayload, AckStatus, ClockPair, ClockPayload, EventPayload, HeartbeatPayload, LogPayload, LossPayload,
    PayloadError, Probe,
};
pub use principal::{Principal, Role};
pub use problem::Problem;
pub use record::{Record, RecordKind, Subject};
pub use samples::{SampleBlock, SampleBuilder, SampleError, Value};
pub use stream::{Channel, ChannelType, Descriptor, RESERVED_NAMES};
pub use time::{Clock, DeviceNanos, ManualClock, MonoNanos, TaiNanos, TimeError, UtcNanos};
