//! A bank of Kalman filters, one for each wander an oscillator may have.
//!
//! How much a clock wanders is not known beforehand, so one filter runs for each wander of a grid, weighted by how well it
//! predicted (multiple-model estimation, Magill 1965; the past fades as in Smith 1979). The bank's mean and
//! spread are the estimate. States: offset, frequency, and the lean β of the error on a known excess of delay.

use serde::{Deserialize, Serialize};

use super::Line;

/// No crystal is further off than this, in parts per billion; the prior for an unknown frequency.
const FREQUENCY_PRIOR_PPB: f64 = 100_000.0;
/// A step of the clock leaves the oscillator be, up to this much.
const FREQUENCY_AFTER_STEP_PPB: f64 = 1_000.0;
/// Wander of the frequency, in ppb² per second, from an ovened crystal to a bare one in a draught.
const WANDERS: [f64; 9] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4];
/// Reading two clocks is never better than this (1 µs).
pub(super) const NOISE_LEAST: f64 = 1e3 * 1e3;
/// Measurements that the prior of the noise counts for, and the most that are counted.
const NOISE_PRIOR_COUNT: f64 = 6.0;
const NOISE_MOST_COUNT: f64 = 100.0;
/// What a measurement leaves of the weights of the past.
const MEMORY: f64 = 0.99;
/// Growth of the lean's variance per second.
const LEAN_WANDER: f64 = 1e-7;

/// One reading of the clock's offset.
pub(super) struct Measurement {
    pub at: i64,
    pub base_nanos: i64,
    /// Beside the base.
    pub offset_nanos: f64,
    /// Variance of the offset for κ = 1.
    pub noise: f64,
    /// The excess of delay that the offset leans on.
    pub excess: f64,
    /// By how much the excess of all measurements may be counted too low.
    pub excess_hidden: f64,
    /// The lean seen within this measurement and its variance for κ = 1.
    pub lean: Option<(f64, f64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Bank {
    filters: Vec<Hypothesis>,
    count: u32,
}

/// One filter of the bank: its line carries the wander it believes in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hypothesis {
    line: Line,
    /// β: the share of the excess that the offset is too high by.
    lean: f64,
    /// Covariance of the lean with the offset, the drift and itself.
    lean_covariance: [f64; 3],
    /// κ: the noise beside what was believed, learnt.
    noise_scale: f64,
    log_weight: f64,
    weight: f64,
}

impl Measurement {
    /// How far the measurement lies from a line that stands at its instant.
    pub(super) fn innovation(&self, predicted: &Line) -> f64 {
        self.base_nanos.saturating_sub(predicted.base_nanos) as f64 + self.offset_nanos - predicted.offset_nanos
    }
}

impl Bank {
    pub(super) fn start(first: &Measurement, lean_variance: f64) -> Self {
        let hypothesis = |wander| Hypothesis {
            line: Line {
                at: first.at,
                base_nanos: first.base_nanos,
                offset_nanos: first.offset_nanos,
                drift_ppb: 0.0,
                covariance: [
                    first.noise.max(NOISE_LEAST),
                    0.0,
                    FREQUENCY_PRIOR_PPB * FREQUENCY_PRIOR_PPB,
                ],
                wander,
            },
            lean: 0.0,
            lean_covariance: [0.0, 0.0, lean_variance],
            noise_scale: 1.0,
            log_weight: 0.0,
            weight: 1.0 / WANDERS.len() as f64,
        };
        Self {
            filters: WANDERS.map(hypothesis).to_vec(),
            count: 1,
        }
    }

    pub(super) fn move_to(&mut self, at: i64) {
        for filter in &mut self.filters {
            filter.move_to(at);
        }
    }

    /// Takes in a measurement; the bank stands at its instant.
    pub(super) fn update(&mut self, measurement: &Measurement) {
        let counted = self.counted();
        for filter in &mut self.filters {
            filter.update(measurement, counted);
        }
        self.count = self.count.saturating_add(1);
        let greatest = self.filters.iter().map(|one| one.log_weight).fold(f64::MIN, f64::max);
        let total: f64 = self
            .filters
            .iter()
            .map(|one| libm::exp(one.log_weight - greatest))
            .sum();
        for one in &mut self.filters {
            one.log_weight -= greatest;
            one.weight = libm::exp(one.log_weight) / total;
        }
    }

    /// Takes the offset from a measurement alone: the clock stepped, the oscillator did not change. The bank stands at its instant.
    pub(super) fn step(&mut self, measurement: &Measurement) {
        for filter in &mut self.filters {
            let drift_variance = filter.line.covariance[2] + FREQUENCY_AFTER_STEP_PPB * FREQUENCY_AFTER_STEP_PPB;
            filter.line.base_nanos = measurement.base_nanos;
            filter.line.offset_nanos = measurement.offset_nanos;
            filter.line.covariance = [filter.noise(measurement), 0.0, drift_variance];
            filter.lean_covariance = [0.0, 0.0, filter.lean_covariance[2]];
        }
        self.count = 1;
    }

