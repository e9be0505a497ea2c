//! What Newton's method needs of a model: residuals of algebraic loops and of initial equations, their derivatives, and a
//! table of their unknowns.
//!
//! A model with loops has its functions under the names `*_explicit`, over unknowns given at LOOPS; kernel/loops.kernel
//! puts functions with the plain names around them.

use super::{Emitter, Hoisted, Places, implicit, reverse, second};
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};
use crate::kernel::{Binary, Expr, Function, Program, Stmt, Ty};

/// Functions that evaluate the model at a state, and so need the loops solved.
pub const WRAPPED: [&str; 16] = [
    "rhs",
    "outputs",
    "guards",
    "update",
    "assertions",
    "rhs_vjp",
    "outputs_vjp",
    "guards_vjp",
    "update_vjp",
    "guard_rates",
    "rhs_jvp",
    "outputs_jvp",
    "guards_jvp",
    "update_jvp",
    "rhs_jvp_vjp",
    "rhs_jvp_jvp",
];

/// The name of a function over given unknowns.
pub fn inner(system: &System, name: &str) -> String {
    let wrapped = WRAPPED.contains(&name) || second::WRAPPED.iter().any(|(_, both)| *both == name);
    if wrapped && !system.loops.is_empty() {
        format!("{name}_explicit")
    } else {
        name.to_string()
    }
}

/// How many blocks are solved one after the other.
pub fn blocks(system: &System) -> u32 {
    system.loops.last().map_or(0, |last| last.block as u32 + 1)
}

/// The number of the block that is all loops together: the only one, where there is one.
pub fn whole(system: &System) -> u32 {
    match blocks(system) {
        0 | 1 => 0,
        more => more,
    }
}

pub fn declare(program: &mut Program) {
    let shape = [Ty::I32, Ty::F64, Ty::I32, Ty::I32];
    for name in [
        "jacobian_loops",
        "loops_states",
        "loops_time",
        "loops_rates",
        "loops_vjp",
        "loops_jvp",
        "loops_along",
        "along_vjp",
        "along_jvp",
        "initial_vjp",
        "initial_jvp",
        "loop_starts",
    ] {
        program.declare(name, &shape, None);
    }
    for name in ["residuals", "partials"] {
        program.declare(name, &[Ty::I32, Ty::I32, Ty::F64, Ty::I32, Ty::I32], None);
    }
    program.declare("loops", &shape[..3], Some(Ty::I32));
    program.declare("couple", &shape[..3], None);
    program.declare("unknowns", &[Ty::I32], None);
    program.declare("hold_loops", &[Ty::I32], None);
}

/// Places of the loops and of Newton's method; those of the unknowns, of their rates and of their seeds.
pub fn place(system: &System, next: &mut dyn FnMut(&str, u32) -> u32) -> (u32, u32, u32) {
    let z = system.loops.len() as u32;
    let unknowns = z + initial_size(system);
    let largest = z.max(initial_size(system));
    let coupled = if implicit::is_small(system) {
        system.states.len() as u32 * z
    } else {
        0
    };
    let loops = next("LOOPS", 8 * z);
    let rates = next("LOOP_RATES", 8 * z);
    next("LOOPS_KEPT", 8 * z);
    next("LOOP_STARTS", 8 * z);
    let seeds = next("LOOP_SEEDS", 8 * largest);
    next("LOOPS_OUT", 8 * coupled);
    next("LOOPS_IN", 8 * coupled);
    next("CAUSE", 16);
    next("BLOCKS", 16 * (whole(system) + 2));
    next("UNKNOWNS", 16 * unknowns);
    for vector in ["STEP", "RESIDUAL", "ROW", "COLUMN", "OLD", "PIVOTS"] {
        next(&format!("NEWTON_{vector}"), 8 * largest);
    }
    next("NEWTON_MATRIX", 8 * largest * largest);
    (loops, rates, seeds)
}

/// Unknowns of the initial equations: the states they determine, and all loops.
pub fn initial_size(system: &System) -> u32 {
    match system.initial.len() {
        0 => 0,
        states => (states + system.loops.len()) as u32,
    }
}

