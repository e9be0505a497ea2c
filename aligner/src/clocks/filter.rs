//! A clock estimated from round trips.
//!
//! Queueing only ever adds delay, so the *excess* of a probe's round trip over the least one bounds its error by half of
//! itself, and sets its noise: that of a uniform error between the bounds, times a factor κ that is learnt. Where one way queues
//! more than the other, errors lean to one side by a share β of the excess; the probes of a wave show β by their
//! differences. Everything is + − × ÷ √ and `libm` in a fixed order, so that the same evidence gives the same bits anywhere.

use orrery_protocol::Probe;
use serde::{Deserialize, Serialize};

use super::bank::{Bank, Measurement, NOISE_LEAST};
use super::{Estimate, Line};

/// Waves whose least round trips are remembered; a longer path becomes the ordinary one after as many.
const RECENT_TRIPS: usize = 64;
/// The lean's variance before any wave.
const LEAN_PRIOR: f64 = 0.04;
/// A clock that jumps again this soon is not the clock it was.
const WAVES_TO_TRUST: u32 = 8;
/// The coarsest tick looked for (10 ms); what is coarser shows as noise.
const QUANTUM_MOST: i64 = 10_000_000;

/// The reading of one clock as a function of the host clock its probes were timed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockFilter {
    line: Line,
    bank: Bank,
    recent_trips: Vec<f64>,
    least_trip_nanos: i64,
    /// The power of ten that divides every reading of the other clock.
    quantum_nanos: i64,
    jump_pending: bool,
}

/// What a wave did to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveOutcome {
    /// The estimate moved.
    Updated,
    /// No probe of the wave was usable.
    Unusable,
    /// The clock jumped by more than delay can explain; it is believed when it happens twice.
    JumpSuspected,
    /// The clock jumped, and its offset was learnt anew.
    Reset,
}

impl ClockFilter {
    /// Starts from a first wave; none when no probe of it is usable.
    pub fn start(probes: &[Probe]) -> Option<Self> {
        let probes = usable(probes)?;
        let quantum_nanos = quantum(&probes, QUANTUM_MOST);
        let wave = Wave::of(&probes, &[], quantum_nanos);
        let bank = Bank::start(&wave.measurement, LEAN_PRIOR);
        Some(Self {
            line: bank.combined(wave.measurement.excess_hidden),
            bank,
            recent_trips: vec![wave.least_trip],
            least_trip_nanos: wave.least_trip as i64,
            quantum_nanos,
            jump_pending: false,
        })
    }

    /// Takes in one wave of probes.
    pub fn observe(&mut self, probes: &[Probe]) -> WaveOutcome {
        let Some(probes) = usable(probes) else {
            return WaveOutcome::Unusable;
        };
        self.quantum_nanos = quantum(&probes, self.quantum_nanos);
        let Wave {
            measurement,
            most_error,
            least_trip,
        } = Wave::of(&probes, &self.recent_trips, self.quantum_nanos);
        self.bank.move_to(measurement.at);
        let predicted = self.bank.combined(measurement.excess_hidden);
        let innovation = measurement.innovation(&predicted);
        let jumped = innovation.abs() > most_error + 6.0 * (predicted.covariance[0] + NOISE_LEAST).sqrt();
        if jumped && !self.jump_pending {
            self.jump_pending = true;
            // Until the next wave decides, the truth is at either place.
            self.line = predicted;
            self.line.covariance[0] += innovation * innovation;
            return WaveOutcome::JumpSuspected;
        }
        self.jump_pending = false;
        if jumped && self.bank.count() < WAVES_TO_TRUST {
            if let Some(anew) = Self::start(&probes) {
                *self = anew;
            }
            return WaveOutcome::Reset;
        }
        if jumped {
            self.bank.step(&measurement);
        } else {
            self.bank.update(&measurement);
            self.remember_trip(least_trip);
        }
        self.line = self.bank.combined(measurement.excess_hidden);
        if jumped {
            WaveOutcome::Reset
        } else {
            WaveOutcome::Updated
        }
    }

    fn remember_trip(&mut self, trip_nanos: f64) {
        if self.recent_trips.len() == RECENT_TRIPS {
            self.recent_trips.remove(0);
        }
        self.recent_trips.push(trip_nanos);
        self.least_trip_nanos = self.least_trip_nanos.min(trip_nanos as i64);
    }

