//! A node of a graph: something that advances one tick at a time over explicit state.
//!
//! Invariants of every implementation, which replay and snapshots stand on:
//! - `advance` is a function of the saved state and the plan alone. It reads no clock and keeps nothing outside
//!   what `save` returns.
//! - `restore(save())` changes nothing: what follows is the same, bit for bit, on any machine.
//! - After an error the node's state is unspecified; whoever goes on restores first.
//! - A reverse sweep walks the same ticks backwards over the same plans and starts from the same saved states;
//!   it is a method of this trait when the module carries its adjoint.

use crate::error::NodeError;

/// One input's course over a plan: the value at the start, then later changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Knots {
    /// (nanoseconds on the plan's time axis, value), ascending; the first is at or before the plan's start.
    pub points: Vec<(i64, f64)>,
    /// Straight lines between the points, and the last holds; otherwise each point holds until the next.
    pub linear: bool,
}

impl Knots {
    /// One value throughout.
    pub fn held(at_nanos: i64, value: f64) -> Self {
        Self {
            points: vec![(at_nanos, value)],
            linear: false,
        }
    }

    /// Adds a point; of two at one instant the later one counts.
    pub fn push(&mut self, at_nanos: i64, value: f64) {
        self.points.pop_if(|(last, _)| *last == at_nanos);
        self.points.push((at_nanos, value));
    }

    /// The value at an instant. The order of the arithmetic is part of what a replay repeats.
    pub fn value_at(&self, at_nanos: i64) -> f64 {
        let after = self.points.partition_point(|(at, _)| *at <= at_nanos);
        let Some((t0, v0)) = after.checked_sub(1).map(|before| self.points[before]) else {
            return self.points.first().map_or(f64::NAN, |(_, value)| *value);
        };
        match self.points.get(after) {
            Some((t1, v1)) if self.linear => v0 + (v1 - v0) * ((at_nanos - t0) as f64 / (t1 - t0) as f64),
            _ => v0,
        }
    }
}

/// A stretch of whole ticks: tick `k` covers `[k·tick, (k+1)·tick)` of the time axis, which is TAI for a live run.
#[derive(Debug, Clone, PartialEq)]
pub struct TickPlan {
    /// The instant of the axis that the model calls time 0.
    pub origin_nanos: i64,
    /// The first tick.
    pub first_tick: i64,
    /// How many ticks.
    pub ticks: u32,
    /// Length of a tick in nanoseconds.
    pub tick_nanos: i64,
    /// One course per input of the node, in the node's order.
    pub inputs: Vec<Knots>,
}

/// What a run starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct StartPlan {
    /// The first tick.
    pub first_tick: i64,
    /// Length of a tick in nanoseconds; the run's origin is where the first tick starts.
    pub tick_nanos: i64,
    /// Input values at the origin, in the node's order.
    pub inputs: Vec<f64>,
    /// (index of a start value in the node's order, value).
    pub starts: Vec<(usize, f64)>,
    /// (index of a parameter in the node's order, value).
    pub parameters: Vec<(usize, f64)>,
}

/// Something that advances one tick at a time over explicit state.
pub trait Node: Send {
    /// Starts a run: computes the state, and returns the row of values at its origin.
    ///
    /// # Errors
    /// [`NodeError`] says what failed and where in the model.
    fn start(&mut self, plan: &StartPlan) -> Result<Vec<f64>, NodeError>;

    /// How many values a row of `start` and `advance` has.
    fn columns(&self) -> usize;

    /// Advances over the plan; returns a row of values for the end of every tick, tick by tick.
    ///
    /// # Errors
    /// [`NodeError`] says what failed and where in the model.
    fn advance(&mut self, plan: &TickPlan) -> Result<Vec<f64>, NodeError>;

    /// Changes a tunable parameter between two ticks.
    ///
    /// # Errors
    /// [`NodeError`] when the model refuses the value.
    fn set_parameter(&mut self, index: usize, value: f64) -> Result<(), NodeError>;

    /// The state as bytes.
    ///
    /// # Errors
    /// [`NodeError`] when the state cannot be read.
    fn save(&mut self) -> Result<Vec<u8>, NodeError>;

    /// Takes up a saved state.
    ///
    /// # Errors
    /// [`NodeError`] when the bytes are not this node's state.
    fn restore(&mut self, state: &[u8]) -> Result<(), NodeError>;
}
