//! The service over a real journal: traces, a crash, the same bytes again, control.
#![allow(clippy::unwrap_used)] // Helpers of tests; a failed unwrap is a failed test.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use orrery_bus::{From, JournalBus, Record as BusRecord, SharedBus};
use orrery_protocol::{AlignedBlock, Clock, ManualClock, Principal, Record, SealKey, TaiNanos, topics, verify_command};
use orrery_runtime::service::{Deps, Runtime};
use orrery_runtime::{Config, Engine, EngineKind, GraphFile, replay_graph};
use support::*;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const SECOND: i64 = 1_000_000_000;

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    bus: SharedBus,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(TaiNanos(T0)));
        let shared: Arc<dyn Clock> = clock.clone();
        let bus = Arc::new(
            JournalBus::open(&folder.path().join("bus"), Default::default(), shared)
                .await
                .unwrap(),
        );
        std::fs::write(folder.path().join("twin.toml"), GRAPH).unwrap();
        std::fs::write(folder.path().join("plate.mo"), MODEL).unwrap();
        Self { folder, clock, bus }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, graphs: &[&str]) -> Arc<Runtime> {
        let config = Config {
            data: self.path("runtime"),
            graphs: graphs.iter().map(|name| self.path(name)).collect(),
            snapshot_every_ms: 0,
            ..Config::default()
        };
        let deps = Deps {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            control_key: key(),
        };
        Runtime::open(config, deps).unwrap()
    }

    async fn publish(&self, blocks: &[AlignedBlock]) {
        let records = blocks
            .iter()
            .map(|block| BusRecord::new(block.stream.as_str().to_owned(), block.encode().unwrap()))
            .collect();
        self.bus.publish(topics::ALIGNED, records).await.unwrap();
    }

    /// Everything on a topic so far.
    async fn read(&self, topic: &str) -> Vec<orrery_bus::Message> {
        let end = self
            .bus
            .end(topic)
            .await
            .unwrap()
            .iter()
            .map(|position| position.offset)
            .max()
            .unwrap_or(0);
        let mut messages = Vec::new();
        if end == 0 {
            return messages;
        }
        let mut subscription = self.bus.subscribe(topic, From::Earliest).await.unwrap();
        while messages
            .last()
            .is_none_or(|last: &orrery_bus::Message| last.offset + 1 < end)
        {
            messages.extend(subscription.next().await.unwrap());
        }
        messages
    }

    async fn traces(&self) -> Vec<Vec<u8>> {
        self.read(topics::TRACES)
            .await
            .into_iter()
            .map(|message| message.value.to_vec())
            .collect()
    }

    async fn wait_for_traces(&self, count: usize) -> Vec<Vec<u8>> {
        for _ in 0..400 {
            let traces = self.traces().await;
            if traces.len() >= count {
                return traces;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} of {count} trace rows after 10 s", self.traces().await.len());
    }
}

fn key() -> SealKey {
    SealKey::from_seed(&[3; 32])
}

fn samples(from: i64, count: i64) -> Vec<Sample> {
    (0..count)
        .map(|n| Sample {
            at: from + n * 100_000_000 + 5_000_000,
            values: vec![25.0 + n as f64 * 0.01, if n > 30 { 60.0 } else { 20.0 }],
        })
        .collect()
}

fn log(count: i64) -> Vec<AlignedBlock> {
    let end = T0 + count * 100_000_000;
    let mut blocks = vec![block(
        &air(),
        &AIR,
        &[Sample {
            at: T0 - 3 * SECOND,
            values: vec![21.0],
        }],
        0,
        end,
    )];
    blocks.extend(cut(&board(), &BOARD, &samples(T0, count), &[1], end));
    blocks
}

