//! Second derivatives along lines, over the steps of every method and through algebraic loops and initial equations: against
//! closed forms, solutions in many digits, and differences of first derivatives over the same mesh.

#![allow(clippy::unwrap_used)]

mod common;

use common::jet::{Jet, moving};
use common::{Along, CTX, Machine, along, build_with, cranelift, pulley, until};
use orrery_lang::abi::{self, Gradient, Initialise, InputMode, InputTable, Method, Plan};
use orrery_lang::{Compiled, Options};

const ADAPTIVE: [Method; 4] = [Method::Tsit5, Method::Rodas5p, Method::Esdirk, Method::Auto];
const IMPLICIT: [Method; 2] = [Method::Rodas5p, Method::Esdirk];

fn bending(source: &str) -> Compiled {
    let options = Options {
        second_derivatives: true,
        ..Options::default()
    };
    build_with(source, &options)
}

fn machine(source: &str) -> Machine {
    Machine::on(&cranelift(), bending(source))
}

/// Parts of parameters and of `start(state)`; an input moves with all its knots.
fn line(machine: &Machine, plan: &Plan, parts: &[(&str, f64)]) -> Gradient {
    let meta = &machine.compiled.meta;
    let mut line = Gradient {
        parameters: vec![0.0; meta.parameters.len()],
        states: vec![0.0; meta.carried() as usize],
        inputs: plan.inputs.iter().map(|table| vec![0.0; table.knots.len()]).collect(),
    };
    for (name, part) in parts {
        if let Some(state) = name.strip_prefix("start(").and_then(|name| name.strip_suffix(')')) {
            let state = meta.states.iter().position(|known| known.name == state).unwrap();
            line.states[state] = *part;
        } else if let Some(input) = meta.input(name) {
            line.inputs[input].fill(*part);
        } else {
            line.parameters[meta.parameter(name).unwrap()] = *part;
        }
    }
    line
}

/// Value, first and second derivative of a column in the last row.
fn at_end(machine: &mut Machine, plan: &Plan, column: &str, parts: &[(&str, f64)]) -> [f64; 3] {
    let line = line(machine, plan, parts);
    let found = along(machine, plan, &line);
    last(machine, &found, column)
}

fn last(machine: &Machine, found: &Along, column: &str) -> [f64; 3] {
    let columns = found.rows.columns;
    let at = (found.rows.times.len() - 1) * columns + machine.compiled.meta.column(column).unwrap();
    [found.rows.values[at], found.first[at], found.second[at]]
}

fn tight(method: Method, seconds: f64) -> Plan {
    Plan {
        method,
        rtol: 1e-12,
        atol: 1e-14,
        ..until(seconds, 3)
    }
}

/// Each of value, first and second derivative, relative to the expected one.
fn all_close(found: [f64; 3], expected: [f64; 3], tolerance: f64, what: &str) {
    let errors: Vec<f64> = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f - e).abs() / e.abs().max(1e-300))
        .collect();
    println!("{what}: {:.1e} {:.1e} {:.1e}", errors[0], errors[1], errors[2]);
    for ((found, expected), error) in found.iter().zip(expected).zip(errors) {
        assert!(error <= tolerance, "{what}: {found} and not {expected} ({error:e})");
    }
}

#[test]
fn stiff_decay_has_its_closed_form() {
    // b = a₀ k₁/(k₂ − k₁) e^(−k₁t) where e^(−k₂t) is 0.
    let source = "model Chain parameter Real k1 = 0.7; parameter Real k2 = 1e4; Real a(start=2, fixed=true);\
        Real b(start=0, fixed=true); equation der(a) = -k1*a; der(b) = k1*a - k2*b; end Chain;";
    let mut machine = machine(source);
    let parts = [("k1", 1.0), ("k2", 3000.0), ("start(a)", 0.4)];
    let (k1, k2, a) = (moving(0.7, 1.0), moving(1e4, 3000.0), moving(2.0, 0.4));
    let exact = a * k1 * (k2 - k1).pow(-1.0) * (k1 * -3.0).exp();
    for method in IMPLICIT {
        let plan = Plan {
            atol: 1e-16,
            ..tight(method, 3.0)
        };
        let found = at_end(&mut machine, &plan, "b", &parts);
        all_close(found, exact.0, 1e-8, &format!("{method:?}"));
    }
}