    /// Measurements taken in since the start or the last step.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Measurements that the estimate of the noise rests on.
    fn counted(&self) -> f64 {
        (NOISE_PRIOR_COUNT + f64::from(self.count)).min(NOISE_MOST_COUNT)
    }

    /// The bank's mean and spread, as a line; all its filters stand at one instant.
    pub(super) fn combined(&self, excess_hidden: f64) -> Line {
        let base_nanos = self.filters[0].line.base_nanos;
        let (mut offset, mut drift, mut wander, mut lean) = (0.0, 0.0, 0.0, 0.0);
        for Hypothesis {
            line,
            weight,
            lean: leans,
            ..
        } in &self.filters
        {
            lean += weight * leans;
            offset += weight * line.offset_from(base_nanos);
            drift += weight * line.drift_ppb;
            wander += weight * line.wander;
        }
        // The noise is estimated from few measurements at first: a Student's t has this much more variance.
        let wider = self.counted() / (self.counted() - 2.0);
        // All measurements count their excess from one least delay, so what that is off by does not average out.
        let mut covariance = [lean * lean * excess_hidden * excess_hidden, 0.0, 0.0];
        for Hypothesis { line, weight, .. } in &self.filters {
            let (from_offset, from_drift) = (line.offset_from(base_nanos) - offset, line.drift_ppb - drift);
            covariance[0] += weight * (wider * line.covariance[0] + from_offset * from_offset);
            covariance[1] += weight * (wider * line.covariance[1] + from_offset * from_drift);
            covariance[2] += weight * (wider * line.covariance[2] + from_drift * from_drift);
        }
        let mut line = Line {
            at: self.filters[0].line.at,
            base_nanos,
            offset_nanos: offset,
            drift_ppb: drift,
            covariance,
            wander,
        };
        line.rebase();
        line
    }
}

impl Hypothesis {
    fn noise(&self, measurement: &Measurement) -> f64 {
        (self.noise_scale * measurement.noise).max(NOISE_LEAST)
    }

    fn move_to(&mut self, at: i64) {
        let seconds = at.saturating_sub(self.line.at) as f64 / 1e9;
        self.line = self.line.moved_to(at);
        self.lean_covariance[0] += seconds * self.lean_covariance[1];
        self.lean_covariance[2] += seconds.abs() * LEAN_WANDER;
    }

    fn update(&mut self, measurement: &Measurement, counted: f64) {
        if let Some((lean, variance)) = measurement.lean {
            // The slope within a measurement and its weighted mean are uncorrelated: they enter one after the other.
            self.correct([0.0, 1.0], lean - self.lean, self.noise_scale * variance);
        }
        let innovation = measurement.innovation(&self.line) - self.lean * measurement.excess;
        let noise = self.noise(measurement);
        let spread = self.correct([1.0, measurement.excess], innovation, noise);

        // Student's t, because the noise is estimated: one odd reading does not overthrow what many have shown.
        let squared = innovation * innovation / spread;
        let log_likelihood = -0.5 * (libm::log(spread) + (counted + 1.0) * libm::log1p(squared / counted));
        self.log_weight = MEMORY * self.log_weight + log_likelihood;
        // One step of expectation–maximisation: the expected square of the error, beside what was believed.
        let kept = noise / spread;
        let seen = kept * kept * innovation * innovation + (1.0 - kept) * noise;
        self.noise_scale += (seen / measurement.noise - self.noise_scale) / counted;
    }

    /// One Kalman update by a measurement of `offset · by[0] + lean · by[1]`; returns the innovation's variance.
    fn correct(&mut self, by: [f64; 2], innovation: f64, noise: f64) -> f64 {
        let ([p00, p01, p11], [p02, p12, p22]) = (self.line.covariance, self.lean_covariance);
        let offset = by[0] * p00 + by[1] * p02;
        let drift = by[0] * p01 + by[1] * p12;
        let lean = by[0] * p02 + by[1] * p22;
        let spread = (by[0] * offset + by[1] * lean).max(0.0) + noise;
        self.line.offset_nanos += offset / spread * innovation;
        self.line.drift_ppb += drift / spread * innovation;
        self.lean += lean / spread * innovation;
        self.line.covariance = [
            (p00 - offset / spread * offset).max(0.0),
            p01 - offset / spread * drift,
            (p11 - drift / spread * drift).max(0.0),
        ];
        self.lean_covariance = [
            p02 - offset / spread * lean,
            p12 - drift / spread * lean,
            (p22 - lean / spread * lean).max(0.0),
        ];
        self.line.rebase();
        spread
    }
}
