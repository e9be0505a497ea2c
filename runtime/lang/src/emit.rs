//! From an explicit system to kernel functions and the module.

mod explicit;
mod implicit;
mod loops;
mod reverse;
mod second;

use std::collections::HashMap;

use crate::abi::{persistent, plan, status};
use crate::causalise::System;
use crate::graph::{BinaryCode, Code, Graph, Id, Leaf, Node, Relation, binary_code, unary_code};
use crate::kernel::{Binary, Expr, Function, Program, Stmt, Ty, lanes, parse, wasm};

/// No emitted function has more operations: compile time grows faster than linearly with size.
const MAX_OPERATIONS: usize = 800;
/// Deeper expressions are cut by a local.
const MAX_DEPTH: u32 = 40;

/// Where everything lies in the context.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub parameters: u32,
    pub persistent_end: u32,
    pub checkpoint_end: u32,
    pub starts: u32,
    pub context_bytes: u32,
    input: u32,
    slots: u32,
    spill: u32,
    memory: u32,
    conditions: u32,
    initial: u32,
    seeds: u32,
    bars: reverse::Bars,
    dots: reverse::Bars,
    loops: u32,
    loop_rates: u32,
    loop_seeds: u32,
    direction: u32,
    dots2: reverse::Bars,
    constants: HashMap<String, Expr>,
}

/// Kernel functions and places of one model.
pub struct Emitted {
    pub program: Program,
    pub places: Places,
}

/// Builds all functions of the module; those for second derivatives only where they are wanted, for a module with them takes
/// about a fifth longer to compile.
pub fn emit(system: &System, mut program: Program, second_derivatives: bool) -> Result<Emitted, String> {
    let mut graph = system.graph.clone();
    let hoisted = hoist(&mut graph, system);
    let mut places = place(system, hoisted.slots.len() as u32, second_derivatives);
    let along = implicit::along(&mut graph, system, &hoisted.derivatives, places.direction);
    let products = reverse::products(&mut graph, system, &hoisted, &along, places.bars);
    let tangents = reverse::tangents(&mut graph, system, &hoisted, &along, places.dots);
    let second = if second_derivatives {
        second::second_tangents(&mut graph, system, &hoisted, places.dots, places.dots2)
    } else {
        Vec::new()
    };
    let jacobian = implicit::jacobian(&mut graph, system, &hoisted);
    let by_time = implicit::by_time(&mut graph, system, &hoisted.derivatives);
    let guards = hoisted.guards[..system.guards.len()].to_vec();
    let rates = reverse::rates(&mut graph, system, &guards);
    let around = loops::Around::new(&mut graph, system, &hoisted, &places);
    let mut emitter = Emitter {
        graph: &graph,
        system,
        places: &mut places,
        program: &mut program,
        spilled: 0,
    };
    emitter.declare();
    let vector = |base: Expr, count: usize| {
        (0..count as u32)
            .map(move |index| (base.clone(), 8 * index))
            .collect::<Vec<_>>()
    };
    let inner = |name: &str| loops::inner(system, name);
    let states_at = |at: u32| move |index: u32| (Expr::Local(0, Ty::I32), at + 8 * index);
    emitter.function(
        &inner("rhs"),
        &hoisted.derivatives,
        &vector(Expr::Local(3, Ty::I32), system.states.len()),
    );
    emitter.function(
        &inner("outputs"),
        &hoisted.columns,
        &vector(Expr::Local(3, Ty::I32), system.columns.len()),
    );
    let slots: Vec<(Expr, u32)> = (0..hoisted.slots.len() as u32)
        .map(states_at(emitter.places.slots))
        .collect();
    emitter.function("parameter_slots", &hoisted.slots, &slots);
    let input_starts = emitter.constant("INPUT_START");
    let destinations: Vec<(Expr, u32)> = (0..system.inputs.len() as u32).map(states_at(input_starts)).collect();
    emitter.function("input_starts", &system.input_starts, &destinations);
    let destinations: Vec<(Expr, u32)> = (0..system.states.len() as u32)
        .map(states_at(persistent::STATES))
        .collect();
    emitter.function("state_starts", &system.starts, &destinations);
    emitter.function(
        &inner("guards"),
        &hoisted.guards,
        &vector(Expr::Local(3, Ty::I32), hoisted.guards.len()),
    );
    emitter.function(
        &inner("update"),
        &hoisted.update,
        &vector(Expr::Local(3, Ty::I32), hoisted.update.len()),
    );
    let destinations: Vec<(Expr, u32)> = (0..system.memory.len() as u32)
        .map(states_at(emitter.places.memory))
        .collect();
    emitter.function("memory_starts", &system.memory_starts, &destinations);
    let asserted = emitter.constant("ASSERTED");
    let destinations: Vec<(Expr, u32)> = (0..system.assertions.len() as u32).map(states_at(asserted)).collect();
    emitter.function(&inner("assertions"), &hoisted.assertions, &destinations);
    emitter.entries("jacobian", &jacobian);
    emitter.entries("rhs_time", &by_time);
    emitter.products(&products);
    emitter.vectors(&tangents);
    emitter.vectors(&[(inner("guard_rates"), rates)]);
    emitter.around(&around);
    if second_derivatives {
        emitter.declare_second();
        emitter.vectors(&second);
    }
    emitter.nominals();
    emitter.column_equation();
    let spill_bytes = 8 * emitter.spilled;
    places.context_bytes = (places.spill + spill_bytes).div_ceil(16) * 16;
    let text = concat!(
        include_str!("kernel/model.kernel"),
        include_str!("kernel/solve.kernel"),
        include_str!("kernel/events.kernel"),
        include_str!("kernel/implicit_tableau.kernel"),
        include_str!("kernel/implicit.kernel"),
        include_str!("kernel/reverse.kernel"),
        include_str!("kernel/forward.kernel"),
        include_str!("kernel/sweep_implicit.kernel"),
        include_str!("kernel/reverse_implicit.kernel"),
        include_str!("kernel/forward_implicit.kernel"),
        include_str!("kernel/newton.kernel"),
    );
    let sweep = if second_derivatives {
        include_str!("kernel/second.kernel")
    } else {
        second::ABSENT
    };
    let text = [text, &explicit::text(), sweep].concat();
    parse::parse(&mut program, &text, &places.constants)?;
    if !system.loops.is_empty() {
        parse::parse(&mut program, include_str!("kernel/loops.kernel"), &places.constants)?;
    }
    Ok(Emitted { program, places })
}

