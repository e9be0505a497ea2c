//! The spool: what is over its limit is declared, what may not be dropped waits, and chains go on across everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orrery_edge_agent::spool::Spool;
use orrery_edge_agent::{Status, SystemClock};
use orrery_protocol::{
    BootId, Chain, DeviceId, Digest, IntervalSet, LossPayload, PayloadType, SealKey, Sealed, TaiNanos, Unverified,
};
use proptest::prelude::*;

fn open(folder: &Path, max_bytes: u64) -> Arc<Spool> {
    Arc::new(Spool::open(folder, max_bytes, Arc::new(SystemClock::new()), Status::new()).unwrap())
}

fn device() -> DeviceId {
    DeviceId::new("d").unwrap()
}

fn seal(chain: &mut Chain, kind: PayloadType, bytes: usize) -> Sealed {
    chain
        .seal(&SealKey::from_seed(&[1; 32]), TaiNanos(0), kind, &vec![0; bytes])
        .unwrap()
}

async fn everything(spool: &Spool) -> Vec<Unverified> {
    let mut found = Vec::new();
    while !spool.is_sent() {
        let batch = spool.unsent(1 << 20).await.unwrap();
        found.extend(
            batch
                .entries
                .iter()
                .map(|entry| Unverified::parse(entry.record.value.to_vec()).unwrap()),
        );
        spool.set_sent(&batch);
    }
    found
}

#[tokio::test]
async fn what_a_full_spool_gives_up_is_declared_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), 1 << 20);
    let mut chain = Chain::start(device(), BootId([1; 16]), None);
    let descriptor = seal(&mut chain, PayloadType::Descriptor, 100);
    spool.append(&[descriptor], false).await;
    for _ in 0..100 {
        spool
            .append(&[seal(&mut chain, PayloadType::Samples, 30_000)], true)
            .await;
    }
    let losses = spool.undeclared_losses(&device());
    assert!(!losses.is_empty());
    for loss in &losses {
        spool.append(&[seal(&mut chain, PayloadType::Loss, 10)], false).await;
        assert_eq!(
            (loss.boot_id, loss.reason.as_str()),
            (BootId([1; 16]), "the spool was full")
        );
    }
    spool.declared(&device(), &losses).unwrap();
    assert!(spool.undeclared_losses(&device()).is_empty());
    let mut covered = IntervalSet::default();
    let declared = |loss: &LossPayload| loss.first..=loss.last;
    for sequence in losses.iter().flat_map(declared) {
        covered.insert(sequence);
    }
    let found = everything(&spool).await;
    assert!(
        found
            .iter()
            .any(|envelope| envelope.claims().payload_type == PayloadType::Descriptor),
        "kept"
    );
    for envelope in &found {
        assert!(
            !losses
                .iter()
                .any(|loss| declared(loss).contains(&envelope.claims().sequence)),
            "declared and sent"
        );
        covered.insert(envelope.claims().sequence);
    }
    let all: BTreeSet<u64> = (0..chain.next_sequence()).collect();
    assert!(
        all.iter().all(|sequence| covered.contains(*sequence)),
        "neither sent nor declared"
    );
    let bytes: u64 = std::fs::read_dir(folder.path().join("journal"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= (1 << 20) + 400_000, "{bytes}");
}

/// Nothing is lost before it is gone: what a full disk keeps the spool from giving up is neither declared nor counted.
#[tokio::test]
async fn what_a_full_disk_keeps_is_not_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let status = Status::new();
    let clock = Arc::new(SystemClock::new());
    let spool = Spool::open(folder.path(), 1 << 20, clock, Arc::clone(&status)).unwrap();
    let mut chain = Chain::start(device(), BootId([1; 16]), None);
    // Whatever is written there finds no space.
    let beside = folder.path().join("state.json.new");
    std::os::unix::fs::symlink("/dev/full", &beside).unwrap();
    let filling = async {
        for _ in 0..60 {
            spool
                .append(&[seal(&mut chain, PayloadType::Samples, 30_000)], true)
                .await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_millis(1_500), filling).await;
    assert!(waited.is_err(), "nothing can be given up");
    let dropped = || status.device(&device()).dropped.get();
    assert_eq!((spool.undeclared_losses(&device()), dropped()), (Vec::new(), 0));
    let problem = status.spool_problem().unwrap();
    assert!(
        problem.contains("state.json") && problem.contains("No space left"),
        "{problem}"
    );

    std::fs::remove_file(&beside).unwrap();
    let next = seal(&mut chain, PayloadType::Samples, 30_000);
    spool.append(&[next], true).await;
    let losses = spool.undeclared_losses(&device());
    let declared: Vec<u64> = losses.iter().flat_map(|loss| loss.first..=loss.last).collect();
    assert_eq!(declared, (0..dropped()).collect::<Vec<_>>(), "each envelope once");
    assert!(!declared.is_empty());
    let found = everything(&spool).await;
    assert!(found.iter().all(|envelope| envelope.claims().sequence >= dropped()));
}