#[test]
fn growth_has_its_closed_form_under_every_method() {
    let source = "model L parameter Real r = 1.3; parameter Real c = 2; Real x(start=0.1, fixed=true);\
        equation der(x) = r*x*(1 - x/c); end L;";
    let mut machine = machine(source);
    let (r, c, x) = (moving(1.3, 1.0), moving(2.0, -0.4), moving(0.1, 0.3));
    let parts = [("r", 1.0), ("c", -0.4), ("start(x)", 0.3)];
    let exact = c * ((c * x.pow(-1.0) - 1.0) * (r * -2.0).exp() + 1.0).pow(-1.0);
    for method in ADAPTIVE {
        let found = at_end(&mut machine, &tight(method, 2.0), "x", &parts);
        all_close(found, exact.0, 1e-8, &format!("{method:?}"));
    }
}

macro_rules! model {
    ($name:literal) => {
        include_str!(concat!("../../../deploy/models/", $name, ".mo"))
    };
}

/// Taylor series of order 30 in time, in 50 digits, whose coefficients are polynomials of degree two in the length along the
/// line.
#[test]
fn stiff_models_meet_solutions_in_many_digits() {
    let robertson = model!("robertson");
    let oscillator = &model!("van_der_pol").replace("= 1000", "= 50");
    let rates = [("k1", 0.04), ("k2", -1.5e7), ("k3", 7000.0)];
    let shape = [("mu", 1.0), ("omega", 0.01), ("start(y)", 0.2)];
    let robertson_early = [
        (
            "y1",
            [
                9.851_721_138_609_899e-1,
                -1.333_265_944_403_109_3e-2,
                3.783_264_757_860_032_7e-3,
            ],
        ),
        (
            "y2",
            [
                3.386_395_378_974_904e-5,
                2.205_356_513_395_954_4e-5,
                -3.410_142_088_652_795_4e-7,
            ],
        ),
    ];
    let robertson_late = [
        (
            "y1",
            [
                7.158_270_687_194_05e-1,
                -3.946_136_872_052_053_6e-2,
                1.442_768_194_745_162_6e-1,
            ],
        ),
        (
            "y2",
            [
                9.185_534_764_557_764e-6,
                1.893_533_284_033_315_5e-6,
                7.644_230_511_035_211e-7,
            ],
        ),
    ];
    // Before and after the first jump, which magnifies second tangents by the square of what it does to first ones, and takes
    // them back: what is rounded there is four digits of what remains.
    let before = [
        (
            "y",
            [
                1.484_905_758_565_714_4,
                3.767_921_425_867_965e-1,
                -1.923_322_799_921_818_6e-1,
            ],
        ),
        (
            "v",
            [
                -2.462_887_417_997_979_3e-2,
                1.682_458_647_916_398e-2,
                -3.367_238_989_060_94e-2,
            ],
        ),
    ];
    let after = [
        (
            "y",
            [
                -1.715_809_742_394_661,
                -2.748_776_747_622_631e-1,
                4.554_164_788_242_967e-2,
            ],
        ),
        (
            "v",
            [
                1.764_854_976_791_585_2e-2,
                -5.907_873_118_694_095e-3,
                5.255_242_880_631_588e-3,
            ],
        ),
    ];
    let cases = [
        (robertson, 0.4, &rates, robertson_early, 1e-9),
        (robertson, 40.0, &rates, robertson_late, 1e-9),
        (oscillator, 30.0, &shape, before, 1e-9),
        (oscillator, 60.0, &shape, after, 1e-3),
    ];
    for (source, seconds, parts, expected, bound) in cases {
        let mut machine = machine(source);
        for method in IMPLICIT.into_iter().chain([Method::Auto]) {
            let plan = Plan {
                atol: 1e-15,
                ..tight(method, seconds)
            };
            for (column, expected) in expected {
                let found = at_end(&mut machine, &plan, column, parts);
                all_close(found, expected, bound, &format!("{method:?}: {column} at {seconds}"));
            }
        }
    }
}