fn by_place(traces: &[Vec<u8>]) -> BTreeMap<(TaiNanos, u64), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for bytes in traces {
        let key = AlignedBlock::decode(bytes).unwrap().key(0);
        let earlier = rows.insert((key.time, key.sequence), bytes.clone());
        assert!(
            earlier.is_none_or(|earlier| &earlier == bytes),
            "the same row again with other bytes"
        );
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_changes_no_byte_and_a_replay_gives_the_same() {
    let bench = Bench::new().await;
    let blocks = log(100);
    bench.publish(&blocks[..50]).await;

    let first = tokio::task::JoinSet::from_iter([bench.open(&["twin.toml"]).run(CancellationToken::new())]);
    bench.wait_for_traces(40).await;
    bench.publish(&blocks[50..60]).await;
    drop(first); // No goodbye: as kill -9 leaves it, with a snapshot somewhere behind.

    let shutdown = CancellationToken::new();
    let mut second = tokio::task::JoinSet::from_iter([bench.open(&["twin.toml"]).run(shutdown.clone())]);
    bench.publish(&blocks[60..]).await;
    let rows = loop {
        let rows = by_place(&bench.wait_for_traces(1).await);
        if rows.len() >= 99 {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    shutdown.cancel();
    second.join_next().await.unwrap().unwrap().unwrap();

    let file = GraphFile::read(&bench.path("twin.toml")).unwrap();
    for kind in [EngineKind::Cranelift, EngineKind::Pulley] {
        let engine = Engine::new(kind).unwrap();
        let model = engine
            .load(&orrery_runtime::compile_file(&file.model_path).unwrap())
            .unwrap();
        let replayed = replay_graph(&file, &model, blocks.clone(), []).unwrap();
        let expected: Vec<Vec<u8>> = replayed.blocks.iter().map(|block| block.encode().unwrap()).collect();
        assert_eq!(rows.values().cloned().collect::<Vec<_>>(), expected);
        let again = replay_graph(&file, &model, blocks.clone(), replayed.blocks).unwrap();
        assert_eq!(again.digest, replayed.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_does_not_load_says_why_and_the_others_run() {
    let bench = Bench::new().await;
    std::fs::write(
        bench.path("broken.toml"),
        GRAPH
            .replace("from = \"t\"", "from = \"tt\"")
            .replace("\"twin\"", "\"broken\""),
    )
    .unwrap();
    bench.publish(&log(20)).await;
    let runtime = bench.open(&["broken.toml", "twin.toml", "absent.toml"]);
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::from_iter([runtime.clone().run(shutdown.clone())]);
    bench.wait_for_traces(19).await;
    let (_, answer) = call(&runtime, "GET", "/graphs", "").await;
    let graphs = answer["graphs"].as_array().unwrap();
    assert_eq!(graphs[0]["state"], "running");
    assert_eq!(graphs[0]["pairs"][0]["residual"], "twin/board.t_residual");
    assert!(
        graphs[1]["reason"].as_str().unwrap().contains("outputs.t.from"),
        "{graphs:?}"
    );
    assert!(
        graphs[2]["reason"].as_str().unwrap().contains("absent.toml"),
        "{graphs:?}"
    );
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_stops_its_own_graph_names_the_equation_and_revives_on_a_reset() {
    let bench = Bench::new().await;
    // Defined until the heater steps from 20 to 60 %, three seconds in.
    let broken = MODEL
        .replace("g * q", "g * sqrt(q * (30 - q))")
        .replace("Plate", "Broken");
    std::fs::write(bench.path("broken.mo"), broken).unwrap();
    let graph = GRAPH.replace("\"twin\"", "\"broken\"").replace("plate.mo", "broken.mo");
    std::fs::write(bench.path("broken.toml"), graph).unwrap();
    let mut blocks = log(50);
    bench.publish(&blocks).await;
    let runtime = bench.open(&["broken.toml", "twin.toml"]);
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::from_iter([runtime.clone().run(shutdown.clone())]);
    let until = async |wanted: &dyn Fn(&serde_json::Value) -> bool| {
        let mut graphs = serde_json::Value::Null;
        for _ in 0..400 {
            graphs = call(&runtime, "GET", "/graphs", "").await.1["graphs"].take();
            if wanted(&graphs) {
                return graphs;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("not within 10 s: {graphs}");
    };
    let graphs = until(&|graphs| graphs[0]["state"] == "failed" && graphs[1]["statistics"]["ticks"] == "49").await;
    assert_eq!(graphs[1]["state"], "running");
    let reason = graphs[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("broken.mo:9") && reason.contains("not finite"),
        "{reason}"
    );
    assert_ne!(graphs[0]["statistics"]["ticks"], "0", "earlier ticks stay valid");

    // The heater goes back, and the graph stays as it is until somebody resets it.
    let later: Vec<Sample> = (50..80)
        .map(|n| Sample {
            at: T0 + n * 100_000_000 + 5_000_000,
            values: vec![26.0, 20.0],
        })
        .collect();
    let end = T0 + 80 * 100_000_000;
    let mut more = vec![block(&air(), &AIR, &[], 0, end)];
    more.push(block(&board(), &BOARD, &later[..20], 50, T0 + 70 * 100_000_000));
    bench.publish(&more).await;
    blocks.extend(more);
    until(&|graphs| graphs[1]["statistics"]["ticks"] == "69").await;
    assert_eq!(
        call(&runtime, "GET", "/graphs", "").await.1["graphs"][0]["state"],
        "failed"
    );
    let (status, _) = call(&runtime, "POST", "/graphs/broken/reset", "").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let last = block(&board(), &BOARD, &later[20..], 70, end);
    bench.publish(std::slice::from_ref(&last)).await;
    blocks.push(last);
    until(&|graphs| graphs[0]["state"] == "running" && graphs[0]["statistics"]["runs"] == "2").await;
    until(&|graphs| graphs[1]["statistics"]["ticks"] == "79").await;
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();

    // A replay that is given the trace passes over what failed and gives the same bytes.
    let published: Vec<Vec<u8>> = (bench.traces().await.into_iter())
        .filter(|bytes| AlignedBlock::decode(bytes).unwrap().stream.device().as_str() == "broken")
        .collect();
    let file = GraphFile::read(&bench.path("broken.toml")).unwrap();
    let engine = Engine::new(EngineKind::Cranelift).unwrap();
    let model = engine
        .load(&orrery_runtime::compile_file(&file.model_path).unwrap())
        .unwrap();
    assert!(
        replay_graph(&file, &model, blocks.clone(), []).is_err(),
        "afresh it fails again"
    );
    let given: Vec<AlignedBlock> = published
        .iter()
        .map(|bytes| AlignedBlock::decode(bytes).unwrap())
        .collect();
    let replayed = replay_graph(&file, &model, blocks, given).unwrap();
    let again: Vec<Vec<u8>> = replayed.blocks.iter().map(|block| block.encode().unwrap()).collect();
    assert_eq!(again, published);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpolated_input_is_the_line_between_its_samples() {
    let bench = Bench::new().await;
    // The integral of a ramp, sampled every 300 ms, is exact on a line and late by half a sample on steps.
    let model =
        "model Sum\n  input Real u;\n  output Real x(start = 0, fixed = true);\nequation\n  der(x) = u;\nend Sum;\n";
    std::fs::write(bench.path("sum.mo"), model).unwrap();
    let graph = r#"
id = "sum"
title = "Sum"
model = "sum.mo"
tick_ms = 100
[streams."rig/board"]
gating = true
max_wait_ms = 1000
[inputs]
u = { stream = "rig/board", channel = "u", unit = "1", mode = "interpolate" }
[outputs.x]
from = "x"
unit = "s"
uncertainty = { start = 0.1, live = 0.5, settle_s = 10.0, held_per_sqrt_s = 0.2 }
"#;
    std::fs::write(bench.path("sum.toml"), graph.replace("unit = \"s\"", "unit = \"1\"")).unwrap();
    let ramp = |n: i64| Sample {
        at: T0 + n * 300_000_000,
        values: vec![n as f64 * 0.3],
    };
    let rows: Vec<Sample> = (0..11).map(ramp).collect();
    let blocks = cut(&board(), &["u"], &rows, &[1], T0 + 3_000_000_001);
    let file = GraphFile::read(&bench.path("sum.toml")).unwrap();
    let engine = Engine::new(EngineKind::Cranelift).unwrap();
    let model = engine
        .load(&orrery_runtime::compile_file(&file.model_path).unwrap())
        .unwrap();
    let replayed = replay_graph(&file, &model, blocks, []).unwrap();
    let last = replayed.blocks.last().unwrap();
    let seconds = (last.time(0).0 - T0) as f64 / 1e9;
    assert!(seconds > 2.5, "{seconds}");
    let x = last.value("x", 0).unwrap();
    assert!((x - seconds * seconds / 2.0).abs() < 1e-9, "{x} after {seconds} s");
    // However the rows are cut, the same bytes.
    let whole = cut(&board(), &["u"], &rows, &[4, 7], T0 + 3_000_000_001);
    assert_eq!(replay_graph(&file, &model, whole, []).unwrap().digest, replayed.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heater_is_changed_behind_its_interlocks() {
    let bench = Bench::new().await;
    let runtime = bench.open(&["twin.toml"]);
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::from_iter([runtime.clone().run(shutdown.clone())]);
    // Control hears only what comes after it started; repeat until it did.
    let mut answer = serde_json::Value::Null;
    let blocks = log(20);
    bench.clock.advance(Duration::from_secs(2));
    for _ in 0..100 {
        bench.publish(&blocks).await;
        (_, answer) = call(&runtime, "GET", "/control", "").await;
        if answer["interlocks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|report| report["ok"] == true)
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(answer["channels"][0]["value"], 20.0, "{answer}");
    assert_eq!(answer["interlocks"][0]["margin"], "34.8 °C spare", "{answer}");
    let limit = serde_json::json!({ "max": 60.0, "unit": "Cel" });
    assert_eq!(answer["interlocks"][0]["limit"], limit, "{answer}");
    assert_eq!(answer["interlocks"][0]["channels"], serde_json::json!(["rig/board.t"]));
    assert_eq!(answer["interlocks"][1]["channels"], serde_json::json!(["twin/board.t"]));
    assert_eq!(answer["interlocks"][2]["limit"], serde_json::Value::Null);

    let change = |value: f64| format!(r#"{{"changes":[{{"device":"rig","channel":"q","value":{value}}}]}}"#);
    let (status, answer) = call(&runtime, "POST", "/control/review", &change(50.0)).await;
    assert_eq!(
        (status, answer["type"].as_str()),
        (StatusCode::CONFLICT, Some("urn:orrery:no-lease"))
    );
    let (status, _) = call(&runtime, "POST", "/control/lease", "").await;
    assert_eq!(status, StatusCode::OK);
    let (_, review) = call(&runtime, "POST", "/control/review", &change(30.0)).await;
    assert_eq!(review["allowed"], true, "{review}");
    assert_eq!(
        (&review["changes"][0]["from"], &review["changes"][0]["to"]),
        (&20.0.into(), &30.0.into())
    );
    assert!(
        review["prediction"].as_str().unwrap().starts_with("T reaches"),
        "{review}"
    );

    // 0.01·80/0.02 = 40 °C above ambient: the twin passes 60 °C within ten minutes.
    let (_, refused) = call(&runtime, "POST", "/control/review", &change(80.0)).await;
    assert_eq!(refused["allowed"], false);
    let (status, refused) = call(
        &runtime,
        "POST",
        "/control/set",
        r#"{"device":"rig","channel":"q","value":80}"#,
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused["detail"].as_str().unwrap().contains("T reaches 61.0 °C"),
        "{refused}"
    );
    let (status, refused) = call(
        &runtime,
        "POST",
        "/control/set",
        r#"{"device":"rig","channel":"q","value":81}"#,
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused["detail"].as_str().unwrap().contains("choose 0 to 80 %"),
        "{refused}"
    );
    // A good change beside a bad one is not sent either.
    for bad in [
        r#"{"device":"rig","channel":"p","value":1}"#,
        r#"{"device":"rig","channel":"q","value":20}"#,
        r#"{"device":"rig","channel":"q","value":81}"#,
    ] {
        let published = bench.bus.end(topics::CONTROL).await.unwrap();
        let body = format!(r#"{{"changes":[{{"device":"rig","channel":"q","value":10}},{bad}]}}"#);
        let (status, refused) = call(&runtime, "POST", "/control/set", &body).await;
        assert!(status.is_client_error(), "{refused}");
        assert_eq!(
            bench.bus.end(topics::CONTROL).await.unwrap(),
            published,
            "{bad}: {refused}"
        );
    }
    let (status, refused) = call(
        &runtime,
        "POST",
        "/control/set",
        r#"{"device":"rig","channel":"p","value":1}"#,
    )
    .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(refused["detail"].as_str().unwrap().contains("rig/q"), "{refused}");

    let (status, refused) = call(
        &runtime,
        "POST",
        "/control/set",
        r#"{"device":"rig","channel":"q","value":10,"hold_s":-1}"#,
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["detail"].as_str().unwrap().contains("hold_s of rig/q is -1"),
        "{refused}"
    );
    let held = r#"{"changes":[{"device":"rig","channel":"q","value":30,"hold_s":600}]}"#;
    let (_, review) = call(&runtime, "POST", "/control/review", held).await;
    assert_eq!(review["changes"][0]["hold_s"], 600.0);

    let send = format!(r#"{{"review_id":{}}}"#, review["review_id"]);
    let (status, sent) = call(&runtime, "POST", "/control/send", &send).await;
    assert_eq!(status, StatusCode::OK, "{sent}");
    assert_eq!(sent["commands"][0]["status"], "accepted");
    let (status, _) = call(&runtime, "POST", "/control/send", &send).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "a review is sent once");

    let id = sent["commands"][0]["id"].as_str().unwrap().to_owned();
    let commands = bench.read(topics::CONTROL).await;
    let command = verify_command(&commands[0].value, &key().public()).unwrap();
    assert_eq!(
        (
            command.id.as_str(),
            command.value,
            command.issuer_epoch,
            command.issuer_sequence
        ),
        (id.as_str(), 30.0, 1, 0)
    );
    let until = bench.clock.wall().plus(Duration::from_secs(600));
    assert_eq!(command.hold_until, Some(until), "the clock stands still in this test");
    assert_eq!(sent["commands"][0]["hold_until"], until.to_rfc3339());
    let records = bench.read(topics::PROVENANCE).await;
    let record = Record::decode(&records.last().unwrap().value).unwrap();
    assert_eq!(record.predicate["principal"], "operator");

    bench.publish(&[ack(&id)]).await;
    for _ in 0..100 {
        let (_, answer) = call(&runtime, "GET", &format!("/control/commands/{id}"), "").await;
        if answer["status"] == "applied" {
            assert_eq!(answer["value"], 30.0);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, answer) = call(&runtime, "GET", &format!("/control/commands/{id}"), "").await;
    assert_eq!(answer["status"], "applied", "{answer}");

    let (_, review) = call(&runtime, "POST", "/control/review", &change(30.0)).await;
    bench.clock.advance(Duration::from_secs(31));
    let (status, _) = call(
        &runtime,
        "POST",
        "/control/send",
        &format!(r#"{{"review_id":{}}}"#, review["review_id"]),
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT, "a review ends after 30 s");
    // The board has been silent for half a minute: only "off" still goes out.
    let (status, refused) = call(
        &runtime,
        "POST",
        "/control/set",
        r#"{"device":"rig","channel":"q","value":1}"#,
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("The last reading of rig/board.t is 3"),
        "{refused}"
    );
    let (_, answer) = call(&runtime, "GET", "/control", "").await;
    let channel = &answer["channels"][0];
    assert_eq!((&channel["graph"], &channel["input"]), (&"twin".into(), &"q".into()));
    let failed = |id: &str| {
        let reports = answer["interlocks"].as_array().unwrap();
        reports.iter().any(|report| report["id"] == id && report["ok"] == false)
    };
    assert!(failed("limit") && failed("answers"), "{answer}");
    let (status, refused) = call(&runtime, "POST", "/control/off", r#"{"device":"gir"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    let (status, sent) = call(&runtime, "POST", "/control/off", r#"{"device":"rig"}"#).await;
    assert_eq!((status, &sent["commands"][0]["value"]), (StatusCode::OK, &0.0.into()));
    let (status, sent) = call(&runtime, "POST", "/control/off", "").await;
    assert_eq!((status, &sent["commands"][0]["value"]), (StatusCode::OK, &0.0.into()));
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();

    let again = bench.open(&["twin.toml"]);
    again.control().off(None, "operator").await.unwrap();
    let last = bench.read(topics::CONTROL).await.pop().unwrap();
    assert_eq!(
        verify_command(&last.value, &key().public()).unwrap().issuer_epoch,
        2,
        "the epoch rises with each start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_not_there_is_named() {
    let bench = Bench::new().await;
    let graph = GRAPH.replace("channel = \"q\", unit", "channel = \"q1\", unit");
    std::fs::write(bench.path("typo.toml"), graph).unwrap();
    let wanted = "stream `rig/board` has no channel `q1`, it has t, q; correct the graph's binding";
    let file = GraphFile::read(&bench.path("typo.toml")).unwrap();
    let compiled = orrery_runtime::compile_file(&file.model_path).unwrap();
    let model = Engine::new(EngineKind::Cranelift).unwrap().load(&compiled).unwrap();
    let error = replay_graph(&file, &model, log(20), []).unwrap_err().to_string();
    assert_eq!(error, format!("graph `twin` never ran: {wanted}"));
    let error = replay_graph(&file, &model, [], []).unwrap_err().to_string();
    assert!(error.contains("waiting for a first row of rig/board"), "{error}");

    bench.publish(&log(20)).await;
    let runtime = bench.open(&["typo.toml"]);
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::from_iter([runtime.clone().run(shutdown.clone())]);
    let mut answer = serde_json::Value::Null;
    for _ in 0..200 {
        (_, answer) = call(&runtime, "GET", "/graphs", "").await;
        if answer["graphs"][0]["reason"] == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(answer["graphs"][0]["reason"], wanted);
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ahead_is_the_future_that_comes() {
    let bench = Bench::new().await;
    let runtime = bench.open(&["twin.toml"]);
    let shutdown = CancellationToken::new();
    let mut running = tokio::task::JoinSet::from_iter([runtime.clone().run(shutdown.clone())]);
    let blocks = log(200);
    bench.publish(&blocks[..101]).await;
    bench.wait_for_traces(99).await;
    // A row is published a moment before the graph can look ahead from it.
    let mut ahead = serde_json::Value::Null;
    for _ in 0..200 {
        let (status, answer) = call(&runtime, "GET", "/graphs/twin/forecast?horizon_s=5", "").await;
        ahead = answer;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, what_if) = call(
        &runtime,
        "POST",
        "/graphs/twin/what-if",
        r#"{"set":{"q":0},"horizon_s":5}"#,
    )
    .await;
    let (status, wrong) = call(&runtime, "POST", "/graphs/twin/what-if", r#"{"set":{"q3":0}}"#).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        wrong["detail"].as_str().unwrap().contains("`q3` is not an input"),
        "{wrong}"
    );

    bench.publish(&blocks[101..]).await;
    let rows = bench.wait_for_traces(199).await;
    let at_end = ahead["summary"]["t"]["at_end"].as_f64().unwrap();
    let t_ms = ahead["channels"]["t"]["t"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_f64()
        .unwrap();
    let came = rows
        .iter()
        .map(|bytes| AlignedBlock::decode(bytes).unwrap())
        .find(|block| (block.time(0).to_unix_millis() - t_ms).abs() < 1.0);
    let came = came.unwrap().value("t", 0).unwrap();
    assert!((came - at_end).abs() < 1e-6, "{came} came, {at_end} was said");
    assert!(what_if["summary"]["t"]["at_end"].as_f64().unwrap() < at_end);
    let sd = ahead["channels"]["t"]["sd"].as_array().unwrap();
    assert!(sd[5].as_f64() > sd[0].as_f64());
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

fn ack(id: &str) -> AlignedBlock {
    use arrow_array::{ArrayRef, Float64Array, StringArray};
    use arrow_schema::{DataType, Field};
    let text = |name: &str, value: &str| -> (Arc<Field>, ArrayRef) {
        (
            Arc::new(Field::new(name, DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![value])),
        )
    };
    let value: (Arc<Field>, ArrayRef) = (
        Arc::new(Field::new("value", DataType::Float64, true)),
        Arc::new(Float64Array::from(vec![30.0])),
    );
    let mut acks = block(
        &orrery_protocol::StreamId::new("rig/acks").unwrap(),
        &[],
        &[Sample { at: T0, values: vec![] }],
        0,
        T0 + 1,
    );
    let columns = vec![
        text("command_id", id),
        text("channel", "q"),
        text("status", "applied"),
        value,
        text("reason", ""),
    ];
    acks.batch = AlignedBlock::batch(
        vec![T0],
        vec![0],
        orrery_protocol::BootId([9; 16]),
        vec![0],
        vec![0],
        columns,
    )
    .unwrap();
    acks
}

async fn call(runtime: &Arc<Runtime>, method: &str, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .extension(Principal::operator())
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = runtime.routes().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null),
    )
}

#[test]
fn a_model_is_one_digest_wherever_its_file_lies() {
    let digest = |folder: &Path| {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("plate.mo"), MODEL).unwrap();
        let compiled = orrery_runtime::compile_file(&folder.join("plate.mo")).unwrap();
        orrery_protocol::Digest::of(&compiled.wasm)
    };
    let temporary = tempfile::tempdir().unwrap();
    assert_eq!(
        digest(&temporary.path().join("here")),
        digest(&temporary.path().join("there/deeper"))
    );
}

#[test]
fn the_shipped_graph_fits_the_shipped_model() {
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/graphs/twin.toml");
    orrery_runtime::load(&graph, &Engine::new(EngineKind::Cranelift).unwrap())
        .map(drop)
        .unwrap();
}
