//! `orrery model gradient`.

use orrery_runtime::EngineKind;
use orrery_runtime::solver::{Gradient, Loss, number};

use super::{engine, failure, options, problem, read};
use crate::cli::{ModelFormat, ModelGradient, ModelMode};
use crate::error::Failure;

/// Prints the value of the expression at the end, and its derivatives.
pub fn gradient(arguments: &ModelGradient) -> Result<(), Failure> {
    let (solve, file) = (&arguments.solve, &arguments.solve.file);
    let wrong = |error| failure(file, error);
    let options = options(solve)?;
    let problem = problem(&engine(EngineKind::Cranelift)?, &read(file)?, solve, &[&arguments.of])?;
    let wrt = problem.wrt(&arguments.wrt, &[]).map_err(wrong)?;
    let loss = Loss::Terminal(arguments.of.clone());
    let (first, second) = match arguments.mode {
        ModelMode::Adjoint => (problem.gradient(&loss, &wrt, &options), None),
        ModelMode::Forward => (problem.gradient_forward(&loss, &wrt, &options), None),
        ModelMode::Check => (
            problem.gradient(&loss, &wrt, &options),
            Some(problem.gradient_forward(&loss, &wrt, &options)),
        ),
    };
    let (first, second) = (first.map_err(wrong)?, second.transpose().map_err(wrong)?);
    let difference = second.as_ref().map(|second| {
        let pairs = numbers(&first).into_iter().zip(numbers(second));
        pairs
            .map(|((_, one), (_, other))| (one - other).abs())
            .fold(0.0, f64::max)
    });
    match (arguments.output, &second, difference) {
        (ModelFormat::Json, Some(second), Some(difference)) => println!(
            "{}",
            serde_json::json!({ "adjoint": first, "forward": second, "difference": difference })
        ),
        (ModelFormat::Json, ..) => println!("{}", serde_json::to_string(&first).map_err(Failure::from_error)?),
        (ModelFormat::Csv, Some(second), Some(difference)) => {
            println!("name,adjoint,forward");
            println!(",{},{}", number(first.value), number(second.value));
            for ((name, one), (_, other)) in numbers(&first).into_iter().zip(numbers(second)) {
                println!("{},{},{}", quoted(&name), number(one), number(other));
            }
            eprintln!("largest difference {}", number(difference));
        }
        (ModelFormat::Csv, ..) => {
            println!("name,value\n,{}", number(first.value));
            for (name, derivative) in numbers(&first) {
                println!("{},{}", quoted(&name), number(derivative));
            }
        }
    }
    Ok(())
}

/// Every derivative with its name, knots by their number.
fn numbers(gradient: &Gradient) -> Vec<(String, f64)> {
    let knots = gradient.by_knots.iter().flat_map(|(name, derivatives)| {
        let numbered = derivatives.iter().enumerate();
        numbered.map(move |(knot, derivative)| (format!("{name}[{}]", knot + 1), *derivative))
    });
    gradient.by.iter().cloned().chain(knots).collect()
}

fn quoted(name: &str) -> String {
    if name.contains(',') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}
