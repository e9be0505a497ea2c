//! Stream descriptors: what a stream's channels are. Announced, signed and versioned.

use serde::{Deserialize, Serialize};

use crate::payload::{cbor_payload, decode};
use crate::{Digest, PayloadError, StreamId, cbor};

/// What one version of a stream looks like. A sample block names its descriptor's digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The stream described.
    pub stream: StreamId,
    /// 1, 2, 3 … as the description changes.
    pub version: u32,
    /// A title for people.
    pub title: String,
    /// How it is read: `serial`, `opcua`, `mqtt`, `graph` …
    pub protocol: String,
    /// The channels, in column order.
    pub channels: Vec<Channel>,
    /// Samples a second when regular; none when irregular.
    pub nominal_rate_hz: Option<f64>,
    /// Whether samples may be dropped when the spool is full.
    pub droppable: bool,
    /// How long the stream may say nothing before it counts as stale, in milliseconds.
    pub max_silence_ms: Option<u64>,
    /// The calibration the values went through.
    pub calibration: Option<String>,
}

/// One column of a stream. A changed unit or type is a new channel name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The column's name: `t1`.
    pub name: String,
    /// A title for people: `heater 1 plate`.
    pub title: Option<String>,
    /// The unit as UCUM writes it: `Cel`, `%`, `W`; `1` when there is none.
    pub unit: String,
    /// The type of the values.
    pub kind: ChannelType,
    /// The coordinate frame of a spatial quantity.
    pub frame: Option<String>,
    /// The smallest step the instrument shows, in the channel's unit.
    pub resolution: Option<f64>,
    /// The standard uncertainty of a value, in the channel's unit.
    pub uncertainty: Option<f64>,
    /// The least value that makes sense.
    pub low: Option<f64>,
    /// The greatest value that makes sense.
    pub high: Option<f64>,
}

impl Channel {
    /// A 64-bit floating-point channel with a UCUM unit.
    pub fn f64(name: &str, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: None,
            unit: unit.to_owned(),
            kind: ChannelType::F64,
            frame: None,
            resolution: None,
            uncertainty: None,
            low: None,
            high: None,
        }
    }

    /// A text channel.
    pub fn text(name: &str) -> Self {
        Self {
            kind: ChannelType::Utf8,
            ..Self::f64(name, "1")
        }
    }
}

/// The type of a channel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 64-bit integer.
    I64,
    /// Truth value.
    Bool,
    /// Text.
    Utf8,
}

/// The names of Orrery's own columns, which no channel may have.
pub const RESERVED_NAMES: [&str; 10] = [
    "time",
    "time_tai",
    "time_uncertainty",
    "revision",
    "boot_id",
    "sequence",
    "index",
    "device_time",
    "received",
    "stream",
];

impl ChannelType {
    /// The Arrow type of the column.
    pub fn data_type(self) -> arrow_schema::DataType {
        match self {
            Self::F64 => arrow_schema::DataType::Float64,
            Self::F32 => arrow_schema::DataType::Float32,
            Self::I64 => arrow_schema::DataType::Int64,
            Self::Bool => arrow_schema::DataType::Boolean,
            Self::Utf8 => arrow_schema::DataType::Utf8,
        }
    }
}

impl Descriptor {
    /// SHA-256 over the descriptor's CBOR bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// What makes the description unusable, if anything: names that collide or are reserved, too many channels.
    ///
    /// # Errors
    /// [`PayloadError`] names the channel.
    pub fn check(&self) -> Result<(), PayloadError> {
        let refuse = |why: String| Err(PayloadError::new("descriptor", why));
        if self.channels.is_empty() || self.channels.len() > 4096 {
            return refuse(format!("{} channels; a stream has 1 to 4096", self.channels.len()));
        }
        let mut names = std::collections::HashSet::new();
        for Channel { name, .. } in &self.channels {
            let well_formed = (1..=128).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !well_formed {
                return refuse(format!(
                    "channel `{name}`: use 1 to 128 of the characters A-Z a-z 0-9 _"
                ));
            }
            if RESERVED_NAMES.contains(&name.as_str()) {
                return refuse(format!("channel `{name}`: the name is Orrery's own, choose another"));
            }
            if !names.insert(name) {
                return refuse(format!("channel `{name}` stands twice"));
            }
        }
        Ok(())
    }
}

cbor_payload! { Descriptor => "descriptor" }
