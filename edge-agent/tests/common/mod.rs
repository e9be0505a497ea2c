//! What the tests of the agent share: a real bus, real servers on free ports, and a reader of envelopes.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot go on stops here, with the line; each test file uses a part"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orrery_bus::journal::JournalOptions;
use orrery_bus::{From, JournalBus, SharedBus, Subscription};
use orrery_edge_agent::config::{ChannelConfig, Config, ConnectorConfig, DeviceConfig, StreamConfig};
use orrery_edge_agent::{Deps, Error, Status, SystemClock, keys, run};
use orrery_protocol::{
    Clock, DeviceId, Digest, Envelope, PayloadType, PublicKey, SampleBlock, SealKey, Unverified, Verified, topics,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A port nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The interpreter of the environment of foreign programs.
pub fn python() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/venv.sh");
    let output = Command::new("bash").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap())
}

/// A child process, killed when dropped.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mosquitto that asks for user `lab` and password `secret`.
pub struct Mosquitto {
    pub port: u16,
    folder: PathBuf,
    server: Option<Server>,
}

impl Mosquitto {
    pub async fn start(folder: &Path) -> Self {
        let port = free_port();
        let passwords = folder.join("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&passwords)
            .args(["lab", "secret"])
            .status();
        assert!(
            made.expect("mosquitto is a package: apt install mosquitto mosquitto-clients")
                .success()
        );
        // Started as root it becomes the user mosquitto, who could not read the folder.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\npersistence true\n\
             persistence_location {}/\nmax_queued_messages 100000\n",
            passwords.display(),
            folder.display()
        );
        std::fs::write(folder.join("mosquitto.conf"), text).unwrap();
        let mut this = Self {
            port,
            folder: folder.to_owned(),
            server: None,
        };
        this.resume().await;
        this
    }

    pub async fn resume(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(Server(child));
        let port = self.port;
        until("mosquitto listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    pub fn url(&self) -> String {
        format!("mqtt://lab:secret@127.0.0.1:{}", self.port)
    }

    /// Publishes one message per line with QoS 1, and returns when the broker has them all.
    pub async fn publish(&self, topic: &str, lines: Vec<String>) {
        let mut publisher = tokio::process::Command::new("mosquitto_pub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-u",
                "lab",
                "-P",
                "secret",
            ])
            .args(["-q", "1", "-t", topic, "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        use tokio::io::AsyncWriteExt;
        let mut input = publisher.stdin.take().unwrap();
        input.write_all((lines.join("\n") + "\n").as_bytes()).await.unwrap();
        drop(input);
        assert!(publisher.wait().await.unwrap().success());
    }
}

/// Waits up to 20 s until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// A bus of its own in a folder.
pub async fn bus(folder: &Path) -> SharedBus {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Arc::new(
        JournalBus::open(folder, JournalOptions::default(), clock)
            .await
            .unwrap(),
    )
}

/// A device with one stream.
pub fn device(id: &str, connector: ConnectorConfig, channels: &[(&str, &str)]) -> DeviceConfig {
    DeviceConfig {
        id: DeviceId::new(id).unwrap(),
        title: None,
        connector,
        batch: Default::default(),
        streams: vec![StreamConfig {
            name: "s".to_owned(),
            title: None,
            nominal_rate_hz: None,
            droppable: false,
            max_silence_ms: None,
            calibration: None,
            topic: Some(format!("lab/{id}")),
            time: None,
            channels: channels
                .iter()
                .map(|(name, source)| ChannelConfig::float(name, "1", source))
                .collect(),
        }],
    }
}

/// An agent on a bus.
pub struct Agent {
    pub status: Arc<Status>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Error>>,
}

impl Agent {
    pub fn start(config: &Config, bus: &SharedBus, issuers: Vec<PublicKey>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let deps = Deps::with_bus(config, Arc::clone(bus), clock, issuers);
        let status = Arc::clone(&deps.status);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(config.clone(), deps, stop.clone()));
        Self { status, stop, tasks }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// Reads `orrery.raw`, verifying every envelope and every link of every chain.
pub struct Reader {
    subscription: Box<dyn Subscription>,
    keys: BTreeMap<DeviceId, SealKey>,
    previous: BTreeMap<DeviceId, (Digest, u64, orrery_protocol::BootId)>,
    pub seen: Vec<Verified<Envelope>>,
}

impl Reader {
    pub async fn new(bus: &SharedBus, config: &Config) -> Self {
        let keys = config
            .devices
            .iter()
            .map(|device| {
                (
                    device.id.clone(),
                    keys::load_or_create(&config.keys_folder(), &device.id).unwrap(),
                )
            })
            .collect();
        let subscription = bus.subscribe(topics::RAW, From::Earliest).await.unwrap();
        Self {
            subscription,
            keys,
            previous: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    /// Reads until something holds of what was seen, for at most 20 s.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&[Verified<Envelope>]) -> bool) {
        let reading = async {
            while !holds(&self.seen) {
                for message in self.subscription.next().await.unwrap() {
                    let envelope = Unverified::parse(message.value.to_vec()).unwrap();
                    let claims = envelope.claims().clone();
                    let key = self.keys[&claims.device_id].public();
                    let envelope = envelope.verify(&key).map_err(|refused| refused.0).unwrap();
                    let digest = Digest::of(&message.value);
                    if let Some((previous, sequence, boot)) = self.previous.get(&claims.device_id) {
                        assert_eq!(
                            claims.previous,
                            Some(*previous),
                            "the chain of {} is broken",
                            claims.device_id
                        );
                        let expected = if *boot == claims.boot_id { sequence + 1 } else { 0 };
                        assert_eq!(claims.sequence, expected);
                    }
                    self.previous
                        .insert(claims.device_id.clone(), (digest, claims.sequence, claims.boot_id));
                    self.seen.push(envelope);
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), reading).await.is_err() {
            let kinds: Vec<_> = self
                .seen
                .iter()
                .map(|envelope| envelope.claims().payload_type.as_str())
                .collect();
            panic!("never: {what}; seen: {kinds:?}");
        }
    }
}

/// The payloads of one type.
pub fn payloads(seen: &[Verified<Envelope>], kind: PayloadType) -> Vec<&[u8]> {
    seen.iter()
        .filter(|envelope| envelope.claims().payload_type == kind)
        .map(|envelope| envelope.payload())
        .collect()
}

/// Every sample block.
pub fn blocks(seen: &[Verified<Envelope>]) -> Vec<SampleBlock> {
    payloads(seen, PayloadType::Samples)
        .into_iter()
        .map(|payload| SampleBlock::decode(payload).unwrap())
        .collect()
}

/// Every value of a float channel, in order.
pub fn values(seen: &[Verified<Envelope>], channel: &str) -> Vec<f64> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Float64Type;
    blocks(seen)
        .iter()
        .filter_map(|block| {
            Some(
                block
                    .batch
                    .column_by_name(channel)?
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec(),
            )
        })
        .flatten()
        .collect()
}

/// Whether two sets of numbers are the same, whatever their order and repetition.
pub fn same_set(found: &[f64], wanted: impl Iterator<Item = f64>) -> bool {
    let bits =
        |values: &mut dyn Iterator<Item = f64>| values.map(f64::to_bits).collect::<std::collections::BTreeSet<_>>();
    bits(&mut found.iter().copied()) == bits(&mut wanted.into_iter())
}
