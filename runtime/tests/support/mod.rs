//! A node in plain Rust, a graph for it, and logs to run it on.
#![allow(dead_code)]

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::{DataType, Field};
use orrery_lang::{Meta, Var};
use orrery_protocol::{AlignedBlock, BootId, Digest, StreamId, TaiNanos};
use orrery_runtime::NodeError;
use orrery_runtime::graph::Graph;
use orrery_runtime::layout::Layout;
use orrery_runtime::node::{Node, StartPlan, TickPlan};

pub const GRAPH: &str = r#"
id = "twin"
title = "Test twin"
model = "plate.mo"
tick_ms = 100
reset_after_ms = 3000

[streams."rig/board"]
gating = true
max_wait_ms = 1000
[streams."room/air"]
delay_ms = 2000
max_wait_ms = 1000

[inputs]
q = { stream = "rig/board", channel = "q", unit = "%", mode = "hold" }
ambient = { stream = "room/air", channel = "temperature", unit = "Cel", mode = "hold", default = 20.0 }

[start]
t = { measured = "rig/board.t", unit = "Cel" }

[outputs.t]
from = "t"
unit = "Cel"
title = "T"
measured = "rig/board.t"
uncertainty = { start = 0.1, live = 0.5, settle_s = 10.0, held_per_sqrt_s = 0.2 }

[[control]]
device = "rig"
channel = "q"
title = "Heater"
unit = "%"
low = 0.0
high = 80.0
off = 0.0
readback = "rig/board.q"
input = "q"

[[interlock]]
id = "limit"
text = "T below 60 °C"
kind = "below"
channels = ["rig/board.t"]
limit = 60.0
unit = "Cel"

[[interlock]]
id = "ahead"
text = "Twin stays below 60 °C for 10 min"
kind = "forecast_below"
outputs = ["t"]
limit = 60.0
unit = "Cel"
horizon_s = 600

[[interlock]]
id = "answers"
text = "Board answered within 2 s"
kind = "answers"
stream = "rig/board"
within_s = 2.0
"#;

/// The same plate in Modelica.
pub const MODEL: &str = r#"
model Plate "A heated plate"
  parameter Real k(unit = "1/s") = 0.02 "Loss";
  parameter Real g(unit = "K/(s.%)") = 0.01 "Heating per percent";
  input Real q(unit = "%");
  input Real ambient(unit = "degC", start = 20);
  output Real t(unit = "degC", start = 20, fixed = true);
equation
  der(t) = g * q - k * (t - ambient);
end Plate;
"#;

/// dt = g q − k (t − ambient), integrated by Euler between time events.
#[derive(Clone)]
pub struct Plate {
    t: f64,
    k: f64,
}

impl Plate {
    pub fn new() -> Self {
        Self {
            t: f64::NAN,
            k: f64::NAN,
        }
    }
}

impl Node for Plate {
    fn start(&mut self, plan: &StartPlan) -> Result<Vec<f64>, NodeError> {
        self.k = 0.02;
        for (index, value) in &plan.parameters {
            assert_eq!(*index, 0);
            self.k = *value;
        }
        self.t = plan.starts[0].1;
        Ok(vec![self.t])
    }

    fn columns(&self) -> usize {
        1
    }

    fn advance(&mut self, plan: &TickPlan) -> Result<Vec<f64>, NodeError> {
        let mut rows = Vec::new();
        for tick in plan.first_tick..plan.first_tick + i64::from(plan.ticks) {
            let (start, end) = (tick * plan.tick_nanos, (tick + 1) * plan.tick_nanos);
            let mut events: Vec<i64> = plan
                .inputs
                .iter()
                .flat_map(|knots| knots.points.iter().map(|point| point.0))
                .collect();
            events.retain(|at| (start..end).contains(at));
            events.extend([start, end]);
            events.sort_unstable();
            events.dedup();
            for pair in events.windows(2) {
                let held = |input: usize| {
                    let points = &plan.inputs[input].points;
                    points
                        .iter()
                        .rev()
                        .find(|point| point.0 <= pair[0])
                        .unwrap_or(&points[0])
                        .1
                };
                let h = (pair[1] - pair[0]) as f64 / 1e9;
                self.t += h * (0.01 * held(0) - self.k * (self.t - held(1)));
            }
            rows.push(self.t);
        }
        Ok(rows)
    }

