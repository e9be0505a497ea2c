//! Interlocks: what must hold before a command is sent. Pure; anything unknown counts as not holding.

use std::time::Duration;

use orrery_protocol::TaiNanos;
use serde::Serialize;

use crate::forecast::Forecast;
use crate::graph::{Condition, Graph, Interlock};
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
    /// Why it does not hold; none when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
        id: format!("range-{}", control.channel),
        text,
        ok: inside,
        margin,
        reading: value.is_finite().then_some(value),
        reason,
    }
}

fn judge(graph: &Graph, interlock: &Interlock, evidence: &Evidence<'_>) -> Report {
    let report = |ok, margin, reading, reason| Report {
        id: interlock.id.clone(),
        text: interlock.text.clone(),
        ok,
        margin,
        reading,
        reason,
    };
    let unknown = |why: String| report(false, "no reading".to_owned(), None, Some(why));
    match &interlock.condition {
        Condition::Below { channels, limit, unit } => {
            let unit = units::display(unit);
            let mut greatest = f64::NEG_INFINITY;
            for channel in channels {
                match evidence.readings.get(channel) {
                    Some(reading) => greatest = greatest.max(reading.value),
                    None => {
                        return unknown(format!("{channel} has no reading. Look for the device under Devices."));
                    }
                }
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
            let age = seconds(evidence.now.since(last));
            let ok = age <= *within_s;
            let reason = (!ok)
                .then(|| format!("Last sample of {stream} is {age:.1} s old. Check the device's cable and agent."));
            report(ok, margin(within_s - age, "s"), Some(age), reason)
        }
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

pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
