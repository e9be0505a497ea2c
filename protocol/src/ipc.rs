//! Arrow IPC streams of exactly one record batch, with schema metadata: written small, read with suspicion.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, Schema};

/// Writes one batch with the given schema metadata.
pub(crate) fn encode(
    batch: &RecordBatch,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, ArrowError> {
    let schema = Arc::new(Schema::new_with_metadata(
        batch.schema().fields().clone(),
        metadata,
    ));
    let batch = batch.clone().with_schema(Arc::clone(&schema))?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    writer.into_inner()
}

/// Reads a stream of exactly one batch; every offset and length is validated, nothing panics.
pub(crate) fn decode(bytes: &[u8]) -> Result<RecordBatch, String> {
    check_frames(bytes)?;
    // The reader trusts lengths inside the flatbuffer in a few places and may panic on hostile input; a foreign
    // block must cost its sender an error, not us a thread.
    let read = std::panic::catch_unwind(|| {
        let mut reader =
            StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
        let batch = reader
            .next()
            .ok_or("it holds no record batch")?
            .map_err(|error| error.to_string())?;
        match reader.next() {
            None => Ok(batch),
            Some(_) => Err("it holds more than one record batch".to_owned()),
        }
    });
    read.unwrap_or_else(|_| Err("its buffers contradict its schema".to_owned()))
}

/// Checks that each message's declared metadata length lies inside the bytes, so that the reader never allocates more.
fn check_frames(bytes: &[u8]) -> Result<(), String> {
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|four| four.try_into().ok())
            .map(u32::from_le_bytes)
    };
    match word(0) {
        Some(0xffff_ffff) => {}
        _ => return Err("it does not start as an Arrow IPC stream".to_owned()),
    }
    let length = word(4).ok_or("it ends within its first frame")? as usize;
    if length > bytes.len() {
        return Err(format!(
            "its schema claims {length} bytes, more than there are"
        ));
    }
    Ok(())
}
