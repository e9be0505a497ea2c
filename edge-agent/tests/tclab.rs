//! The agent against the simulated board: samples, commands with their acknowledgements, recovery, an unplugged port, garbage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Agent, Reader, bus, device, payloads, until, values};
use orrery_bus::{Record, SharedBus};
use orrery_edge_agent::SystemClock;
use orrery_edge_agent::config::{CommandConfig, Config, ConnectorConfig, LinesConfig, TcLabConfig};
use orrery_protocol::{
    AckPayload, AckStatus, Clock, Command, DeviceId, EventPayload, PayloadType, SealKey, TaiNanos, seal_command, topics,
};
use orrery_rig::{Rig, RigConfig};
use tokio_util::sync::CancellationToken;

async fn rig(link: &Path) -> (Rig, CancellationToken) {
    let stop = CancellationToken::new();
    let config = RigConfig {
        serial_link: Some(link.to_owned()),
        heaters_percent: [0.0, 0.0],
        ..RigConfig::default()
    };
    (
        orrery_rig::start(config, Arc::new(SystemClock::new()), stop.clone())
            .await
            .unwrap(),
        stop,
    )
}

fn board(folder: &Path, port: &Path) -> Config {
    let port = port.display().to_string();
    let connector = ConnectorConfig::TcLab(TcLabConfig {
        port,
        baud: 115_200,
        rate_hz: 20.0,
    });
    let columns = &[("t1", "T1"), ("t2", "T2"), ("q1", "Q1"), ("q2", "Q2")];
    let mut board = device("tclab", connector, columns);
    board.streams[0].channels[2].command = Some(CommandConfig {
        safe: 0.0,
        low: Some(0.0),
        high: Some(80.0),
        tolerance: 0.3,
    });
    Config {
        devices: vec![board],
        ..Config::in_folder(folder.join("edge"))
    }
}

struct Issuer {
    key: SealKey,
    bus: SharedBus,
    sequence: u64,
}

impl Issuer {
    async fn send(&mut self, value: f64, apply_in: Duration, hold: Option<Duration>) -> String {
        let now = SystemClock::new().wall();
        self.sequence += 1;
        let command = Command {
            id: format!("command-{}", self.sequence),
            device: DeviceId::new("tclab").unwrap(),
            channel: "q1".to_owned(),
            value,
            issuer: "test".to_owned(),
            issuer_epoch: 1,
            issuer_sequence: self.sequence,
            apply_by: now.plus(apply_in),
            hold_until: hold.map(|hold| now.plus(hold)),
        };
        self.publish(seal_command(&command, &self.key)).await;
        command.id
    }

    async fn publish(&self, sealed: Vec<u8>) {
        self.bus
            .publish(topics::CONTROL, vec![Record::new(Bytes::from_static(b"tclab"), sealed)])
            .await
            .unwrap();
    }
}

