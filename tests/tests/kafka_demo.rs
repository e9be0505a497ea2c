//! The demo over Apache Kafka, and its envelopes in the hands of a foreign consumer and a foreign COSE library.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orrery_tests::instance::{Instance, eventually};
use orrery_tests::kafka::Kafka;
use orrery_tests::venv::run_script;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_over_kafka_and_foreign_programs_verify_its_envelopes() {
    let kafka = tokio::task::spawn_blocking(Kafka::start).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let demo = Instance::start(data.path(), &["--demo", "--seed", "4", "--bus", &kafka.url()]);
    let limit = Duration::from_secs(60);
    let devices = eventually("four devices and 50 rows of the twin", limit, async || {
        let devices = demo.get("/devices").await;
        let sql = r#"SELECT count(*) FROM aligned."twin/board""#;
        let rows = demo.command(&["query", "-o", "csv", sql]);
        let rows: u64 = String::from_utf8_lossy(&rows.stdout).lines().nth(1)?.parse().ok()?;
        (devices["devices"].as_array()?.len() == 4 && rows > 50).then_some(devices)
    })
    .await;
    let keys = data.path().join("devices.json");
    std::fs::write(&keys, devices.to_string()).unwrap();
    let keys = keys.display().to_string();
    let address = kafka.address();
    let verify = move || run_script("verify_raw.py", &[&address, &keys, "200"]);
    let found = tokio::task::spawn_blocking(verify).await.unwrap();
    let found: serde_json::Value = serde_json::from_str(found.trim()).unwrap();
    assert_eq!(found["verified"], 200, "{found}");
    assert_eq!(found["wrong"].as_array().unwrap().len(), 0, "{found}");
    assert!(found["devices"].as_array().unwrap().len() >= 3, "{found}");
}
