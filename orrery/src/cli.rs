//! The command line's grammar.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use orrery_bus::BusUrl;

/// Live models in step with laboratory rigs.
#[derive(Debug, Parser)]
#[command(name = "orrery", version, about, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process on embedded defaults.
    Up(Up),
    /// Run only the services named, over Kafka.
    Serve(Serve),
    /// Answer a question in SQL over the replay store.
    Query(Query),
    /// Print what was measured in a window, in the one order, with its digest.
    Replay(Replay),
    /// Print the last sample of each stream at or before a time.
    Seek(Seek),
    /// Streams and their channels.
    #[command(subcommand)]
    Stream(Stream),
    /// Devices and their keys.
    #[command(subcommand)]
    Device(Device),
    /// Set a channel of a device, such as a heater.
    Control(Control),
    /// Run a graph over a recorded window and print what it computes.
    Run(Run),
    /// The log of what happened.
    #[command(subcommand)]
    Provenance(Provenance),
    /// Models.
    #[command(subcommand)]
    Model(Model),
    /// The configuration.
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the data of an instance lies.
#[derive(Debug, Clone, Args)]
pub struct Data {
    /// The data folder.
    #[arg(long, value_name = "DIR", env = "ORRERY_DATA", default_value_os_t = default_data())]
    pub data: PathBuf,
}

/// Which instance to talk to.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Where the data folder is.
    #[command(flatten)]
    pub data: Data,
    /// A running instance elsewhere, instead of the one that owns the data folder.
    #[arg(long, value_name = "URL", requires = "token")]
    pub url: Option<String>,
    /// The token for --url.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "ORRERY_TOKEN",
        hide_env_values = true,
        requires = "url"
    )]
    pub token: Option<String>,
}

/// `orrery up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Where the data folder is.
    #[command(flatten)]
    pub data: Data,
    /// Start the simulated bench (or the recording of --play) and its twin as well.
    #[arg(long)]
    pub demo: bool,
    /// Address and port of the page and the API; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where messages go between the services.
    #[arg(long, value_name = "journal|kafka://HOST:PORT")]
    pub bus: Option<BusUrl>,
    /// Makes the simulated bench repeatable.
    #[arg(long, value_name = "N", requires = "demo")]
    pub seed: Option<u64>,
    /// Play this recording (CSV) through the simulated board instead of its physics.
    #[arg(long, value_name = "CSV", requires = "demo")]
    pub play: Option<PathBuf>,
    /// Run all clocks this many times as fast.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub speed: f64,
    /// A configuration file instead of `config.toml` in the data folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `orrery serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The services to run in this process.
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<Service>,
    /// Where the data folder is.
    #[command(flatten)]
    pub data: Data,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// The Kafka brokers that the services share.
    #[arg(long, value_name = "kafka://HOST:PORT")]
    pub bus: Option<BusUrl>,
    /// A configuration file instead of `config.toml` in the data folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A service that can run apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Service {
    /// Verifies, aligns, archives, answers SQL.
    Aligner,
    /// Runs graphs, sends commands.
    Runtime,
    /// Keeps the Merkle log.
    Provenance,
    /// The front door.
    Gateway,
}

/// How to print rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The name the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }
}

/// `orrery query`.
#[derive(Debug, Args)]
pub struct Query {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// How to print.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// The statement, such as `SELECT * FROM aligned."tclab-01/board" LIMIT 5`; `-` reads it from standard input.
    pub sql: String,
}

/// `orrery replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// From this time on (RFC 3339, or such as -5m for five minutes ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: String,
    /// Up to and without this time (RFC 3339, or such as -5m for five minutes ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: String,
    /// Only these streams.
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    pub streams: Vec<String>,
    /// As of this catalog revision; the newest when not given.
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// How to print: ndjson, csv or arrow.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "ndjson")]
    pub output: Format,
    /// Print the digest alone.
    #[arg(long)]
    pub digest: bool,
    /// Keep the digest in the provenance log of the running instance.
    #[arg(long, requires = "digest")]
    pub record: bool,
}

