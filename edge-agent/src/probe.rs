//! Clock probes of the reference, and what the agent itself concludes from them.
//!
//! A wave of probes a second for the first ten seconds, then one every ten. Every answered probe goes into every device's chain as evidence;
//! the aligner estimates from it. The agent's own estimate only decides whether a command is still in time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orrery_protocol::{Clock, MonoNanos, Probe, TaiNanos};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::ClockConfig;
use crate::device::Wave;
use crate::gateway::GatewayClient;
use crate::status::Status;

/// Something that knows reference time.
#[async_trait]
pub trait Reference: Send + Sync {
    /// One round trip: `t0`, `t3` on the host's boot-time clock, `t1`, `t2` in reference time.
    ///
    /// # Errors
    /// A sentence that says who did not answer.
    async fn probe(&self, clock: &dyn Clock) -> Result<Probe, String>;
}

/// The process that runs the agent is itself the reference: its wall clock, read between two readings of the boot-time clock.
pub struct LocalReference;

#[async_trait]
impl Reference for LocalReference {
    async fn probe(&self, clock: &dyn Clock) -> Result<Probe, String> {
        let t0 = clock.monotonic().0;
        let reference = clock.wall().0;
        let t3 = clock.monotonic().0;
        Ok(Probe {
            t0,
            t1: reference,
            t2: reference,
            t3,
        })
    }
}

/// A gateway's probe route, over one kept-alive connection.
pub struct GatewayReference {
    gateway: GatewayClient,
}

impl GatewayReference {
    /// Probes of this gateway.
    pub fn new(gateway: GatewayClient) -> Self {
        Self { gateway }
    }
}

#[derive(Deserialize)]
struct Reply {
    t1: String,
    t2: String,
}

#[async_trait]
impl Reference for GatewayReference {
    async fn probe(&self, clock: &dyn Clock) -> Result<Probe, String> {
        let t0 = clock.monotonic().0;
        let response = self
            .gateway
            .post("clock/probe")
            .timeout(Duration::from_secs(2))
            .json(&json!({ "t0": t0.to_string() }))
            .send()
            .await
            .map_err(|error| self.gateway.explain(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.gateway.explain(&error))?;
        let t3 = clock.monotonic().0;
        if !status.is_success() {
            return Err(format!(
                "the gateway {} does not answer clock probes ({status})",
                self.gateway.url()
            ));
        }
        let odd = || {
            format!(
                "the gateway {} answered a clock probe with something else",
                self.gateway.url()
            )
        };
        let reply: Reply = serde_json::from_slice(&body).map_err(|_| odd())?;
        let (t1, t2) = (
            reply.t1.parse().map_err(|_| odd())?,
            reply.t2.parse().map_err(|_| odd())?,
        );
        Ok(Probe { t0, t1, t2, t3 })
    }
}

/// Reference time as the agent knows it from its last good wave.
#[derive(Debug, Default)]
pub struct ReferenceTime(Mutex<Option<Estimate>>);

#[derive(Debug, Clone, Copy)]
struct Estimate {
    reference_minus_host: i64,
    half_round_trip: i64,
    at: MonoNanos,
}

/// How fast an uncorrected host clock may run off: 100 parts in a million is worse than any crystal in use.
const WORST_DRIFT_PPM: i64 = 100;

impl ReferenceTime {
    /// Takes a wave; the probe with the least round trip counts.
    pub fn update(&self, probes: &[Probe]) {
        let Some(best) = probes.iter().min_by_key(|probe| probe.round_trip_nanos()) else {
            return;
        };
        let estimate = Estimate {
            reference_minus_host: best.offset_nanos(),
            half_round_trip: (best.round_trip_nanos() / 2).max(0),
            at: MonoNanos(best.t3),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(estimate);
    }

    /// Reference time at `now` and how far off it may be; none before the first answered probe.
    pub fn at(&self, now: MonoNanos) -> Option<(TaiNanos, Duration)> {
        let estimate = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = now.nanos_since(estimate.at).abs();
        let uncertainty = estimate
            .half_round_trip
            .saturating_add(age / 1_000_000 * WORST_DRIFT_PPM);
        let reference = TaiNanos(now.0.saturating_add(estimate.reference_minus_host));
        Some((
            reference,
            Duration::from_nanos(u64::try_from(uncertainty).unwrap_or(u64::MAX)),
        ))
    }
}

/// Probes until `stop`. If this task dies the agent ends: without clock evidence its samples cannot be aligned.
pub async fn run(
    reference: Arc<dyn Reference>,
    clock: Arc<dyn Clock>,
    config: ClockConfig,
    waves: watch::Sender<Option<Arc<Wave>>>,
    time: Arc<ReferenceTime>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let started = clock.monotonic();
    let mut told = false;
    while !stop.is_cancelled() {
        let wave = tokio::select! {
            wave = wave(&*reference, &*clock, config.probes_per_wave, &status) => wave,
            () = stop.cancelled() => return,
        };
        match wave {
            Ok(wave) => {
                time.update(&wave.probes);
                if let Some(best) = wave.probes.iter().map(Probe::round_trip_nanos).min() {
                    status.set_round_trip(best);
                }
                waves.send_replace(Some(Arc::new(wave)));
                told = false;
            }
            Err(problem) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        "no clock probe: {problem}; samples keep their evidence and are aligned once probes succeed"
                    );
                }
            }
        }
        let is_young = clock.monotonic().since(started) < Duration::from_secs(10);
        let interval = Duration::from_millis(if is_young {
            config.first_interval_ms
        } else {
            config.interval_ms
        });
        tokio::select! {
            () = tokio::time::sleep(clock.real(interval)) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn wave(reference: &dyn Reference, clock: &dyn Clock, count: usize, status: &Status) -> Result<Wave, String> {
    let mut wave = Wave {
        probes: Vec::with_capacity(count),
        pairs: vec![Wave::pair(clock)],
    };
    let mut problem = None;
    for _ in 0..count {
        match reference.probe(clock).await {
            Ok(probe) => {
                status.probes.increment();
                wave.probes.push(probe);
            }
            Err(text) => {
                status.probe_failures.increment();
                problem = Some(text);
                break;
            }
        }
    }
    wave.pairs.push(Wave::pair(clock));
    match problem {
        Some(problem) if wave.probes.is_empty() => Err(problem),
        _ => Ok(wave),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_round_trip_counts_and_uncertainty_grows_with_age() {
        let time = ReferenceTime::default();
        assert!(time.at(MonoNanos(0)).is_none());
        // The reference is 1000 s ahead; the second probe's way is short.
        let ahead = 1_000_000_000_000;
        time.update(&[
            Probe {
                t0: 0,
                t1: ahead + 50_000_000,
                t2: ahead + 50_000_000,
                t3: 60_000_000,
            },
            Probe {
                t0: 100_000_000,
                t1: ahead + 100_500_000,
                t2: ahead + 100_500_000,
                t3: 101_000_000,
            },
        ]);
        let (reference, uncertainty) = time.at(MonoNanos(101_000_000)).unwrap();
        assert_eq!(reference, TaiNanos(ahead + 101_000_000));
        assert_eq!(uncertainty, Duration::from_micros(500));
        let (_, later) = time.at(MonoNanos(101_000_000 + 10_000_000_000_000)).unwrap();
        assert!(
            later > Duration::from_millis(900) && later < Duration::from_millis(1_100),
            "{later:?}"
        );
    }
}
