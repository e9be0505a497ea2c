//! A clock estimated from round trips: a two-state Kalman filter (offset, frequency) in the manner of ntpd-rs.
//!
//! One wave of probes gives one measurement: the probe with the least round trip (as liblsl does), because
//! queueing only ever adds delay. Its noise is learnt from the residuals after each update, the wander of the
//! oscillator from the correlation of successive innovations (Mehra 1970: they are white when the filter is
//! tuned). Everything is + − × ÷ √ in a fixed order, so that the same evidence gives the same bits anywhere.

use orrery_protocol::Probe;
use serde::{Deserialize, Serialize};

use super::{Estimate, Line};

/// No crystal is further off than this, in parts per billion; the prior for an unknown frequency.
const FREQUENCY_PRIOR_PPB: f64 = 100_000.0;
/// Wander of the frequency, in ppb² per second: its start and its bounds.
const WANDER_START: f64 = 1.0;
const WANDER_LEAST: f64 = 1e-5;
const WANDER_MOST: f64 = 1e4;
/// Reading two clocks is never better than this (1 µs).
const NOISE_LEAST: f64 = 1e3 * 1e3;
/// The share of one wave in the learnt noise once the filter has settled.
const NOISE_GAIN_LEAST: f64 = 1.0 / 24.0;
const RECENT_TRIPS: usize = 16;
const NANOS_PER_SECOND: f64 = 1e9;

/// The reading of one clock as a function of the host clock its probes were timed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockFilter {
    line: Line,
    noise: f64,
    correlation: f64,
    previous_innovation: Option<f64>,
    recent_trips: Vec<f64>,
    least_trip_nanos: i64,
    delay_ignored: bool,
    jump_pending: bool,
    waves: u32,
}

/// What a wave did to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveOutcome {
    /// The estimate moved.
    Updated,
    /// No probe of the wave was usable.
    Unusable,
    /// The delay was far out of the ordinary; it is believed when it happens twice.
    DelayIgnored,
    /// The clock jumped by more than the round trip can explain; it is believed when it happens twice.
    JumpSuspected,
    /// The clock jumped, and the filter began anew.
    Reset,
}

impl ClockFilter {
    /// Starts from a first wave; none when no probe of it is usable.
    pub fn start(probes: &[Probe]) -> Option<Self> {
        Measurement::of_wave(probes).map(|first| Self::from_measurement(&first))
    }

    fn from_measurement(first: &Measurement) -> Self {
        let half_trip = first.trip_nanos / 2.0;
        let noise = (half_trip * half_trip / 3.0).max(NOISE_LEAST);
        Self {
            line: Line {
                at: first.at,
                base_nanos: first.offset_nanos,
                offset_nanos: 0.0,
                drift_ppb: 0.0,
                covariance: [noise, 0.0, FREQUENCY_PRIOR_PPB * FREQUENCY_PRIOR_PPB],
                wander: WANDER_START,
            },
            noise,
            correlation: 0.0,
            previous_innovation: None,
            recent_trips: vec![first.trip_nanos],
            least_trip_nanos: first.trip_nanos as i64,
            delay_ignored: false,
            jump_pending: false,
            waves: 1,
        }
    }

    /// Takes in one wave of probes.
    pub fn observe(&mut self, probes: &[Probe]) -> WaveOutcome {
        let Some(wave) = Measurement::of_wave(probes) else {
            return WaveOutcome::Unusable;
        };
        if self.is_delay_outlier(wave.trip_nanos) && !self.delay_ignored {
            self.delay_ignored = true;
            return WaveOutcome::DelayIgnored;
        }
        self.delay_ignored = false;

        let predicted = self.line.moved_to(wave.at);
        let innovation = (wave.offset_nanos - predicted.base_nanos) as f64 - predicted.offset_nanos;
        if innovation.abs() > wave.trip_nanos / 2.0 + 6.0 * (predicted.covariance[0] + self.noise).sqrt() {
            if !self.jump_pending {
                self.jump_pending = true;
                return WaveOutcome::JumpSuspected;
            }
            *self = Self::from_measurement(&wave);
            return WaveOutcome::Reset;
        }
        self.jump_pending = false;

        self.update(predicted, innovation);
        self.remember_trip(wave.trip_nanos);
        self.waves = self.waves.saturating_add(1);
        WaveOutcome::Updated
    }

