//! Derivatives against multi-precision differences that Python made (`tests/references`).

#![allow(clippy::unwrap_used)]

mod common;

use common::{CTX, Machine, gradient, until};
use orrery_lang::Plan;
use orrery_lang::abi::Layout;
use serde_json::Value;

/// A number of the fixture, which has more digits than a double.
fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Every expression as an output of a model over two parameters and a state at rest.
fn model(batch: &Value) -> String {
    let at = |name: &str| batch["at"][name].as_f64().unwrap();
    let mut text = format!(
        "model E parameter Real p = {:?}; parameter Real q = {:?}; Real x(start = {:?}, fixed = true);\n",
        at("p"),
        at("q"),
        at("x")
    );
    let cases = batch["cases"].as_array().unwrap();
    for number in 1..=cases.len() {
        text.push_str(&format!("output Real y{number};\n"));
    }
    text.push_str("equation der(x) = 0;\n");
    for (index, case) in cases.iter().enumerate() {
        let expression = case["expression"].as_str().unwrap();
        text.push_str(&format!("y{} = {expression};\n", index + 1));
    }
    text + "end E;"
}

#[test]
fn random_expressions_have_the_derivatives_of_multi_precision_differences() {
    let fixture: Value = serde_json::from_str(include_str!("../../../tests/references/expressions.json")).unwrap();
    let mut compared = 0;
    for batch in fixture["batches"].as_array().unwrap() {
        let mut machine = Machine::new(&model(batch));
        let (p, q) = (
            machine.compiled.meta.parameter("p").unwrap(),
            machine.compiled.meta.parameter("q").unwrap(),
        );
        for (index, case) in batch["cases"].as_array().unwrap().iter().enumerate() {
            // Both sweeps: the helper compares the forward one with the reverse one in every direction.
            let (value, found) = gradient(&mut machine, &until(1.0, 1), &format!("y{}", index + 1));
            let expected = &case["gradient"];
            let triples = [
                ("value", value, number(&case["value"])),
                ("p", found.parameters[p], number(&expected["p"])),
                ("q", found.parameters[q], number(&expected["q"])),
                ("x", found.states[0], number(&expected["x"])),
            ];
            for (what, found, expected) in triples {
                // Intermediate values reach 30 and slopes 100: some digits of sixteen go to cancellation.
                let error = (found - expected).abs() / expected.abs().max(1.0);
                assert!(
                    error < 1e-11,
                    "{what} of {}: {found} and not {expected}",
                    case["expression"]
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 1200);
}

/// Start, end, stop and guard of every step on the tape of the plan just solved (`tape.kernel` describes the records).
fn recorded_mesh(machine: &Machine, layout: &Layout) -> Vec<(f64, f64, f64, i32)> {
    let memory = machine.memory.data(&machine.store);
    let word = |at: u32| i32::from_le_bytes(memory[at as usize..at as usize + 4].try_into().unwrap());
    let real = |at: u32| f64::from_le_bytes(memory[at as usize..at as usize + 8].try_into().unwrap());
    let mut at = CTX + layout.tape_at;
    let mut mesh = Vec::new();
    while (1..=4).contains(&word(at)) {
        if word(at) == 1 {
            mesh.push((real(at + 8), real(at + 16), real(at + 24), word(at + 48)));
        }
        at += word(at + 4) as u32 + 16;
    }
    mesh
}

#[test]
fn a_ball_with_drag_has_the_gradient_of_multi_precision_differences_over_its_mesh() {
    let fixture: Value = serde_json::from_str(include_str!("../../../tests/references/drag.json")).unwrap();
    let mut machine = Machine::new(include_str!("models/ball_drag.mo"));
    let plan = Plan {
        tape_bytes: 1 << 22,
        rtol: 1e-6,
        atol: 1e-9,
        ..until(2.0, 1)
    };
    let rows = machine.good(&plan);
    let mesh = recorded_mesh(&machine, &Layout::for_plan(&machine.compiled.meta, &plan));
    let frozen = fixture["mesh"].as_array().unwrap();
    let same = mesh.len() == frozen.len()
        && mesh.iter().zip(frozen).all(|((start, end, stop, guard), step)| {
            let near = |place: usize, time: &f64| (step[place].as_f64().unwrap() - time).abs() < 1e-12;
            near(0, start) && near(1, end) && near(2, stop) && step[3] == *guard
        });
    assert!(
        same,
        "the steps are others than the fixture's: give this mesh to tests/references/drag.py\n{}",
        serde_json::to_string(&mesh).unwrap()
    );
    assert_eq!(
        mesh.iter().filter(|step| step.3 > 0 && step.2 - step.0 > 1e-9).count(),
        3,
        "three bounces"
    );
    let height = machine.compiled.meta.column("h").unwrap();
    common::close(rows.row(1)[height], number(&fixture["height"]), 1e-12, "the height");
    let (_, found) = gradient(&mut machine, &plan, "h");
    for (name, expected) in fixture["gradient"].as_object().unwrap() {
        let index = machine.compiled.meta.parameter(name).unwrap();
        common::close(found.parameters[index], number(expected), 1e-9, name);
    }
}
