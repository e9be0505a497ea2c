//! Gradients over the steps of the implicit methods: both sweeps against each other, against closed forms, and against
//! differences of what was computed.

#![allow(clippy::unwrap_used)]

mod common;

use common::{CTX, Machine, Sweeps, bits, build, close, gradient, pulley, sweeps, until};
use orrery_lang::abi::{self, Initialise, InputMode, InputTable, Method, Plan};

const IMPLICIT: [Method; 2] = [Method::Rodas5p, Method::Esdirk];

macro_rules! model {
    ($name:literal) => {
        include_str!(concat!("../../../deploy/models/", $name, ".mo"))
    };
}

/// The largest difference of the sweeps, relative to the entry.
fn disagreement(sweeps: &Sweeps) -> f64 {
    let pairs = sweeps.reverse.iter().zip(&sweeps.forward);
    let relative = pairs.map(|(a, b)| (a - b).abs() / a.abs().max(b.abs()).max(1e-300));
    relative.fold(0.0, f64::max)
}

#[test]
fn both_sweeps_derive_the_same_numbers_of_stiff_models() {
    let robertson = Plan {
        clock_hz: 1e3,
        tick_nanos: 400_000_000,
        rtol: 1e-8,
        atol: 1e-14,
        ..until(1.0, 1)
    };
    let coolant = |machine: &Machine, plan: Plan| {
        let mut inputs = vec![InputTable::default(); machine.compiled.meta.inputs.len()];
        inputs[machine.compiled.meta.input("coolant").unwrap()] = InputTable {
            mode: InputMode::Linear,
            knots: vec![(0, 300.0), (200_000_000_000, 305.0), (400_000_000_000, 302.0)],
        };
        Plan { inputs, ..plan }
    };
    let cases = [
        ("robertson", model!("robertson"), "y2", robertson),
        ("van der pol", model!("van_der_pol"), "y", until(800.0, 7)),
        (
            "van der pol, after a jump",
            model!("van_der_pol"),
            "y",
            until(1500.0, 7),
        ),
        ("spm", model!("spm"), "v", until(1200.0, 3)),
        ("battery", model!("battery_2rc"), "temperature", until(5400.0, 9)),
        ("cstr", model!("cstr"), "temperature", until(600.0, 5)),
        ("pk1", model!("pk1"), "concentration", until(100_000.0, 5)),
        ("tclab", model!("tclab"), "t1", until(600.0, 5)),
    ];
    for (name, source, column, plan) in cases {
        let mut machine = Machine::new(source);
        for method in [Method::Rodas5p, Method::Esdirk, Method::Auto] {
            let mut plan = Plan { method, ..plan.clone() };
            if name == "cstr" {
                plan = coolant(&machine, plan);
            }
            let found = sweeps(&mut machine, &plan, column);
            let difference = disagreement(&found);
            println!("{name}, {method:?}: {difference:.1e} in {} steps", found.status.steps);
            assert!(found.reverse.iter().any(|value| *value != 0.0), "{name}");
            // The jump magnifies tangents and takes them back; what is rounded there is seven digits of what remains.
            let bound = if name.contains("jump") { 1e-6 } else { 1e-9 };
            assert!(difference < bound, "{name}, {method:?}: {difference:e}");
        }
    }
}

/// A → B → C with rates four orders of magnitude apart.
#[test]
fn a_stiff_chain_has_its_closed_form() {
    let source = "model Chain parameter Real k1 = 0.7; parameter Real k2 = 1e4; Real a(start=2, fixed=true);\
        Real b(start=0, fixed=true); equation der(a) = -k1*a; der(b) = k1*a - k2*b; end Chain;";
    let mut machine = Machine::new(source);
    let (k1, k2, t) = (0.7_f64, 1e4_f64, 3.0_f64);
    // b = a₀ k₁/(k₂ − k₁) (e^(−k₁t) − e^(−k₂t)); the second exponential is 0.
    let b = 2.0 * k1 / (k2 - k1) * (-k1 * t).exp();
    for method in IMPLICIT {
        let plan = Plan {
            method,
            rtol: 1e-11,
            atol: 1e-15,
            ..until(t, 1)
        };
        let (value, gradient) = gradient(&mut machine, &plan, "b");
        let relative = |found: f64, expected: f64, what: &str| close(found / expected, 1.0, 1e-9, what);
        relative(value, b, "b");
        relative(gradient.parameters[0], b * (1.0 / k1 + 1.0 / (k2 - k1) - t), "db/dk1");
        relative(gradient.parameters[1], -b / (k2 - k1), "db/dk2");
        relative(gradient.states[0], b / 2.0, "db/da0");
    }
}

