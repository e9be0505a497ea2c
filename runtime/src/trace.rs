//! The trace of a graph: one row a tick, with the input frontier it used, as blocks of the graph's output stream.
//!
//! A block holds one row, so that its bytes do not depend on how ticks were batched. The frontier travels in the
//! schema metadata `orrery.frontier`, one entry a stream, separated by spaces: `stream=time/boot/sequence/index/revision`,
//! `stream=-` before its first row, with a trailing `!` where the tick did not wait for the stream. Events stand in
//! `orrery.events` as JSON, absent when there were none; `orrery.after_silence`
//! marks the first tick of a run after one that ended for want of rows; `orrery.graph` is the digest of graph and model.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::{DataType, Field, FieldRef};
use orrery_protocol::{AlignedBlock, AlignedError, BootId, Channel, Descriptor, Digest, StreamId, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::inputs::RowId;
use crate::layout::Layout;
use crate::progress::Event;

const FRONTIER: &str = "orrery.frontier";
const EVENTS: &str = "orrery.events";
const AFTER_SILENCE: &str = "orrery.after_silence";
const IDENTITY: &str = "orrery.graph";

/// What a tick computed, and from what.
#[derive(Debug, Clone, PartialEq)]
pub struct TickTrace {
    /// The run it belongs to.
    pub run: BootId,
    /// Its number in the run.
    pub sequence: u64,
    /// The tick, counted from 1970.
    pub tick: i64,
    /// Its end: the time of the values.
    pub time: TaiNanos,
    /// One value per output.
    pub values: Vec<f64>,
    /// Standard uncertainty of each.
    pub sd: Vec<f64>,
    /// Measured minus computed, where a sample fell into the tick.
    pub residual: Vec<Option<f64>>,
    /// The last row used of each stream.
    pub frontier: Vec<Frontier>,
    /// What was asked of the run at this tick.
    pub events: Vec<Event>,
    /// The first tick of a run that follows one that ended in silence.
    pub after_silence: bool,
}

/// How far a tick had read a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontier {
    /// The stream.
    pub stream: StreamId,
    /// The last row used; none before its first.
    pub row: Option<RowId>,
    /// The tick did not wait for this stream.
    pub waived: bool,
}

/// What a published tick decided that its inputs alone do not say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Decision {
    /// The streams it did not wait for, with the last row it had of each.
    pub waived: Vec<WaivedStream>,
    /// What was asked of the run.
    pub events: Vec<Event>,
    /// It started a new run because the one before had ended in silence.
    pub after_silence: bool,
}

/// A stream that a tick did not wait for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaivedStream {
    /// The stream.
    pub stream: StreamId,
    /// The last row used.
    pub row: Option<RowId>,
}

/// Turns ticks into blocks of one graph's output stream.
#[derive(Debug, Clone)]
pub struct TraceWriter {
    descriptor: Descriptor,
    digest: Digest,
    fields: Vec<FieldRef>,
    /// The outputs that have a measured partner: only they have a residual.
    compared: Vec<usize>,
    identity: Digest,
}

impl TraceWriter {
    /// A writer for the graph.
    pub fn new(graph: &Graph, layout: &Layout) -> Self {
        let mut channels = Vec::new();
        for output in &layout.outputs {
            let title = graph
                .outputs
                .get(&output.name)
                .and_then(|binding| binding.title.clone());
            channels.push(Channel {
                title,
                ..Channel::f64(&output.name, &output.unit)
            });
        }
        for output in &layout.outputs {
            channels.push(Channel::f64(&format!("{}_sd", output.name), &output.unit));
        }
        let compared: Vec<usize> = (0..layout.outputs.len())
            .filter(|at| layout.outputs[*at].measured.is_some())
            .collect();
        for output in compared.iter().map(|at| &layout.outputs[*at]) {
            channels.push(Channel::f64(&format!("{}_residual", output.name), &output.unit));
        }
        let fields = channels
            .iter()
            .map(|channel| -> FieldRef { Arc::new(Field::new(&channel.name, DataType::Float64, true)) })
            .collect();
        let descriptor = Descriptor {
            stream: graph.output_stream(),
            version: 1,
            title: graph.title.clone(),
            protocol: "graph".to_owned(),
            channels,
            nominal_rate_hz: Some(1000.0 / f64::from(graph.tick_ms)),
            droppable: false,
            max_silence_ms: None,
            calibration: None,
        };
        let digest = descriptor.digest();
        Self {
            descriptor,
            digest,
            fields,
            compared,
            identity: Digest(layout.identity),
        }
    }

