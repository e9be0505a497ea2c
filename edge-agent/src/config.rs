//! The agent's configuration: strict TOML, checked as a whole before anything starts.
//!
//! ```toml
//! folder = "/var/lib/orrery-edge"
//!
//! [sink]
//! kind = "https"
//! url = "https://orrery.lab:7070"
//!
//! [[devices]]
//! id = "tclab-01"
//! title = "Temperature control lab"
//! connector = { kind = "tclab", port = "/dev/ttyACM0" }
//!
//! [[devices.streams]]
//! name = "board"
//! nominal_rate_hz = 10
//! channels = [
//!     { name = "t1", unit = "Cel", resolution = 0.32, source = "T1" },
//!     { name = "q1", unit = "%", source = "Q1", command = { safe = 0, low = 0, high = 80 } },
//! ]
//! ```
//!
//! Precedence: command-line flag, `ORRERY__SECTION__KEY` in the environment, file, default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orrery_protocol::{Channel, ChannelType, DeviceId, PublicKey, RESERVED_NAMES, StreamId};
use serde::{Deserialize, Serialize};

pub use crate::connector::lines::LinesConfig;
pub use crate::connector::mqtt::MqttConfig;
pub use crate::connector::opcua::OpcUaConfig;
pub use crate::connector::tclab::TcLabConfig;
use crate::error::ConfigError;
use crate::{strict, units};

/// Everything one agent needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent keeps its spool, keys and command intents.
    #[serde(default = "default_folder")]
    pub folder: PathBuf,
    /// The spool's limits.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// Where envelopes go.
    #[serde(default)]
    pub sink: SinkConfig,
    /// Clock probes of the gateway.
    #[serde(default)]
    pub clock: ClockConfig,
    /// Who may command the devices.
    #[serde(default)]
    pub commands: CommandsConfig,
    /// How often an idle device declares that nothing is undelivered, in milliseconds.
    #[serde(default = "default_heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// How long a stop may take to flush, spool and send, in milliseconds.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
    /// The instruments.
    #[serde(default)]
    pub devices: Vec<DeviceConfig>,
}

/// Limits of the store-and-forward spool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Where the spool lies; `<folder>/spool` when not given.
    pub folder: Option<PathBuf>,
    /// When the spool holds more than this, the oldest droppable samples go, with a signed `loss` record.
    pub max_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            folder: None,
            max_bytes: 1 << 30,
        }
    }
}

/// Where sealed envelopes go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkConfig {
    /// The bus of the process that runs the agent.
    #[default]
    Bus,
    /// A gateway's ingest route.
    Https {
        /// The gateway: `https://orrery.lab:7070`.
        url: String,
        /// A file with the agent's bearer token; the one that enrolment gave when not given.
        #[serde(default)]
        token_file: Option<PathBuf>,
    },
}

/// Clock probes of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockConfig {
    /// How many probes a wave has.
    pub probes_per_wave: usize,
    /// Milliseconds between waves during the first ten seconds.
    pub first_interval_ms: u64,
    /// Milliseconds between waves after that.
    pub interval_ms: u64,
    /// How long the first samples of a device wait for the first wave, in milliseconds.
    pub first_wave_wait_ms: u64,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self {
            probes_per_wave: 8,
            first_interval_ms: 1_000,
            interval_ms: 10_000,
            first_wave_wait_ms: 2_000,
        }
    }
}

/// Who may command the devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandsConfig {
    /// Ed25519 public keys of issuers, 64 hexadecimal digits each. Without one, every command is refused.
    pub issuer_keys: Vec<PublicKey>,
}

/// One instrument.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// The device id that envelopes carry.
    pub id: DeviceId,
    /// A name for people.
    #[serde(default)]
    pub title: Option<String>,
    /// How to talk to it.
    pub connector: ConnectorConfig,
    /// How readings become envelopes.
    #[serde(default)]
    pub batch: BatchConfig,
    /// What it measures.
    pub streams: Vec<StreamConfig>,
}

/// How to talk to a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ConnectorConfig {
    /// An MQTT broker.
    Mqtt(MqttConfig),
    /// An OPC UA server.
    OpcUa(OpcUaConfig),
    /// A TCLab board on a serial port.
    TcLab(TcLabConfig),
    /// Delimited lines on a serial port.
    Lines(LinesConfig),
}

impl ConnectorConfig {
    /// The protocol's name as the device panel shows it.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Mqtt(_) => "mqtt",
            Self::OpcUa(_) => "opcua",
            Self::TcLab(_) | Self::Lines(_) => "serial",
        }
    }
}

/// How readings become envelopes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// The longest a reading waits for company, in milliseconds.
    pub linger_ms: u64,
    /// The most rows of one envelope.
    pub max_rows: usize,
}

impl BatchConfig {
    /// The longest a reading waits for company.
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            linger_ms: 10,
            max_rows: 1_000,
        }
    }
}

