//! Aligned blocks: what travels on `orrery.aligned` and `orrery.traces`.
//!
//! An Arrow IPC stream of one record batch. Columns, in this order: `time_tai` (Int64, TAI nanoseconds),
//! `time_uncertainty` (Int64, nanoseconds, standard uncertainty), `boot_id` (FixedSizeBinary(16)), `sequence` (UInt64),
//! `index` (UInt32, the row within its envelope), then the channels, nullable. Schema metadata: `orrery.stream`,
//! `orrery.descriptor`, `orrery.revision`, `orrery.watermark`, `orrery.asymmetry_nanos`, and what a producer adds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, UInt32Array, UInt64Array,
    cast::AsArray,
    types::{Int64Type, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Field, FieldRef, Schema};

use crate::digest::KEY_COLUMNS;
use crate::{BootId, Digest, StreamId, TaiNanos, ipc};

/// A block that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an aligned block: {0}")]
pub struct AlignedError(String);

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

/// Rows of one stream on the reference timeline, in stream order; without rows, a bare watermark.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignedBlock {
    /// The stream.
    pub stream: StreamId,
    /// Digest of the descriptor in force.
    pub descriptor: Digest,
    /// The catalog commit that will hold these rows.
    pub revision: u64,
    /// The stream is complete below this instant.
    pub watermark: TaiNanos,
    /// The bound that path asymmetry puts on the times, in nanoseconds.
    pub asymmetry_nanos: i64,
    /// What the producer adds, such as a graph's input frontier.
    pub extra: BTreeMap<String, String>,
    /// The columns.
    pub batch: RecordBatch,
}

impl AlignedBlock {
    /// The key fields of every aligned schema.
    pub fn key_fields() -> Vec<FieldRef> {
        let types = [
            DataType::Int64,
            DataType::Int64,
            DataType::FixedSizeBinary(16),
            DataType::UInt64,
            DataType::UInt32,
        ];
        KEY_COLUMNS
            .iter()
            .zip(types)
            .map(|(name, kind)| Arc::new(Field::new(*name, kind, false)))
            .collect()
    }

