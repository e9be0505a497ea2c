//! `orrery up --demo` as a new user meets it: live data, SQL, replay, control, stop, crash.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orrery_tests::instance::{Instance, eventually, orrery, stdout_of};
use serde_json::{Value, json};

/// Long enough for a busy two-core machine; the waits end as soon as the thing has happened.
const PATIENCE: Duration = Duration::from_secs(60);

fn rows(csv: &str) -> Vec<Vec<String>> {
    csv.lines()
        .skip(1)
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}

async fn count(instance: &Instance, table: &str) -> u64 {
    let answer = instance.command(&["query", "-o", "csv", &format!("SELECT count(*) AS n FROM {table}")]);
    if !answer.status.success() {
        return 0;
    }
    rows(&String::from_utf8_lossy(&answer.stdout))
        .first()
        .and_then(|row| row[0].parse().ok())
        .unwrap_or(0)
}

async fn all_devices_live(instance: &Instance) -> Value {
    eventually("all four devices are live with a clock", PATIENCE, async || {
        let devices = instance.get("/devices").await;
        let list = devices["devices"].as_array()?.clone();
        let ready = |id: &str| {
            list.iter()
                .any(|device| device["device_id"] == id && device["state"] == "live" && !device["clock"].is_null())
        };
        ["tclab-01", "chamber-ctl", "power-meter", "room-sensor"]
            .iter()
            .all(|id| ready(id))
            .then_some(devices)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_live_and_answers() {
    let data = tempfile::tempdir().unwrap();
    let demo = Instance::start(data.path(), &["--demo", "--seed", "1"]);
    let devices = all_devices_live(&demo).await;
    for device in devices["devices"].as_array().unwrap() {
        assert!(device["keys"][0]["cose_key"].is_string(), "{device}");
        let clock = &device["clock"];
        assert!(clock["offset_uncertainty_ms"].as_f64().unwrap() > 0.0, "{clock}");
        assert!(
            device["counters"]["forged"].as_str().is_none_or(|n| n == "0"),
            "{device}"
        );
    }

    // The twin follows: its prediction lies near the measurement.
    eventually("the twin's trace is stored", PATIENCE, async || {
        (count(&demo, r#"aligned."twin/board""#).await > 30).then_some(())
    })
    .await;
    let sql = r#"SELECT avg(abs(t1_residual)), avg(abs(t2_residual)), count(t1_residual) FROM aligned."twin/board""#;
    let residual = &rows(&demo.stdout(&["query", "-o", "csv", sql]))[0];
    assert!(residual[2].parse::<u64>().unwrap() > 10, "{residual:?}");
    for mean in &residual[..2] {
        assert!(
            mean.parse::<f64>().unwrap() < 2.0,
            "the twin is off by {mean} °C on average"
        );
    }

    // SQL: the published columns, and a typo gets help.
    let sql =
        "SELECT device_id, boot_id, sequence, timestamp, payload_type, received, digest FROM raw.envelopes LIMIT 1";
    assert_eq!(rows(&demo.stdout(&["query", "-o", "csv", sql])).len(), 1);
    let wrong = demo.command(&["query", r#"SELECT * FROM aligned."tclab-01/bord""#]);
    assert!(!wrong.status.success());
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("tclab-01/board"),
        "{wrong:?}"
    );

    // Forecast and what-if.
    let forecast = demo.get("/graphs/twin/forecast?horizon_s=90").await;
    assert!(
        forecast["channels"]["t1"]["v"]
            .as_array()
            .is_some_and(|values| values.len() > 10),
        "{forecast}"
    );
    let (status, what_if) = demo
        .post("/graphs/twin/what-if", &json!({"set": {"q1": 80}, "horizon_s": 90}))
        .await;
    assert_eq!(status, 200, "{what_if}");
    let last = |answer: &Value| {
        answer["channels"]["t1"]["v"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .as_f64()
            .unwrap()
    };
    assert!(last(&what_if) > last(&forecast), "more power, more heat");

    // The page is served to whoever has the token, and the API to nobody else.
    let http = reqwest::Client::new();
    let refused = http.get(format!("{}/api/v1/devices", demo.url)).send().await.unwrap();
    assert_eq!(refused.status(), 401);

    // What a browser asks for: a compressed answer that is whole.
    let packed = http
        .post(format!("{}/api/v1/query", demo.url))
        .bearer_auth(&demo.token)
        .header("accept-encoding", "gzip")
        .json(&serde_json::json!({ "sql": "SELECT 1 AS n" }))
        .send()
        .await
        .unwrap();
    assert_eq!(packed.status(), 200);
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.unwrap();
    assert_eq!(packed[..2], [0x1f, 0x8b]);

    // Counters and readiness are open to a scraper.
    let metrics = http.get(format!("{}/metrics", demo.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let value = |series: &str| {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("no {series} in:\n{metrics}"))
    };
    for at_work in [
        "orrery_edge_readings_total",
        "orrery_edge_devices_connected",
        "orrery_bus_published_total{topic=\"orrery.raw\"}",
        "orrery_journal_bytes{topic=\"orrery.raw\"}",
        "orrery_aligner_envelopes_verified_total",
        "orrery_aligner_rows_total",
        "orrery_runtime_ticks_total{graph=\"twin\"}",
        "orrery_provenance_entries",
    ] {
        assert!(value(at_work) > 0.0, "{at_work} is {}", value(at_work));
    }
    for none in [
        "orrery_aligner_envelopes_rejected_total{reason=\"forged\"}",
        "orrery_runtime_graph_failed{graph=\"twin\"}",
        "orrery_bus_publish_failures_total{topic=\"orrery.raw\"}",
        "orrery_provenance_mismatch",
    ] {
        assert_eq!(value(none), 0.0, "{none}");
    }
    let ready = http.get(format!("{}/readyz", demo.url)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let ready: Value = ready.json().await.unwrap();
    for check in ["aligner", "bus", "publishing", "spool"] {
        assert_eq!(ready["checks"][check], "ok", "{ready}");
    }

    // The log says what it had at an instant, and which model ran.
    let moment = demo.get("/provenance").await;
    assert_eq!(moment["models"][0]["graph"], "twin", "{moment}");
    assert!(moment["verified"].is_string(), "{moment}");

    let (took, well) = demo.interrupt();
    assert!(
        well && took < Duration::from_secs(5),
        "Ctrl-C took {took:?}, well: {well}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heater_obeys_and_interlocks_refuse() {
    let data = tempfile::tempdir().unwrap();
    let demo = Instance::start(data.path(), &["--demo", "--seed", "2"]);
    all_devices_live(&demo).await;
    let said = demo.stdout(&["control", "tclab-01", "q1=58"]);
    assert!(said.contains("applied") && said.contains("58"), "{said}");
    eventually("the board reads back 58 %", PATIENCE, async || {
        let sql = r#"SELECT q1 FROM aligned."tclab-01/board" ORDER BY time_tai DESC LIMIT 1"#;
        let out = demo.command(&["query", "-o", "csv", sql]);
        let value = rows(&String::from_utf8_lossy(&out.stdout))
            .first()?
            .first()?
            .parse::<f64>()
            .ok()?;
        (value == 58.0).then_some(())
    })
    .await;
    let refused = demo.command(&["control", "tclab-01", "q1=95"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("80"),
        "the limit is named: {refused:?}"
    );
    // All of a command or nothing of it.
    let refused = demo.command(&["control", "tclab-01", "q1=30", "q2=95"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    let acks = count(&demo, r#"aligned."tclab-01/acks" WHERE value = 30"#).await;
    assert_eq!(acks, 0);

    // `orrery stream list | head`: a reader that has seen enough is no failure.
    for arguments in [
        &["stream", "list"][..],
        &["replay", "--from", "-5m", "--to", "-0s", "-o", "csv"],
    ] {
        let mut listing = std::process::Command::new(orrery_tests::instance::binary("orrery"))
            .args(arguments)
            .arg("--data")
            .arg(data.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(listing.stdout.take());
        let listed = listing.wait_with_output().unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
    }

    let said = demo.stdout(&["control", "tclab-01", "off"]);
    assert!(said.contains("applied"), "{said}");
    let refused = demo.command(&["control", "tclab-1", "off"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = demo.stdout(&["control", "off"]);
    assert_eq!(said.matches("applied").count(), 2, "{said}");

    // Acknowledgements and the log remember.
    eventually("the acknowledgements are stored", PATIENCE, async || {
        (count(&demo, r#"aligned."tclab-01/acks""#).await >= 2).then_some(())
    })
    .await;
    let checked = demo.stdout(&["provenance", "verify"]);
    assert!(checked.contains("records, all as signed"), "{checked}");
    // The auditor's way: a key from elsewhere, and a checkpoint kept from before.
    let key = checked.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    let kept = data.path().join("kept");
    std::fs::copy(data.path().join("provenance/checkpoint"), &kept).unwrap();
    demo.stdout(&["control", "tclab-01", "q1=20"]);
    demo.stdout(&[
        "provenance",
        "verify",
        "--key",
        key,
        "--checkpoint",
        kept.to_str().unwrap(),
    ]);
    let stranger = "orrery.local/provenance+00000000+AAAA";
    let refused = demo.command(&["provenance", "verify", "--key", stranger]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    // A key that leaked: from here on nothing that it signs is measured.
    let listed = demo.stdout(&["device", "list"]);
    let key = |device: &str| {
        let line = listed.lines().find(|line| line.starts_with(device)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let wrong = demo.command(&["device", "revoke", "tclab-01", &key("room-sensor")]);
    assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
    let key = key("tclab-01");
    let revoked = demo.stdout(&["device", "revoke", "tclab-01", &key]);
    assert_eq!(revoked, format!("tclab-01: {key} (revoked)\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_replays_are_equal_after_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let demo = Instance::start(data.path(), &["--demo", "--seed", "3"]);
    all_devices_live(&demo).await;
    eventually("50 rows of the board", PATIENCE, async || {
        (count(&demo, r#"aligned."tclab-01/board""#).await >= 50).then_some(())
    })
    .await;
    let sql = "SELECT min(time), max(time) FROM aligned.\"tclab-01/board\"";
    let span = rows(&demo.stdout(&["query", "-o", "csv", sql]))[0].clone();
    let instant = |text: &str| {
        if text.ends_with('Z') {
            text.to_owned()
        } else {
            format!("{}Z", text.replace(' ', "T"))
        }
    };
    let (from, to) = (instant(&span[0]), instant(&span[1]));
    let window = ["replay", "--from", &from, "--to", &to, "--streams", "tclab-01/board"];
    let digest = [&window[..], &["--digest"]].concat();
    let before = demo.stdout(&digest);
    assert_eq!(before.trim().len(), 64, "{before}");
    assert_eq!(demo.stdout(&digest), before);
    let printed = demo.stdout(&window);
    assert_eq!(demo.stdout(&window), printed);
    assert!(printed.lines().count() >= 49, "{} lines", printed.lines().count());
    demo.kill();

    // A stopped folder answers the same.
    assert_eq!(stdout_of(&orrery(data.path(), &digest), &digest), before);
    assert_eq!(stdout_of(&orrery(data.path(), &window), &window), printed);

    let demo = Instance::start(data.path(), &["--demo", "--seed", "3"]);
    all_devices_live(&demo).await;
    assert_eq!(demo.stdout(&digest), before, "the replay of the time before the crash");
    // Every envelope that was acknowledged is there exactly once and every chain is whole.
    let sql = "SELECT count(*) - count(DISTINCT digest) FROM raw.envelopes WHERE payload_type <> ''";
    assert_eq!(rows(&demo.stdout(&["query", "-o", "csv", sql]))[0][0], "0");
    let sql =
        "SELECT device_id, boot_id, max(sequence) + 1 - count(DISTINCT sequence) FROM raw.envelopes GROUP BY 1, 2";
    for row in rows(&demo.stdout(&["query", "-o", "csv", sql])) {
        assert_eq!(row[2], "0", "holes in the chain of {row:?}");
    }
    let (took, well) = demo.interrupt();
    assert!(
        well && took < Duration::from_secs(5),
        "Ctrl-C took {took:?}, well: {well}"
    );
}
