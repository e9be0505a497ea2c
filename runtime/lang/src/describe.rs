//! The description of a compiled model, as its custom section holds it.

use crate::abi;
use crate::causalise::System;
use crate::diagnostic::line_column;
use crate::emit::Places;
use crate::flatten::Variable;
use crate::graph::{Id, Leaf};
use crate::meta::{EquationInfo, Meta, Var};

/// Texts of the source.
pub struct Names<'a> {
    pub source: &'a str,
    pub file: &'a str,
    pub model: String,
    pub description: String,
}

/// Longer equations are cut in the description.
const MAX_EQUATION: usize = 160;

pub fn describe(system: &mut System, places: &Places, names: Names<'_>, second_derivatives: bool) -> Meta {
    let vars = |system: &mut System, list: &[u32], base: u32, default: &mut dyn FnMut(&mut System, usize) -> f64| {
        let mut all = Vec::new();
        for (index, variable) in list.iter().enumerate() {
            let default = default(system, index);
            all.push(var(
                &system.variables[*variable as usize],
                default,
                base + 8 * index as u32,
            ));
        }
        all
    };
    let states = system.states.clone();
    let parameters = system.parameters.clone();
    let inputs = system.inputs.clone();
    let columns: Vec<u32> = system.columns.iter().map(|(variable, _)| *variable).collect();
    let outputs: Vec<u32> = columns
        .iter()
        .copied()
        .take_while(|index| system.variables[*index as usize].output)
        .collect();
    let start = |system: &mut System, index: u32| {
        let position = system.states.binary_search(&index).ok();
        position.map_or(0.0, |position| default_of(system, system.starts[position]))
    };
    Meta {
        abi: abi::ABI,
        compiler: crate::COMPILER.to_string(),
        model: names.model,
        description: names.description,
        file: names.file.to_string(),
        lanes: 1,
        states: vars(system, &states, abi::persistent::STATES, &mut |system, index| {
            default_of(system, system.starts[index])
        }),
        inputs: vars(system, &inputs, 0, &mut |system, index| {
            default_of(system, system.input_starts[index])
        }),
        outputs: vars(system, &outputs, 8, &mut |system, index| start(system, outputs[index])),
        columns: vars(system, &columns, 8, &mut |system, index| start(system, columns[index])),
        parameters: vars(system, &parameters, places.parameters, &mut |system, index| {
            let value = system.variables[system.parameters[index] as usize].value;
            value.map_or(0.0, |value| default_of(system, value))
        }),
        context_bytes: places.context_bytes,
        persistent: abi::persistent::START..places.persistent_end,
        second_derivatives,
        checkpoint: abi::persistent::START..places.checkpoint_end,
        memory: system.memory.len() as u32,
        starts_at: places.starts,
        equations: system
            .equations
            .iter()
            .map(|(solves, span)| {
                let (line, column) = line_column(names.source, span.start);
                let text = names
                    .source
                    .get(span.range())
                    .unwrap_or("")
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                let text = text.chars().take(MAX_EQUATION).collect();
                EquationInfo {
                    solves: solves.clone(),
                    line,
                    column,
                    text,
                }
            })
            .collect(),
    }
}

/// The value with the default parameters; 0 where it has none.
fn default_of(system: &mut System, id: Id) -> f64 {
    let variables = &system.variables;
    let values: Vec<(Leaf, Option<Id>)> = system
        .graph
        .leaves(&[id])
        .into_iter()
        .map(|leaf| match leaf {
            Leaf::Variable(index) => (leaf, variables[index as usize].value),
            _ => (leaf, None),
        })
        .collect();
    let mut known = Vec::new();
    for (leaf, value) in values {
        known.push((leaf, value.and_then(|value| system.graph.value(value))));
    }
    let value = system.graph.evaluate(id, |leaf| {
        known
            .iter()
            .find(|(known, _)| *known == leaf)
            .and_then(|(_, value)| *value)
    });
    value.filter(|value| value.is_finite()).unwrap_or(0.0)
}

fn var(variable: &Variable, default: f64, offset: u32) -> Var {
    Var {
        name: variable.name.clone(),
        unit: variable.unit_text.clone(),
        default,
        min: variable.min.filter(|value| value.is_finite()),
        max: variable.max.filter(|value| value.is_finite()),
        nominal: variable.nominal,
        offset,
        description: variable.description.clone(),
    }
}
