//! Which equation determines which variable, and in what order.
//!
//! Matching pairs every unknown (algebraic variables and derivatives of states) with an equation; Tarjan's algorithm
//! orders the pairs into blocks. A block of one equation that is linear in its unknown is solved symbolically and put
//! in place of the unknown, so that what remains is explicit in states, inputs, parameters and time. What is left are
//! algebraic loops: they are torn, and their last unknowns are found by iteration wherever the model is evaluated.

use std::collections::HashMap;

mod events;
mod initial;
mod matching;
mod tearing;

use matching::{Matching, Unknowns, check_balance, match_equations, order};

use crate::derive;
use crate::diagnostic::Diagnostic;
use crate::flatten::{Flat, FlatEquation, Kind, Variable};
use crate::graph::{Binary, Graph, Id, Leaf, Node, Unary};
use crate::syntax::Span;

/// An explicit system.
#[derive(Debug)]
pub struct System {
    pub graph: Graph,
    pub variables: Vec<Variable>,
    pub states: Vec<u32>,
    pub inputs: Vec<u32>,
    pub parameters: Vec<u32>,
    /// The derivative of each state.
    pub derivatives: Vec<Id>,
    /// The start value of each state, over parameters.
    pub starts: Vec<Id>,
    /// The start value of each input, over parameters.
    pub input_starts: Vec<Id>,
    /// Variables that change with time with their values: outputs first.
    pub columns: Vec<(u32, Id)>,
    /// Name and place of each equation; those of the states' derivatives come first, in the states' order.
    pub equations: Vec<(String, Span)>,
    /// For each column the equation that determines it, from 1; 0 for inputs.
    pub column_equations: Vec<u32>,
    /// Discrete-time variables with a word of memory, in order.
    pub memory: Vec<u32>,
    pub memory_starts: Vec<Id>,
    /// Relations that make events: a root that changes sign with each, and its truth.
    pub guards: Vec<(Id, Id)>,
    /// States and memory after an event, over what they were before it.
    pub update: Vec<Id>,
    /// Truths that must hold at every accepted step and in every row; their places end `equations`.
    pub assertions: Vec<Id>,
    /// The unknowns of algebraic loops, block after block in the order in which they can be solved: `Leaf::Loop`.
    pub loops: Vec<LoopUnknown>,
    /// States that initial equations determine, in the states' order.
    pub initial: Vec<Initial>,
}

/// An unknown that an iteration finds.
#[derive(Debug)]
pub struct LoopUnknown {
    /// What the iteration makes zero; the residuals of a block belong to all its unknowns.
    pub residual: Id,
    /// Where the iteration starts at first, over parameters.
    pub start: Id,
    pub nominal: f64,
    /// The residual's equation, from 1.
    pub equation: u32,
    pub block: usize,
}

/// A state that starts where an initial equation holds.
#[derive(Debug)]
pub struct Initial {
    pub state: u32,
    pub residual: Id,
    /// From 1.
    pub equation: u32,
}

/// At most this many unknowns are found by iteration: their matrix is dense.
const MAX_LOOPS: usize = 400;

/// What the front of an error message needs.
pub struct Text<'a> {
    pub source: &'a str,
    pub file: &'a str,
}

impl Text<'_> {
    fn error(&self, span: Span, code: &str, message: String) -> Diagnostic {
        Diagnostic::at(self.source, self.file, span.range(), code, message)
    }
}

