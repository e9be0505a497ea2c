//! Rows as text or bytes: JSON, NDJSON, CSV, Arrow IPC, and a table for people.
//!
//! In JSON, times are RFC 3339 with nanoseconds and 64-bit integers are strings; floats print as their shortest exact
//! form, and what JSON has no number for (NaN, ±∞) is a string.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampNanosecondType, UInt64Type,
};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::columns::{ALIGNED_KEYS, stored_from_aligned, utc_type};
use crate::{Error, LastRow, Run};

/// Columns before the channels of a printed replay.
const REPLAY_KEYS: usize = 7;

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON array of objects.
    #[default]
    Json,
    /// One JSON object a line.
    Ndjson,
    /// CSV with a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// Aligned columns for people.
    Table,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "json" => Self::Json,
            "ndjson" => Self::Ndjson,
            "csv" => Self::Csv,
            "arrow" => Self::Arrow,
            "table" => Self::Table,
            _ => {
                return Err(Error::Request(format!(
                    "`{text}` is no output format: use json, ndjson, csv, arrow or table"
                )));
            }
        })
    }
}

impl Format {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Table => "text/plain; charset=utf-8",
        }
    }
}

/// Writes batches of one schema piece by piece.
pub struct Renderer {
    format: Format,
    schema: SchemaRef,
    started: bool,
    rows: u64,
    arrow: Option<StreamWriter<Vec<u8>>>,
    held: Vec<RecordBatch>,
}

impl Renderer {
    /// A renderer for this schema.
    pub fn new(format: Format, schema: SchemaRef) -> Self {
        Self {
            format,
            schema,
            started: false,
            rows: 0,
            arrow: None,
            held: Vec::new(),
        }
    }

    /// The bytes of one more batch; a table is held back until the end.
    ///
    /// # Errors
    /// [`Error::Arrow`] when a value cannot be written.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
        let mut out = self.start()?;
        match self.format {
            Format::Json | Format::Ndjson => self.json(batch, &mut out)?,
            Format::Csv => csv_rows(batch, &mut out)?,
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch).map_err(Error::arrow("output"))?;
                    out.append(writer.get_mut());
                }
            }
            Format::Table => self.held.push(batch.clone()),
        }
        Ok(out)
    }

    /// The bytes that end the output.
    ///
    /// # Errors
    /// [`Error::Arrow`] when a value cannot be written.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        let mut out = self.start()?;
        match self.format {
            Format::Json => out.extend_from_slice(b"]\n"),
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.finish().map_err(Error::arrow("output"))?;
                    out.append(writer.get_mut());
                }
            }
            Format::Table => out.extend_from_slice(table_text(&self.schema, &self.held)?.as_bytes()),
            Format::Ndjson | Format::Csv => {}
        }
        Ok(out)
    }

    fn start(&mut self) -> Result<Vec<u8>, Error> {
        if self.started {
            return Ok(Vec::new());
        }
        self.started = true;
        Ok(match self.format {
            Format::Json => b"[".to_vec(),
            Format::Csv => {
                let names: Vec<String> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| csv_text(field.name()))
                    .collect();
                format!("{}\n", names.join(",")).into_bytes()
            }
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &self.schema).map_err(Error::arrow("output"))?;
                let head = std::mem::take(writer.get_mut());
                self.arrow = Some(writer);
                head
            }
            Format::Ndjson | Format::Table => Vec::new(),
        })
    }

    fn json(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
        let schema = batch.schema();
        let cells = cells(batch)?;
        let names: Vec<String> = schema.fields().iter().map(|field| json_text(field.name())).collect();
        let mut line = String::new();
        for row in 0..batch.num_rows() {
            line.clear();
            if self.format == Format::Json {
                line.push_str(if self.rows == 0 { "\n" } else { ",\n" });
            }
            self.rows += 1;
            line.push('{');
            for (at, (name, cell)) in names.iter().zip(&cells).enumerate() {
                line.push_str(if at == 0 { "" } else { "," });
                line.push_str(name);
                line.push(':');
                cell.json(row, &mut line);
            }
            line.push('}');
            if self.format == Format::Ndjson {
                line.push('\n');
            }
            out.extend_from_slice(line.as_bytes());
        }
        Ok(())
    }
}

