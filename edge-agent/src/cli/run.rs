use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use orrery_edge_agent::config::{
    ChannelConfig, Config, ConnectorConfig, DeviceConfig, MqttConfig, OpcUaConfig, SinkConfig, StreamConfig,
    TimeConfig, TimeFormat,
};
use orrery_edge_agent::connector;
use orrery_edge_agent::connector::mqtt::{Broker, without_password};
use orrery_edge_agent::connector::opcua::{Connection, nodes};

use orrery_edge_agent::gateway::{Enrolment, GatewayClient};
use orrery_edge_agent::{Deps, SystemClock, discover};
use orrery_protocol::{DeviceId, PublicKey, RESERVED_NAMES};
use tokio::task::JoinSet;

use super::enroll::{self, Target};
use super::{Failure, data_home, say, stop_on_signal};

#[derive(Args)]
#[command(group = ArgGroup::new("instrument").args(["mqtt", "opcua"]))]
pub struct RunArgs {
    /// The configuration file; without one, name an instrument with --mqtt or --opcua.
    #[arg(long, value_name = "FILE", conflicts_with = "instrument")]
    config: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// Where to keep keys and spool; for one instrument named here, a folder under ~/.local/share/orrery-edge.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The id of the instrument; made from the topic or the variable when not given.
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// An MQTT broker: mqtt://HOST[:PORT], or mqtts://.
    #[arg(long, value_name = "URL", requires = "topic")]
    mqtt: Option<String>,
    /// The topic of the instrument.
    #[arg(long, value_name = "TOPIC", requires = "mqtt")]
    topic: Option<String>,
    /// A field of the messages, NAME=/POINTER[:UNIT]; several times for several. Without one, the numbers of the first message are taken.
    #[arg(long, value_name = "FIELD", requires = "mqtt")]
    field: Vec<String>,
    /// Where messages carry their time, such as /ts; found by itself when no --field is given.
    #[arg(long, value_name = "POINTER", requires = "mqtt")]
    time: Option<String>,
    /// How long to wait for the first message, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "mqtt")]
    wait: u64,
    /// An OPC UA server: opc.tcp://HOST:PORT.
    #[arg(long, value_name = "URL", requires = "node")]
    opcua: Option<String>,
    /// A variable, [NAME=]NODE[:UNIT], where NODE is a node id such as "ns=2;s=Temp" or a path such as Chamber/Temperature; several times for several.
    #[arg(long, value_name = "NODE", requires = "opcua")]
    node: Vec<String>,
    /// User name for the broker or server.
    #[arg(long, value_name = "USER", requires = "instrument")]
    username: Option<String>,
    /// Its password; better in the environment, where other users of this machine do not see it.
    #[arg(long, value_name = "PASSWORD", env = "ORRERY_EDGE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

/// Runs the agent until it is stopped.
pub async fn run(arguments: RunArgs) -> Result<(), Failure> {
    let mut config = match &arguments.config {
        Some(file) => Config::load(file)?,
        None => {
            // Before waiting for a message that nobody would take.
            arguments.target.gateway(None)?;
            of_arguments(&arguments).await?
        }
    };
    if let Some(folder) = arguments.folder.clone() {
        config.folder = folder;
    }
    config.check(place(&arguments.config))?;
    if config.devices.is_empty() {
        return Err(Failure::usage(
            "no instrument is configured; add [[devices]], or use --mqtt or --opcua",
        ));
    }
    let access = access(&arguments.target, &config).await?;
    let clock = Arc::new(SystemClock::new());
    let deps = Deps::with_gateway(&config, &access.url, &access.token, clock, access.command_keys)?;
    let mut tasks = JoinSet::new();
    let stop = stop_on_signal(&mut tasks)?;
    for device in &config.devices {
        for stream in &device.streams {
            let channels: Vec<_> = stream.channels.iter().map(|channel| channel.name.as_str()).collect();
            orrery_edge_agent::tell!(
                "{}/{}: {} → {}",
                device.id,
                stream.name,
                channels.join(", "),
                access.url
            );
        }
    }
    orrery_edge_agent::run(config, deps, stop).await.map_err(Failure::from)
}

/// Checks a file and says what it would do.
pub fn check(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file)?;
    for device in &config.devices {
        for stream in &device.streams {
            let rate = stream
                .nominal_rate_hz
                .map_or_else(|| "irregular".to_owned(), |rate| format!("{rate} Hz"));
            let channels: Vec<_> = stream
                .channels
                .iter()
                .map(|channel| format!("{} [{}]", channel.name, channel.unit))
                .collect();
            let (protocol, channels) = (device.connector.protocol(), channels.join(", "));
            say(format_args!(
                "{}/{}\t{protocol}\t{rate}\t{channels}",
                device.id, stream.name
            ))?;
        }
    }
    let warnings = config.warnings();
    for warning in &warnings {
        orrery_edge_agent::tell!("{warning}");
    }
    let found = if warnings.is_empty() {
        "no problem found"
    } else {
        "see above"
    };
    orrery_edge_agent::tell!("{}: {} device(s), {found}", file.display(), config.devices.len());
    Ok(())
}

