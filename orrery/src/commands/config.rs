//! `orrery config check|show`.

use orrery_runtime::Engine;

use crate::cli::Config as Arguments;
use crate::commands::{print, say};
use crate::config::Config;
use crate::error::{Exit, Failure};

/// Checks a file, or prints what is in force.
pub fn config(arguments: &Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Check { file } => {
            let config = Config::read(file)?;
            let engine = Engine::new(config.runtime.engine).map_err(Failure::from_error)?;
            for graph in &config.runtime.graphs {
                orrery_runtime::load(graph, &engine)
                    .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", graph.display())))?;
            }
            let (devices, graphs) = (config.edge.devices.len(), config.runtime.graphs.len());
            say(format_args!(
                "{} is valid: {devices} device(s), {graphs} graph(s)",
                file.display()
            ))
        }
        Arguments::Show { data, config } => {
            let config = Config::load(&data.data, config.as_deref())?;
            print(toml::to_string_pretty(&config).map_err(Failure::from_error)?.as_bytes()).map(drop)
        }
    }
}
