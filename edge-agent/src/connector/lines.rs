//! Instruments that print delimited lines on a serial port: scales, pressure gauges, anemometers, home-made boards.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_trait::async_trait;
use orrery_protocol::{ChannelType, Value};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::json::{Row, text_stamp};
use super::port::{LinePort, PortControl, PortError, Request, Session, serve};
use super::{Connector, Emitted, Emitter, Reading, excerpt};
use crate::config::{DeviceConfig, StreamConfig, TimeFormat};

/// Delimited lines on a serial port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesConfig {
    /// The port: `/dev/ttyUSB0`.
    pub port: String,
    /// Its speed.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// What stands between the columns; `" "` means any white space.
    #[serde(default = "default_delimiter")]
    pub delimiter: String,
    /// Lines that begin with this are skipped.
    #[serde(default)]
    pub comment: Option<String>,
    /// Sent once after the port opens, for instruments that wait for a start command.
    #[serde(default)]
    pub start: Option<String>,
    /// How long the port may say nothing before that is reported, in milliseconds.
    #[serde(default = "default_silence_ms")]
    pub silence_ms: u64,
}

fn default_baud() -> u32 {
    9_600
}
fn default_delimiter() -> String {
    ",".to_owned()
}
fn default_silence_ms() -> u64 {
    10_000
}

/// How one stream reads a line. A channel's source is the number of its column, from 0.
#[derive(Debug, Clone)]
pub struct LineParser {
    delimiter: String,
    comment: Option<String>,
    columns: Vec<(usize, ChannelType)>,
    time: Option<(usize, TimeFormat)>,
}

impl LineParser {
    /// The parser of a stream; channels without a source take the columns in order.
    ///
    /// # Errors
    /// Names a source that is not a column number.
    pub fn new(config: &LinesConfig, stream: &StreamConfig) -> Result<Self, String> {
        if config.delimiter.is_empty() {
            return Err("delimiter is empty; use \",\", \";\", \"\\t\" or \" \"".to_owned());
        }
        let number = |source: &str| {
            source
                .parse::<usize>()
                .map_err(|_| format!("source `{source}` is not a column number; the first column is 0"))
        };
        let columns = stream
            .channels
            .iter()
            .enumerate()
            .map(|(place, channel)| {
                let column = channel.source.as_deref().map_or(Ok(place), number)?;
                Ok((column, channel.kind))
            })
            .collect::<Result<_, String>>()?;
        let time = match &stream.time {
            Some(time) => Some((number(&time.source)?, time.format)),
            None => None,
        };
        Ok(Self {
            delimiter: config.delimiter.clone(),
            comment: config.comment.clone(),
            columns,
            time,
        })
    }

    /// Reads one line; none for an empty line or a comment.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the line and shows its beginning.
    pub fn row(&self, line: &[u8]) -> Result<Option<Row>, String> {
        let text = std::str::from_utf8(line)
            .map_err(|_| format!("not text: {}", excerpt(line)))?
            .trim();
        if text.is_empty() || self.comment.as_deref().is_some_and(|comment| text.starts_with(comment)) {
            return Ok(None);
        }
        let fields: Vec<&str> = if self.delimiter == " " {
            text.split_whitespace().collect()
        } else {
            text.split(&self.delimiter).map(str::trim).collect()
        };
        let field = |column: usize| {
            fields
                .get(column)
                .copied()
                .ok_or_else(|| format!("{} columns, none has number {column}: {}", fields.len(), excerpt(line)))
        };
        let device_time = match self.time {
            None => None,
            Some((column, format)) => {
                let written = field(column)?;
                Some(
                    text_stamp(written, format)
                        .ok_or_else(|| format!("column {column} is not a time: {}", excerpt(line)))?,
                )
            }
        };
        let values = self
            .columns
            .iter()
            .map(|(column, kind)| {
                let written = field(*column)?;
                value(written, *kind).ok_or_else(|| format!("column {column} is not a {kind:?}: {}", excerpt(line)))
            })
            .collect::<Result<_, String>>()?;
        Ok(Some((device_time, values)))
    }
}

fn value(written: &str, kind: ChannelType) -> Option<Value> {
    if written.is_empty() {
        return Some(Value::Null);
    }
    match kind {
        ChannelType::F64 | ChannelType::F32 => written.parse().ok().map(Value::Float),
        ChannelType::I64 => written.parse().ok().map(Value::Integer),
        ChannelType::Bool => match written.to_lowercase().as_str() {
            "1" | "true" | "on" | "yes" => Some(Value::Bool(true)),
            "0" | "false" | "off" | "no" => Some(Value::Bool(false)),
            _ => None,
        },
        ChannelType::Utf8 => Some(Value::Text(written.to_owned())),
    }
}

/// The connector.
pub struct Lines {
    config: LinesConfig,
    parsers: Vec<LineParser>,
    /// Kept so that the port's thread always has someone who could ask.
    _control: Arc<PortControl>,
    requests: Receiver<Request>,
}

impl Lines {
    /// Checks the port and the sources.
    ///
    /// # Errors
    /// Names a source that is not a column number.
    pub fn new(config: LinesConfig, device: &DeviceConfig) -> Result<Self, String> {
        let (control, requests) = PortControl::new(&config.port)?;
        let parsers = device
            .streams
            .iter()
            .map(|stream| LineParser::new(&config, stream))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            parsers,
            _control: control,
            requests,
        })
    }
}

