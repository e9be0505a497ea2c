//! Starts the devices, says where they are, and stops them.

use std::path::PathBuf;
use std::sync::Arc;

use orrery_protocol::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, SharedBench};
use crate::device_clock::{ClockError, DeviceClock};
use crate::error::RigError;
use crate::keep;
use crate::mqtt::{self, BrokerAddress, Publisher};
use crate::noise::Noise;
use crate::opcua::{self, Chamber};
use crate::playback::{Player, Progress, Recording};
use crate::pty::{SerialLink, SerialPort};
use crate::tclab::{self, Board, Playing, Simulated};

/// How often a live board is worth polling, Hz.
const BOARD_RATE_HZ: f64 = 10.0;

/// Noise streams of the devices' clocks: one for the error, one for the jitter.
const CLOCK_STREAMS: u64 = 100;

/// What the rig is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RigConfig {
    /// What every error, noise and phase is drawn from.
    pub seed: u64,
    /// A recording to play instead of simulating the board.
    pub play: Option<PathBuf>,
    /// A stable path to the board's serial port.
    pub serial_link: Option<PathBuf>,
    /// Port of the OPC UA server on the loopback interface; 0 takes any.
    pub opcua_port: u16,
    /// Port of the embedded MQTT broker on the loopback interface; 0 takes any.
    pub mqtt_port: u16,
    /// A foreign broker to publish to, `mqtt://[user:password@]host[:port]`; there is no embedded one then.
    pub mqtt_broker: Option<String>,
    /// Where the simulated bench keeps how warm it is, to go on from there; without one it starts cold.
    pub folder: Option<PathBuf>,
    /// Heater powers at the start, %: an experiment that is already running.
    pub heaters_percent: [f64; 2],
}

impl Default for RigConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            play: None,
            serial_link: None,
            opcua_port: 0,
            mqtt_port: 0,
            mqtt_broker: None,
            folder: None,
            heaters_percent: [45.0, 30.0],
        }
    }
}

/// How to reach a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Connection {
    /// The TCLab firmware's protocol on a serial port.
    Serial {
        /// The port.
        path: PathBuf,
    },
    /// An OPC UA variable.
    OpcUa {
        /// The server.
        url: String,
        /// The variable.
        node: String,
    },
    /// JSON on an MQTT topic, with `ts` in UNIX seconds.
    Mqtt {
        /// The broker, without credentials.
        url: String,
        /// The topic.
        topic: String,
    },
}

/// One device of the rig.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RigDevice {
    /// Its name.
    pub device_id: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// How to reach it.
    #[serde(flatten)]
    pub connection: Connection,
    /// How often it measures, or is worth polling, Hz.
    pub rate_hz: f64,
    /// The truth about its clock, for tests; a board has none.
    pub clock_error: Option<ClockError>,
}

/// A running rig.
pub struct Rig {
    /// The board's serial port: the link if there is one.
    pub serial_path: PathBuf,
    /// The chamber controller.
    pub opcua_url: String,
    /// The broker, without credentials.
    pub mqtt_url: String,
    /// All devices.
    pub devices: Vec<RigDevice>,
    /// How far a playback is; none when the board is simulated.
    pub playback: Option<watch::Receiver<Progress>>,
    tasks: JoinSet<Result<(), RigError>>,
    shutdown: CancellationToken,
    _link: Option<SerialLink>,
}

impl Rig {
    /// Waits until every device has stopped. When one fails, the others are stopped too.
    ///
    /// # Errors
    /// The first failure.
    pub async fn join(mut self) -> Result<(), RigError> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|died| Err(RigError::Died(died.to_string())));
            if ended.is_err() && result.is_ok() {
                self.shutdown.cancel();
                result = ended;
            }
        }
        result
    }
}

