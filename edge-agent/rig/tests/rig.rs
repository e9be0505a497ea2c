//! The rig against the programs that users bring: the `tclab` package, an OPC UA client, mosquitto.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orrery_protocol::{Clock, ClockId, MonoNanos, TaiNanos, UtcNanos};
use orrery_rig::{Connection, Rig, RigConfig, RigError};
use rustix::time::{ClockId as HostClock, clock_gettime};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The host's clocks, sped up from the moment of creation.
struct FastClock {
    id: ClockId,
    speed: f64,
    origin: (TaiNanos, MonoNanos),
}

impl FastClock {
    fn new(speed: f64) -> Arc<Self> {
        let wall = TaiNanos::from_utc(UtcNanos(host_nanos(HostClock::Realtime)));
        let origin = (wall, MonoNanos(host_nanos(HostClock::Boottime)));
        Arc::new(Self {
            id: ClockId::host("test"),
            speed,
            origin,
        })
    }

    fn elapsed(&self) -> Duration {
        let real = host_nanos(HostClock::Boottime) - self.origin.1.0;
        Duration::from_nanos((real as f64 * self.speed) as u64)
    }

    fn unix_seconds(&self) -> f64 {
        self.wall().to_utc().0 as f64 / 1e9
    }
}

fn host_nanos(clock: HostClock) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

impl Clock for FastClock {
    fn wall(&self) -> TaiNanos {
        self.origin.0.plus(self.elapsed())
    }

    fn monotonic(&self) -> MonoNanos {
        self.origin.1.plus(self.elapsed())
    }

    fn clock_id(&self) -> &ClockId {
        &self.id
    }

