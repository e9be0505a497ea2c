//! One tick: rows become input tables, the node advances, the trace says from what.

use std::collections::BTreeMap;

use orrery_protocol::{BootId, StreamId, TaiNanos};
use sha2::{Digest as _, Sha256};

use super::{Event, Progress, Run};
use crate::error::NodeError;
use crate::inputs::{Row, RowId};
use crate::node::{Knots, Node, StartPlan, TickPlan};
use crate::trace::{Decision, Frontier, TickTrace};

impl<N: Node> Progress<N> {
    pub(super) fn run_tick(&mut self, tick: i64) -> Result<TickTrace, NodeError> {
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
                Some(decision) => decision.waived.iter().any(|waived| waived.stream == layout.id),
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
        let after_silence = self.state.run.is_none() && std::mem::take(&mut self.state.ended);
        if self.state.run.is_none() {
            self.start_run(tick, &waived)?;
        }
        let run = self.state.run.expect("start_run sets the run");
        let at_start = self.state.outputs.clone();

        let mut inputs = self.inputs_from(start);
        let rows = self.take_rows_before(end, decision.as_ref());
        self.add_knots(&mut inputs, &rows);
        self.add_knots_beyond(&mut inputs, end, &waived);
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
            sd: self.state.variance.iter().map(|variance| variance.sqrt()).collect(),
            residual,
            frontier: self.frontier(&waived),
            events,
            after_silence,
        })
    }

    fn start_run(&mut self, tick: i64, waived: &[bool]) -> Result<(), NodeError> {
        let origin = tick * self.layout.tick_nanos;
        let mut inputs = self.inputs_from(origin);
        self.add_knots_beyond(&mut inputs, origin, waived);
        let inputs = inputs.iter().map(|knots| knots.value_at(origin)).collect();
        let mut starts = Vec::with_capacity(self.layout.starts.len());
        for binding in &self.layout.starts {
            // A required channel: the run could not have found its start without it.
            if let Some(value) = self.state.streams[binding.stream].values[binding.channel] {
                starts.push((binding.index, binding.conversion.apply(value)));
            }
        }
        let mut parameters: BTreeMap<usize, f64> = self.layout.parameters.iter().copied().collect();
        parameters.extend(self.state.parameters.iter().map(|(index, value)| (*index, *value)));
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
    pub(super) fn take_rows_until(&mut self, start: i64, decision: Option<&Decision>) {
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
            self.state.streams[index].take(TaiNanos(end - layout.delay_nanos), last, |row| rows.push(row.clone()));
        }
        taken
    }

    /// The course of each input so far: what holds at an instant, or the sample from which a line goes on.
    pub(super) fn inputs_from(&self, at_nanos: i64) -> Vec<Knots> {
        let course = self.layout.inputs.iter().map(|input| {
            let state = &self.state.streams[input.stream];
            let sample = state.values[input.channel].map(|value| input.conversion.apply(value));
            // An input without a default is required, so one of the two is there.
            let value = sample.or(input.default).unwrap_or(f64::NAN);
            match state.measured[input.channel].filter(|_| input.linear) {
                Some(measured) => {
                    let delay = self.layout.streams[input.stream].delay_nanos;
                    Knots {
                        points: vec![((measured.0 + delay).min(at_nanos), value)],
                        linear: true,
                    }
                }
                None => Knots::held(at_nanos, value),
            }
        });
        course.collect()
    }

    /// The first sample at or after the tick's end, for the line that crosses it. A stream that was not waited for has
    /// none, so its last value holds.
    fn add_knots_beyond(&self, knots: &mut [Knots], end: i64, waived: &[bool]) {
        for (input, knots) in self.layout.inputs.iter().zip(knots) {
            let delay = self.layout.streams[input.stream].delay_nanos;
            if !knots.linear || waived[input.stream] {
                continue;
            }
            let next = self.state.streams[input.stream].next_value(input.channel, TaiNanos(end - delay));
            if let Some((at, value)) = next {
                knots.push(at.0 + delay, input.conversion.apply(value));
            }
        }
    }

    fn add_knots(&self, knots: &mut [Knots], rows: &[Vec<Row>]) {
        for (input, knots) in self.layout.inputs.iter().zip(knots) {
            let delay = self.layout.streams[input.stream].delay_nanos;
            for row in &rows[input.stream] {
                let Some(value) = row.values[input.channel].map(|value| input.conversion.apply(value)) else {
                    continue;
                };
                let unchanged = knots
                    .points
                    .last()
                    .is_some_and(|(_, last)| last.to_bits() == value.to_bits());
                // What holds and does not change is no time event; a line may still bend there.
                if knots.linear || !unchanged {
                    knots.push(row.id.time.0 + delay, value);
                }
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
        let held = self.layout.streams.iter().enumerate().any(|(index, layout)| {
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
    fn residuals(&self, rows: &[Vec<Row>], start: i64, before: &[f64], after: &[f64]) -> Vec<Option<f64>> {
        let residual = |(index, output): (usize, &crate::layout::OutputLayout)| {
            let (stream, channel) = output.measured?;
            let row = rows[stream].iter().rev().find(|row| row.values[channel].is_some())?;
            let part = (row.id.time.0 - start) as f64 / self.layout.tick_nanos as f64;
            let twin = before[index] + (after[index] - before[index]) * part;
            row.values[channel].map(|measured| measured - twin)
        };
        self.layout.outputs.iter().enumerate().map(residual).collect()
    }

    fn frontier(&self, waived: &[bool]) -> Vec<Frontier> {
        let streams = self.layout.streams.iter().zip(&self.state.streams).zip(waived);
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
fn last_allowed<'a>(decision: Option<&'a Decision>, stream: &StreamId) -> Option<Option<&'a RowId>> {
    let waived = decision?.waived.iter().find(|waived| &waived.stream == stream)?;
    Some(waived.row.as_ref())
}

/// One step of the variance of the model error; see [`crate::graph::Uncertainty`].
pub(crate) fn next_variance(variance: f64, u: &crate::graph::Uncertainty, seconds: f64, held: bool) -> f64 {
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
