//! Times of a run on the module's integer clock, such that they come back exactly.
//!
//! The module computes `seconds = (clock − origin) / clock_hz` in double precision. A clock of 10^e Hz gives the double
//! nearest to every decimal time while clock values stay below 2^53 and e below 23, for then both operands are exact.
//! So 0.1, 0.2, 0.3 are what they look like, and no time is accumulated. Times with more digits get a clock whose rate
//! is a power of two: doubles are whole numbers of such units, and dividing by the rate is exact.

/// Integers up to here, and powers of ten up to 10^22, are doubles without rounding.
const EXACT: i128 = 1 << 53;
const EXACT_POWER: i32 = 22;
/// Clock values stay below this: the module adds and subtracts them.
const REACH: i128 = 1 << 60;

/// A clock on which times are whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TimeBase {
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    /// 10^-e seconds.
    Decimal(i32),
    /// 2^-e seconds.
    Binary(i32),
}

impl TimeBase {
    /// The finest clock that has all these times (in seconds, finite) as whole numbers; where none has, the finest that
    /// reaches them, which rounds them to 2^-59 of the longest.
    pub fn of(times: &[f64]) -> Self {
        Self::decimal(times)
            .or_else(|| Self::binary(times))
            .unwrap_or_else(|| Self::rounding(times))
    }

    fn decimal(times: &[f64]) -> Option<Self> {
        let decimals: Vec<Decimal> = times.iter().copied().map(Decimal::of).collect();
        let coarsest = decimals.iter().map(|time| -time.exponent).max()?.max(0);
        let fits = |e: i32| {
            e <= EXACT_POWER
                && decimals
                    .iter()
                    .all(|time| time.at(e).is_some_and(|clock| clock.abs() <= EXACT))
        };
        let finest = (coarsest..=EXACT_POWER).take_while(|e| fits(*e)).last()?;
        Some(Self {
            unit: Unit::Decimal(finest),
        })
    }

    fn binary(times: &[f64]) -> Option<Self> {
        let parts: Vec<(i128, i32)> = times.iter().copied().map(dyadic).collect();
        let coarsest = parts.iter().map(|(_, exponent)| -exponent).max()?.max(0);
        let fits = |e: i32| {
            let within = |(mantissa, exponent): &(i128, i32)| {
                let shift = e + exponent;
                *mantissa == 0 || (shift < 61 && mantissa.abs() < REACH >> shift)
            };
            e < 1000 && parts.iter().all(within)
        };
        let finest = (coarsest..1000).take_while(|e| fits(*e)).last()?;
        Some(Self {
            unit: Unit::Binary(finest),
        })
    }

    fn rounding(times: &[f64]) -> Self {
        let longest = times.iter().fold(0.0_f64, |longest, time| longest.max(time.abs()));
        let e = 59 - (exponent_of(longest) + 1);
        Self {
            unit: Unit::Binary(e.clamp(0, 999)),
        }
    }

    /// Units per second.
    pub fn hz(self) -> f64 {
        match self.unit {
            // Exact at every factor, unlike `powi`.
            Unit::Decimal(e) => (0..e).fold(1.0, |product, _| product * 10.0),
            Unit::Binary(e) => (0..e).fold(1.0, |product, _| product * 2.0),
        }
    }

    /// The clock value nearest to a time; `None` beyond the clock's reach.
    pub fn clock(self, seconds: f64) -> Option<i64> {
        let clock = match self.unit {
            Unit::Decimal(e) => Decimal::of(seconds).at_nearest(e)?,
            Unit::Binary(e) => {
                let (mantissa, exponent) = dyadic(seconds);
                shifted(mantissa, e.checked_add(exponent)?)?
            }
        };
        i64::try_from(clock)
            .ok()
            .filter(|clock| i128::from(*clock).abs() <= REACH)
    }

    /// The time the module computes for a clock value: the same operations.
    pub fn seconds(self, clock: i64) -> f64 {
        clock as f64 / self.hz()
    }
}

/// The shortest decimal that reads back as a double: `mantissa · 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Decimal {
    mantissa: i128,
    exponent: i32,
}

