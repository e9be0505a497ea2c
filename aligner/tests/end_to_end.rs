//! From sealed envelopes on the real journal to SQL rows and digests, through restarts, holes and forgeries.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Agent, Bench, SECOND, START, everything, sql_rows};
use orrery_aligner::{ReplayRequest, Store};
use orrery_bus::From;
use orrery_protocol::{
    AckPayload, AckStatus, AlignedBlock, Chain, Channel, ClockId, Digest, LossPayload, MonoNanos, PayloadType, SealKey,
    StreamId, TaiNanos, topics,
};
use serde_json::json;

#[tokio::test]
async fn sealed_samples_become_rows_watermarks_and_a_digest() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(folder.path()).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    let mut aligned = bench.bus.subscribe(topics::ALIGNED, From::Earliest).await.unwrap();
    bench.send(&agent.session(5)).await;
    bench.rows(&agent.stream(), 50).await;

    let rows = bench.sql("SELECT time, time_tai, time_uncertainty, sequence, \"index\", t1, q1 FROM aligned.\"tclab-01/board\" ORDER BY time_tai LIMIT 2").await;
    assert_eq!(rows.len(), 2);
    let tai: i64 = rows[0]["time_tai"].as_str().unwrap().parse().unwrap();
    assert!(
        (tai - START - 3 * SECOND).abs() < 100_000,
        "aligned by the host clock: {tai}"
    );
    assert_eq!(rows[0]["t1"], json!(3.0));
    assert_eq!(rows[0]["q1"], json!(103.0));
    assert_eq!(rows[0]["time"], json!(TaiNanos(tai).to_rfc3339()));
    assert_eq!(rows[1]["index"], json!(1));

    let raw = bench
        .sql("SELECT payload_type, count(*) AS n FROM raw.envelopes GROUP BY 1 ORDER BY 1")
        .await;
    let raw: Vec<_> = raw
        .iter()
        .map(|row| (row["payload_type"].as_str().unwrap(), row["n"].as_str().unwrap()))
        .collect();
    assert_eq!(
        raw,
        [
            ("clock", "3"),
            ("descriptor", "1"),
            ("heartbeat", "5"),
            ("samples", "5")
        ]
    );
    let (first, rows) = bench.digest().await;
    assert_eq!((bench.digest().await, rows), ((first, 50), 50));

    // The stream travels in order with rising watermarks, and each block names the revision that holds it.
    let (mut seen, mut watermark) = (0, TaiNanos(i64::MIN));
    while seen < 50 || watermark.0 < START + 8 * SECOND - SECOND / 100 {
        for message in aligned.next().await.unwrap() {
            let block = AlignedBlock::decode(&message.value).unwrap();
            assert!(block.watermark >= watermark);
            (seen, watermark) = (seen + block.len(), block.watermark);
            assert!(block.revision >= 1);
        }
    }
    let devices = bench.handle.clone();
    let body = get(&devices, "/devices").await;
    assert_eq!(body["devices"][0]["device_id"], "tclab-01");
    assert_eq!(body["devices"][0]["clock"]["kind"], "host");
    assert!(
        (body["devices"][0]["rate"]["observed_hz"].as_f64().unwrap() - 10.0).abs() < 0.01,
        "{body}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn routes_answer_in_every_format_and_refuse_with_problems() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(folder.path()).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    bench.send(&agent.session(3)).await;
    bench.rows(&agent.stream(), 30).await;
    let handle = bench.handle.clone();

    let streams = get(&handle, "/streams").await;
    assert_eq!(streams["streams"][0]["stream"], "tclab-01/board");
    assert_eq!(streams["streams"][0]["rows"], "30");
    let from_ms = TaiNanos(START).to_unix_millis();
    let path = format!(
        "/streams/tclab-01/board/window?from_ms={from_ms}&to_ms={}&columns=4",
        from_ms + 10_000.0
    );
    let window = get(&handle, &path).await;
    assert_eq!(window["bucketed"], true);
    let points = window["channels"]["t1"]["v"].as_array().unwrap();
    assert!((4..=16).contains(&points.len()), "{window}");
    let path = format!("/presence?from_ms={from_ms}&to_ms={}&columns=10", from_ms + 10_000.0);
    let presence = get(&handle, &path).await;
    assert_eq!(presence["devices"]["tclab-01"], json!([0, 0, 0, 1, 1, 1, 0, 0, 0, 0]));

    // Wider than all of time, and still a window.
    for path in ["/presence", "/streams/tclab-01/board/window"] {
        get(&handle, &format!("{path}?from_ms=-1e300&to_ms=1e300&columns=10")).await;
    }

    let digest = get(&handle, "/replay?format=digest").await;
    assert_eq!(
        (digest["rows"].as_str(), digest["digest"].as_str()),
        (Some("30"), Some(bench.digest().await.0.as_str()))
    );
    let text = get_text(&handle, "/replay?format=csv&streams=tclab-01/board").await;
    assert_eq!(text.lines().count(), 31);
    assert_eq!(
        text.lines().next(),
        Some("stream,time,time_tai,time_uncertainty,boot_id,sequence,index,t1,q1")
    );
    let at = TaiNanos(START + 4 * SECOND + SECOND / 2).to_rfc3339();
    let seek = get(&handle, &format!("/seek?time={at}")).await;
    assert_eq!(seek["streams"]["tclab-01/board"]["t1"], json!(4.5), "{seek}");
    let status = get(&handle, "/aligner/status").await;
    assert_eq!(
        (status["lag"].as_str(), status["counters"]["accepted"].as_str()),
        (Some("0"), Some("10"))
    );

    let (code, problem) = request(&handle, "GET", "/replay?streams=tclab-01/bord", None).await;
    assert_eq!(code, 404);
    assert!(problem.contains("did you mean `tclab-01/board`"), "{problem}");
    let (_, problem) = request(&handle, "GET", "/replay?streams=nosuch/x", None).await;
    assert!(
        problem.contains("stream list") && !problem.contains("did you mean"),
        "{problem}"
    );
    for (sql, expected) in [
        (
            "SELECT * FROM aligned.\"tclab-01/bord\"",
            "did you mean aligned.\\\"tclab-01/board\\\"",
        ),
        ("DROP TABLE raw.envelopes", "read-only"),
        ("INSERT INTO raw.envelopes VALUES (1)", "read-only"),
        ("COPY raw.envelopes TO '/tmp/x.csv'", "read-only"),
        (
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "read-only",
        ),
        ("SELECT nope FROM raw.envelopes", "nope"),
        ("SELEC", "SELEC"),
    ] {
        let body = json!({ "sql": sql }).to_string();
        let (code, problem) = request(&handle, "POST", "/query", Some(body)).await;
        assert_eq!(code, 400, "{sql}: {problem}");
        assert!(problem.contains(expected), "{sql}: {problem}");
    }
    for (format, start) in [
        ("csv", "n\n30\n"),
        ("ndjson", "{\"n\":\"30\"}\n"),
        ("table", " n\n30\n"),
        ("json", "[\n{\"n\":\"30\"}]\n"),
    ] {
        let body = json!({ "sql": "SELECT count(*) AS n FROM \"tclab-01/board\"", "format": format }).to_string();
        let (code, text) = request(&handle, "POST", "/query", Some(body)).await;
        assert_eq!((code, text.as_str()), (200, start));
    }
    // Enrolling: the same key again is fine, another one is a conflict, a bad one is refused.
    let body = |key: &SealKey| {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public().as_bytes());
        json!({ "device_id": "tclab-01", "public_key": key }).to_string()
    };
    assert_eq!(
        request(&handle, "POST", "/devices", Some(body(&agent.key))).await.0,
        200
    );
    assert_eq!(
        request(&handle, "POST", "/devices", Some(body(&SealKey::from_seed(&[9; 32]))))
            .await
            .0,
        409
    );
    let wrong = json!({ "device_id": "tclab-01", "public_key": "AAAA" }).to_string();
    assert_eq!(request(&handle, "POST", "/devices", Some(wrong)).await.0, 400);
    // Revoking answers the device; twice is as good as once.
    let key = agent.key.key_id();
    let path = format!("/devices/tclab-01/keys/{key}/revoke");
    for _ in 0..2 {
        let (code, text) = request(&handle, "POST", &path, None).await;
        assert_eq!(code, 200, "{text}");
        let device: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&device["device_id"], &device["keys"][0]["state"]),
            (&json!("tclab-01"), &json!("revoked"))
        );
    }
    for (path, expected) in [
        (format!("/devices/nosuch/keys/{key}/revoke"), 404),
        ("/devices/tclab-01/keys/00ff/revoke".to_owned(), 404),
        ("/devices/tclab-01/keys/key/revoke".to_owned(), 400),
    ] {
        assert_eq!(request(&handle, "POST", &path, None).await.0, expected, "{path}");
    }
    let (code, problem) = request(&handle, "POST", "/devices", Some(body(&agent.key))).await;
    assert_eq!(code, 409, "{problem}");
    let records = bench.bus.end(topics::PROVENANCE).await.unwrap();
    assert!(!records.is_empty());
    let openapi = serde_json::to_value(orrery_aligner::openapi()).unwrap();
    assert!(openapi["paths"]["/api/v1/query"]["post"].is_object());
    bench.stop().await;
}

