//! The Temperature Control Lab board: the text protocol of its published firmware, 115200 baud, one line each way.
//!
//! `VER` names the firmware; `T1`, `T2` read the temperatures in °C; `R1`, `R2` read the heaters in percent; `Q1 v`, `Q2 v`
//! set them and answer with the value the board took. The board has no clock: samples are aligned by their arrival.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_trait::async_trait;
use orrery_protocol::{Clock, Value};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::port::{LinePort, PortControl, PortError, Request, Session, serve};
use super::{Connector, Control, ControlError, Emitted, Emitter, Reading, excerpt};
use crate::config::DeviceConfig;

/// A TCLab board on a serial port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcLabConfig {
    /// The port: `/dev/ttyACM0`.
    pub port: String,
    /// Its speed.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// Samples per second.
    #[serde(default = "default_rate")]
    pub rate_hz: f64,
}

fn default_baud() -> u32 {
    115_200
}
fn default_rate() -> f64 {
    10.0
}

/// A variable of the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    T1,
    T2,
    Q1,
    Q2,
}

impl Variable {
    fn parse(source: &str) -> Option<Self> {
        Some(match source.to_uppercase().as_str() {
            "T1" => Self::T1,
            "T2" => Self::T2,
            "Q1" => Self::Q1,
            "Q2" => Self::Q2,
            _ => return None,
        })
    }

    /// The command that reads it.
    fn read_command(self) -> &'static str {
        match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::Q1 => "R1",
            Self::Q2 => "R2",
        }
    }

    /// The command that sets it.
    fn set_command(self, value: f64) -> Option<String> {
        match self {
            Self::Q1 => Some(format!("Q1 {value}")),
            Self::Q2 => Some(format!("Q2 {value}")),
            Self::T1 | Self::T2 => None,
        }
    }
}

/// The connector.
pub struct TcLab {
    config: TcLabConfig,
    columns: Vec<Vec<Variable>>,
    control: Arc<PortControl>,
    requests: Receiver<Request>,
}

impl TcLab {
    /// Checks the sources.
    ///
    /// # Errors
    /// Names a source that is no variable of the board.
    pub fn new(config: TcLabConfig, device: &DeviceConfig) -> Result<Self, String> {
        if !(config.rate_hz.is_finite() && config.rate_hz > 0.0 && config.rate_hz <= 100.0) {
            return Err(format!("rate_hz = {} must be above 0 and at most 100", config.rate_hz));
        }
        let column = |source: &str| {
            Variable::parse(source)
                .ok_or_else(|| format!("source `{source}` is no variable of a TCLab; use T1, T2, Q1 or Q2"))
        };
        let columns = device
            .streams
            .iter()
            .map(|stream| stream.channels.iter().map(|channel| column(channel.source())).collect())
            .collect::<Result<_, _>>()?;
        let (control, requests) = PortControl::new(&config.port)?;
        Ok(Self {
            config,
            columns,
            control,
            requests,
        })
    }
}

#[async_trait]
impl Connector for TcLab {
    async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken) {
        let Self {
            config,
            columns,
            requests,
            ..
        } = *self;
        let period = Duration::from_secs_f64(1.0 / config.rate_hz);
        let new_session = || -> Box<dyn Session> {
            Box::new(Board {
                period,
                columns: columns.clone(),
                waiting: Vec::new(),
            })
        };
        serve(&config.port, config.baud, requests, emit, stop, new_session).await;
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        Some(Arc::clone(&self.control) as Arc<dyn Control>)
    }
}

struct Board {
    period: Duration,
    columns: Vec<Vec<Variable>>,
    /// Requests that the next scan answers.
    waiting: Vec<(Variable, Request)>,
}

/// How long a board that is quick may take to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a sped-up board may take: what stalls a machine does not shrink with its clocks, and an answer given up on
/// is a row of the recording lost.
const SPED_UP_ANSWER: Duration = Duration::from_secs(3);
/// A board resets when its port opens and needs about two seconds to boot.
const BOOT_ATTEMPTS: usize = 8;

