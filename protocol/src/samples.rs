//! Sample blocks: what a `samples` payload holds.
//!
//! An Arrow IPC stream of one record batch. Columns, in this order: `device_time` (Int64, nanoseconds on the device's
//! clock, nullable), `received` (Int64, nanoseconds on the host's monotonic clock), then the descriptor's channels by
//! name, nullable.
//! Schema metadata: `orrery.stream`, `orrery.descriptor` (hex digest), `orrery.clock_id` (the host clock) and, where
//! `device_time` is used, `orrery.device_clock_id`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float32Builder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};

use crate::{ChannelType, ClockId, Descriptor, DeviceNanos, Digest, MonoNanos, StreamId, ipc};

/// A block that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Not readable as an Arrow IPC stream of one batch.
    #[error("not a sample block: {0}")]
    Arrow(String),
    /// The schema metadata lacks an entry or has a wrong one.
    #[error("the sample block's metadata has no valid `{0}`")]
    Metadata(&'static str),
    /// A column is missing or has another type than the descriptor says.
    #[error("the sample block's column `{column}` {why}")]
    Column {
        /// Which column.
        column: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Samples of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleBlock {
    /// The stream.
    pub stream: StreamId,
    /// Digest of the descriptor in force.
    pub descriptor: Digest,
    /// The host clock of `received`.
    pub clock_id: ClockId,
    /// The device clock of `device_time`, where the device has one.
    pub device_clock_id: Option<ClockId>,
    /// The columns.
    pub batch: RecordBatch,
}

impl SampleBlock {
    /// The columns before the channels.
    pub const KEY_COLUMNS: [&str; 2] = ["device_time", "received"];

    /// The payload's bytes.
    ///
    /// # Errors
    /// [`SampleError::Arrow`] when the batch cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, SampleError> {
        let mut metadata = HashMap::from([
            ("orrery.stream".to_owned(), self.stream.to_string()),
            ("orrery.descriptor".to_owned(), self.descriptor.to_string()),
            ("orrery.clock_id".to_owned(), self.clock_id.to_string()),
        ]);
        if let Some(clock) = &self.device_clock_id {
            metadata.insert("orrery.device_clock_id".to_owned(), clock.to_string());
        }
        ipc::encode(&self.batch, metadata).map_err(|error| SampleError::Arrow(error.to_string()))
    }

    /// Reads a payload; safe on foreign bytes.
    ///
    /// # Errors
    /// [`SampleError`] says what is missing or wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SampleError> {
        let batch = ipc::decode(bytes).map_err(SampleError::Arrow)?;
        let schema = batch.schema();
        let entry = |name: &'static str| {
            schema
                .metadata()
                .get(name)
                .map(String::as_str)
                .ok_or(SampleError::Metadata(name))
        };
        let stream = StreamId::new(entry("orrery.stream")?).map_err(|_| SampleError::Metadata("orrery.stream"))?;
        let descriptor = entry("orrery.descriptor")?
            .parse()
            .map_err(|_| SampleError::Metadata("orrery.descriptor"))?;
        let clock_id = ClockId::new(entry("orrery.clock_id")?).map_err(|_| SampleError::Metadata("orrery.clock_id"))?;
        let device_clock_id = schema
            .metadata()
            .get("orrery.device_clock_id")
            .map(ClockId::new)
            .transpose()
            .map_err(|_| SampleError::Metadata("orrery.device_clock_id"))?;
        let block = Self {
            stream,
            descriptor,
            clock_id,
            device_clock_id,
            batch,
        };
        for (at, column) in Self::KEY_COLUMNS.into_iter().enumerate() {
            let found = schema.fields().get(at).map(|field| (field.name(), field.data_type()));
            match found {
                Some((name, DataType::Int64)) if name == column => {}
                Some((name, kind)) => {
                    let why = format!("must be column {at} and Int64; there stands `{name}` of type {kind}");
                    return Err(column_error(column, why));
                }
                None => return Err(column_error(column, "is missing".to_owned())),
            }
        }
        if block.received_array().null_count() > 0 {
            return Err(column_error("received", "has nulls".to_owned()));
        }
        Ok(block)
    }

    /// Checks the columns against the descriptor in force.
    ///
    /// # Errors
    /// [`SampleError::Column`] names the first column that does not fit.
    pub fn check(&self, descriptor: &Descriptor) -> Result<(), SampleError> {
        let schema = self.batch.schema();
        let channels = &schema.fields()[Self::KEY_COLUMNS.len()..];
        for (at, field) in channels.iter().enumerate() {
            if channels[..at].iter().any(|before| before.name() == field.name()) {
                return Err(column_error(field.name(), "is there twice".to_owned()));
            }
            let channel = descriptor.channels.iter().find(|channel| channel.name == *field.name());
            match channel {
                Some(channel) if channel.kind.data_type() == *field.data_type() => {}
                Some(channel) => {
                    let why = format!(
                        "is {}, but the descriptor says {}",
                        field.data_type(),
                        channel.kind.data_type()
                    );
                    return Err(column_error(field.name(), why));
                }
                None => {
                    return Err(column_error(field.name(), "is not in the descriptor".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the host received sample `row`.
    pub fn received(&self, row: usize) -> MonoNanos {
        MonoNanos(self.received_array().value(row))
    }

    /// The device's own stamp of sample `row`, where it has one.
    pub fn device_time(&self, row: usize) -> Option<DeviceNanos> {
        let array = self.batch.column(0).as_primitive::<Int64Type>();
        array.is_valid(row).then(|| DeviceNanos(array.value(row)))
    }

    fn received_array(&self) -> &Int64Array {
        self.batch.column(1).as_primitive::<Int64Type>()
    }
}

fn column_error(column: &str, why: String) -> SampleError {
    SampleError::Column {
        column: column.to_owned(),
        why,
    }
}

/// One value of one channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A float of either width.
    Float(f64),
    /// An integer.
    Integer(i64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
}

enum ColumnBuilder {
    F64(Float64Builder),
    F32(Float32Builder),
    I64(Int64Builder),
    Bool(BooleanBuilder),
    Utf8(StringBuilder),
}

impl ColumnBuilder {
    fn new(kind: ChannelType) -> Self {
        match kind {
            ChannelType::F64 => Self::F64(Float64Builder::new()),
            ChannelType::F32 => Self::F32(Float32Builder::new()),
            ChannelType::I64 => Self::I64(Int64Builder::new()),
            ChannelType::Bool => Self::Bool(BooleanBuilder::new()),
            ChannelType::Utf8 => Self::Utf8(StringBuilder::new()),
        }
    }

    /// Appends a value; one of another kind becomes null rather than a guess, except that numbers widen.
    fn push(&mut self, value: &Value) {
        match (self, value) {
            (Self::F64(column), Value::Float(value)) => column.append_value(*value),
            (Self::F64(column), Value::Integer(value)) => column.append_value(*value as f64),
            (Self::F64(column), _) => column.append_null(),
            (Self::F32(column), Value::Float(value)) => column.append_value(*value as f32),
            (Self::F32(column), _) => column.append_null(),
            (Self::I64(column), Value::Integer(value)) => column.append_value(*value),
            (Self::I64(column), _) => column.append_null(),
            (Self::Bool(column), Value::Bool(value)) => column.append_value(*value),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Utf8(column), Value::Text(value)) => column.append_value(value),
            (Self::Utf8(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::F64(column) => Arc::new(column.finish()),
            Self::F32(column) => Arc::new(column.finish()),
            Self::I64(column) => Arc::new(column.finish()),
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Utf8(column) => Arc::new(column.finish()),
        }
    }
}

/// Gathers readings of one stream into a [`SampleBlock`].
pub struct SampleBuilder {
    stream: StreamId,
    descriptor: Digest,
    clock_id: ClockId,
    schema: Arc<Schema>,
    device_time: Int64Builder,
    received: Int64Builder,
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl SampleBuilder {
    /// A builder for the stream that `descriptor` describes; `clock_id` is the host clock of `received`.
    pub fn new(descriptor: &Descriptor, clock_id: ClockId) -> Self {
        let mut fields = vec![
            Field::new("device_time", DataType::Int64, true),
            Field::new("received", DataType::Int64, false),
        ];
        fields.extend(
            descriptor
                .channels
                .iter()
                .map(|channel| Field::new(&channel.name, channel.kind.data_type(), true)),
        );
        Self {
            stream: descriptor.stream.clone(),
            descriptor: descriptor.digest(),
            clock_id,
            schema: Arc::new(Schema::new(fields)),
            device_time: Int64Builder::new(),
            received: Int64Builder::new(),
            columns: descriptor
                .channels
                .iter()
                .map(|channel| ColumnBuilder::new(channel.kind))
                .collect(),
            rows: 0,
        }
    }

    /// Adds one sample; values stand in the descriptor's channel order, missing ones at the end are null.
    pub fn push(&mut self, device_time: Option<DeviceNanos>, received: MonoNanos, values: &[Value]) {
        self.device_time.append_option(device_time.map(|time| time.0));
        self.received.append_value(received.0);
        for (at, column) in self.columns.iter_mut().enumerate() {
            column.push(values.get(at).unwrap_or(&Value::Null));
        }
        self.rows += 1;
    }

    /// How many samples wait.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes the samples out; none when there are none. The builder goes on empty.
    pub fn take(&mut self, device_clock_id: Option<ClockId>) -> Option<SampleBlock> {
        if self.rows == 0 {
            return None;
        }
        self.rows = 0;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.device_time.finish()), Arc::new(self.received.finish())];
        columns.extend(self.columns.iter_mut().map(ColumnBuilder::finish));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .expect("every push added one value to every column of the schema");
        Some(SampleBlock {
            stream: self.stream.clone(),
            descriptor: self.descriptor,
            clock_id: self.clock_id.clone(),
            device_clock_id,
            batch,
        })
    }
}