fn ack(seen: &[orrery_protocol::Verified<orrery_protocol::Envelope>], id: &str) -> Option<AckPayload> {
    payloads(seen, PayloadType::Ack)
        .into_iter()
        .map(|payload| AckPayload::decode(payload).unwrap())
        .find(|ack| ack.command_id == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn heaters_follow_signed_commands_and_go_safe_when_the_hold_ends() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("board");
    let (rig, stop_rig) = rig(&link).await;
    let config = board(folder.path(), &link);
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let mut issuer = Issuer {
        key: SealKey::from_seed(&[7; 32]),
        bus: Arc::clone(&bus),
        sequence: 0,
    };
    let agent = Agent::start(&config, &bus, vec![issuer.key.public()]);
    reader.until("samples", |seen| values(seen, "t1").len() >= 20).await;
    assert!(
        values(&reader.seen, "t1")
            .iter()
            .all(|celsius| (10.0..50.0).contains(celsius))
    );

    let id = issuer
        .send(45.0, Duration::from_secs(5), Some(Duration::from_secs(3)))
        .await;
    reader.until("applied", |seen| ack(seen, &id).is_some()).await;
    let applied = ack(&reader.seen, &id).unwrap();
    assert_eq!((applied.status, applied.value), (AckStatus::Applied, Some(45.0)));
    reader
        .until("the heater's column follows", |seen| values(seen, "q1").contains(&45.0))
        .await;

    // Out of the agent's own bounds, too late, and signed by somebody else.
    let high = issuer.send(81.0, Duration::from_secs(5), None).await;
    let late = issuer.send(10.0, Duration::ZERO, None).await;
    let stranger = Issuer {
        key: SealKey::from_seed(&[8; 32]),
        bus: Arc::clone(&bus),
        sequence: 100,
    };
    let forged = Command {
        id: "forged".to_owned(),
        device: DeviceId::new("tclab").unwrap(),
        channel: "q1".to_owned(),
        value: 79.0,
        issuer: "nobody".to_owned(),
        issuer_epoch: 9,
        issuer_sequence: 9,
        apply_by: TaiNanos(i64::MAX),
        hold_until: None,
    };
    issuer.publish(seal_command(&forged, &stranger.key)).await;
    reader.until("refused", |seen| ack(seen, &late).is_some()).await;
    assert!(
        ack(&reader.seen, &high)
            .unwrap()
            .reason
            .unwrap()
            .contains("outside 0 to 80")
    );
    assert!(ack(&reader.seen, &late).unwrap().reason.unwrap().contains("too late"));

    reader
        .until("the hold ends", |seen| !payloads(seen, PayloadType::Event).is_empty())
        .await;
    let event = EventPayload::decode(payloads(&reader.seen, PayloadType::Event)[0]).unwrap();
    assert!(event.text.contains("q1 set to its safe value 0"), "{}", event.text);
    reader
        .until("the heater is off", |seen| values(seen, "q1").last() == Some(&0.0))
        .await;
    assert!(ack(&reader.seen, "forged").is_none() && !values(&reader.seen, "q1").contains(&79.0));
    agent.stop().await;

    // A crash between intent and outcome: what is left of it is recovered from the device itself.
    let command = Command {
        id: "crashed".to_owned(),
        value: 33.0,
        issuer_epoch: 2,
        ..forged
    };
    let ledger = orrery_edge_agent::command::ledger_file(&config.folder, &command.device);
    let mut intents: orrery_edge_agent::command::Ledger =
        serde_json::from_slice(&std::fs::read(&ledger).unwrap()).unwrap();
    intents.intend(&command);
    std::fs::write(&ledger, serde_json::to_vec(&intents).unwrap()).unwrap();
    let agent = Agent::start(&config, &bus, vec![issuer.key.public()]);
    reader.until("recovered", |seen| ack(seen, "crashed").is_some()).await;
    assert_eq!(ack(&reader.seen, "crashed").unwrap().status, AckStatus::Applied);
    reader
        .until("applied after all", |seen| values(seen, "q1").last() == Some(&33.0))
        .await;
    agent.stop().await;
    stop_rig.cancel();
    rig.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_commands_and_still_lets_a_heater_go_safe() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("board");
    let (rig, stop_rig) = rig(&link).await;
    let config = board(folder.path(), &link);
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let mut issuer = Issuer {
        key: SealKey::from_seed(&[7; 32]),
        bus: Arc::clone(&bus),
        sequence: 0,
    };
    let agent = Agent::start(&config, &bus, vec![issuer.key.public()]);
    let (soon, hold) = (Duration::from_secs(5), Duration::from_secs(4));
    reader.until("samples", |seen| values(seen, "t1").len() >= 20).await;
    let held = issuer.send(45.0, soon, Some(hold)).await;
    reader.until("applied", |seen| ack(seen, &held).is_some()).await;

    // Whatever is written there finds no space.
    let ledger = orrery_edge_agent::command::ledger_file(&config.folder, &DeviceId::new("tclab").unwrap());
    let beside = ledger.with_extension("json.new");
    std::os::unix::fs::symlink("/dev/full", &beside).unwrap();
    let refused = issuer.send(60.0, soon, None).await;
    reader.until("refused", |seen| ack(seen, &refused).is_some()).await;
    let refused = ack(&reader.seen, &refused).unwrap();
    let reason = refused.reason.unwrap();
    assert_eq!(refused.status, AckStatus::Refused);
    assert!(
        reason.contains("No space left") && reason.contains("tclab.json"),
        "{reason}"
    );
    reader
        .until("the hold ends", |seen| values(seen, "q1").last() == Some(&0.0))
        .await;
    assert!(
        !values(&reader.seen, "q1").contains(&60.0),
        "set without a durable intent"
    );

    std::fs::remove_file(&beside).unwrap();
    let applied = issuer.send(20.0, soon, None).await;
    reader
        .until("applied again", |seen| ack(seen, &applied).is_some())
        .await;
    assert_eq!(ack(&reader.seen, &applied).unwrap().status, AckStatus::Applied);
    agent.stop().await;
    stop_rig.cancel();
    rig.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unplugged_port_is_named_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("board");
    let config = board(folder.path(), &link);
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&DeviceId::new("tclab").unwrap());
    until("the port is missing", || status.problem().is_some()).await;
    let problem = status.problem().unwrap();
    assert!(
        problem.contains(&link.display().to_string()) && problem.contains("plug it in"),
        "{problem}"
    );
    for _ in 0..2 {
        let (rig, stop) = rig(&link).await;
        let before = reader.seen.len();
        reader
            .until("samples", |seen| values(&seen[before..], "t1").len() >= 5)
            .await;
        stop.cancel();
        rig.join().await.unwrap();
        until("the loss is noticed", || !status.connected()).await;
    }
    agent.stop().await;
}

