//! The agent against a foreign OPC UA server (asyncua).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Agent, Reader, Server, blocks, bus, device, free_port, payloads, until, values};
use orrery_edge_agent::SystemClock;
use orrery_edge_agent::config::{Config, ConnectorConfig, OpcUaConfig};
use orrery_edge_agent::connector::opcua::nodes::numbers;
use orrery_edge_agent::connector::opcua::{Connection, OpcUa};
use orrery_edge_agent::connector::{Connector, ControlError, Emitter};
use orrery_edge_agent::discover;
use orrery_protocol::{Clock, ClockPayload, DeviceId, PayloadType};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn start(port: u16) -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/asyncua_server.py");
    let mut child = Command::new(common::python())
        .args([script, &port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "ready");
    Server(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_with_their_source_stamps_through_a_restart_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("opc.tcp://127.0.0.1:{port}/lab/");
    let mut server = Some(start(port));
    let connector = ConnectorConfig::OpcUa(OpcUaConfig {
        publishing_ms: 50,
        ..OpcUaConfig::at(&url)
    });
    let chamber = device("chamber", connector, &[("count", "Chamber/Count")]);
    let config = Config {
        devices: vec![chamber],
        ..Config::in_folder(folder.path().join("edge"))
    };
    let bus = bus(&folder.path().join("bus")).await;
    let mut reader = Reader::new(&bus, &config).await;
    let agent = Agent::start(&config, &bus, Vec::new());
    let status = agent.status.device(&DeviceId::new("chamber").unwrap());

    reader
        .until("40 samples", |seen| values(seen, "count").len() >= 40)
        .await;
    let counts = values(&reader.seen, "count");
    assert!(
        counts
            .windows(2)
            .all(|pair| pair[1] - pair[0] <= 1.0 && pair[1] >= pair[0]),
        "{counts:?}"
    );
    let repeats = counts.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(repeats * 3 >= counts.len(), "a repeated value is a sample: {counts:?}");

    // The stamps are the server's: this host's own UTC here.
    let block = &blocks(&reader.seen)[1];
    let wall = SystemClock::new().wall().to_utc().0;
    assert!((block.device_time(0).unwrap().0 - wall).abs() < 20_000_000_000);
    let first_clock = block.device_clock_id.clone().unwrap();
    assert!(first_clock.as_str().starts_with("chamber:"));
    let is_device_probe = |clock: &ClockPayload| clock.clock_id != clock.host && clock.clock_id == first_clock;
    let clocks = payloads(&reader.seen, PayloadType::Clock);
    let clocks: Vec<_> = clocks
        .into_iter()
        .map(|payload| ClockPayload::decode(payload).unwrap())
        .collect();
    let probed = clocks
        .iter()
        .find(|clock| is_device_probe(clock))
        .expect("two-way probes of the server's clock");
    // Same host, same clock: wall minus boot-time is the offset, within the round trip.
    let host = SystemClock::new();
    let offset = host.wall().to_utc().0 - host.monotonic().0;
    let best = probed
        .probes
        .iter()
        .min_by_key(|probe| probe.round_trip_nanos())
        .unwrap();
    assert!(
        (best.offset_nanos() - offset).abs() < best.round_trip_nanos() + 5_000_000,
        "{best:?} {offset}"
    );

    server.take();
    until("the loss is noticed", || !status.connected()).await;
    assert!(status.problem().unwrap().contains(&url), "{:?}", status.problem());
    let before = reader.seen.len();
    server.replace(start(port));
    reader
        .until("samples of the new server", |seen| {
            values(&seen[before..], "count").len() > 5
        })
        .await;
    let second_clock = blocks(&reader.seen).last().unwrap().device_clock_id.clone().unwrap();
    assert_ne!(first_clock, second_clock, "another run of the server is another clock");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_found_set_and_read_back_and_errors_are_named() {
    let port = free_port();
    let url = format!("opc.tcp://127.0.0.1:{port}/lab/");
    let _server = start(port);
    let found = discover::opcua_variables(&OpcUaConfig::at(&url), 100).await.unwrap();
    let count = found.iter().find(|variable| variable.path == "Chamber/Count").unwrap();
    assert_eq!((count.node.as_str(), count.unfit.as_deref()), ("ns=2;s=Count", None));
    assert!(found.iter().any(|variable| variable.path == "Chamber/Name"
        && variable.unfit.as_deref() == Some("`Chamber/Name` is not a number (chamber 7)")));

    let connection = Connection::open(&OpcUaConfig::at(&url)).await.unwrap();
    for (node, wanted) in [
        ("ns=2;s=Nope", "the server has no node `ns=2;s=Nope`"),
        ("Chamber", "`Chamber` is not a variable"),
        ("Chamber/Name", "`Chamber/Name` is not a number (chamber 7)"),
    ] {
        let problem = numbers(&connection.session, &[node.to_owned()]).await.unwrap_err();
        assert_eq!(problem, wanted);
    }
    connection.close().await;
    // What cannot be meant is told before anyone is asked.
    for (url, node, wanted) in [
        (
            url.as_str(),
            "ns=x;s=Air",
            "orrery-edge: `ns=x;s=Air` is not a node id; write ns=2;s=Name",
        ),
        (
            "tcp://127.0.0.1:4840",
            "Chamber/Count",
            "orrery-edge: `tcp://127.0.0.1:4840` is not an OPC UA address; write opc.tcp://HOST:4840",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orrery-edge"));
        command.args(["run", "--url", "http://127.0.0.1:1", "--opcua", url, "--node", node]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(wanted), "{said}");
    }

    let nodes = &[("target", "ns=2;s=Target"), ("count", "Chamber/Count")];
    let settings = device("chamber", ConnectorConfig::OpcUa(OpcUaConfig::at(&url)), nodes);
    let connector = OpcUa::new(OpcUaConfig::at(&url), &settings).unwrap();
    let control = connector.control().unwrap();
    assert!(matches!(
        control.set("ns=2;s=Target", 1.0).await,
        Err(ControlError::NotConnected(_))
    ));
    let status = Arc::default();
    let (emit, mut input, _) = Emitter::new("chamber", Arc::new(SystemClock::new()), Arc::clone(&status));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(Box::new(connector).run(emit, stop.clone()));
    tasks.spawn(async move { while input.recv().await.is_some() {} });
    until("connected", || status.connected()).await;
    assert_eq!(control.set("ns=2;s=Target", 42.5).await, Ok(42.5));
    assert_eq!(control.read_back("ns=2;s=Target").await, Ok(42.5));
    assert!(matches!(
        control.set("Chamber/Count", 1.0).await,
        Err(ControlError::Refused(_))
    ));
    stop.cancel();
    while tasks.join_next().await.is_some() {}

    for (url, node, wanted) in [
        (url.as_str(), "Chamber/Pressure", "has no `Pressure`"),
        (url.as_str(), "ns=2;s=Nothing", "`ns=2;s=Nothing`"),
        (
            &format!("opc.tcp://127.0.0.1:{}", free_port()),
            "Chamber/Count",
            "nobody answers",
        ),
    ] {
        let settings = device("chamber", ConnectorConfig::OpcUa(OpcUaConfig::at(url)), &[("x", node)]);
        let connector = OpcUa::new(OpcUaConfig::at(url), &settings).unwrap();
        let status = Arc::default();
        let (emit, _input, _) = Emitter::new("chamber", Arc::new(SystemClock::new()), Arc::clone(&status));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Box::new(connector).run(emit, stop.clone()));
        until(wanted, || {
            status.problem().is_some_and(|problem| problem.contains(wanted))
        })
        .await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