/// One stream of a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The part after the slash of the stream id.
    pub name: String,
    /// A name for people.
    #[serde(default)]
    pub title: Option<String>,
    /// Samples per second, where the stream is regular.
    #[serde(default)]
    pub nominal_rate_hz: Option<f64>,
    /// Whether a full spool may drop the oldest samples.
    #[serde(default = "yes")]
    pub droppable: bool,
    /// How long the stream may say nothing before that is a fault, in milliseconds.
    #[serde(default)]
    pub max_silence_ms: Option<u64>,
    /// A reference to the calibration that applies.
    #[serde(default)]
    pub calibration: Option<String>,
    /// MQTT: the topic filter whose messages are this stream's readings.
    #[serde(default)]
    pub topic: Option<String>,
    /// Where a message or line carries the source's own stamp.
    #[serde(default)]
    pub time: Option<TimeConfig>,
    /// The columns.
    pub channels: Vec<ChannelConfig>,
}

/// Where a message carries the source's own stamp, and how it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// MQTT: a JSON pointer such as `/ts`. Lines: the number of the column, from 0.
    pub source: String,
    /// How it is written.
    #[serde(default)]
    pub format: TimeFormat,
}

/// How a source writes its stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// RFC 3339 text, or a number whose size tells seconds from milli-, micro- and nanoseconds.
    #[default]
    Auto,
    /// Seconds since 1970.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
    /// RFC 3339 text.
    Rfc3339,
}

/// One channel of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    /// The column's name.
    pub name: String,
    /// A name for people.
    #[serde(default)]
    pub title: Option<String>,
    /// The unit in UCUM: `Cel`, `%`, `W`.
    #[serde(default = "dimensionless")]
    pub unit: String,
    /// The type of its values.
    #[serde(default = "float", rename = "type")]
    pub kind: ChannelType,
    /// Where the connector finds it: a JSON pointer, an OPC UA node, a column, a TCLab variable. The channel's name when
    /// not given.
    #[serde(default)]
    pub source: Option<String>,
    /// The smallest step the instrument can show.
    #[serde(default)]
    pub resolution: Option<f64>,
    /// The standard uncertainty of a value.
    #[serde(default)]
    pub uncertainty: Option<f64>,
    /// The least value the instrument can show.
    #[serde(default)]
    pub low: Option<f64>,
    /// The greatest value the instrument can show.
    #[serde(default)]
    pub high: Option<f64>,
    /// The reference frame, where the value is a coordinate.
    #[serde(default)]
    pub frame: Option<String>,
    /// Present when the channel can be commanded.
    #[serde(default)]
    pub command: Option<CommandConfig>,
}

/// A channel that can be commanded.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// What applies when a command's hold ends, or when the agent cannot tell what is current.
    pub safe: f64,
    /// The least set-point accepted.
    #[serde(default)]
    pub low: Option<f64>,
    /// The greatest set-point accepted.
    #[serde(default)]
    pub high: Option<f64>,
    /// How far the value read back may lie from the value set; further away, the set-point is acknowledged as refused.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
}

impl CommandConfig {
    /// Whether the value read back is the one asked for: within `tolerance`, or rounded to single precision.
    pub fn accepts(&self, asked: f64, read_back: f64) -> bool {
        let rounding = asked.abs() * f64::from(f32::EPSILON);
        (read_back - asked).abs() <= self.tolerance.max(rounding)
    }
}

impl ChannelConfig {
    /// A 64-bit float channel found under `source`.
    pub fn float(name: &str, unit: &str, source: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: None,
            unit: unit.to_owned(),
            kind: ChannelType::F64,
            source: Some(source.to_owned()),
            resolution: None,
            uncertainty: None,
            low: None,
            high: None,
            frame: None,
            command: None,
        }
    }

    /// Where the connector finds it.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.name)
    }

    pub(crate) fn describe(&self) -> Channel {
        Channel {
            name: self.name.clone(),
            title: self.title.clone(),
            unit: self.unit.clone(),
            kind: self.kind,
            frame: self.frame.clone(),
            resolution: self.resolution,
            uncertainty: self.uncertainty,
            low: self.low,
            high: self.high,
        }
    }
}

