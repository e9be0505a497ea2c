//! Which rows a run asks the module for, and which of them are handed on.
//!
//! A tick's rows are equally spaced and come from dense output, so they do not change the steps. One tick over the whole
//! span is therefore the rule: the rows asked for lie on its finest common grid, and the others are dropped. Only an
//! output too large for one piece of memory, and a rest that has no reasonable grid, end a tick (and a step) earlier.

use orrery_lang::abi::Rows;

use super::error::SolveError;
use super::times::TimeBase;

/// Rows beyond this many bytes are computed and handed on in pieces.
const PIECE_BYTES: u64 = 64 << 20;
/// A grid this many times finer than what was asked for is still cheaper than a step that ends early.
const FINER: i64 = 16;
/// Rows of one run; beyond, a piece could be shorter than a unit of the clock.
const MOST_ROWS: f64 = 1e12;
/// Memory for a grid that holds the times of a series of measurements.
const GRID_BYTES: u64 = 512 << 20;

/// When rows are wanted besides the first instant and the last.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Output {
    /// Only the first instant and the last.
    #[default]
    Ends,
    /// After every such many seconds, and at the end.
    Every(f64),
    /// At these times, in seconds, besides the first and the last.
    At(Vec<f64>),
}

/// One tick of a run on a clock that is zero where the piece begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// The clock value that the model calls time 0.
    pub origin: i64,
    /// Its length.
    pub length: i64,
    /// Rows, equally spaced.
    pub rows: u32,
    /// Which of them are wanted.
    keep: Keep,
}

#[derive(Debug, Clone, PartialEq)]
enum Keep {
    All,
    /// Every such many, and the last.
    Each(u32),
    /// These, by number from 1, ascending.
    Listed(Vec<u32>),
}

/// A run cut into pieces.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub base: TimeBase,
    pub pieces: Vec<Piece>,
}

impl Schedule {
    /// Pieces from `from` to `until` with rows of `row_bytes` bytes.
    pub fn new(from: f64, until: f64, output: &Output, row_bytes: u32) -> Result<Self, SolveError> {
        check_span(from, until)?;
        let mut times = vec![from, until];
        match output {
            Output::Ends => {}
            Output::Every(step) => times.push(positive("every", *step)?),
            Output::At(at) => times.extend(checked_times(at, from, until)?),
        }
        let base = TimeBase::of(&times);
        let clock = |seconds: f64| {
            base.clock(seconds)
                .ok_or_else(|| SolveError::value("until", until, "the times do not fit one clock of 60 bits"))
        };
        let (start, end) = (clock(from)?, clock(until)?);
        let span = end - start;
        let pieces = match output {
            Output::Ends => vec![Piece::whole(start, span, 1, Keep::All)],
            Output::Every(step) => {
                let nearly = nearly_whole(from, until, *step);
                regular(start, span, clock(*step)?, row_bytes, nearly)?
            }
            Output::At(at) => {
                let clocks: Result<Vec<i64>, SolveError> = at.iter().map(|time| Ok(clock(*time)? - start)).collect();
                vec![listed(base, start, span, &clocks?, row_bytes)?]
            }
        };
        Ok(Self { base, pieces })
    }
}

fn check_span(from: f64, until: f64) -> Result<(), SolveError> {
    if !from.is_finite() {
        return Err(SolveError::value("from", from, "it must be a finite time in seconds"));
    }
    if !(until.is_finite() && until > from) {
        return Err(SolveError::value(
            "until",
            until,
            "it must be a finite time in seconds after the start",
        ));
    }
    Ok(())
}

/// How many steps fill the span, if they do so within the rounding of the numbers given.
fn nearly_whole(from: f64, until: f64, step: f64) -> Option<i64> {
    let count = ((until - from) / step).round();
    let off = (from + count * step - until).abs();
    let rounding = 4.0 * f64::EPSILON * from.abs().max(until.abs());
    ((1.0..=MOST_ROWS).contains(&count) && off <= rounding).then_some(count as i64)
}

fn positive(what: &'static str, value: f64) -> Result<f64, SolveError> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(SolveError::value(
            what,
            value,
            "it must be a positive number of seconds",
        ))
    }
}

fn checked_times(at: &[f64], from: f64, until: f64) -> Result<impl Iterator<Item = f64> + '_, SolveError> {
    match at.iter().find(|time| !(**time >= from && **time <= until)) {
        Some(outside) => Err(SolveError::value(
            "time",
            *outside,
            "every time must lie between the start and the end",
        )),
        None => Ok(at.iter().copied()),
    }
}

