//! Progress: the ordered log in, ticks out. Pure: no clock, no bus, no arrival time.
//!
//! A tick `[k·Δ, (k+1)·Δ)` runs when every stream is complete for it. Each stream is read in its own order, so how
//! streams interleave on the bus, and how rows are cut into blocks, changes nothing. The one decision that comes
//! from outside, to stop waiting for a stream ([`Progress::waive`]), is written into the tick's trace together
//! with the last row used, and [`Progress::follow`] repeats it.

use std::collections::BTreeMap;

use orrery_protocol::{BootId, StreamId, TaiNanos};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::NodeError;
use crate::inputs::{Row, RowId, StreamState};
use crate::layout::Layout;
use crate::node::{Knots, Node, StartPlan, TickPlan};
use crate::trace::{Decision, Frontier, TickTrace};

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

/// Everything that a snapshot has to hold, but the node's own bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next tick, counted from 1970: it starts at `tick · Δ`.
    pub tick: i64,
    /// The run, or `None` while waiting for its first rows.
    pub run: Option<Run>,
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

/// A graph's progress over its log.
pub struct Progress<N> {
    layout: Layout,
    node: N,
    state: State,
}

impl<N: Node> Progress<N> {
    /// Progress that has seen nothing.
    pub fn new(layout: Layout, node: N) -> Self {
        let state = State {
            tick: i64::MIN,
            run: None,
            streams: layout
                .streams
                .iter()
                .map(|stream| StreamState::new(stream.channels.len()))
                .collect(),
            outputs: Vec::new(),
            variance: Vec::new(),
            parameters: BTreeMap::new(),
            events: Vec::new(),
            script: BTreeMap::new(),
        };
        Self {
            layout,
            node,
            state,
        }
    }

    /// Progress as a snapshot left it.
    ///
    /// # Errors
    /// [`NodeError::State`] when the snapshot is of another graph.
    pub fn restore(
        layout: Layout,
        mut node: N,
        state: State,
        node_state: Option<&[u8]>,
    ) -> Result<Self, NodeError> {
        let fits = state.streams.len() == layout.streams.len()
            && state
                .streams
                .iter()
                .zip(&layout.streams)
                .all(|(state, layout)| state.values.len() == layout.channels.len())
            && state.run.is_some() == node_state.is_some();
        if !fits {
            return Err(NodeError::State("it has other streams".to_owned()));
        }
        if let Some(bytes) = node_state {
            node.restore(bytes)?;
        }
        Ok(Self {
            layout,
            node,
            state,
        })
    }

