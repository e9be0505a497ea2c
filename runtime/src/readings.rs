//! Reading aligned blocks: the bound channels as rows, and the latest value of every channel.

use std::collections::HashMap;

use orrery_protocol::{AlignedBlock, StreamId, TaiNanos};

use crate::graph::ChannelRef;
use crate::inputs::{Row, RowId};

/// The rows of a block, with these channels only. A channel the block does not have is absent; NaN and
/// infinities count as absent too.
pub fn rows(block: &AlignedBlock, channels: &[String]) -> Vec<Row> {
    let row = |at: usize| {
        let key = block.key(at);
        let id = RowId {
            time: key.time,
            boot: key.boot,
            sequence: key.sequence,
            index: key.index,
            revision: block.revision,
        };
        let value = |channel: &String| block.value(channel, at).filter(|value| value.is_finite());
        Row {
            id,
            values: channels.iter().map(value).collect(),
        }
    };
    (0..block.len()).map(row).collect()
}

/// A channel's latest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The value.
    pub value: f64,
    /// Its aligned time.
    pub at: TaiNanos,
}

/// The latest row of each watched stream.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    values: HashMap<ChannelRef, Reading>,
    rows: HashMap<StreamId, TaiNanos>,
}

impl Readings {
    /// Takes up a block's rows.
    pub fn update(&mut self, block: &AlignedBlock, channels: impl Iterator<Item = ChannelRef>) {
        let Some(last) = block.len().checked_sub(1) else {
            return;
        };
        let newest = self.rows.entry(block.stream.clone()).or_insert(block.time(last));
        *newest = (*newest).max(block.time(last));
        for channel in channels.filter(|channel| channel.stream == block.stream) {
            let found = (0..block.len()).rev().find_map(|row| {
                let value = block.value(&channel.channel, row).filter(|value| value.is_finite())?;
                Some(Reading {
                    value,
                    at: block.time(row),
                })
            });
            if let Some(reading) = found
                && self.values.get(&channel).is_none_or(|known| known.at <= reading.at)
            {
                self.values.insert(channel, reading);
            }
        }
    }

    /// A channel's latest value.
    pub fn get(&self, channel: &ChannelRef) -> Option<Reading> {
        self.values.get(channel).copied()
    }

    /// The time of a stream's latest row.
    pub fn last_row(&self, stream: &StreamId) -> Option<TaiNanos> {
        self.rows.get(stream).copied()
    }
}
