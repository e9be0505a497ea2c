//! A graph: which model runs, what feeds it, what it publishes, and what may be commanded. One TOML file.
//!
//! Everything here is parsed into types that cannot be wrong; what needs the compiled model (names, units)
//! is checked by [`crate::bind`].

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orrery_protocol::{DeviceId, Digest, StreamId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::GraphError;

pub(crate) use check::nearest;

/// A graph as its file says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// The graph's name; its outputs are the stream `<id>/board`.
    pub id: DeviceId,
    /// A title for people.
    pub title: String,
    /// The model file; a relative path starts at the graph file's folder.
    pub model: PathBuf,
    /// Length of a tick; tick `k` covers `[k·tick, (k+1)·tick)` of reference time.
    pub tick_ms: u32,
    /// Without a row of a gating stream for this long, the run ends; the next row starts a new one.
    #[serde(default = "default_reset_after_ms")]
    pub reset_after_ms: u64,
    /// The streams that feed the graph.
    pub streams: BTreeMap<StreamId, StreamBinding>,
    /// Model input → the channel it is read from.
    #[serde(default)]
    pub inputs: BTreeMap<String, InputBinding>,
    /// Model parameter → its value.
    #[serde(default)]
    pub parameters: BTreeMap<String, Quantity>,
    /// Model state → the measurement or value it starts a run with.
    #[serde(default)]
    pub start: BTreeMap<String, StartBinding>,
    /// Published channel → the model variable behind it.
    pub outputs: BTreeMap<String, OutputBinding>,
    /// What operators may set.
    #[serde(default, rename = "control")]
    pub controls: Vec<ControlChannel>,
    /// What must hold before a command is sent.
    #[serde(default, rename = "interlock")]
    pub interlocks: Vec<Interlock>,
    /// Bounds on what a run may use.
    #[serde(default)]
    pub limits: Limits,
}

/// How a stream feeds the graph.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamBinding {
    /// The graph stands on this stream: without it, no run.
    #[serde(default)]
    pub gating: bool,
    /// The graph reads this stream so much behind the tick, so that a slow stream holds no tick back.
    #[serde(default)]
    pub delay_ms: u64,
    /// How long a tick waits for this stream; then the stream is held and the trace says so.
    pub max_wait_ms: u64,
}

/// A model input's source.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputBinding {
    /// The stream, one of `[streams]`.
    pub stream: StreamId,
    /// Its channel.
    pub channel: String,
    /// The channel's unit (UCUM).
    pub unit: String,
    /// What holds between two samples.
    pub mode: Mode,
    /// The value until the first sample; without it the run waits for one.
    pub default: Option<f64>,
}

/// What an input does between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The last sample holds.
    Hold,
    /// The straight line between samples; a tick then also waits for the sample after its end.
    Interpolate,
}

/// A number with its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// What a model state starts a run with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartBinding {
    /// The measured channel, `device/stream.channel`.
    pub measured: ChannelRef,
    /// The channel's unit (UCUM).
    pub unit: String,
}

/// A published channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputBinding {
    /// The model variable.
    pub from: String,
    /// The unit it is published in (UCUM).
    pub unit: String,
    /// A title for people.
    pub title: Option<String>,
    /// The measured channel it is compared with, `device/stream.channel`.
    pub measured: Option<ChannelRef>,
    /// How uncertain the prediction is.
    pub uncertainty: Uncertainty,
}

/// How a prediction's standard uncertainty grows and settles.
///
/// The variance of the model error follows `dv/dt = 2 (live² − v) / settle` while inputs arrive, from
/// `start²` at the start of a run, and grows by `held_per_sqrt_s²` a second while they are held.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uncertainty {
    /// Standard uncertainty at the start of a run: the sensor's.
    pub start: f64,
    /// Standard uncertainty that a long run settles to: the model's error on data it was not fitted to.
    pub live: f64,
    /// Time constant of settling, seconds.
    pub settle_s: f64,
    /// Growth while inputs are held, per square root of a second.
    pub held_per_sqrt_s: f64,
}

