//! Sweeps over the tape of a plan, backwards and forwards, and plans whose tape is held in segments.

use super::{AbiError, Context, Layout, Plan, bytes_of, plan, put, read_f64, read_u32};
use crate::meta::Meta;

/// What a reverse pass starts from: cotangents of everything that a loss reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seeds {
    /// One a row and column, row by row, for the rows that the plan wrote; missing ones are 0.
    pub rows: Vec<f64>,
    /// One for each state and word of discrete memory at the plan's end, as the next plan's gradient gives them in
    /// [`Gradient::states`]; missing ones are 0.
    pub last: Vec<f64>,
}

/// The gradient of a loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gradient {
    /// By each parameter, through start expressions too.
    pub parameters: Vec<f64>,
    /// By each state at the plan's start (before its first event), then by each word of discrete memory.
    pub states: Vec<f64>,
    /// By each knot of each input.
    pub inputs: Vec<Vec<f64>>,
}

/// Asks for the reverse pass of a plan that `solve` did with a tape; the next call of `solve` does it.
///
/// The mesh of the solution is held; times of events move. Rows at events ([`Plan::event_rows`]) have no cotangents.
pub fn write_seeds(mem: &mut [u8], ctx: u32, meta: &Meta, layout: &Layout, seeds: &Seeds) -> Result<(), AbiError> {
    let rows = layout.rows as usize * meta.columns.len();
    let last = meta.carried() as usize;
    if seeds.rows.len() > rows || seeds.last.len() > last || layout.gradient_words == 0 {
        return Err(AbiError::Plan {
            what: "seeds",
            value: format!("{} and {}", seeds.rows.len(), seeds.last.len()),
            remedy: "there is at most one a row and column, and one a state and word of memory, and a plan with a tape",
        });
    }
    set_flags(mem, ctx, SWEEP, plan::FLAG_REVERSE);
    let mut context = Context { mem, ctx };
    for index in 0..rows {
        let value = seeds.rows.get(index).copied().unwrap_or(0.0);
        context.f64(layout.seeds_at + 8 * index as u32, value);
    }
    for index in 0..last {
        let value = seeds.last.get(index).copied().unwrap_or(0.0);
        context.f64(layout.seeds_at + 8 * (rows + index) as u32, value);
    }
    Ok(())
}

/// Asks for the tangents along `direction` of a plan that `solve` did with a tape; the next call of `solve` does it, and
/// [`read_tangents`] reads them. The states of a direction are added to what the start expressions give.
pub fn write_direction(
    mem: &mut [u8],
    ctx: u32,
    meta: &Meta,
    layout: &Layout,
    direction: &Gradient,
) -> Result<(), AbiError> {
    let words: Vec<f64> = direction
        .parameters
        .iter()
        .chain(&direction.states)
        .chain(direction.inputs.iter().flatten())
        .copied()
        .collect();
    let expected = meta.parameters.len() + meta.carried() as usize;
    if words.len() != layout.gradient_words as usize
        || direction.parameters.len() + direction.states.len() != expected
        || words.is_empty()
    {
        return Err(AbiError::Plan {
            what: "direction",
            value: format!("{} words", words.len()),
            remedy: "it has the shape of the plan's gradient, and the plan a tape",
        });
    }
    set_flags(mem, ctx, SWEEP, plan::FLAG_FORWARD);
    let mut context = Context { mem, ctx };
    for (index, value) in words.iter().enumerate() {
        context.f64(layout.gradient_at + 8 * index as u32, *value);
    }
    Ok(())
}

/// The tangents that a forward sweep wrote: of every row and column, row by row.
pub fn read_tangents(mem: &[u8], ctx: u32, meta: &Meta, layout: &Layout) -> Vec<f64> {
    let count = layout.rows * meta.columns.len() as u32;
    (0..count)
        .map(|index| read_f64(mem, ctx, layout.seeds_at + 8 * index))
        .collect()
}

