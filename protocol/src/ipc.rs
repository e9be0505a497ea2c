//! Arrow IPC streams of exactly one record batch, with schema metadata: written small, read with suspicion.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, Schema};

/// Writes one batch with the given schema metadata.
pub(crate) fn encode(batch: &RecordBatch, metadata: HashMap<String, String>) -> Result<Vec<u8>, ArrowError> {
    let schema = Arc::new(Schema::new_with_metadata(batch.schema().fields().clone(), metadata));
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
        let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
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

/// Walks the encapsulated messages (Arrow columnar format, "IPC streaming format") and checks that every length lies
/// inside the bytes: the reader would otherwise allocate whatever a hostile header claims.
fn check_frames(bytes: &[u8]) -> Result<(), String> {
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|four| four.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let mut at = 0;
    while at < bytes.len() {
        if word(at) != Some(0xffff_ffff) {
            return Err(format!("no Arrow IPC message starts at byte {at}"));
        }
        let length = word(at + 4).ok_or("it ends within a message")? as usize;
        if length == 0 {
            return Ok(());
        }
        let header = bytes.get(at + 8..).and_then(|rest| rest.get(..length));
        let header = header.ok_or_else(|| format!("the message at byte {at} claims more bytes than there are"))?;
        let message = arrow_ipc::root_as_message(header).map_err(|error| format!("message at byte {at}: {error}"))?;
        let body = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        let rest = bytes.len() - (at + 8 + length);
        if body > rest {
            return Err(format!(
                "the message at byte {at} claims a body of {body} bytes, and {rest} follow"
            ));
        }
        at += 8 + length + body;
    }
    Ok(())
}
