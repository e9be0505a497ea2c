//! Which of a server's clock readings a wave of round trips may trust. Pure.
//!
//! The standard's clock is the variable `CurrentTime` (i=2258), but some servers refresh it only once a second: read eight times in a
//! row it stands still, and would bias the offset by up to a second. Such a server still stamps each answer's
//! header with the instant it was made. So: `CurrentTime` where it moves, else the header where it moves and agrees with it, else nothing.

use orrery_protocol::Probe;

/// One read of the server's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockRead {
    /// Asked, on the host's boot-time clock.
    pub t0: i64,
    /// Answered, on the host's boot-time clock.
    pub t3: i64,
    /// `CurrentTime`, UNIX nanoseconds.
    pub current: Option<i64>,
    /// The answer's header, UNIX nanoseconds.
    pub header: Option<i64>,
}

/// The probes of a wave, empty when the server's clock cannot be read well enough.
pub(super) fn probes(wave: &[ClockRead]) -> Vec<Probe> {
    const REFRESH: i64 = 2_000_000_000;
    let by = |reading: fn(&ClockRead) -> Option<i64>| -> Vec<Probe> {
        wave.iter()
            .filter_map(|read| {
                reading(read).map(|time| Probe {
                    t0: read.t0,
                    t1: time,
                    t2: time,
                    t3: read.t3,
                })
            })
            .collect()
    };
    let current = by(|read| read.current);
    if moves(&current) {
        return current;
    }
    let header = by(|read| read.header);
    let agrees = wave.iter().all(|read| match (read.current, read.header) {
        (Some(current), Some(header)) => (header - current).abs() <= REFRESH,
        (None, _) => true,
        (Some(_), None) => false,
    });
    if agrees && moves(&header) { header } else { Vec::new() }
}

/// Whether nearly every reading differs from the one before.
fn moves(probes: &[Probe]) -> bool {
    let changes = probes.windows(2).filter(|pair| pair[0].t1 != pair[1].t1).count();
    probes.len() >= 2 && changes * 4 >= (probes.len() - 1) * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(current: impl Fn(i64) -> Option<i64>, header: impl Fn(i64) -> Option<i64>) -> Vec<ClockRead> {
        let read = |n: i64| ClockRead {
            t0: n * 10,
            t3: n * 10 + 4,
            current: current(n),
            header: header(n),
        };
        (0..8).map(read).collect()
    }

    #[test]
    fn a_clock_that_moves_is_trusted_and_one_that_stands_is_not() {
        let good = probes(&wave(|n| Some(1_000 + n), Some));
        assert_eq!((good.len(), good[3].t1), (8, 1_003));
        let by_header = probes(&wave(|_| Some(500), |n| Some(1_000 + n)));
        assert_eq!((by_header.len(), by_header[3].t1), (8, 1_003));
        assert!(probes(&wave(|_| Some(500), |n| Some(3_000_000_000 + n))).is_empty());
        assert!(probes(&wave(|_| Some(500), |_| None)).is_empty());
        assert!(probes(&[]).is_empty());
    }
}
