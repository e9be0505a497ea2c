//! Second tangents of the model's own functions along one direction: `*_jvp2` writes the first tangents and then the second
//! ones, f'[x'] and f''[x', x'] + f'[x''], for x' at the DOT places and x'' at the DOT2 places.

use super::reverse::{Bars, address, tangents};
use super::{Emitter, Hoisted};
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};

/// The functions of the module that are differentiated, by the name of their tangent and of both.
const NAMES: [(&str, &str); 6] = [
    ("rhs_jvp", "rhs_jvp2"),
    ("outputs_jvp", "outputs_jvp2"),
    ("guards_jvp", "guards_jvp2"),
    ("update_jvp", "update_jvp2"),
    ("starts_jvp", "starts_jvp2"),
    ("slots_jvp", "slots_jvp2"),
];

/// What a module without second derivatives answers.
pub const ABSENT: &str = "fn second(ctx: i32) -> i32 { return fail(ctx, BAD_PLAN, 0, 0, 0.0, 2.0); }\n";

/// Each function's first tangents and then the second ones.
pub fn second_tangents(
    graph: &mut Graph,
    system: &System,
    hoisted: &Hoisted,
    dots: Bars,
    dots2: Bars,
) -> Vec<(String, Vec<Id>)> {
    let mut all = Vec::new();
    for (name, first) in tangents(graph, system, hoisted, &Vec::new(), dots) {
        let second = derive::forward_seeded(graph, &first, |graph, leaf| {
            let at = match leaf {
                Leaf::Word(word) => again(word, dots, dots2, system)?,
                other => address(system, other, dots)?,
            };
            Some(graph.leaf(Leaf::Word(at)))
        });
        if let Some((_, both)) = NAMES.iter().find(|(known, _)| *known == name) {
            all.push(((*both).to_string(), first.into_iter().chain(second).collect()));
        }
    }
    all
}

/// Where the second tangent is whose first one is at `word`; a parameter's is 0, for directions are straight.
fn again(word: u32, dots: Bars, dots2: Bars, system: &System) -> Option<u32> {
    let carried = 8 * (system.states.len() + system.memory.len()) as u32;
    let inputs = 8 * system.inputs.len() as u32;
    if (dots.states..dots.states + carried).contains(&word) {
        Some(dots2.states + word - dots.states)
    } else if word == dots.time {
        Some(dots2.time)
    } else if (dots.inputs..dots.inputs + inputs).contains(&word) {
        Some(dots2.inputs + word - dots.inputs)
    } else if word >= dots.slots {
        Some(dots2.slots + word - dots.slots)
    } else {
        None
    }
}

/// Places of the second tangents, behind those of the first ones.
pub fn place(system: &System, slots: u32, next: &mut impl FnMut(&str, u32) -> u32) -> Bars {
    let n = system.states.len() as u32;
    let carried = n + system.memory.len() as u32;
    let guards = system.guards.len() as u32;
    let dots2 = Bars {
        slots: next("SLOT_DOT2", 8 * slots),
        time: next("T_DOT2", 8),
        inputs: next("U_DOT2", 8 * system.inputs.len() as u32),
        ..Bars::default()
    };
    next("SLOPE_DOTS", 8 * 14 * n);
    next("WEIGHTS2", 8 * 7);
    next("START_DOT2", 8 * n);
    next("STAGE_DOT2", 8 * n);
    next("START_TIME2", 8);
    next("EVENT_DOT2", 8);
    next("GUARD_DOTS", 16 * guards);
    next("AFTER_DOTS", 16 * carried);
    dots2
}

impl Emitter<'_> {
    pub fn declare_second(&mut self) {
        self.declare_all(&NAMES.map(|(_, both)| both));
    }
}
