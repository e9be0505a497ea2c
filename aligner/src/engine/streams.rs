//! What is known of one stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use orrery_protocol::{Descriptor, Digest, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::align::{TracePlace, Watermark};
use crate::columns;

/// Recent rows that the observed rate is taken from, and how far back they may reach.
const RECENT: usize = 256;
const RATE_WINDOW_NANOS: i64 = 10_000_000_000;

/// One stream as the engine sees it.
#[derive(Debug, Default)]
pub struct StreamState {
    pub(crate) descriptors: BTreeMap<Digest, Arc<Descriptor>>,
    pub(crate) latest: Option<Arc<Descriptor>>,
    pub(crate) fields: Vec<FieldRef>,
    pub(crate) persistent: Persistent,
    recent: VecDeque<i64>,
}

/// What of it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Persistent {
    pub(crate) watermark: Watermark,
    pub(crate) asymmetry_nanos: i64,
    pub(crate) trace: Option<TracePlace>,
}

impl StreamState {
    /// Learns a descriptor; whether it was news.
    ///
    /// # Errors
    /// Which channel does not fit what the stream was before.
    pub(crate) fn add(&mut self, descriptor: Arc<Descriptor>) -> Result<bool, String> {
        let digest = descriptor.digest();
        if self.descriptors.contains_key(&digest) {
            return Ok(false);
        }
        self.fields = columns::union_fields(&self.fields, &columns::channel_fields(&descriptor))?;
        if self
            .latest
            .as_ref()
            .is_none_or(|latest| latest.version <= descriptor.version)
        {
            self.latest = Some(Arc::clone(&descriptor));
        }
        self.descriptors.insert(digest, descriptor);
        Ok(true)
    }

    pub(crate) fn note_times(&mut self, times: &[i64]) {
        for &time in times.iter().skip(times.len().saturating_sub(RECENT)) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(time);
        }
    }

    /// Rows per second of reference time, lately; none before the second row.
    pub fn observed_hz(&self) -> Option<f64> {
        let last = *self.recent.iter().max()?;
        let within = self
            .recent
            .iter()
            .filter(|time| last.saturating_sub(**time) <= RATE_WINDOW_NANOS);
        let (mut first, mut count) = (last, 0u32);
        for &time in within {
            first = first.min(time);
            count += 1;
        }
        (count >= 2 && last > first).then(|| f64::from(count - 1) / (last.saturating_sub(first) as f64 / 1e9))
    }

    /// The watermark.
    pub fn watermark(&self) -> TaiNanos {
        self.persistent.watermark.value()
    }
}
