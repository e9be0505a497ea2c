//! `orrery model gradient`.

use orrery_runtime::EngineKind;
use orrery_runtime::solver::{Gradient, Limits, Loss, Problem, ProblemOptions, SolveOptions, names_of, number};

use super::{engine, failure, options, problem, read};
use crate::cli::{ModelFormat, ModelGradient, ModelMode};
use crate::commands::say;
use crate::error::{Exit, Failure};

/// Prints the value of the expression at the end, and its derivatives.
pub fn gradient(arguments: &ModelGradient) -> Result<(), Failure> {
    let (solve, file) = (&arguments.solve, &arguments.solve.file);
    let wrong = |error| failure(file, error);
    let options = options(solve)?;
    let more = ProblemOptions {
        limits: Limits {
            gradient_bytes: arguments.memory,
            // Half of it is for rows and cotangents.
            memory_mib: (arguments.memory >> 19).clamp(1024, 4096) as u32,
            ..Limits::default()
        },
        expressions: vec![arguments.of.clone()],
        second_derivatives: arguments.direction.is_some(),
        ..ProblemOptions::default()
    };
    let problem = problem(&engine(EngineKind::Cranelift)?, &read(file)?, solve, more)?;
    let loss = Loss::Terminal(arguments.of.clone());
    if let Some(direction) = &arguments.direction {
        return along(arguments, &problem, &loss, direction, &options);
    }
    let names = arguments.wrt.as_deref().unwrap_or_default();
    let wrt = problem.wrt(names, &[]).map_err(wrong)?;
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
        (ModelFormat::Json, Some(second), Some(difference)) => {
            say(serde_json::json!({ "adjoint": first, "forward": second, "difference": difference }))?
        }
        (ModelFormat::Json, ..) => say(serde_json::to_string(&first).map_err(Failure::from_error)?)?,
        (ModelFormat::Csv, Some(second), Some(difference)) => {
            say("name,adjoint,forward")?;
            say(format_args!(",{},{}", number(first.value), number(second.value)))?;
            for ((name, one), (_, other)) in numbers(&first).into_iter().zip(numbers(second)) {
                say(format_args!("{},{},{}", quoted(&name), number(one), number(other)))?;
            }
            orrery_edge_agent::tell!("largest difference {}", number(difference));
        }
        (ModelFormat::Csv, ..) => {
            say(format_args!("name,value\n,{}", number(first.value)))?;
            for (name, derivative) in numbers(&first) {
                say(format_args!("{},{}", quoted(&name), number(derivative)))?;
            }
        }
    }
    Ok(())
}

/// Prints the value of the expression with its first and second derivative along a line.
fn along(
    arguments: &ModelGradient,
    problem: &Problem,
    loss: &Loss,
    direction: &str,
    options: &SolveOptions,
) -> Result<(), Failure> {
    let wrong = |error| failure(&arguments.solve.file, error);
    let components: Result<Vec<(String, f64)>, Failure> = names_of(direction).into_iter().map(component).collect();
    let line = problem.direction(&components?, &[]).map_err(wrong)?;
    let along = problem.loss_along(loss, &line, options).map_err(wrong)?;
    match arguments.output {
        ModelFormat::Json => say(serde_json::to_string(&along).map_err(Failure::from_error)?)?,
        ModelFormat::Csv => say(format_args!(
            "value,first,second\n{},{},{}",
            number(along.value),
            number(along.first),
            number(along.second)
        ))?,
    }
    Ok(())
}

/// `NAME=PART`.
fn component(text: &str) -> Result<(String, f64), Failure> {
    let parts = text.rsplit_once('=');
    let component = parts.and_then(|(name, part)| Some((name.trim().to_owned(), part.trim().parse().ok()?)));
    component.ok_or_else(|| {
        let message = format!("--direction {text}: write NAME=PART, such as k=1, or start(x)=0.5");
        Failure::new(Exit::Usage, message)
    })
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
