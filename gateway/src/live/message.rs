//! The messages of the live stream, rendered once and shared by every client.
//!
//! Times are UNIX milliseconds UTC as a browser draws them; NaN and infinities are `null`.

use std::fmt::Write;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use axum::extract::ws::Utf8Bytes;
use orrery_protocol::{AlignedBlock, StreamId, TaiNanos, UtcNanos, leap};
use serde_json::{Value, json};

/// A samples message carries at most so many rows; a larger block becomes several messages.
pub const MAX_ROWS: usize = 2_048;

/// One message, ready to go out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The JSON text.
    pub text: Utf8Bytes,
    /// What a client that has this message may resume from.
    pub cursor: Option<Utf8Bytes>,
    /// The rows inside, for the account of what a slow client lost.
    pub rows: Option<Rows>,
}

/// Which rows a message carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Their stream.
    pub stream: StreamId,
    /// The time of the first, UNIX milliseconds.
    pub from_ms: f64,
    /// The time of the last, UNIX milliseconds.
    pub to_ms: f64,
}

impl Outgoing {
    /// A message without rows.
    pub fn plain(value: &Value) -> Self {
        Self {
            text: value.to_string().into(),
            cursor: None,
            rows: None,
        }
    }

    /// How much it counts in a queue.
    pub fn size(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

/// The first message of every connection.
pub fn hello(now: TaiNanos, build: &str) -> Outgoing {
    let expires: UtcNanos = leap::expires();
    Outgoing::plain(&json!({
        "type": "hello",
        "server_ms": now.to_unix_millis(),
        "leap_expires": TaiNanos::from_utc(expires).to_rfc3339(),
        "build": build,
    }))
}

/// Some rows of a block; `cursor` is where a client stands after them.
pub fn samples(block: &AlignedBlock, rows: Range<usize>, cursor: &str) -> Outgoing {
    let mut text = String::with_capacity(256 + rows.len() * 24 * (block.batch.num_columns() - 3));
    text.push_str(r#"{"type":"samples","stream":""#);
    let _ = write!(text, "{}\",\"t\":[", block.stream);
    list(&mut text, rows.clone(), |text, row| {
        number(text, block.time(row).to_unix_millis())
    });
    text.push_str(r#"],"u_ms":["#);
    list(&mut text, rows.clone(), |text, row| {
        number(text, block.uncertainty_nanos(row) as f64 / 1e6)
    });
    text.push_str(r#"],"channels":{"#);
    for (at, (name, column)) in block.channels().enumerate() {
        if at > 0 {
            text.push(',');
        }
        string(&mut text, &name);
        text.push_str(":[");
        list(&mut text, rows.clone(), |text, row| value(text, column, row));
        text.push(']');
    }
    let sequences = block.batch.column(3).as_primitive::<UInt64Type>();
    let (first, last) = (rows.start, rows.end - 1);
    let _ = write!(
        text,
        "}},\"seq\":[{},{}],",
        sequences.value(first),
        sequences.value(last)
    );
    tail(&mut text, block);
    let _ = write!(text, ",\"cursor\":\"{cursor}\"}}");
    let rows = Rows {
        stream: block.stream.clone(),
        from_ms: block.time(first).to_unix_millis(),
        to_ms: block.time(last).to_unix_millis(),
    };
    Outgoing {
        text: text.into(),
        cursor: Some(cursor.into()),
        rows: Some(rows),
    }
}

/// A block without rows: nothing came, and nothing will below the watermark.
pub fn watermark(block: &AlignedBlock) -> Outgoing {
    let mut text = format!("{{\"type\":\"watermark\",\"stream\":\"{}\",", block.stream);
    tail(&mut text, block);
    text.push('}');
    Outgoing {
        text: text.into(),
        cursor: None,
        rows: None,
    }
}

/// Rows came late: what a client holds of this span is no longer all there is.
pub fn invalidate(block: &AlignedBlock, rows: Range<usize>) -> Outgoing {
    let times = rows.map(|row| block.time(row));
    let (from, to) = times.fold((TaiNanos(i64::MAX), TaiNanos(i64::MIN)), |(from, to), time| {
        (from.min(time), to.max(time))
    });
    let rows = Rows {
        stream: block.stream.clone(),
        from_ms: from.to_unix_millis(),
        to_ms: to.to_unix_millis(),
    };
    let value = json!({
        "type": "invalidate",
        "stream": block.stream,
        "from_ms": rows.from_ms,
        "to_ms": rows.to_ms,
        "revision": block.revision.to_string(),
    });
    Outgoing {
        rows: Some(rows),
        ..Outgoing::plain(&value)
    }
}

fn tail(text: &mut String, block: &AlignedBlock) {
    text.push_str(r#""watermark_ms":"#);
    number(text, block.watermark.to_unix_millis());
    let _ = write!(text, ",\"revision\":\"{}\"", block.revision);
}

fn list(text: &mut String, rows: Range<usize>, mut item: impl FnMut(&mut String, usize)) {
    let first = rows.start;
    for row in rows {
        if row > first {
            text.push(',');
        }
        item(text, row);
    }
}

fn number(text: &mut String, number: f64) {
    if number.is_finite() {
        let _ = write!(text, "{number}");
    } else {
        text.push_str("null");
    }
}

fn string(text: &mut String, string: &str) {
    text.push_str(&Value::from(string).to_string());
}

fn value(text: &mut String, column: &ArrayRef, row: usize) {
    if column.is_null(row) {
        return text.push_str("null");
    }
    match column.data_type() {
        DataType::Float64 => number(text, column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => {
            // The shortest text of an f32 is not that of the same value as f64.
            let value = column.as_primitive::<Float32Type>().value(row);
            if value.is_finite() {
                let _ = write!(text, "{value}");
            } else {
                text.push_str("null");
            }
        }
        DataType::Int64 => {
            let _ = write!(text, "{}", column.as_primitive::<Int64Type>().value(row));
        }
        DataType::Boolean => text.push_str(if column.as_boolean().value(row) {
            "true"
        } else {
            "false"
        }),
        DataType::Utf8 => string(text, column.as_string::<i32>().value(row)),
        _ => text.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BooleanArray, Float32Array, Float64Array, Int64Array, StringArray};
    use arrow_schema::Field;
    use orrery_protocol::{BootId, Digest};

    use super::*;

    fn block() -> AlignedBlock {
        let start = TaiNanos::parse_rfc3339("2026-11-21T14:32:07.0000005Z").unwrap().0;
        let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
        let channels: Vec<(Arc<Field>, ArrayRef)> = vec![
            (
                field("t1", DataType::Float64),
                Arc::new(Float64Array::from(vec![Some(43.4), Some(f64::NAN), None])),
            ),
            (
                field("f", DataType::Float32),
                Arc::new(Float32Array::from(vec![0.1, f32::INFINITY, -1.0])),
            ),
            (field("n", DataType::Int64), Arc::new(Int64Array::from(vec![1, 2, 3]))),
            (
                field("on", DataType::Boolean),
                Arc::new(BooleanArray::from(vec![true, false, true])),
            ),
            (
                field("say \"x\"", DataType::Utf8),
                Arc::new(StringArray::from(vec!["a", "\"\n", "c"])),
            ),
        ];
        let times = vec![start, start + 100_000_000, start + 200_000_000];
        let batch = AlignedBlock::batch(
            times,
            vec![250_000; 3],
            BootId([1; 16]),
            vec![8, 9, 9],
            vec![0, 0, 1],
            channels,
        )
        .unwrap();
        AlignedBlock {
            stream: StreamId::new("tclab-01/board").unwrap(),
            descriptor: Digest([0; 32]),
            revision: 5,
            watermark: TaiNanos(start),
            asymmetry_nanos: 0,
            extra: Default::default(),
            batch,
        }
    }

    #[test]
    fn samples_are_json_that_a_browser_draws() {
        let message = samples(&block(), 0..3, "c");
        let value: Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(value["type"], "samples");
        assert_eq!(value["stream"], "tclab-01/board");
        let t0 = value["t"][0].as_f64().unwrap();
        assert_eq!(t0, block().time(0).to_unix_millis());
        assert!(t0.fract() > 0.0, "half a microsecond is lost in {t0}");
        assert_eq!(value["u_ms"], json!([0.25, 0.25, 0.25]));
        assert_eq!(value["channels"]["t1"], json!([43.4, null, null]));
        assert_eq!(value["channels"]["f"], json!([0.1, null, -1]));
        assert_eq!(value["channels"]["n"], json!([1, 2, 3]));
        assert_eq!(value["channels"]["on"], json!([true, false, true]));
        assert_eq!(value["channels"]["say \"x\""], json!(["a", "\"\n", "c"]));
        assert_eq!(value["seq"], json!([8, 9]));
        assert_eq!(value["revision"], "5");
        assert_eq!(value["cursor"], "c");
        assert_eq!(message.rows.unwrap().from_ms, t0);
    }

    #[test]
    fn a_part_of_a_block_is_a_message_of_its_own() {
        let value: Value = serde_json::from_str(&samples(&block(), 1..2, "c").text).unwrap();
        assert_eq!(value["t"].as_array().unwrap().len(), 1);
        assert_eq!(value["seq"], json!([9, 9]));
    }

    #[test]
    fn the_other_messages_are_json_too() {
        let value: Value = serde_json::from_str(&watermark(&block()).text).unwrap();
        assert_eq!((&value["type"], &value["revision"]), (&json!("watermark"), &json!("5")));
        let value: Value = serde_json::from_str(&invalidate(&block(), 0..2).text).unwrap();
        assert!(value["to_ms"].as_f64() > value["from_ms"].as_f64());
        let value: Value = serde_json::from_str(&hello(TaiNanos(0), "0.1.0").text).unwrap();
        assert!(value["leap_expires"].as_str().unwrap().ends_with('Z'), "{value}");
    }
}