/// Prints the module with its description; `two`: for two lanes.
pub fn print(emitted: &Emitted, section: &[u8], two: bool) -> Result<Vec<u8>, String> {
    let solve = emitted.program.index(crate::abi::SOLVE).ok_or("solve is missing")?;
    let bytes = u64::from(crate::abi::CONTEXT_BASE) + u64::from(emitted.places.context_bytes);
    let pages = bytes.div_ceil(u64::from(crate::abi::PAGE)) + 1;
    if two {
        return lanes::print(
            &emitted.program,
            (crate::abi::SOLVE, solve),
            pages,
            crate::abi::SECTION,
            section,
        );
    }
    wasm::print(
        &emitted.program,
        &[(crate::abi::SOLVE, solve)],
        pages,
        crate::abi::SECTION,
        section,
    )
}

struct Hoisted {
    derivatives: Vec<Id>,
    columns: Vec<Id>,
    /// The roots of all guards, then their truths as numbers.
    guards: Vec<Id>,
    /// States and memory after an event.
    update: Vec<Id>,
    /// The truths of assertions as numbers.
    assertions: Vec<Id>,
    /// Residuals of algebraic loops, and of initial equations.
    residuals: Vec<Id>,
    initial: Vec<Id>,
    /// Values over parameters alone, computed once a plan.
    slots: Vec<Id>,
}

