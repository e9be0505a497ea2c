//! A recording of a real board through the whole pipeline: serial protocol, agent, bus, aligner, replay, twin.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orrery_tests::instance::{Instance, eventually};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tclab-prbs.csv");

#[tokio::test(flavor = "multi_thread")]
async fn the_replay_of_a_recording_is_the_recording_and_the_twin_follows_it() {
    let data = tempfile::tempdir().unwrap();
    let demo = Instance::start(data.path(), &["--demo", "--play", RECORDING, "--speed", "30"]);
    let count = async |stream: &str| {
        let sql = format!(r#"SELECT count(*) FROM aligned."{stream}""#);
        let out = demo.command(&["query", "-o", "csv", &sql]);
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0)
    };
    eventually("5,100 rows arrived", Duration::from_secs(420), async || {
        (count("tclab-01/board").await >= 5_100).then_some(())
    })
    .await;

    let sql = r#"SELECT q1, q2, t1, t2 FROM aligned."tclab-01/board" ORDER BY time_tai, boot_id, sequence, "index""#;
    let stored = demo.stdout(&["query", "-o", "csv", sql]);
    let numbers = |line: &str| line.split(',').map(|n| n.parse::<f64>().unwrap()).collect::<Vec<_>>();
    let stored: Vec<Vec<f64>> = stored.lines().skip(1).map(numbers).collect();
    let recording = std::fs::read_to_string(RECORDING).unwrap();
    let recorded: Vec<Vec<f64>> = recording
        .lines()
        .skip(1)
        .map(|line| numbers(line)[1..].to_vec())
        .collect();
    assert_eq!(recorded.len(), 5_100);
    assert_eq!(stored.len(), recorded.len());
    for (at, (stored, recorded)) in stored.iter().zip(&recorded).enumerate() {
        assert_eq!(stored, recorded, "row {at}");
    }

    // The twin, open loop with the parameters shipped, follows a real board.
    eventually("the twin has seen the last row", Duration::from_secs(60), async || {
        let sql = r#"SELECT count(*) FROM aligned."twin/board" WHERE t1_residual IS NOT NULL"#;
        let out = demo.command(&["query", "-o", "csv", sql]);
        let residuals = String::from_utf8_lossy(&out.stdout)
            .lines()
            .nth(1)?
            .parse::<u64>()
            .ok()?;
        (residuals >= 5_000).then_some(())
    })
    .await;
    let sql = r#"SELECT sqrt(avg(t1_residual * t1_residual)), sqrt(avg(t2_residual * t2_residual)) FROM aligned."twin/board""#;
    let rms = demo.stdout(&["query", "-o", "csv", sql]);
    println!(
        "RMS of T1, T2 against the recording in °C: {}",
        rms.lines().nth(1).unwrap()
    );
    let rms = numbers(rms.lines().nth(1).unwrap());
    assert!(rms[0] < 1.0 && rms[1] < 0.8, "RMS {rms:?} °C");
}
