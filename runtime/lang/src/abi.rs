//! The module's memory: how a host writes a plan and reads rows, status and snapshots.
//!
//! Everything is little-endian and relative to the context address `ctx` (a multiple of 16, at least
//! [`CONTEXT_BASE`]); addresses inside a plan are relative to `ctx` too, so a context can be moved.
//!
//! ```text
//! 0    plan        256 bytes, written by the host                    (offsets: mod plan)
//! 256  status      256 bytes, written by solve                       (offsets: mod status)
//! 512  persistent  what a snapshot holds: control, states, parameters, event memory
//!                  (behind them, what else a plan that paused goes on from: mod sweep)
//!      scratch     stages, hoisted values, start overrides
//! context_bytes    input descriptors, knots, rows, tape: placed by Layout::for_plan
//! ```
//! A row is `[time f64][column 0 f64][column 1 f64]…`, time in seconds from the origin.
//! An input descriptor is 16 bytes: mode u32 (0 hold, 1 linear), knots u32, address u32, zero u32;
//! a knot is 16 bytes: time i64 (clock units), value f64.

pub mod lanes;
mod sweep;

use std::ops::Range;

pub use sweep::{
    Gradient, Seeds, Segment, Sweep, checkpoint, read_gradient, read_second_tangents, read_tangents, resume,
    write_direction, write_seeds, write_sweep,
};

use crate::meta::Meta;

/// Version of this layout; a module and a host must agree on it.
pub const ABI: u32 = 2;
/// The least context address: what lies below belongs to the module (its stack, if it ever needs one).
pub const CONTEXT_BASE: u32 = 1024;
/// Implicit methods are built for models of at most this many states: their matrices are dense.
pub const MAX_IMPLICIT: usize = 400;
/// Bytes in a WebAssembly page.
pub const PAGE: u32 = 65536;
/// The export that runs a plan: `(ctx: i32) -> i32`, the status code.
pub const SOLVE: &str = "solve";
/// The exported memory.
pub const MEMORY: &str = "memory";
/// The custom section that holds [`Meta`] as JSON.
pub const SECTION: &str = "orrery.model";

/// Byte offsets in the plan, relative to the context address.
pub(crate) mod plan {
    pub const ORIGIN: u32 = 0;
    pub const TICK: u32 = 8;
    pub const FIRST_TICK: u32 = 16;
    pub const TICKS: u32 = 24;
    pub const FLAGS: u32 = 28;
    pub const METHOD: u32 = 32;
    pub const MAX_STEPS: u32 = 36;
    pub const RTOL: u32 = 40;
    pub const ATOL: u32 = 48;
    pub const CLOCK_HZ: u32 = 56;
    pub const INPUTS_AT: u32 = 64;
    pub const ROWS_AT: u32 = 68;
    pub const ROWS: u32 = 72;
    pub const ROWS_PER_TICK: u32 = 76;
    pub const STEPS_PER_TICK: u32 = 80;
    pub const TAPE_AT: u32 = 84;
    pub const TAPE_BYTES: u32 = 88;
    pub const FIRST_STEP: u32 = 96;
    pub const EVENT_ROWS: u32 = 104;
    pub const SEEDS_AT: u32 = 108;
    pub const GRADIENT_AT: u32 = 112;
    pub const GRADIENT: u32 = 116;
    pub const PAUSE_BYTES: u32 = 120;

    pub const FLAG_INITIALISE: u32 = 1;
    pub const FLAG_FIRST_ROW: u32 = 2;
    pub const FLAG_REVERSE: u32 = 4;
    pub const FLAG_FORWARD: u32 = 8;
    pub const FLAG_RESUME: u32 = 16;
    pub const FLAG_FOLLOWS: u32 = 32;
    pub const FLAG_MORE: u32 = 64;
}

/// Byte offsets in the status, relative to the context address.
pub(crate) mod status {
    pub const CODE: u32 = 256;
    pub const ROWS: u32 = 260;
    pub const EQUATION: u32 = 264;
    pub const VARIABLE: u32 = 268;
    pub const TIME: u32 = 272;
    pub const VALUE: u32 = 280;
    pub const STEPS: u32 = 288;
    pub const REJECTED: u32 = 296;
    pub const EVALUATIONS: u32 = 304;
    pub const EVENTS: u32 = 312;
    pub const TICKS: u32 = 320;
    pub const METHOD: u32 = 324;
    pub const TAPE_NEEDED: u32 = 328;
    pub const SWITCHED: u32 = 336;
    pub const SWITCHED_AT: u32 = 344;
    pub const END: u32 = 512;
}