/// `orrery seek`.
#[derive(Debug, Args)]
pub struct Seek {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// The time (RFC 3339, or such as -5m for five minutes ago).
    #[arg(allow_hyphen_values = true)]
    pub time: String,
    /// Only these streams.
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    pub streams: Vec<String>,
}

/// `orrery stream`.
#[derive(Debug, Subcommand)]
pub enum Stream {
    /// List the streams with their channels, rows and times.
    List {
        /// Which instance.
        #[command(flatten)]
        target: Target,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `orrery device`.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List the devices with their state and keys.
    List {
        /// Which instance.
        #[command(flatten)]
        target: Target,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let nothing in any more that this key signs from now on.
    Revoke {
        /// Which instance.
        #[command(flatten)]
        target: Target,
        /// The device.
        device: String,
        /// The key's id, as `orrery device list` prints it.
        key: String,
    },
}

/// `orrery control`.
#[derive(Debug, Args)]
pub struct Control {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// The device, such as tclab-01; `off` alone for every channel of every device.
    #[arg(value_name = "DEVICE|off")]
    pub device: String,
    /// What to set, such as q1=58; or `off` for the off values of the device's channels: no interlock stops that.
    #[arg(value_name = "CHANNEL=VALUE|off")]
    pub settings: Vec<String>,
    /// Let the values hold for so many seconds; then the device goes to its safe values.
    #[arg(long = "for", value_name = "SECONDS")]
    pub hold_s: Option<f64>,
}

/// `orrery run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Where the data folder is.
    #[command(flatten)]
    pub data: Data,
    /// The graph file.
    #[arg(long, value_name = "FILE")]
    pub graph: PathBuf,
    /// From this time on (RFC 3339, or such as -5m for five minutes ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: String,
    /// Up to and without this time (RFC 3339, or such as -5m for five minutes ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: String,
    /// Repeat what the graph published then, from the log as it stood, and hold the two against each other.
    #[arg(long)]
    pub as_lived: bool,
    /// Print the digest alone.
    #[arg(long)]
    pub digest: bool,
    /// How to print: ndjson or csv.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "ndjson")]
    pub output: Format,
}

/// `orrery provenance`.
#[derive(Debug, Subcommand)]
pub enum Provenance {
    /// Check every record of the log and its checkpoint, offline.
    Verify {
        /// Where the data folder is.
        #[command(flatten)]
        data: Data,
        /// The log's key, NAME+HASH+KEY, as its owner told it; without it the file `vkey` beside the log is believed.
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
        /// A checkpoint kept from earlier: the log must still begin with what it signs.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
}

/// `orrery model`.
#[derive(Debug, Subcommand)]
pub enum Model {
    /// Check a Modelica file; one diagnostic per error.
    Check {
        /// The file.
        file: PathBuf,
        /// Print diagnostics as JSON, for editors.
        #[arg(long)]
        json: bool,
    },
    /// Solve a model and print its variables over time.
    Run(ModelRun),
    /// Differentiate an expression at the end of a run, exactly and through events.
    Gradient(ModelGradient),
    /// Compile a model to a WebAssembly module that any host can load.
    Build {
        /// The file.
        file: PathBuf,
        /// The module to write.
        #[arg(short = 'o', long = "output", value_name = "FILE")]
        output: PathBuf,
        /// The model, where the file holds several; the last one otherwise.
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// A value for a parameter, compiled into the module.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// Measure how fast a model compiles and solves, on both engines.
    Bench {
        /// What to solve.
        #[command(flatten)]
        solve: ModelSolve,
        /// Seconds for each measurement.
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        seconds: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write models as they are usually written: two spaces, one statement a line.
    Fmt {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Change nothing; say which files would change and exit with 1.
        #[arg(long)]
        check: bool,
    },
    /// Write a small commented model to start from.
    New {
        /// The model's name; the file is NAME.mo in this folder.
        name: String,
    },
}

/// What to solve and how.
#[derive(Debug, Args)]
pub struct ModelSolve {
    /// The file.
    pub file: PathBuf,
    /// The model, where the file holds several; the last one otherwise.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A value for a parameter or a constant input, or for the start of a state with `start(x)=VALUE`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Where to start, in seconds.
    #[arg(long, value_name = "TIME", default_value_t = 0.0, allow_negative_numbers = true)]
    pub from: f64,
    /// Where to end, in seconds.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    pub until: f64,
    /// Seconds between two rows; without it the first and the last time.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub every: Option<f64>,
    /// The integration method.
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub method: ModelMethod,
    /// The step of rk4 in seconds; --every when not given.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub step: Option<f64>,
    /// Relative tolerance.
    #[arg(long, value_name = "R", default_value_t = 1e-6, allow_negative_numbers = true)]
    pub rtol: f64,
    /// Absolute tolerance, multiplied by each state's `nominal`.
    #[arg(long, value_name = "A", default_value_t = 1e-9, allow_negative_numbers = true)]
    pub atol: f64,
    /// The most steps a run may take.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub max_steps: u32,
}

/// An integration method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelMethod {
    /// Tsit5, and Rodas5P from where the model turns out stiff.
    Auto,
    /// Tsitouras 5(4), adaptive, explicit.
    Tsit5,
    /// Rodas5P, adaptive, for stiff models.
    Rodas5p,
    /// ESDIRK5(4)7L[2]SA2, adaptive, for stiff models.
    Esdirk,
    /// The classical Runge-Kutta method with a fixed step.
    Rk4,
}

/// `orrery model run`.
#[derive(Debug, Args)]
pub struct ModelRun {
    /// What to solve.
    #[command(flatten)]
    pub solve: ModelSolve,
    /// How to print: csv or json.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "csv")]
    pub output: ModelFormat,
}

/// `orrery model gradient`.
#[derive(Debug, Args)]
pub struct ModelGradient {
    /// What to solve.
    #[command(flatten)]
    pub solve: ModelSolve,
    /// What to differentiate: an expression over the variables at the end.
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub of: String,
    /// By what: parameters, inputs and `start(x)`, with commas between them.
    #[arg(long, value_name = "NAMES", required_unless_present = "direction")]
    pub wrt: Option<String>,
    /// Instead of --wrt: a line, such as p=1,start(x)=0.5, along which to print the first and the second derivative.
    #[arg(long, value_name = "NAME=PART,…", conflicts_with_all = ["wrt", "mode"])]
    pub direction: Option<String>,
    /// How to differentiate.
    #[arg(long, value_name = "MODE", default_value = "adjoint")]
    pub mode: ModelMode,
    /// Memory for the steps of the run, such as 64MiB. A run that needs more is solved a second time in pieces; the numbers
    /// are the same.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory_size)]
    pub memory: u64,
    /// How to print: csv or json.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "csv")]
    pub output: ModelFormat,
}

/// Bytes of a whole number of KiB, MiB or GiB.
fn memory_size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let parse = |(unit, bytes): (&str, u64)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(bytes)
    };
    let size = units.into_iter().find_map(parse);
    size.ok_or_else(|| "write a whole number of KiB, MiB or GiB, such as 64MiB".to_owned())
}

/// A way to differentiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelMode {
    /// Backwards over the steps taken; its cost does not depend on the number of parameters.
    Adjoint,
    /// Forwards along the steps taken, once for each number asked for.
    Forward,
    /// Both, and their largest difference.
    Check,
}

/// How to print a solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// A header and one line a row; statistics go to standard error.
    Csv,
    /// One object: times, series, statistics.
    Json,
}

/// `orrery config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration file.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the configuration in force: defaults, file and environment together.
    Show {
        /// Where the data folder is.
        #[command(flatten)]
        data: Data,
        /// A configuration file instead of `config.toml` in the data folder.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `$XDG_DATA_HOME/orrery`, or `~/.local/share/orrery`.
fn default_data() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_default();
    base.join("orrery")
}
