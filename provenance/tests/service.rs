//! The service on a real journal: once each, over crashes, and honest about what it knows.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use orrery_bus::journal::JournalOptions;
use orrery_bus::{From, JournalBus, Record as BusRecord, SharedBus};
use orrery_protocol::{ManualClock, Record, RecordKind, SealKey, TaiNanos, topics};
use orrery_provenance::{Config, Deps, Handle, LogError, State, routes, run, verify_dir};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(TaiNanos(1_800_000_000_000_000_000)))
}

async fn bus(folder: &Path) -> SharedBus {
    Arc::new(
        JournalBus::open(&folder.join("bus"), JournalOptions::default(), clock())
            .await
            .unwrap(),
    )
}

fn config(folder: &Path) -> Config {
    Config {
        folder: folder.join("provenance"),
        check_interval_ms: 10,
        ..Config::default()
    }
}

fn key() -> SealKey {
    SealKey::from_seed(&[5; 32])
}

fn statement(n: u64) -> BusRecord {
    let predicate = serde_json::json!({ "n": n });
    let record = Record {
        kind: RecordKind::Command,
        subject: Vec::new(),
        predicate,
        at: TaiNanos(1_800_000_000_000_000_000),
    };
    BusRecord::new("command", record.encode())
}

struct Running {
    handle: Handle,
    shutdown: CancellationToken,
    tasks: tokio::task::JoinSet<Result<(), orrery_provenance::Error>>,
}

