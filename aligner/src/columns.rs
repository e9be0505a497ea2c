//! The columns of stored tables, and the ways between them and aligned blocks.
//!
//! A stored table has `time` (Timestamp ns, UTC), `time_tai`, `time_uncertainty`, `revision`, `boot_id` (UUID text,
//! whose order is the order of the bytes), `sequence`, `index`, then the channels, nullable. An aligned block is the
//! same without `time` and `revision` and with `boot_id` as 16 bytes: that form enters a replay's digest.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray,
    StringBuilder, TimestampNanosecondArray, UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use orrery_protocol::{AlignedBlock, BootId, Descriptor, TaiNanos};

/// Columns before the channels of a stored table.
pub const STORED_KEYS: usize = 7;
/// Columns before the channels of an aligned block.
pub const ALIGNED_KEYS: usize = 5;

/// The Arrow type of a UTC column.
pub fn utc_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// The schema of a stored table with these channels.
pub fn stored_schema(channels: &[FieldRef]) -> SchemaRef {
    let key = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, false));
    let mut fields = vec![
        key("time", utc_type()),
        key("time_tai", DataType::Int64),
        key("time_uncertainty", DataType::Int64),
        key("revision", DataType::UInt64),
        key("boot_id", DataType::Utf8),
        key("sequence", DataType::UInt64),
        key("index", DataType::UInt32),
    ];
    fields.extend(channels.iter().cloned());
    Arc::new(Schema::new(fields))
}

/// The schema of an aligned block with these channels.
pub fn aligned_schema(channels: &[FieldRef]) -> SchemaRef {
    let mut fields = AlignedBlock::key_fields();
    fields.extend(channels.iter().cloned());
    Arc::new(Schema::new(fields))
}

/// The channel columns of a descriptor.
pub fn channel_fields(descriptor: &Descriptor) -> Vec<FieldRef> {
    descriptor
        .channels
        .iter()
        .map(|channel| Arc::new(Field::new(&channel.name, channel.kind.data_type(), true)))
        .collect()
}

/// The union of a stream's versions: channels in order of first appearance.
///
/// # Errors
/// The name of a channel whose type changed: that needs a new name.
pub fn union_fields(known: &[FieldRef], more: &[FieldRef]) -> Result<Vec<FieldRef>, String> {
    let mut union = known.to_vec();
    for field in more {
        match union.iter().find(|old| old.name() == field.name()) {
            None => union.push(Arc::clone(field)),
            Some(old) if old.data_type() == field.data_type() => {}
            Some(old) => {
                let (name, was, is) = (field.name(), old.data_type(), field.data_type());
                return Err(format!(
                    "channel `{name}` was {was} and is now {is}: a changed type needs a new channel name"
                ));
            }
        }
    }
    Ok(union)
}

/// UTC of a run of TAI instants; within a run without a leap second the difference is looked up once.
pub fn utc_column(times: &Int64Array) -> ArrayRef {
    let values = times.values();
    let shift = |tai: i64| tai.saturating_sub(TaiNanos(tai).to_utc().0);
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else {
        return Arc::new(TimestampNanosecondArray::from(Vec::<i64>::new()).with_timezone("UTC"));
    };
    let utc: Vec<i64> = if shift(*least) == shift(*most) {
        let shift = shift(*least);
        values.iter().map(|tai| tai.saturating_sub(shift)).collect()
    } else {
        values.iter().map(|tai| TaiNanos(*tai).to_utc().0).collect()
    };
    Arc::new(TimestampNanosecondArray::from(utc).with_timezone("UTC"))
}

/// An aligned batch in the form that is stored.
///
/// # Errors
/// When the batch is not in aligned form.
pub fn stored_from_aligned(batch: &RecordBatch, revision: u64) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let boots = batch.column(2).as_fixed_size_binary();
    let mut columns: Vec<ArrayRef> = vec![
        utc_column(batch.column(0).as_primitive::<Int64Type>()),
        Arc::clone(batch.column(0)),
        Arc::clone(batch.column(1)),
        Arc::new(UInt64Array::from(vec![revision; rows])),
        Arc::new(boot_texts(boots)),
        Arc::clone(batch.column(3)),
        Arc::clone(batch.column(4)),
    ];
    columns.extend(batch.columns()[ALIGNED_KEYS..].iter().cloned());
    let channels: Vec<FieldRef> = batch.schema().fields()[ALIGNED_KEYS..].to_vec();
    RecordBatch::try_new(stored_schema(&channels), columns)
}

/// A stored batch in aligned form with exactly these channels; absent ones are null.
///
/// # Errors
/// When the batch is not in stored form.
pub fn aligned_from_stored(batch: &RecordBatch, aligned: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .cloned()
            .ok_or_else(|| ArrowError::SchemaError(format!("column `{name}` is missing")))
    };
    let boots = column("boot_id")?;
    let boots = boots
        .as_string_opt::<i32>()
        .ok_or_else(|| ArrowError::SchemaError("`boot_id` is not text".to_owned()))?;
    let mut columns: Vec<ArrayRef> = vec![
        column("time_tai")?,
        column("time_uncertainty")?,
        Arc::new(boot_bytes(boots)?),
        column("sequence")?,
        column("index")?,
    ];
    for field in &aligned.fields()[ALIGNED_KEYS..] {
        columns.push(
            batch
                .column_by_name(field.name())
                .map_or_else(|| new_null_array(field.data_type(), batch.num_rows()), Arc::clone),
        );
    }
    RecordBatch::try_new(Arc::clone(aligned), columns)
}