/// A column ready to be printed.
enum Cell<'a> {
    Float(&'a arrow::array::Float64Array),
    Float32(&'a arrow::array::Float32Array),
    Integer(&'a arrow::array::Int64Array),
    Unsigned(&'a arrow::array::UInt64Array),
    Time(&'a arrow::array::TimestampNanosecondArray),
    Text(&'a StringArray),
    Bool(&'a arrow::array::BooleanArray),
    Small(ArrayFormatter<'a>, &'a ArrayRef),
    Binary(&'a arrow::array::BinaryArray),
    Other(ArrayFormatter<'a>, &'a ArrayRef),
}

fn cells(batch: &RecordBatch) -> Result<Vec<Cell<'_>>, Error> {
    batch.columns().iter().map(cell).collect()
}

fn cell(column: &ArrayRef) -> Result<Cell<'_>, Error> {
    static OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let formatter = || ArrayFormatter::try_new(column.as_ref(), &OPTIONS).map_err(Error::arrow("output"));
    Ok(match column.data_type() {
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>()),
        DataType::Float32 => Cell::Float32(column.as_primitive::<Float32Type>()),
        DataType::Int64 => Cell::Integer(column.as_primitive::<Int64Type>()),
        DataType::UInt64 => Cell::Unsigned(column.as_primitive::<UInt64Type>()),
        DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if zone.as_ref() == "UTC" => {
            Cell::Time(column.as_primitive::<TimestampNanosecondType>())
        }
        DataType::Utf8 => Cell::Text(column.as_string::<i32>()),
        DataType::Boolean => Cell::Bool(column.as_boolean()),
        DataType::Binary => Cell::Binary(column.as_binary::<i32>()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            Cell::Small(formatter()?, column)
        }
        _ => Cell::Other(formatter()?, column),
    })
}

impl Cell<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Float(column) => column.is_null(row),
            Self::Float32(column) => column.is_null(row),
            Self::Integer(column) => column.is_null(row),
            Self::Unsigned(column) => column.is_null(row),
            Self::Time(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Bool(column) => column.is_null(row),
            Self::Binary(column) => column.is_null(row),
            Self::Small(_, column) | Self::Other(_, column) => column.is_null(row),
        }
    }

    fn json(&self, row: usize, out: &mut String) {
        if self.is_null(row) {
            out.push_str("null");
            return;
        }
        let number = |value: f64, text: String| {
            if value.is_finite() {
                text
            } else {
                format!("\"{value}\"")
            }
        };
        match self {
            Self::Float(column) => out.push_str(&number(column.value(row), float_text(column.value(row)))),
            Self::Float32(column) => {
                let value = column.value(row);
                out.push_str(&number(f64::from(value), format!("{value:?}")));
            }
            Self::Bool(column) => out.push_str(if column.value(row) { "true" } else { "false" }),
            Self::Small(formatter, _) => drop(write!(out, "{}", formatter.value(row))),
            _ => out.push_str(&json_text(&self.text(row))),
        }
    }

    /// The value without quotes; empty for null.
    fn text(&self, row: usize) -> String {
        if self.is_null(row) {
            return String::new();
        }
        match self {
            Self::Float(column) => float_text(column.value(row)),
            Self::Float32(column) => format!("{:?}", column.value(row)),
            Self::Integer(column) => column.value(row).to_string(),
            Self::Unsigned(column) => column.value(row).to_string(),
            Self::Time(column) => {
                DateTime::<Utc>::from_timestamp_nanos(column.value(row)).to_rfc3339_opts(SecondsFormat::Nanos, true)
            }
            Self::Text(column) => column.value(row).to_owned(),
            Self::Bool(column) => column.value(row).to_string(),
            Self::Binary(column) => base64::engine::general_purpose::STANDARD.encode(column.value(row)),
            Self::Small(formatter, _) | Self::Other(formatter, _) => formatter.value(row).to_string(),
        }
    }
}

/// The shortest text that reads back as the same float.
fn float_text(value: f64) -> String {
    format!("{value:?}")
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn csv_text(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn csv_rows(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
    let cells = cells(batch)?;
    for row in 0..batch.num_rows() {
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            // An empty text is quoted, so that it differs from null.
            let text = cell.text(row);
            let quoted = if text.is_empty() && !cell.is_null(row) {
                "\"\"".to_owned()
            } else {
                csv_text(&text)
            };
            out.extend_from_slice(quoted.as_bytes());
        }
        out.push(b'\n');
    }
    Ok(())
}

fn table_text(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, Error> {
    let header: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        let cells = cells(batch)?;
        for row in 0..batch.num_rows() {
            rows.push(
                cells
                    .iter()
                    .map(|cell| {
                        if cell.is_null(row) {
                            "–".to_owned()
                        } else {
                            cell.text(row)
                        }
                    })
                    .collect(),
            );
        }
    }
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let right = |at: usize| schema.field(at).data_type().is_numeric();
    let mut out = String::new();
    for line in std::iter::once(&header).chain(&rows) {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (text, width))| {
                if right(at) {
                    format!("{text:>width$}")
                } else {
                    format!("{text:<width$}")
                }
            })
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    Ok(out)
}

/// The columns of a printed replay: stream, `time` in UTC, the key columns, then the channels of all streams.
pub fn replay_schema(channels: &[FieldRef]) -> SchemaRef {
    let mut fields: Vec<FieldRef> = vec![
        Arc::new(Field::new("stream", DataType::Utf8, false)),
        Arc::new(Field::new("time", utc_type(), false)),
        Arc::new(Field::new("time_tai", DataType::Int64, false)),
        Arc::new(Field::new("time_uncertainty", DataType::Int64, false)),
        Arc::new(Field::new("boot_id", DataType::Utf8, false)),
        Arc::new(Field::new("sequence", DataType::UInt64, false)),
        Arc::new(Field::new("index", DataType::UInt32, false)),
    ];
    fields.extend(channels.iter().cloned());
    Arc::new(Schema::new(fields))
}

/// Runs of a replay, in their order, in the columns of [`replay_schema`].
///
/// # Errors
/// [`Error::Arrow`] when columns do not fit.
pub fn replay_batch(runs: &[Run], schema: &SchemaRef) -> Result<RecordBatch, Error> {
    // Runs that share a decoded batch are widened together: interleaved streams give runs of one row.
    let mut sources: Vec<(&Run, usize, usize)> = Vec::new();
    let mut order: Vec<(usize, usize)> = Vec::new();
    for run in runs {
        let last = run.first + run.count;
        let known = sources
            .iter()
            .rposition(|(source, _, _)| Arc::ptr_eq(&source.batch, &run.batch));
        let at = known.unwrap_or_else(|| {
            sources.push((run, run.first, last));
            sources.len() - 1
        });
        let (_, first, end) = &mut sources[at];
        (*first, *end) = ((*first).min(run.first), (*end).max(last));
        order.extend((run.first..last).map(|row| (at, row)));
    }
    let widened: Vec<RecordBatch> = sources
        .iter()
        .map(|(run, first, end)| widen(run, *first, *end, schema))
        .collect::<Result<_, _>>()?;
    if let [only] = widened.as_slice() {
        return Ok(only.clone());
    }
    let order: Vec<(usize, usize)> = order.into_iter().map(|(at, row)| (at, row - sources[at].1)).collect();
    let all: Vec<&RecordBatch> = widened.iter().collect();
    arrow::compute::interleave_record_batch(&all, &order).map_err(Error::arrow("replay"))
}

fn widen(run: &Run, first: usize, end: usize, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    let rows = run.batch.slice(first, end - first);
    let fail = || Error::arrow(run.stream.as_str());
    let stored = stored_from_aligned(&rows, 0).map_err(fail())?;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![run.stream.as_str(); rows.num_rows()]))];
    columns.extend([0, 1, 2, 4, 5, 6].map(|at| Arc::clone(stored.column(at))));
    for field in &schema.fields()[REPLAY_KEYS..] {
        columns.push(match rows.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), rows.num_rows()),
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast(column, field.data_type()).map_err(fail())?,
        });
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(fail())
}

/// The answer of a seek: per stream its row, or null.
///
/// # Errors
/// [`Error::Arrow`] when a value cannot be printed.
pub fn seek_json(rows: &[LastRow]) -> Result<serde_json::Value, Error> {
    let mut streams = serde_json::Map::new();
    for LastRow { stream, row } in rows {
        let value = match row {
            None => serde_json::Value::Null,
            Some(row) => {
                let channels = &row.schema().fields()[ALIGNED_KEYS..].to_vec();
                let schema = replay_schema(channels);
                let run = Run {
                    stream: stream.clone(),
                    batch: Arc::new(row.clone()),
                    first: 0,
                    count: 1,
                };
                let mut renderer = Renderer::new(Format::Ndjson, Arc::clone(&schema));
                let line = renderer.batch(&replay_batch(&[run], &schema)?)?;
                serde_json::from_slice(&line)
                    .map_err(|error| Error::Internal(format!("a row of a seek is no JSON: {error}")))?
            }
        };
        streams.insert(stream.to_string(), value);
    }
    Ok(serde_json::json!({ "streams": streams }))
}