const DRIVEN: &str = "model Driven parameter Real k = 2; parameter Real w = 3; parameter Real level = 0.6; input Real u(start=0);\
    Real x(start=0.1, fixed=true); Real y(start=1, fixed=true); discrete Real count(start=1);\
    equation der(x) = -k*x^2*count + u*(1 + 0.5*sin(w*time)); der(y) = x*u^2 - 3*(y - cos(x*time));\
    when x > level then reinit(x, 0.3*x*u); count = pre(count) + 0.2*x; end when; end Driven;";

fn driven(mode: InputMode) -> Plan {
    let table = InputTable {
        mode,
        knots: vec![(0, 1.0), (300_000_000, 1.7), (800_000_000, 1.1), (1_400_000_000, 1.9)],
    };
    Plan {
        inputs: vec![table],
        ..until(1.5, 4)
    }
}

/// The plan with one number moved: parameters, then start values, then knots.
fn moved(machine: &Machine, plan: &Plan, place: usize, offset: f64) -> Plan {
    let meta = &machine.compiled.meta;
    let mut plan = plan.clone();
    let mut initialise = Initialise::default();
    let (parameters, carried) = (meta.parameters.len(), meta.carried() as usize);
    if place < parameters {
        initialise.parameters = vec![(place, meta.parameters[place].default + offset)];
    } else if place < parameters + meta.states.len() {
        let state = place - parameters;
        initialise.states = vec![(state, [0.1, 1.0][state] + offset)];
    } else {
        plan.inputs[0].knots[place - parameters - carried].1 += offset;
    }
    plan.initialise = Some(initialise);
    plan
}

/// Differences of order six of the value of `column` at the end.
fn difference(machine: &mut Machine, plan: &Plan, column: &str, place: usize, step: f64) -> f64 {
    let column = machine.compiled.meta.column(column).unwrap();
    let mut slope = |step: f64| {
        let mut at = |offset: f64| {
            let plan = moved(machine, plan, place, offset);
            let rows = machine.good(&plan);
            rows.row(rows.times.len() - 1)[column]
        };
        (at(step) - at(-step)) / (2.0 * step)
    };
    (slope(3.0 * step) - 6.0 * slope(2.0 * step) + 15.0 * slope(step)) / 10.0
}

/// The largest distance of the gradient of y from differences, relative to the entry or to 0.1. Memory has no start of its own.
fn from_differences(machine: &mut Machine, plan: &Plan, found: &Sweeps, step: f64) -> f64 {
    let meta = &machine.compiled.meta;
    let memory = meta.parameters.len() + meta.states.len()..meta.parameters.len() + meta.carried() as usize;
    let places = (0..found.reverse.len()).filter(|place| !memory.contains(place));
    let errors = places.map(|place| {
        let expected = difference(machine, plan, "y", place, step);
        let error = (found.reverse[place] - expected).abs() / expected.abs().max(0.1);
        println!("place {place}: {}, by differences {expected}", found.reverse[place]);
        error
    });
    errors.fold(0.0, f64::max)
}

/// Everything that a step can depend on: an event of the state in a model that depends on time, memory and an input.
#[test]
fn events_inputs_memory_and_time_agree_with_differences() {
    let mut machine = Machine::new(DRIVEN);
    for mode in [InputMode::Hold, InputMode::Linear] {
        for method in IMPLICIT {
            let plan = Plan {
                method,
                rtol: 1e-12,
                atol: 1e-13,
                ..driven(mode)
            };
            let found = sweeps(&mut machine, &plan, "y");
            assert!(found.status.events >= 2, "{} events", found.status.events);
            let agree = disagreement(&found);
            assert!(agree < 1e-10, "{method:?} {mode:?}: sweeps differ by {agree:e}");
            let worst = from_differences(&mut machine, &plan, &found, 2e-4);
            println!("{method:?} {mode:?}: {worst:.1e} from differences, sweeps {agree:.1e}");
            // Newton's remainder is noise in the differences of the ESDIRK.
            let bound = if method == Method::Rodas5p { 1e-8 } else { 1e-6 };
            assert!(worst < bound, "{method:?} {mode:?}: {worst:e}");
        }
    }
}

/// Where the steps cannot move, differences of what was computed are derivatives of it, however coarse it is. Ticks of one step
/// each hold the mesh.
#[test]
fn a_coarse_mesh_has_its_own_gradient() {
    const TICKS: u64 = 30;
    let source = DRIVEN.replace("level = 0.6", "level = 60");
    let mut machine = Machine::new(&source);
    let modes = [InputMode::Hold, InputMode::Linear];
    for (method, mode) in IMPLICIT.into_iter().flat_map(|method| modes.map(|mode| (method, mode))) {
        // The steps of Rodas5P do not depend on the tolerance; Newton's remainder in those of the ESDIRK does.
        let (tolerance, bound) = if method == Method::Rodas5p {
            (10.0, 1e-10)
        } else {
            (1e-6, 1e-6)
        };
        let plan = Plan {
            method,
            rtol: tolerance,
            atol: tolerance,
            first_step: 1.0,
            tick_nanos: 50_000_000,
            ticks: TICKS as u32,
            rows_per_tick: 1,
            ..driven(mode)
        };
        let found = sweeps(&mut machine, &plan, "y");
        assert_eq!((found.status.steps, found.status.rejected), (TICKS, 0));
        let worst = from_differences(&mut machine, &plan, &found, 2e-3);
        println!("{method:?} {mode:?}: {worst:.1e} from differences");
        assert!(worst < bound, "{method:?} {mode:?}: {worst:e}");
    }
}