fn boot_texts(boots: &FixedSizeBinaryArray) -> StringArray {
    let mut texts = StringBuilder::with_capacity(boots.len(), boots.len() * 36);
    let mut known: Option<(BootId, String)> = None;
    for row in 0..boots.len() {
        let boot = BootId::from_slice(boots.value(row)).unwrap_or(BootId([0; 16]));
        match &known {
            Some((same, text)) if *same == boot => texts.append_value(text),
            _ => {
                let text = boot.to_string();
                texts.append_value(&text);
                known = Some((boot, text));
            }
        }
    }
    texts.finish()
}

fn boot_bytes(texts: &StringArray) -> Result<FixedSizeBinaryArray, ArrowError> {
    let mut bytes = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    let mut known: Option<(&str, BootId)> = None;
    for row in 0..texts.len() {
        let text = texts.value(row);
        let boot = match known {
            Some((same, boot)) if same == text => boot,
            _ => text
                .parse::<BootId>()
                .map_err(|error| ArrowError::ParseError(error.to_string()))?,
        };
        known = Some((text, boot));
        bytes.append_value(boot.0)?;
    }
    Ok(bytes.finish())
}

/// The key columns of a stored or aligned batch, ready to be compared.
#[derive(Debug, Clone)]
pub struct Keys {
    times: Int64Array,
    boots: ArrayRef,
    sequences: UInt64Array,
    indexes: UInt32Array,
}

impl Keys {
    /// The keys of a batch in either form.
    ///
    /// # Errors
    /// When a key column is missing or of another type.
    pub fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let column = |name: &str, kind: &DataType| match batch.column_by_name(name) {
            Some(column) if column.data_type() == kind => Ok(Arc::clone(column)),
            Some(column) => Err(ArrowError::SchemaError(format!(
                "`{name}` is {}, not {kind}",
                column.data_type()
            ))),
            None => Err(ArrowError::SchemaError(format!("column `{name}` is missing"))),
        };
        let boots = batch
            .column_by_name("boot_id")
            .cloned()
            .ok_or_else(|| ArrowError::SchemaError("column `boot_id` is missing".to_owned()))?;
        Ok(Self {
            times: column("time_tai", &DataType::Int64)?
                .as_primitive::<Int64Type>()
                .clone(),
            boots,
            sequences: column("sequence", &DataType::UInt64)?
                .as_primitive::<UInt64Type>()
                .clone(),
            indexes: column("index", &DataType::UInt32)?.as_primitive::<UInt32Type>().clone(),
        })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row's aligned time.
    pub fn time(&self, row: usize) -> i64 {
        self.times.value(row)
    }

    /// Compares two rows of the same stream in the total order. Both sides must hold boots in the same form.
    pub fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        self.times
            .value(row)
            .cmp(&other.times.value(other_row))
            .then_with(|| self.boot(row).cmp(other.boot(other_row)))
            .then_with(|| self.sequences.value(row).cmp(&other.sequences.value(other_row)))
            .then_with(|| self.indexes.value(row).cmp(&other.indexes.value(other_row)))
    }

    fn boot(&self, row: usize) -> &[u8] {
        match self.boots.data_type() {
            DataType::Utf8 => self.boots.as_string::<i32>().value(row).as_bytes(),
            DataType::FixedSizeBinary(_) => self.boots.as_fixed_size_binary().value(row),
            _ => &[],
        }
    }

    /// The first row at or after a time, in a sorted batch.
    pub fn lower_bound(&self, time: i64) -> usize {
        self.times.values().partition_point(|known| *known < time)
    }
}

/// Puts batches of one table into one batch in the total order, with exactly the schema given.
///
/// # Errors
/// When a batch does not fit.
pub fn merge_sorted(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let fitted = batches
        .iter()
        .map(|batch| conform(batch, schema))
        .collect::<Result<Vec<_>, _>>()?;
    let all = concat_batches(schema, &fitted)?;
    let keys = Keys::of(&all)?;
    let sorted = (1..keys.len()).all(|row| keys.compare(row - 1, &keys, row) != Ordering::Greater);
    if sorted {
        return Ok(all);
    }
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_by(|a, b| keys.compare(*a as usize, &keys, *b as usize));
    take_record_batch(&all, &UInt32Array::from(order))
}

/// The same rows with exactly these columns; absent ones are null.
///
/// # Errors
/// When a column has another type, or a key column is absent.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema().fields() == schema.fields() {
        return RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec());
    }
    let columns = schema.fields().iter().map(|field| {
        batch
            .column_by_name(field.name())
            .map_or_else(|| new_null_array(field.data_type(), batch.num_rows()), Arc::clone)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}
