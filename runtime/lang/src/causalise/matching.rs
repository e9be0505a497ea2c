//! Which equation determines which unknown: maximum matching, what it leaves over, and the order of the blocks.

use std::collections::HashMap;

use super::Text;
use crate::diagnostic::Diagnostic;
use crate::flatten::{FlatEquation, Kind, Variable};
use crate::graph::{Graph, Id, Leaf, Node};

/// What the equations determine: algebraic variables, and derivatives of states.
pub struct Unknowns {
    pub leaves: Vec<Leaf>,
    pub index: HashMap<Leaf, usize>,
    pub states: Vec<u32>,
}

impl Unknowns {
    pub fn find(graph: &Graph, variables: &[Variable], equations: &[FlatEquation]) -> Unknowns {
        let roots: Vec<Id> = equations
            .iter()
            .flat_map(|equation| [equation.left, equation.right])
            .collect();
        let mut is_state = vec![false; variables.len()];
        for leaf in graph.leaves(&roots) {
            if let Leaf::Derivative(variable) = leaf {
                is_state[variable as usize] = true;
            }
        }
        let mut leaves = Vec::new();
        let mut states = Vec::new();
        for (index, variable) in variables.iter().enumerate() {
            if is_state[index] {
                states.push(index as u32);
                leaves.push(Leaf::Derivative(index as u32));
            } else if variable.kind == Kind::Unknown {
                leaves.push(Leaf::Variable(index as u32));
            }
        }
        let index = leaves.iter().enumerate().map(|(index, leaf)| (*leaf, index)).collect();
        Unknowns { leaves, index, states }
    }

    /// The unknowns in one equation.
    fn of(&self, graph: &Graph, equation: &FlatEquation) -> Vec<usize> {
        let leaves = graph.leaves(&[equation.left, equation.right]);
        leaves.iter().filter_map(|leaf| self.index.get(leaf).copied()).collect()
    }

    pub fn name(&self, unknown: usize, variables: &[Variable]) -> String {
        match self.leaves[unknown] {
            Leaf::Derivative(variable) => format!("der({})", variables[variable as usize].name),
            Leaf::Variable(variable) => variables[variable as usize].name.clone(),
            _ => String::new(),
        }
    }

    pub fn variable(&self, unknown: usize) -> u32 {
        match self.leaves[unknown] {
            Leaf::Derivative(variable) | Leaf::Variable(variable) => variable,
            _ => 0,
        }
    }
}

/// Pairs of equations and unknowns.
pub struct Matching {
    /// The unknowns in each equation.
    pub incidence: Vec<Vec<usize>>,
    equation_of: Vec<Option<usize>>,
    /// `usize::MAX` where an equation determines nothing.
    pub unknown_of: Vec<usize>,
}

/// Maximum matching: a greedy start, then augmenting paths, without recursion.
pub fn match_equations(graph: &Graph, unknowns: &Unknowns, equations: &[FlatEquation]) -> Matching {
    let incidence: Vec<Vec<usize>> = equations.iter().map(|equation| unknowns.of(graph, equation)).collect();
    let mut matching = Matching {
        incidence,
        equation_of: vec![None; unknowns.leaves.len()],
        unknown_of: vec![usize::MAX; equations.len()],
    };
    for (equation, flat) in equations.iter().enumerate() {
        // `v = …` prefers v.
        let explicit = match graph.node(flat.left) {
            Node::Leaf(leaf) => unknowns.index.get(&leaf).copied(),
            _ => None,
        };
        if let Some(unknown) = explicit.filter(|unknown| matching.equation_of[*unknown].is_none()) {
            matching.equation_of[unknown] = Some(equation);
            matching.unknown_of[equation] = unknown;
        }
    }
    for equation in 0..equations.len() {
        if matching.unknown_of[equation] == usize::MAX {
            matching.augment(equation);
        }
    }
    matching
}

impl Matching {
    /// Breadth-first search for a free unknown from a free equation.
    fn augment(&mut self, start: usize) {
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(equation) = queue.pop_front() {
            for unknown in self.incidence[equation].clone() {
                if came_from.contains_key(&unknown) {
                    continue;
                }
                came_from.insert(unknown, equation);
                match self.equation_of[unknown] {
                    Some(other) => queue.push_back(other),
                    None => return self.flip(unknown, start, &came_from),
                }
            }
        }
    }

    fn flip(&mut self, free: usize, start: usize, came_from: &HashMap<usize, usize>) {
        let mut unknown = free;
        loop {
            let equation = came_from[&unknown];
            let before = self.unknown_of[equation];
            self.unknown_of[equation] = unknown;
            self.equation_of[unknown] = Some(equation);
            if equation == start {
                return;
            }
            unknown = before;
        }
    }
}

