//! `orrery model bench`.

use orrery_edge_agent::clock::SystemClock;
use orrery_protocol::Clock as _;
use orrery_runtime::EngineKind;
use orrery_runtime::solver::{Problem, ProblemOptions, SolveOptions, Values};
use serde::Serialize;

use super::{engine, failure, options, problem, read};
use crate::cli::ModelSolve;
use crate::commands::say;
use crate::error::{Exit, Failure};

#[derive(Serialize)]
struct Measured {
    engine: &'static str,
    /// From text to module to machine code to the first solution.
    compile_ms: f64,
    load_ms: f64,
    first_solve_ms: f64,
    /// Median of single solves in one instance.
    solve_us: f64,
    steps: u64,
    steps_per_s: f64,
    solves_per_s: f64,
    threads: usize,
    /// Members of an ensemble on all threads.
    ensemble_solves_per_s: f64,
}

/// Measures on both engines and prints a table, or JSON.
pub fn bench(arguments: &ModelSolve, seconds: f64, json: bool) -> Result<(), Failure> {
    if !(seconds.is_finite() && seconds > 0.0) {
        return Err(Failure::new(Exit::Usage, "--seconds: give a positive number"));
    }
    let text = read(&arguments.file)?;
    let options = options(arguments)?;
    let measure = |kind, name| measure(arguments, &text, &options, seconds, (kind, name));
    let measured = [
        measure(EngineKind::Cranelift, "cranelift")?,
        measure(EngineKind::Pulley, "pulley")?,
    ];
    if json {
        let text = serde_json::to_string_pretty(&measured).map_err(Failure::from_error)?;
        say(text)?;
        return Ok(());
    }
    say(format_args!(
        "engine     compile ms  load ms  first ms   solve µs   steps/s    solves/s   on all threads"
    ))?;
    for row in &measured {
        say(format_args!(
            "{:<10} {:>10.2} {:>8.2} {:>9.3} {:>10.2} {:>9.3e} {:>11.3e} {:>11.3e} ({})",
            row.engine,
            row.compile_ms,
            row.load_ms,
            row.first_solve_ms,
            row.solve_us,
            row.steps_per_s,
            row.solves_per_s,
            row.ensemble_solves_per_s,
            row.threads
        ))?;
    }
    Ok(())
}

fn measure(
    arguments: &ModelSolve,
    text: &str,
    options: &SolveOptions,
    seconds: f64,
    (kind, name): (EngineKind, &'static str),
) -> Result<Measured, Failure> {
    let clock = SystemClock::new();
    let now = || clock.monotonic().0 as f64 * 1e-9;
    let wrong = |error| failure(&arguments.file, error);
    let engine = engine(kind)?;

    let started = now();
    let whole = problem(&engine, text, arguments, ProblemOptions::default())?;
    let compiled_and_loaded = now() - started;
    // The part of the engine: the module is loaded once more.
    let again = now();
    Problem::load(&engine, whole.compiled().clone(), Default::default()).map_err(wrong)?;
    let load = now() - again;
    let first = now();
    let mut session = whole.session().map_err(wrong)?;
    let solved = session.solve(options, &Values::default()).map_err(wrong)?;
    let first_solve = now() - first;

    let mut times = Vec::new();
    let begun = now();
    while times.is_empty() || now() - begun < seconds {
        let at = now();
        session.solve(options, &Values::default()).map_err(wrong)?;
        times.push(now() - at);
    }
    times.sort_unstable_by(f64::total_cmp);
    let solve = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let members = vec![Values::default(); ((seconds / solve) as usize).clamp(threads, 100_000)];
    let begun = now();
    for member in whole.solve_many(&members, options, threads) {
        member.map_err(wrong)?;
    }
    let ensemble = now() - begun;
    let steps = solved.statistics.steps;
    Ok(Measured {
        engine: name,
        compile_ms: (compiled_and_loaded - load).max(0.0) * 1e3,
        load_ms: load * 1e3,
        first_solve_ms: first_solve * 1e3,
        solve_us: solve * 1e6,
        steps,
        steps_per_s: steps as f64 / solve,
        solves_per_s: 1.0 / solve,
        threads,
        ensemble_solves_per_s: members.len() as f64 / ensemble,
    })
}
