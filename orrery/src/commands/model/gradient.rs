//! `orrery model gradient`.

use orrery_runtime::EngineKind;
use orrery_runtime::solver::{Loss, number};

use super::{engine, failure, options, problem, read};
use crate::cli::{ModelFormat, ModelGradient};
use crate::error::Failure;

/// Prints the value of the expression at the end, and its derivatives.
pub fn gradient(arguments: &ModelGradient) -> Result<(), Failure> {
    let (solve, file) = (&arguments.solve, &arguments.solve.file);
    let wrong = |error| failure(file, error);
    let options = options(solve)?;
    let problem = problem(&engine(EngineKind::Cranelift)?, &read(file)?, solve, &[&arguments.of])?;
    let wrt = problem.wrt(&arguments.wrt, &[]).map_err(wrong)?;
    let loss = Loss::Terminal(arguments.of.clone());
    let gradient = problem.gradient(&loss, &wrt, &options).map_err(wrong)?;
    match arguments.output {
        ModelFormat::Json => println!("{}", serde_json::to_string(&gradient).map_err(Failure::from_error)?),
        ModelFormat::Csv => {
            println!("name,value\n,{}", number(gradient.value));
            for (name, derivative) in &gradient.by {
                println!("{},{}", quoted(name), number(*derivative));
            }
            for (name, derivatives) in &gradient.by_knots {
                for (knot, derivative) in derivatives.iter().enumerate() {
                    println!("{},{}", quoted(&format!("{name}[{}]", knot + 1)), number(*derivative));
                }
            }
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    if name.contains(',') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}