#[tokio::test]
async fn a_kill_between_any_two_messages_loses_and_repeats_nothing() {
    let expected = {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(folder.path()).await;
        let mut agent = Agent::board();
        bench.enrol(&agent).await;
        bench.send(&agent.session(40)).await;
        bench.rows(&agent.stream(), 400).await;
        let digest = bench.digest().await;
        bench.stop().await;
        digest
    };
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::board();
    let sealed = agent.session(40);
    for (at, piece) in sealed.chunks(7).enumerate() {
        let bench = Bench::with(folder.path(), |config| config.commit_ms = 3).await;
        bench.enrol(&agent).await;
        bench.send(piece).await;
        tokio::time::sleep(Duration::from_millis((at as u64 * 5) % 23)).await;
        bench.kill().await;
    }
    let bench = Bench::open(folder.path()).await;
    bench.rows(&agent.stream(), 400).await;
    assert_eq!(bench.digest().await, expected);
    // Everything again, as a spool that lost its acknowledgements would: nothing changes.
    bench.send(&sealed).await;
    let mut last = agent.samples(100 * SECOND, SECOND / 10, 1);
    bench.send(std::slice::from_ref(&last)).await;
    bench.rows(&agent.stream(), 401).await;
    let status = bench.handle.clone();
    assert_eq!(
        get(&status, "/aligner/status").await["counters"]["duplicates"],
        json!(sealed.len().to_string())
    );
    last.bytes.clear();
    // What a kill leaves is what lies there now: the last commits still stand in the write-ahead log.
    let left = tempfile::tempdir().unwrap();
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        std::fs::copy(folder.path().join(file), left.path().join(file)).unwrap();
    }
    bench.kill().await;

    // The stopped folder reads the same, and reading writes nothing.
    let folder = left;
    let before = snapshot(folder.path());
    let store = Store::open_read_only(folder.path()).await.unwrap();
    let replay = store
        .replay(&ReplayRequest {
            to: TaiNanos(START + 90 * SECOND),
            ..everything()
        })
        .unwrap();
    let (digest, rows) = replay.digest().await.unwrap();
    assert_eq!((digest.to_string(), rows), expected);
    assert_eq!(
        sql_rows(&store, "SELECT count(*) AS n FROM \"tclab-01/board\"")
            .await
            .unwrap(),
        [json!({"n": "401"})]
    );
    assert_eq!(snapshot(folder.path()), before);
}