/// Takes what depends on parameters alone out of the functions that run at every stage.
fn hoist(graph: &mut Graph, system: &System) -> Hoisted {
    let (one, zero) = (graph.constant(1.0), graph.constant(0.0));
    let truths: Vec<Id> = system
        .guards
        .iter()
        .map(|(_, truth)| graph.select(*truth, one, zero))
        .collect();
    let guards: Vec<Id> = system.guards.iter().map(|(root, _)| *root).chain(truths).collect();
    let assertions: Vec<Id> = system
        .assertions
        .iter()
        .map(|truth| graph.select(*truth, one, zero))
        .collect();
    let roots: Vec<Id> = system
        .derivatives
        .iter()
        .copied()
        .chain(system.columns.iter().map(|(_, id)| *id))
        .chain(guards.iter().copied())
        .chain(assertions.iter().copied())
        .chain(system.update.iter().copied())
        .chain(system.loops.iter().map(|unknown| unknown.residual))
        .chain(system.initial.iter().map(|initial| initial.residual))
        .collect();
    let parameters: std::collections::HashSet<u32> = system.parameters.iter().copied().collect();
    let cone = graph.cone(&roots);
    // Nodes over parameters, constants excluded; a parameter itself is as cheap as its slot.
    let mut fixed = vec![false; graph.len()];
    let mut constant = vec![false; graph.len()];
    for id in &cone {
        let at = id.0 as usize;
        match graph.node(*id) {
            Node::Constant(_) | Node::Truth(_) => constant[at] = true,
            Node::Leaf(Leaf::Variable(variable)) => fixed[at] = parameters.contains(&variable),
            Node::Leaf(_) => {}
            _ => {
                let operands: Vec<Id> = graph.operands(*id).collect();
                fixed[at] = operands
                    .iter()
                    .all(|operand| fixed[operand.0 as usize] || constant[operand.0 as usize]);
            }
        }
    }
    let worth =
        |graph: &Graph, id: Id| fixed[id.0 as usize] && !matches!(graph.node(id), Node::Leaf(_)) && !graph.is_truth(id);
    let mut slots = Vec::new();
    let mut slot_of: HashMap<Id, Id> = HashMap::new();
    let used: Vec<Id> = cone
        .iter()
        .filter(|id| !fixed[id.0 as usize])
        .flat_map(|id| graph.operands(*id).collect::<Vec<_>>())
        .chain(roots.iter().copied())
        .collect();
    for id in used {
        if worth(graph, id) && !slot_of.contains_key(&id) {
            let leaf = graph.leaf(Leaf::Slot(slots.len() as u32));
            slot_of.insert(id, leaf);
            slots.push(id);
        }
    }
    let mut map: HashMap<Id, Id> = HashMap::new();
    for id in cone {
        let new = match slot_of.get(&id) {
            Some(leaf) => *leaf,
            None => graph.rebuild(id, |operand| map.get(&operand).copied().unwrap_or(operand)),
        };
        map.insert(id, new);
    }
    Hoisted {
        derivatives: system.derivatives.iter().map(|id| map[id]).collect(),
        columns: system.columns.iter().map(|(_, id)| map[id]).collect(),
        assertions: assertions.iter().map(|id| map[id]).collect(),
        guards: guards.iter().map(|id| map[id]).collect(),
        update: system.update.iter().map(|id| map[id]).collect(),
        residuals: system.loops.iter().map(|unknown| map[&unknown.residual]).collect(),
        initial: system.initial.iter().map(|initial| map[&initial.residual]).collect(),
        slots,
    }
}

fn place(system: &System, slots: u32, second_derivatives: bool) -> Places {
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
    let dots2 = if second_derivatives {
        reverse::Bars {
            states: dots.states + 8 * (n + words),
            ..second::place(system, hoisted, &mut next)
        }
    } else {
        reverse::Bars::default()
    };
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
        ("X_DOT2", dots2.states),
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
    constants.insert("WIDTH".to_string(), Expr::F64(f64::from(n.max(1))));
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

struct Emitter<'a> {
    graph: &'a Graph,
    system: &'a System,
    places: &'a mut Places,
    program: &'a mut Program,
    /// Words of scratch that values between chunks need.
    spilled: u32,
}

