//! Initial equations: which states they determine.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::{Initial, LoopUnknown, Placement, System, Text};
use crate::diagnostic::Diagnostic;
use crate::flatten::{FlatEquation, Hybrid, Kind, Variable};
use crate::graph::{Graph, Id, Leaf, Node};

/// The initial equations with those that `fixed = true` means for variables that are no states (8.6): where a state starts
/// is its start value anyway, and what changes at events only starts from its own.
pub fn with_fixed(system: &mut System, mut equations: Vec<FlatEquation>) -> Vec<FlatEquation> {
    for (index, variable) in system.variables.iter().enumerate() {
        let leaf = Leaf::Variable(index as u32);
        let state = system.states.contains(&(index as u32));
        if !variable.fixed || variable.discrete || variable.kind != Kind::Unknown || state {
            continue;
        }
        let start = variable.start.unwrap_or_else(|| system.graph.constant(0.0));
        equations.push(FlatEquation {
            left: system.graph.leaf(leaf),
            right: start,
            span: variable.span,
        });
    }
    equations
}

/// Pairs each initial equation with a state that is not `fixed`: those without a start value first, as the start value of
/// the others stands where no equation is needed (Modelica 3.6, section 8.6). Numbers of equations go on from the system's.
pub fn place(
    system: &mut System,
    equations: &[FlatEquation],
    hybrid: &Hybrid,
    place: &mut Placement,
    text: &Text<'_>,
) -> Result<Vec<Initial>, Vec<Diagnostic>> {
    let set_at_start = set_at_start(&mut system.graph, hybrid);
    let rounded = rounded(system, hybrid, place);
    let numbered = system.equations.len();
    let System {
        graph,
        variables,
        states,
        loops,
        ..
    } = system;
    let mut candidates: Vec<u32> = states
        .iter()
        .copied()
        .filter(|state| !variables[*state as usize].fixed)
        .collect();
    candidates.sort_by_key(|state| (variables[*state as usize].start.is_some(), *state));
    let residuals: Vec<Id> = equations
        .iter()
        .map(|equation| {
            let difference = graph.sub(equation.left, equation.right);
            let placed = place.apply(graph, difference);
            rounded_now(graph, placed, &rounded)
        })
        .collect();
    let reads: Vec<HashSet<Leaf>> = residuals
        .iter()
        .map(|residual| reached(graph, *residual, loops))
        .collect();
    for (equation, reads) in equations.iter().zip(&reads) {
        if let Some(variable) = set_at_start.iter().find(|one| reads.contains(&Leaf::Variable(**one))) {
            return Err(vec![reads_the_start(&variables[*variable as usize], equation, text)]);
        }
    }
    let mut equation_of: HashMap<u32, usize> = HashMap::new();
    for start in 0..equations.len() {
        if let Err(seen) = augment(start, &candidates, &reads, &mut equation_of) {
            let span = equations[start].span;
            let names: Vec<&str> = states
                .iter()
                .filter(|state| reads[start].contains(&Leaf::Variable(**state)))
                .map(|state| variables[*state as usize].name.as_str())
                .collect();
            let (message, remedy) = match names.as_slice() {
                [] if at_events(graph, variables, &equations[start]) => (
                    "this initial equation is about what changes at events only, and contains no state".to_string(),
                    "give the variable a `start` value with `fixed = true`: it starts from that",
                ),
                [] => (
                    "this initial equation contains no state, nor anything that depends on one".to_string(),
                    "remove it; an initial equation determines where a state starts",
                ),
                _ => (
                    format!(
                        "this initial equation is one too many: where {} starts is given already",
                        names.join(", ")
                    ),
                    "remove it, or take `fixed = true` from a state that it shall determine",
                ),
            };
            let mut error = text.error(span, "unbalanced", message).remedy(remedy);
            for other in seen.into_iter().filter(|other| *other != start).take(3) {
                error = error.note(
                    text.source,
                    equations[other].span.start,
                    "this one determines a state it contains",
                );
            }
            return Err(vec![error]);
        }
    }
    let mut found: Vec<Initial> = equation_of
        .into_iter()
        .map(|(state, equation)| Initial {
            state,
            residual: residuals[equation],
            equation: (numbered + equation + 1) as u32,
        })
        .collect();
    found.sort_unstable_by_key(|initial| initial.state);
    Ok(found)
}

