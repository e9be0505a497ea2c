//! A clock as a line with a covariance: what an estimator leaves behind and samples are placed with.

use serde::{Deserialize, Serialize};

/// A value with its standard uncertainty, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub nanos: i64,
    /// Its standard uncertainty.
    pub sd_nanos: f64,
}

/// A clock as a line: `y = x + base + offset + drift · (x − at)`, with the covariance of (offset, drift) at `at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub(super) at: i64,
    pub(super) base_nanos: i64,
    pub(super) offset_nanos: f64,
    pub(super) drift_ppb: f64,
    pub(super) covariance: [f64; 3],
    /// Growth of the frequency's variance, in ppb² per second.
    pub(super) wander: f64,
}

impl Line {
    pub(super) fn constant(x: i64, y: i64, sd_nanos: f64) -> Self {
        Self {
            at: x,
            base_nanos: y.saturating_sub(x),
            offset_nanos: 0.0,
            drift_ppb: 0.0,
            covariance: [sd_nanos * sd_nanos, 0.0, 1e10],
            wander: 0.0,
        }
    }

    /// `y` at `x`.
    pub fn forward(&self, x: i64) -> Estimate {
        let seconds = x.saturating_sub(self.at) as f64 / 1e9;
        let moved = (self.offset_nanos + self.drift_ppb * seconds).round() as i64;
        Estimate {
            nanos: x.saturating_add(self.base_nanos).saturating_add(moved),
            sd_nanos: self.sd_at(seconds),
        }
    }

    /// The `x` at which the line shows `y`.
    pub fn inverse(&self, y: i64) -> Estimate {
        let first = y.saturating_sub(self.base_nanos);
        let mut x = first;
        // The drift is below 1e-3, so each round leaves a thousandth of the error of the one before.
        for _ in 0..4 {
            let seconds = x.saturating_sub(self.at) as f64 / 1e9;
            x = first.saturating_sub((self.offset_nanos + self.drift_ppb * seconds).round() as i64);
        }
        let seconds = x.saturating_sub(self.at) as f64 / 1e9;
        Estimate {
            nanos: x,
            sd_nanos: self.sd_at(seconds),
        }
    }

    fn sd_at(&self, seconds: f64) -> f64 {
        let [p00, p01, p11] = self.covariance;
        let span = seconds.abs();
        let variance = p00 + 2.0 * seconds * p01 + seconds * seconds * p11 + self.wander * span * span * span / 3.0;
        variance.max(0.0).sqrt()
    }

    /// Drift with its standard uncertainty, in parts per billion.
    pub fn drift_ppb(&self) -> (f64, f64) {
        (self.drift_ppb, self.covariance[2].max(0.0).sqrt())
    }

    /// The same line with its state at another instant; uncertainty grows with the distance.
    pub(super) fn moved_to(&self, at: i64) -> Self {
        let seconds = at.saturating_sub(self.at) as f64 / 1e9;
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
    pub(super) fn rebase(&mut self) {
        let whole = self.offset_nanos.round();
        self.base_nanos = self.base_nanos.saturating_add(whole as i64);
        self.offset_nanos -= whole;
    }

    /// The offset beside another line's base.
    pub(super) fn offset_from(&self, base_nanos: i64) -> f64 {
        self.base_nanos.saturating_sub(base_nanos) as f64 + self.offset_nanos
    }
}