    fn real(&self, span: Duration) -> Duration {
        span.div_f64(self.speed)
    }
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

async fn rig(config: RigConfig, clock: &Arc<FastClock>) -> (Rig, CancellationToken) {
    let shutdown = CancellationToken::new();
    let rig = orrery_rig::start(config, clock.clone(), shutdown.clone())
        .await
        .unwrap();
    (rig, shutdown)
}

async fn refused(config: RigConfig) -> String {
    let started: Result<Rig, RigError> = orrery_rig::start(config, FastClock::new(1.0), CancellationToken::new()).await;
    started.map(|_| ()).unwrap_err().to_string()
}

/// Runs a foreign program and returns what it printed.
async fn output(mut command: Command) -> String {
    tokio::task::spawn_blocking(move || {
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make setup`"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} failed: {errors}");
        String::from_utf8(output.stdout).unwrap()
    })
    .await
    .unwrap()
}

async fn python(script: &str, arguments: &[&str]) -> Value {
    let interpreter = output(Command::new(workspace("tests/servers/venv.sh"))).await;
    let mut command = Command::new(interpreter.trim());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script))
        .args(arguments);
    serde_json::from_str(&output(command).await).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tclab_package_drives_the_board() {
    let clock = FastClock::new(60.0);
    let (rig, _shutdown) = rig(
        RigConfig {
            heaters_percent: [0.0; 2],
            ..RigConfig::default()
        },
        &clock,
    )
    .await;
    let seen = python("tclab_client.py", &[rig.serial_path.to_str().unwrap()]).await;
    assert!(
        seen["version"].as_str().unwrap().starts_with("TCLab Firmware 2.0.1"),
        "{seen}"
    );
    assert_eq!(seen["set"], serde_json::json!([60.0, 20.5, 60.0, 20.5]));
    assert_eq!(seen["clipped"], serde_json::json!([100.0, 0.0]));
    assert_eq!((number(&seen["limit"]), number(&seen["led"])), (180.0, 50.0));
    assert_eq!(seen["garbage"], "WARP");
    assert_eq!(seen["after_garbage"], serde_json::json!([0.0, 0.0]));
    for heater in 0..2 {
        let (cold, warm) = (number(&seen["cold"][heater]), number(&seen["warm"][heater]));
        assert!(
            (22.0..28.0).contains(&cold) && warm > cold + [10.0, 1.0][heater],
            "{seen}"
        );
        assert!((number(&seen["scan"][heater]) - warm).abs() < 1.0, "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncua_reads_the_chamber_and_its_wrong_clock() {
    let clock = FastClock::new(1.0);
    let (rig, _shutdown) = rig(
        RigConfig {
            seed: 7,
            ..RigConfig::default()
        },
        &clock,
    )
    .await;
    let chamber = rig
        .devices
        .iter()
        .find(|device| device.device_id == "chamber-ctl")
        .unwrap();
    let Connection::OpcUa { url, node } = &chamber.connection else {
        panic!("{chamber:?}")
    };
    let before = clock.unix_seconds();
    let seen = python("asyncua_client.py", &[url, node, "3"]).await;
    let after = clock.unix_seconds();
    let error = chamber.clock_error.unwrap();
    let offset = error.offset_nanos as f64 / 1e9;
    assert!(
        seen["objects"].as_array().unwrap().contains(&"Chamber".into()),
        "{seen}"
    );
    assert_eq!(
        (&seen["name"], &seen["current_time_type"]),
        (&"AirTemperature".into(), &"Variable".into())
    );
    let shown = number(&seen["current_time"]) - offset;
    assert!(
        before - 0.01 < shown && shown < after + 0.01,
        "{shown} between {before} and {after}"
    );
    let values = seen["values"].as_array().unwrap();
    for pair in values.windows(2) {
        let apart = number(&pair[1][1]) - number(&pair[0][1]);
        assert!((apart - 1.0).abs() < 0.25, "samples {apart} s apart: {seen}");
    }
    for value in values {
        assert!((22.0..28.0).contains(&number(&value[0])), "{seen}");
        let stamp = number(&value[1]) - offset;
        assert!(
            before - 1.5 < stamp && stamp < after,
            "{stamp} between {before} and {after}"
        );
    }
}

/// Messages on `bench/#` as (topic, payload).
async fn messages(url: &str, count: usize) -> Vec<(String, Value)> {
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let mut command = Command::new("mosquitto_sub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-t",
        "bench/#",
        "-v",
        "-W",
        "20",
        "-C",
        &count.to_string(),
    ]);
    let text = output(command).await;
    text.lines()
        .map(|line| {
            let (topic, payload) = line.split_once(' ').unwrap();
            (topic.to_owned(), serde_json::from_str(payload).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_reads_the_embedded_broker() {
    let clock = FastClock::new(10.0);
    let (rig, _shutdown) = rig(RigConfig::default(), &clock).await;
    let before = clock.unix_seconds();
    let messages = messages(&rig.mqtt_url, 60).await;
    let after = clock.unix_seconds();
    for (device_id, topic) in [
        ("power-meter", "bench/power-meter/power"),
        ("room-sensor", "bench/room-sensor/room"),
    ] {
        let device = rig.devices.iter().find(|device| device.device_id == device_id).unwrap();
        let offset = device.clock_error.unwrap().offset_nanos as f64 / 1e9;
        let seen: Vec<&Value> = messages
            .iter()
            .filter(|message| message.0 == topic)
            .map(|message| &message.1)
            .collect();
        assert!(!seen.is_empty(), "nothing on {topic}");
        for payload in &seen {
            let stamp = number(&payload["ts"]) - offset;
            assert!(
                before - 6.0 < stamp && stamp < after + 0.1,
                "{stamp} between {before} and {after}"
            );
        }
        if device_id == "power-meter" {
            // 45 and 30 % of two heaters, and the supply's own draw.
            assert!(
                seen.iter()
                    .all(|payload| (1.6..1.9).contains(&number(&payload["power"]))),
                "{seen:?}"
            );
        } else {
            assert!(
                seen.iter()
                    .all(|payload| (35.0..47.0).contains(&number(&payload["humidity"]))),
                "{seen:?}"
            );
        }
    }
}

/// A foreign program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devices_publish_to_a_foreign_broker_even_if_it_comes_late() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("mqtt://127.0.0.1:{port}");
    let clock = FastClock::new(10.0);
    let config = RigConfig {
        mqtt_broker: Some(url.clone()),
        ..RigConfig::default()
    };
    let (rig, _shutdown) = rig(config, &clock).await;
    assert_eq!(rig.mqtt_url, url);
    let mosquitto = Command::new("mosquitto")
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap()),
        )
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("mosquitto: {error}; run `make setup`"));
    let _mosquitto = Program(mosquitto);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(messages(&url, 10).await.len(), 10);
}

/// Scans a board until it has `rows` rows, as (T1, T2, Q1, Q2) in its own digits.
async fn scan_rows(path: &Path, rows: usize) -> Vec<[String; 4]> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut port = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut answers = BufReader::new(port.try_clone().unwrap()).lines();
        (0..rows)
            .map(|_| {
                port.write_all(b"SCAN\r\n").unwrap();
                std::array::from_fn(|_| answers.next().unwrap().unwrap().trim_end().to_owned())
            })
            .collect()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_sees_every_row_of_the_recording_once_and_unaltered() {
    let clock = FastClock::new(2_000.0);
    let play = workspace("tests/fixtures/tclab-prbs.csv");
    let (rig, _shutdown) = rig(
        RigConfig {
            play: Some(play.clone()),
            ..RigConfig::default()
        },
        &clock,
    )
    .await;
    let board = &rig.devices[0];
    assert!((board.rate_hz - 1.0).abs() < 1e-9);

    let expected: Vec<[String; 4]> = std::fs::read_to_string(play)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split(',').collect();
            [3, 4, 1, 2].map(|column| columns[column].to_owned())
        })
        .collect();
    assert_eq!(expected.len(), 5_100);

    let start = clock.elapsed();
    let mut seen = scan_rows(&rig.serial_path, 100).await;
    let took = clock.elapsed() - start;
    assert!(
        took >= Duration::from_secs(99),
        "100 rows took only {took:?} of the recording's time"
    );
    seen.extend(scan_rows(&rig.serial_path, 5_000).await);
    assert_eq!(seen, expected);
    assert_eq!(rig.playback.as_ref().unwrap().borrow().rows_given, 5_100);
    assert!(!rig.playback.as_ref().unwrap().borrow().ended);

    // One read more, and the board is silent: the end is declared.
    let mut port = OpenOptions::new().write(true).open(&rig.serial_path).unwrap();
    port.write_all(b"SCAN\r\n").unwrap();
    let mut progress = rig.playback.clone().unwrap();
    let ended = progress.wait_for(|progress| progress.ended);
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap()
        .unwrap();

    // Whoever asks why it is silent is told.
    let path = rig.serial_path.clone();
    let version = tokio::task::spawn_blocking(move || {
        let mut port = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut answers = BufReader::new(port.try_clone().unwrap()).lines();
        port.write_all(b"VER\r\n").unwrap();
        answers.next().unwrap().unwrap().trim_end().to_owned()
    });
    assert_eq!(version.await.unwrap(), orrery_rig::firmware::ENDED);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_when_told_and_takes_its_link_away() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ports/tclab");
    let clock = FastClock::new(1.0);
    let config = RigConfig {
        serial_link: Some(link.clone()),
        ..RigConfig::default()
    };
    let (rig, shutdown) = rig(config, &clock).await;
    assert_eq!(rig.serial_path, link);
    assert!(link.exists());
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), rig.join())
        .await
        .unwrap()
        .unwrap();
    assert!(std::fs::symlink_metadata(&link).is_err());
}

