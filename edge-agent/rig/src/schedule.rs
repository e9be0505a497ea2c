//! When a device measures: at multiples of its period, without drift, and without catching up what it slept through.

use std::time::Duration;

use orrery_protocol::MonoNanos;

/// A device's rhythm.
#[derive(Debug, Clone)]
pub struct Schedule {
    period: Duration,
    due: MonoNanos,
    index: u64,
}

impl Schedule {
    /// A rhythm whose first measurement, number 0, is at `start`.
    pub fn new(period: Duration, start: MonoNanos) -> Self {
        Self {
            period,
            due: start,
            index: 0,
        }
    }

    /// The number of the current measurement.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Moves to the next measurement that is not over yet and says when it is.
    pub fn next(&mut self, now: MonoNanos) -> MonoNanos {
        loop {
            self.due = self.due.plus(self.period);
            self.index += 1;
            if self.due.plus(self.period) > now {
                return self.due;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_grid_and_skips_what_it_slept_through() {
        let mut schedule = Schedule::new(Duration::from_nanos(100), MonoNanos(0));
        assert_eq!((schedule.next(MonoNanos(30)), schedule.index()), (MonoNanos(100), 1));
        assert_eq!((schedule.next(MonoNanos(130)), schedule.index()), (MonoNanos(200), 2));
        assert_eq!(
            (schedule.next(MonoNanos(1_050)), schedule.index()),
            (MonoNanos(1_000), 10)
        );
    }
}
