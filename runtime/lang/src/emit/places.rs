//! Where everything lies in the context.

use std::collections::HashMap;

use super::{implicit, loops, reverse, second};
use crate::abi::{persistent, plan, status};
use crate::causalise::System;
use crate::kernel::Expr;

/// Where everything lies in the context.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub parameters: u32,
    pub persistent_end: u32,
    pub checkpoint_end: u32,
    pub starts: u32,
    pub context_bytes: u32,
    pub(super) input: u32,
    pub(super) slots: u32,
    pub(super) spill: u32,
    pub(super) memory: u32,
    pub(super) conditions: u32,
    pub(super) initial: u32,
    pub(super) seeds: u32,
    pub(super) bars: reverse::Bars,
    pub(super) dots: reverse::Bars,
    pub(super) loops: u32,
    pub(super) loop_rates: u32,
    pub(super) loop_seeds: u32,
    pub(super) direction: u32,
    /// Of the second tangents, where the module has them.
    pub(super) dots2: Option<reverse::Bars>,
    pub(super) constants: HashMap<String, Expr>,
}

pub(super) fn place(system: &System, slots: u32, second_derivatives: bool) -> Places {
    let hoisted = slots;
    let n = system.states.len() as u32;
    let inputs = system.inputs.len() as u32;
    let mut constants = HashMap::new();
    let mut at = persistent::STATES;
    let mut next = |name: &str, bytes: u32| {
        let here = at;
        constants.insert(name.to_string(), Expr::I32(here as i32));
        at += bytes;
        here
    };
    next("STATES", 8 * n);
    let parameters = next("PARAMETERS", 8 * system.parameters.len() as u32);
    let guards = system.guards.len() as u32;
    let words = system.memory.len() as u32;
    let memory = next("MEMORY", 8 * words);
    let conditions = next("CONDITIONS", 8 * guards);
    let nz = system.loops.len() as u32;
    next("LOOPS_HELD", 8 * nz);
    let persistent_end = next("PERSISTENT_END", 0);
    // How far a plan has come, so that one that paused can go on.
    for word in [
        "PAUSE_TIME",
        "PAUSE_CLOCK",
        "PAUSE_TICK",
        "PAUSE_ROWS",
        "PAUSE_DONE",
        "PAUSE_BROKEN",
        "ROW_NUMBER",
        "ROW_CLOCK",
        "ROW_TIME",
        "TICK_START",
        "STEPS_OF_TICK",
        "LAST_EVENT",
        "CROWDED_EVENTS",
        "EVENT_ROWS_USED",
        "TAPE_EARLY",
    ] {
        next(word, 8);
    }
    next("PAUSE_SLOPES", 8 * n);
    let checkpoint_end = next("CHECKPOINT_END", 0);
    next("RESUMED", 8);
    let starts = next("STARTS", 8 * n);
    for stage in ["K1", "K2", "K3", "K4", "K5", "K6", "K7", "X_NEW", "X_STAGE", "NOMINAL"] {
        next(stage, 8 * n);
    }
    let input = next("INPUT", 24 * inputs);
    next("INPUT_START", 8 * inputs);
    next("CURSOR", 8 * inputs);
    let initial = next("INITIAL", 8);
    next("EVENT_TIME", 8);
    next("GUARDS", 16 * guards);
    next("GUARDS_LOW", 16 * guards);
    next("UPDATE", 8 * (n + words));
    next("UPDATE_GUARDS", 16 * guards);
    next("GUARDS_NEAR", 48 * guards);
    next("ASSERTED", 8 * system.assertions.len() as u32);
    next("SHOWN", 16 * (n + system.columns.len() as u32));
    next("X_EVENT", 8 * n);
    let columns = system.columns.len() as u32;
    let seeds = next("SEEDS", 8 * (n + words + 1 + nz).max(columns).max(guards).max(hoisted));
    let direction = implicit::place(system, &mut next);
    let (loops, loop_rates, loop_seeds) = loops::place(system, &mut next);
    let np = system.parameters.len() as u32;
    next("TABLEAU", 8 * 56);
    next("TABLEAU_KIND", 8);
    next("WEIGHTS", 8 * 9);
    next("WEIGHT_RATES", 8 * 9);
    // Before SLOPE_BARS: `rhs_vjp` reaches those from X_BAR by an offset, which cannot be negative.
    let bars = reverse::Bars {
        states: next("X_BAR", 8 * (n + words)),
        time: next("T_BAR", 8),
        inputs: next("U_BAR", 8 * inputs),
        parameters: next("P_BAR", 8 * np),
        slots: next("SLOT_BAR", 8 * hoisted),
        loops: next("Z_BAR", 8 * nz),
        loop_rates: next("Z_RATE_BAR", 8 * nz),
        input_slopes: next("U_RATE_BAR", 8 * inputs),
    };
    for stage in ["STAGES", "SLOPES", "SLOPE_BARS"] {
        next(stage, 8 * 9 * n);
    }
    for vector in ["START_BAR", "STAGE_BAR", "RATE"] {
        next(vector, 8 * n);
    }
    for number in ["LENGTH_BAR", "START_TIME", "EVENT_BAR", "TAPE_END", "PIECE_CLOCK"] {
        next(number, 8);
    }
    next("LAMBDA", 8 * (n + words));
    next("RATES", 8 * guards);
    next("SAVED", 8 * (words + guards + nz));
    let twice = if second_derivatives { 2 } else { 1 };
    let dots = reverse::Bars {
        states: next("X_DOT", 8 * twice * (n + words)),
        time: next("T_DOT", 8),
        inputs: next("U_DOT", 8 * inputs),
        parameters: next("P_DOT", 8 * np),
        slots: next("SLOT_DOT", 8 * hoisted),
        loops: next("Z_DOT", 8 * nz),
        loop_rates: next("Z_RATE_DOT", 8 * nz),
        input_slopes: next("U_RATE_DOT", 8 * inputs),
    };
    let dots2 = second_derivatives.then(|| reverse::Bars {
        states: dots.states + 8 * (n + words),
        ..second::place(system, hoisted, &mut next)
    });
    next("U_SAVED", 8 * inputs);
    next("P_SAVED", 8 * (np + hoisted));
    let slots = next("SLOTS", 8 * hoisted);
    let spill = next("SPILL", 0);
    for (name, value) in [
        ("N", n),
        ("NI", inputs),
        ("NC", system.columns.len() as u32),
        ("NG", guards),
        ("SMALL", u32::from(implicit::is_small(system))),
        (
            "STIFF_WORDS",
            implicit::STIFF_TABLES.iter().map(|(_, words)| words).sum(),
        ),
        ("S_METHOD", status::METHOD),
        ("S_SWITCHED", status::SWITCHED),
        ("S_SWITCHED_AT", status::SWITCHED_AT),
        ("C_METHOD", persistent::METHOD),
        ("C_STIFF", persistent::STIFF),
        ("C_SMOOTH", persistent::SMOOTH),
        (
            "NE",
            (system.equations.len() - system.guards.len() - system.assertions.len()) as u32,
        ),
        ("NA", system.assertions.len() as u32),
        ("NM", words),
        ("NH", words + guards + nz),
        ("NZ", nz),
        ("NY", system.initial.len() as u32),
        ("NB", loops::blocks(system)),
        ("WHOLE", loops::whole(system)),
        ("INITIAL_BLOCK", loops::whole(system) + 1),
        ("NP", np),
        ("NS", hoisted),
        ("P_SEEDS_AT", plan::SEEDS_AT),
        ("P_GRADIENT_AT", plan::GRADIENT_AT),
        ("P_GRADIENT", plan::GRADIENT),
        ("P_EVENT_ROWS", plan::EVENT_ROWS),
        ("P_ORIGIN", plan::ORIGIN),
        ("P_TICK", plan::TICK),
        ("P_FIRST_TICK", plan::FIRST_TICK),
        ("P_TICKS", plan::TICKS),
        ("P_FLAGS", plan::FLAGS),
        ("P_METHOD", plan::METHOD),
        ("P_MAX_STEPS", plan::MAX_STEPS),
        ("P_RTOL", plan::RTOL),
        ("P_ATOL", plan::ATOL),
        ("P_CLOCK_HZ", plan::CLOCK_HZ),
        ("P_INPUTS_AT", plan::INPUTS_AT),
        ("P_ROWS_AT", plan::ROWS_AT),
        ("P_ROWS", plan::ROWS),
        ("P_ROWS_PER_TICK", plan::ROWS_PER_TICK),
        ("P_STEPS_PER_TICK", plan::STEPS_PER_TICK),
        ("P_TAPE_AT", plan::TAPE_AT),
        ("P_TAPE_BYTES", plan::TAPE_BYTES),
        ("P_FIRST_STEP", plan::FIRST_STEP),
        ("P_PAUSE_BYTES", plan::PAUSE_BYTES),
        ("X_DOT2", dots2.map_or(0, |dots2| dots2.states)),
        ("S_CODE", status::CODE),
        ("S_ROWS", status::ROWS),
        ("S_EQUATION", status::EQUATION),
        ("S_VARIABLE", status::VARIABLE),
        ("S_TIME", status::TIME),
        ("S_VALUE", status::VALUE),
        ("S_STEPS", status::STEPS),
        ("S_REJECTED", status::REJECTED),
        ("S_EVALUATIONS", status::EVALUATIONS),
        ("S_EVENTS", status::EVENTS),
        ("S_TICKS", status::TICKS),
        ("S_TAPE_NEEDED", status::TAPE_NEEDED),
        ("S_WORDS", (status::END - status::CODE) / 8),
        ("C_INITIALISED", persistent::INITIALISED),
        ("C_STEP", persistent::STEP),
        ("C_ERROR", persistent::ERROR),
    ] {
        constants.insert(name.to_string(), Expr::I32(value as i32));
    }
    constants.insert("SHARE".to_string(), Expr::F64(1.0 / f64::from(n.max(1))));
    Places {
        parameters,
        persistent_end,
        checkpoint_end,
        starts,
        context_bytes: 0,
        input,
        slots,
        spill,
        memory,
        conditions,
        initial,
        seeds,
        bars,
        dots,
        loops,
        loop_rates,
        loop_seeds,
        direction,
        dots2,
        constants,
    }
}
