//! A look ahead: a clone of the running node, run on with its inputs held, or with some of them changed.

use std::collections::BTreeMap;

use orrery_protocol::TaiNanos;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::layout::Layout;
use crate::node::{Knots, Node, TickPlan};
use crate::progress::{Vantage, next_variance};

/// How far ahead a look may go, seconds.
pub const MAX_HORIZON_S: u32 = 3600;
/// Points of a published curve.
const MAX_POINTS: usize = 600;
const STEP_NANOS: i64 = 1_000_000_000;

/// What the graph will publish, if its inputs stay as assumed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// The instant it starts from, UNIX milliseconds.
    pub from_ms: f64,
    /// What it assumes.
    pub assumption: String,
    /// One curve per output.
    pub channels: BTreeMap<String, Curve>,
    /// The end and the greatest value of each curve.
    pub summary: BTreeMap<String, Summary>,
}

/// A curve for a chart.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Curve {
    /// UNIX milliseconds.
    pub t: Vec<f64>,
    /// The values.
    pub v: Vec<f64>,
    /// Their standard uncertainties.
    pub sd: Vec<f64>,
}

/// What a curve comes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The value at the horizon.
    pub at_end: f64,
    /// The greatest value on the way, the present one included.
    pub max: f64,
}

/// Runs `node` on from `vantage`; `set` holds (input index, value in the model's unit) for the inputs that change now.
///
/// The time axis is moved so that the vantage is its zero: the model sees the same seconds, and whole-second steps fit.
///
/// # Errors
/// [`NodeError`] when the model fails on the way.
pub fn look_ahead<N: Node>(
    node: &mut N,
    layout: &Layout,
    vantage: &Vantage,
    set: &[(usize, f64)],
    horizon_s: u32,
) -> Result<Forecast, NodeError> {
    let steps = horizon_s.clamp(1, MAX_HORIZON_S);
    let mut inputs = vantage.inputs.clone();
    for (index, value) in set {
        inputs[*index] = *value;
    }
    node.restore(&vantage.node_state)?;
    let rows = node.advance(&TickPlan {
        origin_nanos: vantage.origin_nanos - vantage.at.0,
        first_tick: 0,
        ticks: steps,
        tick_nanos: STEP_NANOS,
        inputs: inputs.iter().map(|value| Knots::held(0, *value)).collect(),
    })?;
    let names: Vec<&str> = set
        .iter()
        .map(|(index, _)| layout.inputs[*index].name.as_str())
        .collect();
    let assumption = if names.is_empty() {
        "powers held".to_owned()
    } else {
        format!("{} changed, the rest held", names.join(" and "))
    };
    let mut forecast = Forecast {
        from_ms: vantage.at.to_unix_millis(),
        assumption,
        channels: BTreeMap::new(),
        summary: BTreeMap::new(),
    };
    for (at, output) in layout.outputs.iter().enumerate() {
        let mut variance = vantage.variance[at];
        let mut max = vantage.outputs[at];
        let mut last = max;
        let mut curve = Curve::default();
        let stride = (steps as usize).div_ceil(MAX_POINTS);
        curve.push(vantage.at, last, variance);
        for step in 1..=steps as usize {
            let raw = rows
                .get((step - 1) * node.columns() + output.index)
                .copied()
                .unwrap_or(f64::NAN);
            last = output.conversion.apply(raw);
            if !last.is_finite() {
                return Err(NodeError::NotFinite {
                    output: output.name.clone(),
                    tick: step as i64,
                });
            }
            max = max.max(last);
            variance = next_variance(variance, &output.uncertainty, 1.0, true);
            if step % stride == 0 || step == steps as usize {
                curve.push(TaiNanos(vantage.at.0 + step as i64 * STEP_NANOS), last, variance);
            }
        }
        forecast.channels.insert(output.name.clone(), curve);
        forecast
            .summary
            .insert(output.name.clone(), Summary { at_end: last, max });
    }
    Ok(forecast)
}

impl Curve {
    fn push(&mut self, time: TaiNanos, value: f64, variance: f64) {
        self.t.push(time.to_unix_millis());
        self.v.push(value);
        self.sd.push(variance.max(0.0).sqrt());
    }
}