#[tokio::test]
async fn what_must_not_come_in_is_named_counted_and_kept_as_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(folder.path()).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    let mut dead = bench.bus.subscribe(topics::DEADLETTER, From::Earliest).await.unwrap();
    let session = agent.session(2);
    bench.send(&session).await;

    // Forged: another key under this name. Altered: one bit. Truncated. Garbage. Unknown. Equivocation. Replayed.
    let mut thief = Chain::start(agent.id.clone(), agent.chain.boot_id(), None);
    let forged = thief
        .seal(&SealKey::from_seed(&[66; 32]), TaiNanos(START), PayloadType::Log, b"x")
        .unwrap();
    bench.send(&[forged]).await;
    let mut altered = session[5].bytes.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    bench.send_bytes(altered).await;
    bench.send_bytes(session[5].bytes[..100].to_vec()).await;
    bench.send_bytes(b"not an envelope".to_vec()).await;
    let mut stranger = Agent::new("stranger", "s", vec![Channel::f64("x", "1")]);
    bench.send(&[stranger.announce()]).await;
    let mut twin = Chain::start(agent.id.clone(), agent.chain.boot_id(), None);
    let double = twin
        .seal(&agent.key, TaiNanos(START), PayloadType::Log, b"another first envelope")
        .unwrap();
    bench.send(std::slice::from_ref(&double)).await;
    bench.send(&session[4..5]).await;

    let mut verdicts: Vec<String> = Vec::new();
    while verdicts.len() < 7 {
        for message in dead.next().await.unwrap() {
            assert!(!message.header("orrery-reason").unwrap().is_empty());
            verdicts.push(message.header("orrery-verdict").unwrap().to_owned());
        }
    }
    // The flipped bit may land in the structure or under the signature.
    verdicts[1] = verdicts[1].replace("garbage", "forged");
    assert_eq!(
        verdicts,
        [
            "forged",
            "forged",
            "garbage",
            "garbage",
            "unknown_device",
            "equivocations",
            "duplicates"
        ]
    );
    bench.rows(&agent.stream(), 20).await;
    let raw = bench
        .sql("SELECT verdict, digest FROM raw.envelopes WHERE verdict <> 'accepted'")
        .await;
    assert_eq!(
        raw,
        [json!({"verdict": "equivocations", "digest": double.digest.to_string()})]
    );
    let bytes = bench
        .sql("SELECT bytes, digest FROM raw.envelopes WHERE sequence = 5 AND verdict = 'accepted'")
        .await;
    use base64::Engine as _;
    let archived = base64::engine::general_purpose::STANDARD
        .decode(bytes[0]["bytes"].as_str().unwrap())
        .unwrap();
    assert_eq!(archived, session[5].bytes, "archived byte-exact");
    assert_eq!(bytes[0]["digest"], json!(Digest::of(&archived).to_string()));

    // A revoked key's envelopes are kept apart.
    assert!(bench.handle.revoke(agent.id.clone(), agent.key.key_id()).await.unwrap());
    bench.send(&[agent.heartbeat(60 * SECOND)]).await;
    let late = dead.next().await.unwrap();
    assert_eq!(late[0].header("orrery-verdict"), Some("revoked"));
    bench.stop().await;
}

