//! Solutions against closed forms and published references.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, until};
use orrery_lang::abi::{InputMode, InputTable, Method, Plan};

const DECAY: &str = r#"
model Decay "exponential decay"
  parameter Real k(unit="1/s") = 2 "rate";
  output Real x(start=1, fixed=true);
equation
  der(x) = -k*x;
end Decay;
"#;

#[test]
fn decay_meets_the_closed_form() {
    let mut machine = Machine::new(DECAY);
    let plan = Plan {
        rtol: 1e-10,
        atol: 1e-12,
        ..until(3.0, 30)
    };
    let rows = machine.good(&plan);
    assert_eq!(rows.times.len(), 31);
    for (time, x) in rows.times.iter().zip(rows.column(0)) {
        let exact = (-2.0 * time).exp();
        assert!((x - exact).abs() < 3e-9, "at {time}: {x} against {exact}");
    }
}

#[test]
fn fixed_steps_converge_with_order_four() {
    let mut machine = Machine::new(DECAY);
    let mut errors = Vec::new();
    for steps in [10, 20, 40] {
        let plan = Plan {
            method: Method::Rk4 { steps_per_tick: steps },
            ..until(1.0, 1)
        };
        let rows = machine.good(&plan);
        errors.push((rows.row(1)[0] - (-2.0_f64).exp()).abs());
    }
    for pair in errors.windows(2) {
        let order = (pair[0] / pair[1]).log2();
        assert!((3.8..4.4).contains(&order), "order {order}");
    }
}

#[test]
fn lotka_volterra_keeps_its_invariant() {
    let mut machine = Machine::new(include_str!("models/lotka_volterra.mo"));
    let plan = Plan {
        rtol: 1e-10,
        atol: 1e-12,
        ..until(20.0, 200)
    };
    let rows = machine.good(&plan);
    let invariant = |row: &[f64]| 1.0 * row[0] - 1.0 * row[0].ln() + 1.0 * row[1] - 1.5 * row[1].ln();
    let first = invariant(rows.row(0));
    for index in 0..rows.times.len() {
        assert!((invariant(rows.row(index)) - first).abs() < 1e-7, "row {index}");
    }
}

#[test]
fn hold_inputs_end_steps_exactly() {
    let source = "model I input Real u; output Real x(start=0, fixed=true); equation der(x) = u; end I;";
    let mut machine = Machine::new(source);
    let table = InputTable {
        mode: InputMode::Hold,
        knots: vec![(0, 1.0), (300_000_000, -2.0), (700_000_000, 5.0)],
    };
    let plan = Plan {
        inputs: vec![table],
        ..until(1.0, 1)
    };
    let rows = machine.good(&plan);
    let exact = 0.3 * 1.0 - 2.0 * 0.4 + 5.0 * 0.3;
    assert!((rows.row(1)[machine.compiled.meta.column("x").unwrap()] - exact).abs() < 1e-14);
    let table = InputTable {
        mode: InputMode::Linear,
        knots: vec![(0, 0.0), (500_000_000, 1.0), (1_000_000_000, 0.0)],
    };
    let plan = Plan {
        inputs: vec![table],
        ..until(1.0, 1)
    };
    let rows = machine.good(&plan);
    assert!((rows.row(1)[0] - 0.5).abs() < 1e-14);
}
