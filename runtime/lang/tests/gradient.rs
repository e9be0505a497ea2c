//! Gradients of what was computed: against closed forms and against differences over the same mesh.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, close, gradient, until};
use orrery_lang::Plan;
use orrery_lang::abi::{self, Initialise};

#[test]
fn decay_has_its_closed_form() {
    let source = "model D parameter Real k = 0.7; parameter Real a = 2; Real x(start=a*a, fixed=true); equation der(x) = -k*x; end D;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-12,
        atol: 1e-13,
        ..until(1.5, 1)
    };
    let (value, gradient) = gradient(&mut machine, &plan, "x");
    let expected = 4.0 * (-1.05_f64).exp();
    close(value, expected, 1e-11, "x");
    close(gradient.parameters[0], -1.5 * expected, 1e-10, "dx/dk");
    close(gradient.parameters[1], expected, 1e-10, "dx/da");
    close(gradient.states[0], expected / 4.0, 1e-10, "dx/dx0");
}

const BALL: &str = "model Ball parameter Real e = 0.8; parameter Real g = 9.81; parameter Real h0 = 1; parameter Real drag = 0;\
    Real h(start=h0, fixed=true); Real v(start=0, fixed=true);\
    equation der(h) = v; der(v) = -g - drag*v*noEvent(abs(v)); when h <= 0 then reinit(v, -e*pre(v)); end when; end Ball;";

#[test]
fn a_bounce_moves_with_what_it_depends_on() {
    let mut machine = Machine::new(BALL);
    let (value, gradient) = gradient(&mut machine, &until(0.7, 1), "h");
    // One bounce at T = √(2 h0/g): h = e g T s − g s²/2 with s = t − T.
    let (e, g, h0, t) = (0.8_f64, 9.81_f64, 1.0_f64, 0.7_f64);
    let big = (2.0 * h0 / g).sqrt();
    let s = t - big;
    close(value, e * g * big * s - 0.5 * g * s * s, 1e-12, "h");
    let by_time = e * g * s - e * g * big + g * s;
    close(gradient.parameters[0], g * big * s, 1e-9, "dh/de");
    close(
        gradient.parameters[1],
        e * big * s - 0.5 * s * s - by_time * big / (2.0 * g),
        1e-9,
        "dh/dg",
    );
    close(gradient.parameters[2], by_time * big / (2.0 * h0), 1e-9, "dh/dh0");
}

/// Central differences of the solver itself at a tight tolerance, by Richardson extrapolation.
fn difference(machine: &mut Machine, plan: &Plan, column: &str, parameter: usize, value: f64, step: f64) -> f64 {
    let column = machine.compiled.meta.column(column).expect("a column");
    let mut at = |offset: f64| {
        let initialise = Initialise {
            parameters: vec![(parameter, value + offset)],
            states: Vec::new(),
        };
        let rows = machine.good(&Plan {
            initialise: Some(initialise),
            ..plan.clone()
        });
        rows.row(rows.times.len() - 1)[column]
    };
    let coarse = (at(step) - at(-step)) / (2.0 * step);
    let fine = (at(0.5 * step) - at(-0.5 * step)) / step;
    (4.0 * fine - coarse) / 3.0
}

#[test]
fn many_bounces_with_drag_agree_with_differences() {
    let mut machine = Machine::new(BALL);
    let plan = Plan {
        rtol: 1e-12,
        atol: 1e-13,
        initialise: Some(Initialise {
            parameters: vec![(3, 0.1)],
            states: Vec::new(),
        }),
        ..until(2.0, 7)
    };
    let (_, gradient) = gradient(&mut machine, &plan, "h");
    let names = ["e", "g", "h0"];
    for (parameter, value) in [0.8, 9.81, 1.0].into_iter().enumerate() {
        // The drag is kept while another parameter moves.
        let source = BALL.replace("drag = 0", "drag = 0.1");
        let mut other = Machine::new(&source);
        let expected = difference(&mut other, &plan, "h", parameter, value, 1e-4);
        close(gradient.parameters[parameter], expected, 1e-7, names[parameter]);
    }
}

#[test]
fn lotka_volterra_agrees_with_differences() {
    let source = include_str!("models/lotka_volterra.mo");
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-11,
        atol: 1e-12,
        ..until(10.0, 3)
    };
    let meta = machine.compiled.meta.clone();
    let column = meta.columns[0].name.clone();
    for method in [abi::Method::Tsit5, abi::Method::Rk4 { steps_per_tick: 2000 }] {
        let plan = Plan { method, ..plan.clone() };
        let (_, gradient) = gradient(&mut machine, &plan, &column);
        for (index, parameter) in meta.parameters.iter().enumerate() {
            let step = 1e-4 * parameter.default.abs().max(0.1);
            let expected = difference(&mut machine, &plan, &column, index, parameter.default, step);
            close(gradient.parameters[index], expected, 1e-7, &parameter.name);
        }
    }
}