    /// What the stream looks like.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The block of one tick. The revision is 0: whoever stores the trace commits it.
    ///
    /// # Errors
    /// [`AlignedError`] when the columns do not fit together.
    pub fn block(&self, trace: &TickTrace) -> Result<AlignedBlock, AlignedError> {
        let computed = trace.values.iter().chain(&trace.sd).copied().map(Some);
        let compared = self
            .compared
            .iter()
            .map(|at| trace.residual.get(*at).copied().flatten());
        let all: Vec<Option<f64>> = computed.chain(compared).collect();
        let column = |value: &Option<f64>| -> ArrayRef { Arc::new(Float64Array::from(vec![*value])) };
        let channels = self.fields.iter().cloned().zip(all.iter().map(column)).collect();
        let batch = AlignedBlock::batch(
            vec![trace.time.0],
            vec![0],
            trace.run,
            vec![trace.sequence],
            vec![0],
            channels,
        )?;
        Ok(AlignedBlock {
            stream: self.descriptor.stream.clone(),
            descriptor: self.digest,
            revision: 0,
            watermark: TaiNanos(trace.time.0 + 1),
            asymmetry_nanos: 0,
            extra: trace.extra(&self.identity),
            batch,
        })
    }
}

impl TickTrace {
    fn extra(&self, identity: &Digest) -> BTreeMap<String, String> {
        let frontier: Vec<String> = self.frontier.iter().map(ToString::to_string).collect();
        let mut extra = BTreeMap::from([
            (FRONTIER.to_owned(), frontier.join(" ")),
            (IDENTITY.to_owned(), identity.to_string()),
        ]);
        if self.after_silence {
            extra.insert(AFTER_SILENCE.to_owned(), "1".to_owned());
        }
        if !self.events.is_empty() {
            let events = serde_json::to_string(&self.events).expect("events of finite numbers always encode");
            extra.insert(EVENTS.to_owned(), events);
        }
        extra
    }
}

impl std::fmt::Display for Frontier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=", self.stream)?;
        match &self.row {
            Some(row) => write!(
                f,
                "{}/{}/{}/{}/{}",
                row.time.0, row.boot, row.sequence, row.index, row.revision
            )?,
            None => f.write_str("-")?,
        }
        f.write_str(if self.waived { "!" } else { "" })
    }
}

/// The tick of a published block and what was decided for it; `None` when it is not a trace of this graph and model.
pub fn decision_of(block: &AlignedBlock, layout: &Layout) -> Option<(i64, Decision)> {
    if block.len() != 1 || block.extra.get(IDENTITY)? != &Digest(layout.identity).to_string() {
        return None;
    }
    let tick = block.time(0).0.div_euclid(layout.tick_nanos) - 1;
    let frontier = block.extra.get(FRONTIER)?;
    let mut waived = Vec::new();
    for entry in frontier.split(' ').filter(|entry| entry.ends_with('!')) {
        let (stream, row) = entry.trim_end_matches('!').split_once('=')?;
        waived.push(WaivedStream {
            stream: StreamId::new(stream).ok()?,
            row: parse_row(row)?,
        });
    }
    let events = match block.extra.get(EVENTS) {
        Some(events) => serde_json::from_str(events).ok()?,
        None => Vec::new(),
    };
    let after_silence = block.extra.contains_key(AFTER_SILENCE);
    Some((
        tick,
        Decision {
            waived,
            events,
            after_silence,
        },
    ))
}

fn parse_row(text: &str) -> Option<Option<RowId>> {
    if text == "-" {
        return Some(None);
    }
    let mut parts = text.split('/');
    let row = RowId {
        time: TaiNanos(parts.next()?.parse().ok()?),
        boot: parts.next()?.parse().ok()?,
        sequence: parts.next()?.parse().ok()?,
        index: parts.next()?.parse().ok()?,
        revision: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(Some(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontier_reads_back() {
        let row = RowId {
            time: TaiNanos(5),
            boot: BootId([7; 16]),
            sequence: 8,
            index: 9,
            revision: 3,
        };
        let frontier = Frontier {
            stream: StreamId::new("a/b").unwrap(),
            row: Some(row.clone()),
            waived: true,
        };
        let text = frontier.to_string();
        let (_, encoded) = text.trim_end_matches('!').split_once('=').unwrap();
        assert_eq!(parse_row(encoded), Some(Some(row)));
        assert_eq!(parse_row("-"), Some(None));
        assert_eq!(parse_row("1/2"), None);
    }
}
