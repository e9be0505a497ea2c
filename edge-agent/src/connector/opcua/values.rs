//! From the server's types to ours.

use opcua::types::{DateTime, Variant};
use orrery_protocol::{ChannelType, Value};

/// A server's stamp; none where it gave none.
pub fn unix_nanos(time: &DateTime) -> Option<i64> {
    if time.is_null() {
        None
    } else {
        time.as_chrono().timestamp_nanos_opt()
    }
}

/// A value as its channel is declared; none where it cannot be one.
pub fn convert(value: &Variant, kind: ChannelType) -> Option<Value> {
    let truth = |value: &Variant| match value {
        Variant::Boolean(truth) => Some(*truth),
        other => other.as_f64().map(|number| number != 0.0),
    };
    match kind {
        ChannelType::F64 | ChannelType::F32 => match value {
            Variant::Boolean(truth) => Some(Value::Float(f64::from(u8::from(*truth)))),
            other => other.as_f64().map(Value::Float),
        },
        ChannelType::I64 => match value {
            Variant::Int64(whole) => Some(Value::Integer(*whole)),
            other => other
                .as_f64()
                .filter(|number| number.fract() == 0.0)
                .map(|number| Value::Integer(number as i64)),
        },
        ChannelType::Bool => truth(value).map(Value::Bool),
        ChannelType::Utf8 => match value {
            Variant::String(text) => Some(Value::Text(text.as_ref().to_owned())),
            other => Some(Value::Text(other.to_string())),
        },
    }
}