    /// The state and the node's bytes (none between runs).
    ///
    /// # Errors
    /// [`NodeError`] when the node cannot be read.
    pub fn save(&mut self) -> Result<(State, Option<Vec<u8>>), NodeError> {
        let node_state = if self.state.run.is_some() {
            Some(self.node.save()?)
        } else {
            None
        };
        Ok((self.state.clone(), node_state))
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the graph resolved to.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes rows of a stream, in that stream's order, and how far it is now complete. Returns how many rows came
    /// too late to be used.
    pub fn push(&mut self, stream: usize, rows: Vec<Row>, watermark: TaiNanos) -> u64 {
        self.state.streams[stream].push(rows, watermark)
    }

    /// What a forecast starts from; `None` between runs.
    ///
    /// # Errors
    /// [`NodeError`] when the node cannot be read.
    pub fn vantage(&mut self) -> Result<Option<Vantage>, NodeError> {
        let Some(run) = self.state.run else {
            return Ok(None);
        };
        let at = TaiNanos(self.state.tick * self.layout.tick_nanos);
        let inputs = self
            .held_inputs(at.0)
            .iter()
            .map(|knots| knots.points[0].1)
            .collect();
        Ok(Some(Vantage {
            at,
            origin_nanos: run.first_tick * self.layout.tick_nanos,
            node_state: self.node.save()?,
            inputs,
            outputs: self.state.outputs.clone(),
            variance: self.state.variance.clone(),
        }))
    }

    /// Asks something of the run; it applies at the next tick.
    pub fn request(&mut self, event: Event) {
        self.state.events.push(event);
    }

    /// Stops waiting for a stream until it is complete again.
    pub fn waive(&mut self, stream: &StreamId) {
        if let Some(index) = self.layout.stream_index(stream) {
            self.state.streams[index].waived = true;
        }
    }

    /// Whether a stream is not waited for.
    pub fn is_waived(&self, stream: &StreamId) -> bool {
        self.layout
            .stream_index(stream)
            .is_some_and(|index| self.state.streams[index].waived)
    }

    /// Repeats what was decided for a tick when it first ran.
    pub fn follow(&mut self, tick: i64, decision: Decision) {
        if tick >= self.state.tick {
            self.state.script.insert(tick, decision);
        }
    }

    /// Why [`Progress::tick`] returned nothing.
    pub fn blocked(&self) -> Blocked {
        let Some(tick) = self.next_tick() else {
            let missing = self.layout.streams.iter().zip(&self.state.streams);
            let streams = missing.filter(|(layout, state)| state.complete_at(layout).is_none());
            return Blocked {
                tick: None,
                time_moves: false,
                streams: streams.map(|(layout, _)| layout.id.clone()).collect(),
            };
        };
        let streams = (0..self.layout.streams.len()).filter(|index| !self.is_closed(*index, tick));
        let streams = streams
            .map(|index| self.layout.streams[index].id.clone())
            .collect();
        Blocked {
            tick: Some(tick),
            time_moves: self.time_moves(tick),
            streams,
        }
    }

    /// Runs the next tick if its inputs are complete.
    ///
    /// # Errors
    /// [`NodeError`] when the model fails; the progress is then to be dropped, or restored from a snapshot.
    pub fn tick(&mut self) -> Result<Option<TickTrace>, NodeError> {
        loop {
            self.skip_to_script();
            let Some(tick) = self.next_tick() else {
                return Ok(None);
            };
            if !self.is_ready(tick) {
                return Ok(None);
            }
            if self.state.run.is_some() && self.is_abandoned(tick) {
                self.end_run(tick);
                continue;
            }
            return self.run_tick(tick).map(Some);
        }
    }

    /// A tick before the first decided one did not run the first time either: there, the run had ended.
    fn skip_to_script(&mut self) {
        let Some((&first, _)) = self.state.script.first_key_value() else {
            return;
        };
        if first > self.state.tick {
            if self.state.run.is_some() {
                self.end_run(first);
            }
            self.state.tick = first;
        }
    }

    /// The next tick of the run, or the first tick a new run could have; `None` while rows are missing for that.
    fn next_tick(&self) -> Option<i64> {
        if self.state.run.is_some() {
            return Some(self.state.tick);
        }
        let mut start = i64::MIN;
        for (layout, state) in self.layout.streams.iter().zip(&self.state.streams) {
            let complete = state.complete_at(layout)?;
            if complete.0 > i64::MIN {
                start = start.max(complete.0.saturating_add(layout.delay_nanos));
            }
        }
        let delta = self.layout.tick_nanos;
        let first = if start == i64::MIN {
            i64::MIN
        } else {
            start.div_euclid(delta) + i64::from(start.rem_euclid(delta) > 0)
        };
        let tick = first.max(self.state.tick);
        (tick > i64::MIN).then_some(tick)
    }

    fn is_closed(&self, index: usize, tick: i64) -> bool {
        let need = (tick + 1) * self.layout.tick_nanos - self.layout.streams[index].delay_nanos;
        self.state.streams[index]
            .watermark
            .is_some_and(|watermark| watermark.0 >= need)
    }

    fn is_ready(&self, tick: i64) -> bool {
        if let Some(decision) = self.state.script.get(&tick) {
            return self
                .layout
                .streams
                .iter()
                .enumerate()
                .all(|(index, layout)| {
                    match decision
                        .waived
                        .iter()
                        .find(|waived| waived.stream == layout.id)
                    {
                        Some(waived) => self.state.streams[index].has_seen(waived.row.as_ref()),
                        None => self.is_closed(index, tick),
                    }
                });
        }
        let all_in = (0..self.layout.streams.len())
            .all(|index| self.state.streams[index].waived || self.is_closed(index, tick));
        self.time_moves(tick) && all_in
    }

    /// When every stream is waived, time itself has stopped: something has to be complete up to the tick's end.
    fn time_moves(&self, tick: i64) -> bool {
        let end = (tick + 1) * self.layout.tick_nanos;
        self.state
            .streams
            .iter()
            .any(|stream| stream.watermark.is_some_and(|watermark| watermark.0 >= end))
    }

    /// Whether a gating stream has been without a row for so long that the run is over.
    fn is_abandoned(&self, tick: i64) -> bool {
        let start = tick * self.layout.tick_nanos;
        let end = start + self.layout.tick_nanos;
        self.layout
            .streams
            .iter()
            .zip(&self.state.streams)
            .any(|(layout, state)| {
                let silent = state.last_time.is_none_or(|last| {
                    start.saturating_sub(last.0) > self.layout.reset_after_nanos
                });
                layout.gating && silent && !state.has_row_before(TaiNanos(end))
            })
    }

    fn end_run(&mut self, tick: i64) {
        self.state.run = None;
        self.state.tick = tick;
        for (layout, state) in self.layout.streams.iter().zip(&mut self.state.streams) {
            if layout.gating {
                state.forget();
            }
        }
    }

    fn run_tick(&mut self, tick: i64) -> Result<TickTrace, NodeError> {
        let delta = self.layout.tick_nanos;
        let (start, end) = (tick * delta, (tick + 1) * delta);
        let decision = self.state.script.remove(&tick);
        self.state.script.retain(|decided, _| *decided > tick);
        let events = match &decision {
            Some(decision) => decision.events.clone(),
            None => std::mem::take(&mut self.state.events),
        };
        let waived: Vec<bool> = self
            .layout
            .streams
            .iter()
            .enumerate()
            .map(|(index, layout)| match &decision {
                Some(decision) => decision
                    .waived
                    .iter()
                    .any(|waived| waived.stream == layout.id),
                None => !self.is_closed(index, tick),
            })
            .collect();
        for (index, state) in self.state.streams.iter_mut().enumerate() {
            state.waived = waived[index];
        }

        self.take_rows_until(start, decision.as_ref());
        if events.contains(&Event::Reset) {
            self.state.run = None;
        }
        for event in &events {
            if let Event::SetParameter { index, value } = event {
                self.state.parameters.insert(*index, *value);
                if self.state.run.is_some() {
                    self.node.set_parameter(*index, *value)?;
                }
            }
        }
        if self.state.run.is_none() {
            self.start_run(tick)?;
        }
        let run = self.state.run.expect("start_run sets the run");
        let at_start = self.state.outputs.clone();

        let mut inputs = self.held_inputs(start);
        let rows = self.take_rows_before(end, decision.as_ref());
        self.add_knots(&mut inputs, &rows);
        let origin_nanos = run.first_tick * delta;
        let plan = TickPlan {
            origin_nanos,
            first_tick: tick,
            ticks: 1,
            tick_nanos: delta,
            inputs,
        };
        let raw = self.node.advance(&plan)?;
        let values = self.publishable(&raw, tick)?;

        self.age_variance(end, &waived);
        let residual = self.residuals(&rows, start, &at_start, &values);
        self.state.outputs = values.clone();
        self.state.tick = tick + 1;
        Ok(TickTrace {
            run: run.id,
            sequence: u64::try_from(tick - run.first_tick).unwrap_or(0),
            tick,
            time: TaiNanos(end),
            values,
            sd: self
                .state
                .variance
                .iter()
                .map(|variance| variance.sqrt())
                .collect(),
            residual,
            frontier: self.frontier(&waived),
            events,
        })
    }

    fn start_run(&mut self, tick: i64) -> Result<(), NodeError> {
        let origin = tick * self.layout.tick_nanos;
        let inputs = self
            .held_inputs(origin)
            .iter()
            .map(|knots| knots.points[0].1)
            .collect();
        let mut starts = Vec::with_capacity(self.layout.starts.len());
        for binding in &self.layout.starts {
            // A required channel: the run could not have found its start without it.
            if let Some(value) = self.state.streams[binding.stream].values[binding.channel] {
                starts.push((binding.index, binding.conversion.apply(value)));
            }
        }
        let mut parameters: BTreeMap<usize, f64> = self.layout.parameters.iter().copied().collect();
        parameters.extend(
            self.state
                .parameters
                .iter()
                .map(|(index, value)| (*index, *value)),
        );
        let plan = StartPlan {
            first_tick: tick,
            tick_nanos: self.layout.tick_nanos,
            inputs,
            starts,
            parameters: parameters.into_iter().collect(),
        };
        let raw = self.node.start(&plan)?;
        self.state.outputs = self.publishable(&raw, tick)?;
        self.state.variance = self
            .layout
            .outputs
            .iter()
            .map(|o| o.uncertainty.start * o.uncertainty.start)
            .collect();
        self.state.run = Some(Run {
            id: run_id(&self.layout.identity, origin),
            first_tick: tick,
        });
        Ok(())
    }

    /// Rows at or before the tick's start are what holds when it starts.
    fn take_rows_until(&mut self, start: i64, decision: Option<&Decision>) {
        for (index, layout) in self.layout.streams.iter().enumerate() {
            let last = last_allowed(decision, &layout.id);
            self.state.streams[index].take(TaiNanos(start - layout.delay_nanos + 1), last, |_| {});
        }
    }

    /// Rows inside the tick, per stream; they become the held values.
    fn take_rows_before(&mut self, end: i64, decision: Option<&Decision>) -> Vec<Vec<Row>> {
        let mut taken = vec![Vec::new(); self.layout.streams.len()];
        for (index, layout) in self.layout.streams.iter().enumerate() {
            let last = last_allowed(decision, &layout.id);
            let rows = &mut taken[index];
            self.state.streams[index].take(TaiNanos(end - layout.delay_nanos), last, |row| {
                rows.push(row.clone())
            });
        }
        taken
    }

    fn held_inputs(&self, at_nanos: i64) -> Vec<Knots> {
        let held = self.layout.inputs.iter().map(|input| {
            let sample = self.state.streams[input.stream].values[input.channel]
                .map(|value| input.conversion.apply(value));
            // An input without a default is required, so one of the two is there.
            let value = sample.or(input.default).unwrap_or(f64::NAN);
            Knots {
                points: vec![(at_nanos, value)],
            }
        });
        held.collect()
    }

    fn add_knots(&self, knots: &mut [Knots], rows: &[Vec<Row>]) {
        for (input, knots) in self.layout.inputs.iter().zip(knots) {
            let delay = self.layout.streams[input.stream].delay_nanos;
            for row in &rows[input.stream] {
                let Some(value) =
                    row.values[input.channel].map(|value| input.conversion.apply(value))
                else {
                    continue;
                };
                let (last_at, last) = knots.points[knots.points.len() - 1];
                let at = row.id.time.0 + delay;
                if last.to_bits() == value.to_bits() {
                    continue; // Not a change, so not a time event either.
                }
                if last_at == at {
                    knots.points.pop();
                }
                knots.points.push((at, value));
            }
        }
    }

    fn publishable(&self, raw: &[f64], tick: i64) -> Result<Vec<f64>, NodeError> {
        let outputs = self.layout.outputs.iter();
        let value = |output: &crate::layout::OutputLayout| {
            let value = output
                .conversion
                .apply(raw.get(output.index).copied().unwrap_or(f64::NAN));
            if value.is_finite() {
                Ok(value)
            } else {
                Err(NodeError::NotFinite {
                    output: output.name.clone(),
                    tick,
                })
            }
        };
        outputs.map(value).collect()
    }

    fn age_variance(&mut self, end: i64, waived: &[bool]) {
        let held = self
            .layout
            .streams
            .iter()
            .enumerate()
            .any(|(index, layout)| {
                let silent = self.state.streams[index]
                    .last_time
                    .is_none_or(|last| end.saturating_sub(last.0) > layout.max_wait_nanos);
                layout.gating && (waived[index] || silent)
            });
        let seconds = self.layout.tick_nanos as f64 / 1e9;
        for (variance, output) in self.state.variance.iter_mut().zip(&self.layout.outputs) {
            *variance = next_variance(*variance, &output.uncertainty, seconds, held);
        }
    }

    /// Measured minus twin, the twin taken at the sample's own time between the tick's two ends.
    fn residuals(
        &self,
        rows: &[Vec<Row>],
        start: i64,
        before: &[f64],
        after: &[f64],
    ) -> Vec<Option<f64>> {
        let residual = |(index, output): (usize, &crate::layout::OutputLayout)| {
            let (stream, channel) = output.measured?;
            let row = rows[stream]
                .iter()
                .rev()
                .find(|row| row.values[channel].is_some())?;
            let part = (row.id.time.0 - start) as f64 / self.layout.tick_nanos as f64;
            let twin = before[index] + (after[index] - before[index]) * part;
            row.values[channel].map(|measured| measured - twin)
        };
        self.layout
            .outputs
            .iter()
            .enumerate()
            .map(residual)
            .collect()
    }

    fn frontier(&self, waived: &[bool]) -> Vec<Frontier> {
        let streams = self
            .layout
            .streams
            .iter()
            .zip(&self.state.streams)
            .zip(waived);
        streams
            .map(|((layout, state), waived)| Frontier {
                stream: layout.id.clone(),
                row: state.last.clone(),
                waived: *waived,
            })
            .collect()
    }
}

/// The last row a repeated tick may use of a stream that was not waited for.
fn last_allowed<'a>(
    decision: Option<&'a Decision>,
    stream: &StreamId,
) -> Option<Option<&'a RowId>> {
    let waived = decision?
        .waived
        .iter()
        .find(|waived| &waived.stream == stream)?;
    Some(waived.row.as_ref())
}

/// One step of the variance of the model error; see [`crate::graph::Uncertainty`].
pub(crate) fn next_variance(
    variance: f64,
    u: &crate::graph::Uncertainty,
    seconds: f64,
    held: bool,
) -> f64 {
    // Never past the settled value, however long the step is beside the time constant.
    let part = (2.0 * seconds / u.settle_s).min(1.0);
    let settled = variance + (u.live * u.live - variance) * part;
    if held {
        settled + u.held_per_sqrt_s * u.held_per_sqrt_s * seconds
    } else {
        settled
    }
}

/// A run's id follows from the graph, the model and the origin alone, so that a repeated run repeats it.
fn run_id(identity: &[u8; 32], origin: i64) -> BootId {
    let hash = Sha256::new()
        .chain_update(b"orrery run\0")
        .chain_update(identity)
        .chain_update(origin.to_le_bytes())
        .finalize();
    let mut random = [0u8; 10];
    random.copy_from_slice(&hash[..10]);
    BootId::new(TaiNanos(origin), random)
}
