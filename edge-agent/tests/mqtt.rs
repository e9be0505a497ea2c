//! The agent against mosquitto: credentials, garbage, restarts of either side, and kill -9.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Agent, Mosquitto, Reader, Server, blocks, bus, device, payloads, same_set, until, values};
use orrery_edge_agent::config::{Config, ConnectorConfig, MqttConfig, TimeConfig, TimeFormat};
use orrery_edge_agent::connector::ConnectError;
use orrery_edge_agent::discover;
use orrery_protocol::{ClockPayload, DeviceId, DeviceNanos, HeartbeatPayload, LogPayload, PayloadType};

fn config(folder: &std::path::Path, url: &str) -> Config {
    let mut device = device("room", ConnectorConfig::Mqtt(MqttConfig::at(url)), &[("t", "/t")]);
    device.streams[0].time = Some(TimeConfig {
        source: "/ts".to_owned(),
        format: TimeFormat::UnixMs,
    });
    Config {
        devices: vec![device],
        ..Config::in_folder(folder.join("edge"))
    }
}

fn message(n: u32) -> String {
    format!(r#"{{"t":{n},"ts":{}}}"#, 1_700_000_000_000u64 + u64::from(n))
}

fn room() -> DeviceId {
    DeviceId::new("room").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_become_verified_samples_through_restarts_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(folder.path()).await;
    let config = config(folder.path(), &broker.url());
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&room());
    until("connected", || status.connected()).await;

    broker.publish("lab/room", (0..100).map(message).collect()).await;
    reader.until("100 samples", |seen| values(seen, "t").len() >= 100).await;
    assert_eq!(values(&reader.seen, "t"), (0..100).map(f64::from).collect::<Vec<_>>());
    let first = &blocks(&reader.seen)[0];
    assert_eq!(first.device_time(0), Some(DeviceNanos(1_700_000_000_000_000_000)));
    assert_eq!(first.device_clock_id.as_ref().unwrap().as_str(), "room:source");
    let kinds: Vec<_> = reader
        .seen
        .iter()
        .map(|envelope| envelope.claims().payload_type)
        .collect();
    assert_eq!(
        kinds[..2],
        [PayloadType::Descriptor, PayloadType::Clock],
        "evidence goes before samples"
    );
    let clock = ClockPayload::decode(payloads(&reader.seen, PayloadType::Clock)[0]).unwrap();
    assert_eq!((clock.probes.len(), clock.clock_id == clock.host), (8, true));

    // Garbage is counted and told, and nothing else suffers.
    broker
        .publish("lab/room", vec!["\u{1}garbage".to_owned(), r#"{"u":1}"#.to_owned()])
        .await;
    broker.publish("lab/room", vec![message(100)]).await;
    reader
        .until("the sample after the garbage", |seen| {
            values(seen, "t").last() == Some(&100.0)
        })
        .await;
    reader
        .until("a log of the garbage", |seen| {
            !payloads(seen, PayloadType::Log).is_empty()
        })
        .await;
    assert_eq!(status.bad.get(), 2);
    let log = LogPayload::decode(payloads(&reader.seen, PayloadType::Log)[0]).unwrap();
    assert!(log.message.contains("lab/room"), "{}", log.message);

    // The broker goes and returns: subscribed again without help.
    broker.stop();
    until("the loss is noticed", || !status.connected()).await;
    assert!(
        status
            .problem()
            .unwrap()
            .contains(&format!("mqtt://127.0.0.1:{}", broker.port))
    );
    assert!(!status.problem().unwrap().contains("secret"));
    broker.resume().await;
    until("connected again", || status.connected()).await;
    broker.publish("lab/room", vec![message(101)]).await;
    reader
        .until("the sample after the restart", |seen| {
            values(seen, "t").last() == Some(&101.0)
        })
        .await;

    // Silence is declared.
    let beats = payloads(&reader.seen, PayloadType::Heartbeat).len();
    reader
        .until("heartbeats", |seen| {
            payloads(seen, PayloadType::Heartbeat).len() > beats + 2
        })
        .await;
    let beats = payloads(&reader.seen, PayloadType::Heartbeat);
    let beats: Vec<_> = beats
        .into_iter()
        .map(|payload| HeartbeatPayload::decode(payload).unwrap())
        .collect();
    assert!(
        beats
            .windows(2)
            .all(|pair| pair[0].complete_until <= pair[1].complete_until)
    );
    assert_eq!(beats.last().unwrap().counters["bad"], 2);

    // The agent goes and returns: the chain goes on although everything was sent.
    agent.stop().await;
    broker.publish("lab/room", (102..110).map(message).collect()).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    reader
        .until("what came while the agent was away", |seen| {
            values(seen, "t").last() == Some(&109.0)
        })
        .await;
    let boots: std::collections::BTreeSet<_> = reader.seen.iter().map(|envelope| envelope.claims().boot_id).collect();
    assert_eq!(boots.len(), 2);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_and_wrong_addresses_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path()).await;
    let bus = bus(&folder.path().join("bus")).await;
    for (url, wanted) in [
        (
            format!("mqtt://lab:wrong@127.0.0.1:{}", broker.port),
            "refuses the credentials",
        ),
        (format!("mqtt://127.0.0.1:{}", common::free_port()), "nobody listens at"),
    ] {
        let config = config(folder.path(), &url);
        let agent = Agent::start(&config, &bus, Vec::new());
        let status = agent.status.device(&room());
        until(wanted, || {
            status.problem().is_some_and(|problem| problem.contains(wanted))
        })
        .await;
        agent.stop().await;
    }
    let wrong = MqttConfig::at(&format!("mqtt://lab:wrong@127.0.0.1:{}", broker.port));
    let refused = discover::mqtt_topics(&wrong, "#", Duration::from_secs(5), false)
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::Denied(_)), "{refused}");

    // The command line says where to set them, and has codes for it.
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let run = |arguments: &[&str], password: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orrery-edge"));
        command.args(arguments).args(["--mqtt", &url, "--username", "lab"]);
        let output = command.env("ORRERY_EDGE_PASSWORD", password).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let one = &["run", "--url", "http://127.0.0.1:1", "--topic", "lab/x", "--wait", "1"];
    for arguments in [one.as_slice(), &["discover"]] {
        let (code, said) = run(arguments, "wrong");
        assert!(
            code == Some(4) && said.contains("ORRERY_EDGE_PASSWORD"),
            "{code:?} {said}"
        );
    }
    let (code, said) = run(one, "secret");
    let listed = format!("`orrery-edge discover --mqtt {url} --username lab`");
    assert!(code == Some(3) && said.contains(&listed), "{code:?} {said}");
    let (code, said) = run(&["run", "--url", "http://127.0.0.1:1", "--topic", "lab/#"], "secret");
    assert!(
        code == Some(2) && said.contains("`lab/#` is many topics"),
        "{code:?} {said}"
    );
}