/// x' = k (u − x) with a large k meets `level`, where u changes its sign: the height of x after it depends on when.
#[test]
fn events_move_in_second_order_under_every_method() {
    let source = "model E parameter Real k = 40; parameter Real level = 0.9; parameter Real low = 0.2;\
        Real x(start=0, fixed=true); Real y(start=1, fixed=true); discrete Real u(start=1);\
        equation der(x) = k*(u - x); der(y) = -x*y;\
        when x > level then u = -pre(u); reinit(x, low*x); end when; end E;";
    let mut machine = machine(source);
    let (k, level, low, y) = (moving(40.0, 5.0), moving(0.9, 0.02), moving(0.2, 0.3), moving(1.0, 0.5));
    let parts = [("k", 5.0), ("level", 0.02), ("low", 0.3), ("start(y)", 0.5)];
    // The event is at T = −ln(1 − level)/k; before it x = 1 − e^(−kt), after it x = (low·level + 1)e^(−k(t−T)) − 1.
    let end = 0.2;
    let event = (Jet::from(1.0) - level).ln() * k.pow(-1.0) * -1.0;
    let fade = ((event - end) * k).exp();
    let x = (low * level + 1.0) * fade - 1.0;
    // ∫x before: T − level/k; after: (low·level + 1)(1 − fade)/k − (t − T).
    let area = event - level * k.pow(-1.0) + (low * level + 1.0) * (Jet::from(1.0) - fade) * k.pow(-1.0) + event - end;
    let exact = y * (area * -1.0).exp();
    for method in ADAPTIVE {
        // An event bends with the second derivative of the interpolant, which is a cubic in a step of the ESDIRK.
        let bound = if method == Method::Esdirk { 1e-5 } else { 1e-7 };
        for rows in [1, 37] {
            let plan = Plan {
                rows_per_tick: rows,
                ..tight(method, end)
            };
            let found = at_end(&mut machine, &plan, "x", &parts);
            all_close(found, x.0, bound, &format!("{method:?}: x"));
            let found = at_end(&mut machine, &plan, "y", &parts);
            all_close(found, exact.0, bound, &format!("{method:?}: y"));
        }
    }
}

const CUBIC: &str = "model Cubic parameter Real k = 0.7; parameter Real z0 = 1.2; Real x(start=z0^3 + z0, fixed=true); Real z(start=1);\
    equation z^3 + z = x; der(x) = -k*z; end Cubic;";

/// 1.5 z² + ln z + k·t = 1.5 z₀² + ln z₀, differentiated twice.
#[test]
fn loops_bend_under_every_method() {
    let mut machine = machine(CUBIC);
    let (k, z0, t) = (moving(0.7, 0.5), moving(1.2, -0.3), 2.0);
    let right = z0 * z0 * 1.5 + z0.ln() - k * t;
    let mut z = 1.0_f64;
    for _ in 0..60 {
        z -= (1.5 * z * z + z.ln() - right.0[0]) / (3.0 * z + 1.0 / z);
    }
    let slope = 3.0 * z + 1.0 / z;
    let first = right.0[1] / slope;
    let exact = [z, first, (right.0[2] - (3.0 - 1.0 / (z * z)) * first * first) / slope];
    for method in ADAPTIVE.into_iter().chain([Method::Rk4 { steps_per_tick: 2000 }]) {
        let found = at_end(&mut machine, &tight(method, t), "z", &[("k", 0.5), ("z0", -0.3)]);
        all_close(found, exact, 1e-8, &format!("{method:?}"));
    }
}

