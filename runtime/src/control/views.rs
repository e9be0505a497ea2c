//! What control takes and tells over HTTP.

use orrery_protocol::{DeviceId, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::interlocks::Report;

/// A proposed set-point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The device.
    pub device: DeviceId,
    /// The channel.
    pub channel: String,
    /// The value, in the channel's unit.
    pub value: f64,
    /// How long it holds; then the device's agent sets the channel to its safe value. Without it the value stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_s: Option<f64>,
}

/// A proposed set-point beside the present one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReviewedChange {
    /// The device.
    pub device: DeviceId,
    /// The channel.
    pub channel: String,
    /// What the device last reported.
    pub from: Option<f64>,
    /// What would be sent.
    pub to: f64,
    /// How long it would hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_s: Option<f64>,
}

/// What a change would do, and whether it may be sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Review {
    /// Names the review.
    pub review_id: String,
    /// Until when it may be sent, UNIX milliseconds.
    pub expires_ms: f64,
    /// The changes.
    pub changes: Vec<ReviewedChange>,
    /// What the model says.
    pub prediction: String,
    /// Each interlock under the change.
    pub interlocks: Vec<Report>,
    /// Whether all hold.
    pub allowed: bool,
}

/// A command and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandStatus {
    /// Names the command.
    pub id: String,
    /// The device.
    pub device: DeviceId,
    /// The channel.
    pub channel: String,
    /// `sending`, `accepted`, `applied`, `refused`, `unknown` or `expired`.
    pub status: &'static str,
    /// The value the device read back; before that, the value sent.
    pub value: Option<f64>,
    /// Why it was refused or is unknown.
    pub reason: Option<String>,
    /// When the safe value takes its place, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<String>,
    #[serde(skip)]
    pub(super) gives_up: TaiNanos,
}

/// The state of `/control`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ControlView {
    /// What can be set.
    pub channels: Vec<ChannelView>,
    /// The interlocks as they stand, without any change.
    pub interlocks: Vec<Report>,
    /// Who holds the lease.
    pub lease: Option<LeaseView>,
}

/// A channel and its read-back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelView {
    /// The graph whose model it drives.
    pub graph: String,
    /// The model's input.
    pub input: String,
    /// The device.
    pub device: DeviceId,
    /// The channel.
    pub channel: String,
    /// A title.
    pub title: String,
    /// The unit (UCUM).
    pub unit: String,
    /// The device's own read-back.
    pub value: Option<f64>,
    /// The least value.
    pub low: f64,
    /// The greatest value.
    pub high: f64,
    /// The age of the read-back.
    pub age_s: Option<f64>,
}

/// A lease for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeaseView {
    /// Who.
    pub holder: String,
    /// Until when, UNIX milliseconds.
    pub expires_ms: f64,
}
