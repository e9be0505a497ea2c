//! The models of deploy/models against solutions from outside the project (tests/references).

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, until};
use orrery_lang::abi::{Initialise, InputMode, InputTable, Method, Plan};
use serde_json::Value;

/// One run of a fixture: what was set, and the values that another program found.
struct Case {
    set: Vec<(String, f64)>,
    inputs: Vec<(String, f64)>,
    times: Vec<f64>,
    series: Vec<(String, Vec<f64>)>,
}

fn cases(fixture: &str) -> Vec<Case> {
    let fixture: Value = serde_json::from_str(fixture).expect("a fixture");
    let cases = fixture["cases"].as_array().expect("cases");
    cases.iter().map(case).collect()
}

fn case(case: &Value) -> Case {
    let pairs = |field: &str| -> Vec<(String, f64)> {
        let object = case[field].as_object();
        let entries = object.into_iter().flatten();
        entries
            .map(|(name, value)| (name.clone(), value.as_f64().expect("a number")))
            .collect()
    };
    let series = case["series"].as_object().expect("series");
    Case {
        set: pairs("set"),
        inputs: pairs("inputs"),
        times: numbers(&case["times"]),
        series: series
            .iter()
            .map(|(name, values)| (name.clone(), numbers(values)))
            .collect(),
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().expect("a list");
    list.iter().map(|value| value.as_f64().expect("a number")).collect()
}

impl Case {
    /// The largest value of each series, the scale of its errors.
    fn scale(values: &[f64]) -> f64 {
        values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()))
    }

    /// This case's parameters and inputs, in `plan`.
    fn plan(&self, machine: &Machine, plan: Plan) -> Plan {
        let meta = &machine.compiled.meta;
        let parameters = self.set.iter().map(|(name, value)| {
            let index = meta.parameter(name);
            (index.unwrap_or_else(|| panic!("no parameter {name}")), *value)
        });
        let mut inputs = vec![InputTable::default(); meta.inputs.len()];
        for (name, value) in &self.inputs {
            let index = meta.input(name).unwrap_or_else(|| panic!("no input {name}"));
            inputs[index] = InputTable {
                mode: InputMode::Hold,
                knots: vec![(0, *value)],
            };
        }
        Plan {
            inputs,
            initialise: Some(Initialise {
                parameters: parameters.collect(),
                ..Initialise::default()
            }),
            max_steps: 2_000_000,
            ..plan
        }
    }

    /// Runs through all times in one plan (they are equally spaced from 0); the largest error of each series, relative
    /// to its largest value.
    fn errors(&self, machine: &mut Machine, rtol: f64, atol: f64) -> Vec<(String, f64)> {
        let end = *self.times.last().expect("times");
        let rows = self.times.len() - 1;
        let plan = Plan {
            rtol,
            atol,
            ..until(end, rows as u32)
        };
        let found = machine.good(&self.plan(machine, plan));
        for (time, expected) in found.times.iter().zip(&self.times) {
            assert!(
                (time - expected).abs() <= 1e-9 * end,
                "a row at {time} instead of {expected}"
            );
        }
        let each = self.series.iter().map(|(name, values)| {
            let column = machine.compiled.meta.column(name);
            let column = column.unwrap_or_else(|| panic!("no column {name}"));
            let differences = found.column(column).zip(values).map(|(a, b)| (a - b).abs());
            (name.clone(), differences.fold(0.0_f64, f64::max) / Case::scale(values))
        });
        each.collect()
    }
}

/// Every series of every case within `bound` of the reference.
fn holds(model: &str, fixture: &str, rtol: f64, atol: f64, bound: f64) {
    let mut machine = Machine::new(model);
    for (index, case) in cases(fixture).iter().enumerate() {
        for (name, error) in case.errors(&mut machine, rtol, atol) {
            println!("case {index}, {name}: {error:.1e}");
            assert!(error <= bound, "case {index}, {name}: {error:e}");
        }
    }
}

macro_rules! model {
    ($name:literal) => {
        include_str!(concat!("../../../deploy/models/", $name, ".mo"))
    };
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/references/", $name, ".json"))
    };
}

#[test]
fn lotka_volterra_meets_34_digits() {
    holds(
        model!("lotka_volterra"),
        fixture!("lotka_volterra"),
        1e-12,
        1e-13,
        1e-11,
    );
}

#[test]
fn van_der_pol_meets_34_digits() {
    holds(model!("van_der_pol"), fixture!("van_der_pol"), 1e-12, 1e-13, 1e-11);
}

#[test]
fn the_stirred_tank_meets_34_digits_through_its_ignition() {
    holds(model!("cstr"), fixture!("cstr"), 1e-12, 1e-12, 1e-10);
}

#[test]
fn the_bicycle_meets_34_digits() {
    holds(model!("bicycle"), fixture!("bicycle"), 1e-12, 1e-13, 1e-10);
}