/// Brings a flat model into explicit form.
pub fn causalise(flat: Flat, text: &Text<'_>) -> Result<System, Vec<Diagnostic>> {
    let Flat {
        mut graph,
        variables,
        equations,
        initial_equations,
        hybrid,
        assertions,
        ..
    } = flat;
    let values = parameter_values(&mut graph, &variables, text)?;
    let unknowns = Unknowns::find(&graph, &variables, &equations);
    let matching = match_equations(&graph, &unknowns, &equations);
    check_balance(&graph, &unknowns, &variables, &equations, &matching, text)?;
    let blocks = order(&equations, &matching);
    let mut place = Placement {
        memo: HashMap::new(),
        solved: HashMap::new(),
        values,
    };
    let mut torn = Vec::new();
    for block in &blocks {
        if let [equation] = block.as_slice() {
            let unknown = unknowns.leaves[matching.unknown_of[*equation]];
            if let Some(explicit) = solve_for(&mut graph, &equations[*equation], unknown) {
                let placed = place.apply(&mut graph, explicit);
                place.solved.insert(unknown, placed);
                continue;
            }
        }
        if let Some(error) = discrete_loop(block, &matching, &unknowns, &variables, &equations, text) {
            return Err(vec![error]);
        }
        let part = tearing::tear(&mut graph, block, &matching, &unknowns, &variables, &equations);
        let before = torn
            .iter()
            .map(|part: &tearing::Torn| part.iterated.len())
            .sum::<usize>();
        if before + part.iterated.len() > MAX_LOOPS {
            let message = format!("algebraic loops have more than {MAX_LOOPS} unknowns that only an iteration finds");
            let error = text.error(equations[part.residuals[0]].span, "limit", message);
            return Err(vec![error.remedy("solve some of the equations by hand")]);
        }
        for (number, unknown) in part.iterated.iter().enumerate() {
            let leaf = graph.leaf(Leaf::Loop((before + number) as u32));
            place.solved.insert(unknowns.leaves[*unknown], leaf);
        }
        for (unknown, value) in &part.following {
            let placed = place.apply(&mut graph, *value);
            place.solved.insert(unknowns.leaves[*unknown], placed);
        }
        torn.push(part);
    }
    let events = events::place(&mut graph, &variables, &unknowns.states, &hybrid, &mut place, text)?;
    let conditions = assertions
        .iter()
        .map(|assertion| place.apply(&mut graph, assertion.condition))
        .collect();
    let (mut system, numbers) = assemble(
        graph, variables, &equations, &unknowns, &matching, &blocks, &mut place, events,
    );
    for (block, part) in torn.iter().enumerate() {
        for (unknown, equation) in part.iterated.iter().zip(&part.residuals) {
            let number = numbers[&unknowns.leaves[matching.unknown_of[*equation]]];
            let leaf = unknowns.leaves[*unknown];
            let unknown = loop_unknown(&mut system, &mut place, leaf, &equations[*equation], number, block);
            system.loops.push(unknown);
        }
    }
    system.initial = initial::place(&mut system, &initial_equations, &mut place, text)?;
    let initial = initial_equations
        .iter()
        .map(|equation| ("start".to_string(), equation.span));
    system.equations.extend(initial);
    let guards = hybrid.guards.iter().map(|guard| ("event".to_string(), guard.span));
    system.equations.extend(guards);
    system.assertions = conditions;
    let places = assertions
        .into_iter()
        .map(|assertion| (assertion.message, assertion.span));
    system.equations.extend(places);
    Ok(system)
}

/// Every dependent parameter as a node over parameters with values of their own.
fn parameter_values(
    graph: &mut Graph,
    variables: &[Variable],
    text: &Text<'_>,
) -> Result<HashMap<Leaf, Id>, Vec<Diagnostic>> {
    let mut values: HashMap<Leaf, Id> = HashMap::new();
    let mut open: Vec<u32> = (0..variables.len() as u32)
        .filter(|index| variables[*index as usize].kind == Kind::Dependent)
        .collect();
    while !open.is_empty() {
        let before = open.len();
        let mut waiting = Vec::new();
        for index in open {
            let Some(value) = variables[index as usize].value else {
                continue;
            };
            let ready = graph.leaves(&[value]).into_iter().all(|leaf| match leaf {
                Leaf::Variable(other) => {
                    variables[other as usize].kind != Kind::Dependent || values.contains_key(&leaf)
                }
                _ => true,
            });
            if ready {
                let placed = graph.substitute(&[value], |leaf| values.get(&leaf).copied())[0];
                values.insert(Leaf::Variable(index), placed);
            } else {
                waiting.push(index);
            }
        }
        if waiting.len() == before {
            let names: Vec<&str> = waiting
                .iter()
                .map(|index| variables[*index as usize].name.as_str())
                .collect();
            let message = format!("these parameters define each other: {}", names.join(", "));
            let error = text.error(variables[waiting[0] as usize].span, "circular-parameters", message);
            return Err(vec![error.remedy("give one of them a value of its own")]);
        }
        open = waiting;
    }
    Ok(values)
}

fn loop_unknown(
    system: &mut System,
    place: &mut Placement,
    unknown: Leaf,
    equation: &FlatEquation,
    number: u32,
    block: usize,
) -> LoopUnknown {
    let graph = &mut system.graph;
    let difference = graph.sub(equation.left, equation.right);
    let (start, nominal) = match unknown {
        Leaf::Variable(index) => {
            let variable = &system.variables[index as usize];
            (variable.start, variable.nominal)
        }
        _ => (None, None),
    };
    LoopUnknown {
        residual: place.apply(graph, difference),
        start: match start {
            Some(start) => place.apply(graph, start),
            None => graph.constant(0.0),
        },
        nominal: nominal.unwrap_or(1.0),
        equation: number,
        block,
    }
}