/// A channel that operators may set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlChannel {
    /// The device that takes the command.
    pub device: DeviceId,
    /// The channel of the device.
    pub channel: String,
    /// A title for people.
    pub title: String,
    /// The unit (UCUM).
    pub unit: String,
    /// The least value that may be sent.
    pub low: f64,
    /// The greatest value that may be sent.
    pub high: f64,
    /// What "off" sends.
    pub off: f64,
    /// Where the device reports the value it holds, `device/stream.channel`.
    pub readback: ChannelRef,
    /// The model input that it moves, for predictions.
    pub input: String,
}

/// A condition that is checked before a command, by the server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "InterlockToml")]
pub struct Interlock {
    /// A short name.
    pub id: String,
    /// What it says to people.
    pub text: String,
    /// The condition.
    pub condition: Condition,
}

/// The kinds of interlock.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Measured channels stay below a limit.
    Below {
        /// The channels.
        channels: Vec<ChannelRef>,
        /// The limit.
        limit: f64,
        /// Its unit (UCUM).
        unit: String,
    },
    /// The model's outputs stay below a limit under the proposed change.
    ForecastBelow {
        /// Published channels of this graph.
        outputs: Vec<String>,
        /// The limit.
        limit: f64,
        /// Its unit (UCUM).
        unit: String,
        /// How far ahead.
        horizon_s: u32,
    },
    /// A stream's last sample is young enough.
    Answers {
        /// The stream.
        stream: StreamId,
        /// The greatest age.
        within_s: f64,
    },
}

/// An interlock as TOML writes it: flat, so that serde can refuse unknown keys per kind.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum InterlockToml {
    Below {
        id: String,
        text: String,
        channels: Vec<ChannelRef>,
        limit: f64,
        unit: String,
    },
    ForecastBelow {
        id: String,
        text: String,
        outputs: Vec<String>,
        limit: f64,
        unit: String,
        horizon_s: u32,
    },
    Answers {
        id: String,
        text: String,
        stream: StreamId,
        within_s: f64,
    },
}

impl From<InterlockToml> for Interlock {
    fn from(toml: InterlockToml) -> Self {
        match toml {
            InterlockToml::Below {
                id,
                text,
                channels,
                limit,
                unit,
            } => Self {
                id,
                text,
                condition: Condition::Below { channels, limit, unit },
            },
            InterlockToml::ForecastBelow {
                id,
                text,
                outputs,
                limit,
                unit,
                horizon_s,
            } => Self {
                id,
                text,
                condition: Condition::ForecastBelow {
                    outputs,
                    limit,
                    unit,
                    horizon_s,
                },
            },
            InterlockToml::Answers {
                id,
                text,
                stream,
                within_s,
            } => Self {
                id,
                text,
                condition: Condition::Answers { stream, within_s },
            },
        }
    }
}

/// `device/stream.channel`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelRef {
    /// The stream.
    pub stream: StreamId,
    /// The channel's name.
    pub channel: String,
}

/// Bounds on what a graph may use; each is counted, never timed, but the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of the module.
    pub memory_mib: u32,
    /// Integrator steps a tick may take.
    pub steps_per_tick: u32,
    /// The host's backstop for one solve, real time.
    pub deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            steps_per_tick: 10_000,
            deadline_ms: 2_000,
        }
    }
}

fn default_reset_after_ms() -> u64 {
    60_000
}

/// A graph read from a file, with what identifies it.
#[derive(Debug, Clone)]
pub struct GraphFile {
    /// The parsed graph.
    pub graph: Graph,
    /// SHA-256 of the file's bytes.
    pub digest: Digest,
    /// The model file, resolved.
    pub model_path: PathBuf,
}

