//! What changes at events only must not be computed from what changes between them (Modelica 3.6, 3.8.4), nor an Integer
//! from what is no Integer. Which variable an equation is solved for decides, so this is known after causalisation alone.

use std::collections::HashMap;

use crate::causalise::System;
use crate::diagnostic::Diagnostic;
use crate::flatten::{Kind, Variable};
use crate::graph::{Binary, Graph, Id, Leaf, Node, Unary};

/// Refuses Integer and Boolean variables that an equation gives values they cannot have.
pub fn check(system: &System, source: &str, file: &str) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut whole = HashMap::new();
    for ((index, value), equation) in system.columns.iter().zip(&system.column_equations) {
        let variable = &system.variables[*index as usize];
        if !variable.discrete || variable.kind == Kind::Discrete {
            continue;
        }
        let span = (*equation as usize)
            .checked_sub(1)
            .and_then(|place| system.equations.get(place))
            .map_or(variable.span, |(_, span)| *span);
        let name = &variable.name;
        let error =
            |message: String, remedy: &str| Diagnostic::at(source, file, span.range(), "type", message).remedy(remedy);
        let leaves = system.graph.leaves(&[*value]);
        if leaves.into_iter().any(|leaf| between_events(&system.variables, leaf)) {
            let message = format!("`{name}` changes at events only and cannot equal what changes continuously");
            errors.push(error(message, "assign it in a `when`, or declare a Real"));
        } else if variable.integer && !is_whole(system, *value, &mut whole) {
            let message = format!("`{name}` is an Integer and this equation gives it a Real");
            errors.push(error(message, "declare a Real, or use `integer(x)` or `div(a, b)`"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn between_events(variables: &[Variable], leaf: Leaf) -> bool {
    match leaf {
        Leaf::Variable(index) => {
            let variable = &variables[index as usize];
            !variable.discrete && !matches!(variable.kind, Kind::Parameter | Kind::Dependent | Kind::Discrete)
        }
        Leaf::Pre(_) | Leaf::Condition(_) | Leaf::Initial => false,
        Leaf::Time | Leaf::Derivative(_) | Leaf::Slot(_) | Leaf::Loop(_) | Leaf::LoopRate(_) => true,
        Leaf::Seed(_) | Leaf::Word(_) => true,
    }
}

/// Whether a node is a whole number whatever its variables are.
fn is_whole(system: &System, root: Id, known: &mut HashMap<Id, bool>) -> bool {
    let graph: &Graph = &system.graph;
    let mut open = vec![root];
    while let Some(id) = open.last().copied() {
        let parts: Vec<Id> = match graph.node(id) {
            Node::Unary(Unary::Neg | Unary::Abs, x) => vec![x],
            Node::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Min | Binary::Max, x, y) => vec![x, y],
            Node::Select(_, x, y) => vec![x, y],
            _ => Vec::new(),
        };
        let missing: Vec<Id> = parts.iter().copied().filter(|part| !known.contains_key(part)).collect();
        if !missing.is_empty() {
            open.extend(missing);
            continue;
        }
        let whole = match graph.node(id) {
            Node::Constant(bits) => f64::from_bits(bits).fract() == 0.0,
            Node::Leaf(Leaf::Variable(index) | Leaf::Pre(index)) => {
                let variable = &system.variables[index as usize];
                variable.integer || variable.boolean
            }
            Node::Leaf(Leaf::Condition(_) | Leaf::Initial) => true,
            Node::Unary(Unary::Floor | Unary::Ceil | Unary::Trunc, _) => true,
            _ => !parts.is_empty() && parts.iter().all(|part| known[part]),
        };
        known.insert(id, whole);
        open.pop();
    }
    known[&root]
}