/// What is wrong with a loop that contains a Boolean or Integer: no iteration of real numbers finds it.
fn discrete_loop(
    block: &[usize],
    matching: &Matching,
    unknowns: &Unknowns,
    variables: &[Variable],
    equations: &[FlatEquation],
    text: &Text<'_>,
) -> Option<Diagnostic> {
    let discrete = block.iter().find(|equation| {
        let unknown = matching.unknown_of[**equation];
        variables[unknowns.variable(unknown) as usize].discrete
    })?;
    let names: Vec<String> = block
        .iter()
        .take(8)
        .map(|equation| unknowns.name(matching.unknown_of[*equation], variables))
        .collect();
    let name = unknowns.name(matching.unknown_of[*discrete], variables);
    let message = match names.as_slice() {
        [_] => format!("this equation cannot be solved for `{name}`, which is Boolean or Integer"),
        _ => format!(
            "{} equations determine {} only together, and `{name}` is Boolean or Integer: an algebraic loop without a solution by iteration",
            block.len(),
            names.join(", ")
        ),
    };
    let mut error = text
        .error(equations[*discrete].span, "algebraic-loop", message)
        .remedy(format!(
            "break the loop, e.g. let `pre({name})` stand for its value before the event"
        ));
    for equation in block.iter().filter(|equation| *equation != discrete).take(7) {
        let place = equations[*equation].span.start;
        error = error.note(text.source, place, "this equation belongs to it");
    }
    Some(error)
}

/// `equation` solved for `unknown`, if it is linear in it.
fn solve_for(graph: &mut Graph, equation: &FlatEquation, unknown: Leaf) -> Option<Id> {
    let leaf = graph.leaf(unknown);
    let contains = |graph: &Graph, id: Id| graph.leaves(&[id]).contains(&unknown);
    let (mut side, mut other) = (equation.left, equation.right);
    match (contains(graph, side), contains(graph, other)) {
        (true, false) => {}
        (false, true) => std::mem::swap(&mut side, &mut other),
        _ => return solve_linear(graph, equation, unknown),
    }
    // Peel operations off the side that contains the unknown, as one would on paper.
    while side != leaf {
        match graph.node(side) {
            Node::Unary(Unary::Neg, a) => {
                other = graph.neg(other);
                side = a;
            }
            Node::Binary(op, a, b) => match (op, contains(graph, a), contains(graph, b)) {
                (Binary::Add, true, false) => {
                    other = graph.sub(other, b);
                    side = a;
                }
                (Binary::Add, false, true) => {
                    other = graph.sub(other, a);
                    side = b;
                }
                (Binary::Sub, true, false) => {
                    other = graph.add(other, b);
                    side = a;
                }
                (Binary::Sub, false, true) => {
                    other = graph.sub(a, other);
                    side = b;
                }
                (Binary::Mul, true, false) => {
                    other = graph.div(other, b);
                    side = a;
                }
                (Binary::Mul, false, true) => {
                    other = graph.div(other, a);
                    side = b;
                }
                (Binary::Div, true, false) => {
                    other = graph.mul(other, b);
                    side = a;
                }
                (Binary::Div, false, true) => {
                    other = graph.div(a, other);
                    side = b;
                }
                _ => return solve_linear(graph, equation, unknown),
            },
            _ => return solve_linear(graph, equation, unknown),
        }
    }
    Some(other)
}

/// −r(0)/r′ for a residual r linear in the unknown.
fn solve_linear(graph: &mut Graph, equation: &FlatEquation, unknown: Leaf) -> Option<Id> {
    let residual = graph.sub(equation.left, equation.right);
    let slope = derive::forward(graph, &[residual], unknown)[0];
    if graph.value(slope) == Some(0.0) || graph.leaves(&[slope]).contains(&unknown) {
        return None;
    }
    let zero = graph.constant(0.0);
    let at_zero = graph.substitute(&[residual], |leaf| (leaf == unknown).then_some(zero))[0];
    let negative = graph.neg(at_zero);
    Some(graph.div(negative, slope))
}

/// Replaces solved unknowns and dependent parameters; remembers every node it has seen.
struct Placement {
    memo: HashMap<Id, Id>,
    solved: HashMap<Leaf, Id>,
    values: HashMap<Leaf, Id>,
}

