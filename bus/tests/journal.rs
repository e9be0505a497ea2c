//! The journal against torn tails, flipped bits, full disks and failing syncs, one at a time.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orrery_bus::Record;
use orrery_bus::fs::MemoryFs;
use orrery_bus::journal::{Entry, Journal, JournalError, JournalOptions};
use orrery_protocol::{ManualClock, TaiNanos};

const FOLDER: &str = "/journal";

fn open(fs: &MemoryFs, options: JournalOptions) -> Journal {
    let clock = Arc::new(ManualClock::new(TaiNanos(1_800_000_000_000_000_000)));
    Journal::open_in(Arc::new(fs.clone()), Path::new(FOLDER), options, clock).unwrap()
}

fn record(n: u64) -> Record {
    Record::new("key", format!("value {n}")).with_headers(vec![("h".to_owned(), n.to_string())])
}

fn segments(fs: &MemoryFs) -> Vec<(PathBuf, usize)> {
    fs.files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "journal"))
        .collect()
}

fn read_all(journal: &Journal) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut from = 0;
    while from < journal.next_offset() {
        let batch = journal.read(from, 100).unwrap();
        assert!(batch.next > from, "reading always makes progress");
        from = batch.next;
        entries.extend(batch.entries);
    }
    entries
}

fn offsets(journal: &Journal) -> Vec<u64> {
    read_all(journal).into_iter().map(|entry| entry.offset).collect()
}

async fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
    for n in numbers {
        journal.append(vec![record(n)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_torn_tail_is_fenced_off_and_no_offset_is_given_twice() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..5).await;
    drop(journal);
    let (path, len) = segments(&fs).remove(0);
    // Cut the last record in half, as a disk does that lied about its sync.
    let file = orrery_bus::fs::FileSystem::open(&fs, &path).unwrap();
    file.truncate(len as u64 - 7).unwrap();
    let journal = open(&fs, JournalOptions::default());
    assert_eq!(offsets(&journal), [0, 1, 2, 3]);
    assert_eq!(journal.stats().quarantined, 1);
    let fresh = journal.append(vec![record(9)]).await.unwrap();
    assert!(fresh.start > 4, "offset 4 may have been read by someone: {fresh:?}");
    drop(journal);
    let journal = open(&fs, JournalOptions::default());
    assert_eq!(offsets(&journal), [0, 1, 2, 3, fresh.start]);
    assert_eq!(read_all(&journal)[4].record, record(9));
}

#[tokio::test]
async fn a_flipped_bit_costs_one_record_wherever_it_is() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..6).await;
    drop(journal);
    let (path, len) = segments(&fs).remove(0);
    for byte in 0..len {
        fs.flip(&path, byte, (byte % 8) as u8);
        let journal = open(&fs, JournalOptions::default());
        let entries = read_all(&journal);
        let lost = 6 - entries.len();
        assert!(lost <= 1, "byte {byte} cost {lost} records");
        assert_eq!(journal.stats().quarantined, 1, "byte {byte} is noticed");
        assert!(
            entries.iter().all(|entry| entry.record == record(entry.offset)),
            "byte {byte} altered a record"
        );
        drop(journal);
        fs.flip(&path, byte, (byte % 8) as u8);
    }
}

#[tokio::test]
async fn a_value_that_holds_frames_is_never_taken_for_frames() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..3).await;
    let (path, len) = segments(&fs).remove(0);
    let mut copy = vec![0; len];
    orrery_bus::fs::FileSystem::open(&fs, &path)
        .unwrap()
        .read_at(0, &mut copy)
        .unwrap();
    drop(journal);
    let other = MemoryFs::new();
    let journal = open(&other, JournalOptions::default());
    journal.append(vec![Record::new("copy", copy)]).await.unwrap();
    append(&journal, 1..3).await;
    drop(journal);
    // The header of the frame that carries the copy: now the search runs through the copy.
    other.flip(&segments(&other)[0].0, 32 + 5, 0);
    let journal = open(&other, JournalOptions::default());
    assert_eq!(offsets(&journal), [1, 2]);
}

#[tokio::test]
async fn a_full_disk_is_said_damages_nothing_and_is_got_over() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..3).await;
    fs.set_capacity(Some(segments(&fs)[0].1 + 10));
    for _ in 0..3 {
        let refused = journal.append(vec![record(3)]).await.unwrap_err();
        assert!(matches!(refused, JournalError::Full { .. }));
        assert!(refused.to_string().contains("is full: free some space"), "{refused}");
    }
    assert_eq!(offsets(&journal), [0, 1, 2]);
    fs.set_capacity(None);
    append(&journal, 3..5).await;
    drop(journal);
    let journal = open(&fs, JournalOptions::default());
    assert_eq!(offsets(&journal), [0, 1, 2, 3, 4]);
    assert_eq!(journal.stats().quarantined, 0);
}

#[tokio::test]
async fn a_disk_full_from_the_start_can_be_opened_and_recovers() {
    let fs = MemoryFs::new();
    fs.set_capacity(Some(5));
    let journal = open(&fs, JournalOptions::default());
    assert!(matches!(
        journal.append(vec![record(0)]).await,
        Err(JournalError::Full { .. })
    ));
    fs.set_capacity(None);
    append(&journal, 0..2).await;
    assert_eq!(read_all(&journal).len(), 2);
    assert_eq!(segments(&fs).len(), 1, "the failed attempt left no file behind");
}

