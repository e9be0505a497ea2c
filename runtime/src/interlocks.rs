//! Interlocks: what must hold before a command is sent. Pure; anything unknown counts as not holding.

use orrery_protocol::TaiNanos;
use serde::Serialize;

use crate::forecast::Forecast;
use crate::graph::{ChannelRef, Condition, Graph, Interlock};
use crate::readings::Readings;
use crate::units;

/// An interlock and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The interlock.
    pub id: String,
    /// What it says.
    pub text: String,
    /// Whether it holds.
    pub ok: bool,
    /// How much is spare, or over: "16.6 °C spare".
    pub margin: String,
    /// What was read, in the interlock's unit; none when there is no reading.
    pub reading: Option<f64>,
    /// What the channels must stay within, for the line on a chart; none where the condition is not on a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// The channels that are held to it, `device/stream.channel`.
    pub channels: Vec<ChannelRef>,
    /// Why it does not hold; none when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a value must stay within.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Not below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Not above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The unit (UCUM).
    pub unit: String,
}

/// What interlocks are judged by.
pub struct Evidence<'a> {
    /// The latest measurements.
    pub readings: &'a Readings,
    /// Reference time.
    pub now: TaiNanos,
    /// The look ahead under the proposed change, for a horizon in seconds; the reason where there is none.
    pub ahead: &'a dyn Fn(u32) -> Result<Forecast, String>,
}

/// Judges every interlock of a graph.
pub fn check(graph: &Graph, evidence: &Evidence<'_>) -> Vec<Report> {
    graph
        .interlocks
        .iter()
        .map(|interlock| judge(graph, interlock, evidence))
        .collect()
}

/// The limits of a channel, as one more interlock of a proposed value.
pub fn range(control: &crate::graph::ControlChannel, value: f64) -> Report {
    let unit = units::display(&control.unit);
    let inside = value >= control.low && value <= control.high;
    let text = format!("{} within {} to {} {unit}", control.title, control.low, control.high);
    let spare = (control.high - value).min(value - control.low);
    let margin = if value.is_finite() {
        margin(spare, unit)
    } else {
        "no reading".to_owned()
    };
    let reason = (!inside).then(|| {
        format!(
            "{} would be {value} {unit}; choose {} to {} {unit}.",
            control.title, control.low, control.high
        )
    });
    Report {
        id: format!("range-{}-{}", control.device, control.channel),
        text,
        ok: inside,
        margin,
        reading: value.is_finite().then_some(value),
        limit: Some(Limit {
            min: Some(control.low),
            max: Some(control.high),
            unit: control.unit.clone(),
        }),
        channels: vec![control.readback.clone()],
        reason,
    }
}

/// The limit of an interlock and the channels it is on; a prediction's are the twin's own.
fn limited(graph: &Graph, condition: &Condition) -> (Option<Limit>, Vec<ChannelRef>) {
    let below = |limit: f64, unit: &str| {
        Some(Limit {
            min: None,
            max: Some(limit),
            unit: unit.to_owned(),
        })
    };
    match condition {
        Condition::Below { channels, limit, unit } => (below(*limit, unit), channels.clone()),
        Condition::ForecastBelow {
            outputs, limit, unit, ..
        } => {
            let stream = graph.output_stream();
            let channel = |output: &String| ChannelRef {
                stream: stream.clone(),
                channel: output.clone(),
            };
            (below(*limit, unit), outputs.iter().map(channel).collect())
        }
        Condition::Answers { .. } => (None, Vec::new()),
    }
}

fn judge(graph: &Graph, interlock: &Interlock, evidence: &Evidence<'_>) -> Report {
    let (limit, channels) = limited(graph, &interlock.condition);
    let report = |ok, margin, reading, reason| Report {
        id: interlock.id.clone(),
        text: interlock.text.clone(),
        ok,
        margin,
        reading,
        limit: limit.clone(),
        channels: channels.clone(),
        reason,
    };
    let unknown = |why: String| report(false, "no reading".to_owned(), None, Some(why));
    match &interlock.condition {
        Condition::Below { channels, limit, unit } => {
            let unit = units::display(unit);
            let mut greatest = f64::NEG_INFINITY;
            for channel in channels {
                let Some(reading) = evidence.readings.get(channel) else {
                    return unknown(format!("{channel} has no reading. Look for the device under Devices."));
                };
                let age = age(reading.at, evidence.now);
                // What ends the graph's own run is no evidence either.
                if age.abs() > graph.reset_after_ms as f64 / 1e3 {
                    return unknown(stale(&format!("The last reading of {channel}"), age));
                }
                greatest = greatest.max(reading.value);
            }
            let ok = greatest < *limit;
            let reason = (!ok).then(|| format!("Measured {greatest:.1} {unit}, limit {limit} {unit}. Let it cool."));
            report(ok, margin(limit - greatest, unit), Some(greatest), reason)
        }
        Condition::ForecastBelow {
            outputs,
            limit,
            unit,
            horizon_s,
        } => {
            let unit = units::display(unit);
            let forecast = match (evidence.ahead)(*horizon_s) {
                Ok(forecast) => forecast,
                Err(why) => return unknown(format!("No prediction: {why}.")),
            };
            let (mut greatest, mut whose) = (f64::NEG_INFINITY, String::new());
            for output in outputs {
                match forecast.summary.get(output) {
                    Some(summary) if summary.max > greatest => (greatest, whose) = (summary.max, title(graph, output)),
                    Some(_) => {}
                    None => return unknown(format!("No prediction of {output}.")),
                }
            }
            let ok = greatest < *limit;
            let within = horizon(*horizon_s);
            let reason = (!ok).then(|| {
                format!(
                    "{whose} reaches {greatest:.1} {unit} within {within}, limit {limit} {unit}. Choose less power."
                )
            });
            report(ok, margin(limit - greatest, unit), Some(greatest), reason)
        }
        Condition::Answers { stream, within_s } => {
            let Some(last) = evidence.readings.last_row(stream) else {
                return unknown(format!("{stream} has sent nothing. Look for the device under Devices."));
            };
            let age = age(last, evidence.now);
            let ok = age.abs() <= *within_s;
            let reason = (!ok).then(|| stale(&format!("The last sample of {stream}"), age));
            report(ok, margin(within_s - age.abs(), "s"), Some(age), reason)
        }
    }
}

/// Seconds from `at` to `now`, below zero for what is stamped in the future.
pub(crate) fn age(at: TaiNanos, now: TaiNanos) -> f64 {
    now.nanos_since(at) as f64 / 1e9
}

fn stale(what: &str, age: f64) -> String {
    if age < 0.0 {
        format!(
            "{what} is stamped {:.1} s in the future. Check the device's clock.",
            -age
        )
    } else {
        format!("{what} is {age:.1} s old. Check the device's cable and agent.")
    }
}

fn margin(spare: f64, unit: &str) -> String {
    if spare >= 0.0 {
        format!("{spare:.1} {unit} spare")
    } else {
        format!("{:.1} {unit} over", -spare)
    }
}

/// A duration in the words of the page.
pub fn horizon(seconds: u32) -> String {
    if seconds >= 120 && seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

/// The title of an output.
pub fn title(graph: &Graph, output: &str) -> String {
    graph
        .outputs
        .get(output)
        .and_then(|binding| binding.title.clone())
        .unwrap_or_else(|| output.to_owned())
}
