//! What a graph keeps of one stream: rows not yet used, values that hold, and how far the stream is complete.

use std::collections::VecDeque;

use orrery_protocol::{BootId, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::layout::StreamLayout;

/// Rows a stream may have waiting; beyond it the oldest are taken up early and counted as late.
const MOST_PENDING: usize = 1 << 18;

/// Where a row stands in its stream; ordered as the merge orders rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowId {
    /// Aligned time.
    pub time: TaiNanos,
    /// The boot it belongs to.
    pub boot: BootId,
    /// The envelope.
    pub sequence: u64,
    /// The row in the envelope.
    pub index: u32,
    /// The revision that holds it; not part of its place, and the same for every copy of it.
    pub revision: u64,
}

/// A row's bound channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Where it stands.
    pub id: RowId,
    /// One value per bound channel; absent values hold the one before.
    pub values: Vec<Option<f64>>,
}

/// A stream as a graph sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// Complete below this time.
    pub watermark: Option<TaiNanos>,
    /// The last row used.
    pub last: Option<RowId>,
    /// Its time; cleared with the values when a run ends.
    pub last_time: Option<TaiNanos>,
    /// The value of each bound channel that holds now.
    pub values: Vec<Option<f64>>,
    /// When each of them was measured: where a line to the next one starts.
    pub measured: Vec<Option<TaiNanos>>,
    /// Not waited for until it is complete again.
    pub waived: bool,
    /// Rows that came below the watermark or behind a row already used.
    pub late: u64,
    pending: VecDeque<Row>,
}

impl StreamState {
    /// A stream that has said nothing.
    pub fn new(channels: usize) -> Self {
        Self {
            watermark: None,
            last: None,
            last_time: None,
            values: vec![None; channels],
            measured: vec![None; channels],
            waived: false,
            late: 0,
            pending: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, rows: Vec<Row>, watermark: TaiNanos) -> u64 {
        let late_before = self.late;
        for row in rows {
            let behind = self.watermark.is_some_and(|watermark| row.id.time < watermark)
                || self.last.as_ref().is_some_and(|last| row.id.place() <= last.place());
            if behind {
                // A copy of a row already used is what at-least-once delivery looks like; it is not late.
                let copy = self.last.as_ref().is_some_and(|last| row.id.place() == last.place());
                self.late += u64::from(!copy);
                continue;
            }
            let at = self.pending.partition_point(|other| other.id.place() < row.id.place());
            if self
                .pending
                .get(at)
                .is_some_and(|other| other.id.place() == row.id.place())
            {
                continue;
            }
            self.pending.insert(at, row);
        }
        self.watermark = self.watermark.max(Some(watermark));
        while self.pending.len() > MOST_PENDING {
            self.late += 1;
            self.take_front();
        }
        self.late - late_before
    }

    /// When every required channel has a value: the start of time if it holds already, `None` if it cannot be said yet.
    pub(crate) fn complete_at(&self, layout: &StreamLayout) -> Option<TaiNanos> {
        let mut have: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let done = |have: &[bool]| {
            have.iter()
                .zip(&layout.required)
                .all(|(have, required)| *have || !*required)
        };
        // A gating stream without a required channel still has to show one row.
        let seen = !layout.gating || self.last_time.is_some();
        if seen && done(&have) {
            return Some(TaiNanos(i64::MIN));
        }
        for row in &self.pending {
            for (have, value) in have.iter_mut().zip(&row.values) {
                *have |= value.is_some();
            }
            if done(&have) {
                return Some(row.id.time);
            }
        }
        None
    }

    /// Whether every row before `end` is in, and of each interpolated channel also the first value from `end` on.
    pub(crate) fn is_complete_before(&self, end: TaiNanos, interpolated: &[bool]) -> bool {
        let is_in = self.watermark.is_some_and(|watermark| watermark >= end);
        let has_next = |(channel, wanted): (usize, &bool)| !wanted || self.next_value(channel, end).is_some();
        is_in && interpolated.iter().enumerate().all(has_next)
    }

    /// The first value of a channel from `from` on, once nothing can come before it any more.
    pub(crate) fn next_value(&self, channel: usize, from: TaiNanos) -> Option<(TaiNanos, f64)> {
        let first = self.pending.partition_point(|row| row.id.time < from);
        let final_rows = (self.pending.range(first..)).take_while(|row| Some(row.id.time) < self.watermark);
        let mut values = final_rows.filter_map(|row| Some((row.id.time, row.values[channel]?)));
        values.next()
    }

    pub(crate) fn has_row_before(&self, end: TaiNanos) -> bool {
        self.pending.front().is_some_and(|row| row.id.time < end)
    }

    /// Whether the row has arrived, used or not; nothing has always arrived.
    pub(crate) fn has_seen(&self, row: Option<&RowId>) -> bool {
        let Some(row) = row else { return true };
        let used = self.last.as_ref().is_some_and(|last| last.place() >= row.place());
        // A later row that waits says that this one is not coming any more.
        used || self
            .pending
            .back()
            .is_some_and(|pending| pending.id.place() >= row.place())
    }

    /// Takes the rows before `end` into the held values, up to `last` where that is given.
    pub(crate) fn take(&mut self, end: TaiNanos, last: Option<Option<&RowId>>, mut each: impl FnMut(&Row)) {
        while let Some(front) = self.pending.front() {
            let beyond = last.is_some_and(|last| last.is_none_or(|last| front.id.place() > last.place()));
            if front.id.time >= end || beyond {
                return;
            }
            each(front);
            self.take_front();
        }
    }

    fn take_front(&mut self) {
        let Some(row) = self.pending.pop_front() else {
            return;
        };
        for ((held, measured), value) in self.values.iter_mut().zip(&mut self.measured).zip(&row.values) {
            if value.is_some() {
                (*held, *measured) = (*value, Some(row.id.time));
            }
        }
        self.last_time = Some(row.id.time);
        self.last = Some(row.id);
    }

    /// Forgets the values that hold, so that a new run starts from new rows.
    pub(crate) fn forget(&mut self) {
        self.values.fill(None);
        self.measured.fill(None);
        self.last_time = None;
    }
}

impl RowId {
    fn place(&self) -> (TaiNanos, BootId, u64, u32) {
        (self.time, self.boot, self.sequence, self.index)
    }
}
