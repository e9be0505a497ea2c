//! What one commit brings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use orrery_protocol::{Descriptor, TaiNanos};

/// Which topic and partition an input offset belongs to.
pub type Input = (String, u32);

/// Everything that becomes durable and visible together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The revision it will be.
    pub revision: u64,
    /// When, in reference time; the store never lets stamps decrease.
    pub stamp: TaiNanos,
    /// New rows per table, in stored form.
    pub rows: BTreeMap<String, Vec<RecordBatch>>,
    /// Descriptors heard of for the first time.
    pub descriptors: Vec<Arc<Descriptor>>,
    /// Next input offsets.
    pub offsets: BTreeMap<Input, u64>,
    /// Small state by (kind, name): chains, clocks, devices, watermarks, counters.
    pub state: BTreeMap<(&'static str, String), Vec<u8>>,
}
