//! Whether a device's stamp is believed, beside its own reception.
//!
//! A stamp may be wrong by decades: a board without a battery begins in 1970, a flipped bit lands in 2080. What lies far
//! from where the clock's line puts it is held in doubt until those after it show what it was: a clock that stepped
//! keeps pace with reception from its new place; a backlog that a device kept while it was cut off comes faster than it
//! was recorded. Neither is one stray stamp.

use serde::{Deserialize, Serialize};

/// A stamp this much older than its reception (1 h) is doubted.
pub(super) const LATE_NANOS: i64 = 3_600_000_000_000;
/// No device keeps a backlog for longer (30 days): an older stamp is of a clock that was never set.
pub(super) const BACKLOG_NANOS: i64 = 30 * 24 * 3_600_000_000_000;
/// Stamps in a row that show what they are.
const CONFIRMED: u32 = 8;
/// A device that sends in batches outruns reception within each of them; a backlog does for longer (1 min).
const BACKLOG_SPAN_NANOS: i64 = 60_000_000_000;

/// Stamps in a row that lie far from the line on the same side, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// (stamp, reception) of the first and the last.
    first: (i64, i64),
    last: (i64, i64),
    late: bool,
    count: u32,
}

impl Run {
    /// Goes on with a run, or starts one when the pair does not belong to it. `late`: received long after its stamp.
    pub(super) fn follow(run: &mut Option<Self>, stamp: i64, received: i64, late: bool) -> &Self {
        let delay = |pair: (i64, i64)| pair.1.saturating_sub(pair.0);
        let pair = (stamp, received);
        let goes_on = run.is_some_and(|run| {
            let apart = delay(pair).saturating_sub(delay(run.last));
            run.late == late && apart.saturating_abs() <= LATE_NANOS
        });
        let first = run.filter(|_| goes_on).map_or(pair, |run| run.first);
        let count = run.filter(|_| goes_on).map_or(0, |run| run.count);
        run.insert(Self {
            first,
            last: pair,
            late,
            count: count.saturating_add(1),
        })
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether stamps and receptions went on at one rate, give or take a factor of two.
    pub(super) fn keeps_pace(&self) -> bool {
        let (stamps, receptions) = self.spans();
        receptions > 0 && stamps >= receptions / 2 && stamps / 2 <= receptions
    }

    /// Whether the clock stepped to where these stamps are.
    pub(super) fn is_step(&self) -> bool {
        self.count >= CONFIRMED && self.keeps_pace()
    }

    /// Whether these are samples that the device kept while it could not send; `delay_nanos` is the last one's.
    pub(super) fn is_backlog(&self, delay_nanos: i64) -> bool {
        let (stamps, receptions) = self.spans();
        self.late
            && self.count >= CONFIRMED
            && delay_nanos <= BACKLOG_NANOS
            && stamps >= BACKLOG_SPAN_NANOS
            && stamps / 2 > receptions
    }

    fn spans(&self) -> (i64, i64) {
        (
            self.last.0.saturating_sub(self.first.0),
            self.last.1.saturating_sub(self.first.1),
        )
    }
}
