//! Algebraic loops and initial equations: values, gradients, and what is said where there is no solution.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, bits, close, errors, final_values, gradient, render, until};
use orrery_lang::Plan;
use orrery_lang::abi::{Code, Initialise, Method};

const METHODS: [Method; 5] = [
    Method::Tsit5,
    Method::Rk4 { steps_per_tick: 400 },
    Method::Rodas5p,
    Method::Esdirk,
    Method::Auto,
];

/// x = z³ + z and x' = −k·z give 1.5 z² + ln z + k·t = const.
const CUBIC: &str = "model Cubic parameter Real k = 0.7; parameter Real z0 = 1.2; Real x(start=z0^3 + z0, fixed=true); Real z(start=1);\
    equation z^3 + z = x; der(x) = -k*z; end Cubic;";

/// The z at which 1.5 z² + ln z is `right`.
fn cubic(right: f64) -> f64 {
    let mut z = 1.0_f64;
    for _ in 0..60 {
        z -= (1.5 * z * z + z.ln() - right) / (3.0 * z + 1.0 / z);
    }
    z
}

#[test]
fn a_nonlinear_loop_follows_its_closed_form_under_every_method() {
    let (k, z0, t) = (0.7, 1.2_f64, 2.0);
    let expected = cubic(1.5 * z0 * z0 + z0.ln() - k * t);
    for method in METHODS {
        let mut machine = Machine::new(CUBIC);
        let plan = Plan {
            method,
            rtol: 1e-11,
            atol: 1e-12,
            ..until(t, 7)
        };
        let rows = machine.good(&plan);
        let column = machine.compiled.meta.column("z").unwrap();
        close(
            rows.row(rows.times.len() - 1)[column],
            expected,
            2e-10,
            &format!("{method:?}"),
        );
        let x = machine.compiled.meta.column("x").unwrap();
        for row in 0..rows.times.len() {
            let (z, x) = (rows.row(row)[column], rows.row(row)[x]);
            close(z * z * z + z, x, 1e-14, "the loop in every row");
        }
    }
}

#[test]
fn gradients_go_through_a_loop_under_every_method() {
    for method in METHODS {
        let mut machine = Machine::new(CUBIC);
        let plan = Plan {
            method,
            rtol: 1e-11,
            atol: 1e-12,
            ..until(2.0, 3)
        };
        let (z, found) = gradient(&mut machine, &plan, "z");
        let slope = 3.0 * z + 1.0 / z;
        close(found.parameters[0], -2.0 / slope, 1e-8, &format!("{method:?}: dz/dk"));
        close(
            found.parameters[1],
            (3.0 * 1.2 + 1.0 / 1.2) / slope,
            1e-8,
            &format!("{method:?}: dz/dz0"),
        );
    }
}

#[test]
fn derivatives_in_one_linear_system() {
    // [[2, 1], [1, 3]]·(x', y') = (−x, −y): the mass matrix is solved wherever the slopes are needed.
    let source = "model M parameter Real a = 2; Real x(start=1, fixed=true); Real y(start=0.5, fixed=true);\
        equation a*der(x) + der(y) = -x; der(x) + 3*der(y) = -y; end M;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-12,
        atol: 1e-13,
        ..until(1.5, 3)
    };
    let (x, found) = gradient(&mut machine, &plan, "x");
    // The same system solved for the derivatives by hand.
    let explicit = "model E parameter Real a = 2; Real x(start=1, fixed=true); Real y(start=0.5, fixed=true);\
        equation der(x) = (-3*x + y)/(3*a - 1); der(y) = (x - a*y)/(3*a - 1); end E;";
    let mut other = Machine::new(explicit);
    let (expected, by_hand) = gradient(&mut other, &plan, "x");
    close(x, expected, 1e-13, "x");
    close(found.parameters[0], by_hand.parameters[0], 1e-12, "dx/da");
    close(found.states[0], by_hand.states[0], 1e-12, "dx/dx0");
    close(found.states[1], by_hand.states[1], 1e-12, "dx/dy0");
}

