//! Readings out of messages: JSON with pointers (RFC 6901), or one plain number. Pure.

use orrery_protocol::{ChannelType, DeviceNanos, TaiNanos, Value};
use serde_json::Value as Json;

use crate::config::{StreamConfig, TimeFormat};
use crate::connector::excerpt;

/// One row as a message gave it.
pub type Row = (Option<DeviceNanos>, Vec<Value>);

/// How one stream reads a message.
#[derive(Debug, Clone)]
pub struct Extractor {
    columns: Vec<(String, ChannelType)>,
    time: Option<(String, TimeFormat)>,
}

impl Extractor {
    /// The extractor of a stream; a source without a leading slash is a field of the outermost object.
    pub fn new(stream: &StreamConfig) -> Self {
        Self {
            columns: stream
                .channels
                .iter()
                .map(|channel| (pointer(channel.source()), channel.kind))
                .collect(),
            time: stream.time.as_ref().map(|time| (pointer(&time.source), time.format)),
        }
    }

    /// Reads one message. Fields that are absent or null are null; a message with none of the fields is an error.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the message and shows its beginning.
    pub fn row(&self, payload: &[u8]) -> Result<Row, String> {
        let message: Json =
            serde_json::from_slice(payload).map_err(|error| format!("not JSON ({error}): {}", excerpt(payload)))?;
        if !(message.is_object() || message.is_array()) {
            return self.plain(&message, payload);
        }
        let values: Vec<Value> = self
            .columns
            .iter()
            .map(|(pointer, kind)| match message.pointer(pointer) {
                None | Some(Json::Null) => Ok(Value::Null),
                Some(found) => value(found, *kind)
                    .ok_or_else(|| format!("{pointer} is not a {kind:?}: {}", excerpt(found.to_string().as_bytes()))),
            })
            .collect::<Result<_, _>>()?;
        if values.iter().all(|value| *value == Value::Null) {
            let wanted: Vec<_> = self.columns.iter().map(|(pointer, _)| pointer.as_str()).collect();
            return Err(format!("none of {} in {}", wanted.join(", "), excerpt(payload)));
        }
        let device_time = match &self.time {
            None => None,
            Some((pointer, format)) => {
                let found = message
                    .pointer(pointer)
                    .ok_or_else(|| format!("no stamp at {pointer}"))?;
                Some(stamp(found, *format).ok_or_else(|| {
                    format!(
                        "the stamp at {pointer} is not {format:?}: {}",
                        excerpt(found.to_string().as_bytes())
                    )
                })?)
            }
        };
        Ok((device_time, values))
    }

    /// A message that is one bare value is the first channel.
    fn plain(&self, message: &Json, payload: &[u8]) -> Result<Row, String> {
        let Some((_, kind)) = self.columns.first() else {
            return Err("the stream has no channel".to_owned());
        };
        let first =
            value(message, *kind).ok_or_else(|| format!("not a {kind:?} and not an object: {}", excerpt(payload)))?;
        let mut values = vec![Value::Null; self.columns.len()];
        values[0] = first;
        Ok((None, values))
    }
}

/// The numeric fields of a message as pointers, and the field that looks like its stamp: what a stream can be made of.
pub fn discover(message: &Json) -> (Vec<String>, Option<String>) {
    let mut numbers = Vec::new();
    let mut time = None;
    walk(message, String::new(), 0, &mut numbers, &mut time);
    (numbers, time)
}

fn walk(at: &Json, path: String, depth: usize, numbers: &mut Vec<String>, time: &mut Option<String>) {
    const TIME_NAMES: [&str; 6] = ["ts", "time", "timestamp", "time_ns", "datetime", "date"];
    const DEEPEST: usize = 8;
    const MOST_FIELDS: usize = 64;
    if depth > DEEPEST || numbers.len() >= MOST_FIELDS {
        return;
    }
    match at {
        Json::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                let is_time = TIME_NAMES.contains(&name.to_lowercase().as_str());
                if is_time && time.is_none() && stamp(field, TimeFormat::Auto).is_some_and(is_plausible) {
                    *time = Some(path);
                } else {
                    walk(field, path, depth + 1, numbers, time);
                }
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate().take(MOST_FIELDS) {
                walk(item, format!("{path}/{index}"), depth + 1, numbers, time);
            }
        }
        Json::Number(_) => numbers.push(path),
        Json::Null | Json::Bool(_) | Json::String(_) => {}
    }
}

