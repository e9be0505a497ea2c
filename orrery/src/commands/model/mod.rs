//! `orrery model`: write, check, solve, measure and build models. Needs no server and no data folder.

mod bench;
mod build;
mod check;
mod format;
mod gradient;
mod new;
mod run;

use std::path::Path;

use orrery_runtime::solver::{Limits, Method, Output, Problem, ProblemOptions, SolveError, SolveOptions};
use orrery_runtime::{Diagnostic, Engine, EngineKind};

use crate::cli::{Model, ModelMethod, ModelSolve};
use crate::error::{Exit, Failure};

/// Does what was asked.
pub fn model(arguments: &Model) -> Result<(), Failure> {
    match arguments {
        Model::Check { file, json } => check::check(file, *json),
        Model::Run(arguments) => run::run(arguments),
        Model::Gradient(arguments) => gradient::gradient(arguments),
        Model::Build {
            file,
            output,
            model,
            set,
        } => build::build(file, output, model.as_deref(), set),
        Model::Bench { solve, seconds, json } => bench::bench(solve, *seconds, *json),
        Model::Fmt { files, check } => format::format(files, *check),
        Model::New { name } => new::new(name),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let message = format!("{}: {error}; name an existing Modelica file", file.display());
        Failure::new(Exit::NotFound, message)
    })
}

fn engine(kind: EngineKind) -> Result<Engine, Failure> {
    Engine::new(kind).map_err(Failure::from_error)
}

/// The problem of what the arguments name, with what `more` asks of it.
fn problem(engine: &Engine, text: &str, arguments: &ModelSolve, more: ProblemOptions) -> Result<Problem, Failure> {
    let options = ProblemOptions {
        model: arguments.model.clone(),
        set: values(&arguments.set)?,
        limits: Limits {
            max_steps: arguments.max_steps,
            ..more.limits
        },
        ..more
    };
    let file = arguments.file.display().to_string();
    Problem::compile(engine, text, &file, &options).map_err(|error| failure(&arguments.file, error))
}

/// `NAME=VALUE`, with `true` and `false` for structural switches.
fn values(set: &[String]) -> Result<Vec<(String, f64)>, Failure> {
    let parse = |text: &String| {
        let wrong = || {
            let message = format!("--set {text}: write NAME=VALUE, such as k=2.5, or start(x)=1");
            Failure::new(Exit::Usage, message)
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let value = match value.trim() {
            "true" => 1.0,
            "false" => 0.0,
            number => number.parse().map_err(|_| wrong())?,
        };
        Ok((name.trim().to_owned(), value))
    };
    set.iter().map(parse).collect()
}

fn options(arguments: &ModelSolve) -> Result<SolveOptions, Failure> {
    let method = match arguments.method {
        ModelMethod::Auto => Method::Auto,
        ModelMethod::Tsit5 => Method::Tsit5,
        ModelMethod::Rodas5p => Method::Rodas5p,
        ModelMethod::Esdirk => Method::Esdirk,
        ModelMethod::Rk4 => {
            let missing = || Failure::new(Exit::Usage, "rk4 has a fixed step: give it with --step or --every");
            Method::Rk4 {
                step: arguments.step.or(arguments.every).ok_or_else(missing)?,
            }
        }
    };
    Ok(SolveOptions {
        from: arguments.from,
        output: arguments.every.map_or(Output::Ends, Output::Every),
        method,
        rtol: arguments.rtol,
        atol: arguments.atol,
        ..SolveOptions::until(arguments.until)
    })
}

/// Diagnostics go to standard error one by one, as `check` prints them.
fn failure(file: &Path, error: SolveError) -> Failure {
    match error {
        SolveError::Model(diagnostics) => refused(file, &diagnostics),
        SolveError::Unknown { .. } | SolveError::Value { .. } | SolveError::Grid { .. } => {
            Failure::new(Exit::Usage, error.to_string())
        }
        other => Failure::from_error(other),
    }
}

fn refused(file: &Path, diagnostics: &[Diagnostic]) -> Failure {
    for diagnostic in diagnostics {
        orrery_edge_agent::tell!("{}", diagnostic.render());
    }
    let errors = if diagnostics.len() == 1 { "error" } else { "errors" };
    Failure::new(
        Exit::Failure,
        format!("{}: {} {errors}", file.display(), diagnostics.len()),
    )
}
