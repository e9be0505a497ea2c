//! The configuration of an instance: one section a service, every value with a default.

use std::path::Path;

use orrery_bus::BusUrl;
use orrery_edge_agent::config::{Config as AgentConfig, DeviceConfig};
use orrery_edge_agent::strict;
use serde::{Deserialize, Serialize};

use crate::cli::Service;
use crate::error::{Exit, Failure};

/// The file that a data folder may hold.
pub const FILE: &str = "config.toml";

/// Everything an instance can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where messages go between the services.
    pub bus: BusSection,
    /// The front door.
    pub gateway: orrery_gateway::Config,
    /// Clocks, store, SQL.
    pub aligner: orrery_aligner::Config,
    /// Graphs and commands.
    pub runtime: orrery_runtime::Config,
    /// Instruments that this process reads itself; agents elsewhere have a file of their own.
    pub edge: EdgeSection,
    /// Where the services that run apart are.
    pub apart: ApartSection,
}

/// Which bus.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSection {
    /// `journal` or `kafka://HOST:PORT`.
    pub url: BusUrl,
    /// The embedded journal's settings.
    pub journal: orrery_bus::journal::JournalOptions,
    /// Apache Kafka's settings.
    pub kafka: orrery_bus::KafkaConfig,
}

/// Instruments of the embedded agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeSection {
    /// The devices, as in an agent's own file.
    pub devices: Vec<DeviceConfig>,
}

/// Where services answer that `orrery serve` runs in other processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApartSection {
    /// The aligner, such as `http://10.0.0.2:7421`.
    pub aligner: Option<String>,
    /// The runtime.
    pub runtime: Option<String>,
    /// The provenance log.
    pub provenance: Option<String>,
    /// What the gateway and the services apart share, so that they believe each other.
    pub secret: Option<String>,
}

impl ApartSection {
    /// The services that are said to be elsewhere.
    pub fn places(&self) -> impl Iterator<Item = (Service, &'static str, &str)> {
        let places = [
            (Service::Aligner, "aligner", &self.aligner),
            (Service::Runtime, "runtime", &self.runtime),
            (Service::Provenance, "provenance", &self.provenance),
        ];
        places
            .into_iter()
            .filter_map(|(service, name, url)| Some((service, name, url.as_deref()?)))
    }

    /// The secret that gateway and services share.
    ///
    /// # Errors
    /// When none is configured.
    pub fn secret(&self) -> Result<&str, Failure> {
        self.secret.as_deref().ok_or_else(|| {
            let message = "services that run apart need `apart.secret`, the same for all: set ORRERY__APART__SECRET";
            Failure::new(Exit::Usage, message)
        })
    }
}

impl Config {
    /// The configuration of a data folder: its `config.toml` where there is one, or the file named, under the environment.
    /// Folders of the services are then inside `data`.
    ///
    /// # Errors
    /// Names the file, the line and the key, with the nearest known key where one was mistyped.
    pub fn load(data: &Path, file: Option<&Path>) -> Result<Self, Failure> {
        let inside = data.join(FILE);
        let mut config = match file {
            Some(file) => Self::read(file)?,
            None if inside.exists() => Self::read(&inside)?,
            None => Self::parse("", "the environment")?,
        };
        config.aligner.data = data.to_owned();
        config.gateway.keys_dir = data.join("keys");
        config.runtime.data = data.join("runtime");
        Ok(config)
    }

    /// Reads and checks a file. Graphs are named from the file that names them, as models are from their graph.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let message = format!("cannot read {}: {error}; give the path of a TOML file", file.display());
            Failure::new(Exit::Usage, message)
        })?;
        let mut config = Self::parse(&text, &file.display().to_string())?;
        for graph in &mut config.runtime.graphs {
            *graph = file.parent().unwrap_or(Path::new("")).join(&*graph);
        }
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, place: &str) -> Result<Self, Failure> {
        let usage = |error: orrery_edge_agent::error::ConfigError| Failure::new(Exit::Usage, error.to_string());
        let config: Self = strict::from_text(text, place, strict::variables()).map_err(usage)?;
        config.agent(Path::new("edge")).check(place).map_err(usage)?;
        let listen = &config.gateway.listen;
        if !is_address(listen) {
            let message = format!("{place}: gateway.listen = `{listen}` is no address; write ADDRESS:PORT");
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(config)
    }

    /// The embedded agent's configuration.
    pub fn agent(&self, folder: &Path) -> AgentConfig {
        AgentConfig {
            devices: self.edge.devices.clone(),
            ..AgentConfig::in_folder(folder)
        }
    }
}

/// Whether a text has the form `HOST:PORT`.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
