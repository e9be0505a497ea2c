//! The `orrery` binary: parse, load, wire, stop.

mod aligner;
mod cli;
mod client;
mod commands;
mod config;
mod counted_bus;
mod demo;
mod error;
mod folder;
mod metrics;
mod tasks;
mod up;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::error::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            orrery_edge_agent::tell!("orrery: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(&cli.command));
    // Blocking work that a deadline cut off must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            orrery_edge_agent::tell!("orrery: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn dispatch(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Up(arguments) => up::up(arguments).await,
        Command::Serve(arguments) => up::serve(arguments).await,
        Command::Query(arguments) => commands::query::query(arguments).await,
        Command::Replay(arguments) => commands::replay::replay(arguments).await,
        Command::Seek(arguments) => commands::replay::seek(arguments).await,
        Command::Stream(arguments) => commands::stream::stream(arguments).await,
        Command::Device(arguments) => commands::device::device(arguments).await,
        Command::Control(arguments) => commands::control::control(arguments).await,
        Command::Run(arguments) => commands::run::run(arguments).await,
        Command::Provenance(arguments) => commands::provenance::provenance(arguments),
        Command::Model(arguments) => commands::model::model(arguments),
        Command::Config(arguments) => commands::config::config(arguments),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "orrery", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// `RUST_LOG`, or our own information and others' warnings.
fn log_to_stderr() {
    let ours = || EnvFilter::new(format!("warn,orrery=info,{}", orrery_edge_agent::QUIET_LIBRARIES));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| ours());
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        // A full disk under a redirected stderr: the library would complain there too, and panic.
        .log_internal_errors(false)
        .init();
}