/// A stamp between 2000 and 2100: smaller numbers are uptimes and counters.
fn is_plausible(stamp: DeviceNanos) -> bool {
    (946_684_800_000_000_000..4_102_444_800_000_000_000).contains(&stamp.0)
}

fn pointer(source: &str) -> String {
    if source.is_empty() || source.starts_with('/') {
        source.to_owned()
    } else {
        format!("/{source}")
    }
}

fn value(found: &Json, kind: ChannelType) -> Option<Value> {
    let number = || match found {
        Json::Number(number) => number.as_f64(),
        Json::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match kind {
        ChannelType::F64 | ChannelType::F32 => number().map(Value::Float),
        ChannelType::I64 => match found {
            Json::Number(number) => number.as_i64().map(Value::Integer),
            Json::Bool(truth) => Some(Value::Integer(i64::from(*truth))),
            Json::String(text) => text.trim().parse().ok().map(Value::Integer),
            _ => None,
        },
        ChannelType::Bool => match found {
            Json::Bool(truth) => Some(Value::Bool(*truth)),
            Json::Number(number) => number.as_f64().map(|number| Value::Bool(number != 0.0)),
            Json::String(text) => match text.trim().to_lowercase().as_str() {
                "true" | "on" | "1" | "yes" => Some(Value::Bool(true)),
                "false" | "off" | "0" | "no" => Some(Value::Bool(false)),
                _ => None,
            },
            _ => None,
        },
        ChannelType::Utf8 => match found {
            Json::String(text) => Some(Value::Text(text.clone())),
            other => Some(Value::Text(other.to_string())),
        },
    }
}

fn stamp(found: &Json, format: TimeFormat) -> Option<DeviceNanos> {
    match found {
        Json::String(text) => text_stamp(text, format),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => integer_stamp(whole, format),
            None => float_stamp(number.as_f64()?, format),
        },
        _ => None,
    }
}

/// Reads a stamp out of a text: RFC 3339, or a number.
pub fn text_stamp(text: &str, format: TimeFormat) -> Option<DeviceNanos> {
    let text = text.trim();
    if matches!(format, TimeFormat::Auto | TimeFormat::Rfc3339)
        && let Ok(time) = TaiNanos::parse_rfc3339(text)
    {
        return Some(DeviceNanos(time.to_utc().0));
    }
    match text.parse::<i64>() {
        Ok(whole) => integer_stamp(whole, format),
        Err(_) => float_stamp(text.parse().ok()?, format),
    }
}

fn nanos_per_unit(magnitude: f64, format: TimeFormat) -> Option<i64> {
    Some(match format {
        TimeFormat::UnixS => 1_000_000_000,
        TimeFormat::UnixMs => 1_000_000,
        TimeFormat::UnixUs => 1_000,
        TimeFormat::UnixNs => 1,
        TimeFormat::Rfc3339 => return None,
        // Until the year 5138 seconds stay below 1e11, and so on up: the ranges do not meet.
        TimeFormat::Auto if magnitude < 1e11 => 1_000_000_000,
        TimeFormat::Auto if magnitude < 1e14 => 1_000_000,
        TimeFormat::Auto if magnitude < 1e17 => 1_000,
        TimeFormat::Auto => 1,
    })
}

fn integer_stamp(whole: i64, format: TimeFormat) -> Option<DeviceNanos> {
    let unit = nanos_per_unit(whole as f64, format)?;
    whole.checked_mul(unit).map(DeviceNanos)
}