#[test]
fn starts_bend_where_equations_determine_them() {
    // u = k·x·z with x = z³ + z: z⁴ + z² = u/k.
    let source = "model S parameter Real k = 2; parameter Real u = 3; Real x; Real y(start=5); Real z(start=1);\
        equation der(x) = u - k*x*z; der(y) = x - y; z^3 + z = x; initial equation der(x) = 0; der(y) = 0; end S;";
    let (k, u) = (moving(2.0, 0.3), moving(3.0, -0.4));
    let square = ((u * k.pow(-1.0) * 4.0 + 1.0).pow(0.5) - 1.0) * 0.5;
    let x = square.pow(1.5) + square.pow(0.5);
    let mut steady = machine(source);
    // Another state is where the first one's equation looks.
    let source = "model S parameter Real p = 2; Real a(start=p^2, fixed=true); Real b(start=1);\
        equation der(a) = -a; der(b) = -b; initial equation b^2 = a + 2; end S;";
    let p = moving(2.0, 0.7);
    let b = (p * p + 2.0).pow(0.5) * (-1.0_f64).exp();
    let mut seen = machine(source);
    for method in ADAPTIVE {
        let found = at_end(
            &mut steady,
            &tight(method, 3.0),
            "y",
            &[("k", 0.3), ("u", -0.4), ("start(y)", 1.0)],
        );
        all_close(found, x.0, 1e-9, &format!("{method:?}: it stays"));
        let found = at_end(&mut seen, &tight(method, 1.0), "b", &[("p", 0.7)]);
        all_close(found, b.0, 1e-9, &format!("{method:?}: it fades"));
    }
}

/// The second derivatives of all rows beside differences of order six of the first ones: the largest distance, relative to
/// the largest of the column.
fn from_differences(machine: &mut Machine, plan: &Plan, parts: &[(&str, f64)], step: f64) -> f64 {
    let line = line(machine, plan, parts);
    let found = along(machine, plan, &line);
    let mut slope = |size: f64| {
        let mut at = |offset: f64| {
            let plan = moved(machine, plan, parts, offset);
            let there = along(machine, &plan, &line);
            assert_eq!(there.rows.times.len(), found.rows.times.len());
            there.first
        };
        let (above, below) = (at(size), at(-size));
        above
            .iter()
            .zip(below)
            .map(|(a, b)| (a - b) / (2.0 * size))
            .collect::<Vec<f64>>()
    };
    let (three, two, one) = (slope(3.0 * step), slope(2.0 * step), slope(step));
    let columns = found.rows.columns;
    let mut worst = 0.0_f64;
    for column in 0..columns {
        let rows = (column..found.second.len()).step_by(columns);
        let expected = |at: usize| (three[at] - 6.0 * two[at] + 15.0 * one[at]) / 10.0;
        let size = rows.clone().map(|at| expected(at).abs()).fold(1e-3, f64::max);
        for at in rows {
            worst = worst.max((found.second[at] - expected(at)).abs() / size);
        }
    }
    assert!(found.second.iter().all(|number| number.is_finite()));
    assert!(found.second.iter().any(|number| *number != 0.0));
    worst
}

/// The plan further along the line.
fn moved(machine: &Machine, plan: &Plan, parts: &[(&str, f64)], offset: f64) -> Plan {
    let meta = &machine.compiled.meta;
    let mut plan = plan.clone();
    let mut initialise = Initialise::default();
    for (name, part) in parts {
        if let Some(input) = meta.input(name) {
            for knot in &mut plan.inputs[input].knots {
                knot.1 += offset * part;
            }
        } else {
            let at = meta.parameter(name).unwrap();
            initialise
                .parameters
                .push((at, meta.parameters[at].default + offset * part));
        }
    }
    plan.initialise = Some(initialise);
    plan
}

/// Everything that a step can depend on: time, an input, memory, an event, and a loop that reads all of them.
const DRIVEN: &str = "model Driven parameter Real k = 2; parameter Real w = 3; parameter Real level = 0.6; input Real u(start=0);\
    parameter Real x0 = 0.1; Real x(start=x0, fixed=true); Real y(start=1, fixed=true); Real z(start=0.1); discrete Real count(start=1);\
    equation z LOOP = x*count + 0.1*u*sin(time) + 0.02*k; der(x) = -k*z^2 + u*(1 + 0.5*sin(w*time));\
    der(y) = z*u^2 - 3*(y - cos(z*time));\
    when x > level then reinit(x, 0.3*x*u); count = pre(count) + 0.2*x; end when; end Driven;";

