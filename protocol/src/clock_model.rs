//! What the aligner knows of a clock; travels on `orrery.clock`.

use serde::{Deserialize, Serialize};

use crate::payload::{cbor_payload, decode};
use crate::{ClockId, DeviceId, PayloadError, TaiNanos, cbor};

/// How a clock model came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// From round trips to the clock: the error is bounded by half the least round trip.
    RoundTrip,
    /// From stamps that came one way: the least delay is unknown and part of the uncertainty.
    OneWay,
    /// The agent host's own clock, which stamps a device that has none.
    Host,
}

/// Reference time from a clock: `reference = t + offset + drift · (t − anchor)`, with standard uncertainties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockModel {
    /// The clock modelled.
    pub clock_id: ClockId,
    /// In whose chain the evidence came.
    pub device_id: DeviceId,
    /// How it was estimated.
    pub kind: ClockKind,
    /// The reading of the clock, in nanoseconds, at which `reference_minus_clock_nanos` holds.
    pub anchor: i64,
    /// Reference minus clock at the anchor, in nanoseconds.
    pub reference_minus_clock_nanos: i64,
    /// How much faster reference time runs than the clock, in parts per billion.
    pub drift_ppb: f64,
    /// Standard uncertainty of the offset at the anchor, in nanoseconds.
    pub offset_uncertainty_nanos: f64,
    /// Standard uncertainty of the drift, in parts per billion.
    pub drift_uncertainty_ppb: f64,
    /// Half the least round trip, in nanoseconds: the bound that path asymmetry puts on the offset.
    pub asymmetry_nanos: i64,
    /// When the model was made, in reference time.
    pub at: TaiNanos,
}

cbor_payload! { ClockModel => "clock model" }