/// A chain of resistors closed by a diode at each node: many loops, linear ones and others, depending on each other.
const LADDER: &str = "model Ladder parameter Integer n = 6; parameter Real r = 1.5; parameter Real s = 0.4; input Real u(start=2);\
    Real v[n]; Real i[n]; Real q(start=0.1, fixed=true);\
    equation u - v[1] = r*(i[1] + sum(i[k] for k in 2:n) + q);\
    for k in 2:n loop v[k-1] - v[k] = r*sum(i[j] for j in k:n); end for;\
    for k in 1:n loop i[k] = s*(exp(v[k]) - 1) ; end for;\
    der(q) = v[n] - q; end Ladder;";

#[test]
fn a_network_satisfies_its_equations_and_its_gradient_differences() {
    let mut machine = Machine::new(LADDER);
    let plan = Plan {
        rtol: 1e-12,
        atol: 1e-13,
        ..until(1.0, 2)
    };
    let rows = machine.good(&plan);
    let meta = machine.compiled.meta.clone();
    let value = |name: &str| rows.row(2)[meta.column(name).unwrap()];
    let total: f64 = (1..=6).map(|k| value(&format!("i[{k}]"))).sum();
    close(2.0 - value("v[1]"), 1.5 * (total + value("q")), 1e-13, "the first loop");
    close(value("i[6]"), 0.4 * value("v[6]").exp_m1(), 1e-13, "the last diode");
    let (_, found) = gradient(&mut machine, &plan, "v[6]");
    let column = meta.column("v[6]").unwrap();
    for (parameter, default) in [(0, 1.5), (1, 0.4)] {
        let mut at = |offset: f64| {
            let initialise = Some(Initialise {
                parameters: vec![(parameter, default + offset)],
                states: Vec::new(),
            });
            let rows = machine.good(&Plan {
                initialise,
                ..plan.clone()
            });
            rows.row(2)[column]
        };
        let h = 1e-3;
        let coarse = (at(h) - at(-h)) / (2.0 * h);
        let fine = (at(0.5 * h) - at(-0.5 * h)) / h;
        close(
            found.parameters[parameter],
            (4.0 * fine - coarse) / 3.0,
            1e-9,
            "against differences",
        );
    }
}

#[test]
fn events_see_the_unknowns_of_loops() {
    // z = x^(1/3); the relation is about z, the state jumps, and z with it.
    let source = "model J parameter Real limit = 1.5; parameter Real low = 1; Real x(start=1, fixed=true); Real z(start=1);\
        equation z^3 = x; der(x) = 1; when z > limit then reinit(x, low); end when; end J;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-11,
        atol: 1e-12,
        ..until(4.0, 4)
    };
    let (z, found) = gradient(&mut machine, &plan, "z");
    // One jump at x = limit³, t = limit³ − 1.
    let x = 1.0 + 4.0 - (1.5_f64.powi(3) - 1.0);
    close(z, x.cbrt(), 1e-12, "z");
    let by_x = 1.0 / (3.0 * z * z);
    close(found.parameters[0], -3.0 * 1.5 * 1.5 * by_x, 1e-9, "dz/dlimit");
    close(found.parameters[1], by_x, 1e-10, "dz/dlow");
}

#[test]
fn relations_inside_a_loop_hold_between_events() {
    // A diode of two slopes in series with a resistor: i = (v > 0: v; else 0.1 v), v + i = u(t).
    let source =
        "model D Real u; Real v; Real i; equation u = sin(time); v + i = u; i = if v > 0 then v else 0.1*v; end D;";
    let values = final_values(source, 4.0);
    close(values["v"], 4.0_f64.sin() / 1.1, 1e-14, "below");
    let values = final_values(source, 7.0);
    close(values["v"], 7.0_f64.sin() / 2.0, 1e-14, "above");
}

