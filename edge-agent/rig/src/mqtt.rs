//! The MQTT side: an embedded broker, and two devices that publish to it (or to a foreign one): the supply's power meter and
//! the room sensor. Each stamps its messages with its own clock, in UNIX seconds.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orrery_protocol::{Clock, DeviceNanos};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use rumqttd::{Broker, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, SharedBench};
use crate::device_clock::DeviceClock;
use crate::error::RigError;
use crate::schedule::Schedule;

/// How often, and where, the power meter publishes `{"ts": s, "power": W}`.
pub const POWER_PERIOD: Duration = Duration::from_millis(200);
/// See [`POWER_PERIOD`].
pub const POWER_TOPIC: &str = "bench/power-meter/power";
/// How often, and where, the room sensor publishes `{"ts": s, "humidity": %, "temperature": °C}`.
pub const ROOM_PERIOD: Duration = Duration::from_secs(5);
/// See [`ROOM_PERIOD`].
pub const ROOM_TOPIC: &str = "bench/room-sensor/room";

const DEFAULT_PORT: u16 = 1883;
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// Messages that a device keeps while it has no connection; small devices keep few, and drop what is more.
const DEVICE_MEMORY: usize = 16;

/// Where an MQTT broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

impl BrokerAddress {
    /// Reads `mqtt://[user:password@]host[:port]`.
    ///
    /// # Errors
    /// [`RigError::BrokerUrl`] names what is not such an address.
    pub fn parse(url: &str) -> Result<Self, RigError> {
        Self::try_parse(url).ok_or_else(|| RigError::BrokerUrl(url.to_owned()))
    }

    fn try_parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("mqtt://")?.trim_end_matches('/');
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((user, place)) => {
                let (user, password) = user.split_once(':')?;
                (Some((user.to_owned(), password.to_owned())), place)
            }
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            // The colons of a bare IPv6 address belong to it.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (place, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty() && !host.contains('/')).then(|| Self {
            host: host.to_owned(),
            port,
            credentials,
        })
    }

    fn loopback(port: u16) -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            credentials: None,
        }
    }

    /// The address without credentials.
    pub fn url(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("mqtt://{host}:{}", self.port)
    }
}

/// Starts a broker on `port` of the loopback interface; 0 takes any. The library offers no way to stop it: it serves until
/// the process ends.
///
/// # Errors
/// [`RigError::Port`] when the port is taken, [`RigError::Broker`] when it does not come up.
pub async fn start_broker(port: u16) -> Result<BrokerAddress, RigError> {
    // The library binds the port itself: between our probe of a free port and its bind someone else may take it.
    for _ in 0..5 {
        let refused = |source| RigError::Port {
            what: "MQTT broker",
            port,
            key: "mqtt_port",
            source,
        };
        let probe = StdTcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(refused)?;
        let listen = probe.local_addr().map_err(refused)?;
        drop(probe);
        if serve_broker(listen).await? {
            return Ok(BrokerAddress::loopback(listen.port()));
        }
    }
    Err(RigError::Broker(
        "it could not keep a port; something else takes them as they are found".to_owned(),
    ))
}

/// Whether the broker came up at `listen`.
async fn serve_broker(listen: SocketAddr) -> Result<bool, RigError> {
    let mut broker = Broker::new(broker_config(listen));
    let gone = Arc::new(AtomicBool::new(false));
    let gone_in_thread = gone.clone();
    std::thread::Builder::new()
        .name("rig-mqtt-broker".to_owned())
        .spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the embedded MQTT broker failed");
            }
            gone_in_thread.store(true, Ordering::Release);
        })
        .map_err(|error: io::Error| RigError::Broker(error.to_string()))?;
    for _ in 0..100 {
        if gone.load(Ordering::Acquire) {
            return Ok(false);
        }
        if TcpStream::connect(listen).await.is_ok() {
            return Ok(!gone.load(Ordering::Acquire));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(RigError::Broker(format!(
        "nothing answers on {listen} after two seconds"
    )))
}

fn broker_config(listen: SocketAddr) -> rumqttd::Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: 64 * 1024,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "rig".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 200,
        max_segment_size: 64 * 1024,
        max_segment_count: 4,
        ..Default::default()
    };
    rumqttd::Config {
        router,
        v4: Some(HashMap::from([("rig".to_owned(), server)])),
        ..Default::default()
    }
}

/// A device that publishes.
pub struct Publisher {
    /// Its client id.
    pub name: &'static str,
    /// Where it publishes.
    pub topic: &'static str,
    /// How often.
    pub period: Duration,
    /// What it says about the bench.
    pub message: fn(&Bench, DeviceNanos) -> String,
    /// Its clock.
    pub device_clock: DeviceClock,
}