#[tokio::test]
async fn after_a_failed_sync_writing_goes_on_in_a_new_segment() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..2).await;
    fs.fail_syncs(1);
    let refused = journal.append(vec![record(2)]).await.unwrap_err();
    assert!(
        refused.to_string().contains("could not sync journal /journal/"),
        "{refused}"
    );
    append(&journal, 2..4).await;
    assert_eq!(segments(&fs).len(), 2);
    fs.crash(|_| (0, false));
    drop(journal);
    let journal = open(&fs, JournalOptions::default());
    assert_eq!(offsets(&journal), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_torn_write_leaves_nothing_behind() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..2).await;
    fs.tear_writes(1);
    assert!(journal.append(vec![record(2), record(3)]).await.is_err());
    append(&journal, 2..3).await;
    drop(journal);
    let journal = open(&fs, JournalOptions::default());
    assert_eq!(offsets(&journal), [0, 1, 2]);
    assert_eq!(journal.stats().quarantined, 0);
}

#[tokio::test]
async fn segments_roll_and_truncation_drops_whole_ones() {
    let fs = MemoryFs::new();
    let options = JournalOptions {
        segment_bytes: 300,
        ..JournalOptions::default()
    };
    let journal = open(&fs, options.clone());
    append(&journal, 0..40).await;
    let before = segments(&fs);
    assert!(before.len() > 5);
    assert!(before.iter().all(|(_, len)| *len <= 300));
    journal.truncate_before(20).unwrap();
    assert!(journal.first_offset() <= 20 && journal.first_offset() > 10);
    assert!(segments(&fs).len() < before.len());
    let kept = offsets(&journal);
    assert_eq!(kept, (journal.first_offset()..40).collect::<Vec<_>>());
    journal.truncate_before(u64::MAX).unwrap();
    assert_eq!(segments(&fs).len(), 1, "the newest segment stays");
    drop(journal);
    let journal = open(&fs, options);
    assert_eq!(journal.next_offset(), 40, "offsets go on where they were");
    assert_eq!(journal.append(vec![record(40)]).await.unwrap(), 40..41);
}

#[tokio::test]
async fn retention_keeps_the_newest_bytes() {
    let fs = MemoryFs::new();
    let options = JournalOptions {
        segment_bytes: 300,
        retain_bytes: Some(900),
        ..JournalOptions::default()
    };
    let journal = open(&fs, options);
    append(&journal, 0..100).await;
    let stats = journal.stats();
    assert!(stats.bytes >= 600 && stats.bytes <= 1500, "{stats:?}");
    assert_eq!(offsets(&journal).last(), Some(&99));
    assert!(journal.first_offset() > 70);
}

#[tokio::test]
async fn appenders_that_wait_together_share_one_sync() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    append(&journal, 0..1).await;
    let before = fs.syncs();
    let all = (0..200).map(|n| journal.append(vec![record(n)]));
    let ranges = futures_util::future::join_all(all).await;
    assert!(ranges.iter().all(Result::is_ok));
    let syncs = fs.syncs() - before;
    assert!(syncs < 100, "200 appends took {syncs} syncs");
    assert_eq!(journal.stats().appended, 201);
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_still_passes() {
    let fs = MemoryFs::new();
    let journal = open(
        &fs,
        JournalOptions {
            queue_bytes: 1000,
            ..JournalOptions::default()
        },
    );
    let big = Record::new("k", vec![7; 5000]);
    let both = tokio::join!(journal.append(vec![big.clone()]), journal.append(vec![big.clone()]));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(read_all(&journal).len(), 2);
}

#[tokio::test]
async fn a_waiting_reader_is_woken() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    let reader = async {
        journal.wait(0).await;
        journal.read(0, 1000).unwrap().entries.len()
    };
    let writer = async {
        tokio::task::yield_now().await;
        append(&journal, 0..1).await;
    };
    let both = async { tokio::join!(reader, writer).0 };
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), both).await.unwrap(), 1);
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_before_anything_is_written() {
    let fs = MemoryFs::new();
    let journal = open(&fs, JournalOptions::default());
    let too_big = Record::new("k", vec![0; orrery_bus::MAX_RECORD_BYTES]);
    let refused = journal.append(vec![record(0), too_big]).await.unwrap_err();
    assert!(matches!(refused, JournalError::TooLarge { .. }));
    assert_eq!(journal.next_offset(), 0);
}

/// Version 1 of the bytes. If this test fails, existing data folders can no longer be read: write a version 2.
#[tokio::test]
async fn version_1_is_read_from_its_fixture() {
    let text = include_str!("fixtures/journal-v1.hex");
    let bytes = hex::decode(text.split_whitespace().collect::<String>()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = "00000000000000000007-0123456789abcdef.journal";
    std::fs::write(folder.path().join(name), &bytes).unwrap();
    let clock = Arc::new(ManualClock::new(TaiNanos(0)));
    let journal = Journal::open(folder.path(), JournalOptions::default(), clock).unwrap();
    let batch = journal.read(0, 10_000).unwrap();
    let appended = TaiNanos(1_795_000_037_000_000_001);
    let first = Record::new("tclab-01", vec![0, 1, 254, 255]).with_headers(vec![
        ("ce_id".to_owned(), "é/0".to_owned()),
        ("content-type".to_owned(), String::new()),
    ]);
    let expected = [
        Entry {
            offset: 7,
            appended,
            record: first,
        },
        Entry {
            offset: 8,
            appended,
            record: Record::new("", ""),
        },
    ];
    assert_eq!(batch.entries, expected);
    assert_eq!(journal.stats().quarantined, 0);
}
