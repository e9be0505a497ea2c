//! `orrery-edge`: the agent beside an instrument, alone.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