/// The first and the second tangents that a sweep of second derivatives wrote: of every row and column, row by row.
pub fn read_second_tangents(mem: &[u8], ctx: u32, meta: &Meta, layout: &Layout) -> [Vec<f64>; 2] {
    let columns = meta.columns.len() as u32;
    [0, columns].map(|from| {
        let places = (0..layout.rows).flat_map(|row| (0..columns).map(move |column| 2 * columns * row + from + column));
        places
            .map(|place| read_f64(mem, ctx, layout.seeds_at + 8 * place))
            .collect()
    })
}

/// The gradient that the reverse pass wrote.
pub fn read_gradient(mem: &[u8], ctx: u32, meta: &Meta, plan: &Plan, layout: &Layout) -> Gradient {
    let mut at = layout.gradient_at;
    let mut take = |count: usize| -> Vec<f64> {
        let values = (0..count as u32)
            .map(|index| read_f64(mem, ctx, at + 8 * index))
            .collect();
        at += 8 * count as u32;
        values
    };
    Gradient {
        parameters: take(meta.parameters.len()),
        states: take(meta.carried() as usize),
        inputs: (0..meta.inputs.len())
            .map(|input| take(plan.inputs.get(input).map_or(0, |table| table.knots.len())))
            .collect(),
    }
}

/// The flags that say what a call of `solve` does beside starting a plan.
const SWEEP: u32 = plan::FLAG_REVERSE | plan::FLAG_FORWARD | plan::FLAG_RESUME | plan::FLAG_FOLLOWS | plan::FLAG_MORE;

fn set_flags(mem: &mut [u8], ctx: u32, clear: u32, set: u32) {
    let flags = read_u32(mem, ctx, plan::FLAGS);
    Context { mem, ctx }.u32(plan::FLAGS, flags & !clear | set);
}

/// Which part of a plan that paused a sweep is over: the tape holds one segment at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// The sweep goes on from that over the neighbouring segment; what it wrote there must still be there.
    pub follows: bool,
    /// Further segments are to be swept.
    pub more: bool,
}

/// A pass over the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Backwards, from cotangents of the rows to the gradient.
    Reverse,
    /// Forwards, from a direction to the tangents of the rows.
    Forward,
    /// Forwards, from a direction to the first and second tangents of the rows; for a module compiled with
    /// [`crate::Options::second_derivatives`].
    Second,
}

/// Asks for a sweep over the segment that is on the tape, whose seeds or direction were written before the first one; the
/// next call of `solve` does it.
pub fn write_sweep(mem: &mut [u8], ctx: u32, sweep: Sweep, segment: Segment) {
    let kind = match sweep {
        Sweep::Reverse => plan::FLAG_REVERSE,
        Sweep::Forward => plan::FLAG_FORWARD,
        Sweep::Second => plan::FLAG_FORWARD | plan::FLAG_REVERSE,
    };
    let follows = if segment.follows { plan::FLAG_FOLLOWS } else { 0 };
    let more = if segment.more { plan::FLAG_MORE } else { 0 };
    set_flags(mem, ctx, SWEEP, kind | follows | more);
}

/// Lets a plan that paused go on, from where it is or from a checkpoint that [`checkpoint`] took at a pause; the next call
/// of `solve` does so, on an empty tape.
pub fn resume(mem: &mut [u8], ctx: u32, meta: &Meta, checkpoint: Option<&[u8]>) -> Result<(), AbiError> {
    if let Some(bytes) = checkpoint {
        put(mem, ctx, &meta.checkpoint, bytes)?;
    }
    set_flags(mem, ctx, SWEEP, plan::FLAG_RESUME);
    Ok(())
}

/// Everything that a plan which paused needs to go on from there, beside the plan itself.
pub fn checkpoint(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<u8> {
    bytes_of(mem, ctx, &meta.checkpoint)
}