/// Byte offsets of the first persistent words, relative to the context address; states and parameters follow.
pub(crate) mod persistent {
    pub const START: u32 = 512;
    /// u32: 1 once the context was initialised.
    pub const INITIALISED: u32 = 512;
    /// f64: the step the controller would like to take next, 0 before the first.
    pub const STEP: u32 = 520;
    /// f64: the error of the last accepted step, for the PI controller.
    pub const ERROR: u32 = 528;
    /// u32: 2 once an automatic choice has found the model stiff.
    pub const METHOD: u32 = 516;
    /// u32: steps that looked stiff.
    pub const STIFF: u32 = 536;
    /// u32: steps since that did not.
    pub const SMOOTH: u32 = 540;
    pub const STATES: u32 = 544;
}

/// How values between the knots of an input are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputMode {
    /// The value of the last knot at or before the time. Each knot is a time event: a step ends exactly there.
    #[default]
    Hold,
    /// The straight line between two knots; held before the first and after the last. A step ends at each knot.
    Linear,
}

/// One input over time: knots in strictly increasing time, in clock units (nanoseconds unless [`Plan::clock_hz`] says
/// otherwise) on the same axis as the ticks. No knots: the input keeps its `start` value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InputTable {
    /// How values between knots are made.
    pub mode: InputMode,
    /// `(time, value)`.
    pub knots: Vec<(i64, f64)>,
}

/// The integration method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The classical Runge–Kutta method with this many equal steps per tick (at least; each piece between input
    /// knots gets its share, rounded up).
    Rk4 {
        /// Steps per tick, at least 1.
        steps_per_tick: u32,
    },
    /// Tsitouras 5(4), adaptive, with PI control and dense output.
    Tsit5,
    /// Rodas5P, for stiff models: Rosenbrock–Wanner 5(4) with the analytic Jacobian (Steinebach 2023).
    Rodas5p,
    /// ESDIRK5(4)7L[2]SA2, for stiff models: diagonally implicit with Newton (Kennedy, Carpenter 2019).
    Esdirk,
    /// Tsit5 until its steps are held down by stability (Hairer, Wanner II, IV.2), Rodas5P from there on;
    /// [`Status::switched_at`] says when.
    Auto,
}

/// Values that replace the model's own when a context is initialised.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Initialise {
    /// `(parameter index, value)`; all others get their defaults.
    pub parameters: Vec<(usize, f64)>,
    /// `(state index, value)`; all others get their start expressions.
    pub states: Vec<(usize, f64)>,
}

/// What `solve` shall do. Tick k covers `[k·tick, (k+1)·tick)` on the axis of `origin_nanos`; the module sees seconds from
/// the origin. A plan of N ticks equals N plans of one, bit for bit, in rows and in the persistent bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The instant that the model calls time 0.
    pub origin_nanos: i64,
    /// Length of a tick, at least 1.
    pub tick_nanos: i64,
    /// Index of the first tick to run.
    pub first_tick: i64,
    /// How many ticks to run; 0 with `initialise` and `first_row` only evaluates the start.
    pub ticks: u32,
    /// One table for each input of the model, in its order; missing ones keep their `start` value.
    pub inputs: Vec<InputTable>,
    /// The integration method.
    pub method: Method,
    /// Relative tolerance of adaptive methods.
    pub rtol: f64,
    /// Absolute tolerance, multiplied by each state's `nominal`.
    pub atol: f64,
    /// Limit of steps (accepted and rejected) per tick.
    pub max_steps: u32,
    /// Start from the model's initial values; otherwise go on from the context's persistent bytes.
    pub initialise: Option<Initialise>,
    /// Write a row for the plan's first instant too.
    pub first_row: bool,
    /// Rows per tick, equally spaced, the last one at the tick's end; inner ones by dense output, without changing the
    /// steps.
    pub rows_per_tick: u32,
    /// Clock units per second: 1e9, so that all times are nanoseconds, unless a very long or short run needs another.
    pub clock_hz: f64,
    /// Room for rows at events beside the regular ones: each event writes one row before and one after it, both with
    /// its time. 0 writes none.
    pub event_rows: u32,
    /// The first step of an adaptive method in seconds; 0 lets the method choose.
    pub first_step: f64,
    /// Bytes granted for the tape of the reverse pass; 0 records none.
    pub tape_bytes: u32,
    /// The plan pauses between two steps once its tape holds more than this many bytes, with [`Code::Paused`]; [`resume`]
    /// lets it go on. 0 never pauses.
    pub pause_bytes: u32,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            origin_nanos: 0,
            tick_nanos: 1_000_000_000,
            first_tick: 0,
            ticks: 0,
            inputs: Vec::new(),
            method: Method::Tsit5,
            rtol: 1e-6,
            atol: 1e-9,
            max_steps: 100_000,
            initialise: None,
            first_row: false,
            rows_per_tick: 1,
            event_rows: 0,
            clock_hz: 1e9,
            first_step: 0.0,
            tape_bytes: 0,
            pause_bytes: 0,
        }
    }
}

