//! A user's own MQTT broker and OPC UA server (mosquitto, asyncua): one command of the agent each, and no file edited.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use orrery_tests::instance::{Instance, binary, eventually};
use orrery_tests::venv::python;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A child process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `orrery-edge run`, which finds the instance through its data folder and keeps what is its own in `home`.
fn agent(data: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("orrery-edge"));
    command.env("ORRERY_DATA", data).env("XDG_DATA_HOME", home);
    command.arg("run").args(arguments);
    command
}

async fn channels_with_rows(instance: &Instance, stream: &str) -> Vec<String> {
    eventually(&format!("samples of {stream}"), PATIENCE, async || {
        let sql = format!(r#"SELECT * FROM aligned."{stream}" LIMIT 3"#);
        let answer = instance.command(&["query", "-o", "csv", &sql]);
        let text = String::from_utf8(answer.stdout).unwrap();
        let header = text.lines().next()?.split(',').map(str::to_owned).collect();
        (answer.status.success() && text.lines().count() == 4).then_some(header)
    })
    .await
}

async fn devices(instance: &Instance) -> Vec<String> {
    let answer = instance.get("/devices").await;
    let list = answer["devices"].as_array().unwrap();
    list.iter()
        .map(|device| device["device_id"].as_str().unwrap().to_owned())
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mqtt_topic_takes_one_command() {
    let (data, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let instance = Instance::start(data.path(), &[]);
    let port = free_port();
    let mut broker = Command::new("mosquitto");
    broker
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _broker = Running(
        broker
            .spawn()
            .expect("mosquitto is a package: apt install mosquitto mosquitto-clients"),
    );
    eventually("mosquitto listens", PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .await;
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-p", &port.to_string(), "-t", "lab/room"]);
    publisher.args(["-m", r#"{"temperature": 21.5, "humidity": 40}"#]);
    publisher.args(["--repeat", "600", "--repeat-delay", "0.1"]);
    let _publisher = Running(publisher.spawn().unwrap());

    let broker = format!("mqtt://127.0.0.1:{port}");
    let _agent = Running(
        agent(data.path(), home.path(), &["--mqtt", &broker, "--topic", "lab/room"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let columns = channels_with_rows(&instance, "lab-room/signal").await;
    for channel in ["temperature", "humidity"] {
        assert!(columns.iter().any(|column| column == channel), "{columns:?}");
    }
    assert_eq!(devices(&instance).await, ["lab-room"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opc_ua_variable_takes_one_command_and_a_mistyped_one_enrols_nothing() {
    let (data, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let instance = Instance::start(data.path(), &[]);
    let port = free_port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge-agent/tests/asyncua_server.py");
    let mut server = Command::new(python());
    server
        .args([script, &port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = Running(server.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "ready");

    let url = format!("opc.tcp://127.0.0.1:{port}/lab/");
    let nobody = format!("opc.tcp://127.0.0.1:{}", free_port());
    for (server, node, code, wanted) in [
        (&url, "Chamber/Cuont", 3, "has no `Cuont`; it has Count, Target, Name"),
        (&url, "ns=2;s=Cuont", 3, "the server has no node `ns=2;s=Cuont`"),
        (&url, "Chamber/Name", 3, "`Chamber/Name` is not a number (chamber 7)"),
        (&url, "Chamber", 3, "`Chamber` is not a variable"),
        (&nobody, "Chamber/Count", 6, "nobody answers at"),
    ] {
        let output = agent(data.path(), home.path(), &["--opcua", server, "--node", node])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(wanted), "{}", said(&output));
    }
    assert!(devices(&instance).await.is_empty(), "nothing was enrolled");

    let _agent = Running(
        agent(
            data.path(),
            home.path(),
            &["--opcua", &url, "--node", "level=Chamber/Count:mm"],
        )
        .stderr(Stdio::null())
        .spawn()
        .unwrap(),
    );
    let columns = channels_with_rows(&instance, "level/signal").await;
    assert!(columns.iter().any(|column| column == "level"), "{columns:?}");
    assert_eq!(devices(&instance).await, ["level"]);
}
