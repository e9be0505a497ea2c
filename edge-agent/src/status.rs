//! Counters that the host process reads: plain atomics, no registry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use orrery_protocol::DeviceId;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened at one device since the agent started.
#[derive(Debug, Default)]
pub struct DeviceStatus {
    /// Readings taken from the connector.
    pub readings: Counter,
    /// Lines, packets or values that could not be understood.
    pub bad: Counter,
    /// Times the connection to the device was lost or could not be made.
    pub disconnects: Counter,
    /// Envelopes sealed and durably spooled.
    pub sealed: Counter,
    /// Envelopes lost in the spool, because it was full or its disk damaged them; each range is declared in a `loss` record.
    pub dropped: Counter,
    /// Commands applied with the value read back.
    pub commands_applied: Counter,
    /// Commands refused, or of unknown effect.
    pub commands_refused: Counter,
    connected: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl DeviceStatus {
    /// Whether the connector is connected to the device.
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The last problem, until the device is connected again or the trouble is over.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a connection; returns whether this is a change.
    pub fn set_connected(&self) -> bool {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        !self.connected.swap(true, Ordering::Relaxed)
    }

    /// Records a lost or failed connection; returns whether the text or the state is new.
    pub fn set_problem(&self, problem: &str) -> bool {
        let was_connected = self.connected.swap(false, Ordering::Relaxed);
        if was_connected {
            self.disconnects.increment();
        }
        let mut held = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = was_connected || held.as_deref() != Some(problem);
        *held = Some(problem.to_owned());
        is_new
    }

    /// Records what is wrong although the device is connected; returns whether the text is new.
    pub fn set_trouble(&self, problem: &str) -> bool {
        let mut held = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = held.as_deref() != Some(problem);
        *held = Some(problem.to_owned());
        is_new
    }

    /// The counters by name, as heartbeats carry them.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        [
            ("readings", self.readings.get()),
            ("bad", self.bad.get()),
            ("disconnects", self.disconnects.get()),
            ("sealed", self.sealed.get()),
            ("dropped", self.dropped.get()),
            ("connected", u64::from(self.connected())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// What happened in the whole agent since it started.
#[derive(Debug, Default)]
pub struct Status {
    devices: Mutex<BTreeMap<DeviceId, Arc<DeviceStatus>>>,
    /// Envelopes that the sink acknowledged.
    pub sent: Counter,
    /// Bytes that the sink acknowledged.
    pub sent_bytes: Counter,
    /// Attempts to send that failed and were repeated.
    pub send_failures: Counter,
    /// Clock probes of the gateway that were answered.
    pub probes: Counter,
    /// Clock probes of the gateway that failed.
    pub probe_failures: Counter,
    /// Appends that the spool's disk refused and that were repeated.
    pub spool_failures: Counter,
    /// Damaged regions of the spool found at start, quarantined by the journal.
    pub spool_quarantined: Counter,
    spool_problem: Mutex<Option<String>>,
    spool_bytes: AtomicU64,
    spool_backlog: AtomicU64,
    best_round_trip_nanos: AtomicI64,
}

impl Status {
    /// A fresh set of counters.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The counters of one device, made on first use.
    pub fn device(&self, device: &DeviceId) -> Arc<DeviceStatus> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(devices.entry(device.clone()).or_default())
    }

    /// The counters of every device.
    pub fn devices(&self) -> Vec<(DeviceId, Arc<DeviceStatus>)> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices
            .iter()
            .map(|(id, status)| (id.clone(), Arc::clone(status)))
            .collect()
    }

    /// Bytes of the spool on disk.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.load(Ordering::Relaxed)
    }

    /// Envelopes in the spool that the sink has not acknowledged.
    pub fn spool_backlog(&self) -> u64 {
        self.spool_backlog.load(Ordering::Relaxed)
    }

    /// The least round trip of the last wave of clock probes, once there was one.
    pub fn best_round_trip_nanos(&self) -> Option<i64> {
        Some(self.best_round_trip_nanos.load(Ordering::Relaxed)).filter(|nanos| *nanos > 0)
    }

    /// Why the spool takes nothing, until it does.
    pub fn spool_problem(&self) -> Option<String> {
        self.spool_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_spool_problem(&self, problem: Option<String>) {
        *self.spool_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(crate) fn set_spool(&self, bytes: u64, backlog: u64) {
        self.spool_bytes.store(bytes, Ordering::Relaxed);
        self.spool_backlog.store(backlog, Ordering::Relaxed);
    }

    pub(crate) fn set_round_trip(&self, nanos: i64) {
        self.best_round_trip_nanos.store(nanos, Ordering::Relaxed);
    }
}