#[tokio::test]
async fn what_may_not_be_dropped_waits_for_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), 1 << 20);
    let mut chain = Chain::start(device(), BootId([1; 16]), None);
    let filling = async {
        for _ in 0..60 {
            spool
                .append(&[seal(&mut chain, PayloadType::Samples, 30_000)], false)
                .await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_millis(1_500), filling).await;
    assert!(waited.is_err(), "it must push back");
    assert!(spool.undeclared_losses(&device()).is_empty());
    let found = everything(&spool).await;
    let sequences: Vec<_> = found.iter().map(|envelope| envelope.claims().sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    spool.checkpoint().await.unwrap();
    // The envelope whose append was dropped by the time-out is gone; a new one has room now.
    let next = seal(&mut chain, PayloadType::Samples, 30_000);
    tokio::time::timeout(Duration::from_secs(5), spool.append(&[next], false))
        .await
        .unwrap();
}

/// Flips a byte at `at` from the end of the oldest segment.
fn damage(folder: &Path, at: u64) {
    let journal = folder.join("journal");
    let files = std::fs::read_dir(&journal).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    let place = bytes.len() - usize::try_from(at).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
}

#[tokio::test]
async fn what_damage_took_from_the_spool_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = Chain::start(device(), BootId([1; 16]), None);
    let sealed: Vec<Sealed> = (0..10).map(|_| seal(&mut chain, PayloadType::Samples, 1_000)).collect();
    {
        let spool = open(folder.path(), 1 << 20);
        for envelope in &sealed {
            spool.append(std::slice::from_ref(envelope), true).await;
        }
        // The first three are sent, and the heads are on the disk.
        let first = spool.unsent(3_000).await.unwrap();
        assert_eq!(first.entries.len(), 3);
        spool.set_sent(&first);
        spool.checkpoint().await.unwrap();
    }
    // In the second (sent), the sixth, and the last envelope.
    for at in [8 * 1_200, 4 * 1_200, 600] {
        damage(folder.path(), at);
    }
    let spool = open(folder.path(), 1 << 20);
    let losses = spool.undeclared_losses(&device());
    let ranges: Vec<_> = losses.iter().map(|loss| (loss.first, loss.last)).collect();
    let found: Vec<u64> = everything(&spool)
        .await
        .iter()
        .map(|envelope| envelope.claims().sequence)
        .collect();
    let wanted: Vec<u64> = (3..10)
        .filter(|n| !ranges.iter().any(|(first, last)| (first..=last).contains(&n)))
        .collect();
    assert_eq!(found, wanted, "everything is either sent or declared: {ranges:?}");
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    for loss in &losses {
        assert_eq!(loss.reason, "the spool was damaged");
        assert_eq!(loss.last_digest, sealed[usize::try_from(loss.last).unwrap()].digest);
    }
    // The next boot goes on behind the last envelope, which nobody will ever see.
    assert_eq!(spool.head(&device()).unwrap().digest, sealed[9].digest);

    // Declared once: neither the next start nor the one after the loss records were sent says it again.
    let mut next = Chain::start(device(), BootId([2; 16]), Some(sealed[9].digest));
    for _ in &losses {
        spool.append(&[seal(&mut next, PayloadType::Loss, 10)], false).await;
    }
    spool.declared(&device(), &losses).unwrap();
    drop(spool);
    let spool = open(folder.path(), 1 << 20);
    assert!(
        spool.undeclared_losses(&device()).is_empty(),
        "their records wait to be sent"
    );
    everything(&spool).await;
    spool.checkpoint().await.unwrap();
    drop(spool);
    assert!(open(folder.path(), 1 << 20).undeclared_losses(&device()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is appended, sent, freed and cut off, the next start finds the last durable envelope of the device.
    #[test]
    fn the_next_boot_finds_the_last_envelope(steps in proptest::collection::vec((0u8..4, 1usize..40_000), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = open(folder.path(), 1 << 20);
            let mut last: Option<Digest> = None;
            let mut boot = 0u8;
            let mut chain = Chain::start(device(), BootId([boot; 16]), None);
            for (step, bytes) in steps {
                match step {
                    0 | 1 => {
                        let sealed = seal(&mut chain, PayloadType::Samples, bytes);
                        last = Some(sealed.digest);
                        spool.append(&[sealed], true).await;
                    }
                    2 => {
                        everything(&spool).await;
                        spool.checkpoint().await.unwrap();
                    }
                    _ => {
                        // Dropped without a checkpoint, as by a crash.
                        drop(spool);
                        spool = open(folder.path(), 1 << 20);
                        boot += 1;
                        let head = spool.head(&device());
                        prop_assert_eq!(head.map(|head| head.digest), last);
                        chain = Chain::start(device(), BootId([boot; 16]), last);
                    }
                }
            }
            Ok(())
        })?;
    }
}
