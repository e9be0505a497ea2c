//! A device's own clock and its error: an offset, a drift, and jitter on every stamp.

use orrery_protocol::{Clock, DeviceNanos, MonoNanos, UtcNanos};
use serde::Serialize;

use crate::noise::Noise;

/// Index of the noise that draws a clock error: no sample ever has it.
const DRAW_INDEX: u64 = 1 << 50;

/// How a device's clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClockError {
    /// What the device shows too much at the start, ns.
    pub offset_nanos: i64,
    /// What it gains per second, parts per billion.
    pub drift_ppb: i64,
    /// Standard deviation of the jitter of a stamp, ns.
    pub jitter_nanos: u64,
}

impl ClockError {
    /// The clock error that `seed` gives the device of noise stream `stream`: 40 to 400 ms off, drifting by 5 to 60 ppm,
    /// with 0.3 to 2 ms of jitter; early or late, fast or slow.
    pub fn draw(seed: u64, stream: u64) -> Self {
        let [sign, offset, direction, drift, jitter] = Noise::new(seed, stream).uniform(DRAW_INDEX);
        let signed = |coin: f64, value: f64| if coin < 0.5 { -value } else { value };
        Self {
            offset_nanos: signed(sign, 40e6 + 360e6 * offset) as i64,
            drift_ppb: signed(direction, 5e3 + 55e3 * drift) as i64,
            jitter_nanos: (0.3e6 + 1.7e6 * jitter) as u64,
        }
    }
}

/// A running device clock. It has its own oscillator: a step of the host's wall clock does not move it.
#[derive(Debug, Clone)]
pub struct DeviceClock {
    error: ClockError,
    origin_utc: UtcNanos,
    origin: MonoNanos,
    jitter: Noise,
}

impl DeviceClock {
    /// A clock that is off by `error.offset_nanos` now and drifts from here.
    pub fn start(error: ClockError, clock: &dyn Clock, jitter: Noise) -> Self {
        Self {
            error,
            origin_utc: clock.wall().to_utc(),
            origin: clock.monotonic(),
            jitter,
        }
    }

    /// What the device's clock shows at `host`, as POSIX nanoseconds.
    pub fn device_from_host(&self, host: MonoNanos) -> DeviceNanos {
        let elapsed = host.nanos_since(self.origin);
        let gained = (i128::from(elapsed) * i128::from(self.error.drift_ppb) / 1_000_000_000) as i64;
        DeviceNanos(self.origin_utc.0 + elapsed + gained + self.error.offset_nanos)
    }

    /// The stamp that the device gives its sample number `index`, taken at `host`: its clock and some jitter.
    pub fn stamp(&self, host: MonoNanos, index: u64) -> DeviceNanos {
        let [jitter] = self.jitter.normal(index);
        DeviceNanos(self.device_from_host(host).0 + (jitter * self.error.jitter_nanos as f64) as i64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orrery_protocol::{ManualClock, TaiNanos};

    use super::*;

    #[test]
    fn the_clock_is_off_by_its_offset_and_gains_its_drift() {
        let host = ManualClock::new(TaiNanos(1_800_000_000_000_000_000));
        let error = ClockError {
            offset_nanos: -250_000_000,
            drift_ppb: 40_000,
            jitter_nanos: 0,
        };
        let device = DeviceClock::start(error, &host, Noise::new(0, 0));
        let shown_minus_true = |host: &ManualClock| device.stamp(host.monotonic(), 0).0 - host.wall().to_utc().0;
        assert_eq!(shown_minus_true(&host), -250_000_000);
        host.advance(Duration::from_secs(1_000));
        assert_eq!(shown_minus_true(&host), -250_000_000 + 40_000_000);
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_move_it() {
        let host = ManualClock::new(TaiNanos(1_800_000_000_000_000_000));
        let device = DeviceClock::start(ClockError::draw(1, 2), &host, Noise::new(0, 0));
        let before = device.device_from_host(host.monotonic());
        host.step_wall(TaiNanos(1_700_000_000_000_000_000));
        assert_eq!(device.device_from_host(host.monotonic()), before);
    }

    #[test]
    fn drawn_errors_are_within_their_bounds_and_differ() {
        let errors: Vec<ClockError> = (0..50).map(|seed| ClockError::draw(seed, 1)).collect();
        for error in &errors {
            assert!(
                (40_000_000..=400_000_000).contains(&error.offset_nanos.abs()),
                "{error:?}"
            );
            assert!((5_000..=60_000).contains(&error.drift_ppb.abs()), "{error:?}");
            assert!((300_000..=2_000_000).contains(&error.jitter_nanos), "{error:?}");
        }
        assert!(errors.iter().any(|error| error.offset_nanos < 0) && errors.iter().any(|error| error.offset_nanos > 0));
    }
}
