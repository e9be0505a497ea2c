//! The reverse pass of the model's own functions: vector–Jacobian products as kernel functions.
//!
//! Jacobian–vector products (`*_jvp`) read tangents from the DOT places and write their results' tangents.
//! Each product takes its cotangents from SEEDS and adds its shares to accumulators in the context: X_BAR (states, then memory),
//! T_BAR, U_BAR (inputs), P_BAR (parameters) and SLOT_BAR (hoisted values). Only `rhs_vjp`, which runs at every stage, writes
//! the states' shares instead of adding them, X_BAR bytes behind `out`: with `out = ctx` that is X_BAR too.

use std::collections::HashMap;

use super::{Emitter, Hoisted, loops};
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};
use crate::kernel::{Expr, Ty};

/// A function that adds cotangents to words of the context.
pub struct Product {
    name: String,
    words: Vec<Word>,
}

struct Word {
    /// Of the word, relative to the context or, where it is written, to `out`.
    address: u32,
    /// What is stored there.
    value: Id,
    /// The first of its shares: those that follow each other use the same values.
    order: Id,
    /// The states' words of `rhs_vjp` are written, all others are added to.
    written: bool,
}

/// Addresses of the accumulators.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bars {
    pub states: u32,
    pub time: u32,
    pub inputs: u32,
    pub parameters: u32,
    pub slots: u32,
    pub loops: u32,
    pub loop_rates: u32,
    /// Of the slopes of linear inputs.
    pub input_slopes: u32,
}

/// Every product, as sums over the graph; `along` is the derivative of f along a direction.
pub fn products(graph: &mut Graph, system: &System, hoisted: &Hoisted, along: &Vec<Id>, bars: Bars) -> Vec<Product> {
    let roots = hoisted.guards[..system.guards.len()].to_vec();
    let starts: Vec<Id> = system.starts.iter().chain(&system.memory_starts).copied().collect();
    let mut all = Vec::new();
    for (name, roots) in [
        ("rhs_vjp", &hoisted.derivatives),
        ("outputs_vjp", &hoisted.columns),
        ("guards_vjp", &roots),
        ("update_vjp", &hoisted.update),
        ("starts_vjp", &starts),
        ("slots_vjp", &hoisted.slots),
        ("rhs_jvp_vjp", along),
    ] {
        let seeds: Vec<Id> = (0..roots.len() as u32)
            .map(|seed| graph.leaf(Leaf::Seed(seed)))
            .collect();
        all.push(product(graph, system, &loops::inner(system, name), roots, &seeds, bars));
    }
    all
}

/// `name`: adds what `roots` with these cotangents give to each accumulator.
pub fn product(graph: &mut Graph, system: &System, name: &str, roots: &[Id], seeds: &[Id], bars: Bars) -> Product {
    let shares = derive::reverse(graph, roots, seeds);
    let mut found: Vec<(Leaf, Id)> = shares.into_iter().collect();
    found.sort_unstable_by_key(|(leaf, _)| *leaf);
    let mut words: Vec<Word> = Vec::new();
    if name == loops::inner(system, "rhs_vjp") {
        let zero = graph.constant(0.0);
        words.extend((0..system.states.len() as u32).map(|state| Word {
            address: bars.states + 8 * state,
            value: zero,
            order: zero,
            written: true,
        }));
    }
    let mut at: HashMap<u32, usize> = words.iter().enumerate().map(|(at, word)| (word.address, at)).collect();
    for (leaf, share) in found {
        let Some(address) = address(system, leaf, bars) else {
            continue;
        };
        match at.get(&address).map(|at| &mut words[*at]) {
            Some(word) if word.written => (word.value, word.order) = (share, share),
            Some(word) => word.value = graph.add(word.value, share),
            None => {
                at.insert(address, words.len());
                let before = graph.leaf(Leaf::Word(address));
                words.push(Word {
                    address,
                    value: graph.add(before, share),
                    order: share,
                    written: false,
                });
            }
        }
    }
    words.sort_unstable_by_key(|word| (word.order, word.address));
    Product {
        name: name.to_string(),
        words,
    }
}

