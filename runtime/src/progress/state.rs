//! What progress keeps between two ticks, and what it says about itself.

use std::collections::BTreeMap;
use std::fmt;

use orrery_protocol::{BootId, StreamId, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::inputs::StreamState;
use crate::trace::Decision;

/// What an operator or an estimator asks of a run; it applies at the next tick and is part of its trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Start a new run from the measured values.
    Reset,
    /// Give a tunable parameter another value.
    SetParameter {
        /// Its index in the node's order.
        index: usize,
        /// The value, in the model's unit.
        value: f64,
    },
}

impl Event {
    /// Whether a later event makes this one mean nothing.
    pub(super) fn is_replaced_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Reset, Self::Reset) => true,
            (Self::SetParameter { index, .. }, Self::SetParameter { index: other, .. }) => index == other,
            _ => false,
        }
    }
}

/// Why no tick runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The tick that waits; `None` while a run has not found its start.
    pub tick: Option<i64>,
    /// Some stream is complete up to the tick's end, so that the others are behind.
    pub time_moves: bool,
    /// The streams it waits for.
    pub streams: Vec<StreamId>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams: Vec<&str> = self.streams.iter().map(StreamId::as_str).collect();
        let streams = streams.join(" and ");
        match self.tick {
            _ if streams.is_empty() => write!(f, "waiting for time to pass"),
            None => write!(f, "waiting for a first row of {streams}"),
            Some(_) => write!(f, "waiting for {streams} to be complete"),
        }
    }
}

/// Everything that a snapshot has to hold, but the node's own bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next tick, counted from 1970: it starts at `tick · Δ`.
    pub tick: i64,
    /// The run, or `None` while waiting for its first rows.
    pub run: Option<Run>,
    /// The last run ended in silence, so that the next one starts from new rows alone.
    pub ended: bool,
    /// One per stream, in the layout's order.
    pub streams: Vec<StreamState>,
    /// Published outputs at the start of the next tick.
    pub outputs: Vec<f64>,
    /// Variance of each output.
    pub variance: Vec<f64>,
    /// Parameter values that events changed.
    pub parameters: BTreeMap<usize, f64>,
    /// Events that wait for the next tick.
    pub events: Vec<Event>,
    /// Ticks whose trace is already published, and what was decided for them.
    pub script: BTreeMap<i64, Decision>,
}

/// A stretch of ticks from one start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Stands as the boot of the trace's rows.
    pub id: BootId,
    /// Its first tick, counted from 1970.
    pub first_tick: i64,
}

/// A running graph at one instant: all that a look ahead needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Vantage {
    /// The instant.
    pub at: TaiNanos,
    /// The instant the model calls time 0.
    pub origin_nanos: i64,
    /// The node's state.
    pub node_state: Vec<u8>,
    /// The inputs that hold, in the model's units.
    pub inputs: Vec<f64>,
    /// The published outputs.
    pub outputs: Vec<f64>,
    /// Their variances.
    pub variance: Vec<f64>,
}