impl Session for Board {
    fn talk(&mut self, line: &mut LinePort, emit: &Emitter) -> Result<(), PortError> {
        let version = greet(line, &**emit.clock())?;
        if version == orrery_rig::firmware::ENDED {
            return stay_quiet(line, emit);
        }
        tracing::debug!(%version, "board answers");
        emit.connected();
        let clock = Arc::clone(emit.clock());
        // A board that converts on demand answers when its conversion is complete: up to a period later.
        let patience = patience(&*clock, self.period);
        let mut due = clock.monotonic();
        let mut failures = 0;
        loop {
            while let Some(request) = line.request(clock.real(due.since(clock.monotonic())))? {
                self.take(line, request, patience)?;
            }
            due = due.plus(self.period);
            if clock.monotonic() > due.plus(self.period * 10) {
                // Far behind (a suspend, a slow board): go on from now instead of catching up in a burst.
                due = clock.monotonic();
            }
            match self.sample(line, emit, patience)? {
                Ok(readings) => {
                    failures = 0;
                    self.answer(&readings);
                    for reading in readings {
                        line.hand_over(emit, Emitted::Reading(reading), |line, request| {
                            self.take(line, request, patience)
                        })?;
                    }
                }
                Err(problem) => {
                    resynchronize(line)?;
                    if has_ended(line)? {
                        return stay_quiet(line, emit);
                    }
                    failures += 1;
                    line.hand_over(emit, Emitted::Bad(problem.clone()), |line, request| {
                        self.take(line, request, patience)
                    })?;
                    if failures >= 4 {
                        return Err(PortError::Lost(format!(
                            "the board on {} stopped answering ({problem}); press its reset button",
                            line.name()
                        )));
                    }
                }
            }
        }
    }
}

/// How long to wait for an answer, in real time, from a board that is scanned every `period` of `clock`.
fn patience(clock: &dyn Clock, period: Duration) -> Duration {
    let patience = ANSWER + clock.real(period) * 3;
    let is_sped_up = clock.real(period) < period;
    if is_sped_up {
        patience.max(SPED_UP_ANSWER)
    } else {
        patience
    }
}

impl Board {
    /// Asks for every variable once and makes a row of each stream.
    fn sample(
        &self,
        line: &mut LinePort,
        emit: &Emitter,
        patience: Duration,
    ) -> Result<Result<Vec<Reading>, String>, PortError> {
        let mut readings = Vec::with_capacity(self.columns.len());
        for (stream, columns) in self.columns.iter().enumerate() {
            let mut values = Vec::with_capacity(columns.len());
            let mut received = None;
            for variable in columns {
                let value = match ask(line, variable.read_command(), patience)? {
                    Ok(value) => value,
                    Err(problem) => return Ok(Err(problem)),
                };
                // The first answer stamps the row: the temperatures are asked for first.
                received.get_or_insert_with(|| emit.stamp());
                values.push(Value::Float(value));
            }
            let received = received.unwrap_or_else(|| emit.stamp());
            readings.push(Reading {
                stream,
                device_time: None,
                received,
                values,
                durable: None,
            });
        }
        Ok(Ok(readings))
    }

    /// Sets what is asked; the value read back comes with the next scan, which asks the board what it does and not what it understood.
    fn take(&mut self, line: &mut LinePort, request: Request, patience: Duration) -> Result<(), PortError> {
        let Some(variable) = Variable::parse(&request.source) else {
            let refused = ControlError::Refused(format!("a TCLab has no `{}`", request.source));
            request.answer(Err(refused));
            return Ok(());
        };
        if let Some(value) = request.value {
            let Some(command) = variable.set_command(value) else {
                let refused = ControlError::Refused(format!("`{}` can only be read", request.source));
                request.answer(Err(refused));
                return Ok(());
            };
            if let Err(problem) = ask(line, &command, patience)? {
                request.answer(Err(ControlError::Unknown(problem)));
                return resynchronize(line);
            }
        }
        if self.columns.iter().flatten().any(|column| *column == variable) {
            self.waiting.push((variable, request));
            return Ok(());
        }
        match ask(line, variable.read_command(), patience)? {
            Ok(value) => request.answer(Ok(value)),
            Err(problem) => {
                request.answer(Err(ControlError::Unknown(problem)));
                resynchronize(line)?;
            }
        }
        Ok(())
    }