const LINE: [(&str, f64); 5] = [("k", 1.0), ("w", -0.5), ("x0", 0.1), ("level", 0.05), ("u", 0.2)];

fn knots(mode: InputMode) -> InputTable {
    InputTable {
        mode,
        knots: vec![(0, 1.0), (300_000_000, 1.7), (800_000_000, 1.1), (1_400_000_000, 1.9)],
    }
}

/// Linear in the states, so that Newton's iteration leaves nothing whatever the tolerance is.
const LINEAR: &str = "model Linear parameter Real k = 1.8; parameter Real w = 3; parameter Real level = 0.6; input Real u(start=0);\
    parameter Real x0 = 0.1; Real x(start=x0, fixed=true); Real y(start=1, fixed=true); discrete Real count(start=1);\
    equation der(x) = u*(1 + 0.5*sin(w*time)) - k*x*count; der(y) = x - k*y + u*x;\
    when x > level then reinit(x, 0.3*x*u); count = pre(count) + 0.2*x; end when; end Linear;";

/// Where the steps cannot move, differences of what was computed are derivatives of it, however coarse it is: ticks of one
/// step each hold the mesh, and an event ends one step and starts another. Rows lie inside the steps.
#[test]
fn a_coarse_mesh_has_its_own_second_derivatives() {
    let driven = |equation: &str| DRIVEN.replace("LOOP", equation);
    let still = |source: &str| source.replace("level = 0.6", "level = 60");
    let (plain, looped) = (driven(""), driven("+ 0.5*z^3"));
    // The steps of Rodas5P do not depend on the tolerance; Newton's remainder in those of the ESDIRK does, and so do its steps
    // behind knots and events.
    let cases = [
        (Method::Rodas5p, &plain, 10.0, 30),
        (Method::Rodas5p, &looped, 10.0, 30),
        (Method::Rodas5p, &still(&looped), 10.0, 30),
        (Method::Esdirk, &still(&plain), 1e-10, 150),
        (Method::Esdirk, &still(&looped), 1e-10, 150),
        (Method::Esdirk, &LINEAR.to_string(), 10.0, 30),
    ];
    for ((method, source, tolerance, ticks), mode) in cases
        .into_iter()
        .flat_map(|case| [InputMode::Hold, InputMode::Linear].map(|mode| (case, mode)))
    {
        let mut machine = machine(source);
        let plan = Plan {
            method,
            rtol: tolerance,
            atol: tolerance,
            first_step: 1.0,
            tick_nanos: 1_500_000_000 / i64::from(ticks),
            ticks,
            rows_per_tick: 3,
            inputs: vec![knots(mode)],
            ..until(1.0, 1)
        };
        let line = line(&machine, &plan, &LINE);
        let status = along(&mut machine, &plan, &line).status;
        assert_eq!(
            status.events >= 2,
            source.contains("level = 0.6"),
            "{} events",
            status.events
        );
        if tolerance > 1.0 {
            let steps = u64::from(ticks) + status.events;
            assert_eq!((status.steps, status.rejected), (steps, 0));
        }
        let worst = from_differences(&mut machine, &plan, &LINE, 1e-3);
        println!(
            "{method:?} {mode:?}, {} events: {worst:.1e} from differences",
            status.events
        );
        let bound = if tolerance > 1.0 { 1e-10 } else { 1e-8 };
        assert!(worst < bound, "{method:?} {mode:?}: {worst:e}\n{source}");
    }
}

/// The automatic choice goes over to Rodas5P, and both kinds of steps bend.
#[test]
fn the_automatic_choice_bends_as_the_others_do() {
    let mut machine = machine(model!("van_der_pol"));
    let parts = [("mu", 100.0), ("omega", 0.01), ("start(y)", 0.1)];
    let plan = |method| Plan {
        rtol: 1e-11,
        atol: 1e-12,
        ..tight(method, 500.0)
    };
    let line = line(&machine, &plan(Method::Auto), &parts);
    let found = along(&mut machine, &plan(Method::Auto), &line);
    assert!(found.status.switched_at.is_some());
    let auto = last(&machine, &found, "y");
    for method in IMPLICIT {
        let found = at_end(&mut machine, &plan(method), "y", &parts);
        all_close(found, auto, 1e-7, &format!("{method:?} beside the automatic choice"));
    }
}