/// Where the cotangent of a leaf is summed; `None` for what has no derivative.
pub fn address(system: &System, leaf: Leaf, bars: Bars) -> Option<u32> {
    let word = |list: &[u32], variable: u32| list.binary_search(&variable).ok().map(|at| 8 * at as u32);
    let memory = bars.states + 8 * system.states.len() as u32;
    match leaf {
        Leaf::Variable(variable) => word(&system.states, variable)
            .map(|at| bars.states + at)
            .or_else(|| word(&system.memory, variable).map(|at| memory + at))
            .or_else(|| word(&system.inputs, variable).map(|at| bars.inputs + at))
            .or_else(|| word(&system.parameters, variable).map(|at| bars.parameters + at)),
        Leaf::Pre(variable) => word(&system.memory, variable).map(|at| memory + at),
        Leaf::Time => Some(bars.time),
        Leaf::Slot(slot) => Some(bars.slots + 8 * slot),
        Leaf::Loop(number) => Some(bars.loops + 8 * number),
        Leaf::LoopRate(number) => Some(bars.loop_rates + 8 * number),
        Leaf::Derivative(variable) => word(&system.inputs, variable).map(|at| bars.input_slopes + at),
        Leaf::Condition(_) | Leaf::Initial | Leaf::Seed(_) | Leaf::Word(_) => None,
    }
}

/// The tangent of each function's results along the tangents of its leaves at `dots`.
pub fn tangents(
    graph: &mut Graph,
    system: &System,
    hoisted: &Hoisted,
    along: &Vec<Id>,
    dots: Bars,
) -> Vec<(String, Vec<Id>)> {
    let guards = hoisted.guards[..system.guards.len()].to_vec();
    let starts: Vec<Id> = system.starts.iter().chain(&system.memory_starts).copied().collect();
    let mut all = Vec::new();
    for (name, roots) in [
        ("rhs_jvp", &hoisted.derivatives),
        ("outputs_jvp", &hoisted.columns),
        ("guards_jvp", &guards),
        ("update_jvp", &hoisted.update),
        ("starts_jvp", &starts),
        ("slots_jvp", &hoisted.slots),
        ("rhs_jvp_jvp", along),
    ] {
        all.push((loops::inner(system, name), tangent(graph, system, roots, dots)));
    }
    all
}

/// The tangents of `roots` along the tangents at `dots`.
pub fn tangent(graph: &mut Graph, system: &System, roots: &[Id], dots: Bars) -> Vec<Id> {
    derive::forward_seeded(graph, roots, |graph, leaf| {
        address(system, leaf, dots).map(|at| graph.leaf(Leaf::Word(at)))
    })
}

/// The rates of `roots` along a direction: seeds are the rates of the states, of time and of the loops' unknowns.
pub fn rates(graph: &mut Graph, system: &System, roots: &[Id]) -> Vec<Id> {
    derive::forward_seeded(graph, roots, |graph, leaf| rate(graph, system, leaf))
}

/// The seed that is a leaf's rate.
pub fn rate(graph: &mut Graph, system: &System, leaf: Leaf) -> Option<Id> {
    let states = system.states.len() as u32;
    let seed = match leaf {
        Leaf::Variable(variable) => system.states.binary_search(&variable).ok()? as u32,
        Leaf::Time => states,
        Leaf::Loop(number) => states + 1 + number,
        _ => return None,
    };
    Some(graph.leaf(Leaf::Seed(seed)))
}

impl Emitter<'_> {
    /// Functions that write `roots` one after the other.
    pub fn vectors(&mut self, functions: &[(String, Vec<Id>)]) {
        for (name, roots) in functions {
            let destinations: Vec<(Expr, u32)> = (0..roots.len() as u32)
                .map(|index| (Expr::Local(3, Ty::I32), 8 * index))
                .collect();
            self.function(name, roots, &destinations);
        }
    }

    pub fn products(&mut self, products: &[Product]) {
        for product in products {
            let roots: Vec<Id> = product.words.iter().map(|word| word.value).collect();
            let destinations: Vec<(Expr, u32)> = product
                .words
                .iter()
                .map(|word| (Expr::Local(if word.written { 3 } else { 0 }, Ty::I32), word.address))
                .collect();
            self.function(&product.name, &roots, &destinations);
        }
    }
}
