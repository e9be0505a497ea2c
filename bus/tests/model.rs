//! The journal against a model: any mixture of appends, crashes, flips, faults and reopenings.
//!
//! The model is a list of what was submitted and whether it was acknowledged. What the journal must keep:
//! everything acknowledged and not hit by a flip is read back, unaltered, at its offset and in order; whatever
//! else is read was submitted; no offset ever stands for two acknowledged records.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use orrery_bus::Record;
use orrery_bus::fs::MemoryFs;
use orrery_bus::journal::{Journal, JournalOptions};
use orrery_protocol::{ManualClock, TaiNanos};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    /// Appends batches of these sizes at once.
    Append(Vec<Vec<u16>>),
    /// The power fails in the middle of an append: this share of the unsynced bytes is kept, of 255.
    CrashDuringAppend {
        sizes: Vec<u16>,
        kept: u8,
        zero_filled: bool,
        whole_write: bool,
    },
    /// A clean restart.
    Reopen,
    /// One bit of one file flips while the journal is closed.
    Flip {
        file: prop::sample::Index,
        byte: prop::sample::Index,
        bit: u8,
    },
    FailSync,
    TearWrite,
    /// The disk has this much room left for one append, then all the room again.
    FullDisk {
        room: usize,
        sizes: Vec<u16>,
    },
    Truncate(prop::sample::Index),
}

fn sizes() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0u16..400, 1..6)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(sizes(), 1..4).prop_map(Action::Append),
        3 => (sizes(), any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(sizes, kept, zero_filled, whole_write)| Action::CrashDuringAppend { sizes, kept, zero_filled, whole_write }),
        2 => Just(Action::Reopen),
        2 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8)
            .prop_map(|(file, byte, bit)| Action::Flip { file, byte, bit }),
        1 => Just(Action::FailSync),
        1 => Just(Action::TearWrite),
        1 => (0usize..300, sizes()).prop_map(|(room, sizes)| Action::FullDisk { room, sizes }),
        1 => any::<prop::sample::Index>().prop_map(Action::Truncate),
    ]
}

struct Harness {
    runtime: tokio::runtime::Runtime,
    fs: MemoryFs,
    options: JournalOptions,
    journal: Option<Journal>,
    /// Serial number of the next record; it is in the record's key.
    serial: u64,
    submitted: BTreeMap<u64, Record>,
    /// Offset → serial number of what was acknowledged and not yet truncated away.
    acknowledged: BTreeMap<u64, u64>,
    flips: u64,
}

impl Harness {
    fn new(segment_bytes: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let options = JournalOptions {
            segment_bytes,
            ..JournalOptions::default()
        };
        let mut harness = Self {
            runtime,
            fs: MemoryFs::new(),
            options,
            journal: None,
            serial: 0,
            submitted: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            flips: 0,
        };
        harness.reopen();
        harness
    }