/// A mistyped topic is no error to a broker: the agent says that nothing comes, until something does.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_never_speaks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path()).await;
    let mut config = config(folder.path(), &broker.url());
    config.devices[0].streams[0].max_silence_ms = Some(500);
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&room());
    let wanted = format!("nothing on `lab/room` at mqtt://127.0.0.1:{} for 0.5 s", broker.port);
    until("the silence is told", || {
        status.problem().is_some_and(|problem| problem.contains(&wanted))
    })
    .await;
    assert!(status.connected(), "the broker answers");
    reader
        .until("in the chain too", |seen| {
            payloads(seen, PayloadType::Log)
                .iter()
                .any(|log| String::from_utf8_lossy(log).contains(&wanted))
        })
        .await;
    broker.publish("lab/room", vec![message(1)]).await;
    until("all is well", || status.problem().is_none()).await;
    assert!(status.connected());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_topic_are_discovered() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path()).await;
    let settings = MqttConfig::at(&broker.url());
    let listening = discover::mqtt_topics(&settings, "lab/#", Duration::from_secs(10), true);
    let publishing = async {
        for _ in 0..20 {
            broker
                .publish(
                    "lab/x",
                    vec![r#"{"air":{"temperature":21.5},"ts":1700000000}"#.to_owned()],
                )
                .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let heard = tokio::select! {
        heard = listening => heard.unwrap(),
        () = publishing => panic!("nothing heard"),
    };
    assert_eq!(heard[0].topic, "lab/x");
    let fields = discover::fields(&heard[0].payload).unwrap();
    assert_eq!(
        (fields.numbers, fields.time.as_deref()),
        (vec!["/air/temperature".to_owned()], Some("/ts"))
    );
}

/// The real binary, killed hard again and again while messages flow and the gateway is away. What the agent acknowledged to the broker
/// is in its spool: together with what the broker still had, nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn kill_dash_nine_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path()).await;
    let config = config(folder.path(), &broker.url());
    let token = folder.path().join("token");
    std::fs::write(&token, "unused").unwrap();
    let file = folder.path().join("edge.toml");
    let dead = common::free_port();
    let text = format!(
        "folder = {:?}\nsink = {{ kind = \"https\", url = \"http://127.0.0.1:{dead}\", token_file = {token:?} }}\n\
         clock = {{ first_wave_wait_ms = 0 }}\n\
         [[devices]]\nid = \"room\"\nconnector = {{ kind = \"mqtt\", url = {:?} }}\n\
         [[devices.streams]]\nname = \"s\"\ntopic = \"lab/room\"\ndroppable = false\n\
         time = {{ source = \"/ts\", format = \"unix_ms\" }}\nchannels = [{{ name = \"t\", source = \"/t\" }}]\n",
        config.folder,
        broker.url(),
    );
    std::fs::write(&file, text).unwrap();
    let start = || {
        let child = Command::new(env!("CARGO_BIN_EXE_orrery-edge"))
            .args(["run", "--config"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server(child)
    };
    // The first start makes the broker keep a session for it.
    let first = start();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    drop(first);
    for round in 0..3u32 {
        let agent = start();
        let publishing = broker.publish("lab/room", (round * 200..(round + 1) * 200).map(message).collect());
        tokio::join!(
            publishing,
            tokio::time::sleep(Duration::from_millis(700 + u64::from(round) * 130))
        );
        drop(agent); // SIGKILL
    }
    // Now with a bus to send to: the spool's content and the broker's rest arrive, every chain link in place.
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    reader
        .until("all 600", |seen| same_set(&values(seen, "t"), (0..600).map(f64::from)))
        .await;
    let boots: std::collections::BTreeSet<_> = reader.seen.iter().map(|envelope| envelope.claims().boot_id).collect();
    assert!(boots.len() >= 4, "{boots:?}");
    agent.stop().await;
    assert!(!bus.end(orrery_protocol::topics::RAW).await.unwrap().is_empty());
}