#[tokio::test]
async fn holes_are_seen_hold_the_watermark_fill_late_and_may_be_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(folder.path()).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    let sealed = agent.session(6);
    let hole = 6..8;
    let first: Vec<_> = sealed[..hole.start]
        .iter()
        .chain(&sealed[hole.end..])
        .cloned()
        .collect();
    bench.send(&first).await;
    bench.rows(&agent.stream(), 50).await;
    let handle = bench.handle.clone();
    let gaps = get(&handle, "/devices").await["devices"][0]["gaps"].clone();
    assert_eq!(
        (
            gaps[0]["first"].as_str(),
            gaps[0]["last"].as_str(),
            gaps[0]["state"].as_str()
        ),
        (Some("6"), Some("7"), Some("pending"))
    );
    let mark = |body: &serde_json::Value| body["watermarks"]["tclab-01/board"].as_str().unwrap().to_owned();
    let held = mark(&get(&handle, "/aligner/status").await);
    assert!(
        held <= TaiNanos(START + 4 * SECOND).to_rfc3339(),
        "the hole holds the watermark at {held}"
    );

    bench.send(&sealed[hole]).await;
    bench.rows(&agent.stream(), 60).await;
    let body = get(&handle, "/devices").await;
    assert_eq!(body["devices"][0]["gaps"], json!([]));
    let released = mark(&get(&handle, "/aligner/status").await);
    assert!(
        released > TaiNanos(START + 8 * SECOND).to_rfc3339(),
        "filled: {released}"
    );
    let with_hole = bench.digest().await;
    bench.stop().await;

    let other = tempfile::tempdir().unwrap();
    let bench = Bench::open(other.path()).await;
    bench.enrol(&agent).await;
    bench.send(&sealed).await;
    bench.rows(&agent.stream(), 60).await;
    assert_eq!(bench.digest().await, with_hole, "when it arrived does not show");

    let skipped = agent.samples(20 * SECOND, SECOND / 10, 10);
    let payload = LossPayload {
        boot_id: agent.chain.boot_id(),
        first: skipped.claims.sequence,
        last: skipped.claims.sequence,
        reason: "the disk was full".to_owned(),
        last_digest: skipped.digest,
    };
    let loss = agent.seal(21 * SECOND, PayloadType::Loss, &payload.encode());
    let beat = agent.heartbeat(30 * SECOND);
    bench.send(&[loss, beat]).await;
    let handle = bench.handle.clone();
    let gaps = loop {
        let gaps = get(&handle, "/devices").await["devices"][0]["gaps"].clone();
        if gaps[0]["state"] == "lost" {
            break gaps;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(gaps[0]["reason"], "the disk was full");
    bench.stop().await;
}

#[tokio::test]
async fn arrival_order_across_devices_and_segmentation_never_show() {
    let digest_of = async |order: usize, config: fn(&mut orrery_aligner::Config)| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::with(folder.path(), config).await;
        let mut board = Agent::board();
        let mut meter = Agent::new("power-meter", "supply", vec![Channel::f64("power", "W")]);
        (meter.device_clock, meter.offset_nanos) = (Some(ClockId::session("power-meter", "s1")), 40_000_000);
        let mut air = Agent::new(
            "chamber-ctl",
            "air",
            vec![Channel::f64("temperature", "Cel"), Channel::text("note")],
        );
        let (a, b, c) = (board.session(12), meter.session(12), air.session(12));
        for agent in [&board, &meter, &air] {
            bench.enrol(agent).await;
        }
        match order {
            0 => {
                bench.send(&a).await;
                bench.send(&b).await;
                bench.send(&c).await;
            }
            1 => {
                for at in 0..a.len() {
                    bench.send(&[c[at].clone(), a[at].clone(), b[at].clone()]).await;
                }
            }
            _ => {
                bench.send(&c).await;
                for pair in b.chunks(3).zip(a.chunks(3)) {
                    bench.send(pair.0).await;
                    tokio::time::sleep(Duration::from_millis(4)).await;
                    bench.send(pair.1).await;
                }
            }
        }
        for agent in [&board, &meter, &air] {
            bench.rows(&agent.stream(), 120).await;
        }
        let digest = bench.digest().await;
        let segments = get(&bench.handle, "/aligner/status").await["segments"]
            .as_u64()
            .unwrap();
        bench.stop().await;
        // The same from the stopped folder.
        let store = Store::open_read_only(folder.path()).await.unwrap();
        let (again, rows) = store.replay(&everything()).unwrap().digest().await.unwrap();
        assert_eq!((again.to_string(), rows), digest);
        (digest, segments)
    };
    let plain: fn(&mut orrery_aligner::Config) = |_| {};
    let tiny: fn(&mut orrery_aligner::Config) = |config| (config.segment_seconds, config.commit_ms) = (2, 1);
    let small: fn(&mut orrery_aligner::Config) = |config| (config.segment_bytes, config.commit_ms) = (6_000, 2);
    let mut digests = Vec::new();
    for (order, config) in [(0, plain), (1, plain), (2, plain), (1, tiny), (2, small), (0, tiny)] {
        digests.push(digest_of(order, config).await);
    }
    assert!(digests[3].1 > 3 && digests[4].1 > 3, "segments were made: {digests:?}");
    assert!(digests.iter().all(|(digest, _)| *digest == digests[0].0), "{digests:?}");
}

