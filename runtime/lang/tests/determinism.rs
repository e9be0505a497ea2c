//! The same bits: across engines, across the cut of a plan into plans, and through a snapshot.

#![allow(clippy::unwrap_used)]

mod common;

use common::{CTX, Machine, bits, build, cranelift, pulley};
use orrery_lang::abi::{self, Initialise, InputMode, InputTable, Method, Plan, Rows};
use orrery_lang::{Options, compile};
use proptest::prelude::*;

const DRIVEN: &str = include_str!("models/driven.mo");
const TCLAB: &str = include_str!("../../../deploy/models/tclab.mo");

fn plan(method: Method, ticks: u32, inputs: Vec<InputTable>) -> Plan {
    Plan {
        origin_nanos: 1_700_000_000_000_000_000,
        tick_nanos: 100_000_000,
        first_tick: 17_000_000_000,
        ticks,
        inputs,
        method,
        rtol: 1e-8,
        atol: 1e-10,
        initialise: Some(Initialise::default()),
        ..Plan::default()
    }
}

fn table(mode: InputMode, knots: &[(i64, f64)]) -> InputTable {
    InputTable {
        mode,
        knots: knots
            .iter()
            .map(|(offset, value)| (1_700_000_000_000_000_000 + offset, *value))
            .collect(),
    }
}

fn joined(parts: &[Rows]) -> Vec<u64> {
    let times = parts.iter().flat_map(|rows| &rows.times);
    times
        .chain(parts.iter().flat_map(|rows| &rows.values))
        .map(|value| value.to_bits())
        .collect()
}

#[test]
fn engines_agree_in_every_bit() {
    let knots: Vec<(i64, f64)> = (0..50)
        .map(|k| (k * 130_000_000, f64::from(k as i32 % 7) * 10.0))
        .collect();
    for (source, inputs) in [(DRIVEN, 1), (TCLAB, 3), (include_str!("models/lotka_volterra.mo"), 0)] {
        for method in [Method::Tsit5, Method::Rk4 { steps_per_tick: 3 }] {
            let tables = (0..inputs).map(|_| table(InputMode::Linear, &knots)).collect();
            let plan = plan(method, 60, tables);
            let first = Machine::on(&cranelift(), build(source)).good(&plan);
            let second = Machine::on(&pulley(), build(source)).good(&plan);
            assert_eq!(bits(&first), bits(&second), "{method:?}");
        }
    }
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let first = build(TCLAB);
    for _ in 0..3 {
        let again = build(TCLAB);
        assert_eq!(first.wasm, again.wasm);
        assert_eq!(first.digest, again.digest);
        assert_eq!(first.meta, again.meta);
    }
}

#[test]
fn the_custom_section_says_what_meta_says() {
    let compiled = build(TCLAB);
    let text = serde_json::to_vec(&compiled.meta).expect("json");
    let found = compiled.wasm.windows(text.len()).any(|window| window == text);
    assert!(found, "the module does not carry its description");
    assert_eq!(
        serde_json::from_slice::<orrery_lang::Meta>(&text).expect("readable"),
        compiled.meta
    );
}

#[test]
fn a_context_can_be_moved() {
    let plan = plan(Method::Tsit5, 5, vec![table(InputMode::Hold, &[(0, 1.0)])]);
    let mut machine = Machine::new(DRIVEN);
    let here = bits(&machine.good(&plan));
    let meta = machine.compiled.meta.clone();
    let solve = machine
        .instance
        .get_typed_func::<u32, u32>(&mut machine.store, abi::SOLVE)
        .expect("solve");
    let other = CTX + 16 * 1000;
    machine.memory.grow(&mut machine.store, 4).expect("memory");
    let layout =
        abi::write_plan(machine.memory.data_mut(&mut machine.store), other, &meta, &plan).expect("a good plan");
    assert_eq!(solve.call(&mut machine.store, other).expect("no trap"), 0);
    assert_eq!(
        bits(&abi::read_outputs(
            machine.memory.data(&machine.store),
            other,
            &meta,
            &layout
        )),
        here
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A plan of N ticks equals N plans of one, in rows and in the persistent bytes; in between the context may be
    /// saved, destroyed and restored on another machine.
    #[test]
    fn a_plan_can_be_cut_anywhere(
        ticks in 1_u32..12,
        knots in prop::collection::btree_map(-300_000_000_i64..1_500_000_000, -5.0_f64..5.0, 0..12),
        linear: bool,
        fixed: bool,
        restore_at in 0_u32..12,
        rows_per_tick in 1_u32..4,
    ) {
        let mode = if linear { InputMode::Linear } else { InputMode::Hold };
        let knots: Vec<(i64, f64)> = knots.into_iter().collect();
        let method = if fixed { Method::Rk4 { steps_per_tick: 4 } } else { Method::Tsit5 };
        let whole = Plan { rows_per_tick, ..plan(method, ticks, vec![table(mode, &knots)]) };
        let mut machine = Machine::new(DRIVEN);
        let expected = machine.good(&whole);
        let end = machine.snapshot();

        let mut machine = Machine::new(DRIVEN);
        let mut parts = Vec::new();
        for tick in 0..ticks {
            let one = Plan {
                first_tick: whole.first_tick + i64::from(tick),
                ticks: 1,
                initialise: (tick == 0).then(Initialise::default),
                ..whole.clone()
            };
            parts.push(machine.good(&one));
            if tick == restore_at {
                let saved = machine.snapshot();
                machine = Machine::on(&pulley(), build(DRIVEN));
                machine.restore(&saved);
            }
        }
        prop_assert_eq!(bits(&expected), joined(&parts));
        prop_assert_eq!(end, machine.snapshot());
    }
}

#[test]
fn a_dependent_parameter_follows_the_one_it_depends_on() {
    let source = "model D parameter Real a = 2; parameter Real b = 3*a; parameter Real c = exp(b) - a; output Real x(start = b, fixed = true); equation der(x) = c*0 - b; end D;";
    let mut machine = Machine::new(source);
    let a = machine.compiled.meta.parameter("a").expect("a");
    assert_eq!(machine.compiled.meta.parameters.len(), 1);
    let initialise = Some(Initialise {
        parameters: vec![(a, 5.0)],
        states: Vec::new(),
    });
    let rows = machine.good(&Plan {
        initialise,
        ..common::until(1.0, 1)
    });
    assert_eq!(rows.row(0)[0], 15.0);
    assert!(rows.row(1)[0].abs() < 1e-12);
    let compiled = compile(
        source,
        "d.mo",
        &Options {
            model: None,
            set: vec![("b".into(), 1.0)],
            ..Options::default()
        },
    )
    .expect("compiles");
    assert_eq!(compiled.meta.states[0].default, 1.0);
}
