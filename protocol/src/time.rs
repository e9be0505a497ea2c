//! Time: four clocks, four types. Reference time is TAI; UTC appears only at the rims.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::{ClockId, leap};

/// Nanoseconds since 1970-01-01 TAI: reference time, the one timeline. No leap second ever repeats here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaiNanos(pub i64);

/// POSIX nanoseconds since 1970-01-01 UTC; a leap second repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcNanos(pub i64);

/// A source's own stamp in nanoseconds, on a clock that only the source knows (usually POSIX time, with an error).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceNanos(pub i64);

/// The agent host's boot-time clock in nanoseconds (`CLOCK_BOOTTIME`): no wall-clock step moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MonoNanos(pub i64);

/// A time that could not be read or represented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text is not an RFC 3339 date-time with a zone.
    #[error("`{0}` is not a time: write RFC 3339 with a zone, such as 2026-11-21T14:32:07.5Z")]
    Syntax(String),
    /// The time does not fit 64-bit nanoseconds (years 1678 to 2261).
    #[error("`{0}` lies outside the years 1678 to 2261")]
    Range(String),
}

impl TaiNanos {
    /// The TAI instant of a UTC instant, through the leap-second table.
    pub fn from_utc(utc: UtcNanos) -> Self {
        Self(utc.0.saturating_add(leap::tai_minus_utc_at(utc) * 1_000_000_000))
    }

    /// The UTC instant of this TAI instant.
    pub fn to_utc(self) -> UtcNanos {
        UtcNanos(
            self.0
                .saturating_sub(leap::tai_minus_utc_at_tai(self.0) * 1_000_000_000),
        )
    }

    /// RFC 3339 in UTC with nanoseconds: `2026-11-21T14:32:07.400000000Z`.
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_nanos(self.to_utc().0).to_rfc3339_opts(SecondsFormat::Nanos, true)
    }

    /// Reads RFC 3339 with any zone.
    ///
    /// # Errors
    /// [`TimeError`] names the text that is not a time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        let parsed = DateTime::parse_from_rfc3339(text.trim()).map_err(|_| TimeError::Syntax(text.to_owned()))?;
        let nanos = parsed
            .timestamp_nanos_opt()
            .ok_or_else(|| TimeError::Range(text.to_owned()))?;
        Ok(Self::from_utc(UtcNanos(nanos)))
    }

    /// UNIX milliseconds UTC as a browser draws them; sub-microsecond resolution until 2262.
    pub fn to_unix_millis(self) -> f64 {
        let utc = self.to_utc().0;
        (utc.div_euclid(1_000_000)) as f64 + (utc.rem_euclid(1_000_000)) as f64 / 1e6
    }

    /// The inverse of [`TaiNanos::to_unix_millis`]; saturates.
    pub fn from_unix_millis(millis: f64) -> Self {
        let whole = millis.floor();
        let nanos = (whole as i64)
            .saturating_mul(1_000_000)
            .saturating_add(((millis - whole) * 1e6) as i64);
        Self::from_utc(UtcNanos(nanos))
    }
}

macro_rules! arithmetic {
    ($($type:ident),*) => {$(
        impl $type {
            /// This instant plus a duration; saturates at the ends of time.
            #[must_use]
            pub fn plus(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
            }

            /// This instant minus a duration; saturates at the ends of time.
            #[must_use]
            pub fn minus(self, duration: Duration) -> Self {
                Self(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
            }

            /// Signed nanoseconds from `earlier` to this instant; saturates.
            pub fn nanos_since(self, earlier: Self) -> i64 {
                self.0.saturating_sub(earlier.0)
            }

            /// The time from `earlier` to this instant, zero when `earlier` is later.
            pub fn since(self, earlier: Self) -> Duration {
                Duration::from_nanos(u64::try_from(self.nanos_since(earlier)).unwrap_or(0))
            }
        }
    )*};
}
arithmetic!(TaiNanos, UtcNanos, DeviceNanos, MonoNanos);

impl fmt::Display for TaiNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// The only way to know the time. Production reads the host's clocks, tests and simulations set it.
pub trait Clock: Send + Sync {
    /// The host's best knowledge of reference time; may step.
    fn wall(&self) -> TaiNanos;
    /// The host's boot-time clock; never steps, never goes back.
    fn monotonic(&self) -> MonoNanos;
    /// Which continuous clock [`Clock::monotonic`] is: one boot of one host.
    fn clock_id(&self) -> &ClockId;
    /// How long to sleep in real time for a span of this clock: shorter when the clock is sped up.
    fn real(&self, span: Duration) -> Duration {
        span
    }
}

/// A clock that stands still until told otherwise: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    clock_id: ClockId,
    now: Mutex<(TaiNanos, MonoNanos)>,
}

impl ManualClock {
    /// A clock that shows `wall` and a boot-time clock of one hour.
    pub fn new(wall: TaiNanos) -> Self {
        let clock_id = ClockId::host("manual");
        Self {
            clock_id,
            now: Mutex::new((wall, MonoNanos(3_600_000_000_000))),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, span: Duration) {
        let mut now = self.lock();
        *now = (now.0.plus(span), now.1.plus(span));
    }

    /// Steps the wall clock alone, as an administrator or NTP would.
    pub fn step_wall(&self, wall: TaiNanos) {
        self.lock().0 = wall;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (TaiNanos, MonoNanos)> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> TaiNanos {
        self.lock().0
    }

    fn monotonic(&self) -> MonoNanos {
        self.lock().1
    }

    fn clock_id(&self) -> &ClockId {
        &self.clock_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc3339_reads_what_it_writes_and_names_what_is_not_a_time() {
        let time = TaiNanos::parse_rfc3339("2026-11-21T15:32:07.400000001+01:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-11-21T14:32:07.400000001Z");
        let error = TaiNanos::parse_rfc3339("yesterday").unwrap_err();
        assert!(error.to_string().contains("`yesterday` is not a time"));
    }

    proptest! {
        #[test]
        fn utc_round_trips(nanos in 63_072_000_000_000_000i64..4_000_000_000_000_000_000) {
            prop_assert_eq!(TaiNanos::from_utc(UtcNanos(nanos)).to_utc(), UtcNanos(nanos));
        }

        #[test]
        fn millis_keep_a_microsecond(nanos in 0i64..2_000_000_000_000_000_000) {
            let time = TaiNanos::from_utc(UtcNanos(nanos));
            let back = TaiNanos::from_unix_millis(time.to_unix_millis());
            prop_assert!((back.0 - time.0).abs() <= 1_000);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = TaiNanos::parse_rfc3339(&text);
        }
    }
}