/// Where the parts of a plan lie behind the context; addresses relative to the context address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes that context, tables, rows and tape need together, from the context address.
    pub bytes: u32,
    /// The input descriptors.
    pub inputs_at: u32,
    /// The rows.
    pub rows_at: u32,
    /// How many rows the plan writes when it succeeds.
    pub rows: u32,
    /// The tape.
    pub tape_at: u32,
    /// Cotangents of the rows, then of the last states and memory; only with a tape.
    pub seeds_at: u32,
    /// Where the reverse pass writes the gradient; only with a tape.
    pub gradient_at: u32,
    /// Words of the gradient.
    pub gradient_words: u32,
}

/// Why a plan cannot be written or a context cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AbiError {
    /// The memory ends too early.
    #[error("the plan needs {needed} bytes of module memory and {available} are there; grow the memory")]
    Memory {
        /// Bytes needed from address 0.
        needed: u64,
        /// Bytes there.
        available: u64,
    },
    /// A value of the plan makes no sense.
    #[error("the plan's {what} is {value}: {remedy}")]
    Plan {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        remedy: &'static str,
    },
    /// The snapshot is of another size than this model's.
    #[error("the snapshot has {given} bytes and this model's has {expected}: it belongs to another model or version")]
    Snapshot {
        /// Bytes given.
        given: usize,
        /// Bytes expected.
        expected: usize,
    },
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
    /// Events at one instant whose order changes the derivative.
    AmbiguousEventOrder,
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
            12 => Code::AmbiguousEventOrder,
            13 => Code::RowsFull,
            14 => Code::Paused,
            other => Code::Unknown(other),
        }
    }
}

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
            Code::Singular => "a linear system is singular".to_string(),
            Code::Chattering => "events follow each other without end (chattering)".to_string(),
            Code::TapeFull => format!("the tape is too small: {} bytes are needed", self.tape_needed),
            Code::Assertion => "an assertion of the model failed".to_string(),
            Code::Grazing => "an event surface is touched, not crossed: there is no gradient".to_string(),
            Code::AmbiguousEventOrder => "events at one instant whose order changes the gradient".to_string(),
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

impl Layout {
    /// Where the parts of `plan` go. Counts that no memory could hold saturate and are refused by [`write_plan`].
    pub fn for_plan(meta: &Meta, plan: &Plan) -> Layout {
        let inputs = meta.inputs.len() as u64;
        let knots: u64 = plan.inputs.iter().map(|table| table.knots.len() as u64).sum();
        let rows = u64::from(plan.ticks) * u64::from(plan.rows_per_tick)
            + u64::from(plan.first_row)
            + u64::from(plan.event_rows);
        let inputs_at = align(u64::from(meta.context_bytes));
        let rows_at = inputs_at + 16 * inputs + 16 * knots;
        let tape_at = align(rows_at.saturating_add(rows.saturating_mul(u64::from(row_bytes(meta)))));
        let seeds_at = align(tape_at.saturating_add(u64::from(plan.tape_bytes)));
        let last = u64::from(meta.carried());
        let (seeds, gradient) = if plan.tape_bytes > 0 {
            let seeds = rows.saturating_mul(meta.columns.len() as u64).saturating_add(last);
            // Second tangents lie beside the first ones.
            let seeds = seeds.saturating_mul(1 + u64::from(meta.second_derivatives));
            (seeds, meta.parameters.len() as u64 + last + knots)
        } else {
            (0, 0)
        };
        let gradient_at = seeds_at.saturating_add(seeds.saturating_mul(8));
        let bytes = gradient_at.saturating_add(8 * gradient);
        Layout {
            seeds_at: clamp(seeds_at),
            gradient_at: clamp(gradient_at),
            gradient_words: clamp(gradient),
            bytes: clamp(bytes),
            inputs_at: clamp(inputs_at),
            rows_at: clamp(rows_at),
            rows: clamp(rows),
            tape_at: clamp(tape_at),
        }
    }

