//! From samples to rows on the reference timeline, and up to where a stream is complete.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use orrery_protocol::{AlignedBlock, AlignedError, BootId, SampleBlock, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::clocks::{Maps, Place};

/// Blocks whose delay bounds how late the next one may be stamped.
const DELAYS: usize = 64;

/// A block's rows with their place in time.
#[derive(Debug)]
pub struct AlignedRows {
    /// In aligned layout, in the order of the block.
    pub batch: RecordBatch,
    /// The aligned times.
    pub times: Vec<i64>,
    /// The asymmetry bound.
    pub asymmetry_nanos: i64,
    /// How much later than its aligned time a row was received, at most.
    pub delay_nanos: i64,
}

/// Aligns a block: by the device's own stamp where there is one, else by reception. Regular timing is left as received.
///
/// # Errors
/// [`AlignedError`] when columns do not fit together, which a decoded block's do.
pub fn align(block: &SampleBlock, place: Place, maps: &Maps<'_>) -> Result<AlignedRows, AlignedError> {
    let rows = block.len();
    let mut times = Vec::with_capacity(rows);
    let mut uncertainties = Vec::with_capacity(rows);
    let (mut asymmetry_nanos, mut delay_nanos) = (0, 0);
    for row in 0..rows {
        let by_host = maps.reference_from_mono(block.received(row));
        let stamped = block
            .device_time(row)
            .and_then(|stamp| maps.reference_from_device(stamp));
        let aligned = stamped.unwrap_or(by_host);
        times.push(aligned.time.0);
        uncertainties.push(aligned.uncertainty_nanos);
        asymmetry_nanos = asymmetry_nanos.max(aligned.asymmetry_nanos);
        delay_nanos = delay_nanos.max(by_host.time.nanos_since(aligned.time));
    }
    let schema = block.batch.schema();
    let channels = schema
        .fields()
        .iter()
        .zip(block.batch.columns())
        .filter(|(field, _)| field.name() != "device_time" && field.name() != "received")
        .map(|(field, column)| (field.clone(), column.clone()))
        .collect();
    let batch = keyed_batch(&times, uncertainties, place, channels)?;
    Ok(AlignedRows {
        batch,
        times,
        asymmetry_nanos,
        delay_nanos,
    })
}

/// Rows of one envelope in aligned layout.
///
/// # Errors
/// [`AlignedError`] when lengths differ.
pub fn keyed_batch(
    times: &[i64],
    uncertainties: Vec<i64>,
    place: Place,
    channels: Vec<(FieldRef, ArrayRef)>,
) -> Result<RecordBatch, AlignedError> {
    let rows = times.len();
    let indexes = (0..rows as u32).collect();
    AlignedBlock::batch(
        times.to_vec(),
        uncertainties,
        place.boot,
        vec![place.sequence; rows],
        indexes,
        channels,
    )
}

/// Up to where a stream is complete: below it, nothing undelivered remains as far as its device has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    value: TaiNanos,
    /// What it would be, were no hole holding it back.
    wanted: TaiNanos,
    latest: TaiNanos,
    /// The furthest any row stood behind one before it: stamps may come out of order.
    disorder_nanos: i64,
    delays: VecDeque<i64>,
}

impl Default for Watermark {
    fn default() -> Self {
        let start = TaiNanos(i64::MIN);
        Self {
            value: start,
            wanted: start,
            latest: start,
            disorder_nanos: 0,
            delays: VecDeque::new(),
        }
    }
}

impl Watermark {
    /// The watermark.
    pub fn value(&self) -> TaiNanos {
        self.value
    }

    /// The latest row's time; none before the first row.
    pub fn latest(&self) -> Option<TaiNanos> {
        (self.latest.0 != i64::MIN).then_some(self.latest)
    }

    /// Takes in rows; says how many of them came too late for what was promised.
    pub fn rows(&mut self, times: &[i64], delay_nanos: i64) -> u64 {
        let mut late = 0;
        for &time in times {
            late += u64::from(time < self.value.0);
            if self.latest.0 != i64::MIN {
                self.disorder_nanos = self.disorder_nanos.max(self.latest.0.saturating_sub(time));
            }
            self.latest = self.latest.max(TaiNanos(time));
        }
        if self.delays.len() == DELAYS {
            self.delays.pop_front();
        }
        self.delays.push_back(delay_nanos);
        self.want(TaiNanos(self.latest.0.saturating_sub(self.disorder_nanos)));
        late
    }

    /// Takes in "everything received before this has been delivered", with the uncertainty of that instant.
    ///
    /// A stamping device's next row may be stamped earlier than received, by as much as rows before it were.
    pub fn complete_until(&mut self, received: TaiNanos, uncertainty_nanos: i64) {
        let delay = self.delays.iter().copied().max().unwrap_or(0).max(0);
        let margin = (delay + delay / 4).saturating_add(uncertainty_nanos.saturating_mul(3));
        self.want(TaiNanos(received.0.saturating_sub(margin)));
    }

    fn want(&mut self, wanted: TaiNanos) {
        self.wanted = self.wanted.max(wanted);
    }

    /// Moves on to what it would be, unless a hole holds it; says whether it moved.
    pub fn settle(&mut self, held: bool) -> bool {
        let moves = !held && self.wanted > self.value;
        if moves {
            self.value = self.wanted;
        }
        moves
    }
}

/// A row's place in its stream, for telling a trace's repeats from its news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TracePlace {
    /// Aligned time.
    pub time: TaiNanos,
    /// The run.
    pub boot: BootId,
    /// The step.
    pub sequence: u64,
    /// The row within it.
    pub index: u32,
}