    fn set_parameter(&mut self, _index: usize, value: f64) -> Result<(), NodeError> {
        self.k = value;
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, NodeError> {
        Ok([self.t.to_le_bytes(), self.k.to_le_bytes()].concat())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), NodeError> {
        let (t, k) = state
            .split_at_checked(8)
            .ok_or_else(|| NodeError::State("short".into()))?;
        self.t = f64::from_le_bytes(t.try_into().unwrap());
        self.k = f64::from_le_bytes(k.try_into().unwrap());
        Ok(())
    }
}

pub fn graph() -> Graph {
    Graph::parse(GRAPH, "twin.toml").unwrap()
}

pub fn layout() -> Layout {
    let var = |name: &str, unit: &str| Var {
        name: name.into(),
        unit: unit.into(),
        ..Var::default()
    };
    let meta = Meta {
        abi: orrery_lang::abi::ABI,
        compiler: "test".into(),
        model: "Plate".into(),
        description: String::new(),
        file: "plate.mo".into(),
        lanes: 1,
        states: vec![var("t", "degC")],
        inputs: vec![var("q", "%"), var("ambient", "degC")],
        outputs: vec![var("t", "degC")],
        columns: vec![var("t", "degC")],
        parameters: vec![var("k", "1/s")],
        context_bytes: 0,
        persistent: 0..16,
        second_derivatives: false,
        checkpoint: 0..16,
        memory: 0,
        starts_at: 0,
        equations: vec![],
    };
    Layout::bind(&graph(), &meta, &Digest([1; 32]), &[2; 32]).unwrap()
}

/// A row of `rig/board` (t, q) or `room/air` (temperature).
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub at: i64,
    pub values: Vec<f64>,
}

pub const T0: i64 = 1_795_000_000_000_000_000;

pub fn board() -> StreamId {
    StreamId::new("rig/board").unwrap()
}

pub fn air() -> StreamId {
    StreamId::new("room/air").unwrap()
}

/// A block of samples numbered from `first`.
pub fn block(stream: &StreamId, names: &[&str], samples: &[Sample], first: u64, watermark: i64) -> AlignedBlock {
    let column = |at: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter(
            samples.iter().map(|sample| sample.values.get(at).copied()),
        ))
    };
    let channels = names
        .iter()
        .enumerate()
        .map(|(at, name)| (Arc::new(Field::new(*name, DataType::Float64, true)), column(at)));
    let batch = AlignedBlock::batch(
        samples.iter().map(|sample| sample.at).collect(),
        vec![1000; samples.len()],
        BootId([9; 16]),
        (first..first + samples.len() as u64).collect(),
        vec![0; samples.len()],
        channels.collect(),
    )
    .unwrap();
    AlignedBlock {
        stream: stream.clone(),
        descriptor: Digest([0; 32]),
        revision: 7,
        watermark: TaiNanos(watermark),
        asymmetry_nanos: 0,
        extra: Default::default(),
        batch,
    }
}

/// The samples of one stream cut into blocks after the given lengths; each block's watermark is where the next begins.
pub fn cut(stream: &StreamId, names: &[&str], samples: &[Sample], lengths: &[usize], end: i64) -> Vec<AlignedBlock> {
    let mut blocks = Vec::new();
    let mut at = 0;
    let mut lengths = lengths.iter().copied().chain(std::iter::repeat(1));
    while at < samples.len() {
        let next = (at + lengths.next().unwrap().max(1)).min(samples.len());
        let watermark = samples.get(next).map_or(end, |sample| sample.at);
        blocks.push(block(stream, names, &samples[at..next], at as u64, watermark));
        at = next;
    }
    blocks
}

pub const BOARD: [&str; 2] = ["t", "q"];
pub const AIR: [&str; 1] = ["temperature"];
