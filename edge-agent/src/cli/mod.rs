//! The command line: arguments in, one sentence and an exit code out. Data on stdout, messages on stderr.

mod discover;
mod enroll;
mod rig;
mod run;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use orrery_edge_agent::connector::ConnectError;
use orrery_edge_agent::error::{ConfigError, Error};
use orrery_edge_agent::gateway::GatewayError;
use tokio_util::sync::CancellationToken;

/// Reads instruments, signs what they say and never loses it.
#[derive(Parser)]
#[command(name = "orrery-edge", version, max_term_width = 100)]
struct Cli {
    /// What to log: error, warn, info, debug, or a filter such as orrery_edge_agent=debug.
    #[arg(
        long,
        global = true,
        env = "ORRERY_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent: from a configuration file, or for one MQTT topic or OPC UA variable named here.
    Run(Box<run::RunArgs>),
    /// Check a configuration file and say what it would do.
    Check(CheckArgs),
    /// List serial ports, the topics of an MQTT broker, or the variables of an OPC UA server.
    Discover(discover::DiscoverArgs),
    /// Make the keys of devices and enrol them with a gateway.
    Enroll(enroll::EnrollArgs),
    /// Start the simulated instruments of the demo and print where they are.
    Rig(rig::RigArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self {
            code: 3,
            message: message.into(),
        }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self {
            code: 6,
            message: message.into(),
        }
    }
}

/// Where things of this user are kept: `$XDG_DATA_HOME`, or `~/.local/share`; none when neither is known.
fn data_home() -> Option<PathBuf> {
    let of_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(of_home)
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::Settings(_) => 2,
            ConnectError::Denied(_) => 4,
            ConnectError::Unreachable(_) => 6,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => error.into(),
            error => Self::new(error.to_string()),
        }
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        let code = match &error {
            GatewayError::Address(_) => 2,
            GatewayError::Unreachable(_) => 6,
            GatewayError::Denied(_) => 4,
            GatewayError::Conflict(_) => 5,
            GatewayError::Refused(_) => 1,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

/// Parses, runs and reports.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(problem) = start_logging(&cli.log) {
        return report(Failure::usage(problem));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Failure::new(format!("no threads: {error}"))),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::run(*arguments).await,
            Command::Check(arguments) => run::check(&arguments.config),
            Command::Discover(arguments) => discover::run(arguments).await,
            Command::Enroll(arguments) => enroll::run(arguments).await,
            Command::Rig(arguments) => rig::run(arguments).await,
        }
    });
    // A serial port's thread may still sit in the driver; it must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(failure),
    }
}

/// Writes a line to standard output. A reader that has seen enough (`| head`) is no failure.
fn say(text: impl std::fmt::Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn report(failure: Failure) -> ExitCode {
    orrery_edge_agent::tell!("orrery-edge: {}", failure.message);
    ExitCode::from(failure.code)
}

fn start_logging(filter: &str) -> Result<(), String> {
    let filter = format!("{},rumqttd=warn,{filter}", orrery_edge_agent::QUIET_LIBRARIES);
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|error| format!("--log: {error}; use error, warn, info or debug"))?;
    let has_colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A full disk under a redirected stderr: the library would complain there too, and panic.
        .log_internal_errors(false)
        .with_ansi(has_colour)
        .with_target(false)
        .init();
    Ok(())
}

/// Cancelled by the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_on_signal(tasks: &mut tokio::task::JoinSet<()>) -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let no_signal = |error: std::io::Error| Failure::new(format!("cannot listen to signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(130);
            }
            orrery_edge_agent::tell!("stopping; press Ctrl-C again to stop at once");
            token.cancel();
        }
    });
    Ok(stop)
}