/// The instrument's end of a pseudo-terminal and the path of ours: raw, and open all the time, so that nothing echoes and
/// nothing hangs up.
fn raw_terminal() -> (std::fs::File, String, impl Sized) {
    use rustix::fs::OFlags;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let port = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let keep = rustix::fs::open(port.as_str(), OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
    let mut modes = rustix::termios::tcgetattr(&keep).unwrap();
    modes.make_raw();
    rustix::termios::tcsetattr(&keep, rustix::termios::OptionalActions::Now, &modes).unwrap();
    (std::fs::File::from(controller), port, keep)
}

/// Another instrument on the port, which never stops talking: it is named, not listened to for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_only_talks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut instrument, port, _keep) = raw_terminal();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let talking = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            instrument.write_all(b"noise\xff\n").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let config = board(folder.path(), Path::new(&port));
    let bus = bus(&folder.path().join("bus")).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&DeviceId::new("tclab").unwrap());
    until("the talker is named", || status.problem().is_some()).await;
    let problem = status.problem().unwrap();
    assert!(
        problem.contains("does not answer like a TCLab") && problem.contains("noise"),
        "{problem}"
    );
    agent.stop().await;
    stop.store(true, Ordering::Relaxed);
    talking.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_line_is_counted_and_the_lines_around_it_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut instrument, port, _keep) = raw_terminal();
    let lines: LinesConfig = toml::from_str(&format!("port = {port:?}\ndelimiter = \";\"")).unwrap();
    let scale = device("scale", ConnectorConfig::Lines(lines), &[("mass", "1")]);
    let config = Config {
        devices: vec![scale],
        ..Config::in_folder(folder.path().join("edge"))
    };
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&DeviceId::new("scale").unwrap());
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    instrument.write_all(b"half a line\nn;1\nn;2\n").unwrap();
    instrument.write_all(b"\xff\xfe\x00;\x01\nn;\nn;x\n").unwrap();
    instrument.write_all(&[b'z'; 5_000]).unwrap();
    instrument.write_all(b"\nn;3\n").unwrap();
    reader
        .until("the last line", |seen| values(seen, "mass").last() == Some(&3.0))
        .await;
    let kept = values(&reader.seen, "mass");
    assert_eq!((kept[..2].to_vec(), kept.last()), (vec![1.0, 2.0], Some(&3.0)));
    assert!(status.bad.get() >= 3, "{}", status.bad.get());
    agent.stop().await;
}