/// All eleven decades with each method for stiff problems, and with the automatic choice.
#[test]
fn robertson_meets_34_digits() {
    let mut machine = Machine::new(model!("robertson"));
    let case = &cases(fixture!("robertson"))[0];
    for (method, bound) in [(Method::Rodas5p, 1e-6), (Method::Esdirk, 1e-5), (Method::Auto, 1e-6)] {
        for (index, time) in case.times.iter().enumerate() {
            let plan = Plan {
                method,
                rtol: 1e-8,
                atol: 1e-14,
                // A clock of milliseconds reaches 1e11 seconds.
                clock_hz: 1e3,
                tick_nanos: (time * 1e3).round() as i64,
                ..until(1.0, 1)
            };
            let rows = machine.good(&case.plan(&machine, plan));
            for (name, values) in &case.series {
                let column = machine.compiled.meta.column(name).expect("a column");
                let error = (rows.row(1)[column] / values[index] - 1.0).abs();
                println!("{method:?} {name} at {time}: {error:.1e}");
                assert!(error < bound, "{method:?} {name} at {time}: {error:e}");
            }
        }
    }
}

#[test]
fn the_stiff_oscillator_meets_34_digits() {
    let mut machine = Machine::new(model!("van_der_pol"));
    let case = &cases(fixture!("van_der_pol_stiff"))[0];
    for method in [Method::Rodas5p, Method::Esdirk, Method::Auto] {
        let plan = Plan {
            method,
            rtol: 1e-9,
            atol: 1e-9,
            ..until(2000.0, 4)
        };
        let plan = case.plan(&machine, plan);
        let (status, rows) = machine.run(&plan);
        assert_eq!(status.code, orrery_lang::abi::Code::Ok);
        assert_eq!(status.switched_at.is_some(), method == Method::Auto);
        let y = machine.compiled.meta.column("y").expect("y");
        let (_, values) = case.series.iter().find(|(name, _)| name == "y").expect("y");
        for (found, expected) in rows.column(y).skip(1).zip(values) {
            let error = (found - expected).abs();
            println!("{method:?}: {error:.1e} in {} steps", status.steps);
            assert!(error < 1e-5, "{method:?}: {error:e}");
        }
    }
}

/// Solutions, instants of events and gradients through them.
fn holds_through_events(model: &str, fixture: &str, bound: f64, gradient_bound: f64) {
    let json: Value = serde_json::from_str(fixture).expect("a fixture");
    let mut machine = Machine::new(model);
    for (index, case) in cases(fixture).iter().enumerate() {
        for (name, error) in case.errors(&mut machine, 1e-12, 1e-13) {
            println!("case {index}, {name}: {error:.1e}");
            assert!(error <= bound, "case {index}, {name}: {error:e}");
        }
        let json = &json["cases"][index];
        let plan = Plan {
            rtol: 1e-12,
            atol: 1e-13,
            event_rows: 1000,
            ..until(*case.times.last().expect("times"), 1)
        };
        let rows = machine.good(&case.plan(&machine, plan.clone()));
        let mut found: Vec<f64> = rows.times[1..rows.times.len() - 1].to_vec();
        found.dedup();
        let expected = numbers(&json["events"]);
        assert_eq!(found.len(), expected.len(), "{found:?} and not {expected:?}");
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs() / expected;
            assert!(error <= bound, "case {index}: an event at {found} and not {expected}");
        }
        for entry in json["gradients"].as_array().expect("gradients") {
            let at = entry["at"].as_f64().expect("a time");
            let plan = Plan {
                tick_nanos: (at * 1e9).round() as i64,
                event_rows: 0,
                ..plan.clone()
            };
            let plan = case.plan(&machine, plan);
            let of = entry["of"].as_str().expect("a name");
            let (_, gradient) = common::gradient(&mut machine, &plan, of);
            for (name, value) in entry["gradient"].as_object().expect("a gradient") {
                let at = machine.compiled.meta.parameter(name);
                let found = gradient.parameters[at.unwrap_or_else(|| panic!("no parameter {name}"))];
                let expected = value.as_f64().expect("a number");
                let error = (found - expected).abs() / expected.abs().max(1e-3);
                println!("case {index}, d{of}/d{name}: {found} ({error:.1e})");
                assert!(
                    error <= gradient_bound,
                    "case {index}, d{of}/d{name}: {found}, not {expected} ({error:e})"
                );
            }
        }
    }
}

#[test]
fn the_ball_meets_34_digits_with_its_gradients() {
    holds_through_events(model!("bouncing_ball"), fixture!("bouncing_ball"), 1e-10, 1e-7);
}

#[test]
fn doses_meet_34_digits_with_their_gradients() {
    holds_through_events(model!("pk1"), fixture!("pk1"), 1e-10, 1e-8);
}

#[test]
fn the_charge_meets_34_digits_with_its_gradients() {
    holds_through_events(model!("battery_2rc"), fixture!("battery_2rc"), 1e-10, 1e-7);
}

/// On the same mesh of 20 volumes a particle, discharges at 1 C and C/2 and a charge at 1 C.
#[test]
fn the_single_particle_model_agrees_with_pybamm_within_ten_microvolts() {
    let mut machine = Machine::new(model!("spm"));
    for (index, case) in cases(fixture!("spm")).iter().enumerate() {
        let errors = case.errors(&mut machine, 1e-8, 1e-10);
        let (_, voltage) = &case.series.iter().find(|(name, _)| name == "v").expect("voltages");
        let relative = errors.iter().find(|(name, _)| name == "v").expect("voltages").1;
        let volts = relative * Case::scale(voltage);
        println!("case {index}: {volts:.1e} V of {errors:?}");
        assert!(volts < 1e-5, "case {index}: {volts:e} V");
    }
}