impl Emitter<'_> {
    fn constant(&self, name: &str) -> u32 {
        match self.places.constants.get(name) {
            Some(Expr::I32(value)) => *value as u32,
            _ => 0,
        }
    }

    fn declare_all(&mut self, names: &[&str]) {
        for name in names {
            self.program.declare(name, &[Ty::I32, Ty::F64, Ty::I32, Ty::I32], None);
        }
    }

    fn declare(&mut self) {
        self.declare_all(&[
            "parameter_slots",
            "input_starts",
            "state_starts",
            "memory_starts",
            "jacobian",
            "rhs_time",
            "starts_vjp",
            "slots_vjp",
            "starts_jvp",
            "slots_jvp",
        ]);
        for name in loops::WRAPPED {
            self.declare_all(&[name, &loops::inner(self.system, name)]);
        }
        loops::declare(self.program);
        self.program.declare("nominals", &[Ty::I32], None);
        self.program.declare("column_equation", &[Ty::I32], Some(Ty::I32));
    }

    /// `name(ctx, t, x, out)`: computes `roots` and stores each at its destination. Long ones become a chain of functions
    /// that hand values on through scratch memory.
    fn function(&mut self, name: &str, roots: &[Id], destinations: &[(Expr, u32)]) {
        let cone: Vec<Id> = self
            .graph
            .cone(roots)
            .into_iter()
            .filter(|id| !matches!(self.graph.node(*id), Node::Constant(_) | Node::Truth(_) | Node::Leaf(_)))
            .collect();
        let chunks: Vec<&[Id]> = if cone.is_empty() {
            vec![&[]]
        } else {
            cone.chunks(MAX_OPERATIONS).collect()
        };
        let chunk_of: HashMap<Id, usize> = chunks
            .iter()
            .enumerate()
            .flat_map(|(chunk, ids)| ids.iter().map(move |id| (*id, chunk)))
            .collect();
        let mut spills: HashMap<Id, u32> = HashMap::new();
        for id in &cone {
            for operand in self.graph.operands(*id) {
                let elsewhere = chunk_of.get(&operand).is_some_and(|chunk| *chunk != chunk_of[id]);
                if elsewhere && !spills.contains_key(&operand) {
                    spills.insert(operand, spills.len() as u32);
                }
            }
        }
        self.spilled = self.spilled.max(spills.len() as u32);
        let mut stores: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
        for (index, root) in roots.iter().enumerate() {
            stores.entry(chunk_of.get(root).copied()).or_default().push(index);
        }
        let shape = vec![Ty::I32, Ty::F64, Ty::I32, Ty::I32];
        let mut calls = Vec::new();
        for (number, ids) in chunks.iter().enumerate() {
            let mut body = Body {
                emitter: self,
                chunk: number,
                chunk_of: &chunk_of,
                spills: &spills,
                locals: HashMap::new(),
                types: Vec::new(),
                out: Vec::new(),
            };
            body.operations(ids, roots);
            let mut here = stores.remove(&Some(number)).unwrap_or_default();
            if number == 0 {
                here.extend(stores.remove(&None).unwrap_or_default());
            }
            for index in here {
                let value = body.value(roots[index], 0);
                let (base, offset) = destinations[index].clone();
                body.out.push(Stmt::Store(Ty::F64, base, offset, value));
            }
            let (locals, statements) = (body.types, body.out);
            let part = if chunks.len() == 1 {
                name.to_string()
            } else {
                format!("{name}.{number}")
            };
            let function = Function {
                name: part,
                parameters: shape.clone(),
                result: None,
                locals,
                body: statements,
            };
            let index = self.program.define(function);
            let arguments = vec![
                Expr::Local(0, Ty::I32),
                Expr::Local(1, Ty::F64),
                Expr::Local(2, Ty::I32),
                Expr::Local(3, Ty::I32),
            ];
            calls.push(Stmt::Do(Expr::Call(index, None, arguments)));
        }
        if chunks.len() > 1 {
            let function = Function {
                name: name.to_string(),
                parameters: shape,
                result: None,
                locals: Vec::new(),
                body: calls,
            };
            self.program.define(function);
        }
    }

    /// A leaf's value: locals 0 to 3 are ctx, time, the address of the states, the address of the results.
    fn leaf(&self, leaf: Leaf) -> Expr {
        let load = |base: u32, at: u32| Expr::Load(Ty::F64, Box::new(Expr::Local(base, Ty::I32)), at);
        let position = |list: &[u32], variable: u32| list.binary_search(&variable).ok().map(|index| index as u32);
        match leaf {
            Leaf::Time => Expr::Local(1, Ty::F64),
            Leaf::Slot(slot) => load(0, self.places.slots + 8 * slot),
            Leaf::Variable(variable) => {
                if let Some(state) = position(&self.system.states, variable) {
                    return load(2, 8 * state);
                }
                if let Some(parameter) = position(&self.system.parameters, variable) {
                    return load(0, self.places.parameters + 8 * parameter);
                }
                if let Some(word) = position(&self.system.memory, variable) {
                    return load(0, self.places.memory + 8 * word);
                }
                let input = position(&self.system.inputs, variable).unwrap_or(0);
                let at = self.places.input + 24 * input;
                // value + slope · (t − start)
                let since = Expr::binary(Binary::Sub, Ty::F64, Expr::Local(1, Ty::F64), load(0, at + 16));
                let change = Expr::binary(Binary::Mul, Ty::F64, load(0, at + 8), since);
                Expr::binary(Binary::Add, Ty::F64, load(0, at), change)
            }
            Leaf::Pre(variable) => {
                let word = position(&self.system.memory, variable).unwrap_or(0);
                load(0, self.places.memory + 8 * word)
            }
            Leaf::Condition(number) => load(0, self.places.conditions + 8 * number),
            Leaf::Initial => load(0, self.places.initial),
            Leaf::Loop(number) => load(0, self.places.loops + 8 * number),
            Leaf::LoopRate(number) => load(0, self.places.loop_rates + 8 * number),
            Leaf::Seed(number) => load(0, self.places.seeds + 8 * number),
            Leaf::Word(address) => load(0, address),
            // Of an input; every other derivative was replaced by its value.
            Leaf::Derivative(variable) => {
                let input = position(&self.system.inputs, variable).unwrap_or(0);
                load(0, self.places.input + 24 * input + 8)
            }
        }
    }

    fn nominals(&mut self) {
        let at = self.constant("NOMINAL");
        let body = self.system.states.iter().enumerate().map(|(index, state)| {
            let nominal = self.system.variables[*state as usize].nominal.unwrap_or(1.0);
            Stmt::Store(
                Ty::F64,
                Expr::Local(0, Ty::I32),
                at + 8 * index as u32,
                Expr::F64(nominal),
            )
        });
        let function = Function {
            name: "nominals".to_string(),
            parameters: vec![Ty::I32],
            result: None,
            locals: Vec::new(),
            body: body.collect(),
        };
        self.program.define(function);
    }

    /// The equation number of a column, for errors: a chain of comparisons on a path that runs once.
    fn column_equation(&mut self) {
        let column = || Expr::Local(0, Ty::I32);
        let mut body: Vec<Stmt> = Vec::new();
        for (index, equation) in self.system.column_equations.iter().enumerate() {
            let same = Expr::binary(Binary::Eq, Ty::I32, column(), Expr::I32(index as i32));
            body.push(Stmt::If(
                same,
                vec![Stmt::Return(Some(Expr::I32(*equation as i32)))],
                Vec::new(),
            ));
        }
        body.push(Stmt::Return(Some(Expr::I32(0))));
        let function = Function {
            name: "column_equation".to_string(),
            parameters: vec![Ty::I32],
            result: Some(Ty::I32),
            locals: Vec::new(),
            body,
        };
        self.program.define(function);
    }
}

