//! The reverse pass of the model's own functions: vector–Jacobian products as kernel functions.
//!
//! Jacobian–vector products (`*_jvp`) read tangents from the DOT places and write their results' tangents.
//! Each product takes its cotangents from SEEDS and adds its shares to accumulators in the context: X_BAR (states, then memory),
//! T_BAR, U_BAR (inputs), P_BAR (parameters) and SLOT_BAR (hoisted values).

use std::collections::HashMap;

use super::{Emitter, Hoisted};
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};
use crate::kernel::{Expr, Ty};

/// A function that adds cotangents to words of the context.
pub struct Product {
    name: &'static str,
    /// Address of each word, and the word plus its share.
    sums: Vec<(u32, Id)>,
}

/// Addresses of the accumulators.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bars {
    pub states: u32,
    pub time: u32,
    pub inputs: u32,
    pub parameters: u32,
    pub slots: u32,
}

/// Every product, as sums over the graph.
pub fn products(graph: &mut Graph, system: &System, hoisted: &Hoisted, bars: Bars) -> Vec<Product> {
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
    ] {
        all.push(product(graph, system, name, roots, bars));
    }
    all
}

fn product(graph: &mut Graph, system: &System, name: &'static str, roots: &[Id], bars: Bars) -> Product {
    let seeds: Vec<Id> = (0..roots.len() as u32)
        .map(|seed| graph.leaf(Leaf::Seed(seed)))
        .collect();
    let shares = derive::reverse(graph, roots, &seeds);
    let mut found: Vec<(Leaf, Id)> = shares.into_iter().collect();
    found.sort_unstable_by_key(|(leaf, _)| *leaf);
    let mut sums: HashMap<u32, Id> = HashMap::new();
    let mut order = Vec::new();
    for (leaf, share) in found {
        let Some(address) = address(system, leaf, bars) else {
            continue;
        };
        let before = match sums.get(&address) {
            Some(sum) => *sum,
            None => {
                order.push(address);
                graph.leaf(Leaf::Word(address))
            }
        };
        sums.insert(address, graph.add(before, share));
    }
    Product {
        name,
        sums: order.into_iter().map(|address| (address, sums[&address])).collect(),
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
        Leaf::Derivative(_) | Leaf::Condition(_) | Leaf::Initial | Leaf::Seed(_) | Leaf::Word(_) => None,
    }
}

/// The tangent of each function's results along the tangents of its leaves at `dots`.
pub fn tangents(graph: &mut Graph, system: &System, hoisted: &Hoisted, dots: Bars) -> Vec<(&'static str, Vec<Id>)> {
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
    ] {
        let seed = |graph: &mut Graph, leaf| address(system, leaf, dots).map(|at| graph.leaf(Leaf::Word(at)));
        all.push((name, derive::forward_seeded(graph, roots, seed)));
    }
    all
}

/// The rate of each guard along a direction: seeds are the states' rates and that of time.
pub fn guard_rates(graph: &mut Graph, system: &System, hoisted: &Hoisted) -> Vec<Id> {
    let roots = hoisted.guards[..system.guards.len()].to_vec();
    let states = system.states.clone();
    derive::forward_seeded(graph, &roots, |graph, leaf| match leaf {
        Leaf::Variable(variable) => {
            let at = states.binary_search(&variable).ok()?;
            Some(graph.leaf(Leaf::Seed(at as u32)))
        }
        Leaf::Time => Some(graph.leaf(Leaf::Seed(states.len() as u32))),
        _ => None,
    })
}

impl Emitter<'_> {
    pub fn tangents(&mut self, tangents: &[(&'static str, Vec<Id>)]) {
        for (name, roots) in tangents {
            let destinations: Vec<(Expr, u32)> = (0..roots.len() as u32)
                .map(|index| (Expr::Local(3, Ty::I32), 8 * index))
                .collect();
            self.function(name, roots, &destinations);
        }
    }

    pub fn products(&mut self, products: &[Product], rates: &[Id]) {
        for product in products {
            let roots: Vec<Id> = product.sums.iter().map(|(_, sum)| *sum).collect();
            let destinations: Vec<(Expr, u32)> = product
                .sums
                .iter()
                .map(|(address, _)| (Expr::Local(0, Ty::I32), *address))
                .collect();
            self.function(product.name, &roots, &destinations);
        }
        let destinations: Vec<(Expr, u32)> = (0..rates.len() as u32)
            .map(|index| (Expr::Local(3, Ty::I32), 8 * index))
            .collect();
        self.function("guard_rates", rates, &destinations);
    }
}