fn place(file: &Option<PathBuf>) -> &str {
    file.as_deref().and_then(Path::to_str).unwrap_or("the command line")
}

struct Access {
    url: String,
    token: String,
    command_keys: Vec<PublicKey>,
}

/// Finds the gateway and a token for it: what was enrolled before, or enrols now.
async fn access(target: &Target, config: &Config) -> Result<Access, Failure> {
    let (configured, token_file) = match &config.sink {
        SinkConfig::Https { url, token_file } => (Some(url.clone()), token_file.clone()),
        SinkConfig::Bus => (None, None),
    };
    if let (Some(url), Some(path)) = (&configured, &token_file) {
        let token = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read sink.token_file {}: {error}", path.display())))?;
        return Ok(Access {
            url: url.clone(),
            token: token.trim().to_owned(),
            command_keys: Vec::new(),
        });
    }
    let gateway = target.gateway(configured.as_deref())?;
    let devices = config.devices.iter().map(|device| &device.id);
    let held = Enrolment::load(&config.folder)?.filter(|held| held.covers(gateway.url(), devices));
    let enrolment = match held {
        // A gateway that is away is no reason to stop: the spool keeps what is read.
        Some(held) if GatewayClient::new(&held.url, &held.token)?.knows_token().await != Some(false) => held,
        _ => enroll::enroll(&gateway, config).await?,
    };
    Ok(Access {
        url: enrolment.url,
        token: enrolment.token,
        command_keys: enrolment.command_keys,
    })
}

/// A configuration of one instrument, from arguments alone.
async fn of_arguments(arguments: &RunArgs) -> Result<Config, Failure> {
    let device = match (&arguments.mqtt, &arguments.topic, &arguments.opcua) {
        (Some(url), Some(topic), _) => mqtt_device(arguments, url, topic).await?,
        (_, _, Some(url)) => opcua_device(arguments, url).await?,
        _ => {
            return Err(Failure::usage(
                "say what to read: --config FILE, --mqtt URL --topic TOPIC, or --opcua URL --node NODE",
            ));
        }
    };
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => default_folder(&device.id)?,
    };
    let mut config = Config::in_folder(folder);
    config.devices.push(device);
    Ok(config)
}

fn default_folder(device: &DeviceId) -> Result<PathBuf, Failure> {
    let base = data_home().ok_or_else(|| {
        Failure::usage("neither HOME nor XDG_DATA_HOME is set: say where to keep keys with --folder DIR")
    })?;
    Ok(base.join("orrery-edge").join(device.as_str()))
}