struct Body<'e, 'a> {
    emitter: &'e Emitter<'a>,
    chunk: usize,
    chunk_of: &'e HashMap<Id, usize>,
    spills: &'e HashMap<Id, u32>,
    locals: HashMap<Id, Expr>,
    types: Vec<Ty>,
    out: Vec<Stmt>,
}

impl Body<'_, '_> {
    /// Puts everything used more than once, handed on, or deeply nested into a local; the rest is written in place.
    fn operations(&mut self, ids: &[Id], roots: &[Id]) {
        let mut uses: HashMap<Id, u32> = HashMap::new();
        for id in ids {
            for operand in self.emitter.graph.operands(*id) {
                *uses.entry(operand).or_default() += 1;
            }
        }
        for root in roots {
            *uses.entry(*root).or_default() += 1;
        }
        let mut depth: HashMap<Id, u32> = HashMap::new();
        for id in ids {
            let below = self
                .emitter
                .graph
                .operands(*id)
                .filter_map(|operand| depth.get(&operand))
                .max()
                .copied()
                .unwrap_or(0);
            let shared = uses.get(id).copied().unwrap_or(0) > 1;
            let spill = self.spills.get(id).copied();
            if shared || spill.is_some() || below >= MAX_DEPTH {
                let value = self.build(*id, 0);
                let ty = if self.emitter.graph.is_truth(*id) {
                    Ty::I32
                } else {
                    Ty::F64
                };
                let local = 4 + self.types.len() as u32;
                self.types.push(ty);
                self.out.push(Stmt::Set(local, value));
                self.locals.insert(*id, Expr::Local(local, ty));
                if let Some(word) = spill {
                    let at = self.emitter.places.spill + 8 * word;
                    self.out
                        .push(Stmt::Store(ty, Expr::Local(0, Ty::I32), at, Expr::Local(local, ty)));
                }
                depth.insert(*id, 0);
            } else {
                depth.insert(*id, below + 1);
            }
        }
    }