impl GraphFile {
    /// Reads and checks a graph file.
    ///
    /// # Errors
    /// [`GraphError`] names the file, the line or the key, and what to write instead.
    pub fn read(path: &Path) -> Result<Self, GraphError> {
        let text = std::fs::read_to_string(path).map_err(|source| GraphError::Read {
            path: path.to_owned(),
            source,
        })?;
        let graph = Graph::parse(&text, &path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let model_path = folder.join(&graph.model);
        Ok(Self {
            graph,
            digest: Digest(Sha256::digest(text.as_bytes()).into()),
            model_path,
        })
    }
}

impl Graph {
    /// Parses and checks the text of a graph file; `file` is its name in messages.
    ///
    /// # Errors
    /// [`GraphError`] names the key and the nearest known one.
    pub fn parse(text: &str, file: &str) -> Result<Self, GraphError> {
        let graph: Self = toml::from_str(text).map_err(|error| syntax_error(&error, text, file))?;
        graph.check().map_err(|(key, problem)| GraphError::Value {
            file: file.to_owned(),
            key,
            problem,
        })?;
        Ok(graph)
    }

    /// The stream the graph publishes its outputs on.
    pub fn output_stream(&self) -> StreamId {
        StreamId::of(&self.id, "board").expect("`board` is a valid stream name")
    }

    /// Tick length in nanoseconds.
    pub fn tick_nanos(&self) -> i64 {
        i64::from(self.tick_ms) * 1_000_000
    }
}

fn syntax_error(error: &toml::de::Error, text: &str, file: &str) -> GraphError {
    let line = error
        .span()
        .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().to_owned();
    // serde lists the expected keys in back-quotes after the unknown one.
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") || message.starts_with("unknown variant") => {
            nearest(unknown, quoted)
        }
        _ => String::new(),
    };
    GraphError::Syntax {
        file: file.to_owned(),
        line,
        message: format!("{message}{hint}"),
    }
}

impl TryFrom<String> for ChannelRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a channel; write device/stream.channel");
        // Device ids may hold dots, so the channel starts at the last one.
        let (stream, channel) = text.rsplit_once('.').ok_or_else(wrong)?;
        if channel.is_empty() || channel.contains('/') {
            return Err(wrong());
        }
        let stream = StreamId::new(stream).map_err(|error| error.to_string())?;
        Ok(Self {
            stream,
            channel: channel.to_owned(),
        })
    }
}

impl From<ChannelRef> for String {
    fn from(channel: ChannelRef) -> String {
        channel.to_string()
    }
}

impl std::fmt::Display for ChannelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.stream, self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWIN: &str = include_str!("../../deploy/graphs/twin.toml");

    #[test]
    fn the_shipped_graph_parses() {
        let graph = Graph::parse(TWIN, "twin.toml").unwrap();
        assert_eq!(graph.output_stream().as_str(), "twin/board");
        assert_eq!(graph.controls.len(), 2);
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_key() {
        let text = TWIN.replacen("tick_ms", "tik_ms", 1);
        let error = Graph::parse(&text, "twin.toml").unwrap_err().to_string();
        assert!(
            error.contains("tik_ms") && error.contains("did you mean `tick_ms`?"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_mode_names_those_there_are() {
        let text = TWIN.replacen("mode = \"hold\"", "mode = \"spline\"", 1);
        let error = Graph::parse(&text, "twin.toml").unwrap_err().to_string();
        assert!(error.contains("`spline`") && error.contains("`interpolate`"), "{error}");
    }

    #[test]
    fn a_stream_that_is_not_listed_is_named() {
        let text = TWIN.replacen(
            "stream = \"tclab-01/board\", channel = \"q1\"",
            "stream = \"tclab-1/board\", channel = \"q1\"",
            1,
        );
        let error = Graph::parse(&text, "twin.toml").unwrap_err().to_string();
        assert!(
            error.contains("inputs.q1.stream") && error.contains("did you mean `tclab-01/board`?"),
            "{error}"
        );
    }

    #[test]
    fn a_channel_reference_says_how_to_write_one() {
        let error = ChannelRef::try_from("tclab-01/board".to_owned()).unwrap_err();
        assert!(error.contains("device/stream.channel"), "{error}");
    }
}