    /// Puts a batch together from keys and channel columns. All columns have the same length.
    ///
    /// # Errors
    /// [`AlignedError`] when lengths differ.
    pub fn batch(
        times: Vec<i64>,
        uncertainties: Vec<i64>,
        boot: BootId,
        sequences: Vec<u64>,
        indexes: Vec<u32>,
        channels: Vec<(FieldRef, ArrayRef)>,
    ) -> Result<RecordBatch, AlignedError> {
        let rows = times.len();
        let boots: Vec<u8> = boot.0.iter().copied().cycle().take(rows * 16).collect();
        let boots = FixedSizeBinaryArray::try_new(16, boots.into(), None).map_err(|e| AlignedError(e.to_string()))?;
        let mut fields = Self::key_fields();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(times)),
            Arc::new(Int64Array::from(uncertainties)),
            Arc::new(boots),
            Arc::new(UInt64Array::from(sequences)),
            Arc::new(UInt32Array::from(indexes)),
        ];
        for (field, column) in channels {
            fields.push(field);
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| AlignedError(e.to_string()))
    }

    /// The block's bytes.
    ///
    /// # Errors
    /// [`AlignedError`] when the batch cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, AlignedError> {
        let mut metadata: HashMap<String, String> = self.extra.clone().into_iter().collect();
        metadata.extend([
            ("orrery.stream".to_owned(), self.stream.to_string()),
            ("orrery.descriptor".to_owned(), self.descriptor.to_string()),
            ("orrery.revision".to_owned(), self.revision.to_string()),
            ("orrery.watermark".to_owned(), self.watermark.0.to_string()),
            ("orrery.asymmetry_nanos".to_owned(), self.asymmetry_nanos.to_string()),
        ]);
        ipc::encode(&self.batch, metadata).map_err(|error| AlignedError(error.to_string()))
    }

    /// Reads a block; safe on foreign bytes.
    ///
    /// # Errors
    /// [`AlignedError`] says what is missing or wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, AlignedError> {
        let batch = ipc::decode(bytes).map_err(AlignedError)?;
        let schema = batch.schema();
        let mut extra: BTreeMap<String, String> = schema.metadata().clone().into_iter().collect();
        let mut entry = |name: &str| {
            extra
                .remove(name)
                .ok_or_else(|| AlignedError(format!("its metadata lacks `{name}`")))
        };
        let wrong = |name: &str| AlignedError(format!("its metadata has no valid `{name}`"));
        let stream = StreamId::new(entry("orrery.stream")?).map_err(|_| wrong("orrery.stream"))?;
        let descriptor = entry("orrery.descriptor")?
            .parse()
            .map_err(|_| wrong("orrery.descriptor"))?;
        let revision = entry("orrery.revision")?
            .parse()
            .map_err(|_| wrong("orrery.revision"))?;
        let watermark = entry("orrery.watermark")?
            .parse()
            .map_err(|_| wrong("orrery.watermark"))?;
        let asymmetry_nanos = entry("orrery.asymmetry_nanos")?
            .parse()
            .map_err(|_| wrong("orrery.asymmetry_nanos"))?;
        for (at, expected) in Self::key_fields().iter().enumerate() {
            let found = schema.fields().get(at);
            let fits = found.is_some_and(|f| f.name() == expected.name() && f.data_type() == expected.data_type());
            if !fits || batch.column(at).null_count() > 0 {
                return Err(AlignedError(format!(
                    "column {at} is not `{}` without nulls",
                    expected.name()
                )));
            }
        }
        let watermark = TaiNanos(watermark);
        Ok(Self {
            stream,
            descriptor,
            revision,
            watermark,
            asymmetry_nanos,
            extra,
            batch,
        })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether it is a bare watermark.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The aligned time of a row.
    pub fn time(&self, row: usize) -> TaiNanos {
        TaiNanos(self.batch.column(0).as_primitive::<Int64Type>().value(row))
    }

    /// The standard uncertainty of a row's time, in nanoseconds.
    pub fn uncertainty_nanos(&self, row: usize) -> i64 {
        self.batch.column(1).as_primitive::<Int64Type>().value(row)
    }

    /// A row's place in the total order.
    pub fn key(&self, row: usize) -> RowKey {
        RowKey {
            time: self.time(row),
            stream: self.stream.clone(),
            boot: BootId::from_slice(self.batch.column(2).as_fixed_size_binary().value(row))
                .expect("decode checked that the column is FixedSizeBinary(16)"),
            sequence: self.batch.column(3).as_primitive::<UInt64Type>().value(row),
            index: self.batch.column(4).as_primitive::<UInt32Type>().value(row),
        }
    }

    /// A channel's column.
    pub fn channel(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name).filter(|_| !KEY_COLUMNS.contains(&name))
    }

    /// A channel's value in a row as a float; none when null or not numeric.
    pub fn value(&self, name: &str, row: usize) -> Option<f64> {
        float_at(self.channel(name)?, row)
    }

    /// The channels: names and columns after the key columns.
    pub fn channels(&self) -> impl Iterator<Item = (String, &ArrayRef)> + '_ {
        let schema = self.batch.schema();
        (KEY_COLUMNS.len()..self.batch.num_columns())
            .map(move |at| (schema.field(at).name().clone(), self.batch.column(at)))
    }
}

/// A numeric column's value in a row as a float.
fn float_at(column: &ArrayRef, row: usize) -> Option<f64> {
    use arrow_array::types::{Float32Type, Float64Type};
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => Some(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row) as f64),
        DataType::Boolean => Some(f64::from(u8::from(column.as_boolean().value(row)))),
        _ => None,
    }
}