#[test]
fn a_model_starts_in_a_steady_state() {
    let source = "model S parameter Real k = 2; parameter Real u = 3; Real x; Real y(start=5); Real z(start=1);\
        equation der(x) = u - k*x*z; der(y) = x - y; z^3 + z = x; initial equation der(x) = 0; der(y) = 0; end S;";
    let mut machine = Machine::new(source);
    let (value, found) = gradient(&mut machine, &until(3.0, 3), "y");
    // u = k·x·z with x = z³ + z: z⁴ + z² = u/k.
    let z = ((-1.0 + (1.0 + 4.0 * 1.5_f64).sqrt()) / 2.0).sqrt();
    let x = z.powi(3) + z;
    close(value, x, 1e-12, "it stays");
    let by_ratio = (3.0 * z * z + 1.0) / (4.0 * z.powi(3) + 2.0 * z);
    close(found.parameters[1], by_ratio / 2.0, 1e-9, "dy/du");
    close(found.parameters[0], -by_ratio * 3.0 / 4.0, 1e-9, "dy/dk");
    // Their start values are guesses.
    assert_eq!(found.states, [0.0, 0.0]);
}

#[test]
fn initial_equations_leave_the_other_states_to_their_start_values() {
    let source = "model S parameter Real p = 2; Real a(start=p, fixed=true); Real b(start=1); Real c(start=7);\
        equation der(a) = -a; der(b) = -b; der(c) = 0; initial equation b^2 = a + 2; end S;";
    let mut machine = Machine::new(source);
    let (value, found) = gradient(&mut machine, &until(1.0, 1), "b");
    let fade = (-1.0_f64).exp();
    close(value, 2.0 * fade, 1e-6, "b");
    close(found.parameters[0], 0.25 * fade, 1e-6, "db/dp");
    close(final_values(source, 1.0)["c"], 7.0, 0.0, "c");
}

#[test]
fn what_initial_equations_cannot_determine_is_refused() {
    let text = render(&errors(
        "model O\n Real x(start=1, fixed=true);\nequation\n der(x) = -x;\ninitial equation\n x = 2;\nend O;",
    ));
    assert!(
        text.contains("one too many") && text.contains("test.mo:6:2") && text.contains("fixed"),
        "{text}"
    );
    let text = render(&errors(
        "model O\n Real x;\nequation\n der(x) = -x;\ninitial equation\n x = 2;\n x + 1 = 4;\nend O;",
    ));
    assert!(text.contains("test.mo:7:2") && text.contains("note: 6:2"), "{text}");
    let text = render(&errors(
        "model O\n parameter Real p = 1; Real x;\nequation\n der(x) = -x;\ninitial equation\n p = 1;\nend O;",
    ));
    assert!(text.contains("contains no state"), "{text}");
}

#[test]
fn a_loop_without_solution_names_its_equation() {
    // x falls below −2, where z² = x + 2 has no real solution.
    let source = "model N\n Real x(start=1, fixed=true); Real z(start=1);\nequation\n z^2 + 1e-30*z = x + 2;\n der(x) = -1;\nend N;";
    for method in [Method::Tsit5, Method::Rodas5p, Method::Rk4 { steps_per_tick: 100 }] {
        let mut machine = Machine::new(source);
        let plan = Plan {
            method,
            ..until(4.0, 1)
        };
        let (status, _) = machine.run(&plan);
        assert!(
            matches!(status.code, Code::NoSolution | Code::Singular),
            "{method:?}: {status:?}"
        );
        let text = status.describe(&machine.compiled.meta).unwrap();
        assert!(text.contains("test.mo:4:2"), "{text}");
        assert!((2.5..=3.1).contains(&status.time), "{text}");
    }
    let mut machine = Machine::new("model N\n Real y; Real z;\nequation\n y + z = 1;\n 2*y + 2*z = time;\nend N;");
    let (status, _) = machine.run(&until(1.0, 1));
    assert_eq!(status.code, Code::Singular);
    let text = status.describe(&machine.compiled.meta).unwrap();
    assert!(text.contains("test.mo:") && text.contains("singular"), "{text}");
    let mut machine = Machine::new("model N\n Real z;\nequation\n z^2 = -1 - time;\nend N;");
    let (status, _) = machine.run(&until(1.0, 1));
    assert!(matches!(status.code, Code::NoSolution | Code::Singular), "{status:?}");
}