impl Running {
    async fn start(folder: &Path, bus: SharedBus) -> Self {
        let handle = loop {
            match Handle::open(&config(folder), key()) {
                // What a killed service had handed to the disk still has the folder.
                Err(LogError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => break opened.unwrap(),
            }
        };
        let shutdown = CancellationToken::new();
        let deps = Deps {
            bus,
            clock: clock(),
            handle: handle.clone(),
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(config(folder), deps, shutdown.clone()));
        Self {
            handle,
            shutdown,
            tasks,
        }
    }

    async fn until(&self, wanted: impl Fn(&Handle) -> bool) {
        let wait = async {
            while !wanted(&self.handle) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("the service gets there");
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    /// As a kill: the task is gone between two polls.
    async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn get(handle: &Handle, path: &str) -> (StatusCode, Vec<u8>) {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let response = routes(handle.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    (
        status,
        axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap()
            .to_vec(),
    )
}

async fn json(handle: &Handle, path: &str) -> Value {
    let (status, body) = get(handle, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path()).await;
    let mut service = Running::start(folder.path(), Arc::clone(&bus)).await;
    service.until(|handle| handle.status().state == State::Proved).await;
    // A folder where the next state is to be written: no process can write there.
    let blocked = folder.path().join("provenance/state.json.new");
    std::fs::create_dir(&blocked).unwrap();
    for n in 0..3 {
        bus.publish(topics::PROVENANCE, vec![statement(n)]).await.unwrap();
    }
    service.until(|handle| handle.status().state == State::Behind).await;
    let ended = tokio::time::timeout(Duration::from_millis(600), service.tasks.join_next()).await;
    assert!(ended.is_err(), "the service goes on: {ended:?}");
    assert_eq!(service.handle.log().size(), 0);
    std::fs::remove_dir(&blocked).unwrap();
    service
        .until(|handle| handle.log().size() == 3 && handle.status().state == State::Proved)
        .await;
    service.stop().await;
    assert!(
        verify_dir(&folder.path().join("provenance"), None, None)
            .unwrap()
            .is_proved()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_enter_the_log_once_over_restarts_and_kills() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path()).await;
    let mut published = 0;
    for round in 0..6 {
        let service = Running::start(folder.path(), Arc::clone(&bus)).await;
        for _ in 0..20 {
            bus.publish(topics::PROVENANCE, vec![statement(published)])
                .await
                .unwrap();
            published += 1;
        }
        if round % 2 == 0 {
            service.kill().await;
        } else {
            service
                .until(|handle| handle.log().size() == published && handle.status().state == State::Proved)
                .await;
            service.stop().await;
        }
    }
    let service = Running::start(folder.path(), Arc::clone(&bus)).await;
    service.until(|handle| handle.log().size() >= published).await;
    let entries = service.handle.log().entries(0, 1_000).unwrap();
    let numbers: Vec<u64> = entries
        .iter()
        .map(|entry| Record::decode(&entry.bytes).unwrap().predicate["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..published).collect::<Vec<_>>());
    service.stop().await;
    assert!(
        verify_dir(&folder.path().join("provenance"), Some(&key().public()), None)
            .unwrap()
            .is_proved()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_statement_goes_to_the_dead_letters_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path()).await;
    bus.publish(topics::PROVENANCE, vec![BusRecord::new("x", "garbage"), statement(1)])
        .await
        .unwrap();
    let service = Running::start(folder.path(), Arc::clone(&bus)).await;
    service.until(|handle| handle.status().state == State::Proved).await;
    assert_eq!(service.handle.log().size(), 1);
    assert_eq!(service.handle.status().refused, 1);
    let dead = bus
        .subscribe(topics::DEADLETTER, From::Earliest)
        .await
        .unwrap()
        .next()
        .await
        .unwrap();
    assert_eq!(dead[0].value, "garbage");
    assert!(dead[0].header("orrery_reason").unwrap().contains("provenance record"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_show_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path()).await;
    bus.publish(topics::PROVENANCE, (0..5).map(statement).collect())
        .await
        .unwrap();
    let service = Running::start(folder.path(), bus).await;
    service.until(|handle| handle.status().state == State::Proved).await;
    let handle = &service.handle;
    let status = json(handle, "/provenance/status").await;
    assert_eq!(status["size"], "5");
    assert_eq!(status["state"], "proved");
    assert_eq!(status["until"], TaiNanos(1_800_000_000_000_000_000).to_rfc3339());
    assert_eq!(status["root"], hex::encode(handle.log().root()));
    let moment = json(handle, "/provenance?at=2027-01-15T08:00:00Z").await;
    assert_eq!((&moment["size"], &moment["head"]["size"]), (&"5".into(), &"5".into()));
    assert_eq!(moment["root"], hex::encode(handle.log().root()));
    assert_eq!(moment["verified"], TaiNanos(1_800_000_000_000_000_000).to_rfc3339());
    let before = json(handle, "/provenance?at=2020-01-01T00:00:00Z").await;
    assert_eq!(
        (&before["size"], before["models"].as_array().unwrap().len()),
        (&"0".into(), 0)
    );
    assert_eq!(before["head"], moment["head"]);
    assert_eq!(json(handle, "/provenance").await["root"], moment["root"]);
    let (_, note) = get(handle, "/provenance/checkpoint").await;
    assert_eq!(note, handle.log().checkpoint().as_bytes());
    let proof = json(handle, "/provenance/proof?index=3").await;
    assert_eq!(proof["proof"].as_array().unwrap().len(), 3);
    let consistency = json(handle, "/provenance/consistency?from=2&to=5").await;
    assert_eq!(consistency["to"], "5");
    let page = json(handle, "/provenance/entries?from=1&limit=2").await;
    assert_eq!(page["entries"][0]["index"], "1");
    assert_eq!(page["entries"][0]["statement"]["predicate"]["statement"]["n"], 1);
    assert_eq!(page["next"], "3");
    assert_eq!(json(handle, "/provenance/entries?from=3").await["next"], Value::Null);
    let (_, tile) = get(handle, "/provenance/tile/0/000.p/5").await;
    assert_eq!(tile.len(), 5 * 32);
    let (_, bundle) = get(handle, "/provenance/tile/entries/000.p/5").await;
    assert_eq!(
        bundle,
        std::fs::read(folder.path().join("provenance/tile/entries/000")).unwrap()
    );
    for (path, expected) in [
        ("/provenance/proof?index=5", StatusCode::NOT_FOUND),
        ("/provenance/consistency?from=4&to=2", StatusCode::NOT_FOUND),
        ("/provenance/tile/0/000", StatusCode::NOT_FOUND),
        ("/provenance/proof?index=x", StatusCode::BAD_REQUEST),
        ("/provenance?at=yesterday", StatusCode::BAD_REQUEST),
    ] {
        let (status, body) = get(handle, path).await;
        assert_eq!(status, expected, "{path}");
        assert!(serde_json::from_slice::<Value>(&body).unwrap()["detail"].is_string());
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_verify_is_shown_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path()).await;
    bus.publish(topics::PROVENANCE, (0..5).map(statement).collect())
        .await
        .unwrap();
    let service = Running::start(folder.path(), Arc::clone(&bus)).await;
    service.until(|handle| handle.log().size() == 5).await;
    service.stop().await;
    let path = folder.path().join("provenance/tile/entries/000");
    let mut bundle = std::fs::read(&path).unwrap();
    bundle[10] ^= 4;
    std::fs::write(&path, &bundle).unwrap();
    bus.publish(topics::PROVENANCE, vec![statement(5)]).await.unwrap();
    let service = Running::start(folder.path(), bus).await;
    service.until(|handle| handle.status().state == State::Mismatch).await;
    assert!(service.handle.status().why.unwrap().contains("record 0"));
    assert_eq!(service.handle.log().size(), 5);
    assert_eq!(json(&service.handle, "/provenance/status").await["state"], "mismatch");
    service.stop().await;
}