#[tokio::test]
async fn acks_and_traces_become_streams() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(folder.path()).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    bench.send(&agent.session(1)).await;
    let ack = AckPayload {
        command_id: "c1".to_owned(),
        channel: "q1".to_owned(),
        status: AckStatus::Applied,
        value: Some(58.0),
        reason: None,
        issuer_epoch: 1,
        issuer_sequence: 2,
        at: MonoNanos(4 * SECOND),
        clock_id: agent.host.clone(),
    };
    let sealed = agent.seal(4 * SECOND, PayloadType::Ack, &ack.encode());
    bench.send(&[sealed]).await;
    bench.rows(&StreamId::new("tclab-01/acks").unwrap(), 1).await;
    let rows = bench
        .sql("SELECT command_id, status, value, reason FROM \"tclab-01/acks\"")
        .await;
    assert_eq!(
        rows,
        [json!({"command_id": "c1", "status": "applied", "value": 58.0, "reason": null})]
    );

    let stream = StreamId::new("twin/board").unwrap();
    let trace = |times: Vec<i64>| {
        let rows = times.len();
        let values = arrow::array::Float64Array::from(vec![1.5; rows]);
        let field = arrow::datatypes::Field::new("t1", arrow::datatypes::DataType::Float64, true);
        let sequences = times.iter().map(|time| *time as u64).collect();
        let channels: Vec<(_, arrow::array::ArrayRef)> =
            vec![(std::sync::Arc::new(field), std::sync::Arc::new(values))];
        let boot = orrery_protocol::BootId([1; 16]);
        let batch =
            AlignedBlock::batch(times.clone(), vec![0; rows], boot, sequences, vec![0; rows], channels).unwrap();
        let block = AlignedBlock {
            stream: stream.clone(),
            descriptor: Digest([0; 32]),
            revision: 0,
            watermark: TaiNanos(0),
            asymmetry_nanos: 0,
            extra: Default::default(),
            batch,
        };
        orrery_bus::Record::new(b"twin".to_vec(), block.encode().unwrap())
    };
    // A graph that restarted says some of it again.
    let records = vec![
        trace(vec![100, 200]),
        trace(vec![200, 300]),
        trace(vec![300]),
        trace(vec![400]),
    ];
    bench.bus.publish(topics::TRACES, records).await.unwrap();
    bench.rows(&stream, 4).await;
    let (digest, rows) = bench.digest().await;
    assert_eq!(rows, 15);
    bench.stop().await;
    let bench = Bench::open(folder.path()).await;
    bench
        .bus
        .publish(topics::TRACES, vec![trace(vec![400]), trace(vec![500])])
        .await
        .unwrap();
    bench.rows(&stream, 5).await;
    assert_ne!(bench.digest().await.0, digest);
    let past = bench
        .handle
        .store()
        .unwrap()
        .replay(&ReplayRequest {
            revision: Some(0),
            ..everything()
        })
        .unwrap();
    assert_eq!(past.digest().await.unwrap().1, 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_message_is_aligned_within_two_milliseconds_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(folder.path(), |config| config.commit_ms = 250).await;
    let mut agent = Agent::board();
    bench.enrol(&agent).await;
    bench.send(&agent.session(1)).await;
    bench.rows(&agent.stream(), 10).await;
    let mut aligned = bench.bus.subscribe(topics::ALIGNED, From::Latest).await.unwrap();
    let mut waits: Vec<Duration> = Vec::new();
    for at in 0..30 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sealed = agent.samples((5 + at) * SECOND, SECOND, 1);
        bench.send(&[sealed]).await;
        // From durable on orrery.raw to durable on orrery.aligned.
        let start = tokio::time::Instant::now();
        aligned.next().await.unwrap();
        waits.push(start.elapsed());
    }
    waits.sort();
    println!("raw → aligned: median {:?}, worst {:?}", waits[15], waits[29]);
    assert!(waits[15] < Duration::from_millis(20), "{waits:?}");
    bench.stop().await;
}

fn snapshot(folder: &std::path::Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                files.push((entry.path(), meta.len(), meta.modified().unwrap()));
            }
        }
    }
    files.sort();
    files
}

async fn get(handle: &orrery_aligner::Handle, path: &str) -> serde_json::Value {
    let (code, text) = request(handle, "GET", path, None).await;
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn get_text(handle: &orrery_aligner::Handle, path: &str) -> String {
    request(handle, "GET", path, None).await.1
}

async fn request(handle: &orrery_aligner::Handle, method: &str, path: &str, body: Option<String>) -> (u16, String) {
    use axum::body::Body;
    use tower::ServiceExt as _;
    let mut request = axum::http::Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let mut request = request.body(body.map_or_else(Body::empty, Body::from)).unwrap();
    request.extensions_mut().insert(orrery_protocol::Principal::operator());
    let response = orrery_aligner::routes(handle.clone()).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}
