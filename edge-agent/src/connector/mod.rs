//! Connectors: how the agent talks to instruments, and how to write the next one.
//!
//! # Writing a connector
//!
//! A connector is one type with one method that must be written, [`Connector::run`]: talk to the device until `stop`,
//! and hand over what it says through the [`Emitter`]. Everything else (batching, signing, spooling, clocks,
//! sending, resending) happens behind the emitter. The whole of it:
//!
//! ```
//! use orrery_edge_agent::connector::{Connector, Emitter};
//! use orrery_protocol::Value;
//! use tokio_util::sync::CancellationToken;
//! # async fn ask_the_device() -> Result<f64, String> { Ok(21.5) }
//!
//! struct Thermometer;
//!
//! #[async_trait::async_trait]
//! impl Connector for Thermometer {
//!     async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken) {
//!         while !stop.is_cancelled() {
//!             match ask_the_device().await {
//!                 Ok(celsius) => {
//!                     emit.connected();
//!                     let stamp = emit.stamp(); // the moment of arrival, before anything else is done
//!                     let row = vec![Value::Float(celsius)]; // one value per channel of stream 0
//!                     if emit.reading(0, None, stamp, row).await.is_err() {
//!                         return; // the agent stops
//!                     }
//!                 }
//!                 Err(problem) => emit.disconnected(&format!("thermometer: {problem}; is it switched on?")),
//!             }
//!             emit.sleep(std::time::Duration::from_millis(100)).await;
//! #           break;
//!         }
//!     }
//! }
//! ```
//!
//! Then add a variant to [`ConnectorConfig`], a line to [`build`] and, for what only the connector can
//! check about its sources, a line to [`check`]. The rules:
//!
//! - **Never end because of the device.** A lost device is [`Emitter::disconnected`] with a message that names the place and the
//!   remedy, a pause ([`Backoff`]), and another try. Return only when `stop` is cancelled or the emitter says [`Stopped`].
//! - **Never panic on what the device says.** Garbage is [`Emitter::bad`]: counted, and reported in a `log` envelope.
//! - **Stamp first.** Call [`Emitter::stamp`] as soon as the bytes arrive: until the reading is durable the stamp holds back the device's
//!   heartbeat, so that "complete until" is never a lie.
//! - **The source's own stamp** goes into `device_time`, untouched. If the protocol lets one ask the device for its time, send
//!   the round trip as [`Emitter::probe`].
//! - **A source that waits for an acknowledgement** (MQTT) uses [`Emitter::reading_acked`] and acknowledges when the receiver resolves:
//!   then the reading is fsynced.
//! - **Commands**: return a [`Control`] from [`Connector::control`]; it sets a channel and reads it back.

pub mod json;
pub mod lines;
pub mod mqtt;
pub mod opcua;
pub mod port;
pub mod tclab;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orrery_protocol::{Clock, ClockId, DeviceNanos, MonoNanos, Probe, Value};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{ConnectorConfig, DeviceConfig};
use crate::status::DeviceStatus;

/// Something that talks to one device.
#[async_trait]
pub trait Connector: Send {
    /// Talks to the device until `stop`, through every loss of the connection.
    async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken);

    /// The handle that commands the device, for those that can be commanded. Asked once, before `run`.
    fn control(&self) -> Option<Arc<dyn Control>> {
        None
    }
}

/// Sets a channel of a device and reads it back.
#[async_trait]
pub trait Control: Send + Sync {
    /// Sets the channel found under `source` and returns the value read back from the device.
    async fn set(&self, source: &str, value: f64) -> Result<f64, ControlError>;
    /// Reads what the device has now.
    async fn read_back(&self, source: &str) -> Result<f64, ControlError>;
}

/// Why a set-point did not get through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The device was not reached; nothing was set.
    #[error("the device is not connected: {0}")]
    NotConnected(String),
    /// The device said no.
    #[error("the device refused: {0}")]
    Refused(String),
    /// The device was told, and what it did is not known.
    #[error("the device was told but did not answer: {0}")]
    Unknown(String),
}

/// Why a broker or server cannot be used: a sentence with the place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// What was configured cannot be one.
    #[error("{0}")]
    Settings(String),
    /// It refuses the credentials.
    #[error("{0}")]
    Denied(String),
    /// It does not answer, or not as it should.
    #[error("{0}")]
    Unreachable(String),
}

/// Where the credentials come from that a broker or server refuses.
pub(crate) const CREDENTIALS: &str = "check username and password of its connector, or --username and \
                                      ORRERY_EDGE_PASSWORD on the command line";

/// The agent no longer takes readings: the connector should return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// One row of one stream.
#[derive(Debug)]
pub struct Reading {
    /// The index of the stream in the device's configuration.
    pub stream: usize,
    /// The source's own stamp.
    pub device_time: Option<DeviceNanos>,
    /// When it arrived at the agent.
    pub received: Stamp,
    /// One value per channel, null where the message had none.
    pub values: Vec<Value>,
    /// Resolved when the reading is durable.
    pub durable: Option<oneshot::Sender<()>>,
}