pub fn check_balance(
    graph: &Graph,
    unknowns: &Unknowns,
    variables: &[Variable],
    equations: &[FlatEquation],
    matching: &Matching,
    text: &Text<'_>,
) -> Result<(), Vec<Diagnostic>> {
    let free: Vec<usize> = (0..unknowns.leaves.len())
        .filter(|unknown| matching.equation_of[*unknown].is_none())
        .collect();
    let idle: Vec<usize> = (0..equations.len())
        .filter(|equation| matching.unknown_of[*equation] == usize::MAX)
        .collect();
    if free.is_empty() && idle.is_empty() {
        return Ok(());
    }
    let count = format!("{} equations for {} unknowns", equations.len(), unknowns.leaves.len());
    let constrains = |equation: &&usize| {
        matching.incidence[**equation].is_empty() && constrains_state(graph, unknowns, &equations[**equation])
    };
    if let Some(constraint) = idle.iter().find(constrains) {
        return Err(vec![higher_index(
            *constraint,
            &free,
            unknowns,
            variables,
            equations,
            text,
        )]);
    }
    let mut errors = Vec::new();
    for unknown in free.iter().take(10) {
        let name = unknowns.name(*unknown, variables);
        let variable = &variables[unknowns.variable(*unknown) as usize];
        let message = format!("no equation determines `{name}` ({count})");
        let error = text.error(variable.span, "unbalanced", message);
        errors.push(error.remedy(format!(
            "add an equation for `{name}`, or make it a parameter or an input"
        )));
    }
    for equation in idle.iter().take(10) {
        let names: Vec<String> = matching.incidence[*equation]
            .iter()
            .map(|unknown| unknowns.name(*unknown, variables))
            .collect();
        let message = match names.as_slice() {
            [] => format!("this equation contains no unknown ({count})"),
            _ => format!(
                "this equation is one too many: what it contains ({}) is already determined ({count})",
                names.join(", ")
            ),
        };
        let mut error = text.error(equations[*equation].span, "unbalanced", message);
        error = error.remedy("remove it, or declare another variable that it shall determine");
        for unknown in matching.incidence[*equation].iter().take(3) {
            if let Some(other) = matching.equation_of[*unknown] {
                let name = unknowns.name(*unknown, variables);
                error = error.note(
                    text.source,
                    equations[other].span.start,
                    format!("`{name}` is determined here"),
                );
            }
        }
        errors.push(error);
    }
    Err(errors)
}

/// What lacks an equation and what has one too many are two sides of one thing here: one message for both.
fn higher_index(
    constraint: usize,
    free: &[usize],
    unknowns: &Unknowns,
    variables: &[Variable],
    equations: &[FlatEquation],
    text: &Text<'_>,
) -> Diagnostic {
    let message = "this equation constrains states and contains no unknown: the system has a higher index";
    let mut error = text.error(equations[constraint].span, "unbalanced", message.to_string());
    for unknown in free.iter().take(3) {
        let name = unknowns.name(*unknown, variables);
        let place = variables[unknowns.variable(*unknown) as usize].span.start;
        error = error.note(text.source, place, format!("`{name}` is left without an equation"));
    }
    error.remedy("differentiate the constraint by hand until it contains an unknown, or choose other states")
}

fn constrains_state(graph: &Graph, unknowns: &Unknowns, equation: &FlatEquation) -> bool {
    let leaves = graph.leaves(&[equation.left, equation.right]);
    leaves
        .iter()
        .any(|leaf| matches!(leaf, Leaf::Variable(variable) if unknowns.states.contains(variable)))
}

/// Tarjan's strongly connected components of the matched equations, dependencies first, without recursion.
pub fn order(equations: &[FlatEquation], matching: &Matching) -> Vec<Vec<usize>> {
    let count = equations.len();
    let successors = |equation: usize| {
        matching.incidence[equation]
            .iter()
            .filter_map(move |unknown| matching.equation_of[*unknown])
            .filter(move |other| *other != equation)
    };
    let mut index = vec![usize::MAX; count];
    let mut low = vec![0; count];
    let mut on_stack = vec![false; count];
    let mut stack = Vec::new();
    let mut blocks = Vec::new();
    let mut next = 0;
    for root in 0..count {
        if index[root] != usize::MAX {
            continue;
        }
        let mut calls: Vec<(usize, Vec<usize>)> = vec![(root, successors(root).collect())];
        index[root] = next;
        low[root] = next;
        next += 1;
        stack.push(root);
        on_stack[root] = true;
        while let Some((equation, pending)) = calls.last_mut() {
            let equation = *equation;
            if let Some(other) = pending.pop() {
                if index[other] == usize::MAX {
                    index[other] = next;
                    low[other] = next;
                    next += 1;
                    stack.push(other);
                    on_stack[other] = true;
                    calls.push((other, successors(other).collect()));
                } else if on_stack[other] {
                    low[equation] = low[equation].min(index[other]);
                }
                continue;
            }
            calls.pop();
            if let Some((parent, _)) = calls.last() {
                low[*parent] = low[*parent].min(low[equation]);
            }
            if low[equation] == index[equation] {
                let mut block = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    block.push(member);
                    if member == equation {
                        break;
                    }
                }
                block.sort_unstable();
                blocks.push(block);
            }
        }
    }
    blocks
}
