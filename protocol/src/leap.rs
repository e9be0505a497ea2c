//! The leap-second table: TAI − UTC since 1972, as the IERS announced it (Bulletin C; the same facts
//! as IANA's `leap-seconds.list`).

use crate::UtcNanos;

/// (UNIX second at which the offset starts, TAI − UTC in seconds). Before the first entry the offset is 10 s.
const TABLE: [(i64, i64); 28] = [
    (63_072_000, 10),
    (78_796_800, 11),
    (94_694_400, 12),
    (126_230_400, 13),
    (157_766_400, 14),
    (189_302_400, 15),
    (220_924_800, 16),
    (252_460_800, 17),
    (283_996_800, 18),
    (315_532_800, 19),
    (362_793_600, 20),
    (394_329_600, 21),
    (425_865_600, 22),
    (489_024_000, 23),
    (567_993_600, 24),
    (631_152_000, 25),
    (662_688_000, 26),
    (709_948_800, 27),
    (741_484_800, 28),
    (773_020_800, 29),
    (820_454_400, 30),
    (867_715_200, 31),
    (915_148_800, 32),
    (1_136_073_600, 33),
    (1_230_768_000, 34),
    (1_341_100_800, 35),
    (1_435_708_800, 36),
    (1_483_228_800, 37),
];

const NANOS: i64 = 1_000_000_000;

/// When the table stops being authoritative: 2027-06-28, the horizon of IERS Bulletin C 72.
/// Services report it and warn once it has passed; conversions go on with the last offset.
pub const fn expires() -> UtcNanos {
    UtcNanos(1_814_140_800 * NANOS)
}

/// TAI − UTC in seconds at a UTC instant.
pub fn tai_minus_utc_at(utc: UtcNanos) -> i64 {
    let second = utc.0.div_euclid(NANOS);
    TABLE
        .iter()
        .rev()
        .find(|(from, _)| second >= *from)
        .map_or(10, |(_, offset)| *offset)
}

/// TAI − UTC in seconds at a TAI instant. During an inserted second the offset is still the old one,
/// so that second maps onto the UTC second after it, as POSIX time does.
pub fn tai_minus_utc_at_tai(tai_nanos: i64) -> i64 {
    let second = tai_nanos.div_euclid(NANOS);
    TABLE
        .iter()
        .rev()
        .find(|(from, offset)| second >= from + offset)
        .map_or(10, |(_, offset)| *offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaiNanos;

    #[test]
    fn the_offset_is_37_seconds_since_2017() {
        assert_eq!(tai_minus_utc_at(UtcNanos(1_483_228_799 * NANOS)), 36);
        assert_eq!(tai_minus_utc_at(UtcNanos(1_483_228_800 * NANOS)), 37);
    }

    #[test]
    fn conversion_round_trips_on_both_sides_of_every_leap() {
        for (second, _) in TABLE {
            for delta in [-2, -1, 0, 1, 2] {
                let utc = UtcNanos((second + delta) * NANOS + 123);
                assert_eq!(TaiNanos::from_utc(utc).to_utc(), utc, "around {second}");
            }
        }
    }
}