    fn value(&mut self, id: Id, depth: u32) -> Expr {
        if let Some(local) = self.locals.get(&id) {
            return local.clone();
        }
        if self.chunk_of.get(&id).is_some_and(|chunk| *chunk != self.chunk) {
            let word = self.spills.get(&id).copied().unwrap_or(0);
            let ty = if self.emitter.graph.is_truth(id) {
                Ty::I32
            } else {
                Ty::F64
            };
            return Expr::Load(
                ty,
                Box::new(Expr::Local(0, Ty::I32)),
                self.emitter.places.spill + 8 * word,
            );
        }
        self.build(id, depth)
    }

    fn build(&mut self, id: Id, depth: u32) -> Expr {
        let next = depth + 1;
        match self.emitter.graph.node(id) {
            Node::Constant(bits) => Expr::F64(f64::from_bits(bits)),
            Node::Truth(value) => Expr::I32(i32::from(value)),
            Node::Leaf(leaf) => self.emitter.leaf(leaf),
            Node::Unary(op, a) => {
                let a = self.value(a, next);
                match unary_code(op) {
                    Code::Op(op) => Expr::unary(op, a),
                    Code::Function(name) => self.call(name, vec![a]),
                }
            }
            Node::Binary(op, a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                match binary_code(op) {
                    BinaryCode::Op(op) => Expr::binary(op, Ty::F64, a, b),
                    BinaryCode::Function(name) => self.call(name, vec![a, b]),
                }
            }
            Node::Relation(relation, a, b) => {
                let op = match relation {
                    Relation::Less => Binary::Lt,
                    Relation::LessEqual => Binary::Le,
                    Relation::Equal => Binary::Eq,
                    Relation::NotEqual => Binary::Ne,
                };
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(op, Ty::F64, a, b)
            }
            Node::And(a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(Binary::And, Ty::I32, a, b)
            }
            Node::Or(a, b) => {
                let (a, b) = (self.value(a, next), self.value(b, next));
                Expr::binary(Binary::Or, Ty::I32, a, b)
            }
            Node::Not(a) => {
                let a = self.value(a, next);
                Expr::unary(crate::kernel::Unary::Not, a)
            }
            Node::Select(condition, a, b) => {
                let ty = if self.emitter.graph.is_truth(a) {
                    Ty::I32
                } else {
                    Ty::F64
                };
                let (condition, a, b) = (self.value(condition, next), self.value(a, next), self.value(b, next));
                Expr::Select(ty, Box::new([condition, a, b]))
            }
        }
    }

    fn call(&self, name: &str, arguments: Vec<Expr>) -> Expr {
        // The elementary functions are in the program before anything is emitted.
        self.emitter
            .program
            .index(name)
            .map_or(Expr::F64(f64::NAN), |index| Expr::Call(index, Some(Ty::F64), arguments))
    }
}
