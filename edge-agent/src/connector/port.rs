//! A serial port on a thread of its own, with a watchdog.
//!
//! `serialport`'s reads can ignore their timeout, so nothing else may wait for them: one blocking thread holds the
//! port and shows a sign of life at least every half second; a task watches it. A thread that shows none for
//! [`WATCHDOG`] is reported and abandoned, and a new one tries to open the port again.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orrery_protocol::{Clock, MonoNanos};
use serialport::SerialPort;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Control, ControlError, Emitted, Emitter, Stopped};

const WATCHDOG: Duration = Duration::from_secs(5);
const LONGEST_READ: Duration = Duration::from_millis(200);
const LONGEST_LINE: usize = 1_024;

/// Why a session with a port ended.
#[derive(Debug)]
pub enum PortError {
    /// The port is gone or the device does not answer: try again.
    Lost(String),
    /// The agent stops.
    Stopped,
}

impl From<Stopped> for PortError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// What one kind of device does with an open port. Runs on the port's thread and may block for half a second at most.
pub trait Session: Send + 'static {
    /// Talks until the port is lost or the agent stops.
    ///
    /// # Errors
    /// [`PortError::Lost`] to open the port again after a pause.
    fn talk(&mut self, line: &mut LinePort, emit: &Emitter) -> Result<(), PortError>;
}

/// A request from [`PortControl`] to the port's thread.
#[derive(Debug)]
pub struct Request {
    /// Which variable.
    pub source: String,
    /// The value to set; none only reads.
    pub value: Option<f64>,
    answer: oneshot::Sender<Result<f64, ControlError>>,
}

impl Request {
    /// Answers; whoever asked may have given up.
    pub fn answer(self, result: Result<f64, ControlError>) {
        drop(self.answer.send(result));
    }
}

/// Commands a device through its port's thread.
#[derive(Debug)]
pub struct PortControl {
    requests: SyncSender<Request>,
    port: String,
}

/// How long a command waits for the port's thread.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);

impl PortControl {
    /// A control for the port and the end that the thread reads.
    ///
    /// # Errors
    /// When no port is named.
    pub fn new(port: &str) -> Result<(Arc<Self>, Receiver<Request>), String> {
        if port.trim().is_empty() {
            return Err("port is empty; write one that `orrery-edge discover` lists, such as /dev/ttyACM0".to_owned());
        }
        let (requests, receiver) = sync_channel(16);
        let control = Self {
            requests,
            port: port.to_owned(),
        };
        Ok((Arc::new(control), receiver))
    }

    async fn ask(&self, source: &str, value: Option<f64>) -> Result<f64, ControlError> {
        let (answer, receiver) = oneshot::channel();
        let busy = || ControlError::NotConnected(format!("nobody serves {}", self.port));
        self.requests
            .try_send(Request {
                source: source.to_owned(),
                value,
                answer,
            })
            .map_err(|_| busy())?;
        match tokio::time::timeout(CONTROL_TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            // The thread dropped the request without touching the device.
            Ok(Err(_)) => Err(busy()),
            Err(_) => Err(ControlError::Unknown(format!(
                "{} did not answer within 3 s",
                self.port
            ))),
        }
    }
}

#[async_trait]
impl Control for PortControl {
    async fn set(&self, source: &str, value: f64) -> Result<f64, ControlError> {
        self.ask(source, Some(value)).await
    }

    async fn read_back(&self, source: &str) -> Result<f64, ControlError> {
        self.ask(source, None).await
    }
}

/// An open port that speaks in lines.
pub struct LinePort {
    port: Box<dyn SerialPort>,
    buffer: Vec<u8>,
    requests: Arc<Mutex<Receiver<Request>>>,
    life: Arc<Life>,
    name: String,
}

/// A line longer than any device sends.
#[derive(Debug)]
pub struct Overlong(pub Vec<u8>);

#[derive(Debug)]
struct Life {
    last_sign: AtomicI64,
    abandoned: AtomicBool,
    clock: Arc<RealClock>,
}

struct RealClock(Arc<dyn Clock>);

impl std::fmt::Debug for RealClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

impl Life {
    fn sign(&self) {
        self.last_sign.store(self.clock.0.monotonic().0, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = MonoNanos(self.last_sign.load(Ordering::Relaxed));
        self.clock.0.real(self.clock.0.monotonic().since(last))
    }
}

impl LinePort {
    /// The port's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`PortError::Lost`] names the port.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        self.check()?;
        self.port
            .write_all(bytes)
            .and_then(|()| self.port.flush())
            .map_err(|error| self.lost(&error))
    }

