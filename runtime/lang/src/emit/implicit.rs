//! What implicit methods need of a model: ∂f/∂x and ∂f/∂t, where they are not zero for structural reasons.

use std::collections::HashSet;

use super::{Emitter, Hoisted};
use crate::abi::MAX_IMPLICIT;
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};
use crate::kernel::{Expr, Ty};

/// The numbers of an implicit method (kernel/implicit_tableau.kernel), one table behind the other, in words.
pub const STIFF_TABLES: [(&str, u32); 5] = [
    ("STIFF_A", 9 * 8),
    ("STIFF_C", 9),
    ("STIFF_G", 8 * 8),
    ("STIFF_D", 8),
    ("STIFF_DENSE", 3 * 8),
];

/// Values with their places in a vector or, row after row, in a matrix.
#[derive(Default)]
pub struct Entries {
    places: Vec<u32>,
    pub values: Vec<Id>,
}

/// Whether implicit methods are built for a system.
pub fn is_small(system: &System) -> bool {
    system.states.len() <= MAX_IMPLICIT
}

/// ∂f/∂x of the hoisted derivatives; nothing for a system too large for dense matrices.
pub fn jacobian(graph: &mut Graph, system: &System, hoisted: &Hoisted) -> Entries {
    if !is_small(system) {
        return Entries::default();
    }
    let states: Vec<Leaf> = system.states.iter().map(|state| Leaf::Variable(*state)).collect();
    partials(graph, &hoisted.derivatives, &states)
}

/// ∂roots/∂leaves.
pub fn partials(graph: &mut Graph, roots: &[Id], leaves: &[Leaf]) -> Entries {
    let reads: Vec<HashSet<Leaf>> = roots
        .iter()
        .map(|root| graph.leaves(&[*root]).into_iter().collect())
        .collect();
    let mut entries = Vec::new();
    for (column, leaf) in leaves.iter().enumerate() {
        let rows: Vec<usize> = (0..roots.len()).filter(|row| reads[*row].contains(leaf)).collect();
        let chosen: Vec<Id> = rows.iter().map(|row| roots[*row]).collect();
        let partials = derive::forward(graph, &chosen, *leaf);
        for (row, value) in rows.into_iter().zip(partials) {
            if graph.value(value) != Some(0.0) {
                entries.push(((row * leaves.len() + column) as u32, value));
            }
        }
    }
    entries.sort_unstable();
    let (places, values) = entries.into_iter().unzip();
    Entries { places, values }
}

/// ∂f/∂t with the inputs on their present piece: the derivative of an input is its slope.
pub fn by_time(graph: &mut Graph, system: &System, roots: &[Id]) -> Entries {
    if !is_small(system) {
        return Entries::default();
    }
    let values = derive::forward_seeded(graph, roots, |graph, leaf| match leaf {
        Leaf::Time => Some(graph.constant(1.0)),
        Leaf::Variable(variable) if system.inputs.binary_search(&variable).is_ok() => {
            Some(graph.leaf(Leaf::Derivative(variable)))
        }
        _ => None,
    });
    Entries {
        places: (0..values.len() as u32).collect(),
        values,
    }
}

/// The derivatives of `roots` along the direction at `direction` (states, then time), with the inputs on their present piece.
pub fn along(graph: &mut Graph, system: &System, roots: &[Id], direction: u32) -> Vec<Id> {
    if !is_small(system) {
        return Vec::new();
    }
    let time = Leaf::Word(direction + 8 * system.states.len() as u32);
    derive::forward_seeded(graph, roots, |graph, leaf| match leaf {
        Leaf::Time => Some(graph.leaf(time)),
        Leaf::Loop(number) => Some(graph.leaf(Leaf::LoopRate(number))),
        Leaf::Variable(variable) => {
            if let Ok(at) = system.states.binary_search(&variable) {
                return Some(graph.leaf(Leaf::Word(direction + 8 * at as u32)));
            }
            system.inputs.binary_search(&variable).ok()?;
            let slope = graph.leaf(Leaf::Derivative(variable));
            let time = graph.leaf(time);
            Some(graph.mul(slope, time))
        }
        _ => None,
    })
}

/// Places of the implicit methods; returns that of the direction of [`along`].
pub fn place(system: &System, next: &mut dyn FnMut(&str, u32) -> u32) -> u32 {
    let small = if is_small(system) {
        system.states.len() as u32
    } else {
        0
    };
    for vector in ["U1", "U2", "U3", "U4", "U5", "U6", "U7", "U8", "RHS_TIME", "PIVOTS"] {
        next(vector, 8 * small);
    }
    next("JACOBIAN", 8 * small * small);
    next("MATRIX", 8 * small * small);
    next("STIFF_KIND", 8);
    for (table, words) in STIFF_TABLES {
        next(table, 8 * words);
    }
    next("DIRECTION", 8 * (small + 1))
}

impl Emitter<'_> {
    pub fn entries(&mut self, name: &str, entries: &Entries) {
        let out: Vec<(Expr, u32)> = entries
            .places
            .iter()
            .map(|place| (Expr::Local(3, Ty::I32), 8 * place))
            .collect();
        self.function(name, &entries.values, &out);
    }
}