    fn reopen(&mut self) {
        self.journal = None;
        // A disk that cannot sync at all is an error of opening; only damage must not be one.
        self.fs.fail_syncs(0);
        self.fs.tear_writes(0);
        let clock = Arc::new(ManualClock::new(TaiNanos(1)));
        let opened = Journal::open_in(Arc::new(self.fs.clone()), Path::new("/j"), self.options.clone(), clock);
        self.journal = Some(opened.expect("a journal always opens, whatever was damaged"));
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn batch(&mut self, sizes: &[u16]) -> Vec<(u64, Record)> {
        let batch: Vec<_> = sizes
            .iter()
            .map(|&size| {
                self.serial += 1;
                let value: Vec<u8> = (0..size).map(|i| (u64::from(i) * self.serial) as u8).collect();
                (self.serial, Record::new(self.serial.to_string(), value))
            })
            .collect();
        self.submitted.extend(batch.iter().cloned());
        batch
    }

    fn append(&mut self, batches: &[Vec<u16>]) {
        let batches: Vec<_> = batches.iter().map(|sizes| self.batch(sizes)).collect();
        let journal = self.journal.as_ref().unwrap();
        let appends = batches
            .iter()
            .map(|batch| journal.append(batch.iter().map(|(_, record)| record.clone()).collect()));
        let results = self.runtime.block_on(futures_util::future::join_all(appends));
        for (batch, result) in batches.iter().zip(results) {
            let Ok(range) = result else { continue };
            assert_eq!(range.end - range.start, batch.len() as u64);
            for (offset, (serial, _)) in range.zip(batch) {
                let before = self.acknowledged.insert(offset, *serial);
                assert!(before.is_none(), "offset {offset} was acknowledged twice");
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Append(batches) => self.append(batches),
            Action::Reopen => self.reopen(),
            Action::FailSync => self.fs.fail_syncs(1),
            Action::TearWrite => self.fs.tear_writes(1),
            Action::CrashDuringAppend {
                sizes,
                kept,
                zero_filled,
                whole_write,
            } => {
                // A failing sync leaves the group written and unsynced, a torn write half of it.
                if *whole_write {
                    self.fs.fail_syncs(1)
                } else {
                    self.fs.tear_writes(1)
                }
                self.append(std::slice::from_ref(sizes));
                self.fs.fail_syncs(0);
                self.fs.tear_writes(0);
                self.fs
                    .crash(|unsynced| (unsynced * usize::from(*kept) / 255, *zero_filled));
                self.reopen();
            }
            Action::Flip { file, byte, bit } => {
                self.journal = None;
                let files = self.fs.files();
                if !files.is_empty() {
                    let (path, len) = &files[file.index(files.len())];
                    if *len > 0 {
                        self.fs.flip(path, byte.index(*len), *bit);
                        self.flips += 1;
                    }
                }
                self.reopen();
            }
            Action::FullDisk { room, sizes } => {
                let used: usize = self.fs.files().iter().map(|(_, len)| len).sum();
                self.fs.set_capacity(Some(used + room));
                self.append(std::slice::from_ref(sizes));
                self.fs.set_capacity(None);
            }
            Action::Truncate(index) => {
                let next = self.journal().next_offset();
                let before = index.index(next as usize + 1) as u64;
                let first_before = self.journal().first_offset();
                self.journal().truncate_before(before).unwrap();
                let first = self.journal().first_offset();
                assert!(first <= before.max(first_before), "truncation drops only what it may");
                self.acknowledged = self.acknowledged.split_off(&first);
            }
        }
    }

    fn check(&self) {
        let journal = self.journal();
        let mut read = BTreeMap::new();
        let mut from = 0;
        while from < journal.next_offset() {
            let batch = journal.read(from, 500).unwrap();
            assert!(batch.next > from, "reading makes progress past any damage");
            for entry in batch.entries {
                assert!(entry.offset >= from && entry.offset < batch.next, "offsets rise");
                let serial: u64 = String::from_utf8_lossy(&entry.record.key)
                    .parse()
                    .expect("a key of ours");
                assert_eq!(
                    self.submitted.get(&serial),
                    Some(&entry.record),
                    "a record is unaltered and was submitted"
                );
                from = entry.offset + 1;
                read.insert(entry.offset, serial);
            }
            from = batch.next;
        }
        let serials: BTreeSet<_> = read.values().collect();
        assert_eq!(serials.len(), read.len(), "nothing is read twice");
        let missing = self
            .acknowledged
            .iter()
            .filter(|(offset, serial)| read.get(offset) != Some(serial))
            .count() as u64;
        assert!(
            missing <= self.flips,
            "{missing} acknowledged records are missing after {} flips",
            self.flips
        );
        for (offset, serial) in &self.acknowledged {
            assert!(
                read.get(offset).is_none_or(|found| found == serial),
                "offset {offset} stands for another record"
            );
        }
        assert!(self.acknowledged.keys().all(|&offset| offset < journal.next_offset()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_records_are_read_back_and_nothing_else(
        segment_bytes in prop_oneof![Just(400u64), Just(2_000), Just(1_000_000)],
        actions in prop::collection::vec(action(), 1..25),
    ) {
        let mut harness = Harness::new(segment_bytes);
        for action in &actions {
            harness.act(action);
            harness.check();
        }
        harness.reopen();
        harness.check();
        harness.append(&[vec![1, 2, 3]]);
        harness.check();
    }
}
