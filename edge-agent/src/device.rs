//! One device: from readings to sealed envelopes in the spool.
//!
//! [`Sealer`] is pure: it gathers rows and makes envelopes, and performs nothing. [`run`] is the loop around it. If this
//! task dies the agent ends: a device's chain has one owner, and a restart of the process starts a new boot of it.

use std::sync::Arc;
use std::time::Duration;

use orrery_protocol::{
    BootId, Chain, Clock, ClockId, ClockPair, ClockPayload, Descriptor, DeviceId, Digest, EnvelopeError,
    HeartbeatPayload, LogPayload, MonoNanos, PayloadType, Probe, SampleBlock, SampleBuilder, SealKey, Sealed, StreamId,
    TaiNanos, UtcNanos,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DeviceConfig};
use crate::connector::{Emitted, InFlight, Reading, Stamp};
use crate::error::Error;
use crate::garbage::Garbage;
use crate::spool::{Head, Spool};
use crate::status::DeviceStatus;

/// Gathers rows and seals a device's envelopes in order.
pub struct Sealer {
    key: SealKey,
    chain: Chain,
    streams: Vec<StreamBatch>,
    host: ClockId,
    device_clock: Option<ClockId>,
    max_rows: usize,
    last_beat: Option<MonoNanos>,
}

struct StreamBatch {
    descriptor: Descriptor,
    builder: SampleBuilder,
    is_sealed_since_beat: bool,
}

/// Envelopes of samples, and whether a full spool may drop them.
#[derive(Debug)]
pub struct SealedSamples {
    /// The envelopes, in order.
    pub envelopes: Vec<Sealed>,
    /// From the stream's descriptor.
    pub is_droppable: bool,
}

impl Sealer {
    /// A new boot of the device.
    pub fn new(key: SealKey, chain: Chain, descriptors: Vec<Descriptor>, host: ClockId, max_rows: usize) -> Self {
        let streams = descriptors
            .into_iter()
            .map(|descriptor| StreamBatch {
                builder: SampleBuilder::new(&descriptor, host.clone()),
                descriptor,
                is_sealed_since_beat: false,
            })
            .collect();
        Self {
            key,
            chain,
            streams,
            host,
            device_clock: None,
            max_rows,
            last_beat: None,
        }
    }

    /// The descriptors, sealed.
    ///
    /// # Errors
    /// When a descriptor is larger than an envelope.
    pub fn announce(&mut self, now: TaiNanos) -> Result<Vec<Sealed>, EnvelopeError> {
        let payloads: Vec<_> = self.streams.iter().map(|stream| stream.descriptor.encode()).collect();
        payloads
            .iter()
            .map(|payload| self.seal(now, PayloadType::Descriptor, payload))
            .collect()
    }

    /// Adds a row; true when the stream's batch is full and must be sealed.
    pub fn push(&mut self, reading: &Reading) -> bool {
        let Some(stream) = self.streams.get_mut(reading.stream) else {
            return false;
        };
        stream
            .builder
            .push(reading.device_time, reading.received.at(), &reading.values);
        stream.builder.len() >= self.max_rows
    }

    /// Whether rows wait.
    pub fn has_rows(&self) -> bool {
        self.streams.iter().any(|stream| !stream.builder.is_empty())
    }

    /// Seals what waits. Rows too large for any envelope are left out and counted in the second value.
    ///
    /// # Errors
    /// When Arrow refuses its own batch: a defect.
    pub fn seal_samples(&mut self, now: TaiNanos) -> Result<(Vec<SealedSamples>, u64), EnvelopeError> {
        let mut sealed = Vec::new();
        let mut too_large = 0;
        for at in 0..self.streams.len() {
            let stream = &mut self.streams[at];
            let Some(block) = stream.builder.take(self.device_clock.clone()) else {
                continue;
            };
            stream.is_sealed_since_beat = true;
            let is_droppable = stream.descriptor.droppable;
            let mut envelopes = Vec::new();
            too_large += self.seal_block(now, block, &mut envelopes)?;
            sealed.push(SealedSamples {
                envelopes,
                is_droppable,
            });
        }
        Ok((sealed, too_large))
    }

