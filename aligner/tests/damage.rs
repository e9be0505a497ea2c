//! Damaged and missing files: each is named, nothing else suffers, and what comes next is taken.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Agent, Bench, SECOND, START, everything, sql_rows};
use orrery_aligner::{Config, Error, ReplayRequest, Store};
use orrery_protocol::{Channel, TaiNanos};
use serde_json::json;

#[tokio::test]
async fn a_broken_segment_is_named_and_the_rest_works() {
    let folder = tempfile::tempdir().unwrap();
    let config = |config: &mut orrery_aligner::Config| config.segment_seconds = 5;
    let bench = Bench::with(folder.path(), config).await;
    let mut agent = Agent::board();
    let mut other = Agent::new("other", "s", vec![Channel::f64("x", "1")]);
    bench.enrol(&agent).await;
    bench.enrol(&other).await;
    for piece in agent.session(60).chunks(10) {
        bench.send(piece).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    bench.send(&other.session(1)).await;
    bench.rows(&agent.stream(), 600).await;
    bench.rows(&other.stream(), 10).await;
    bench.stop().await;

    let mut files: Vec<_> = std::fs::read_dir(folder.path().join("segments/tclab-01/board"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    let bytes = std::fs::read(&files[1]).unwrap();
    let mut altered = bytes.clone();
    altered[bytes.len() / 3] ^= 0x55;
    std::fs::write(&files[1], &altered).unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    let store = Store::open_read_only(folder.path()).await.unwrap();
    let name = |file: &std::path::Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    let error = store
        .replay(&everything())
        .unwrap()
        .digest()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&name(&files[1])) && error.contains("corrupted"),
        "{error}"
    );
    let error = sql_rows(&store, "SELECT count(t1) FROM \"tclab-01/board\"")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("corrupted") || error.contains("missing"), "{error}");
    let other = sql_rows(&store, "SELECT count(x) AS n FROM \"other/s\"").await.unwrap();
    assert_eq!(other, [json!({"n": "10"})]);
    // Whatever lies outside the broken stretch still reads.
    let late = ReplayRequest {
        from: TaiNanos(START + 40 * SECOND),
        ..everything()
    };
    assert!(store.replay(&late).unwrap().digest().await.unwrap().1 > 200);
    let from = TaiNanos(START + 40 * SECOND).to_rfc3339();
    let sql = format!("SELECT count(t1) AS n FROM \"tclab-01/board\" WHERE time >= '{from}'");
    assert_eq!(sql_rows(&store, &sql).await.unwrap(), [json!({"n": "230"})]);
    assert!(matches!(
        Store::open_read_only(&folder.path().join("nothing")).await,
        Err(Error::NoCatalog { .. })
    ));
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join("bus/orrery.raw")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some()).collect()
}

/// The catalog remembers a place that the journal no longer has: what comes next must not be passed over.
#[tokio::test]
async fn a_journal_that_lost_its_end_or_all_of_it_hides_nothing_new() {
    for keep in [0.0, 0.4] {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(folder.path()).await;
        let mut agent = Agent::board();
        bench.enrol(&agent).await;
        bench.send(&agent.session(20)).await;
        bench.rows(&agent.stream(), 200).await;
        let (before, _) = bench.digest().await;
        bench.stop().await;

        for journal in journals(folder.path()) {
            let bytes = std::fs::read(&journal).unwrap();
            let kept = (bytes.len() as f64 * keep) as usize;
            match kept {
                0 => std::fs::remove_file(journal).unwrap(),
                _ => std::fs::write(journal, &bytes[..kept]).unwrap(),
            }
        }
        let bench = Bench::open(folder.path()).await;
        assert_eq!(bench.digest().await.0, before);
        agent.reboot(9);
        bench.send(&agent.session(3)).await;
        bench.rows(&agent.stream(), 230).await;
        bench.stop().await;
        // And once more, now that the catalog's place is below the old one.
        let bench = Bench::open(folder.path()).await;
        agent.reboot(11);
        bench.send(&agent.session(3)).await;
        bench.rows(&agent.stream(), 260).await;
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_damaged_catalog_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    Bench::open(folder.path()).await.stop().await;
    let catalog = folder.path().join("catalog.sqlite");
    let mut bytes = std::fs::read(&catalog).unwrap();
    bytes[0] ^= 0x55;
    std::fs::write(&catalog, bytes).unwrap();
    let read = Store::open_read_only(folder.path()).await.err();
    let owned = Store::open(&Config::for_data(folder.path()), TaiNanos(START))
        .await
        .err();
    for error in [read.unwrap(), owned.unwrap()] {
        assert!(matches!(error, Error::CatalogDamaged { .. }), "{error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
}