#[test]
fn a_loop_of_booleans_is_refused() {
    let text = render(&errors(
        "model B\n Boolean a; Boolean b;\nequation\n a = not b;\n b = not a;\nend B;",
    ));
    assert!(text.contains("algebraic-loop") && text.contains("pre("), "{text}");
}

#[test]
fn many_plans_equal_one_and_the_engines_agree() {
    for source in [CUBIC, LADDER] {
        let plan = |first: i64, ticks: u32| Plan {
            tick_nanos: 100_000_000,
            first_tick: first,
            ticks,
            initialise: (first == 0).then(Initialise::default),
            ..Plan::default()
        };
        let mut whole = Machine::new(source);
        let rows = whole.good(&plan(0, 12));
        let mut pieces = Machine::new(source);
        let mut values = Vec::new();
        for tick in 0..12 {
            values.extend(bits(&pieces.good(&plan(tick, 1))));
        }
        let mut expected = Vec::new();
        for row in 0..12 {
            expected.push(rows.times[row].to_bits());
            expected.extend(rows.row(row).iter().map(|value| value.to_bits()));
        }
        assert_eq!(values, expected);
        assert_eq!(whole.snapshot(), pieces.snapshot());
        let mut pulley = Machine::on(&common::pulley(), common::build(source));
        assert_eq!(bits(&pulley.good(&plan(0, 12))), bits(&rows));
    }
}

/// The transistor amplifier of the Test Set for IVP Solvers (Mazzia and Magherini, release 2.4, II-12; from Hairer, Lubich
/// and Roche 1989): eight node voltages of index 1, the capacitors' voltages as states. Its reference solution at 0.2 s.
#[test]
fn the_transistor_amplifier_meets_its_reference() {
    let source = "function g input Real x; output Real y; algorithm y := 1e-6*(exp(x/0.026) - 1); end g;
        model Amplifier
          Real y[8](start = {0, 3, 3, 6, 3, 3, 6, 0}); Real u1(start=-3, fixed=true); Real u3(start=3, fixed=true); Real u5(start=6, fixed=true);
          Real ue = 0.1*sin(200*3.141592653589793*time); Real g1; Real g2;
        initial equation y[3] = 3; y[6] = 3;
        equation
          g1 = g(y[2] - y[3]); g2 = g(y[5] - y[6]);
          u1 = y[1] - y[2]; u3 = y[4] - y[5]; u5 = y[7] - y[8];
          -1e-6*der(u1) = (y[1] - ue)/1000;
          1e-6*der(u1) = -6/9000 + y[2]*(2/9000) + 0.01*g1;
          -2e-6*der(y[3]) = -g1 + y[3]/9000;
          -3e-6*der(u3) = (y[4] - 6)/9000 + 0.99*g1;
          3e-6*der(u3) = -6/9000 + y[5]*(2/9000) + 0.01*g2;
          -4e-6*der(y[6]) = -g2 + y[6]/9000;
          -5e-6*der(u5) = (y[7] - 6)/9000 + 0.99*g2;
          5e-6*der(u5) = y[8]/9000;
        end Amplifier;";
    let reference = [
        -0.5562145012262709e-2,
        0.3006522471903042e1,
        0.2849958788608128e1,
        0.2926422536206241e1,
        0.2704617865010554e1,
        0.2761837778393145e1,
        0.4770927631616772e1,
        0.1236995868091548e1,
    ];
    for method in [Method::Rodas5p, Method::Esdirk, Method::Auto] {
        let mut machine = Machine::new(source);
        let plan = Plan {
            method,
            rtol: 1e-10,
            atol: 1e-12,
            ..until(0.2, 1)
        };
        let rows = machine.good(&plan);
        for (index, expected) in reference.into_iter().enumerate() {
            let column = machine.compiled.meta.column(&format!("y[{}]", index + 1)).unwrap();
            close(
                rows.row(1)[column],
                expected,
                1e-8,
                &format!("{method:?}: y[{}]", index + 1),
            );
        }
    }
}

