//! What an event does, in explicit form: every variable in a when-clause over what was before the event.

use std::collections::HashMap;

use super::{Placement, Text};
use crate::diagnostic::Diagnostic;
use crate::flatten::{Hybrid, Kind, Variable};
use crate::graph::{Graph, Id, Leaf};

/// The events of a system, over states, memory, parameters, inputs and time.
pub struct Placed {
    pub memory: Vec<u32>,
    pub guards: Vec<(Id, Id)>,
    /// States, then memory, after the event.
    pub update: Vec<Id>,
}

pub fn place(
    graph: &mut Graph,
    variables: &[Variable],
    states: &[u32],
    hybrid: &Hybrid,
    place: &mut Placement,
    text: &Text<'_>,
) -> Result<Placed, Vec<Diagnostic>> {
    let discrete: Vec<u32> = (0..variables.len() as u32)
        .filter(|index| variables[*index as usize].kind == Kind::Discrete)
        .collect();
    let mut memory = discrete.clone();
    memory.extend(&hybrid.remembered);
    memory.sort_unstable();
    memory.dedup();
    let mut guards = Vec::new();
    for guard in &hybrid.guards {
        guards.push((place.apply(graph, guard.root), place.apply(graph, guard.relation)));
    }
    // Assigned variables over states, other assigned variables, and what was before.
    let mut assigned: HashMap<Leaf, Id> = HashMap::new();
    for index in discrete {
        let before = graph.leaf(Leaf::Pre(index));
        let value = chosen(graph, hybrid, index, false, before);
        let placed = place.apply(graph, value);
        assigned.insert(Leaf::Variable(index), placed);
    }
    let order = in_order(graph, &assigned, variables, hybrid, text)?;
    let mut known: HashMap<Leaf, Id> = HashMap::new();
    for leaf in order {
        let value = graph.substitute(&[assigned[&leaf]], |leaf| known.get(&leaf).copied())[0];
        known.insert(leaf, value);
    }
    let mut update = Vec::new();
    for state in states {
        let leaf = graph.leaf(Leaf::Variable(*state));
        let value = chosen(graph, hybrid, *state, true, leaf);
        update.push(place.apply(graph, value));
    }
    if let Some(action) = hybrid
        .actions
        .iter()
        .find(|action| action.reinit && !states.contains(&action.variable))
    {
        let name = &variables[action.variable as usize].name;
        let message = format!("`reinit` of `{name}`, which is no state");
        let error = text.error(action.span, "type", message);
        return Err(vec![error.remedy(format!(
            "a state is a variable whose derivative `der({name})` an equation contains"
        ))]);
    }
    for index in &memory {
        let leaf = graph.leaf(Leaf::Variable(*index));
        update.push(place.apply(graph, leaf));
    }
    let update = graph.substitute(&update, |leaf| known.get(&leaf).copied());
    Ok(Placed { memory, guards, update })
}

/// The value of the first action on `variable` that fires, `otherwise` where none does.
fn chosen(graph: &mut Graph, hybrid: &Hybrid, variable: u32, reinit: bool, otherwise: Id) -> Id {
    let actions = hybrid
        .actions
        .iter()
        .rev()
        .filter(|action| action.variable == variable && action.reinit == reinit);
    actions.fold(otherwise, |value, action| {
        graph.select(action.fires, action.value, value)
    })
}

/// The assigned variables in an order in which each depends on earlier ones alone.
fn in_order(
    graph: &Graph,
    assigned: &HashMap<Leaf, Id>,
    variables: &[Variable],
    hybrid: &Hybrid,
    text: &Text<'_>,
) -> Result<Vec<Leaf>, Vec<Diagnostic>> {
    let mut open: Vec<Leaf> = assigned.keys().copied().collect();
    open.sort_unstable();
    let needs: HashMap<Leaf, Vec<Leaf>> = open
        .iter()
        .map(|leaf| {
            let mut leaves = graph.leaves(&[assigned[leaf]]);
            leaves.retain(|leaf| assigned.contains_key(leaf));
            (*leaf, leaves)
        })
        .collect();
    let mut order: Vec<Leaf> = Vec::new();
    while !open.is_empty() {
        let before = open.len();
        let mut waiting = Vec::new();
        for leaf in open {
            if needs[&leaf].iter().all(|need| order.contains(need)) {
                order.push(leaf);
            } else {
                waiting.push(leaf);
            }
        }
        if waiting.len() == before {
            let name = |leaf: &Leaf| match leaf {
                Leaf::Variable(index) => variables[*index as usize].name.clone(),
                _ => String::new(),
            };
            let names: Vec<String> = waiting.iter().map(name).collect();
            let span = hybrid
                .actions
                .iter()
                .find(|action| Leaf::Variable(action.variable) == waiting[0])
                .map_or_else(Default::default, |action| action.span);
            let message = format!(
                "at one event these variables determine each other: {}",
                names.join(", ")
            );
            let error = text.error(span, "algebraic-loop", message);
            return Err(vec![error.remedy("use `pre(…)` for the value before the event")]);
        }
        open = waiting;
    }
    Ok(order)
}
