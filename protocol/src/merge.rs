//! The one merge: rows of several streams in the total order `(aligned time, stream, boot, sequence, index)`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::{AlignedBlock, BootId, StreamId, TaiNanos};

/// A row's place in the total order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Aligned time.
    pub time: TaiNanos,
    /// The stream, compared as text.
    pub stream: StreamId,
    /// The boot, compared as bytes.
    pub boot: BootId,
    /// The envelope's sequence.
    pub sequence: u64,
    /// The row within its envelope.
    pub index: u32,
}

/// A row that left the merge: a place in a shared block.
#[derive(Debug, Clone)]
pub struct MergedRow {
    /// Its place in the total order.
    pub key: RowKey,
    /// The block that holds it.
    pub block: Arc<AlignedBlock>,
    /// The row in the block.
    pub row: usize,
}

/// Merges live streams. A row leaves once every named stream is complete up to its time.
#[derive(Debug)]
pub struct Merge {
    watermarks: BTreeMap<StreamId, TaiNanos>,
    waiting: BinaryHeap<Reverse<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    key: RowKey,
    block: Arc<AlignedBlock>,
    row: usize,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Merge {
    /// A merge of exactly these streams.
    pub fn new(streams: impl IntoIterator<Item = StreamId>) -> Self {
        let watermarks = streams.into_iter().map(|stream| (stream, TaiNanos(i64::MIN))).collect();
        Self {
            watermarks,
            waiting: BinaryHeap::new(),
        }
    }

    /// Takes a block of one of the streams; a block of another stream is ignored.
    pub fn push(&mut self, block: AlignedBlock) {
        let Some(watermark) = self.watermarks.get_mut(&block.stream) else {
            return;
        };
        *watermark = (*watermark).max(block.watermark);
        let block = Arc::new(block);
        for row in 0..block.len() {
            self.waiting.push(Reverse(Waiting {
                key: block.key(row),
                block: Arc::clone(&block),
                row,
            }));
        }
    }

    /// Up to where every stream is complete.
    pub fn complete_until(&self) -> TaiNanos {
        self.watermarks.values().min().copied().unwrap_or(TaiNanos(i64::MIN))
    }

    /// A stream's own watermark.
    pub fn watermark(&self, stream: &StreamId) -> Option<TaiNanos> {
        self.watermarks.get(stream).copied()
    }

    /// The next row in the total order whose time lies below every watermark.
    pub fn pop(&mut self) -> Option<MergedRow> {
        let complete = self.complete_until();
        self.pop_below(complete)
    }

    /// The next row below `limit`, whatever the watermarks say: for a caller that has its own reason to go on.
    pub fn pop_below(&mut self, limit: TaiNanos) -> Option<MergedRow> {
        if self
            .waiting
            .peek()
            .is_some_and(|Reverse(waiting)| waiting.key.time < limit)
        {
            let Reverse(Waiting { key, block, row }) = self.waiting.pop()?;
            Some(MergedRow { key, block, row })
        } else {
            None
        }
    }

    /// How many rows wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