async fn mqtt_device(arguments: &RunArgs, url: &str, topic: &str) -> Result<DeviceConfig, Failure> {
    if topic.contains(['+', '#']) {
        let lists = MqttConfig::at(url).discover_command();
        return Err(Failure::usage(format!(
            "`{topic}` is many topics, whose values would become one signal; run one command for each topic \
             (`{lists} --topic '{topic}'` lists them), or give each its stream in a file for --config"
        )));
    }
    let connector = MqttConfig {
        username: arguments.username.clone(),
        password: arguments.password.clone(),
        ..MqttConfig::at(url)
    };
    let (channels, time) = if arguments.field.is_empty() {
        discovered_fields(arguments, &connector, topic).await?
    } else {
        let channels = arguments
            .field
            .iter()
            .map(|field| parse_field(field))
            .collect::<Result<_, _>>()?;
        (channels, arguments.time.clone())
    };
    let id = device_id(arguments, topic)?;
    Ok(DeviceConfig {
        title: Some(topic.to_owned()),
        connector: ConnectorConfig::Mqtt(connector),
        batch: Default::default(),
        streams: vec![StreamConfig {
            topic: Some(topic.to_owned()),
            time: time.map(|source| TimeConfig {
                source,
                format: TimeFormat::Auto,
            }),
            ..stream("signal", topic, channels)
        }],
        id,
    })
}

/// Waits for a message and takes its numbers.
async fn discovered_fields(
    arguments: &RunArgs,
    connector: &MqttConfig,
    topic: &str,
) -> Result<(Vec<ChannelConfig>, Option<String>), Failure> {
    Broker::parse(&connector.url).map_err(Failure::usage)?;
    let shown = without_password(&connector.url);
    orrery_edge_agent::tell!("waiting for a message on {topic} at {shown}");
    let span = Duration::from_secs(arguments.wait);
    let heard = discover::mqtt_topics(connector, topic, span, true).await?;
    let Some(first) = heard.first() else {
        return Err(Failure::not_found(format!(
            "no message on {topic} at {shown} within {} s; check the topic with `{}`",
            arguments.wait,
            connector.discover_command()
        )));
    };
    let fields = discover::fields(&first.payload).map_err(|problem| Failure::new(format!("{topic}: {problem}")))?;
    let mut names: Vec<String> = Vec::new();
    let mut channels = Vec::new();
    for pointer in &fields.numbers {
        let name = unique_name(pointer.rsplit('/').next().unwrap_or_default(), &names);
        channels.push(ChannelConfig::float(&name, "1", pointer));
        names.push(name);
    }
    let time = arguments.time.clone().or(fields.time);
    let stamped = time
        .as_deref()
        .map_or_else(|| "no time in it".to_owned(), |time| format!("its time is {time}"));
    orrery_edge_agent::tell!("the message has {}; {stamped}", names.join(", "));
    Ok((channels, time))
}

/// `temp=/temperature:Cel`.
fn parse_field(text: &str) -> Result<ChannelConfig, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "`{text}` is not a field; write NAME=/POINTER:UNIT, such as temp=/temperature:Cel"
        ))
    };
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (pointer, unit) = rest.rsplit_once(':').unwrap_or((rest, "1"));
    if name.is_empty() || unit.is_empty() {
        return Err(wrong());
    }
    Ok(ChannelConfig::float(name, unit, pointer))
}

async fn opcua_device(arguments: &RunArgs, url: &str) -> Result<DeviceConfig, Failure> {
    let mut names: Vec<String> = Vec::new();
    let mut channels = Vec::new();
    let mut sources = Vec::new();
    for node in &arguments.node {
        let (name, source, unit) = parse_node(node);
        let name = unique_name(&name, &names);
        channels.push(ChannelConfig::float(&name, &unit, &source));
        names.push(name);
        sources.push(source);
    }
    let id = device_id(arguments, names.first().map_or("opcua", String::as_str))?;
    let settings = OpcUaConfig {
        username: arguments.username.clone(),
        password: arguments.password.clone(),
        ..OpcUaConfig::at(url)
    };
    let device = DeviceConfig {
        id,
        title: Some(url.to_owned()),
        connector: ConnectorConfig::OpcUa(settings.clone()),
        batch: Default::default(),
        streams: vec![stream("signal", &names.join(", "), channels)],
    };
    connector::check(&device).map_err(Failure::usage)?;
    // Before a device is enrolled that would never say a word.
    let server = Connection::open(&settings).await?;
    let found = nodes::numbers(&server.session, &sources).await;
    server.close().await;
    let found = found.map_err(|problem| {
        Failure::not_found(format!(
            "{url}: {problem}; `{}` lists what there is",
            settings.discover_command()
        ))
    })?;
    for variable in found {
        orrery_edge_agent::tell!("{} is {} now", variable.path, variable.value);
    }
    Ok(device)
}

