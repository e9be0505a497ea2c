//! The log on disk: durable, provable, and no altered byte goes unnamed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orrery_protocol::{Digest, Record, RecordKind, SealKey, Subject, TaiNanos};
use orrery_provenance::note::{Checkpoint, VerifierKey};
use orrery_provenance::tree::{leaf_hash, verify_consistency, verify_inclusion};
use orrery_provenance::{Log, LogError, verify_dir};

const ORIGIN: &str = "orrery.example/test";

fn key() -> SealKey {
    SealKey::from_seed(&[9; 32])
}

fn record(n: u64) -> Record {
    Record {
        kind: RecordKind::Key,
        subject: vec![Subject {
            name: format!("device-{n}"),
            sha256: Digest::of(&n.to_le_bytes()),
        }],
        predicate: serde_json::json!({ "n": n }),
        at: TaiNanos(1_800_000_000_000_000_000 + n as i64),
    }
}

fn records(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

fn open(dir: &Path) -> Log {
    Log::open(dir, key(), ORIGIN).unwrap()
}

#[test]
fn what_was_appended_is_there_after_reopening_and_proved() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let first_checkpoint = log.checkpoint().to_owned();
    assert_eq!(log.append(&records(0..3)).unwrap(), 0);
    assert_eq!(log.append(&records(3..700)).unwrap(), 3);
    let checkpoint = log.checkpoint().to_owned();
    drop(log);
    let mut log = open(dir.path());
    assert_eq!(log.damage(), None);
    assert_eq!((log.size(), log.checkpoint()), (700, checkpoint.as_str()));
    let verifier = VerifierKey::new(ORIGIN, key().public());
    let signed = Checkpoint::open(&checkpoint, &verifier).unwrap();
    assert_eq!((signed.size, signed.root), (700, log.root()));
    assert_eq!(Checkpoint::open(&first_checkpoint, &verifier).unwrap().size, 0);
    for index in [0, 1, 255, 256, 511, 512, 699] {
        let entry = log.entries(index, 1).unwrap().remove(0);
        assert_eq!(Record::decode(&entry.bytes).unwrap(), record(index));
        let proof = log.prove_inclusion(index).unwrap();
        assert!(verify_inclusion(
            index,
            700,
            &leaf_hash(&entry.bytes),
            &proof,
            &signed.root
        ));
    }
    log.append(&records(700..701)).unwrap();
    let proof = log.prove_consistency(700, 701).unwrap();
    assert!(verify_consistency(700, 701, &signed.root, &log.root(), &proof));
    assert!(matches!(
        log.prove_inclusion(701),
        Err(LogError::Outside { size: 701, .. })
    ));
    assert_eq!(log.entries(250, 300).unwrap().len(), 300);
    let report = verify_dir(dir.path(), Some(&key().public()), None).unwrap();
    assert!(report.is_proved(), "{report:?}");
    assert_eq!((report.size, report.root), (701, hex::encode(log.root())));
}

#[test]
fn tiles_are_where_c2sp_puts_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(&records(0..600)).unwrap();
    let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
    assert_eq!(read("tile/0/000").len(), 256 * 32);
    assert_eq!(read("tile/0/002").len(), 88 * 32);
    assert_eq!(read("tile/1/000"), log.hash_tile(1, 0, 2).unwrap());
    assert_eq!(log.hash_tile(0, 2, 256), None, "the log does not have it yet");
    assert_eq!(log.hash_tile(0, 2, 88).unwrap(), read("tile/0/002"));
    assert_eq!(log.entry_bundle(1, 256).unwrap().unwrap(), read("tile/entries/001"));
    assert_eq!(log.entry_bundle(2, 89).unwrap(), None);
}

#[test]
fn an_append_that_did_not_commit_never_happened() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(&records(0..300)).unwrap();
    let root = log.root();
    let state = std::fs::read(dir.path().join("state.json")).unwrap();
    log.append(&records(300..900)).unwrap();
    drop(log);
    // A crash before the commit point was replaced.
    std::fs::write(dir.path().join("state.json"), state).unwrap();
    let mut log = open(dir.path());
    assert_eq!((log.size(), log.root()), (300, root));
    log.append(&records(300..310)).unwrap();
    drop(log);
    assert!(verify_dir(dir.path(), None, None).unwrap().is_proved());
    assert!(!dir.path().join("tile/entries/002").exists());
}

#[test]
fn offsets_are_committed_with_the_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let consumed = BTreeMap::from([(0, 7), (3, 9)]);
    log.append_from(&[record(0).encode()], "kafka://a:1", consumed.clone())
        .unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.consumed("kafka://a:1"), consumed);
    assert_eq!(
        log.consumed("journal"),
        BTreeMap::new(),
        "offsets of one bus mean nothing on another"
    );
}

#[test]
fn another_key_or_origin_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = Log::open(dir.path(), SealKey::from_seed(&[1; 32]), ORIGIN)
        .err()
        .unwrap();
    assert!(other.to_string().contains("belongs to orrery.example/test+"), "{other}");
    assert!(matches!(
        Log::open(dir.path(), key(), "other"),
        Err(LogError::OtherOwner { .. })
    ));
    assert!(matches!(
        Log::open(dir.path(), key(), "a b"),
        Err(LogError::BadOrigin(_))
    ));
}

#[test]
fn a_record_too_large_for_a_bundle_is_refused_and_nothing_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut large = record(1);
    large.predicate = serde_json::json!("x".repeat(70_000));
    assert!(matches!(
        log.append(&[record(0), large]),
        Err(LogError::TooLarge { .. })
    ));
    assert_eq!(log.size(), 0);
    log.append(&records(0..1)).unwrap();
    assert!(verify_dir(dir.path(), None, None).unwrap().is_proved());
}