impl Publisher {
    /// Measures and publishes until `shutdown`. A broker that is away is tried again; meanwhile the device keeps its last few
    /// messages.
    pub async fn run(
        self,
        broker: BrokerAddress,
        bench: SharedBench,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) {
        let mut options = MqttOptions::new(self.name, &broker.host, broker.port);
        options.set_keep_alive(Duration::from_secs(10));
        if let Some((user, password)) = &broker.credentials {
            options.set_credentials(user, password);
        }
        let (client, events) = AsyncClient::new(options, DEVICE_MEMORY);
        tokio::select! {
            () = self.measure(client, &bench, clock.as_ref()) => {}
            () = keep_connected(self.name, &broker, events) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn measure(&self, client: AsyncClient, bench: &SharedBench, clock: &dyn Clock) {
        let mut schedule = Schedule::new(self.period, clock.monotonic());
        loop {
            let now = clock.monotonic();
            let stamp = self.device_clock.stamp(now, schedule.index());
            let message = (self.message)(&bench.at(now), stamp);
            if client.try_publish(self.topic, QoS::AtMostOnce, false, message).is_err() {
                tracing::debug!(
                    device = self.name,
                    "no room for a message while the broker is away: dropped"
                );
            }
            let due = schedule.next(clock.monotonic());
            sleep(clock.real(due.since(clock.monotonic()))).await;
        }
    }
}

async fn keep_connected(name: &str, broker: &BrokerAddress, mut events: EventLoop) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                tracing::info!(device = name, broker = broker.url(), "connected");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    device = name,
                    broker = broker.url(),
                    %error,
                    "no MQTT broker: check its address and credentials; trying again"
                );
                sleep(RECONNECT_AFTER).await;
            }
        }
    }
}

/// What the power meter says.
pub fn power_message(bench: &Bench, stamp: DeviceNanos) -> String {
    format!(
        r#"{{"ts":{},"power":{:.2}}}"#,
        unix_seconds(stamp),
        bench.supply_watts()
    )
}

/// What the room sensor says.
pub fn room_message(bench: &Bench, stamp: DeviceNanos) -> String {
    let room = bench.room();
    format!(
        r#"{{"ts":{},"humidity":{:.1},"temperature":{:.1}}}"#,
        unix_seconds(stamp),
        room.humidity_percent,
        room.celsius
    )
}

/// Microseconds are what a double still holds at such seconds.
fn unix_seconds(stamp: DeviceNanos) -> String {
    let micros = stamp.0.div_euclid(1_000);
    format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use orrery_protocol::MonoNanos;

    use super::*;

    #[test]
    fn broker_addresses_are_read_or_refused() {
        let address = |url| BrokerAddress::parse(url).unwrap();
        assert_eq!(address("mqtt://lab-broker:2883").url(), "mqtt://lab-broker:2883");
        assert_eq!(address("mqtt://lab-broker/").url(), "mqtt://lab-broker:1883");
        assert_eq!(address("mqtt://[::1]:2883").url(), "mqtt://[::1]:2883");
        let with_user = address("mqtt://ann:s3:cr@t@broker");
        assert_eq!(with_user.credentials, Some(("ann".to_owned(), "s3:cr@t".to_owned())));
        assert_eq!(with_user.url(), "mqtt://broker:1883");
        for wrong in [
            "lab-broker",
            "mqtts://x",
            "mqtt://",
            "mqtt://x:port",
            "mqtt://x/y",
            "mqtt://ann@x",
        ] {
            let error = BrokerAddress::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{wrong}` is not the address")), "{error}");
        }
    }

    #[test]
    fn messages_are_json_with_the_devices_own_stamp() {
        let bench = SharedBench::new(Bench::new(1, MonoNanos(0)));
        let stamp = DeviceNanos(1_795_271_527_000_450_999);
        let power: serde_json::Value = serde_json::from_str(&power_message(&bench.at(MonoNanos(0)), stamp)).unwrap();
        assert_eq!(power["ts"].as_f64(), Some(1_795_271_527.000_45));
        assert!((power["power"].as_f64().unwrap() - 1.12).abs() < 0.05, "{power}");
        let room: serde_json::Value = serde_json::from_str(&room_message(&bench.at(MonoNanos(0)), stamp)).unwrap();
        assert!((35.0..47.0).contains(&room["humidity"].as_f64().unwrap()), "{room}");
    }
}
