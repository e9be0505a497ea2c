//! What `solve` answers: why it stopped, what it cost, and the rows.

use super::{Layout, read_f64, read_u32, read_u64, row_bytes, status};
use crate::meta::Meta;

/// What `solve` says about a plan: how far it came, why it stopped, what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Why it stopped.
    pub code: Code,
    /// Rows written; they are valid whatever the code.
    pub rows: u32,
    /// Ticks completed.
    pub ticks: u32,
    /// For an error: the equation, an index into [`Meta::equations`].
    pub equation: Option<usize>,
    /// For an error: the state, an index into [`Meta::states`].
    pub variable: Option<usize>,
    /// For an error: seconds from the origin.
    pub time: f64,
    /// For an error: the offending value.
    pub value: f64,
    /// Accepted steps.
    pub steps: u64,
    /// Rejected steps.
    pub rejected: u64,
    /// Evaluations of the derivatives.
    pub evaluations: u64,
    /// Events.
    pub events: u64,
    /// Bytes of tape that the plan needs, or from its last pause on.
    pub tape_needed: u64,
    /// The method that ran last.
    pub method: &'static str,
    /// When an automatic choice went from Tsit5 to Rodas5P in this plan, in seconds from the origin: its steps were held
    /// down by stability.
    pub switched_at: Option<f64>,
}

impl Status {
    /// The error as a sentence with names, lines and times; `None` when all went well.
    pub fn describe(&self, meta: &Meta) -> Option<String> {
        let what = match self.code {
            Code::Ok => return None,
            Code::NotInitialised => "the context was not initialised: the first plan needs `initialise`".to_string(),
            Code::NotFinite => "a value is not finite".to_string(),
            Code::StepLimit => {
                "the step limit of one tick was reached: raise max_steps or loosen the tolerance".to_string()
            }
            Code::StepTooSmall => {
                "the error control needs a step below the resolution of time: the solution is singular or too stiff"
                    .to_string()
            }
            Code::BadPlan => "the plan is inconsistent".to_string(),
            Code::NoSolution => "the equations of an algebraic loop have no solution near the last one".to_string(),
            Code::Singular => {
                "the equations do not determine their unknowns (their matrix is singular; other start values may help)"
                    .to_string()
            }
            Code::Chattering => "events follow each other without end (chattering)".to_string(),
            Code::TapeFull => format!("the tape is too small: {} bytes are needed", self.tape_needed),
            Code::Assertion => "an assertion of the model failed".to_string(),
            Code::Grazing => "an event surface is touched, not crossed: there is no gradient".to_string(),
            Code::RowsFull => "there are more events than rows for them".to_string(),
            Code::Paused => "the plan paused".to_string(),
            Code::Unknown(code) => format!("status {code}, which this version does not know"),
        };
        let mut text = format!("{}: {what} at time {} s", meta.model, self.time);
        if let Some(state) = self.variable.and_then(|index| meta.states.get(index)) {
            text.push_str(&format!(", {} = {}", state.name, self.value));
        }
        if let Some(equation) = self.equation.and_then(|index| meta.equations.get(index)) {
            text.push_str(&format!(
                " ({}:{}:{}: {})",
                meta.file, equation.line, equation.column, equation.text
            ));
        }
        Some(text)
    }
}

/// Why `solve` stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The whole plan was done.
    Ok,
    /// The context was never initialised.
    NotInitialised,
    /// A variable or derivative became infinite or not a number.
    NotFinite,
    /// More than `max_steps` steps in one tick.
    StepLimit,
    /// The error control asks for a step below the resolution of time.
    StepTooSmall,
    /// The plan is inconsistent.
    BadPlan,
    /// The equations of an algebraic loop were not solved.
    NoSolution,
    /// A linear system has no unique solution.
    Singular,
    /// Events follow each other without end.
    Chattering,
    /// The tape is too small; `tape_needed` says how much the whole plan needs.
    TapeFull,
    /// An `assert` of the model failed.
    Assertion,
    /// An event surface is touched, not crossed: the solution has no derivative there.
    Grazing,
    /// More events than the plan has rows for ([`Plan::event_rows`]).
    RowsFull,
    /// The tape holds what the plan wants of it at a time ([`Plan::pause_bytes`]); `tape_needed` says how much that is.
    Paused,
    /// A code that this version does not know.
    Unknown(u32),
}

impl Code {
    /// The code of a raw status word.
    pub fn from_raw(raw: u32) -> Code {
        match raw {
            0 => Code::Ok,
            1 => Code::NotInitialised,
            2 => Code::NotFinite,
            3 => Code::StepLimit,
            4 => Code::StepTooSmall,
            5 => Code::BadPlan,
            6 => Code::NoSolution,
            7 => Code::Singular,
            8 => Code::Chattering,
            9 => Code::TapeFull,
            10 => Code::Assertion,
            11 => Code::Grazing,
            13 => Code::RowsFull,
            14 => Code::Paused,
            other => Code::Unknown(other),
        }
    }
}

/// The status of the last `solve` of the context at `ctx`.
pub fn read_status(mem: &[u8], ctx: u32, meta: &Meta) -> Status {
    let get = |at| read_u32(mem, ctx, at);
    let index = |at, len: usize| (get(at) as usize).checked_sub(1).filter(|index| *index < len);
    Status {
        code: Code::from_raw(get(status::CODE)),
        rows: get(status::ROWS),
        ticks: get(status::TICKS),
        equation: index(status::EQUATION, meta.equations.len()),
        variable: index(status::VARIABLE, meta.states.len()),
        time: read_f64(mem, ctx, status::TIME),
        value: read_f64(mem, ctx, status::VALUE),
        steps: read_u64(mem, ctx, status::STEPS),
        rejected: read_u64(mem, ctx, status::REJECTED),
        evaluations: read_u64(mem, ctx, status::EVALUATIONS),
        events: read_u64(mem, ctx, status::EVENTS),
        tape_needed: read_u64(mem, ctx, status::TAPE_NEEDED),
        method: match get(status::METHOD) {
            0 => "rk4",
            2 => "rodas5p",
            3 => "esdirk",
            _ => "tsit5",
        },
        switched_at: (get(status::SWITCHED) != 0).then(|| read_f64(mem, ctx, status::SWITCHED_AT)),
    }
}

/// Rows read from a module's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Seconds from the origin, one a row.
    pub times: Vec<f64>,
    /// Values row by row, `columns` a row, in the order of [`Meta::columns`].
    pub values: Vec<f64>,
    /// Columns a row.
    pub columns: usize,
}

impl Rows {
    /// The values of one column.
    pub fn column(&self, column: usize) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().skip(column).step_by(self.columns.max(1)).copied()
    }

    /// One row's values.
    pub fn row(&self, row: usize) -> &[f64] {
        self.values
            .get(row * self.columns..(row + 1) * self.columns)
            .unwrap_or(&[])
    }
}

/// The rows that the last `solve` wrote; `layout` is what [`write_plan`] returned.
pub fn read_outputs(mem: &[u8], ctx: u32, meta: &Meta, layout: &Layout) -> Rows {
    let columns = meta.columns.len();
    let rows = read_u32(mem, ctx, status::ROWS).min(layout.rows);
    let mut times = Vec::with_capacity(rows as usize);
    let mut values = Vec::with_capacity(rows as usize * columns);
    for row in 0..rows {
        let at = layout.rows_at + row * row_bytes(meta);
        times.push(read_f64(mem, ctx, at));
        values.extend((0..columns as u32).map(|column| read_f64(mem, ctx, at + 8 + 8 * column)));
    }
    Rows { times, values, columns }
}
