use std::path::{Path, PathBuf};

use clap::Args;
use orrery_edge_agent::config::Config;
use orrery_edge_agent::gateway::{Enrolling, Enrolment, GatewayClient};
use orrery_edge_agent::keys;
use orrery_protocol::DeviceId;
use serde::Deserialize;

use super::{Failure, data_home, say};

/// Which gateway, and what opens it.
#[derive(Args, Clone)]
pub struct Target {
    /// The gateway: http://HOST:PORT.
    #[arg(long, value_name = "URL", env = "ORRERY_URL")]
    url: Option<String>,
    /// A one-time enrolment token, from the operator of that gateway.
    #[arg(
        long,
        value_name = "TOKEN",
        visible_alias = "token",
        env = "ORRERY_ENROLLMENT_TOKEN",
        hide_env_values = true
    )]
    enrollment_token: Option<String>,
    /// The data folder of an Orrery that runs on this machine: its address and token are found there.
    #[arg(long, value_name = "DIR", env = "ORRERY_DATA")]
    data: Option<PathBuf>,
}

/// What a running instance leaves in its data folder, readable by its user alone.
#[derive(Deserialize)]
struct Endpoint {
    url: String,
    token: String,
}

impl Target {
    /// The gateway these arguments name; the token is an enrolment token, the local operator's, or empty.
    ///
    /// Without an address it is the Orrery that runs on this machine.
    pub fn gateway(&self, configured: Option<&str>) -> Result<GatewayClient, Failure> {
        let url = self.url.as_deref().or(configured);
        let data = self.data.clone().unwrap_or_else(default_data);
        let local = match url {
            None => Some(read_endpoint(&data)?),
            // A local Orrery's token opens only that one and goes nowhere else.
            Some(url) => read_endpoint(&data)
                .ok()
                .filter(|endpoint| endpoint.url.trim_end_matches('/') == url.trim_end_matches('/')),
        };
        let endpoint = local.as_ref();
        let url = url
            .or(endpoint.map(|endpoint| endpoint.url.as_str()))
            .unwrap_or_default();
        let token = self
            .enrollment_token
            .as_deref()
            .or(endpoint.map(|endpoint| endpoint.token.as_str()))
            .unwrap_or_default();
        Ok(GatewayClient::new(url, token)?)
    }
}

/// Where `orrery up` keeps its data when it is not told: `$XDG_DATA_HOME/orrery`, or `~/.local/share/orrery`.
fn default_data() -> PathBuf {
    data_home().unwrap_or_default().join("orrery")
}

fn read_endpoint(data: &Path) -> Result<Endpoint, Failure> {
    let path = data.join("endpoint.json");
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::unreachable(format!(
            "no Orrery runs on {}; start one with `orrery up --data {}`, or name another with --url URL",
            data.display(),
            data.display()
        )),
        std::io::ErrorKind::PermissionDenied => Failure {
            code: 4,
            message: format!(
                "{} belongs to another user; ask its operator for an enrolment token",
                path.display()
            ),
        },
        _ => Failure::new(format!("cannot read {}: {error}", path.display())),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(format!(
            "{} is damaged ({error}); start that Orrery again",
            path.display()
        ))
    })
}

#[derive(Args)]
pub struct EnrollArgs {
    #[command(flatten)]
    target: Target,
    /// A configuration file: all of its devices are enrolled.
    #[arg(long, value_name = "FILE", conflicts_with = "device")]
    config: Option<PathBuf>,
    /// A device to enrol; several times for several.
    #[arg(long, value_name = "ID", required_unless_present = "config")]
    device: Vec<DeviceId>,
    /// Where keys and token are kept; the configuration's folder, or ./orrery-edge.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Makes keys and enrols them.
pub async fn run(arguments: EnrollArgs) -> Result<(), Failure> {
    let config = arguments.config.as_deref().map(Config::load).transpose()?;
    let folder = arguments
        .folder
        .or(config.as_ref().map(|config| config.folder.clone()))
        .unwrap_or_else(|| PathBuf::from("orrery-edge"));
    let configured = match config.as_ref().map(|config| &config.sink) {
        Some(orrery_edge_agent::config::SinkConfig::Https { url, .. }) => Some(url.as_str()),
        _ => None,
    };
    let gateway = arguments.target.gateway(configured)?;
    let enrolment = match &config {
        Some(config) => {
            enroll(
                &gateway,
                &Config {
                    folder: folder.clone(),
                    ..config.clone()
                },
            )
            .await?
        }
        None => {
            let keys_folder = folder.join("keys");
            let wanted = arguments
                .device
                .iter()
                .map(|device| {
                    let key = keys::load_or_create(&keys_folder, device)?.public();
                    Ok(Enrolling {
                        device: device.clone(),
                        key,
                        title: None,
                        protocol: None,
                    })
                })
                .collect::<Result<Vec<_>, Failure>>()?;
            store(&gateway, &wanted, &folder).await?
        }
    };
    for device in &enrolment.devices {
        say(device)?;
    }
    orrery_edge_agent::tell!(
        "enrolled with {}; keys and token are in {}",
        enrolment.url,
        folder.display()
    );
    Ok(())
}

/// Enrols every device of a configuration and keeps the token in its folder.
pub async fn enroll(gateway: &GatewayClient, config: &Config) -> Result<Enrolment, Failure> {
    let keys_folder = config.keys_folder();
    let wanted = config
        .devices
        .iter()
        .map(|device| {
            Ok(Enrolling {
                device: device.id.clone(),
                key: keys::load_or_create(&keys_folder, &device.id)?.public(),
                title: device.title.clone(),
                protocol: Some(device.connector.protocol().to_owned()),
            })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    store(gateway, &wanted, &config.folder).await
}

async fn store(gateway: &GatewayClient, wanted: &[Enrolling], folder: &Path) -> Result<Enrolment, Failure> {
    let enrolment = gateway.enroll(wanted).await?;
    enrolment.save(folder)?;
    Ok(enrolment)
}
