//! From samples to rows on the reference timeline, and up to where a stream is complete.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use orrery_protocol::{AlignedBlock, AlignedError, BootId, SampleBlock, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::clocks::{Maps, Place};

/// Blocks whose delay and disorder bound how late the next one may be stamped.
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
    /// Rows whose stamp is not believed: they stand where they were received.
    pub implausible: u64,
}

/// Aligns a block: by the device's own stamp where there is one that is believed, else by reception. `believed` has one
/// entry for each row with a stamp. Regular timing is left as received.
///
/// # Errors
/// [`AlignedError`] when columns do not fit together, which a decoded block's do.
pub fn align(
    block: &SampleBlock,
    place: Place,
    maps: &Maps<'_>,
    believed: &[bool],
) -> Result<AlignedRows, AlignedError> {
    let rows = block.len();
    let mut times = Vec::with_capacity(rows);
    let mut uncertainties = Vec::with_capacity(rows);
    let (mut asymmetry_nanos, mut delay_nanos, mut implausible) = (0, 0, 0);
    let mut believed = believed.iter();
    for row in 0..rows {
        let by_host = maps.reference_from_mono(block.received(row));
        let stamped = block
            .device_time(row)
            .and_then(|stamp| Some((maps.reference_from_device(stamp)?, believed.next()? == &true)));
        let aligned = match stamped {
            Some((stamped, true)) => stamped,
            Some((stamped, false)) => {
                implausible += 1;
                by_host.instead_of(stamped)
            }
            None => by_host,
        };
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
        .skip(SampleBlock::KEY_COLUMNS.len())
        .map(|(field, column)| (field.clone(), column.clone()))
        .collect();
    let batch = keyed_batch(&times, uncertainties, place, channels)?;
    Ok(AlignedRows {
        batch,
        times,
        asymmetry_nanos,
        delay_nanos,
        implausible,
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
    delays: VecDeque<i64>,
    /// Per block, the furthest any row stood behind one before it: stamps may come out of order.
    #[serde(default)]
    disorders: VecDeque<i64>,
}

impl Default for Watermark {
    fn default() -> Self {
        let start = TaiNanos(i64::MIN);
        Self {
            value: start,
            wanted: start,
            latest: start,
            delays: VecDeque::new(),
            disorders: VecDeque::new(),
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
        let (mut late, mut disorder) = (0, 0);
        for &time in times {
            late += u64::from(time < self.value.0);
            if self.latest.0 != i64::MIN {
                disorder = disorder.max(self.latest.0.saturating_sub(time));
            }
            self.latest = self.latest.max(TaiNanos(time));
        }
        push(&mut self.delays, delay_nanos);
        push(&mut self.disorders, disorder);
        self.want(TaiNanos(self.latest.0.saturating_sub(most(&self.disorders))));
        late
    }

    /// Takes in "everything received before this has been delivered", with the uncertainty of that instant.
    ///
    /// A stamping device's next row may be stamped earlier than received, by as much as rows before it were.
    pub fn complete_until(&mut self, received: TaiNanos, uncertainty_nanos: i64) {
        let delay = most(&self.delays);
        let margin = delay
            .saturating_add(delay / 4)
            .saturating_add(uncertainty_nanos.saturating_mul(3));
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

fn push(window: &mut VecDeque<i64>, value: i64) {
    if window.len() == DELAYS {
        window.pop_front();
    }
    window.push_back(value);
}

/// The greatest value of a window, at least zero.
fn most(window: &VecDeque<i64>) -> i64 {
    window.iter().copied().max().unwrap_or(0).max(0)
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
