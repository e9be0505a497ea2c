//! What a reader sees: one commit's tables, immutable, shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use orrery_protocol::{Descriptor, Digest, StreamId, TaiNanos};

use crate::Error;
use crate::columns;

/// The name of the raw archive; it has no slash, so no stream can be called so.
pub const RAW_TABLE: &str = "raw.envelopes";

/// Rows that live in the catalog until a segment takes them, sorted in the total order.
#[derive(Debug)]
pub struct Part {
    pub(crate) id: i64,
    pub(crate) level: i64,
    pub(crate) bytes: u64,
    pub(crate) batch: RecordBatch,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

/// An immutable Parquet file, as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub(crate) path: String,
    pub(crate) table: String,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
    pub(crate) rows: u64,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) max_revision: u64,
    pub(crate) added: u64,
}

impl Segment {
    pub(crate) fn broken(&self, what: impl Into<String>) -> Error {
        Error::Segment {
            path: self.path.clone(),
            table: self.table.clone(),
            from: TaiNanos(self.min),
            to: TaiNanos(self.max),
            what: what.into(),
        }
    }
}

/// One stream's rows, or the raw archive.
#[derive(Debug, Clone)]
pub struct Table {
    /// The stream's name, or [`RAW_TABLE`].
    pub name: String,
    pub(crate) schema: SchemaRef,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) tail: Vec<Arc<Part>>,
    /// Descriptor versions with the revision that brought them.
    pub(crate) descriptors: Vec<(u64, Arc<Descriptor>)>,
    pub(crate) compacted_at: u64,
}

impl Table {
    pub(crate) fn new(name: &str, channels: &[FieldRef]) -> Self {
        Self {
            name: name.to_owned(),
            schema: columns::stored_schema(channels),
            segments: Vec::new(),
            tail: Vec::new(),
            descriptors: Vec::new(),
            compacted_at: 0,
        }
    }

    /// The latest descriptor.
    pub fn descriptor(&self) -> Option<&Arc<Descriptor>> {
        self.descriptors.last().map(|(_, descriptor)| descriptor)
    }

    /// The columns: keys, then the union of all versions' channels.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The channels' columns as they stood at a revision.
    pub(crate) fn channels_at(&self, revision: u64) -> Vec<FieldRef> {
        let mut channels = Vec::new();
        for (since, descriptor) in &self.descriptors {
            if *since <= revision {
                channels = columns::union_fields(&channels, &columns::channel_fields(descriptor)).unwrap_or(channels);
            }
        }
        // A trace may come without a descriptor: then the rows themselves say what they are.
        if channels.is_empty() {
            self.schema.fields()[columns::STORED_KEYS..].to_vec()
        } else {
            channels
        }
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        let tail: u64 = self.tail.iter().map(|part| part.batch.num_rows() as u64).sum();
        tail + self.segments.iter().map(|segment| segment.rows).sum::<u64>()
    }

    /// First and last time, when there are rows.
    pub fn span(&self) -> Option<(TaiNanos, TaiNanos)> {
        let mins = self
            .tail
            .iter()
            .map(|part| part.min)
            .chain(self.segments.iter().map(|segment| segment.min));
        let maxs = self
            .tail
            .iter()
            .map(|part| part.max)
            .chain(self.segments.iter().map(|segment| segment.max));
        Some((TaiNanos(mins.min()?), TaiNanos(maxs.max()?)))
    }

    pub(crate) fn tail_bytes(&self) -> u64 {
        self.tail.iter().map(|part| part.bytes).sum()
    }

    /// Segments that may hold rows in `from..to`.
    pub(crate) fn segments_within(&self, from: i64, to: i64) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments
            .iter()
            .filter(move |segment| segment.min < to && segment.max >= from)
    }

    /// Tail parts that may hold rows in `from..to`.
    pub(crate) fn parts_within(&self, from: i64, to: i64) -> impl Iterator<Item = &Arc<Part>> {
        self.tail.iter().filter(move |part| part.min < to && part.max >= from)
    }
}

/// All tables as of one commit.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The latest commit.
    pub revision: u64,
    /// Its stamp.
    pub stamp: TaiNanos,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
}

impl View {
    /// The streams that have rows or a descriptor, in order of name.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Arc<Table>)> {
        self.tables
            .iter()
            .filter_map(|(name, table)| Some((StreamId::new(name).ok()?, table)))
    }

    /// A stream's table.
    ///
    /// # Errors
    /// [`Error::UnknownStream`] with the nearest name.
    pub fn stream(&self, name: &str) -> Result<&Arc<Table>, Error> {
        match self.tables.get(name) {
            Some(table) if name != RAW_TABLE => Ok(table),
            _ => Err(Error::UnknownStream {
                asked: name.to_owned(),
                nearest: self.nearest(name),
            }),
        }
    }

    /// The stream whose name is most like `name`, where one is like it.
    pub fn nearest(&self, name: &str) -> Option<String> {
        const ALIKE: f64 = 0.75;
        self.tables
            .keys()
            .filter(|known| *known != RAW_TABLE)
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(likeness, _)| *likeness >= ALIKE)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known.clone())
    }
}
