//! `orrery model run`.

use std::io::{BufWriter, ErrorKind, Write};

use orrery_runtime::EngineKind;
use orrery_runtime::solver::{ProblemOptions, SolveError, Statistics, csv_header, csv_rows};

use super::{engine, failure, options, problem, read};
use crate::cli::{ModelFormat, ModelRun};
use crate::error::Failure;

/// Solves a model and prints its rows; what was computed before a failure is printed too.
pub fn run(arguments: &ModelRun) -> Result<(), Failure> {
    let (solve, file) = (&arguments.solve, &arguments.solve.file);
    let options = options(solve)?;
    let problem = problem(
        &engine(EngineKind::Cranelift)?,
        &read(file)?,
        solve,
        ProblemOptions::default(),
    )?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    match arguments.output {
        ModelFormat::Csv => {
            let mut head = Some(csv_header(&problem.names()));
            let mut written = Ok(());
            let solved = problem.stream(&options, &mut |rows| {
                let text = head.take().unwrap_or_default() + &csv_rows(rows);
                written = out.write_all(text.as_bytes());
                written
                    .as_ref()
                    .map_or_else(|error| Err(SolveError::Output(error.to_string())), |()| Ok(()))
            });
            if let Err(error) = written.and_then(|()| out.flush()) {
                return closed(&error);
            }
            let statistics = solved.map_err(|error| failure(file, error))?;
            orrery_edge_agent::tell!("{}", in_words(&statistics));
        }
        ModelFormat::Json => {
            let solution = problem.solve(&options).map_err(|error| failure(file, error))?;
            let text = serde_json::to_string(&solution).map_err(Failure::from_error)?;
            if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
                return closed(&error);
            }
        }
    }
    Ok(())
}

/// A reader that has seen enough, such as `head`, is no failure.
fn closed(error: &std::io::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::from_error(format!("standard output: {error}"))),
    }
}

fn in_words(statistics: &Statistics) -> String {
    let reason = statistics
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    format!(
        "{}: {} steps, {} rejected, {} evaluations, {} events{reason}",
        statistics.method, statistics.steps, statistics.rejected, statistics.evaluations, statistics.events
    )
}