/// Stopped and started again, the board is as warm as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_bench_with_a_folder_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let config = || RigConfig {
        folder: Some(folder.path().join("rig")),
        ..RigConfig::default()
    };
    let kept =
        || -> Value { serde_json::from_slice(&std::fs::read(folder.path().join("rig/bench.json")).unwrap()).unwrap() };
    let heater = |kept: &Value| number(&kept["temperatures"]["heaters"][0]);
    let (heated, shutdown) = rig(config(), &FastClock::new(600.0)).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    shutdown.cancel();
    heated.join().await.unwrap();
    let before = kept();
    assert!(heater(&before) > 40.0, "{before}");
    let (resumed, shutdown) = rig(config(), &FastClock::new(1.0)).await;
    shutdown.cancel();
    resumed.join().await.unwrap();
    let after = kept();
    assert!((heater(&after) - heater(&before)).abs() < 1.0, "{before} {after}");
    assert!(number(&after["steps"]) >= number(&before["steps"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_what_and_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = RigConfig::default;

    let error = refused(RigConfig {
        mqtt_port: port,
        ..config()
    })
    .await;
    assert!(
        error.contains(&format!("MQTT broker cannot listen on 127.0.0.1:{port}")),
        "{error}"
    );
    assert!(error.contains("`mqtt_port`"), "{error}");

    let error = refused(RigConfig {
        opcua_port: port,
        ..config()
    })
    .await;
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{port}")) && error.contains("`opcua_port`"),
        "{error}"
    );

    let error = refused(RigConfig {
        mqtt_broker: Some("broker:1883".to_owned()),
        ..config()
    })
    .await;
    assert!(
        error.contains("`broker:1883` is not the address of an MQTT broker"),
        "{error}"
    );

    let error = refused(RigConfig {
        play: Some("/nowhere/rows.csv".into()),
        ..config()
    })
    .await;
    assert!(error.contains("/nowhere/rows.csv"), "{error}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = refused(RigConfig {
        serial_link: Some(file.path().to_owned()),
        ..config()
    })
    .await;
    assert!(
        error.contains("is already there") && error.contains("`serial_link`"),
        "{error}"
    );
    assert!(file.path().exists());
}