#[test]
fn gradients_converge_with_the_tolerance() {
    let source = model!("van_der_pol");
    let mut machine = Machine::new(source);
    let set = |plan: Plan| Plan {
        initialise: Some(Initialise {
            parameters: vec![(machine.compiled.meta.parameter("mu").unwrap(), 20.0)],
            ..Initialise::default()
        }),
        ..plan
    };
    let exact = Plan {
        rtol: 1e-13,
        atol: 1e-13,
        ..until(30.0, 1)
    };
    let exact = set(exact);
    let plans: Vec<(Method, f64, Plan)> = IMPLICIT
        .into_iter()
        .flat_map(|method| [1e-5, 1e-7, 1e-9].map(|rtol| (method, rtol)))
        .map(|(method, rtol)| {
            let plan = Plan {
                method,
                rtol,
                atol: rtol,
                ..until(30.0, 1)
            };
            (method, rtol, set(plan))
        })
        .collect();
    let (_, expected) = gradient(&mut machine, &exact, "y");
    for (method, rtol, plan) in plans {
        let (_, found) = gradient(&mut machine, &plan, "y");
        let error = (found.parameters[0] / expected.parameters[0] - 1.0).abs();
        println!("{method:?} {rtol:e}: {error:.1e}");
        assert!(error < 1e3 * rtol, "{method:?} at {rtol:e}: {error:e}");
    }
}

/// A tape changes no step: the automatic choice goes over to Rodas5P as it does without one.
#[test]
fn the_automatic_choice_is_differentiated_as_it_ran() {
    let mut machine = Machine::new(model!("van_der_pol"));
    let plan = Plan {
        method: Method::Auto,
        rtol: 1e-8,
        ..until(500.0, 3)
    };
    let (status, rows) = machine.run(&plan);
    assert!(status.switched_at.is_some());
    let taped = Plan {
        tape_bytes: 1 << 22,
        ..plan.clone()
    };
    let (with_tape, same) = machine.run(&taped);
    assert_eq!(with_tape.switched_at, status.switched_at);
    assert_eq!(bits(&rows), bits(&same));
    let found = sweeps(&mut machine, &plan, "y");
    assert_eq!(found.status.method, "rodas5p");
    assert!(disagreement(&found) < 1e-9);
    let rodas5p = Plan {
        method: Method::Rodas5p,
        ..plan
    };
    let expected = sweeps(&mut machine, &rodas5p, "y");
    for (found, expected) in found.reverse.iter().zip(&expected.reverse) {
        println!("{found} beside {expected}");
        close(found / expected, 1.0, 1e-4, "auto beside rodas5p");
    }
}

#[test]
fn engines_agree_in_every_bit_of_a_gradient() {
    for method in IMPLICIT {
        let plan = Plan {
            method,
            ..driven(InputMode::Linear)
        };
        let bits_of = |machine: &mut Machine| {
            let found = sweeps(machine, &plan, "y");
            let all = found.reverse.into_iter().chain(found.forward);
            all.map(f64::to_bits).collect::<Vec<_>>()
        };
        let first = bits_of(&mut Machine::new(DRIVEN));
        let second = bits_of(&mut Machine::on(&pulley(), build(DRIVEN)));
        assert_eq!(first, second, "{method:?}");
    }
}

/// Beyond what dense matrices are for: the implicit methods are refused, the automatic choice stays with Tsit5.
#[test]
fn a_large_model_is_differentiated_over_explicit_steps_only() {
    let source = "model Row parameter Real k = 0.3; Real x[401](each start=1, each fixed=true);\
        equation for i in 1:401 loop der(x[i]) = -k*x[i]; end for; end Row;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        method: Method::Auto,
        rtol: 1e-10,
        ..until(1.0, 1)
    };
    let found = sweeps(&mut machine, &plan, "x[7]");
    close(found.gradient.parameters[0], -(-0.3_f64).exp(), 1e-9, "dx/dk");
    for method in IMPLICIT {
        let plan = Plan { method, ..plan.clone() };
        let meta = machine.compiled.meta.clone();
        let refused = abi::write_plan(machine.memory.data_mut(&mut machine.store), CTX, &meta, &plan);
        let message = refused.expect_err("too many states").to_string();
        assert!(
            message.contains("for 401 states: implicit methods take at most 400"),
            "{message}"
        );
    }
}