/// What a connector hands over.
#[derive(Debug)]
pub enum Emitted {
    /// A row.
    Reading(Reading),
    /// Something that could not be understood.
    Bad(String),
    /// Something people should read in the device's chain.
    Log {
        /// `info`, `warn` or `error`.
        level: &'static str,
        /// The line.
        message: String,
    },
    /// The clock that `device_time` is read on, from now on.
    DeviceClock(ClockId),
    /// Round trips to the device's clock: `t0`, `t3` on the host's boot-time clock, `t1`, `t2` on the device's.
    Probe {
        /// The device's clock.
        clock_id: ClockId,
        /// One wave.
        probes: Vec<Probe>,
    },
}

/// The connector's way into the agent. Cheap to clone; bounded, so a full spool pushes back to the device.
#[derive(Clone)]
pub struct Emitter {
    sender: mpsc::Sender<Emitted>,
    clock: Arc<dyn Clock>,
    in_flight: Arc<InFlight>,
    status: Arc<DeviceStatus>,
    device: Arc<str>,
}

/// How many readings may wait between a connector and its device's chain.
pub const QUEUE_LENGTH: usize = 4_096;

impl Emitter {
    /// An emitter for `device`, and the end that receives.
    pub fn new(
        device: &str,
        clock: Arc<dyn Clock>,
        status: Arc<DeviceStatus>,
    ) -> (Self, mpsc::Receiver<Emitted>, Arc<InFlight>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let in_flight = Arc::new(InFlight::default());
        let emitter = Self {
            sender,
            clock,
            in_flight: Arc::clone(&in_flight),
            status,
            device: device.into(),
        };
        (emitter, receiver, in_flight)
    }

    /// The agent's clocks.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The moment of arrival.
    pub fn stamp(&self) -> Stamp {
        InFlight::begin(&self.in_flight, &*self.clock)
    }

    /// Hands over a row.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn reading(
        &self,
        stream: usize,
        device_time: Option<DeviceNanos>,
        received: Stamp,
        values: Vec<Value>,
    ) -> Result<(), Stopped> {
        self.send(Emitted::Reading(Reading {
            stream,
            device_time,
            received,
            values,
            durable: None,
        }))
        .await
    }

    /// Hands over a row whose source waits; the receiver resolves when the row is fsynced.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn reading_acked(
        &self,
        stream: usize,
        device_time: Option<DeviceNanos>,
        received: Stamp,
        values: Vec<Value>,
    ) -> Result<oneshot::Receiver<()>, Stopped> {
        let (durable, receiver) = oneshot::channel();
        let reading = Reading {
            stream,
            device_time,
            received,
            values,
            durable: Some(durable),
        };
        self.send(Emitted::Reading(reading)).await?;
        Ok(receiver)
    }

    /// Reports something that could not be understood; `what` says what and shows a short piece of it.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn bad(&self, what: String) -> Result<(), Stopped> {
        self.send(Emitted::Bad(what)).await
    }

    /// Names the clock that `device_time` is read on.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn device_clock(&self, clock_id: ClockId) -> Result<(), Stopped> {
        self.send(Emitted::DeviceClock(clock_id)).await
    }

    /// Hands over a wave of round trips to the device's clock.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn probe(&self, clock_id: ClockId, probes: Vec<Probe>) -> Result<(), Stopped> {
        self.send(Emitted::Probe { clock_id, probes }).await
    }

    /// Hands over anything.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub async fn send(&self, emitted: Emitted) -> Result<(), Stopped> {
        self.sender.send(emitted).await.map_err(|_| Stopped)
    }

    /// Hands over anything without waiting; gives it back while the queue is full.
    ///
    /// # Errors
    /// [`Stopped`] when the agent stops.
    pub fn try_send(&self, emitted: Emitted) -> Result<Option<Emitted>, Stopped> {
        match self.sender.try_send(emitted) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(back)) => Ok(Some(back)),
            Err(TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Says that the device answers. Cheap: call it with every answer.
    pub fn connected(&self) {
        if self.status.set_connected() {
            tracing::info!(device = %self.device, "connected");
        }
    }

    /// Says that the device does not answer, why, and what to do about it.
    pub fn disconnected(&self, problem: &str) {
        // Once per change, not once per attempt: a retry every second must not fill the log.
        if self.status.set_problem(problem) {
            self.tell(problem);
        }
    }

    /// Says what is wrong although the device answers, and what to do about it; [`Emitter::connected`] takes it back.
    pub fn troubled(&self, problem: &str) {
        if self.status.set_trouble(problem) {
            self.tell(problem);
        }
    }

    fn tell(&self, problem: &str) {
        tracing::warn!(device = %self.device, "{problem}");
        let log = Emitted::Log {
            level: "warn",
            message: problem.to_owned(),
        };
        // A full queue already says that something is wrong; the counter and the log line stand anyway.
        drop(self.sender.try_send(log));
    }

    /// Whether the device answered last.
    pub fn was_connected(&self) -> bool {
        self.status.connected()
    }

    /// Sleeps for a span of the agent's clock.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(self.clock.real(span)).await;
    }
}