/// Rows after every step and at the end. A span that is a whole number of steps but for rounding is divided evenly.
fn regular(start: i64, span: i64, step: i64, row_bytes: u32, nearly: Option<i64>) -> Result<Vec<Piece>, SolveError> {
    if step < 1 || (span / step) as f64 > MOST_ROWS {
        return Err(SolveError::value(
            "every",
            0.0,
            "it is too short beside the length of the run",
        ));
    }
    let most = i64::try_from(PIECE_BYTES / u64::from(row_bytes.max(8)))
        .unwrap_or(1)
        .max(1);
    let (whole, rest) = (span / step, span % step);
    if let Some(count) = nearly.or((rest == 0).then_some(whole)) {
        return Ok(divided(start, span, count, most));
    }
    if whole < most {
        let grid = gcd(step, span);
        let rows = span / grid;
        if rows <= most && rows / (whole + 1) <= FINER {
            let keep = Keep::Each((step / grid) as u32);
            return Ok(vec![Piece::whole(start, span, rows as u32, keep)]);
        }
    }
    let mut pieces = divided(start, span - rest, whole, most);
    pieces.push(Piece::whole(start + span - rest, rest, 1, Keep::All));
    Ok(pieces)
}

/// A span divided into `count` rows, at most `most` in a piece.
fn divided(start: i64, span: i64, count: i64, most: i64) -> Vec<Piece> {
    let place = |row: i64| (i128::from(span) * i128::from(row) / i128::from(count.max(1))) as i64;
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < count {
        let rows = most.min(count - done);
        let (from, to) = (place(done), place(done + rows));
        pieces.push(Piece::whole(start + from, to - from, rows as u32, Keep::All));
        done += rows;
    }
    pieces
}

fn listed(base: TimeBase, start: i64, span: i64, wanted: &[i64], row_bytes: u32) -> Result<Piece, SolveError> {
    let grid = wanted.iter().fold(span, |grid, clock| gcd(grid, *clock));
    let rows = span / grid;
    let bytes = u64::try_from(rows)
        .unwrap_or(u64::MAX)
        .saturating_mul(u64::from(row_bytes));
    if bytes > GRID_BYTES {
        return Err(SolveError::Grid {
            grid_s: base.seconds(grid),
            rows: rows as u64,
        });
    }
    let mut keep: Vec<u32> = wanted.iter().map(|clock| (clock / grid) as u32).collect();
    keep.push(rows as u32);
    keep.sort_unstable();
    keep.dedup();
    keep.retain(|row| *row > 0);
    Ok(Piece::whole(start, span, rows as u32, Keep::Listed(keep)))
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.abs()
}

impl Piece {
    fn whole(start: i64, length: i64, rows: u32, keep: Keep) -> Self {
        Self {
            origin: -start,
            length,
            rows,
            keep,
        }
    }

    /// The clock value of row `j`, as the module computes it.
    fn clock(&self, j: u32) -> i64 {
        let (rows, j) = (i64::from(self.rows), i64::from(j));
        (self.length / rows) * j + ((self.length % rows) * j) / rows - self.origin
    }

    /// Drops the rows of the grid that nobody asked for; rows of events stay, and so does a first row.
    pub fn select(&self, base: TimeBase, rows: Rows) -> Rows {
        if self.keep == Keep::All {
            return rows;
        }
        let mut kept = Rows {
            times: Vec::new(),
            values: Vec::new(),
            columns: rows.columns,
        };
        let mut next = 1;
        let mut listed = self.listed().into_iter().flatten().copied().peekable();
        for (at, time) in rows.times.iter().enumerate() {
            // Rows of one instant: those of events come first.
            let last_of_instant = rows.times.get(at + 1) != Some(time);
            let on_grid = next <= self.rows && *time == base.seconds(self.clock(next)) && last_of_instant;
            let wanted = if on_grid {
                next += 1;
                self.wants(next - 1, &mut listed)
            } else {
                true
            };
            if wanted {
                kept.times.push(*time);
                kept.values.extend_from_slice(rows.row(at));
            }
        }
        kept
    }

    fn listed(&self) -> Option<&[u32]> {
        match &self.keep {
            Keep::Listed(rows) => Some(rows),
            Keep::All | Keep::Each(_) => None,
        }
    }

