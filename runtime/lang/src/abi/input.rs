//! What a host asks of `solve`: a plan, checked and written into the module's memory.

use super::{Context, MAX_IMPLICIT, PAGE, plan};
use crate::meta::Meta;

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

/// Bytes of a row: its time and its columns.
pub fn row_bytes(meta: &Meta) -> u32 {
    8 + 8 * meta.columns.len() as u32
}

fn align(address: u64) -> u64 {
    address.div_ceil(16).saturating_mul(16)
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
