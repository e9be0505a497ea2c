use std::time::Duration;

use clap::{ArgGroup, Args};
use orrery_edge_agent::config::{MqttConfig, OpcUaConfig};
use orrery_edge_agent::discover;

use super::{Failure, say};

#[derive(Args)]
#[command(group = ArgGroup::new("server").args(["mqtt", "opcua"]))]
pub struct DiscoverArgs {
    /// Listen to an MQTT broker: mqtt://HOST[:PORT], or mqtts://.
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// Topics to listen to.
    #[arg(long, default_value = "#", value_name = "FILTER")]
    topic: String,
    /// How long to listen, in seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    seconds: u64,
    /// Browse an OPC UA server: opc.tcp://HOST:PORT.
    #[arg(long, value_name = "URL")]
    opcua: Option<String>,
    /// User name for the broker or server.
    #[arg(long, value_name = "USER", requires = "server")]
    username: Option<String>,
    /// Its password; better in the environment, where other users of this machine do not see it.
    #[arg(long, value_name = "PASSWORD", env = "ORRERY_EDGE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

/// Lists what is there, one thing a line, tab-separated.
pub async fn run(arguments: DiscoverArgs) -> Result<(), Failure> {
    match (&arguments.mqtt, &arguments.opcua) {
        (Some(url), _) => mqtt(&arguments, url).await,
        (_, Some(url)) => opcua(&arguments, url).await,
        _ => serial(),
    }
}

async fn mqtt(arguments: &DiscoverArgs, url: &str) -> Result<(), Failure> {
    orrery_edge_agent::tell!("listening to {} for {} s", arguments.topic, arguments.seconds);
    let span = Duration::from_secs(arguments.seconds);
    let config = MqttConfig {
        username: arguments.username.clone(),
        password: arguments.password.clone(),
        ..MqttConfig::at(url)
    };
    let heard = discover::mqtt_topics(&config, &arguments.topic, span, false).await?;
    if heard.is_empty() {
        return Err(Failure::not_found(format!(
            "no message on {} within {} s; listen longer with --seconds {}, or elsewhere with --topic",
            arguments.topic,
            arguments.seconds,
            arguments.seconds.max(1) * 12
        )));
    }
    for topic in heard {
        let rate = topic.messages as f64 / arguments.seconds.max(1) as f64;
        let what = match discover::fields(&topic.payload) {
            Ok(fields) => {
                let names: Vec<_> = fields
                    .numbers
                    .iter()
                    .map(|name| if name.is_empty() { "a plain number" } else { name })
                    .collect();
                names.join(", ")
            }
            Err(_) => "nothing numeric".to_owned(),
        };
        say(format_args!("{}\t{rate:.1}/s\t{what}", topic.topic))?;
    }
    Ok(())
}

async fn opcua(arguments: &DiscoverArgs, url: &str) -> Result<(), Failure> {
    const MOST: usize = 1_000;
    let config = OpcUaConfig {
        username: arguments.username.clone(),
        password: arguments.password.clone(),
        ..OpcUaConfig::at(url)
    };
    let found = discover::opcua_variables(&config, MOST).await?;
    for variable in &found {
        say(format_args!("{}\t{}\t{}", variable.node, variable.path, variable.value))?;
    }
    if found.len() == MOST {
        orrery_edge_agent::tell!("there are more than {MOST}; the rest is not shown");
    }
    Ok(())
}

fn serial() -> Result<(), Failure> {
    let ports = discover::serial_ports();
    if ports.is_empty() {
        return Err(Failure::not_found(
            "no serial port; plug the board in, or look elsewhere with --mqtt or --opcua",
        ));
    }
    for (name, what) in ports {
        say(format_args!("{name}\t{what}"))?;
    }
    Ok(())
}