fn float_stamp(number: f64, format: TimeFormat) -> Option<DeviceNanos> {
    let unit = nanos_per_unit(number, format)?;
    // Whole and fraction apart: a double of seconds has 0.2 µs, and multiplying it whole would lose more.
    let whole = number.floor();
    if !whole.is_finite() || whole.abs() >= 9.2e18 {
        return None;
    }
    let nanos = (whole as i64).checked_mul(unit)?;
    nanos
        .checked_add(((number - whole) * unit as f64).round() as i64)
        .map(DeviceNanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ChannelConfig, TimeConfig};
    use proptest::prelude::*;

    fn stream(channels: &[(&str, &str)], time: Option<&str>) -> StreamConfig {
        StreamConfig {
            name: "s".to_owned(),
            title: None,
            nominal_rate_hz: None,
            droppable: true,
            max_silence_ms: None,
            calibration: None,
            topic: None,
            time: time.map(|source| TimeConfig {
                source: source.to_owned(),
                format: TimeFormat::Auto,
            }),
            channels: channels
                .iter()
                .map(|(name, source)| ChannelConfig::float(name, "1", source))
                .collect(),
        }
    }

    #[test]
    fn fields_and_stamps_are_found_by_pointer() {
        let extractor = Extractor::new(&stream(
            &[("t", "/air/temperature"), ("h", "humidity"), ("x", "/x")],
            Some("/ts"),
        ));
        let (time, values) = extractor
            .row(br#"{"air":{"temperature":21.5},"humidity":"44.1","ts":1700000000.25}"#)
            .unwrap();
        assert_eq!(time, Some(DeviceNanos(1_700_000_000_250_000_000)));
        assert_eq!(values, [Value::Float(21.5), Value::Float(44.1), Value::Null]);
    }

    #[test]
    fn every_way_to_write_one_instant_is_read() {
        let expected = Some(DeviceNanos(1_700_000_000_000_000_000));
        for text in [
            "1700000000",
            "1700000000000",
            "1700000000000000",
            "1700000000000000000",
            "2023-11-14T22:13:20Z",
        ] {
            assert_eq!(text_stamp(text, TimeFormat::Auto), expected, "{text}");
        }
        assert_eq!(text_stamp("1700000000", TimeFormat::Rfc3339), None);
    }

    #[test]
    fn a_plain_number_is_the_first_channel() {
        let extractor = Extractor::new(&stream(&[("t", "/t")], None));
        assert_eq!(extractor.row(b"21.5").unwrap().1, [Value::Float(21.5)]);
        assert_eq!(extractor.row(b"\"21.5\"").unwrap().1, [Value::Float(21.5)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let extractor = Extractor::new(&stream(&[("t", "/t")], Some("/ts")));
        for (message, wanted) in [
            (&b"\x00\xffgarbage"[..], "not JSON"),
            (br#"{"u":1,"ts":1}"#, "none of /t"),
            (br#"{"t":"warm","ts":1}"#, "/t is not a F64"),
            (br#"{"t":1}"#, "no stamp at /ts"),
            (br#"{"t":1,"ts":"noon"}"#, "the stamp at /ts"),
        ] {
            let error = extractor.row(message).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn numeric_fields_and_the_stamp_are_discovered() {
        let message = serde_json::json!({"temperature": 21.5, "ts": "2026-11-21T14:00:00Z", "a": {"b/c": [1, "x", 2]},
            "time": 12, "name": "x"});
        let (mut numbers, time) = discover(&message);
        numbers.sort();
        assert_eq!(numbers, ["/a/b~1c/0", "/a/b~1c/2", "/temperature", "/time"]);
        assert_eq!(time.as_deref(), Some("/ts"));
        for pointer in numbers {
            assert!(message.pointer(&pointer).is_some());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_row_or_a_reason(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extractor::new(&stream(&[("t", "/t")], Some("/ts"))).row(&payload);
        }

        #[test]
        fn any_number_gives_a_row(number in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let payload = serde_json::json!({ "t": number, "ts": number }).to_string();
            let _ = Extractor::new(&stream(&[("t", "/t")], Some("/ts"))).row(payload.as_bytes());
            let row = Extractor::new(&stream(&[("t", "/t")], None)).row(payload.as_bytes()).unwrap();
            prop_assert_eq!(row.1, vec![Value::Float(number)]);
        }
    }
}