    /// Answers the requests that wait for a scan.
    fn answer(&mut self, readings: &[Reading]) {
        for (variable, request) in self.waiting.drain(..) {
            let found = self.columns.iter().zip(readings).find_map(|(columns, reading)| {
                let place = columns.iter().position(|column| *column == variable)?;
                match reading.values.get(place) {
                    Some(Value::Float(value)) => Some(*value),
                    _ => None,
                }
            });
            request.answer(found.ok_or_else(|| ControlError::Unknown("the scan did not hold it".to_owned())));
        }
    }
}

/// Waits until the board says who it is; whatever it says before is its boot or a half line.
///
/// Something that never stops talking must not be listened to for ever: each question gets its time and no more.
fn greet(line: &mut LinePort, clock: &dyn Clock) -> Result<String, PortError> {
    line.forget();
    let mut last = None;
    for _ in 0..BOOT_ATTEMPTS {
        line.write(b"VER\r\n")?;
        let asked = clock.monotonic();
        while clock.real(clock.monotonic().since(asked)) <= ANSWER
            && let Some(answer) = line.line(ANSWER)?
        {
            let answer = answer.unwrap_or_else(|overlong| overlong.0);
            let text = String::from_utf8_lossy(&answer).trim().to_owned();
            if text.to_lowercase().contains("tclab") {
                resynchronize(line)?;
                return Ok(text);
            }
            last = Some(answer);
        }
    }
    Err(PortError::Lost(match last {
        Some(answer) => format!(
            "what is on {} does not answer like a TCLab: {}; check `port`",
            line.name(),
            excerpt(&answer)
        ),
        None => format!(
            "nothing on {} answers to VER; check the cable, `port` and `baud`",
            line.name()
        ),
    }))
}

/// Asks a board that did not answer whether it plays a recording that is over.
fn has_ended(line: &mut LinePort) -> Result<bool, PortError> {
    line.write(b"VER\r\n")?;
    let answer = line.line(ANSWER)?;
    resynchronize(line)?;
    Ok(matches!(answer, Some(Ok(answer)) if answer == orrery_rig::firmware::ENDED.as_bytes()))
}

/// A recording does not start again: says so once, and refuses commands until the agent stops.
fn stay_quiet(line: &mut LinePort, emit: &Emitter) -> Result<(), PortError> {
    emit.disconnected("ended: the recording has been played to its last row; start again to play it again");
    loop {
        if let Some(request) = line.request(Duration::from_secs(1))? {
            let ended = "the recording on this port has ended".to_owned();
            request.answer(Err(ControlError::NotConnected(ended)));
        }
    }
}

/// Reads until the board is quiet, so that the next answer belongs to the next question.
fn resynchronize(line: &mut LinePort) -> Result<(), PortError> {
    for _ in 0..64 {
        if line.line(Duration::from_millis(30))?.is_none() {
            break;
        }
    }
    line.forget();
    Ok(())
}

fn ask(line: &mut LinePort, command: &str, patience: Duration) -> Result<Result<f64, String>, PortError> {
    line.write(format!("{command}\r\n").as_bytes())?;
    Ok(match line.line(patience)? {
        None => Err(format!("no answer to {command} within {} ms", patience.as_millis())),
        Some(Err(overlong)) => Err(format!("the answer to {command} never ends: {}", excerpt(&overlong.0))),
        Some(Ok(answer)) => {
            number(&answer).ok_or_else(|| format!("the answer to {command} is not a number: {}", excerpt(&answer)))
        }
    })
}

/// A finite number alone on a line.
pub(crate) fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text)
        .ok()?
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heaters_are_set_with_q_and_read_with_r() {
        let q1 = Variable::parse("q1").unwrap();
        assert_eq!(q1.read_command(), "R1");
        assert_eq!(q1.set_command(45.5).unwrap(), "Q1 45.5");
        assert!(Variable::T1.set_command(1.0).is_none());
        assert!(Variable::parse("T3").is_none());
    }

    proptest! {
        #[test]
        fn any_answer_is_a_finite_number_or_none(answer in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(value) = number(&answer) {
                prop_assert!(value.is_finite());
            }
        }
    }
}