    /// Halves a block until it fits.
    fn seal_block(&mut self, now: TaiNanos, block: SampleBlock, into: &mut Vec<Sealed>) -> Result<u64, EnvelopeError> {
        let mut waiting = vec![block];
        let mut too_large = 0;
        while let Some(block) = waiting.pop() {
            let payload = block
                .encode()
                .map_err(|error| EnvelopeError::NotCose(error.to_string()))?;
            match self.chain.seal(&self.key, now, PayloadType::Samples, &payload) {
                Ok(sealed) => into.push(sealed),
                Err(EnvelopeError::TooLarge { .. }) if block.len() > 1 => {
                    let half = block.len() / 2;
                    let slice = |from, count| SampleBlock {
                        batch: block.batch.slice(from, count),
                        ..block.clone()
                    };
                    waiting.push(slice(half, block.len() - half));
                    waiting.push(slice(0, half));
                }
                Err(EnvelopeError::TooLarge { .. }) => too_large += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(too_large)
    }

    /// Seals anything else.
    ///
    /// # Errors
    /// When it is larger than an envelope.
    pub fn seal(&mut self, now: TaiNanos, kind: PayloadType, payload: &[u8]) -> Result<Sealed, EnvelopeError> {
        self.chain.seal(&self.key, now, kind, payload)
    }

    /// A heartbeat, when some stream sealed no samples since the last call, or when the counters have not been told for a while.
    ///
    /// # Errors
    /// When it is larger than an envelope: never.
    pub fn heartbeat(
        &mut self,
        now: TaiNanos,
        complete_until: MonoNanos,
        status: &DeviceStatus,
    ) -> Result<Option<Sealed>, EnvelopeError> {
        let is_busy = self.streams.iter().all(|stream| stream.is_sealed_since_beat);
        for stream in &mut self.streams {
            stream.is_sealed_since_beat = false;
        }
        let is_recent = self
            .last_beat
            .is_some_and(|last| complete_until.since(last) < LONGEST_BEAT);
        if is_busy && is_recent {
            return Ok(None);
        }
        self.last_beat = Some(complete_until);
        let payload = HeartbeatPayload {
            clock_id: self.host.clone(),
            complete_until,
            streams: Vec::new(),
            except: Vec::new(),
            counters: status.counters(),
        };
        self.seal(now, PayloadType::Heartbeat, &payload.encode()).map(Some)
    }

    fn clock_payload(&self, clock_id: ClockId, probes: Vec<Probe>, pairs: Vec<ClockPair>) -> Vec<u8> {
        ClockPayload {
            clock_id,
            host: self.host.clone(),
            probes,
            pairs,
        }
        .encode()
    }
}

/// Something another task wants in a device's chain.
#[derive(Debug)]
pub struct SealRequest {
    /// What it is.
    pub kind: PayloadType,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What a device's loop needs.
pub struct DeviceDeps {
    /// The agent's clocks.
    pub clock: Arc<dyn Clock>,
    /// Where envelopes wait.
    pub spool: Arc<Spool>,
    /// The device's counters.
    pub status: Arc<DeviceStatus>,
    /// What the connector hands over; ends when the connector has ended.
    pub input: mpsc::Receiver<Emitted>,
    /// What was stamped and not yet sealed.
    pub in_flight: Arc<InFlight>,
    /// Waves of clock probes of the gateway.
    pub waves: watch::Receiver<Option<Arc<Wave>>>,
    /// What other tasks want sealed.
    pub requests: mpsc::Receiver<SealRequest>,
}

/// One wave of probes of the gateway, with the host's clocks beside it.
#[derive(Debug, Clone, Default)]
pub struct Wave {
    /// The probes that were answered.
    pub probes: Vec<Probe>,
    /// Wall and boot-time clock, before and after.
    pub pairs: Vec<ClockPair>,
}

impl Wave {
    /// The host's clocks, read together.
    pub fn pair(clock: &dyn Clock) -> ClockPair {
        ClockPair {
            wall: clock.wall(),
            monotonic: clock.monotonic(),
        }
    }
}

/// The longest a busy device goes without telling its counters.
const LONGEST_BEAT: Duration = Duration::from_secs(5);

/// The least real time between heartbeats of a sped-up clock.
const LEAST_BEAT: Duration = Duration::from_millis(50);

/// Runs a device until its connector has ended and `stop` is cancelled, and leaves nothing unsealed.
///
/// # Errors
/// When the agent's own files fail, or an envelope cannot be made.
pub async fn run(
    agent: Arc<Config>,
    device: DeviceConfig,
    key: SealKey,
    deps: DeviceDeps,
    stop: CancellationToken,
) -> Result<(), Error> {
    let sealer = open_chain(&device, key, &*deps.clock, &deps.spool)?;
    let mut task = Task {
        id: device.id.clone(),
        linger: device.batch.linger(),
        heartbeat: Duration::from_millis(agent.heartbeat_ms),
        sealer,
        pending: Vec::new(),
        stamps: Vec::new(),
        linger_until: None,
        garbage: Garbage::default(),
        deps,
    };
    task.announce(Duration::from_millis(agent.clock.first_wave_wait_ms))
        .await?;
    task.serve(stop).await?;
    task.finish().await
}

/// Starts the device's new boot, linked to its last one.
fn open_chain(device: &DeviceConfig, key: SealKey, clock: &dyn Clock, spool: &Spool) -> Result<Sealer, Error> {
    let head = spool.head(&device.id);
    let mut random = [0u8; 10];
    // A boot id without randomness still differs by its millisecond.
    let _ = getrandom::fill(&mut random);
    let boot_id = next_boot(head, clock.wall(), random);
    let chain = Chain::start(device.id.clone(), boot_id, head.map(|head| head.digest));
    let descriptors = device
        .streams
        .iter()
        .map(|stream| {
            let id = StreamId::of(&device.id, &stream.name).expect("the configuration was checked");
            let mut descriptor = Descriptor {
                stream: id.clone(),
                version: 0,
                title: stream
                    .title
                    .clone()
                    .or_else(|| device.title.clone())
                    .unwrap_or_else(|| id.to_string()),
                protocol: device.connector.protocol().to_owned(),
                channels: stream.channels.iter().map(|channel| channel.describe()).collect(),
                nominal_rate_hz: stream.nominal_rate_hz,
                droppable: stream.droppable,
                max_silence_ms: stream.max_silence_ms,
                calibration: stream.calibration.clone(),
            };
            descriptor.version = spool.descriptor_version(&id, Digest::of(&descriptor.encode()))?;
            Ok(descriptor)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Sealer::new(
        key,
        chain,
        descriptors,
        clock.clock_id().clone(),
        device.batch.max_rows,
    ))
}

/// A boot id after the last one even when the wall clock went back: byte order is start order.
fn next_boot(head: Option<Head>, wall: TaiNanos, random: [u8; 10]) -> BootId {
    let boot = BootId::new(wall, random);
    match head {
        Some(head) if boot <= head.boot_id => {
            let mut millis = [0u8; 8];
            millis[2..].copy_from_slice(&head.boot_id.0[..6]);
            let next = i64::try_from(u64::from_be_bytes(millis) + 1).unwrap_or(i64::MAX / 1_000_000);
            BootId::new(TaiNanos::from_utc(UtcNanos(next.saturating_mul(1_000_000))), random)
        }
        _ => boot,
    }
}

struct Task {
    id: DeviceId,
    linger: Duration,
    heartbeat: Duration,
    sealer: Sealer,
    /// Who waits for the rows in the batch to be durable.
    pending: Vec<oneshot::Sender<()>>,
    /// Stamps of the rows in the batch: dropped when they are sealed and durable.
    stamps: Vec<Stamp>,
    linger_until: Option<tokio::time::Instant>,
    garbage: Garbage,
    deps: DeviceDeps,
}

impl Task {
    /// Descriptors and the first clock evidence go before the first samples.
    async fn announce(&mut self, longest: Duration) -> Result<(), Error> {
        let announced = self
            .sealer
            .announce(self.deps.clock.wall())
            .map_err(|source| self.refused(source))?;
        self.store(announced, false).await;
        let first = self.deps.waves.wait_for(Option::is_some);
        let wave = match tokio::time::timeout(longest, first).await {
            Ok(Ok(wave)) => wave.clone(),
            // No gateway yet: the host's own pair is evidence too, and probes made later bound these samples as well.
            _ => None,
        };
        match wave {
            Some(wave) => self.seal_wave(&wave).await,
            None => {
                let wave = Wave {
                    probes: Vec::new(),
                    pairs: vec![Wave::pair(&*self.deps.clock)],
                };
                self.seal_wave(&wave).await
            }
        }
    }

    async fn serve(&mut self, stop: CancellationToken) -> Result<(), Error> {
        const AT_ONCE: usize = 1_024;
        let mut emitted = Vec::with_capacity(AT_ONCE);
        // A playback must not turn heartbeats into a storm of fsyncs.
        let period = self.deps.clock.real(self.heartbeat).max(self.heartbeat.min(LEAST_BEAT));
        let mut beat = tokio::time::interval(period);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut may_request = true;
        let mut has_waves = true;
        loop {
            let linger = self.linger_until;
            tokio::select! {
                biased;
                () = wait_until(linger), if linger.is_some() => self.flush().await?,
                count = self.deps.input.recv_many(&mut emitted, AT_ONCE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for emitted in emitted.drain(..) {
                        self.take(emitted).await?;
                    }
                }
                request = self.deps.requests.recv(), if may_request => match request {
                    Some(request) => self.seal_one(request.kind, &request.payload).await?,
                    None => may_request = false,
                },
                changed = self.deps.waves.changed(), if has_waves => {
                    has_waves = changed.is_ok();
                    let wave = self.deps.waves.borrow_and_update().clone();
                    if let (true, Some(wave)) = (has_waves, wave) {
                        self.seal_wave(&wave).await?;
                    }
                }
                _ = beat.tick() => self.beat().await?,
                // The connector ends first and closes the input; this is for one that does not.
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn take(&mut self, emitted: Emitted) -> Result<(), Error> {
        match emitted {
            Emitted::Reading(mut reading) => {
                self.deps.status.readings.increment();
                let is_full = self.sealer.push(&reading);
                self.pending.extend(reading.durable.take());
                self.stamps.push(reading.received);
                if is_full {
                    return self.flush().await;
                }
                if self.linger_until.is_none() {
                    self.linger_until = Some(tokio::time::Instant::now() + self.linger);
                }
                Ok(())
            }
            Emitted::Bad(what) => {
                self.deps.status.bad.increment();
                tracing::debug!(device = %self.id, "{what}");
                self.garbage.hear(what);
                Ok(())
            }
            Emitted::Log { level, message } => self.seal_log(level, message).await,
            Emitted::DeviceClock(clock_id) => {
                // Rows gathered so far were stamped by the clock before.
                self.flush().await?;
                self.sealer.device_clock = Some(clock_id);
                Ok(())
            }
            Emitted::Probe { clock_id, probes } => {
                let payload = self.sealer.clock_payload(clock_id, probes, Vec::new());
                self.seal_one(PayloadType::Clock, &payload).await
            }
        }
    }

    /// Seals what waits, spools it, and tells those who wait that it is durable.
    async fn flush(&mut self) -> Result<(), Error> {
        self.linger_until = None;
        if !self.sealer.has_rows() {
            return Ok(());
        }
        let (sealed, too_large) = self
            .sealer
            .seal_samples(self.deps.clock.wall())
            .map_err(|source| self.refused(source))?;
        for SealedSamples {
            envelopes,
            is_droppable,
        } in sealed
        {
            self.store(envelopes, is_droppable).await;
        }
        if too_large > 0 {
            self.deps.status.bad.add(too_large);
            self.seal_log(
                "error",
                format!("{too_large} rows were larger than an envelope and were left out"),
            )
            .await?;
        }
        self.stamps.clear();
        for durable in self.pending.drain(..) {
            // The source may have stopped waiting.
            let _ = durable.send(());
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), Error> {
        if let Some((count, last)) = self.garbage.tell(self.deps.clock.monotonic()) {
            tracing::warn!(device = %self.id, count, "not understood: {last}");
            self.seal_log("warn", format!("{count} not understood, the last: {last}"))
                .await?;
        }
        let losses = self.deps.spool.undeclared_losses(&self.id);
        if !losses.is_empty() {
            for loss in &losses {
                self.seal_one(PayloadType::Loss, &loss.encode()).await?;
            }
            if let Err(error) = self.deps.spool.declared(&self.id, &losses) {
                // They will be declared again, which is harmless.
                tracing::error!("{error}");
            }
        }
        let complete_until = self.deps.in_flight.complete_until(&*self.deps.clock);
        let sealed = self
            .sealer
            .heartbeat(self.deps.clock.wall(), complete_until, &self.deps.status)
            .map_err(|source| self.refused(source))?;
        if let Some(sealed) = sealed {
            self.store(vec![sealed], true).await;
        }
        Ok(())
    }

    async fn seal_wave(&mut self, wave: &Wave) -> Result<(), Error> {
        let host = self.deps.clock.clock_id().clone();
        let payload = self.sealer.clock_payload(host, wave.probes.clone(), wave.pairs.clone());
        self.seal_one(PayloadType::Clock, &payload).await
    }

    async fn seal_log(&mut self, level: &str, message: String) -> Result<(), Error> {
        let payload = LogPayload {
            level: level.to_owned(),
            message,
            at: self.deps.clock.monotonic(),
            clock_id: self.deps.clock.clock_id().clone(),
        };
        self.seal_one(PayloadType::Log, &payload.encode()).await
    }

    async fn seal_one(&mut self, kind: PayloadType, payload: &[u8]) -> Result<(), Error> {
        let sealed = self
            .sealer
            .seal(self.deps.clock.wall(), kind, payload)
            .map_err(|source| self.refused(source))?;
        self.store(vec![sealed], false).await;
        Ok(())
    }

    async fn store(&mut self, envelopes: Vec<Sealed>, is_droppable: bool) {
        if !envelopes.is_empty() {
            self.deps.spool.append(&envelopes, is_droppable).await;
            self.deps.status.sealed.add(envelopes.len() as u64);
        }
    }

    /// Takes what the connector left, seals it, and declares the end.
    async fn finish(&mut self) -> Result<(), Error> {
        self.deps.input.close();
        while let Some(emitted) = self.deps.input.recv().await {
            self.take(emitted).await?;
        }
        self.flush().await?;
        self.deps.requests.close();
        while let Some(request) = self.deps.requests.recv().await {
            self.seal_one(request.kind, &request.payload).await?;
        }
        self.beat().await
    }

    fn refused(&self, source: EnvelopeError) -> Error {
        Error::Envelope {
            device: self.id.clone(),
            source,
        }
    }
}

async fn wait_until(instant: Option<tokio::time::Instant>) {
    if let Some(instant) = instant {
        tokio::time::sleep_until(instant).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn boots_only_go_forward(walls in proptest::collection::vec(0i64..4_000_000_000_000_000_000, 1..20)) {
            let mut head: Option<Head> = None;
            for wall in walls {
                let boot = next_boot(head, TaiNanos(wall), [7; 10]);
                prop_assert!(head.is_none_or(|head| head.boot_id < boot));
                head = Some(Head { boot_id: boot, sequence: 0, digest: Digest([0; 32]) });
            }
        }
    }
}