#[async_trait]
impl Connector for Lines {
    async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken) {
        let Self {
            config,
            parsers,
            requests,
            ..
        } = *self;
        let session = || -> Box<dyn Session> {
            Box::new(Printer {
                config: config.clone(),
                parsers: parsers.clone(),
            })
        };
        serve(&config.port, config.baud, requests, emit, stop, session).await;
    }
}

/// An instrument that only speaks is asked nothing.
fn hand_over(port: &mut LinePort, emit: &Emitter, emitted: Emitted) -> Result<(), PortError> {
    port.hand_over(emit, emitted, |_, _| Ok(()))
}

struct Printer {
    config: LinesConfig,
    parsers: Vec<LineParser>,
}

impl Session for Printer {
    fn talk(&mut self, port: &mut LinePort, emit: &Emitter) -> Result<(), PortError> {
        if let Some(start) = &self.config.start {
            port.write(start.as_bytes())?;
        }
        let silence = Duration::from_millis(self.config.silence_ms);
        let mut is_first = true;
        loop {
            let Some(line) = port.line(emit.clock().real(silence))? else {
                emit.disconnected(&format!(
                    "{} said nothing for {} ms; check the instrument and `baud`",
                    self.config.port, self.config.silence_ms
                ));
                continue;
            };
            let received = emit.stamp();
            // The port may have opened in the middle of a line, and Linux may lose bytes before the first read.
            if std::mem::take(&mut is_first)
                && self
                    .parsers
                    .iter()
                    .any(|parser| !matches!(&line, Ok(line) if parser.row(line).is_ok()))
            {
                continue;
            }
            let line = match line {
                Ok(line) => line,
                Err(overlong) => {
                    let bad = format!("a line that never ends: {}; check `baud`", excerpt(&overlong.0));
                    hand_over(port, emit, Emitted::Bad(bad))?;
                    continue;
                }
            };
            for (stream, parser) in self.parsers.iter().enumerate() {
                match parser.row(&line) {
                    Ok(None) => {}
                    Ok(Some((device_time, values))) => {
                        emit.connected();
                        let received = received.again();
                        let reading = Reading {
                            stream,
                            device_time,
                            received,
                            values,
                            durable: None,
                        };
                        hand_over(port, emit, Emitted::Reading(reading))?;
                    }
                    Err(problem) => hand_over(port, emit, Emitted::Bad(problem))?,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChannelConfig;
    use orrery_protocol::DeviceNanos;
    use proptest::prelude::*;

    fn parser(delimiter: &str, sources: &[&str], time: Option<&str>) -> LineParser {
        let config: LinesConfig =
            toml::from_str(&format!("port = 'x'\ndelimiter = '{delimiter}'\ncomment = '#'")).unwrap();
        let stream = StreamConfig {
            name: "s".to_owned(),
            title: None,
            nominal_rate_hz: None,
            droppable: true,
            max_silence_ms: None,
            calibration: None,
            topic: None,
            time: time.map(|source| crate::config::TimeConfig {
                source: source.to_owned(),
                format: TimeFormat::Auto,
            }),
            channels: sources
                .iter()
                .map(|source| ChannelConfig::float(&format!("c{source}"), "1", source))
                .collect(),
        };
        LineParser::new(&config, &stream).unwrap()
    }

    #[test]
    fn columns_are_taken_by_number() {
        let row = parser(",", &["2", "0"], Some("1"))
            .row(b" 1.5, 1700000000 ,-3e2")
            .unwrap()
            .unwrap();
        assert_eq!(
            row,
            (
                Some(DeviceNanos(1_700_000_000_000_000_000)),
                vec![Value::Float(-300.0), Value::Float(1.5)]
            )
        );
        let row = parser(" ", &["1"], None).row(b"a   2.5\tz").unwrap().unwrap();
        assert_eq!(row.1, [Value::Float(2.5)]);
    }

    #[test]
    fn comments_and_empty_lines_are_nothing_and_bad_lines_have_a_reason() {
        let parser = parser(",", &["1"], None);
        assert!(parser.row(b"").unwrap().is_none());
        assert!(parser.row(b"# header").unwrap().is_none());
        assert!(parser.row(b"1").unwrap_err().contains("none has number 1"));
        assert!(parser.row(b"1,two").unwrap_err().contains("column 1 is not a F64"));
        assert!(parser.row(b"1,\xff\xfe").unwrap_err().contains("not text"));
    }

    proptest! {
        #[test]
        fn any_line_is_a_row_or_a_reason(line in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parser(",", &["0", "1"], Some("2")).row(&line);
            let _ = parser(" ", &["0"], None).row(&line);
        }

        #[test]
        fn written_numbers_come_back(numbers in proptest::collection::vec(-1e9..1e9f64, 1..6)) {
            let line = numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(";");
            let sources: Vec<String> = (0..numbers.len()).map(|place| place.to_string()).collect();
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            let (_, values) = parser(";", &sources, None).row(line.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(values, numbers.into_iter().map(Value::Float).collect::<Vec<_>>());
        }
    }
}