    /// The next line without its end, or none when none came within `wait`.
    ///
    /// # Errors
    /// [`PortError`] when the port is gone or the agent stops.
    pub fn line(&mut self, wait: Duration) -> Result<Option<Result<Vec<u8>, Overlong>>, PortError> {
        let mut left = wait;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                while matches!(line.last(), Some(b'\n' | b'\r')) {
                    line.pop();
                }
                return Ok(Some(Ok(line)));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Ok(Some(Err(Overlong(std::mem::take(&mut self.buffer)))));
            }
            self.check()?;
            if left.is_zero() {
                return Ok(None);
            }
            let step = left.min(LONGEST_READ);
            self.port.set_timeout(step).map_err(|error| self.lost(&error.into()))?;
            let mut chunk = [0u8; 512];
            match self.port.read(&mut chunk) {
                // A pseudo-terminal whose other end closed reads as end of file.
                Ok(0) => {
                    return Err(PortError::Lost(format!(
                        "{} was closed by the other end; is it plugged in?",
                        self.name
                    )));
                }
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => left = left.saturating_sub(step),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    /// Forgets what was received and not read.
    pub fn forget(&mut self) {
        self.buffer.clear();
        drop(self.port.clear(serialport::ClearBuffer::Input));
    }

    /// Waits up to `wait` for a request to the device.
    ///
    /// # Errors
    /// [`PortError::Stopped`] when the agent stops.
    pub fn request(&mut self, wait: Duration) -> Result<Option<Request>, PortError> {
        let mut left = wait;
        loop {
            self.check()?;
            let step = left.min(LONGEST_READ);
            let received = self
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(step);
            match received {
                Ok(request) => return Ok(Some(request)),
                Err(RecvTimeoutError::Timeout) => left = left.saturating_sub(step),
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(step);
                    left = left.saturating_sub(step);
                }
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Hands over. While the agent's queue is full (as on a full disk), requests to the device still get through to
    /// `serve`: a heater must go to its safe value whatever becomes of the samples.
    ///
    /// # Errors
    /// [`PortError::Stopped`] when the agent stops, and what `serve` says.
    pub fn hand_over(
        &mut self,
        emit: &Emitter,
        emitted: Emitted,
        mut serve: impl FnMut(&mut Self, Request) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let mut waiting = emitted;
        while let Some(back) = emit.try_send(waiting)? {
            waiting = back;
            if let Some(request) = self.request(Duration::from_millis(20))? {
                serve(self, request)?;
            }
        }
        Ok(())
    }

    /// Shows a sign of life and notices that nobody wants this thread any more.
    fn check(&self) -> Result<(), PortError> {
        self.life.sign();
        if self.life.abandoned.load(Ordering::Relaxed) {
            Err(PortError::Stopped)
        } else {
            Ok(())
        }
    }

    fn lost(&self, error: &std::io::Error) -> PortError {
        PortError::Lost(format!("{} is gone ({error}); is it plugged in?", self.name))
    }
}

/// Opens the port, runs sessions on its thread and opens it again when it is lost, until `stop`.
pub async fn serve(
    name: &str,
    baud: u32,
    requests: Receiver<Request>,
    emit: Emitter,
    stop: CancellationToken,
    mut new_session: impl FnMut() -> Box<dyn Session> + Send,
) {
    let requests = Arc::new(Mutex::new(requests));
    let mut backoff = Backoff::for_devices();
    while !stop.is_cancelled() {
        let life = Arc::new(Life {
            last_sign: AtomicI64::new(emit.clock().monotonic().0),
            abandoned: AtomicBool::new(false),
            clock: Arc::new(RealClock(Arc::clone(emit.clock()))),
        });
        let (ended, mut end) = oneshot::channel();
        let (thread_life, thread_requests) = (Arc::clone(&life), Arc::clone(&requests));
        let (thread_name, thread_emit, mut session) = (name.to_owned(), emit.clone(), new_session());
        let spawned = std::thread::Builder::new().name(format!("port {name}")).spawn(move || {
            let result = open(&thread_name, baud).and_then(|port| {
                let mut line = LinePort {
                    port,
                    buffer: Vec::new(),
                    requests: thread_requests,
                    life: thread_life,
                    name: thread_name,
                };
                session.talk(&mut line, &thread_emit)
            });
            drop(ended.send(result));
        });
        if let Err(error) = spawned {
            emit.disconnected(&format!("no thread for {name} ({error}); raise the limit of threads"));
            emit.sleep(backoff.next_pause()).await;
            continue;
        }
        let result = loop {
            tokio::select! {
                result = &mut end => break result.unwrap_or_else(|_| Err(PortError::Lost(format!("{name}: its thread died")))),
                () = stop.cancelled() => {
                    life.abandoned.store(true, Ordering::Relaxed);
                    // The thread notices within its longest read; a stuck one must not hold up the stop.
                    drop(tokio::time::timeout(Duration::from_millis(600), &mut end).await);
                    return;
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    if life.silent_for() > WATCHDOG {
                        life.abandoned.store(true, Ordering::Relaxed);
                        break Err(PortError::Lost(format!(
                            "{name} hangs in the driver for {} s; unplug it and plug it in again", WATCHDOG.as_secs())));
                    }
                }
            }
        };
        match result {
            Err(PortError::Stopped) => return,
            Err(PortError::Lost(problem)) => {
                let was_connected = emit.was_connected();
                emit.disconnected(&problem);
                if was_connected {
                    backoff.reset();
                }
            }
            Ok(()) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_pause()) => {}
        }
    }
}

fn open(name: &str, baud: u32) -> Result<Box<dyn SerialPort>, PortError> {
    serialport::new(name, baud)
        .timeout(LONGEST_READ)
        .open()
        .map_err(|error| {
            let remedy = match error.kind() {
                serialport::ErrorKind::NoDevice => {
                    "plug it in, or correct `port`; `orrery-edge discover` lists the ports"
                }
                serialport::ErrorKind::Io(std::io::ErrorKind::PermissionDenied) => {
                    "add the user to the group that owns it (often `dialout`)"
                }
                serialport::ErrorKind::Io(std::io::ErrorKind::NotFound) => {
                    "plug it in, or correct `port`; `orrery-edge discover` lists the ports"
                }
                _ => "check that no other program holds it",
            };
            PortError::Lost(format!("cannot open the serial port {name} ({error}); {remedy}"))
        })
}