/// The guide's model, whose loop is steep.
#[test]
fn a_diode_bends_as_differences_say() {
    let source = "model Diode parameter Real R = 100; parameter Real C = 1e-3; parameter Real Is = 1e-9; parameter Real Vt = 0.05;\
        Real i; Real vd(start=0.6); output Real v(start=0, fixed=true);\
        equation 5 = R*i + vd + v; i = Is*(exp(vd/Vt) - 1); C*der(v) = i; end Diode;";
    let mut machine = machine(source);
    let parts = [("R", 20.0), ("C", -1e-4), ("Is", 3e-10), ("Vt", 0.004)];
    let mut found = Vec::new();
    for method in ADAPTIVE {
        let plan = tight(method, 0.3);
        let worst = from_differences(&mut machine, &plan, &parts, 1e-2);
        println!("{method:?}: {worst:.1e} from differences");
        assert!(worst < 1e-6, "{method:?}: {worst:e}");
        found.push(at_end(&mut machine, &plan, "i", &parts));
    }
    for other in &found {
        all_close(*other, found[0], 1e-8, "the methods agree");
    }
}

#[test]
fn engines_agree_in_every_bit_of_second_derivatives() {
    let source = DRIVEN.replace("LOOP", "+ 0.5*z^3");
    for method in IMPLICIT {
        let plan = Plan {
            inputs: vec![knots(InputMode::Linear)],
            ..tight(method, 1.5)
        };
        let bits_of = |mut machine: Machine| {
            let line = line(&machine, &plan, &LINE);
            let found = along(&mut machine, &plan, &line);
            let all = found.first.into_iter().chain(found.second);
            all.map(f64::to_bits).collect::<Vec<_>>()
        };
        let first = bits_of(machine(&source));
        assert_eq!(first, bits_of(Machine::on(&pulley(), bending(&source))), "{method:?}");
    }
}

/// A tape in segments: each is swept, and the plan goes on from where it paused.
#[test]
fn segments_of_a_tape_have_the_bits_of_the_whole() {
    let source = DRIVEN.replace("LOOP", "+ 0.5*z^3");
    for method in ADAPTIVE {
        let mut machine = machine(&source);
        let plan = Plan {
            inputs: vec![knots(InputMode::Linear)],
            ..tight(method, 1.5)
        };
        let line = line(&machine, &plan, &LINE);
        let whole = along(&mut machine, &plan, &line);
        let plan = Plan {
            tape_bytes: 1 << 25,
            pause_bytes: 8_000,
            ..plan
        };
        let meta = machine.compiled.meta.clone();
        let layout = abi::Layout::for_plan(&meta, &plan);
        let (mut status, _) = machine.run(&plan);
        abi::write_direction(machine.memory.data_mut(&mut machine.store), CTX, &meta, &layout, &line).unwrap();
        let mut segments = 0;
        loop {
            let more = status.code == abi::Code::Paused;
            let data = machine.memory.data_mut(&mut machine.store);
            let point = abi::checkpoint(data, CTX, &meta);
            let follows = segments > 0;
            abi::write_sweep(data, CTX, abi::Sweep::Second, abi::Segment { follows, more });
            machine.call();
            segments += 1;
            if !more {
                break;
            }
            abi::resume(machine.memory.data_mut(&mut machine.store), CTX, &meta, Some(&point)).unwrap();
            machine.call();
            status = abi::read_status(machine.memory.data(&machine.store), CTX, &meta);
        }
        assert!(segments > 3, "{method:?}: {segments} segments");
        let found = abi::read_second_tangents(machine.memory.data(&machine.store), CTX, &meta, &layout);
        assert_eq!(found, [whole.first, whole.second], "{method:?}");
    }
}
