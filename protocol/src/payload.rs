//! Payloads that are not samples: CBOR maps with the field names given here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{BootId, ClockId, Digest, MonoNanos, StreamId, TaiNanos, cbor};

/// A payload that is not what its type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what} payload: {why}")]
pub struct PayloadError {
    what: &'static str,
    why: String,
}

impl PayloadError {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

macro_rules! cbor_payload {
    ($($type:ident => $what:literal),* $(,)?) => {$(
        impl $type {
            /// The payload's bytes.
            pub fn encode(&self) -> Vec<u8> {
                cbor::encode(self)
            }

            /// Reads the payload's bytes.
            ///
            /// # Errors
            /// [`PayloadError`] says what is missing or wrong.
            pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
                decode($what, bytes)
            }
        }
    )*};
}
pub(crate) use cbor_payload;

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, PayloadError> {
    cbor::decode(bytes).map_err(|why| PayloadError::new(what, why))
}

/// Time evidence. A device's chain carries all that its samples need, so aligning it needs no other chain.
///
/// Two kinds share the form. A *host probe* has `clock_id` = the host clock and asks the reference:
/// `t0`, `t3` are read on the host clock and `t1`, `t2` on the gateway's TAI. A *device probe* has
/// `clock_id` = the device's clock: `t0`, `t3` are again the host clock (named by `host`) and `t1`, `t2` the device's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPayload {
    /// The clock this is evidence about: a host clock, or a device's.
    pub clock_id: ClockId,
    /// The host clock that `t0`, `t3` and the pairs' `monotonic` are read on; equal to `clock_id` for host probes.
    pub host: ClockId,
    /// One wave of round trips.
    pub probes: Vec<Probe>,
    /// The host's wall clock beside its monotonic one.
    pub pairs: Vec<ClockPair>,
}

/// One round trip in nanoseconds, as NTP names its stamps (RFC 5905 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Asked, on the host's monotonic clock.
    pub t0: i64,
    /// Request received, on the other clock.
    pub t1: i64,
    /// Answer sent, on the other clock.
    pub t2: i64,
    /// Answer received, on the host's monotonic clock.
    pub t3: i64,
}

impl Probe {
    /// Other clock minus host clock, ((t1 − t0) + (t2 − t3)) / 2, in nanoseconds.
    pub fn offset_nanos(&self) -> i64 {
        let sum = (i128::from(self.t1) - i128::from(self.t0)) + (i128::from(self.t2) - i128::from(self.t3));
        i64::try_from(sum.div_euclid(2)).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// Time on the way, (t3 − t0) − (t2 − t1), in nanoseconds; half of it bounds the offset's error.
    pub fn round_trip_nanos(&self) -> i64 {
        let trip = (i128::from(self.t3) - i128::from(self.t0)) - (i128::from(self.t2) - i128::from(self.t1));
        i64::try_from(trip).unwrap_or(if trip < 0 { i64::MIN } else { i64::MAX })
    }
}

/// A host's wall clock and monotonic clock, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPair {
    /// The wall clock's reference time.
    pub wall: TaiNanos,
    /// The monotonic clock.
    pub monotonic: MonoNanos,
}

/// Nothing undelivered before `complete_until`, except these ranges: idleness is declared, not guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatPayload {
    /// The host clock of `complete_until`.
    pub clock_id: ClockId,
    /// Every sample received before this instant has been sealed with a lower sequence.
    pub complete_until: MonoNanos,
    /// Which streams; empty means all of the device.
    pub streams: Vec<StreamId>,
    /// Sequences of this boot not delivered yet, inclusive ranges.
    pub except: Vec<(u64, u64)>,
    /// Counters of the agent for this device: readings, garbage, reconnects …
    pub counters: BTreeMap<String, u64>,
}

/// Envelopes that will never come, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossPayload {
    /// The boot whose sequences are lost.
    pub boot_id: BootId,
    /// First lost sequence.
    pub first: u64,
    /// Last lost sequence.
    pub last: u64,
    /// Why, in words.
    pub reason: String,
    /// Digest of the last envelope dropped, so that the chain still closes.
    pub last_digest: Digest,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckStatus {
    /// The device did it; the value was read back.
    Applied,
    /// Not done, for the reason given.
    Refused,
    /// Nobody can say: the device did not answer.
    Unknown,
}

impl AckStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer to a [`Command`](crate::Command).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AckPayload {
    /// The command's id.
    pub command_id: String,
    /// The channel it set.
    pub channel: String,
    /// What became of it.
    pub status: AckStatus,
    /// The value read back from the device.
    pub value: Option<f64>,
    /// Why it was refused or is unknown.
    pub reason: Option<String>,
    /// The command's issuer epoch.
    pub issuer_epoch: u64,
    /// The command's sequence within the epoch.
    pub issuer_sequence: u64,
    /// When, on the host clock.
    pub at: MonoNanos,
    /// The host clock of `at`.
    pub clock_id: ClockId,
}

/// A line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPayload {
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The line.
    pub message: String,
    /// When, on the host clock.
    pub at: MonoNanos,
    /// The host clock of `at`.
    pub clock_id: ClockId,
}

/// Something happened at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPayload {
    /// A short name: `hood_opened`.
    pub name: String,
    /// What happened.
    pub text: String,
    /// When, on the host clock.
    pub at: MonoNanos,
    /// The host clock of `at`.
    pub clock_id: ClockId,
}

cbor_payload! {
    ClockPayload => "clock",
    HeartbeatPayload => "heartbeat",
    LossPayload => "loss",
    AckPayload => "ack",
    LogPayload => "log",
    EventPayload => "event",
}
