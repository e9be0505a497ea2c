//! SHA-256 digests, and the digest of a replay.

use std::fmt;
use std::str::FromStr;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types};
use arrow_schema::{DataType, Schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = hex::decode(text).map_err(|_| format!("`{text}` is not hexadecimal"))?;
        Self::from_slice(&bytes).ok_or_else(|| format!("`{text}` has not 64 digits"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The digest of a replay: SHA-256 over each stream's schema where its first row stands, then the rows in total order.
///
/// ```text
/// prefix   "orrery-replay-1\n"
/// schema   0x00, stream, u32 count, then per channel: name, type           (texts: u32 length, UTF-8)
/// row      0x01, stream, i64 time_tai, i64 time_uncertainty, boot_id[16], u64 sequence, u32 index,
///          then per channel: u8 valid; if valid the value                  (numbers little-endian, NaN 0x7ff8…0)
/// ```
/// A stream's schema is written before its first row. Neither file layout, batch boundaries nor the revision enter.
#[derive(Debug, Clone)]
pub struct ReplayDigest {
    hash: Sha256,
    seen: std::collections::BTreeSet<String>,
    rows: u64,
}

/// The five columns every aligned table starts with, in this order; channels follow.
pub(crate) const KEY_COLUMNS: [&str; 5] = ["time_tai", "time_uncertainty", "boot_id", "sequence", "index"];

impl Default for ReplayDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayDigest {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        let mut hash = Sha256::new();
        hash.update(b"orrery-replay-1\n");
        Self {
            hash,
            seen: std::collections::BTreeSet::new(),
            rows: 0,
        }
    }

    /// Declares a stream's channels (names and Arrow types) ahead of its rows.
    /// Columns that are not channels (`time`, `revision`, the key columns) must not be in `schema`.
    fn schema(&mut self, stream: &str, schema: &Schema) {
        if !self.seen.insert(stream.to_owned()) {
            return;
        }
        self.hash.update([0u8]);
        self.text(stream);
        let channels: Vec<_> = schema
            .fields()
            .iter()
            .filter(|field| is_channel(field.name()))
            .collect();
        self.hash.update((channels.len() as u32).to_le_bytes());
        for field in channels {
            self.text(field.name());
            self.text(type_name(field.data_type()));
        }
    }

    /// Adds rows `first..first + count` of a batch in aligned layout. Rows must come in the total order.
    pub fn rows(&mut self, stream: &str, batch: &RecordBatch, first: usize, count: usize) {
        self.schema(stream, &batch.schema());
        let column = |name: &str| batch.column_by_name(name);
        let keys: [Option<&ArrayRef>; 5] = KEY_COLUMNS.map(column);
        let schema = batch.schema();
        let channels: Vec<&ArrayRef> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .filter(|(field, _)| is_channel(field.name()))
            .map(|(_, column)| column)
            .collect();
        for row in first..first + count {
            self.hash.update([1u8]);
            self.text(stream);
            for key in keys.into_iter().flatten() {
                self.key(key, row);
            }
            for channel in &channels {
                self.value(channel, row);
            }
            self.rows += 1;
        }
    }

    /// How many rows entered.
    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// The digest of all that entered.
    pub fn finish(self) -> Digest {
        Digest(self.hash.finalize().into())
    }

    fn text(&mut self, text: &str) {
        self.hash.update((text.len() as u32).to_le_bytes());
        self.hash.update(text.as_bytes());
    }

    fn key(&mut self, array: &ArrayRef, row: usize) {
        match array.data_type() {
            DataType::Int64 => self
                .hash
                .update(array.as_primitive::<types::Int64Type>().value(row).to_le_bytes()),
            DataType::UInt64 => self
                .hash
                .update(array.as_primitive::<types::UInt64Type>().value(row).to_le_bytes()),
            DataType::UInt32 => self
                .hash
                .update(array.as_primitive::<types::UInt32Type>().value(row).to_le_bytes()),
            DataType::FixedSizeBinary(_) => self.hash.update(array.as_fixed_size_binary().value(row)),
            _ => {}
        }
    }

    fn value(&mut self, array: &ArrayRef, row: usize) {
        if array.is_null(row) {
            self.hash.update([0u8]);
            return;
        }
        self.hash.update([1u8]);
        match array.data_type() {
            DataType::Float64 => {
                let value = array.as_primitive::<types::Float64Type>().value(row);
                let bits = if value.is_nan() {
                    0x7ff8_0000_0000_0000
                } else {
                    value.to_bits()
                };
                self.hash.update(bits.to_le_bytes());
            }
            DataType::Float32 => {
                let value = array.as_primitive::<types::Float32Type>().value(row);
                let bits = if value.is_nan() {
                    0x7fc0_0000u32
                } else {
                    value.to_bits()
                };
                self.hash.update(bits.to_le_bytes());
            }
            DataType::Int64 => self
                .hash
                .update(array.as_primitive::<types::Int64Type>().value(row).to_le_bytes()),
            DataType::UInt64 => self
                .hash
                .update(array.as_primitive::<types::UInt64Type>().value(row).to_le_bytes()),
            DataType::Boolean => self.hash.update([u8::from(array.as_boolean().value(row))]),
            DataType::Utf8 => self.text(array.as_string::<i32>().value(row)),
            DataType::Utf8View => self.text(array.as_string_view().value(row)),
            _ => {}
        }
    }
}

fn is_channel(name: &str) -> bool {
    !KEY_COLUMNS.contains(&name) && !matches!(name, "time" | "revision" | "stream")
}

fn type_name(kind: &DataType) -> &'static str {
    match kind {
        DataType::Float64 => "f64",
        DataType::Float32 => "f32",
        DataType::Int64 => "i64",
        DataType::UInt64 => "u64",
        DataType::Boolean => "bool",
        DataType::Utf8 | DataType::Utf8View => "utf8",
        _ => "other",
    }
}