impl Placement {
    fn apply(&mut self, graph: &mut Graph, root: Id) -> Id {
        let mut open = vec![root];
        while let Some(id) = open.last().copied() {
            if self.memo.contains_key(&id) {
                open.pop();
                continue;
            }
            if let Node::Leaf(leaf) = graph.node(id) {
                let target = self
                    .solved
                    .get(&leaf)
                    .or_else(|| self.values.get(&leaf))
                    .copied()
                    .unwrap_or(id);
                self.memo.insert(id, target);
                open.pop();
                continue;
            }
            let missing: Vec<Id> = graph
                .operands(id)
                .filter(|operand| !self.memo.contains_key(operand))
                .collect();
            if missing.is_empty() {
                let new = graph.rebuild(id, |operand| self.memo.get(&operand).copied().unwrap_or(operand));
                self.memo.insert(id, new);
                open.pop();
            } else {
                open.extend(missing);
            }
        }
        self.memo[&root]
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one result, each made by another step"
)]
fn assemble(
    mut graph: Graph,
    variables: Vec<Variable>,
    equations: &[FlatEquation],
    unknowns: &Unknowns,
    matching: &Matching,
    blocks: &[Vec<usize>],
    place: &mut Placement,
    events: events::Placed,
) -> (System, HashMap<Leaf, u32>) {
    let states = unknowns.states.clone();
    let derivatives: Vec<Id> = states
        .iter()
        .map(|state| place.solved[&Leaf::Derivative(*state)])
        .collect();
    let start_of = |graph: &mut Graph, place: &mut Placement, index: u32| match variables[index as usize].start {
        Some(start) => place.apply(graph, start),
        None => graph.constant(0.0),
    };
    let starts = states.iter().map(|state| start_of(&mut graph, place, *state)).collect();
    let of_kind = |kind: Kind| -> Vec<u32> {
        (0..variables.len() as u32)
            .filter(|index| variables[*index as usize].kind == kind)
            .collect()
    };
    let inputs = of_kind(Kind::Input);
    let parameters = of_kind(Kind::Parameter);
    let input_starts = inputs.iter().map(|input| start_of(&mut graph, place, *input)).collect();
    // Equations of the states first, then the others in the order in which they are solved.
    let mut numbers: HashMap<Leaf, u32> = HashMap::new();
    let mut named = Vec::new();
    let solved: Vec<(Leaf, usize)> = blocks
        .iter()
        .flatten()
        .map(|equation| (unknowns.leaves[matching.unknown_of[*equation]], *equation))
        .collect();
    let by_leaf: HashMap<Leaf, usize> = solved.iter().copied().collect();
    let rest = solved
        .iter()
        .map(|(leaf, _)| *leaf)
        .filter(|leaf| !matches!(leaf, Leaf::Derivative(_)));
    for leaf in states.iter().map(|state| Leaf::Derivative(*state)).chain(rest) {
        named.push((
            unknowns.name(unknowns.index[&leaf], &variables),
            equations[by_leaf[&leaf]].span,
        ));
        numbers.insert(leaf, named.len() as u32);
    }
    let changing = |index: &u32| {
        let variable = &variables[*index as usize];
        matches!(variable.kind, Kind::Unknown | Kind::Discrete) && !variable.name.starts_with('$')
    };
    let memory_starts = events
        .memory
        .iter()
        .map(|index| start_of(&mut graph, place, *index))
        .collect();
    let outputs = (0..variables.len() as u32).filter(|index| variables[*index as usize].output);
    let others = (0..variables.len() as u32)
        .filter(changing)
        .filter(|index| !variables[*index as usize].output);
    let mut columns = Vec::new();
    let mut column_equations = Vec::new();
    for index in outputs.chain(others) {
        let leaf = Leaf::Variable(index);
        let value = place.solved.get(&leaf).copied().unwrap_or_else(|| graph.leaf(leaf));
        let number = numbers
            .get(&leaf)
            .or_else(|| numbers.get(&Leaf::Derivative(index)))
            .copied();
        columns.push((index, value));
        column_equations.push(number.unwrap_or(0));
    }
    let system = System {
        graph,
        variables,
        states,
        inputs,
        parameters,
        derivatives,
        starts,
        input_starts,
        columns,
        equations: named,
        column_equations,
        memory: events.memory,
        memory_starts,
        guards: events.guards,
        update: events.update,
        assertions: Vec::new(),
        loops: Vec::new(),
        initial: Vec::new(),
    };
    (system, numbers)
}