/// Which record each byte of a bundle belongs to.
fn owners(bundle: &[u8]) -> Vec<u64> {
    let mut owners = Vec::new();
    let mut rest = bundle;
    let mut index = 0;
    while let Some((length, body)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        owners.extend(std::iter::repeat_n(index, length + 2));
        rest = &body[length..];
        index += 1;
    }
    owners
}

#[test]
fn every_altered_byte_of_every_entry_is_found_and_named_by_its_record() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&records(0..6)).unwrap();
    let path = dir.path().join("tile/entries/000");
    let bundle = std::fs::read(&path).unwrap();
    for (at, owner) in owners(&bundle).into_iter().enumerate() {
        let mut altered = bundle.clone();
        altered[at] ^= 1 << (at % 8);
        std::fs::write(&path, &altered).unwrap();
        let report = verify_dir(dir.path(), Some(&key().public()), None).unwrap();
        let named: Vec<_> = report.mismatches.iter().map(|mismatch| mismatch.record).collect();
        assert_eq!(named, [Some(owner)], "byte {at}: {report:?}");
    }
    std::fs::write(&path, &bundle).unwrap();
    assert!(verify_dir(dir.path(), None, None).unwrap().is_proved());
}

#[test]
fn altered_hashes_checkpoints_and_keys_are_found() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&records(0..300)).unwrap();
    let flipped = |path: &str, at: usize| {
        let path = dir.path().join(path);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let report = verify_dir(dir.path(), Some(&key().public()), None);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        report
    };
    let report = flipped("tile/0/001", 5 * 32).unwrap();
    assert_eq!(report.mismatches.len(), 1);
    assert_eq!(report.mismatches[0].record, Some(261));
    assert!(
        report.mismatches[0]
            .why
            .contains("hash in the tree's tiles was altered")
    );
    let report = flipped("tile/1/000", 3).unwrap();
    assert!(
        report.mismatches[0]
            .why
            .contains("tile/1/000 disagrees with the hashes of records 0 to 255")
    );
    let note = std::fs::read_to_string(dir.path().join("checkpoint")).unwrap();
    let root_at = note.lines().take(2).map(|line| line.len() + 1).sum::<usize>() + 4;
    assert!(!flipped("checkpoint", root_at).unwrap().is_proved());
    let stranger = SealKey::from_seed(&[1; 32]).public();
    let report = verify_dir(dir.path(), Some(&stranger), None).unwrap();
    assert!(report.mismatches[0].why.contains("no valid signature"));
}

#[test]
fn a_log_that_its_owner_wrote_anew_is_told_by_a_checkpoint_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let public = key().public();
    let mut log = open(dir.path());
    log.append(&records(0..300)).unwrap();
    let kept = log.checkpoint().to_owned();
    log.append(&records(300..310)).unwrap();
    let proved = verify_dir(dir.path(), Some(&public), Some(&kept)).unwrap();
    assert!(proved.is_proved(), "{proved:?}");

    for records in [records(0..100), [records(0..299), records(500..510)].concat()] {
        let anew = tempfile::tempdir().unwrap();
        open(anew.path()).append(&records).unwrap();
        assert!(verify_dir(anew.path(), Some(&public), None).unwrap().is_proved());
        let report = verify_dir(anew.path(), Some(&public), Some(&kept)).unwrap();
        let why = &report.mismatches[0].why;
        assert!(why.contains("does not begin with the 300 records"), "{why}");
    }
    let damaged = kept.replace("300", "299");
    let report = verify_dir(dir.path(), Some(&public), Some(&damaged)).unwrap();
    assert!(report.mismatches[0].why.starts_with("the checkpoint that was kept: "));

    std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let error = verify_dir(dir.path(), None, None).unwrap_err().to_string();
    assert!(
        error.contains("checkpoint is missing: without it no record is proved"),
        "{error}"
    );
}

#[test]
fn a_forger_who_makes_entries_and_hashes_agree_is_still_found() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&records(0..5)).unwrap();
    let forged: Vec<Vec<u8>> = (0..5)
        .map(|n| {
            if n == 2 {
                record(99).encode()
            } else {
                record(n).encode()
            }
        })
        .collect();
    let framed = |entry: &Vec<u8>| [&(entry.len() as u16).to_be_bytes()[..], entry].concat();
    std::fs::write(
        dir.path().join("tile/entries/000"),
        forged.iter().flat_map(framed).collect::<Vec<u8>>(),
    )
    .unwrap();
    let hashes: Vec<u8> = forged.iter().flat_map(|entry| leaf_hash(entry)).collect();
    std::fs::write(dir.path().join("tile/0/000"), hashes).unwrap();
    let report = verify_dir(dir.path(), None, None).unwrap();
    assert!(
        report.mismatches[0]
            .why
            .contains("do not have the root that the checkpoint signs"),
        "{report:?}"
    );
    let mut log = open(dir.path());
    assert!(log.damage().is_some());
    let refused = log.append(&records(5..6)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("`orrery provenance verify` names the records"),
        "{refused}"
    );
}

#[test]
fn a_missing_end_is_named() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&records(0..5)).unwrap();
    let path: PathBuf = dir.path().join("tile/entries/000");
    let bundle = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bundle[..bundle.len() - 3]).unwrap();
    let report = verify_dir(dir.path(), None, None).unwrap();
    assert_eq!(report.mismatches.len(), 1);
    assert_eq!(report.mismatches[0].record, Some(4));
    assert!(open(dir.path()).damage().unwrap().contains("too short"));
    assert_eq!(
        std::fs::read(&path).unwrap().len(),
        bundle.len() - 3,
        "evidence is left alone"
    );
}
