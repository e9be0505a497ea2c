//! The journal keeps every promise of the bus.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use orrery_bus::journal::JournalOptions;
use orrery_bus::{JournalBus, SharedBus, conformance};
use orrery_protocol::{ManualClock, TaiNanos};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(TaiNanos(1_800_000_000_000_000_000)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async {
        let opened = JournalBus::open(folder.path(), JournalOptions::default(), clock()).await;
        Arc::new(opened.unwrap()) as SharedBus
    };
    conformance::run(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_conforms_with_small_segments() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 4 * 1024,
        ..JournalOptions::default()
    };
    let open = || async {
        let opened = JournalBus::open(folder.path(), options.clone(), clock()).await;
        Arc::new(opened.unwrap()) as SharedBus
    };
    conformance::run(open).await;
}

#[tokio::test]
async fn a_second_owner_of_the_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = JournalBus::open(folder.path(), JournalOptions::default(), clock())
        .await
        .unwrap();
    let refused = JournalBus::open(folder.path(), JournalOptions::default(), clock())
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    assert!(refused.to_string().contains(&folder.path().display().to_string()));
    drop(first);
    JournalBus::open(folder.path(), JournalOptions::default(), clock())
        .await
        .unwrap();
}