/// Breadth-first search for a free state; the equations that were seen where there is none.
fn augment(
    start: usize,
    candidates: &[u32],
    reads: &[HashSet<Leaf>],
    equation_of: &mut HashMap<u32, usize>,
) -> Result<(), Vec<usize>> {
    let mut came_from: HashMap<u32, usize> = HashMap::new();
    let mut seen = vec![start];
    let mut queue = VecDeque::from([start]);
    while let Some(equation) = queue.pop_front() {
        for state in candidates {
            if !reads[equation].contains(&Leaf::Variable(*state)) || came_from.contains_key(state) {
                continue;
            }
            came_from.insert(*state, equation);
            if let Some(other) = equation_of.get(state) {
                seen.push(*other);
                queue.push_back(*other);
                continue;
            }
            // Flip the path back to where it started.
            let mut free = *state;
            loop {
                let equation = came_from[&free];
                let before = equation_of
                    .iter()
                    .find(|(_, other)| **other == equation)
                    .map(|(state, _)| *state);
                equation_of.insert(free, equation);
                match before {
                    Some(before) => free = before,
                    None => return Ok(()),
                }
            }
        }
    }
    Err(seen)
}

/// Variables that the event at the start gives their values: it follows the initial equations, which cannot read them.
fn set_at_start(graph: &mut Graph, hybrid: &Hybrid) -> BTreeSet<u32> {
    let one = graph.constant(1.0);
    let mut found = BTreeSet::new();
    for action in hybrid.actions.iter().filter(|action| !action.reinit) {
        let fires = graph.substitute(&[action.fires], |leaf| (leaf == Leaf::Initial).then_some(one))[0];
        if !matches!(graph.node(fires), Node::Truth(false)) {
            found.insert(action.variable);
        }
    }
    found
}

fn reads_the_start(variable: &Variable, equation: &FlatEquation, text: &Text<'_>) -> Diagnostic {
    let message = if variable.name.starts_with('$') {
        "this initial equation depends on a rounded number in an algebraic loop".to_string()
    } else {
        let name = &variable.name;
        format!("this initial equation depends on `{name}`, which a when-clause gives its value at the start")
    };
    let error = text.error(equation.span, "unsupported", message);
    error.remedy("write the value itself into the initial equation, or give a `start` value")
}

/// What the memory of rounded numbers stands for at the start, where nothing is remembered yet.
fn rounded(system: &mut System, hybrid: &Hybrid, place: &mut Placement) -> HashMap<Leaf, Id> {
    let System { graph, variables, .. } = system;
    let kept = |variable: u32| variables[variable as usize].name.starts_with("$whole");
    let actions = hybrid.actions.iter().filter(|action| kept(action.variable));
    actions
        .map(|action| (Leaf::Variable(action.variable), place.apply(graph, action.value)))
        .collect()
}

/// `root` with rounded numbers as their expressions, also those that these contain.
fn rounded_now(graph: &mut Graph, root: Id, rounded: &HashMap<Leaf, Id>) -> Id {
    let mut root = root;
    for _ in 0..rounded.len() {
        let next = graph.substitute(&[root], |leaf| rounded.get(&leaf).copied())[0];
        if next == root {
            break;
        }
        root = next;
    }
    root
}

fn at_events(graph: &Graph, variables: &[Variable], equation: &FlatEquation) -> bool {
    let leaves = graph.leaves(&[equation.left, equation.right]);
    leaves.into_iter().any(|leaf| match leaf {
        Leaf::Pre(_) => true,
        Leaf::Variable(index) => variables[index as usize].discrete,
        _ => false,
    })
}

/// The leaves of a residual, and those of the loops that it depends on.
fn reached(graph: &Graph, residual: Id, loops: &[LoopUnknown]) -> HashSet<Leaf> {
    let mut leaves: HashSet<Leaf> = graph.leaves(&[residual]).into_iter().collect();
    let last = leaves.iter().filter_map(|leaf| match leaf {
        Leaf::Loop(number) => Some(loops[*number as usize].block),
        _ => None,
    });
    if let Some(last) = last.max() {
        let before = loops.iter().filter(|unknown| unknown.block <= last);
        let residuals: Vec<Id> = before.map(|unknown| unknown.residual).collect();
        leaves.extend(graph.leaves(&residuals));
    }
    leaves
}
