//! Second tangents of the model's own functions along one direction: `*_jvp2` writes the first tangents and then the second
//! ones, f'[x'] and f''[x', x'] + f'[x''], for x' at the DOT places and x'' at the DOT2 places.

use super::reverse::{Bars, address};
use super::{Emitter, loops};
use crate::causalise::System;
use crate::derive;
use crate::graph::{Graph, Id, Leaf};

/// The functions that evaluate the model at a state, by the name of their tangent and of both.
pub const WRAPPED: [(&str, &str); 5] = [
    ("rhs_jvp", "rhs_jvp2"),
    ("outputs_jvp", "outputs_jvp2"),
    ("guards_jvp", "guards_jvp2"),
    ("update_jvp", "update_jvp2"),
    ("rhs_jvp_jvp", "rhs_jvp_jvp2"),
];

/// Those over parameters alone.
const PLAIN: [(&str, &str); 2] = [("starts_jvp", "starts_jvp2"), ("slots_jvp", "slots_jvp2")];

/// What a module without second derivatives answers.
pub const ABSENT: &str = "fn second(ctx: i32) -> i32 { return fail(ctx, BAD_PLAN, 0, 0, 0.0, 2.0); }\n";

/// Each function's first tangents, which are `tangents`, and then the second ones.
pub fn second_tangents(
    graph: &mut Graph,
    system: &System,
    tangents: &[(String, Vec<Id>)],
    dots: Bars,
    dots2: Bars,
) -> Vec<(String, Vec<Id>)> {
    let mut all = Vec::new();
    for (one, two) in WRAPPED.iter().chain(&PLAIN) {
        let known = loops::inner(system, one);
        if let Some((_, first)) = tangents.iter().find(|(name, _)| *name == known) {
            all.push((loops::inner(system, two), both(graph, system, first, dots, dots2)));
        }
    }
    all
}

/// First tangents and the second ones that belong to them.
pub fn both(graph: &mut Graph, system: &System, first: &[Id], dots: Bars, dots2: Bars) -> Vec<Id> {
    let second = derive::forward_seeded(graph, first, |graph, leaf| {
        let at = match leaf {
            Leaf::Word(word) => again(word, dots, dots2, system)?,
            other => address(system, other, dots)?,
        };
        Some(graph.leaf(Leaf::Word(at)))
    });
    first.iter().copied().chain(second).collect()
}

/// Where the second tangent is whose first one is at `word`; those of parameters and of the slopes of inputs are 0, for
/// directions are straight, and the direction that Rodas5P takes a derivative along is held.
fn again(word: u32, dots: Bars, dots2: Bars, system: &System) -> Option<u32> {
    let carried = (system.states.len() + system.memory.len()) as u32;
    let unknowns = system.loops.len() as u32;
    let vectors = [
        (dots.states, dots2.states, carried),
        (dots.time, dots2.time, 1),
        (dots.inputs, dots2.inputs, system.inputs.len() as u32),
        // The slots lie between these two, however many they are.
        (dots.slots, dots2.slots, (dots.loops - dots.slots) / 8),
        (dots.loops, dots2.loops, unknowns),
        (dots.loop_rates, dots2.loop_rates, unknowns),
    ];
    let of_word = |(from, _, count): &(u32, u32, u32)| (*from..from + 8 * count).contains(&word);
    vectors.into_iter().find(of_word).map(|(from, to, _)| to + word - from)
}

/// Places of the second tangents, behind those of the first ones.
pub fn place(system: &System, slots: u32, next: &mut impl FnMut(&str, u32) -> u32) -> Bars {
    let n = system.states.len() as u32;
    let carried = n + system.memory.len() as u32;
    let guards = system.guards.len() as u32;
    let unknowns = system.loops.len() as u32;
    let dots2 = Bars {
        slots: next("SLOT_DOT2", 8 * slots),
        time: next("T_DOT2", 8),
        inputs: next("U_DOT2", 8 * system.inputs.len() as u32),
        loops: next("Z_DOT2", 8 * unknowns),
        loop_rates: next("Z_RATE_DOT2", 8 * unknowns),
        ..Bars::default()
    };
    next("SLOPE_DOTS", 16 * 9 * n);
    next("WEIGHTS2", 8 * 9);
    next("START_DOT2", 8 * n);
    next("STAGE_DOT2", 8 * n);
    next("START_TIME2", 8);
    next("EVENT_DOT2", 8);
    next("MOVED_DOTS", 16 * n);
    next("GUARD_DOTS", 16 * guards);
    next("AFTER_DOTS", 16 * carried);
    next("RESIDUAL_DOTS", 16 * unknowns.max(loops::initial_size(system)));
    dots2
}

impl Emitter<'_> {
    pub fn declare_second(&mut self) {
        for (_, both) in WRAPPED {
            self.declare_all(&[both, &loops::inner(self.system, both)]);
        }
        self.declare_all(&PLAIN.map(|(_, both)| both));
        self.declare_all(&["loops_jvp2", "initial_jvp2", "along_jvp2"]);
    }
}