#[test]
fn inputs_have_gradients_at_their_knots() {
    let source = "model I parameter Real k = 2; input Real u(start=0); Real x(start=0, fixed=true); equation der(x) = -k*x + u; end I;";
    for mode in [abi::InputMode::Hold, abi::InputMode::Linear] {
        let knots = vec![(0, 1.0), (400_000_000, 2.0), (900_000_000, 0.5)];
        let table = abi::InputTable {
            mode,
            knots: knots.clone(),
        };
        let plan = Plan {
            inputs: vec![table],
            rtol: 1e-12,
            atol: 1e-13,
            ..until(1.0, 1)
        };
        let mut machine = Machine::new(source);
        let (_, gradient) = gradient(&mut machine, &plan, "x");
        for knot in 0..knots.len() {
            let mut at = |offset: f64| {
                let mut moved = knots.clone();
                moved[knot].1 += offset;
                let table = abi::InputTable { mode, knots: moved };
                let rows = machine.good(&Plan {
                    inputs: vec![table],
                    ..plan.clone()
                });
                rows.values[rows.values.len() - rows.columns]
            };
            // The solution is linear in the input.
            let expected = at(0.5) - at(-0.5);
            close(
                gradient.inputs[0][knot],
                expected,
                1e-10,
                &format!("{mode:?} knot {knot}"),
            );
        }
    }
}

#[test]
fn discrete_memory_carries_gradients() {
    // A dose at each sample depends on the level before it.
    let source = "model P parameter Real k = 0.9; parameter Real target = 3; Real x(start=1, fixed=true); discrete Real dose(start=0);\
        equation der(x) = -k*x; when sample(0.5, 0.5) then dose = 0.5*(target - x); reinit(x, x + dose); end when; end P;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-11,
        atol: 1e-12,
        ..until(2.2, 4)
    };
    let (value, gradient) = gradient(&mut machine, &plan, "x");
    let closed = |k: f64, target: f64| {
        let mut x = 1.0_f64;
        for _ in 0..4 {
            x *= (-0.5 * k).exp();
            x += 0.5 * (target - x);
        }
        x * (-0.2 * k).exp()
    };
    close(value, closed(0.9, 3.0), 1e-9, "x");
    let step = 1e-4;
    close(
        gradient.parameters[0],
        (closed(0.9 + step, 3.0) - closed(0.9 - step, 3.0)) / (2.0 * step),
        1e-7,
        "k",
    );
    close(
        gradient.parameters[1],
        (closed(0.9, 3.0 + step) - closed(0.9, 3.0 - step)) / (2.0 * step),
        1e-7,
        "target",
    );
}

#[test]
fn a_tape_too_small_says_what_it_needs() {
    let mut machine = Machine::new(BALL);
    let plan = Plan {
        tape_bytes: 64,
        ..until(0.7, 1)
    };
    let (status, _) = machine.run(&plan);
    assert_eq!(status.code, abi::Code::TapeFull);
    let plan = Plan {
        tape_bytes: status.tape_needed as u32,
        ..plan
    };
    machine.good(&plan);
}

#[test]
fn gradients_follow_the_instants_of_samples_and_of_rounding() {
    // The area under a staircase with steps at k·p for k = 1, 2, 3: Σ (1 − k·p), so its derivative is −6.
    for steps in [
        "der(a) = floor(time/p);",
        "der(a) = div(time, p);",
        "der(a) = n; when sample(p, p) then n = pre(n) + 1; end when;",
        "der(a) = (time - mod(time, p))/p;",
    ] {
        let source = format!(
            "model S parameter Real p = 0.3; Integer n(start = 0, fixed = true); Real a(start = 0, fixed = true); \
             equation {steps} {} end S;",
            if steps.contains("sample") {
                ""
            } else {
                "when time > 5 then n = 1; end when;"
            }
        );
        let mut machine = Machine::new(&source);
        let plan = Plan {
            rtol: 1e-10,
            atol: 1e-12,
            ..until(1.0, 1)
        };
        let (value, gradient) = gradient(&mut machine, &plan, "a");
        close(value, 3.0 - 6.0 * 0.3, 1e-9, steps);
        close(gradient.parameters[0], -6.0, 1e-9, steps);
    }
}

#[test]
fn gradients_pass_through_tables_and_parameters_that_are_found() {
    // a = (t₁ + t₂ + t₃)/3 over thirds of the time.
    let source = "model T parameter Real t[3] = {10, 20, 30}; Integer k = 1 + integer(2.999999999*time); \
                  Real a(start = 0, fixed = true); equation der(a) = t[k]; end T;";
    let mut machine = Machine::new(source);
    let (_, found) = gradient(&mut machine, &until(1.0, 1), "a");
    for derivative in &found.parameters {
        close(*derivative, 1.0 / 3.0, 1e-8, "a table");
    }
    // k = −s/2 where the slope s at the start is given: x(1) = 2·exp(s/2), and dx/ds is half of it.
    let source = "model K parameter Real s = -3; parameter Real k(fixed = false, start = 1); Real x(start = 2, fixed = true); \
                  initial equation der(x) = s; equation der(x) = -k*x; end K;";
    let mut machine = Machine::new(source);
    let plan = Plan {
        rtol: 1e-10,
        atol: 1e-12,
        ..until(1.0, 1)
    };
    let (value, found) = gradient(&mut machine, &plan, "x");
    close(value, 2.0 * (-1.5_f64).exp(), 1e-8, "x");
    close(found.parameters[0], value / 2.0, 1e-8, "dx/ds");
}