    /// The estimate as a line that can be evaluated at any instant.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// What the other clock shows when the host clock shows `host_nanos`.
    pub fn other_from_host(&self, host_nanos: i64) -> Estimate {
        self.line.forward(host_nanos)
    }

    /// Half of the least round trip seen: what path asymmetry can hide, in nanoseconds.
    pub fn asymmetry_nanos(&self) -> i64 {
        self.least_trip_nanos / 2
    }

    /// Waves taken in since the last reset.
    pub fn waves(&self) -> u32 {
        self.bank.count()
    }
}

/// What one wave says.
struct Wave {
    measurement: Measurement,
    /// More than this, delay cannot explain.
    most_error: f64,
    least_trip: f64,
}

impl Wave {
    /// The wave as one measurement, each probe weighted by its excess; `probes` are usable and not empty.
    fn of(probes: &[Probe], recent_trips: &[f64], quantum_nanos: i64) -> Self {
        let trips = || probes.iter().map(|probe| probe.round_trip_nanos() as f64);
        let mut pool: Vec<f64> = recent_trips.iter().copied().chain(trips()).collect();
        pool.sort_by(f64::total_cmp);
        let least = pool[0];
        // The least trip seen lies above the least there is by about as much as the next ones lie above it.
        let gap = match (pool.get(8), pool.get(3)) {
            (Some(ninth), _) => (ninth - least) / 2.0,
            (None, Some(fourth)) => fourth - least,
            (None, None) => least,
        };
        let gap = gap.min(least);
        let quantum = quantum_nanos as f64;
        let floor = quantum * quantum / 12.0 + NOISE_LEAST;

        let mut best = &probes[0];
        for probe in probes {
            if probe.round_trip_nanos() < best.round_trip_nanos() {
                best = probe;
            }
        }
        let base_nanos = best.offset_nanos();

        let weight = |trip: f64| 1.0 / ((trip - least + gap) * (trip - least + gap) / 12.0 + floor);
        let error = |probe: &Probe| probe.offset_nanos().saturating_sub(base_nanos) as f64;
        let (mut total, mut mean, mut mean_excess) = (0.0, 0.0, 0.0);
        for (probe, trip) in probes.iter().zip(trips()) {
            total += weight(trip);
            mean += weight(trip) * error(probe);
            mean_excess += weight(trip) * (trip - least);
        }
        mean /= total;
        mean_excess /= total;
        let (mut products, mut squares) = (0.0, 0.0);
        for (probe, trip) in probes.iter().zip(trips()) {
            let beside = trip - least - mean_excess;
            products += weight(trip) * beside * (error(probe) - mean);
            squares += weight(trip) * beside * beside;
        }
        let least_trip = best.round_trip_nanos() as f64;
        Self {
            measurement: Measurement {
                at: best.t0 + (best.t3 - best.t0) / 2,
                base_nanos,
                offset_nanos: mean,
                noise: 1.0 / total,
                excess: mean_excess,
                excess_hidden: gap,
                lean: (squares > 0.0).then_some((products / squares, 1.0 / squares)),
            },
            most_error: mean.abs() + (least_trip - least + gap) / 2.0 + quantum,
            least_trip,
        }
    }
}

/// The probes whose stamps are in order; none when there is none.
fn usable(probes: &[Probe]) -> Option<Vec<Probe>> {
    const FAR: i64 = i64::MAX / 4;
    let usable = |probe: &&Probe| {
        let stamps = [probe.t0, probe.t1, probe.t2, probe.t3];
        let sane = stamps.iter().all(|t| (-FAR..FAR).contains(t));
        sane && probe.t3 >= probe.t0 && probe.t2 >= probe.t1 && probe.round_trip_nanos() >= 0
    };
    let kept: Vec<Probe> = probes.iter().filter(usable).copied().collect();
    (!kept.is_empty()).then_some(kept)
}

/// The greatest power of ten up to `most` that divides every reading of the other clock: many clocks tick in milliseconds.
fn quantum(probes: &[Probe], most: i64) -> i64 {
    let mut quantum = most;
    while quantum > 1
        && !probes
            .iter()
            .all(|probe| probe.t1 % quantum == 0 && probe.t2 % quantum == 0)
    {
        quantum /= 10;
    }
    quantum
}