/// One system for Newton's method.
struct Block {
    first: u32,
    count: u32,
    linear: bool,
    residuals: Vec<Id>,
    partials: implicit::Entries,
}

/// The functions around the model's own, as nodes.
pub struct Around {
    blocks: Vec<Block>,
    jacobian: implicit::Entries,
    states: implicit::Entries,
    time: implicit::Entries,
    vectors: Vec<(String, Vec<Id>)>,
    products: Vec<reverse::Product>,
}

impl Around {
    pub fn new(graph: &mut Graph, system: &System, hoisted: &Hoisted, places: &Places) -> Around {
        let z = system.loops.len() as u32;
        let unknowns: Vec<Leaf> = (0..z).map(Leaf::Loop).collect();
        let states: Vec<Leaf> = system.states.iter().map(|state| Leaf::Variable(*state)).collect();
        let mut list = Vec::new();
        for number in 0..blocks(system) {
            let of_block = |index: &usize| system.loops[*index].block == number as usize;
            let members: Vec<usize> = (0..z as usize).filter(of_block).collect();
            let first = members.first().copied().unwrap_or(0);
            let range = first..first + members.len();
            list.push(block(
                graph,
                first as u32,
                &hoisted.residuals[range.clone()],
                &unknowns[range],
            ));
        }
        if list.len() != 1 {
            list.push(block(graph, 0, &hoisted.residuals, &unknowns));
        }
        let free: Vec<Leaf> = system
            .initial
            .iter()
            .map(|initial| Leaf::Variable(initial.state))
            .chain(unknowns.iter().copied())
            .collect();
        let mut initial = hoisted.initial.clone();
        if !initial.is_empty() {
            initial.extend(&hoisted.residuals);
            list.push(block(graph, z, &initial, &free));
        }
        let small = implicit::is_small(system);
        let mut around = Around {
            blocks: list,
            jacobian: implicit::Entries::default(),
            states: implicit::Entries::default(),
            time: implicit::by_time(graph, system, &hoisted.residuals),
            vectors: Vec::new(),
            products: Vec::new(),
        };
        if small {
            around.jacobian = implicit::partials(graph, &hoisted.derivatives, &unknowns);
            around.states = implicit::partials(graph, &hoisted.residuals, &states);
        }
        let rates = derive_rates(graph, system, &hoisted.residuals);
        around.vectors.push(("loops_rates".to_string(), rates));
        let along = implicit::along(graph, system, &hoisted.residuals, places.direction);
        around.vectors.push(("loops_along".to_string(), along.clone()));
        for (name, roots) in [("loops", &hoisted.residuals), ("initial", &initial), ("along", &along)] {
            let seeds: Vec<Id> = (0..roots.len() as u32)
                .map(|seed| graph.leaf(Leaf::Word(places.loop_seeds + 8 * seed)))
                .collect();
            let product = reverse::product(graph, system, &format!("{name}_vjp"), roots, &seeds, places.bars);
            around.products.push(product);
            let first = reverse::tangent(graph, system, roots, places.dots);
            if let Some(dots2) = places.dots2 {
                let both = second::both(graph, system, &first, places.dots, dots2);
                around.vectors.push((format!("{name}_jvp2"), both));
            }
            around.vectors.push((format!("{name}_jvp"), first));
        }
        around
    }
}

/// The rates of the residuals where the unknowns stand still.
fn derive_rates(graph: &mut Graph, system: &System, residuals: &[Id]) -> Vec<Id> {
    derive::forward_seeded(graph, residuals, |graph, leaf| match leaf {
        Leaf::Loop(_) => None,
        leaf => reverse::rate(graph, system, leaf),
    })
}

fn block(graph: &mut Graph, first: u32, residuals: &[Id], unknowns: &[Leaf]) -> Block {
    let partials = implicit::partials(graph, residuals, unknowns);
    let leaves = graph.leaves(&partials.values);
    Block {
        first,
        count: unknowns.len() as u32,
        linear: !leaves.iter().any(|leaf| unknowns.contains(leaf)),
        residuals: residuals.to_vec(),
        partials,
    }
}

