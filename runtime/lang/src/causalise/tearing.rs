//! Algebraic loops: which unknowns an iteration finds and which follow from them one by one.
//!
//! Tearing (Elmqvist and Otter, Methods for tearing systems of equations in object-oriented modeling, 1994), with the
//! greedy choice of Cellier and Kofman (Continuous System Simulation, chapter 7): whatever one equation determines alone
//! follows; else the unknown that most equations contain is given to the iteration.

use std::collections::BTreeSet;

use super::{Matching, Unknowns, solve_for};
use crate::derive;
use crate::flatten::{FlatEquation, Kind, Variable};
use crate::graph::{Graph, Id, Leaf};

/// A loop, torn.
#[derive(Debug, Default)]
pub struct Torn {
    /// Unknowns of the iteration.
    pub iterated: Vec<usize>,
    /// The others with their values over the former and over each other, in this order.
    pub following: Vec<(usize, Id)>,
    /// Equations left to be zero, as many as `iterated`.
    pub residuals: Vec<usize>,
}

/// Tears the equations of one block of `matching`.
pub fn tear(
    graph: &mut Graph,
    block: &[usize],
    matching: &Matching,
    unknowns: &Unknowns,
    variables: &[Variable],
    equations: &[FlatEquation],
) -> Torn {
    let mut open: BTreeSet<usize> = block.iter().map(|equation| matching.unknown_of[*equation]).collect();
    let mut left = block.to_vec();
    let mut torn = Torn::default();
    while !open.is_empty() {
        let alone = left.iter().enumerate().find_map(|(place, equation)| {
            let mut inside = matching.incidence[*equation]
                .iter()
                .filter(|unknown| open.contains(unknown));
            let (first, second) = (inside.next().copied(), inside.next());
            let unknown = first.filter(|_| second.is_none())?;
            let value = safely(graph, &equations[*equation], unknowns.leaves[unknown], variables)?;
            Some((place, unknown, value))
        });
        if let Some((place, unknown, value)) = alone {
            left.remove(place);
            open.remove(&unknown);
            torn.following.push((unknown, value));
            continue;
        }
        let contained = |unknown: &usize| {
            let count = left
                .iter()
                .filter(|equation| matching.incidence[**equation].contains(unknown));
            let guessed = variables[unknowns.variable(*unknown) as usize].start.is_some();
            // The first of equals.
            (count.count(), guessed, std::cmp::Reverse(*unknown))
        };
        let Some(chosen) = open.iter().copied().max_by_key(contained) else {
            break;
        };
        open.remove(&chosen);
        torn.iterated.push(chosen);
    }
    torn.residuals = left;
    torn
}

/// `equation` solved for `unknown` where its coefficient cannot pass through zero as time goes on.
fn safely(graph: &mut Graph, equation: &FlatEquation, unknown: Leaf, variables: &[Variable]) -> Option<Id> {
    let residual = graph.sub(equation.left, equation.right);
    let slope = derive::forward(graph, &[residual], unknown)[0];
    let held = graph.leaves(&[slope]).into_iter().all(|leaf| match leaf {
        Leaf::Variable(index) => matches!(variables[index as usize].kind, Kind::Parameter | Kind::Dependent),
        _ => false,
    });
    if held && graph.value(slope) != Some(0.0) {
        solve_for(graph, equation, unknown)
    } else {
        None
    }
}
