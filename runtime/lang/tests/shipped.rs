//! The models of deploy/models against solutions from outside the project (tests/references).

mod common;

use common::{Machine, until};
use orrery_lang::abi::{Initialise, InputMode, InputTable, Plan};
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
    holds(model!("lotka_volterra"), fixture!("lotka_volterra"), 1e-12, 1e-13, 1e-11);
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

/// With a method for problems that are not stiff as far as it gets, three of eleven decades.
#[test]
fn robertson_meets_34_digits_at_its_start() {
    let mut machine = Machine::new(model!("robertson"));
    let all = cases(fixture!("robertson"));
    for index in 0..3 {
        let plan = Plan {
            rtol: 1e-10,
            atol: 1e-12,
            ..until(all[0].times[index], 1)
        };
        let rows = machine.good(&all[0].plan(&machine, plan));
        for (name, values) in &all[0].series {
            let column = machine.compiled.meta.column(name).expect("a column");
            let error = (rows.row(1)[column] / values[index] - 1.0).abs();
            println!("{name} at {}: {error:.1e}", all[0].times[index]);
            assert!(error < 1e-9, "{name} at {}: {error:e}", all[0].times[index]);
        }
    }
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