impl Config {
    /// A configuration without devices that keeps everything in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            spool: SpoolConfig::default(),
            sink: SinkConfig::default(),
            clock: ClockConfig::default(),
            commands: CommandsConfig::default(),
            heartbeat_ms: default_heartbeat_ms(),
            drain_ms: default_drain_ms(),
            devices: Vec::new(),
        }
    }

    /// Reads and checks a file, with `ORRERY__…` variables of the environment above it.
    ///
    /// # Errors
    /// Names the file, the line and the key, with the nearest known key where one was mistyped.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string(), strict::variables())
    }

    /// Reads and checks a text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        place: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config: Self = strict::from_text(text, place, variables)?;
        config.check(place)?;
        Ok(config)
    }

    /// What serde cannot say: names unique, numbers in range, sources the connector understands.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the device, the stream and the remedy.
    pub fn check(&self, place: &str) -> Result<(), ConfigError> {
        let wrong = |what: String| ConfigError::Value {
            place: place.to_owned(),
            what,
        };
        if self.spool.max_bytes < 1 << 20 {
            return Err(wrong(format!(
                "spool.max_bytes = {} is too small; use at least 1048576",
                self.spool.max_bytes
            )));
        }
        if self.heartbeat_ms == 0 || self.clock.interval_ms == 0 || self.clock.first_interval_ms == 0 {
            return Err(wrong(
                "heartbeat_ms and the clock intervals must be at least 1".to_owned(),
            ));
        }
        if self.clock.probes_per_wave == 0 || self.clock.probes_per_wave > 64 {
            return Err(wrong("clock.probes_per_wave must be 1 to 64".to_owned()));
        }
        let mut ids = BTreeSet::new();
        for device in &self.devices {
            if !ids.insert(&device.id) {
                return Err(wrong(format!(
                    "two devices are called `{}`; give each its own id",
                    device.id
                )));
            }
            device
                .check()
                .map_err(|what| wrong(format!("device `{}`: {what}", device.id)))?;
        }
        Ok(())
    }

    /// What is allowed and still looks like a mistake: units that UCUM does not have.
    pub fn warnings(&self) -> Vec<String> {
        let streams = self
            .devices
            .iter()
            .flat_map(|device| device.streams.iter().map(move |stream| (device, stream)));
        let channels =
            streams.flat_map(|(device, stream)| stream.channels.iter().map(move |channel| (device, stream, channel)));
        channels
            .filter_map(|(device, stream, ChannelConfig { name, unit, .. })| {
                let near = units::check(unit).err()?;
                let remedy = near.map_or_else(
                    || "write it in UCUM, such as Cel, % or m/s2".to_owned(),
                    |near| format!("write `{near}`?"),
                );
                Some(format!(
                    "{}/{}: the unit `{unit}` of `{name}` is not one of UCUM; {remedy}",
                    device.id, stream.name
                ))
            })
            .collect()
    }

    /// The spool's folder.
    pub fn spool_folder(&self) -> PathBuf {
        self.spool.folder.clone().unwrap_or_else(|| self.folder.join("spool"))
    }

    /// The keys' folder.
    pub fn keys_folder(&self) -> PathBuf {
        self.folder.join("keys")
    }
}

impl DeviceConfig {
    fn check(&self) -> Result<(), String> {
        if self.batch.max_rows == 0 || self.batch.max_rows > 16_384 {
            return Err(format!("batch.max_rows = {} must be 1 to 16384", self.batch.max_rows));
        }
        if self.streams.is_empty() {
            return Err("it has no stream; add [[devices.streams]]".to_owned());
        }
        let mut names = BTreeSet::new();
        for stream in &self.streams {
            StreamId::of(&self.id, &stream.name).map_err(|error| error.to_string())?;
            if !names.insert(&stream.name) {
                return Err(format!("two streams are called `{}`", stream.name));
            }
            stream
                .check()
                .map_err(|what| format!("stream `{}`: {what}", stream.name))?;
        }
        crate::connector::check(self)
    }
}

impl StreamConfig {
    fn check(&self) -> Result<(), String> {
        if self.channels.is_empty() {
            return Err("it has no channel".to_owned());
        }
        if self
            .nominal_rate_hz
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
        {
            return Err("nominal_rate_hz must be a positive number; leave it out for irregular streams".to_owned());
        }
        let mut names = BTreeSet::new();
        for channel in &self.channels {
            let name = &channel.name;
            let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_alphabetic());
            if !is_word || name.len() > 64 {
                return Err(format!(
                    "channel `{name}`: use letters, digits and _, starting with a letter"
                ));
            }
            if RESERVED_NAMES.contains(&name.as_str()) {
                return Err(format!(
                    "channel `{name}`: the name belongs to Orrery's own columns; choose another"
                ));
            }
            if !names.insert(name) {
                return Err(format!("two channels are called `{name}`"));
            }
            if let Some(command) = channel.command
                && (command.tolerance.is_nan() || command.tolerance < 0.0)
            {
                return Err(format!(
                    "channel `{name}`: tolerance = {} must be 0 or more",
                    command.tolerance
                ));
            }
            if let Some(command) = channel.command
                && (command.low.is_some_and(|low| command.safe < low)
                    || command.high.is_some_and(|high| command.safe > high))
            {
                return Err(format!(
                    "channel `{name}`: the safe value {} lies outside low and high",
                    command.safe
                ));
            }
        }
        Ok(())
    }
}

fn default_folder() -> PathBuf {
    PathBuf::from("orrery-edge")
}
fn default_heartbeat_ms() -> u64 {
    250
}
fn default_drain_ms() -> u64 {
    3_000
}
fn default_tolerance() -> f64 {
    1e-3
}
fn yes() -> bool {
    true
}
fn dimensionless() -> String {
    "1".to_owned()
}
fn float() -> ChannelType {
    ChannelType::F64
}