    fn update(&mut self, predicted: Line, innovation: f64) {
        let [p00, p01, p11] = predicted.covariance;
        let spread = p00 + self.noise;
        let (gain_offset, gain_drift) = (p00 / spread, p01 / spread);
        let mut line = predicted;
        line.offset_nanos += gain_offset * innovation;
        line.drift_ppb += gain_drift * innovation;
        line.covariance = [
            (1.0 - gain_offset) * p00,
            (1.0 - gain_offset) * p01,
            p11 - gain_drift * p01,
        ];
        line.rebase();

        self.adapt_wander(&mut line, innovation / spread.sqrt());
        let residual = (1.0 - gain_offset) * innovation;
        let gain = (1.0 / f64::from(self.waves + 2)).max(NOISE_GAIN_LEAST);
        self.noise = ((1.0 - gain) * self.noise + gain * (residual * residual + line.covariance[0])).max(NOISE_LEAST);
        self.line = line;
    }

    /// Innovations that keep their sign mean that the frequency moves more than the filter believes.
    fn adapt_wander(&mut self, line: &mut Line, normalised: f64) {
        let clamped = normalised.clamp(-4.0, 4.0);
        if let Some(previous) = self.previous_innovation {
            self.correlation = 0.93 * self.correlation + 0.07 * clamped * previous;
        }
        self.previous_innovation = Some(clamped);
        if self.correlation > 0.2 {
            line.wander = (line.wander * 4.0).min(WANDER_MOST);
            self.correlation = 0.2;
        } else if self.correlation < 0.0 {
            line.wander = (line.wander * 0.985).max(WANDER_LEAST);
        }
    }

    fn is_delay_outlier(&self, trip_nanos: f64) -> bool {
        if self.recent_trips.len() < 8 {
            return false;
        }
        let count = self.recent_trips.len() as f64;
        let mean = self.recent_trips.iter().sum::<f64>() / count;
        let variance = self
            .recent_trips
            .iter()
            .map(|trip| (trip - mean) * (trip - mean))
            .sum::<f64>()
            / count;
        trip_nanos > mean + 5.0 * variance.sqrt().max(mean * 0.05)
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

    /// What the host clock shows when the other clock shows `other_nanos`.
    pub fn host_from_other(&self, other_nanos: i64) -> Estimate {
        self.line.inverse(other_nanos)
    }

    /// Half of the least round trip seen: what path asymmetry can hide, in nanoseconds.
    pub fn asymmetry_nanos(&self) -> i64 {
        self.least_trip_nanos / 2
    }

    /// Waves taken in since the last reset.
    pub fn waves(&self) -> u32 {
        self.waves
    }
}

struct Measurement {
    at: i64,
    offset_nanos: i64,
    trip_nanos: f64,
}

impl Measurement {
    fn of_wave(probes: &[Probe]) -> Option<Self> {
        let usable = |probe: &&Probe| {
            const FAR: i64 = i64::MAX / 4;
            let sane = [probe.t0, probe.t1, probe.t2, probe.t3]
                .iter()
                .all(|t| (-FAR..FAR).contains(t));
            sane && probe.t3 >= probe.t0 && probe.t2 >= probe.t1 && probe.round_trip_nanos() >= 0
        };
        let best = probes
            .iter()
            .filter(usable)
            .min_by_key(|probe| probe.round_trip_nanos())?;
        Some(Self {
            at: best.t0 + (best.t3 - best.t0) / 2,
            offset_nanos: best.offset_nanos(),
            trip_nanos: best.round_trip_nanos() as f64,
        })
    }
}

impl Line {
    /// The same line with its state at another instant; uncertainty grows with the distance.
    fn moved_to(&self, at: i64) -> Self {
        let seconds = at.saturating_sub(self.at) as f64 / NANOS_PER_SECOND;
        let [p00, p01, p11] = self.covariance;
        let span = seconds.abs();
        let wander = self.wander;
        let mut moved = self.clone();
        moved.at = at;
        moved.offset_nanos = self.offset_nanos + self.drift_ppb * seconds;
        moved.covariance = [
            p00 + 2.0 * seconds * p01 + seconds * seconds * p11 + wander * span * span * span / 3.0,
            p01 + seconds * p11 + wander * seconds * span / 2.0,
            p11 + wander * span,
        ];
        moved.rebase();
        moved
    }

    /// Moves whole nanoseconds into the integer part: an f64 alone cannot hold a date and a nanosecond.
    fn rebase(&mut self) {
        let whole = self.offset_nanos.round();
        self.base_nanos = self.base_nanos.saturating_add(whole as i64);
        self.offset_nanos -= whole;
    }
}