/// `[NAME=]NODE[:UNIT]` into name, node and unit. A node id has `=` and may have `:` itself.
fn parse_node(text: &str) -> (String, String, String) {
    let starts_as_id = |text: &str| {
        ["ns=", "i=", "s=", "g=", "b="]
            .iter()
            .any(|start| text.starts_with(start))
    };
    let (name, rest) = match text.split_once('=') {
        Some((name, rest)) if !starts_as_id(text) => (Some(name), rest),
        _ => (None, text),
    };
    // A unit is short and comes last; `2:Name` in a path is a namespace, which no unit follows.
    let (node, unit) = match rest.rsplit_once(':') {
        Some((node, unit))
            if !unit.is_empty() && !unit.contains('/') && !node.ends_with(|c: char| c.is_ascii_digit()) =>
        {
            (node, unit)
        }
        _ => (rest, "1"),
    };
    let last = node.rsplit(['/', '=', ':', '.']).next().unwrap_or_default();
    (name.unwrap_or(last).to_owned(), node.to_owned(), unit.to_owned())
}

fn stream(name: &str, title: &str, channels: Vec<ChannelConfig>) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        title: Some(title.to_owned()),
        nominal_rate_hz: None,
        droppable: true,
        max_silence_ms: None,
        calibration: None,
        topic: None,
        time: None,
        channels,
    }
}

fn device_id(arguments: &RunArgs, from: &str) -> Result<DeviceId, Failure> {
    if let Some(id) = &arguments.device {
        return Ok(id.clone());
    }
    let text: String = from
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    DeviceId::new(text.trim_matches('-')).map_err(|_| {
        Failure::usage(format!(
            "no device id can be made of `{from}`; give one with --device ID"
        ))
    })
}

/// A column name made of any text, different from those taken.
fn unique_name(from: &str, taken: &[String]) -> String {
    let mut name: String = from
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .take(48)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name = if name.is_empty() {
            "value".to_owned()
        } else {
            format!("v_{name}")
        };
    }
    if RESERVED_NAMES.contains(&name.as_str()) {
        name = format!("{name}_value");
    }
    let mut candidate = name.clone();
    let mut count = 2;
    while taken.contains(&candidate) {
        candidate = format!("{name}_{count}");
        count += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_carry_names_and_units() {
        let parsed = |text: &str| parse_node(text);
        let wanted = |name: &str, node: &str, unit: &str| (name.to_owned(), node.to_owned(), unit.to_owned());
        assert_eq!(parsed("ns=2;s=Temp"), wanted("Temp", "ns=2;s=Temp", "1"));
        assert_eq!(parsed("air=ns=2;s=Temp:Cel"), wanted("air", "ns=2;s=Temp", "Cel"));
        assert_eq!(
            parsed("Chamber/Temperature:Cel"),
            wanted("Temperature", "Chamber/Temperature", "Cel")
        );
        assert_eq!(
            parsed("2:Chamber/2:Temperature"),
            wanted("Temperature", "2:Chamber/2:Temperature", "1")
        );
    }

    #[test]
    fn names_are_columns_and_differ() {
        assert_eq!(unique_name("Air Temp", &[]), "air_temp");
        assert_eq!(unique_name("0", &[]), "v_0");
        assert_eq!(unique_name("", &[]), "value");
        assert_eq!(unique_name("time", &[]), "time_value");
        assert_eq!(unique_name("a", &["a".to_owned(), "a_2".to_owned()]), "a_3");
    }

    #[test]
    fn fields_carry_pointer_and_unit() {
        let field = parse_field("temp=/temperature:Cel").unwrap();
        assert_eq!(
            (field.name.as_str(), field.source(), field.unit.as_str()),
            ("temp", "/temperature", "Cel")
        );
        assert!(parse_field("temperature").is_err());
    }
}
