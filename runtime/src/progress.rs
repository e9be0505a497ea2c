//! Progress: the ordered log in, ticks out. Pure: no clock, no bus, no arrival time.
//!
//! A tick `[k·Δ, (k+1)·Δ)` runs when every stream is complete for it. Each stream is read in its own order, so how
//! streams interleave on the bus, and how rows are cut into blocks, changes nothing. The one decision that comes
//! from outside, to stop waiting for a stream ([`Progress::waive`]), is written into the tick's trace together
//! with the last row used, and [`Progress::follow`] repeats it.

mod run;
mod state;

use std::collections::BTreeMap;

use orrery_protocol::{StreamId, TaiNanos};

use crate::error::NodeError;
use crate::inputs::{Row, StreamState};
use crate::layout::{Layout, StreamLayout};
use crate::node::Node;
use crate::trace::{Decision, TickTrace};

pub(crate) use run::next_variance;
pub use state::{Blocked, Event, Run, State, Vantage};

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
            ended: false,
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
        Self { layout, node, state }
    }

    /// Progress as a snapshot left it.
    ///
    /// # Errors
    /// [`NodeError::State`] when the snapshot is of another graph.
    pub fn restore(layout: Layout, mut node: N, state: State, node_state: Option<&[u8]>) -> Result<Self, NodeError> {
        let fits = state.streams.len() == layout.streams.len()
            && state
                .streams
                .iter()
                .zip(&layout.streams)
                .all(|(state, layout)| [state.values.len(), state.measured.len()] == [layout.channels.len(); 2])
            && state.run.is_some() == node_state.is_some();
        if !fits {
            return Err(NodeError::State("it has other streams".to_owned()));
        }
        if let Some(bytes) = node_state {
            node.restore(bytes)?;
        }
        Ok(Self { layout, node, state })
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
            .inputs_from(at.0)
            .iter()
            .map(|knots| knots.value_at(at.0))
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

    /// Asks something of the run; it applies at the next tick. What is asked again replaces what was asked before.
    pub fn request(&mut self, event: Event) {
        self.state.events.retain(|asked| !asked.is_replaced_by(&event));
        self.state.events.push(event);
    }

    /// Gives the run up after its node failed; [`Progress::with_node`] has to follow before the next tick.
    pub fn give_up(&mut self) {
        self.state.run = None;
        self.state.tick = self.state.tick.saturating_add(1);
    }

    /// Between runs, passes over what has happened by now: its rows hold, and no tick covers them.
    pub fn pass_over(&mut self) {
        // Other streams may run ahead by their delay. A watermark at the start of time says nothing.
        let reached = |(layout, state): (&StreamLayout, &StreamState)| {
            let watermark = state.watermark.filter(|_| layout.gating)?;
            (watermark.0 > i64::MIN / 2).then_some(watermark.0)
        };
        let streams = self.layout.streams.iter().zip(&self.state.streams);
        if let Some(newest) = streams.filter_map(reached).max() {
            self.state.tick = self.state.tick.max(newest.div_euclid(self.layout.tick_nanos));
            self.take_rows_until(self.state.tick * self.layout.tick_nanos, None);
        }
    }

    /// The same progress between runs with another node.
    #[must_use]
    pub fn with_node(self, node: N) -> Self {
        Self { node, ..self }
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
        let streams = streams.map(|index| self.layout.streams[index].id.clone()).collect();
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
            let over = match self.state.script.get(&tick) {
                Some(decision) => decision.after_silence,
                None => self.is_abandoned(tick),
            };
            if self.state.run.is_some() && over {
                self.end_run(tick);
                continue;
            }
            return self.run_tick(tick).map(Some);
        }
    }

    /// A tick before the first decided one did not run the first time either: there, the run had ended in silence, or
    /// had failed and was reset. After a silence a run starts from new rows alone, after a reset from all there are.
    fn skip_to_script(&mut self) {
        let Some((&first, decision)) = self.state.script.first_key_value() else {
            return;
        };
        if first > self.state.tick {
            if self.state.run.is_some() && decision.after_silence {
                self.end_run(first);
            }
            self.state.run = None;
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
        let layout = &self.layout.streams[index];
        let end = TaiNanos((tick + 1) * self.layout.tick_nanos - layout.delay_nanos);
        self.state.streams[index].is_complete_before(end, &layout.interpolated)
    }

    fn is_ready(&self, tick: i64) -> bool {
        if let Some(decision) = self.state.script.get(&tick) {
            return self.layout.streams.iter().enumerate().all(|(index, layout)| {
                match decision.waived.iter().find(|waived| waived.stream == layout.id) {
                    Some(waived) => self.state.streams[index].has_seen(waived.row.as_ref()),
                    None => self.is_closed(index, tick),
                }
            });
        }
        let all_in =
            (0..self.layout.streams.len()).all(|index| self.state.streams[index].waived || self.is_closed(index, tick));
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
                let silent = state
                    .last_time
                    .is_none_or(|last| start.saturating_sub(last.0) > self.layout.reset_after_nanos);
                layout.gating && silent && !state.has_row_before(TaiNanos(end))
            })
    }

    fn end_run(&mut self, tick: i64) {
        self.state.run = None;
        self.state.ended = true;
        self.state.tick = tick;
        for (layout, state) in self.layout.streams.iter().zip(&mut self.state.streams) {
            if layout.gating {
                state.forget();
            }
        }
    }
}