impl Decimal {
    fn of(value: f64) -> Self {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len()) as i32;
        let mantissa = digits.replace('.', "").parse().unwrap_or(0);
        Self {
            mantissa,
            exponent: exponent.parse().unwrap_or(0) - fraction,
        }
    }

    /// In units of 10^-e, if that is a whole number within i128.
    fn at(self, e: i32) -> Option<i128> {
        let power = self.exponent.checked_add(e)?;
        if self.mantissa == 0 {
            return Some(0);
        }
        self.mantissa
            .checked_mul(10_i128.checked_pow(u32::try_from(power).ok()?)?)
    }

    fn at_nearest(self, e: i32) -> Option<i128> {
        let power = self.exponent.checked_add(e)?;
        if power >= 0 {
            return self.at(e);
        }
        let Some(divisor) = 10_i128.checked_pow(power.unsigned_abs()) else {
            return Some(0);
        };
        Some((self.mantissa + self.mantissa.signum() * (divisor / 2)) / divisor)
    }
}

/// `value = mantissa · 2^exponent` with an odd mantissa, or (0, 0).
fn dyadic(value: f64) -> (i128, i32) {
    if value == 0.0 || !value.is_finite() {
        return (0, 0);
    }
    let bits = value.to_bits();
    let raw = ((bits >> 52) & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if raw == 0 {
        (fraction, -1074)
    } else {
        (fraction | (1 << 52), raw - 1075)
    };
    let zeros = mantissa.trailing_zeros();
    let sign = if value < 0.0 { -1 } else { 1 };
    (sign * (mantissa >> zeros), exponent + zeros as i32)
}

/// The exponent of the greatest power of two not above a positive value.
fn exponent_of(value: f64) -> i32 {
    let (mantissa, exponent) = dyadic(value);
    exponent + (127 - mantissa.abs().max(1).leading_zeros() as i32)
}

/// `mantissa · 2^shift`, rounded to the nearest whole number.
fn shifted(mantissa: i128, shift: i32) -> Option<i128> {
    if shift >= 0 {
        let room = mantissa.abs().max(1).leading_zeros() as i32 - 1;
        return (shift < room).then(|| mantissa << shift).or(match mantissa {
            0 => Some(0),
            _ => None,
        });
    }
    let down = shift.unsigned_abs();
    if down > 120 {
        return Some(0);
    }
    let half = 1_i128 << (down - 1);
    Some(mantissa.signum() * ((mantissa.abs() + half) >> down))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_steps_are_what_they_look_like() {
        let base = TimeBase::of(&[0.0, 0.1, 10.0]);
        let tick = base.clock(0.1).unwrap();
        for (k, expected) in [(1, 0.1), (3, 0.3), (7, 0.7), (100, 10.0)] {
            assert_eq!(base.seconds(k * tick), expected);
        }
        assert_eq!(base.seconds(base.clock(2.5).unwrap()), 2.5);
    }

    #[test]
    fn the_whole_range_is_reached() {
        for until in [1e-9, 1.23e-7, 0.1, 1.0, 3600.0, 5100.0, 1e6, 1e12, 999_999_999_999.9] {
            let base = TimeBase::of(&[0.0, until]);
            assert_eq!(base.seconds(base.clock(until).unwrap()), until, "{until}");
        }
    }

    proptest! {
        #[test]
        fn any_two_times_come_back(until in 1e-9..1e12_f64, from in -1e3..1e3_f64) {
            let base = TimeBase::of(&[0.0, until]);
            prop_assert_eq!(base.seconds(base.clock(until).unwrap()), until);
            let base = TimeBase::of(&[from, from + until]);
            let back = base.seconds(base.clock(from + until).unwrap());
            let rounding = 2.0 * f64::EPSILON * back.abs();
            prop_assert!((back - (from + until)).abs() <= rounding);
        }

        #[test]
        fn multiples_of_a_step_are_rounded_once(step in 1e-6..1e3_f64, count in 1_i64..1000) {
            let until = step * count as f64;
            let base = TimeBase::of(&[step, until]);
            let tick = base.clock(step).unwrap();
            // Where no clock has both exactly, each multiple carries the step's rounding.
            let rounding = (2.0 * f64::EPSILON + count as f64 * 2_f64.powi(-59)) * until;
            prop_assert!((base.seconds(tick * count) - until).abs() <= rounding);
        }
    }
}