/// Starts the rig; it stops when `shutdown` is cancelled or the [`Rig`] is dropped.
///
/// # Errors
/// [`RigError`] names what could not start and what to do about it.
pub async fn start(config: RigConfig, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Result<Rig, RigError> {
    let shutdown = shutdown.child_token();
    let recording = config.play.as_deref().map(Recording::read).transpose()?;
    let broker = match &config.mqtt_broker {
        Some(url) => BrokerAddress::parse(url)?,
        None => mqtt::start_broker(config.mqtt_port).await?,
    };
    let now = clock.monotonic();
    // A recording says itself how warm it was.
    let folder = config.folder.filter(|_| recording.is_none());
    let kept = folder
        .as_deref()
        .and_then(|folder| keep::read(folder, config.seed, clock.wall()));
    let bench = SharedBench::new(match kept {
        Some((kept, away)) => Bench::resume(kept, away, now),
        None if recording.is_some() => Bench::new(config.seed, now).in_still_air(),
        None => Bench::new(config.seed, now),
    });

    let board_rate_hz = recording.as_ref().map_or(BOARD_RATE_HZ, Recording::rate_hz);
    let (board, playback) = match recording {
        Some(recording) => {
            let (playing, progress) = Playing::new(Player::new(recording), bench.clone());
            (Board::Playing(playing), Some(progress))
        }
        None => (
            Board::Simulated(Simulated::new(bench.clone(), config.heaters_percent, now)),
            None,
        ),
    };
    let port = SerialPort::open()?;
    let link = config
        .serial_link
        .as_deref()
        .map(|link| SerialLink::make(link, port.path()))
        .transpose()?;
    let serial_path = link.as_ref().map_or(port.path(), SerialLink::path).to_owned();

    let device_clock = |device: u64| {
        let streams = CLOCK_STREAMS + 2 * device;
        let error = ClockError::draw(config.seed, streams);
        (
            error,
            DeviceClock::start(error, clock.as_ref(), Noise::new(config.seed, streams + 1)),
        )
    };
    let (chamber_error, chamber_clock) = device_clock(0);
    let (power_error, power_clock) = device_clock(1);
    let (room_error, room_clock) = device_clock(2);
    let chamber = Chamber::listen(config.opcua_port, chamber_clock, clock.clone()).await?;
    let opcua_url = chamber.url();

    let devices = vec![
        RigDevice {
            device_id: "tclab-01",
            title: "Temperature Control Lab",
            connection: Connection::Serial {
                path: serial_path.clone(),
            },
            rate_hz: board_rate_hz,
            clock_error: None,
        },
        RigDevice {
            device_id: "chamber-ctl",
            title: "Chamber controller",
            connection: Connection::OpcUa {
                url: opcua_url.clone(),
                node: chamber.air_node(),
            },
            rate_hz: 1.0 / opcua::PERIOD.as_secs_f64(),
            clock_error: Some(chamber_error),
        },
        RigDevice {
            device_id: "power-meter",
            title: "Supply power meter",
            connection: Connection::Mqtt {
                url: broker.url(),
                topic: mqtt::POWER_TOPIC.to_owned(),
            },
            rate_hz: 1.0 / mqtt::POWER_PERIOD.as_secs_f64(),
            clock_error: Some(power_error),
        },
        RigDevice {
            device_id: "room-sensor",
            title: "Room sensor",
            connection: Connection::Mqtt {
                url: broker.url(),
                topic: mqtt::ROOM_TOPIC.to_owned(),
            },
            rate_hz: 1.0 / mqtt::ROOM_PERIOD.as_secs_f64(),
            clock_error: Some(room_error),
        },
    ];

    let publishers = [
        Publisher {
            name: "power-meter",
            topic: mqtt::POWER_TOPIC,
            period: mqtt::POWER_PERIOD,
            message: mqtt::power_message,
            device_clock: power_clock,
        },
        Publisher {
            name: "room-sensor",
            topic: mqtt::ROOM_TOPIC,
            period: mqtt::ROOM_PERIOD,
            message: mqtt::room_message,
            device_clock: room_clock,
        },
    ];
    let mqtt_url = broker.url();
    let mut tasks = JoinSet::new();
    if let Some(folder) = folder {
        let keeping = keep::run(bench.clone(), clock.clone(), folder, shutdown.clone());
        tasks.spawn(async move {
            keeping.await;
            Ok(())
        });
    }
    tasks.spawn(tclab::run(board, port, clock.clone(), shutdown.clone()));
    tasks.spawn(chamber.run(bench.clone(), clock.clone(), shutdown.clone()));
    for publisher in publishers {
        let run = publisher.run(broker.clone(), bench.clone(), clock.clone(), shutdown.clone());
        tasks.spawn(async move {
            run.await;
            Ok(())
        });
    }
    Ok(Rig {
        serial_path,
        opcua_url,
        mqtt_url,
        devices,
        playback,
        tasks,
        shutdown,
        _link: link,
    })
}