    /// Pages of memory that a context at `ctx` needs for this plan.
    pub fn pages(&self, ctx: u32) -> u64 {
        (u64::from(ctx) + u64::from(self.bytes)).div_ceil(u64::from(PAGE))
    }
}

fn align(address: u64) -> u64 {
    address.div_ceil(16).saturating_mul(16)
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Bytes of a row: its time and its columns.
pub fn row_bytes(meta: &Meta) -> u32 {
    8 + 8 * meta.columns.len() as u32
}

/// Writes `plan` for the context at `ctx` into the module's memory.
///
/// With `initialise` it also writes every parameter (its default or the value given) and the start overrides.
pub fn write_plan(mem: &mut [u8], ctx: u32, meta: &Meta, plan: &Plan) -> Result<Layout, AbiError> {
    check(meta, plan)?;
    let layout = Layout::for_plan(meta, plan);
    let needed = u64::from(ctx) + u64::from(layout.bytes);
    if needed > mem.len() as u64 || layout.bytes == u32::MAX {
        return Err(AbiError::Memory {
            needed,
            available: mem.len() as u64,
        });
    }
    let mut context = Context { mem, ctx };
    let mut flags = 0;
    if plan.initialise.is_some() {
        flags |= plan::FLAG_INITIALISE;
    }
    if plan.first_row {
        flags |= plan::FLAG_FIRST_ROW;
    }
    let (method, steps_per_tick) = match plan.method {
        Method::Rk4 { steps_per_tick } => (0, steps_per_tick),
        Method::Tsit5 => (1, 0),
        Method::Rodas5p => (2, 0),
        Method::Esdirk => (3, 0),
        Method::Auto => (4, 0),
    };
    context.i64(plan::ORIGIN, plan.origin_nanos);
    context.i64(plan::TICK, plan.tick_nanos);
    context.i64(plan::FIRST_TICK, plan.first_tick);
    context.u32(plan::TICKS, plan.ticks);
    context.u32(plan::FLAGS, flags);
    context.u32(plan::METHOD, method);
    context.u32(plan::MAX_STEPS, plan.max_steps);
    context.f64(plan::RTOL, plan.rtol);
    context.f64(plan::ATOL, plan.atol);
    context.f64(plan::CLOCK_HZ, plan.clock_hz);
    context.u32(plan::INPUTS_AT, layout.inputs_at);
    context.u32(plan::ROWS_AT, layout.rows_at);
    context.u32(plan::ROWS, layout.rows);
    context.u32(plan::ROWS_PER_TICK, plan.rows_per_tick);
    context.u32(plan::EVENT_ROWS, plan.event_rows);
    context.u32(plan::STEPS_PER_TICK, steps_per_tick);
    context.u32(plan::TAPE_AT, layout.tape_at);
    context.u32(plan::TAPE_BYTES, plan.tape_bytes);
    context.u32(plan::SEEDS_AT, layout.seeds_at);
    context.u32(plan::GRADIENT_AT, layout.gradient_at);
    context.u32(plan::GRADIENT, layout.gradient_words);
    context.u32(plan::PAUSE_BYTES, plan.pause_bytes);
    context.f64(plan::FIRST_STEP, plan.first_step);
    write_inputs(&mut context, meta, plan, &layout);
    if let Some(initialise) = &plan.initialise {
        for (index, var) in meta.parameters.iter().enumerate() {
            let given = initialise.parameters.iter().rev().find(|(at, _)| *at == index);
            context.f64(var.offset, given.map_or(var.default, |(_, value)| *value));
        }
        for index in 0..meta.states.len() {
            let given = initialise.states.iter().rev().find(|(at, _)| *at == index);
            context.f64(
                meta.starts_at + 8 * index as u32,
                given.map_or(f64::NAN, |(_, value)| *value),
            );
        }
    }
    Ok(layout)
}

fn write_inputs(context: &mut Context<'_>, meta: &Meta, plan: &Plan, layout: &Layout) {
    let empty = InputTable::default();
    let mut knots_at = layout.inputs_at + 16 * meta.inputs.len() as u32;
    for index in 0..meta.inputs.len() {
        let table = plan.inputs.get(index).unwrap_or(&empty);
        let at = layout.inputs_at + 16 * index as u32;
        context.u32(at, u32::from(table.mode == InputMode::Linear));
        context.u32(at + 4, table.knots.len() as u32);
        context.u32(at + 8, knots_at);
        context.u32(at + 12, 0);
        for (time, value) in &table.knots {
            context.i64(knots_at, *time);
            context.f64(knots_at + 8, *value);
            knots_at += 16;
        }
    }
}

fn check(meta: &Meta, plan: &Plan) -> Result<(), AbiError> {
    let refuse = |what, value: String, remedy| Err(AbiError::Plan { what, value, remedy });
    if plan.tick_nanos < 1 {
        return refuse("tick_nanos", plan.tick_nanos.to_string(), "it must be at least 1");
    }
    if plan.rows_per_tick < 1 {
        return refuse("rows_per_tick", plan.rows_per_tick.to_string(), "it must be at least 1");
    }
    if !(plan.clock_hz.is_finite() && plan.clock_hz > 0.0) {
        return refuse("clock_hz", plan.clock_hz.to_string(), "it must be positive");
    }
    if !(plan.rtol.is_finite() && plan.rtol >= 0.0 && plan.atol.is_finite() && plan.atol >= 0.0)
        || plan.rtol + plan.atol <= 0.0
    {
        return refuse(
            "tolerance",
            format!("rtol {} atol {}", plan.rtol, plan.atol),
            "one must be positive, none negative",
        );
    }
    if let Method::Rk4 { steps_per_tick: 0 } = plan.method {
        return refuse("steps_per_tick", "0".to_string(), "it must be at least 1");
    }
    if matches!(plan.method, Method::Rodas5p | Method::Esdirk) && meta.states.len() > MAX_IMPLICIT {
        return refuse(
            "method",
            format!("{:?} for {} states", plan.method, meta.states.len()),
            "implicit methods take at most 400 states: choose tsit5 or rk4",
        );
    }
    for (what, value) in [
        ("max_steps", plan.max_steps),
        ("rows_per_tick", plan.rows_per_tick),
        ("event_rows", plan.event_rows),
        ("ticks", plan.ticks),
        ("tape_bytes", plan.tape_bytes),
        ("pause_bytes", plan.pause_bytes),
    ] {
        if i32::try_from(value).is_err() {
            return refuse(what, value.to_string(), "it must be below 2,147,483,648");
        }
    }
    if plan.inputs.len() > meta.inputs.len() {
        return refuse(
            "inputs",
            plan.inputs.len().to_string(),
            "there are more tables than the model has inputs",
        );
    }
    let end = i128::from(plan.first_tick) + i128::from(plan.ticks);
    let reach = |tick: i128| tick * i128::from(plan.tick_nanos) - i128::from(plan.origin_nanos);
    let limit = i128::from(i64::MAX / 2);
    if reach(i128::from(plan.first_tick)).abs() > limit
        || reach(end).abs() > limit
        || (end * i128::from(plan.tick_nanos)).abs() > limit
    {
        return refuse(
            "ticks",
            plan.ticks.to_string(),
            "the times must fit 63 bits: use a coarser clock_hz",
        );
    }
    for table in &plan.inputs {
        let increasing = table.knots.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let finite = table
            .knots
            .iter()
            .all(|(time, value)| value.is_finite() && i128::from(*time).abs() <= limit);
        if !increasing || !finite {
            return refuse(
                "inputs",
                "a table of knots".to_string(),
                "times must increase strictly and values be finite",
            );
        }
    }
    if let Some(initialise) = &plan.initialise {
        let parameters = initialise
            .parameters
            .iter()
            .all(|(index, _)| *index < meta.parameters.len());
        let states = initialise.states.iter().all(|(index, _)| *index < meta.states.len());
        if !parameters || !states {
            return refuse(
                "initialise",
                "an index".to_string(),
                "it must name a parameter or state of the model",
            );
        }
    }
    Ok(())
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

/// The context's persistent bytes: with the module's digest, all that is needed to go on elsewhere.
pub fn snapshot(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<u8> {
    let mut bytes = bytes_of(mem, ctx, &meta.persistent);
    let values = bytes.get_mut((persistent::STATES - persistent::START) as usize..);
    for word in values.unwrap_or_default().chunks_exact_mut(8) {
        let value = read_f64(word, 0, 0);
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Puts a snapshot back; the context then goes on bit-identically.
pub fn restore(mem: &mut [u8], ctx: u32, meta: &Meta, snapshot: &[u8]) -> Result<(), AbiError> {
    put(mem, ctx, &meta.persistent, snapshot)
}

fn bytes_of(mem: &[u8], ctx: u32, range: &Range<u32>) -> Vec<u8> {
    let start = ctx as usize + range.start as usize;
    let end = ctx as usize + range.end as usize;
    mem.get(start..end).unwrap_or(&[]).to_vec()
}

fn put(mem: &mut [u8], ctx: u32, range: &Range<u32>, bytes: &[u8]) -> Result<(), AbiError> {
    let expected = range.end.saturating_sub(range.start) as usize;
    if bytes.len() != expected {
        return Err(AbiError::Snapshot {
            given: bytes.len(),
            expected,
        });
    }
    let start = ctx as usize + range.start as usize;
    let available = mem.len() as u64;
    let place = mem.get_mut(start..start + expected);
    place
        .ok_or(AbiError::Memory {
            needed: (start + expected) as u64,
            available,
        })?
        .copy_from_slice(bytes);
    Ok(())
}

/// Sets parameter `index` of a running context (a parameter change of the ordered log).
pub fn set_parameter(mem: &mut [u8], ctx: u32, meta: &Meta, index: usize, value: f64) {
    if let Some(var) = meta.parameters.get(index) {
        Context { mem, ctx }.f64(var.offset, value);
    }
}

/// Sets state `index` of a running context (a state correction of the ordered log).
pub fn set_state(mem: &mut [u8], ctx: u32, meta: &Meta, index: usize, value: f64) {
    if let Some(var) = meta.states.get(index) {
        Context { mem, ctx }.f64(var.offset, value);
    }
}

/// The states of a context, in the order of [`Meta::states`].
pub fn read_states(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<f64> {
    meta.states.iter().map(|var| read_f64(mem, ctx, var.offset)).collect()
}

/// The parameters of a context, in the order of [`Meta::parameters`].
pub fn read_parameters(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<f64> {
    meta.parameters
        .iter()
        .map(|var| read_f64(mem, ctx, var.offset))
        .collect()
}

struct Context<'a> {
    mem: &'a mut [u8],
    ctx: u32,
}

impl Context<'_> {
    fn bytes<const N: usize>(&mut self, at: u32, bytes: [u8; N]) {
        let start = self.ctx as usize + at as usize;
        if let Some(place) = self.mem.get_mut(start..start + N) {
            place.copy_from_slice(&bytes);
        }
    }

    fn u32(&mut self, at: u32, value: u32) {
        self.bytes(at, value.to_le_bytes());
    }

    fn i64(&mut self, at: u32, value: i64) {
        self.bytes(at, value.to_le_bytes());
    }

    fn f64(&mut self, at: u32, value: f64) {
        self.bytes(at, value.to_le_bytes());
    }
}

fn read<const N: usize>(mem: &[u8], ctx: u32, at: u32) -> [u8; N] {
    let start = ctx as usize + at as usize;
    mem.get(start..start + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn read_u32(mem: &[u8], ctx: u32, at: u32) -> u32 {
    u32::from_le_bytes(read(mem, ctx, at))
}

fn read_u64(mem: &[u8], ctx: u32, at: u32) -> u64 {
    u64::from_le_bytes(read(mem, ctx, at))
}

/// A NaN reads as the canonical one, as its bits differ between hosts.
fn read_f64(mem: &[u8], ctx: u32, at: u32) -> f64 {
    let value = f64::from_le_bytes(read(mem, ctx, at));
    if value.is_nan() { f64::NAN } else { value }
}