#[test]
fn an_equation_that_jumps_in_its_unknown_is_not_linear() {
    // The slope of the residual is 1 on both sides; x = 1 would be the solution of the wrong one.
    let values = final_values(
        "model J Real x(start = 1); equation x = noEvent(if x > 0 then 2 else 1); end J;",
        1.0,
    );
    assert_eq!(values["x"], 2.0);
    let values = final_values(
        "model J Real x(start = 5); equation x = 0.1*time + noEvent(floor(x/2)); end J;",
        1.0,
    );
    let x = values["x"];
    assert!((x - (0.1 + (x / 2.0).floor())).abs() < 1e-9, "{x}");
    for (declaration, equation) in [
        ("Boolean b;", "b = not b;"),
        ("Boolean b;", "b = b or time > 0.5;"),
        ("Integer b;", "b = if b > 2 then 1 else 4;"),
    ] {
        let text = render(&errors(&format!("model J {declaration} equation {equation} end J;")));
        assert!(text.contains("cannot be solved for `b`"), "{equation}: {text}");
    }
}

#[test]
fn fixed_starts_of_variables_that_are_no_states_determine_states() {
    for declaration in ["Real x", "Real x(start = 1)"] {
        let source =
            format!("model F {declaration}; Real y(start = 4, fixed = true); equation der(x) = -x; y = 2*x; end F;");
        let values = final_values(&source, 1.0);
        assert!((values["x"] - 2.0 * (-1.0_f64).exp()).abs() < 1e-8, "{values:?}");
    }
    let text = render(&errors(
        "model F Real x(start = 1, fixed = true); Real y(start = 4, fixed = true); equation der(x) = -x; y = 2*x; end F;",
    ));
    assert!(
        text.contains("one too many") && text.contains("where x starts is given already"),
        "{text}"
    );
}

#[test]
fn branches_that_meet_at_their_event_do_not_chatter() {
    // A diode with a threshold behind a resistor: at the event both branches give i = 0, up to rounding.
    let source = "model D Real i; Real v = sin(6.283185307179586*time); Real q(start = 0, fixed = true); \
                  equation i = if v - i > 0.5 then v - i - 0.5 else 0; der(q) = i; end D;";
    let charge = (3.0_f64.sqrt() / std::f64::consts::TAU - 1.0 / 6.0) / 2.0;
    let found = final_values(source, 1.0)["q"];
    assert!((found - charge).abs() < 1e-8, "{found} and not {charge}");
    // What is no rounding is still said.
    let source = "model C Integer s(start = 1, fixed = true); Real x(start = 0, fixed = true); equation der(x) = 1; \
                  when pre(s) == 1 and x > 0.2 then s = 2; elsewhen pre(s) == 2 and x > 0.2 then s = 1; end when; end C;";
    let mut machine = Machine::new(source);
    let (status, _) = machine.run(&until(1.0, 1));
    assert_eq!(status.code, Code::Chattering);
}

#[test]
fn initial_equations_round_what_holds_at_the_start() {
    for (equations, value) in [
        ("initial equation x = floor(z); equation der(x) = 0;", 2.0),
        (
            "initial equation der(x) = 0; equation der(x) = floor(z) + mod(z, 0.5) - x;",
            2.2,
        ),
        (
            "initial equation der(x) = 0; equation der(x) = floor(2.5 + 0.1*x) - x;",
            2.0,
        ),
        (
            "initial equation der(x) = 0; equation der(x) = floor(floor(z)/2 + 0.6) - x;",
            1.0,
        ),
    ] {
        let source = format!("model R Real x; Real z(start = 2.7, fixed = true); {equations} der(z) = 0; end R;");
        let x = final_values(&source, 1.0)["x"];
        assert!((x - value).abs() < 1e-9, "{equations}: {x}");
    }
    let text = render(&errors(
        "model R Real y; Real x(start = 0); discrete Real a; initial equation y = a; \
         equation der(y) = 0; der(x) = 1; when initial() then a = 4; end when; end R;",
    ));
    assert!(text.contains("gives its value at the start"), "{text}");
}
