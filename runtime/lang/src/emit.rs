//! From an explicit system to kernel functions and the module.

mod body;
mod explicit;
mod implicit;
mod loops;
mod places;
mod reverse;
mod second;

use std::collections::HashMap;

use body::Body;
pub use places::Places;
use places::place;

use crate::abi::persistent;
use crate::causalise::System;
use crate::graph::{Graph, Id, Leaf, Node};
use crate::kernel::inline::inline;
use crate::kernel::{Binary, Expr, Function, Program, Stmt, Ty, lanes, parse, wasm};

/// No emitted function has more operations: compile time grows faster than linearly with size.
const MAX_OPERATIONS: usize = 800;
/// Deeper expressions are cut by a local.
const MAX_DEPTH: u32 = 40;

/// Kernel functions and places of one model.
pub struct Emitted {
    pub program: Program,
    pub places: Places,
}

/// Builds all functions of the module; those for second derivatives only where they are wanted, for a module with them takes
/// a fifth longer to compile, and up to twice as long where the equations are long.
pub fn emit(system: &System, mut program: Program, second_derivatives: bool) -> Result<Emitted, String> {
    let mut graph = system.graph.clone();
    let hoisted = hoist(&mut graph, system);
    let mut places = place(system, hoisted.slots.len() as u32, second_derivatives);
    let along = implicit::along(&mut graph, system, &hoisted.derivatives, places.direction);
    let products = reverse::products(&mut graph, system, &hoisted, &along, places.bars);
    let tangents = reverse::tangents(&mut graph, system, &hoisted, &along, places.dots);
    let second = match places.dots2 {
        Some(dots2) => second::second_tangents(&mut graph, system, &tangents, places.dots, dots2),
        None => Vec::new(),
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
    emitter.model(&hoisted);
    emitter.entries("jacobian", &jacobian);
    emitter.entries("rhs_time", &by_time);
    emitter.products(&products);
    emitter.vectors(&tangents);
    emitter.vectors(&[(loops::inner(system, "guard_rates"), rates)]);
    if second_derivatives {
        emitter.declare_second();
        emitter.vectors(&second);
    }
    emitter.around(&around);
    emitter.nominals();
    emitter.column_equation();
    let spill_bytes = 8 * emitter.spilled;
    places.context_bytes = (places.spill + spill_bytes).div_ceil(16) * 16;
    for text in kernels(system, second_derivatives) {
        parse::parse(&mut program, &text, &places.constants)?;
    }
    inline(&mut program);
    Ok(Emitted { program, places })
}

/// The texts of the integrators and the sweeps that this model needs.
fn kernels(system: &System, second_derivatives: bool) -> Vec<String> {
    let always = concat!(
        include_str!("kernel/model.kernel"),
        include_str!("kernel/solve.kernel"),
        include_str!("kernel/explicit.kernel"),
        include_str!("kernel/events.kernel"),
        include_str!("kernel/implicit_tableau.kernel"),
        include_str!("kernel/implicit.kernel"),
        include_str!("kernel/tape.kernel"),
        include_str!("kernel/reverse.kernel"),
        include_str!("kernel/forward.kernel"),
        include_str!("kernel/sweep_implicit.kernel"),
        include_str!("kernel/reverse_implicit.kernel"),
        include_str!("kernel/forward_implicit.kernel"),
        include_str!("kernel/newton.kernel"),
    );
    let second = if second_derivatives {
        concat!(
            include_str!("kernel/second.kernel"),
            include_str!("kernel/second_implicit.kernel"),
        )
    } else {
        second::ABSENT
    };
    let mut texts = vec![[always, &explicit::text(), second].concat()];
    if !system.loops.is_empty() {
        texts.push(include_str!("kernel/loops.kernel").to_string());
        if second_derivatives {
            texts.push(include_str!("kernel/second_loops.kernel").to_string());
        }
    }
    texts
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

    /// The model's own values, before any derivative.
    fn model(&mut self, hoisted: &Hoisted) {
        let vector = |base: Expr, count: usize| {
            (0..count as u32)
                .map(move |index| (base.clone(), 8 * index))
                .collect::<Vec<_>>()
        };
        let system = self.system;
        let inner = |name: &str| loops::inner(system, name);
        let states_at = |at: u32| move |index: u32| (Expr::Local(0, Ty::I32), at + 8 * index);
        self.function(
            &inner("rhs"),
            &hoisted.derivatives,
            &vector(Expr::Local(3, Ty::I32), system.states.len()),
        );
        self.function(
            &inner("outputs"),
            &hoisted.columns,
            &vector(Expr::Local(3, Ty::I32), system.columns.len()),
        );
        let slots: Vec<(Expr, u32)> = (0..hoisted.slots.len() as u32)
            .map(states_at(self.places.slots))
            .collect();
        self.function("parameter_slots", &hoisted.slots, &slots);
        let input_starts = self.constant("INPUT_START");
        let destinations: Vec<(Expr, u32)> = (0..system.inputs.len() as u32).map(states_at(input_starts)).collect();
        self.function("input_starts", &system.input_starts, &destinations);
        let destinations: Vec<(Expr, u32)> = (0..system.states.len() as u32)
            .map(states_at(persistent::STATES))
            .collect();
        self.function("state_starts", &system.starts, &destinations);
        self.function(
            &inner("guards"),
            &hoisted.guards,
            &vector(Expr::Local(3, Ty::I32), hoisted.guards.len()),
        );
        self.function(
            &inner("update"),
            &hoisted.update,
            &vector(Expr::Local(3, Ty::I32), hoisted.update.len()),
        );
        let destinations: Vec<(Expr, u32)> = (0..system.memory.len() as u32)
            .map(states_at(self.places.memory))
            .collect();
        self.function("memory_starts", &system.memory_starts, &destinations);
        let asserted = self.constant("ASSERTED");
        let destinations: Vec<(Expr, u32)> = (0..system.assertions.len() as u32).map(states_at(asserted)).collect();
        self.function(&inner("assertions"), &hoisted.assertions, &destinations);
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