    fn wants(&self, row: u32, listed: &mut std::iter::Peekable<impl Iterator<Item = u32>>) -> bool {
        match &self.keep {
            Keep::All => true,
            Keep::Each(stride) => row.is_multiple_of(*stride) || row == self.rows,
            Keep::Listed(_) => listed.next_if_eq(&row).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_4;

    use super::*;

    /// Rows as a module would write them, each value its own time.
    fn written(schedule: &Schedule) -> Vec<f64> {
        let mut times = Vec::new();
        for (number, piece) in schedule.pieces.iter().enumerate() {
            let first = u32::from(number > 0);
            let all: Vec<f64> = (first..=piece.rows)
                .map(|j| schedule.base.seconds(piece.clock(j)))
                .collect();
            let rows = Rows {
                values: all.clone(),
                times: all,
                columns: 1,
            };
            times.extend(piece.select(schedule.base, rows).values);
        }
        times
    }

    #[test]
    fn every_gives_multiples_and_the_end() {
        let every = |from, until, step| written(&Schedule::new(from, until, &Output::Every(step), 16).unwrap());
        assert_eq!(every(0.0, 1.0, 0.25), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(every(0.0, 1.0, 0.3), [0.0, 0.3, 0.6, 0.9, 1.0]);
        assert_eq!(every(-1.0, 0.5, 0.7), [-1.0, -0.3, 0.4, 0.5]);
        assert_eq!(every(0.0, 1.0, 5.0), [0.0, 1.0]);
        assert_eq!(every(1e-9, 3e-9, 1e-9), [1e-9, 2e-9, 3e-9]);
        assert_eq!(every(0.0, 1e12, 4e11), [0.0, 4e11, 8e11, 1e12]);
        let uneven = every(0.0, std::f64::consts::PI, 0.01);
        assert_eq!(uneven.len(), 316);
        assert_eq!(
            (uneven[3], uneven[314], uneven[315]),
            (0.03, 314.0 / 100.0, std::f64::consts::PI)
        );
        let hundredths = every(0.0, 100.0, 0.01);
        assert_eq!(hundredths[2999], 29.99);
        let program = every(0.0, FRAC_PI_4, 0.0007853981633974483);
        assert_eq!(program.len(), 1001);
        assert_eq!(program[1000], FRAC_PI_4);
        let thirds = every(0.0, 1.0, 1.0 / 3.0);
        assert_eq!((thirds.len(), thirds[1], thirds[3]), (4, 1.0 / 3.0, 1.0));
    }

    #[test]
    fn large_outputs_come_in_pieces_that_join() {
        let schedule = Schedule::new(0.0, 1e6, &Output::Every(0.1), 800).unwrap();
        assert!(schedule.pieces.len() > 100);
        let rows: u64 = schedule.pieces.iter().map(|piece| u64::from(piece.rows)).sum();
        assert_eq!(rows, 10_000_000);
        let most = schedule.pieces.iter().map(|piece| piece.rows).max().unwrap();
        assert!(u64::from(most) * 800 <= PIECE_BYTES);
    }

    #[test]
    fn listed_times_lie_on_their_common_grid() {
        let at = Output::At(vec![0.0, 1.003, 2.5, 2.5]);
        let schedule = Schedule::new(0.0, 3.0, &at, 16).unwrap();
        assert_eq!(written(&schedule), [0.0, 1.003, 2.5, 3.0]);
        let wild = Output::At(vec![1.0 / 3.0, 2.0_f64.sqrt()]);
        let error = Schedule::new(0.0, 3.0, &wild, 16).unwrap_err();
        assert!(error.to_string().contains("round"), "{error}");
    }

    #[test]
    fn rows_of_events_stay() {
        let schedule = Schedule::new(0.0, 1.0, &Output::Every(0.3), 16).unwrap();
        let piece = &schedule.pieces[0];
        assert_eq!(piece.rows, 10);
        let times = vec![0.0, 0.1, 0.15, 0.15, 0.2, 0.2, 0.2, 0.3];
        let rows = Rows {
            values: (0..times.len()).map(|at| at as f64).collect(),
            times,
            columns: 1,
        };
        let kept = piece.select(schedule.base, rows);
        // The row of the grid at 0.1 and the one after the event's two at 0.2 are not asked for.
        assert_eq!(kept.values, [0.0, 2.0, 3.0, 4.0, 5.0, 7.0]);
    }

    #[test]
    fn impossible_times_are_refused() {
        for (from, until, output) in [
            (0.0, 0.0, Output::Ends),
            (0.0, f64::NAN, Output::Ends),
            (f64::INFINITY, 1.0, Output::Ends),
            (0.0, 1.0, Output::Every(0.0)),
            (0.0, 1.0, Output::Every(-1.0)),
            (0.0, 1.0, Output::At(vec![1.5])),
            (0.0, 1.0, Output::At(vec![f64::NAN])),
        ] {
            assert!(Schedule::new(from, until, &output, 16).is_err());
        }
    }
}
