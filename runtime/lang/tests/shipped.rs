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
    events: Vec<f64>,
    gradients: Vec<Slope>,
}

/// The gradient of one variable at one time.
struct Slope {
    of: String,
    at: f64,
    by: Vec<(String, f64)>,
}

fn cases(fixture: &str) -> Vec<Case> {
    let fixture: Value = serde_json::from_str(fixture).expect("a fixture");
    let cases = fixture["cases"].as_array().expect("cases");
    cases.iter().map(case).collect()
}

fn case(case: &Value) -> Case {
    let list = |field: &str| case[field].as_array().into_iter().flatten();
    let series = case["series"].as_object().expect("series");
    Case {
        set: pairs(&case["set"]),
        inputs: pairs(&case["inputs"]),
        times: numbers(&case["times"]),
        series: series
            .iter()
            .map(|(name, values)| (name.clone(), numbers(values)))
            .collect(),
        events: list("events").map(number).collect(),
        gradients: list("gradients")
            .map(|slope| Slope {
                of: slope["of"].as_str().expect("a variable").to_string(),
                at: number(&slope["at"]),
                by: pairs(&slope["gradient"]),
            })
            .collect(),
    }
}

/// The names and numbers of an object; none where there is no object.
fn pairs(object: &Value) -> Vec<(String, f64)> {
    let entries = object.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), number(value))).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().expect("a list");
    list.iter().map(number).collect()
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

    /// The largest difference of a time of an event from the reference, in seconds. A relation that changes without any
    /// consequence has its two rows too, and is passed over.
    fn event_error(&self, machine: &mut Machine, rtol: f64, atol: f64) -> f64 {
        let plan = Plan {
            rtol,
            atol,
            event_rows: 200,
            ..until(*self.times.last().expect("times"), 1)
        };
        let rows = machine.good(&self.plan(machine, plan));
        let last = rows.times.len() - 1;
        let pairs = (1..last).step_by(2).filter(|row| rows.row(*row) != rows.row(row + 1));
        let found: Vec<f64> = pairs.map(|row| rows.times[row]).collect();
        assert_eq!(found.len(), self.events.len(), "events at {found:?}");
        let pairs = found.iter().zip(&self.events);
        pairs
            .map(|(time, expected)| (time - expected).abs())
            .fold(0.0, f64::max)
    }

    /// The gradient that the module finds by its reverse pass, for every name of the reference.
    fn slopes(&self, machine: &mut Machine, slope: &Slope, method: Method, rtol: f64, atol: f64) -> Vec<f64> {
        let plan = Plan {
            method,
            rtol,
            atol,
            ..until(slope.at, 1)
        };
        let plan = self.plan(machine, plan);
        let (_, gradient) = common::gradient(machine, &plan, &slope.of);
        let meta = &machine.compiled.meta;
        let index = |name: &str| meta.parameter(name).unwrap_or_else(|| panic!("no parameter {name}"));
        slope
            .by
            .iter()
            .map(|(name, _)| gradient.parameters[index(name)])
            .collect()
    }
}

/// Every gradient of every case within `bound` of the reference, relative to the entry or to `floor` if that is more.
fn gradients_hold(model: &str, fixture: &str, rtol: f64, atol: f64, bound: f64, floor: f64) {
    gradients_hold_with(Method::Tsit5, model, fixture, (rtol, atol), bound, floor);
}

fn gradients_hold_with(method: Method, model: &str, fixture: &str, tolerance: (f64, f64), bound: f64, floor: f64) {
    let mut machine = Machine::new(model);
    for (index, case) in cases(fixture).iter().enumerate() {
        for slope in &case.gradients {
            let found = case.slopes(&mut machine, slope, method, tolerance.0, tolerance.1);
            for (value, (name, expected)) in found.iter().zip(&slope.by) {
                let error = (value - expected).abs() / expected.abs().max(floor);
                println!("{method:?}, case {index}, d {}/d {name}: {error:.1e}", slope.of);
                assert!(
                    error <= bound,
                    "{method:?}, case {index}, d {}/d {name}: {value} and not {expected}",
                    slope.of
                );
            }
        }
    }
}

