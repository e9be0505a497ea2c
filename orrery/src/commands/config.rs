//! `orrery config check|show`.

use crate::cli::Config as Arguments;
use crate::commands::{print, say};
use crate::config::Config;
use crate::error::Failure;

/// Checks a file, or prints what is in force.
pub fn config(arguments: &Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Check { file } => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::from_error(format!("cannot read {}: {error}", file.display())))?;
            Config::parse(&text, &file.display().to_string())?;
            say(format_args!("{} is valid", file.display()))
        }
        Arguments::Show { data, config } => {
            let config = Config::load(&data.data, config.as_deref())?;
            print(toml::to_string_pretty(&config).map_err(Failure::from_error)?.as_bytes()).map(drop)
        }
    }
}