/// Readings stamped and not yet sealed: what holds back "complete until".
#[derive(Debug, Default)]
pub struct InFlight(Mutex<VecDeque<MonoNanos>>);

impl InFlight {
    fn begin(this: &Arc<Self>, clock: &dyn Clock) -> Stamp {
        let mut stamps = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: a heartbeat must not slip between the reading of the clock and its registration.
        let at = clock.monotonic();
        stamps.push_back(at);
        Stamp {
            at,
            in_flight: Arc::clone(this),
        }
    }

    /// The oldest stamp in flight, or the clock's now.
    pub fn complete_until(&self, clock: &dyn Clock) -> MonoNanos {
        let stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.iter().min().copied().unwrap_or_else(|| clock.monotonic())
    }
}

/// When something arrived; holds back the heartbeat until it is dropped.
#[derive(Debug)]
pub struct Stamp {
    at: MonoNanos,
    in_flight: Arc<InFlight>,
}

impl Stamp {
    /// The instant.
    pub fn at(&self) -> MonoNanos {
        self.at
    }

    /// Another stamp of the same instant, for a message that is a row of several streams.
    pub fn again(&self) -> Self {
        let mut stamps = self.in_flight.0.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.push_back(self.at);
        Self {
            at: self.at,
            in_flight: Arc::clone(&self.in_flight),
        }
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        let mut stamps = self.in_flight.0.lock().unwrap_or_else(PoisonError::into_inner);
        // First in, first out nearly always: the front is the usual place.
        if let Some(place) = stamps.iter().position(|at| *at == self.at) {
            stamps.remove(place);
        }
    }
}

/// Pauses between attempts: doubling from `first` to `most`, with jitter so that many agents do not knock together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// What connectors use.
    pub fn for_devices() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(5))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause: between half and the whole of the step.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        let mut byte = [0u8; 1];
        // Without randomness the pause is merely not jittered.
        let share = getrandom::fill(&mut byte).map_or(1.0, |()| f64::from(byte[0]) / 255.0);
        step.mul_f64(0.5 + 0.5 * share)
    }
}

/// Makes the connector that a configuration names.
///
/// # Errors
/// A sentence that names what cannot work.
pub fn build(device: &DeviceConfig) -> Result<Box<dyn Connector>, String> {
    Ok(match &device.connector {
        ConnectorConfig::Mqtt(config) => Box::new(mqtt::Mqtt::new(config.clone(), device)?),
        ConnectorConfig::OpcUa(config) => Box::new(opcua::OpcUa::new(config.clone(), device)?),
        ConnectorConfig::TcLab(config) => Box::new(tclab::TcLab::new(config.clone(), device)?),
        ConnectorConfig::Lines(config) => Box::new(lines::Lines::new(config.clone(), device)?),
    })
}

/// Checks what only the connector understands: addresses, sources, topics.
///
/// # Errors
/// A sentence that names the key and the remedy.
pub fn check(device: &DeviceConfig) -> Result<(), String> {
    build(device).map(drop)
}

/// A short, printable piece of what a device said, for messages.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text: String = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)])
        .escape_debug()
        .collect();
    if bytes.len() > LONGEST {
        format!("`{text}…` ({} bytes)", bytes.len())
    } else {
        format!("`{text}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orrery_protocol::{ManualClock, TaiNanos};

    #[test]
    fn the_oldest_stamp_in_flight_holds_back_completeness() {
        let clock = Arc::new(ManualClock::new(TaiNanos(0)));
        let (emit, _receiver, in_flight) = Emitter::new("d", clock.clone(), Arc::default());
        let first = emit.stamp();
        clock.advance(Duration::from_millis(5));
        let second = emit.stamp();
        clock.advance(Duration::from_millis(5));
        assert_eq!(in_flight.complete_until(&*clock), first.at());
        let again = first.again();
        drop(first);
        assert_eq!(in_flight.complete_until(&*clock), again.at());
        drop(again);
        assert_eq!(in_flight.complete_until(&*clock), second.at());
        drop(second);
        assert_eq!(in_flight.complete_until(&*clock), clock.monotonic());
    }

    #[test]
    fn pauses_grow_to_the_bound_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        let pauses: Vec<_> = (0..5).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(100) && pauses[0] >= Duration::from_millis(50));
        assert!(pauses[4] >= Duration::from_millis(200) && pauses[4] <= Duration::from_millis(400));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }

    #[test]
    fn a_problem_is_told_once() {
        let clock = Arc::new(ManualClock::new(TaiNanos(0)));
        let (emit, mut receiver, _) = Emitter::new("d", clock, Arc::default());
        emit.disconnected("no answer");
        emit.disconnected("no answer");
        assert!(matches!(receiver.try_recv(), Ok(Emitted::Log { .. })));
        assert!(receiver.try_recv().is_err());
        emit.connected();
        emit.disconnected("no answer");
        assert!(receiver.try_recv().is_ok());
    }
}
