//! The raw archive: every envelope whose signature held, byte-exact, with its verdict.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use orrery_protocol::{Claims, Digest, TaiNanos};

use crate::columns::{stored_schema, utc_column, utc_type};
use crate::{Error, Store};

/// One archived envelope.
#[derive(Debug, Clone)]
pub struct ArchivedEnvelope {
    /// What its signed header claims.
    pub claims: Claims,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// When the bus took it.
    pub received: TaiNanos,
    /// What the door said.
    pub verdict: &'static str,
    /// Its exact bytes.
    pub bytes: Vec<u8>,
}

/// The archive's columns after the keys; `time` is when the bus took the envelope.
pub fn raw_fields() -> Vec<FieldRef> {
    let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
    vec![
        field("device_id", DataType::Utf8),
        field("timestamp", utc_type()),
        field("payload_type", DataType::Utf8),
        field("digest", DataType::Utf8),
        field("verdict", DataType::Utf8),
        field("bytes", DataType::Binary),
    ]
}

/// Archived envelopes as a stored batch.
///
/// # Errors
/// Never for columns of equal length, which these are.
pub fn raw_batch(envelopes: &[ArchivedEnvelope], revision: u64) -> Result<RecordBatch, ArrowError> {
    let rows = envelopes.len();
    let text = |get: &dyn Fn(&ArchivedEnvelope) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(envelopes.iter().map(get)))
    };
    let received = Int64Array::from_iter_values(envelopes.iter().map(|envelope| envelope.received.0));
    let stamps = envelopes.iter().map(|envelope| envelope.claims.timestamp.to_utc().0);
    let columns: Vec<ArrayRef> = vec![
        utc_column(&received),
        Arc::new(received),
        Arc::new(Int64Array::from(vec![0; rows])),
        Arc::new(UInt64Array::from(vec![revision; rows])),
        text(&|envelope| envelope.claims.boot_id.to_string()),
        Arc::new(UInt64Array::from_iter_values(
            envelopes.iter().map(|envelope| envelope.claims.sequence),
        )),
        Arc::new(UInt32Array::from(vec![0; rows])),
        text(&|envelope| envelope.claims.device_id.to_string()),
        Arc::new(TimestampNanosecondArray::from_iter_values(stamps).with_timezone("UTC")),
        text(&|envelope| envelope.claims.payload_type.as_str().to_owned()),
        text(&|envelope| envelope.digest.to_string()),
        text(&|envelope| envelope.verdict.to_owned()),
        Arc::new(BinaryArray::from_iter_values(
            envelopes.iter().map(|envelope| &envelope.bytes),
        )),
    ];
    RecordBatch::try_new(stored_schema(&raw_fields()), columns)
}

impl Store {
    /// The digest under which an accepted envelope with this device, boot and sequence was archived.
    ///
    /// # Errors
    /// [`Error`] when a segment of the archive is gone or altered.
    pub async fn archived_digest(&self, claims: &Claims) -> Result<Option<Digest>, Error> {
        // Ids are of a checked alphabet without quotes, so they can stand in the text.
        let sql = format!(
            "SELECT digest FROM raw.envelopes WHERE device_id = '{}' AND boot_id = '{}' AND sequence = {} AND verdict = 'accepted' LIMIT 1",
            claims.device_id, claims.boot_id, claims.sequence
        );
        let mut answer = self.query(&sql).await?;
        while let Some(batch) = answer.next().await? {
            if batch.num_rows() > 0 {
                let digest = batch
                    .column(0)
                    .as_string_opt::<i32>()
                    .map(|column| column.value(0).parse());
                return Ok(digest.and_then(Result::ok));
            }
        }
        Ok(None)
    }
}