/// Every event of every case within `bound` seconds of the reference.
fn events_hold(model: &str, fixture: &str, rtol: f64, atol: f64, bound: f64) {
    let mut machine = Machine::new(model);
    for (index, case) in cases(fixture).iter().enumerate() {
        let error = case.event_error(&mut machine, rtol, atol);
        println!("case {index}, events: {error:.1e} s");
        assert!(error <= bound, "case {index}: {error:e} s");
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
    for (method, bound) in [(Method::Rodas5p, 2e-7), (Method::Esdirk, 5e-7), (Method::Auto, 5e-7)] {
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
            assert!(error < 1e-7, "{method:?}: {error:e}");
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

#[test]
fn the_ball_bounces_as_its_closed_form_with_and_without_drag() {
    let (model, fixture) = (model!("bouncing_ball"), fixture!("bouncing_ball"));
    holds(model, fixture, 1e-12, 1e-13, 1e-10);
    events_hold(model, fixture, 1e-12, 1e-13, 1e-11);
}

#[test]
fn the_ball_has_the_gradients_of_its_closed_form() {
    gradients_hold(
        model!("bouncing_ball"),
        fixture!("bouncing_ball"),
        1e-12,
        1e-13,
        1e-9,
        1e-3,
    );
}

#[test]
fn the_battery_meets_34_digits_through_both_switches() {
    let (model, fixture) = (model!("battery_2rc"), fixture!("battery_2rc"));
    holds(model, fixture, 1e-12, 1e-13, 1e-9);
    events_hold(model, fixture, 1e-12, 1e-13, 1e-7);
}

#[test]
fn the_battery_has_exact_gradients_through_both_switches() {
    gradients_hold(model!("battery_2rc"), fixture!("battery_2rc"), 1e-12, 1e-13, 1e-8, 1e-9);
}

#[test]
fn doses_add_up_as_batemans_function_says() {
    let (model, fixture) = (model!("pk1"), fixture!("pk1"));
    holds(model, fixture, 1e-12, 1e-13, 1e-10);
    events_hold(model, fixture, 1e-12, 1e-13, 1e-9);
}

#[test]
fn doses_have_the_gradients_of_batemans_function() {
    gradients_hold(model!("pk1"), fixture!("pk1"), 1e-12, 1e-13, 1e-9, 1e-6);
}

#[test]
fn gradients_of_smooth_models_meet_34_digits() {
    gradients_hold(
        model!("lotka_volterra"),
        fixture!("lotka_volterra"),
        1e-12,
        1e-13,
        1e-9,
        1e-3,
    );
    gradients_hold(model!("van_der_pol"), fixture!("van_der_pol"), 1e-12, 1e-13, 1e-9, 1e-3);
    gradients_hold(model!("cstr"), fixture!("cstr"), 1e-12, 1e-12, 1e-9, 1e-9);
    gradients_hold(model!("bicycle"), fixture!("bicycle"), 1e-12, 1e-13, 1e-9, 1e-9);
}

/// The methods for stiff problems differentiate their own steps, through doses, bounces and both switches of the charger. An
/// event moves along the interpolant, which for the ESDIRK is a cubic: its slope has fewer digits than the solution.
#[test]
fn gradients_over_implicit_methods_meet_34_digits() {
    for (method, bound) in [(Method::Rodas5p, 1e-9), (Method::Esdirk, 1e-6)] {
        let holds = |model, fixture, floor| {
            gradients_hold_with(method, model, fixture, (1e-12, 1e-13), bound, floor);
        };
        holds(model!("pk1"), fixture!("pk1"), 1e-6);
        holds(model!("bouncing_ball"), fixture!("bouncing_ball"), 1e-3);
        holds(model!("battery_2rc"), fixture!("battery_2rc"), 1e-9);
        holds(model!("van_der_pol"), fixture!("van_der_pol"), 1e-3);
        holds(model!("cstr"), fixture!("cstr"), 1e-9);
        holds(model!("lotka_volterra"), fixture!("lotka_volterra"), 1e-3);
    }
}

/// Open loop from its first sample, with the parameters that were fitted to this recording.
#[test]
fn the_temperature_control_lab_follows_its_recording() {
    let recording = include_str!("../../../tests/fixtures/tclab-prbs.csv");
    let line = |line: &str| line.split(',').map(|n| n.parse().expect("a number")).collect();
    let recorded: Vec<Vec<f64>> = recording.lines().skip(1).map(line).collect();
    let mut machine = Machine::new(model!("tclab"));
    let meta = machine.compiled.meta.clone();
    let mut inputs = vec![InputTable::default(); meta.inputs.len()];
    for (name, column) in [("q1", 1), ("q2", 2)] {
        let knots = recorded.iter().map(|row| ((row[0] * 1e9) as i64, row[column]));
        inputs[meta.input(name).expect("an input")] = InputTable {
            mode: InputMode::Hold,
            knots: knots.collect(),
        };
    }
    let rows = recorded.len() - 1;
    let sensors = [("t1", 3), ("t2", 4)];
    let start = sensors.map(|(name, column)| (meta.state(name).expect("a state"), recorded[0][column]));
    let plan = Plan {
        inputs,
        initialise: Some(Initialise {
            states: start.to_vec(),
            ..Initialise::default()
        }),
        ..until(recorded[rows][0], rows as u32)
    };
    let found = machine.good(&plan);
    for ((name, column), bound) in sensors.into_iter().zip([0.505, 0.413]) {
        let values = found.column(meta.column(name).expect("a column"));
        let squares: f64 = values
            .zip(&recorded)
            .map(|(value, row)| (value - row[column]).powi(2))
            .sum();
        let rms = (squares / recorded.len() as f64).sqrt();
        println!("{name}: RMS {rms:.4}");
        assert!(rms < bound, "{name}: RMS {rms}");
    }
}
