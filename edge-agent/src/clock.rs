//! The clock adapter: the only place in Orrery that reads the operating system's clocks.

use std::time::Duration;

use orrery_protocol::{Clock, ClockId, MonoNanos, TaiNanos, UtcNanos};
use rustix::time::{ClockId as OsClock, clock_gettime};

/// The host's clocks, or a sped-up image of them for playback.
///
/// At speed 1, `wall` is the host's wall clock and follows its steps, and `monotonic` is
/// `CLOCK_BOOTTIME`, which no step moves and which counts through suspend. At any other speed both run from the
/// instant of construction, so a playback's clocks belong to this process alone and have a clock id of their own.
#[derive(Debug, Clone)]
pub struct SystemClock {
    clock_id: ClockId,
    speed: f64,
    base: (UtcNanos, MonoNanos),
}

impl SystemClock {
    /// The host's clocks as they are.
    pub fn new() -> Self {
        Self {
            clock_id: ClockId::host(&host_boot()),
            speed: 1.0,
            base: read(),
        }
    }

    /// Clocks that run `speed` times as fast as the host's, starting now.
    ///
    /// # Errors
    /// Refuses a speed that is not a positive number up to one million.
    pub fn scaled(speed: f64) -> Result<Self, SpeedError> {
        if !(speed.is_finite() && speed > 0.0 && speed <= 1e6) {
            return Err(SpeedError(speed));
        }
        if speed == 1.0 {
            return Ok(Self::new());
        }
        let base = read();
        let session = format!("{}-x{speed}-{:x}", host_boot(), base.1.0);
        Ok(Self {
            clock_id: ClockId::host(&session),
            speed,
            base,
        })
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> TaiNanos {
        let (wall, mono) = read();
        if self.speed == 1.0 {
            return TaiNanos::from_utc(wall);
        }
        // Through the boot-time clock: a step of the host's wall clock must not be multiplied.
        TaiNanos(TaiNanos::from_utc(self.base.0).0 + scale(mono.0 - self.base.1.0, self.speed))
    }

    fn monotonic(&self) -> MonoNanos {
        let (_, mono) = read();
        if self.speed == 1.0 {
            return mono;
        }
        MonoNanos(self.base.1.0 + scale(mono.0 - self.base.1.0, self.speed))
    }

    fn clock_id(&self) -> &ClockId {
        &self.clock_id
    }

    fn real(&self, span: Duration) -> Duration {
        if self.speed == 1.0 {
            span
        } else {
            span.div_f64(self.speed)
        }
    }
}

/// A playback speed that is not one.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a speed of {0} is not possible; use a positive number up to 1000000, 1 is real time")]
pub struct SpeedError(f64);

fn scale(nanos: i64, speed: f64) -> i64 {
    (nanos as f64 * speed) as i64
}

fn read() -> (UtcNanos, MonoNanos) {
    let nanos = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + i64::from(time.tv_nsec as i32)
    };
    (UtcNanos(nanos(OsClock::Realtime)), MonoNanos(nanos(OsClock::Boottime)))
}

/// Which boot of the host this is. Where the kernel does not say (not Linux), the process stands for it.
fn host_boot() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => text.trim().replace('-', ""),
        Err(_) => format!("pid{}-{}", std::process::id(), read().0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readers_on_one_host_share_the_clock() {
        let (a, b) = (SystemClock::new(), SystemClock::new());
        assert_eq!(a.clock_id(), b.clock_id());
        assert!(a.monotonic() <= b.monotonic());
        assert!(a.wall() > TaiNanos::parse_rfc3339("2026-01-01T00:00:00Z").unwrap());
    }

    #[test]
    fn a_scaled_clock_runs_faster_and_has_its_own_id() {
        let real = SystemClock::new();
        let fast = SystemClock::scaled(100.0).unwrap();
        assert_ne!(real.clock_id(), fast.clock_id());
        let (wall, mono) = (fast.wall(), fast.monotonic());
        std::thread::sleep(Duration::from_millis(20));
        assert!(fast.monotonic().since(mono) >= Duration::from_secs(2));
        assert!(fast.wall().since(wall) >= Duration::from_secs(2));
        assert_eq!(fast.real(Duration::from_secs(1)), Duration::from_millis(10));
    }

    #[test]
    fn impossible_speeds_are_refused() {
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(SystemClock::scaled(speed).is_err(), "{speed}");
        }
    }
}