impl Emitter<'_> {
    /// Emits them.
    pub fn around(&mut self, around: &Around) {
        self.entries("jacobian_loops", &around.jacobian);
        self.entries("loops_states", &around.states);
        self.entries("loops_time", &around.time);
        self.vectors(&around.vectors);
        self.products(&around.products);
        let at = self.constant("LOOP_STARTS");
        let starts: Vec<Id> = self.system.loops.iter().map(|unknown| unknown.start).collect();
        let places: Vec<(Expr, u32)> = (0..starts.len() as u32)
            .map(|index| (Expr::Local(0, Ty::I32), at + 8 * index))
            .collect();
        self.function("loop_starts", &starts, &places);
        for (number, block) in around.blocks.iter().enumerate() {
            self.vectors(&[(format!("residuals.{number}"), block.residuals.clone())]);
            self.entries(&format!("partials.{number}"), &block.partials);
        }
        self.by_block("residuals", around.blocks.len());
        self.by_block("partials", around.blocks.len());
        self.unknowns(&around.blocks);
    }

    /// `name(block, ctx, t, x, out)`: the function of that block.
    fn by_block(&mut self, name: &str, blocks: usize) {
        let mut body = Vec::new();
        for number in 0..blocks {
            let Some(function) = self.program.index(&format!("{name}.{number}")) else {
                continue;
            };
            let arguments = vec![
                Expr::Local(1, Ty::I32),
                Expr::Local(2, Ty::F64),
                Expr::Local(3, Ty::I32),
                Expr::Local(4, Ty::I32),
            ];
            let same = Expr::binary(Binary::Eq, Ty::I32, Expr::Local(0, Ty::I32), Expr::I32(number as i32));
            let call = Stmt::Do(Expr::Call(function, None, arguments));
            body.push(Stmt::If(same, vec![call], Vec::new()));
        }
        self.program.define(Function {
            name: name.to_string(),
            parameters: vec![Ty::I32, Ty::I32, Ty::F64, Ty::I32, Ty::I32],
            result: None,
            locals: Vec::new(),
            body,
        });
    }

    /// `unknowns(ctx)`: writes the tables of blocks and of their unknowns.
    fn unknowns(&mut self, blocks: &[Block]) {
        let (table, unknowns) = (self.constant("BLOCKS"), self.constant("UNKNOWNS"));
        let (states, loops) = (self.constant("STATES"), self.constant("LOOPS"));
        let nominal_of = |state: u32| self.system.variables[state as usize].nominal.unwrap_or(1.0);
        let of_loops = || {
            let numbered = self.system.loops.iter().enumerate();
            numbered.map(|(index, unknown)| (loops + 8 * index as u32, unknown.equation, unknown.nominal))
        };
        let mut rows: Vec<(u32, u32, f64)> = of_loops().collect();
        for initial in &self.system.initial {
            let state = self.system.states.binary_search(&initial.state).unwrap_or(0) as u32;
            rows.push((states + 8 * state, initial.equation, nominal_of(initial.state)));
        }
        if !self.system.initial.is_empty() {
            rows.extend(of_loops());
        }
        let store = |ty: Ty, at: u32, value: Expr| Stmt::Store(ty, Expr::Local(0, Ty::I32), at, value);
        let number = |value: u32| Expr::I32(value as i32);
        let mut body = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let at = table + 16 * index as u32;
            body.push(store(Ty::I32, at, number(block.first)));
            body.push(store(Ty::I32, at + 4, number(block.count)));
            body.push(store(Ty::I32, at + 8, number(u32::from(block.linear))));
        }
        for (index, (place, equation, nominal)) in rows.into_iter().enumerate() {
            let at = unknowns + 16 * index as u32;
            body.push(store(Ty::I32, at, number(place)));
            body.push(store(Ty::I32, at + 4, number(equation)));
            body.push(store(Ty::F64, at + 8, Expr::F64(nominal)));
        }
        self.program.define(Function {
            name: "unknowns".to_string(),
            parameters: vec![Ty::I32],
            result: None,
            locals: Vec::new(),
            body,
        });
    }
}
