//! The journal: one append-only log of records in checksummed segment files.
//!
//! [`Journal::append`] resolves after the fsync that covers its records; appenders that arrive while one
//! fsync runs share the next. What a crash or a bad disk damaged is fenced off where it lies, counted and
//! skipped: opening and reading never fail because of a torn tail or a flipped bit. Nothing is rewritten:
//! damaged bytes stay in their segment as evidence until the segment is dropped.
//!
//! The byte layout is at the head of `journal/format.rs`. There is no index file; the index is rebuilt from
//! the segments.

mod error;
mod format;
mod segment;
mod walk;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use orrery_protocol::{Clock, TaiNanos};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use error::JournalError;

use crate::Record;
use crate::fs::{FileSystem, RealFs};
use format::EncodedBody;
use segment::Segments;
use walk::Step;
use writer::{Request, Writer};

/// How a journal is laid out and bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalOptions {
    /// A segment is closed when the next group would take it past this size. Space is freed by whole segments.
    pub segment_bytes: u64,
    /// Drop the oldest segments while the journal is larger than this; absent: keep everything.
    pub retain_bytes: Option<u64>,
    /// Bytes that appenders may have waiting for the disk; beyond it `append` waits.
    pub queue_bytes: u32,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            retain_bytes: None,
            queue_bytes: 32 * 1024 * 1024,
        }
    }
}

/// A record as the journal gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its offset; offsets rise strictly and may skip.
    pub offset: u64,
    /// The wall clock when its group was written.
    pub appended: TaiNanos,
    /// The record, unaltered.
    pub record: Record,
}

/// What one [`Journal::read`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Records in offset order.
    pub entries: Vec<Entry>,
    /// Where the next read goes on. It may move although `entries` is empty, past damage.
    pub next: u64,
}

/// Counters of one journal since it was opened, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Records acknowledged.
    pub appended: u64,
    /// Groups written, one fsync each.
    pub groups: u64,
    /// Damaged regions found and skipped. A sealed segment is checked when it is first read.
    pub quarantined: u64,
    /// Bytes in those regions.
    pub quarantined_bytes: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
}

/// One append-only log in one folder. Share it in an [`Arc`]; dropping it waits for the write in progress.
pub struct Journal {
    folder: PathBuf,
    segments: Arc<Segments>,
    durable: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    queue_bytes: u32,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _lock: Box<dyn Send + Sync>,
}

impl Journal {
    /// Opens the journal in `folder` of the host's filesystem, creating it if need be. Blocks.
    ///
    /// # Errors
    /// [`JournalError`] when the folder cannot be used or another process has it. Damage is not an error.
    pub fn open(folder: &Path, options: JournalOptions, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        Self::open_in(Arc::new(RealFs), folder, options, clock)
    }

    /// The same on any filesystem.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_in(
        fs: Arc<dyn FileSystem>,
        folder: &Path,
        options: JournalOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JournalError> {
        fs.create_dir(folder)
            .map_err(|e| JournalError::io("create the folder", folder, e))?;
        let lock = fs.lock(folder).map_err(|e| JournalError::locked(folder, e))?;
        let opened = Segments::open(fs, folder)?;
        let segments = Arc::new(opened.segments);
        let (durable_tx, durable) = watch::channel(opened.next_offset);
        // The queue is bounded by bytes through `room`; this bound only limits very small requests.
        let (requests, inbox) = mpsc::channel(16 * 1024);
        let queue_bytes = options.queue_bytes.max(1);
        let writer = Writer::new(Arc::clone(&segments), options, clock, durable_tx, inbox, opened.active);
        let thread = std::thread::Builder::new()
            .name("orrery-journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| JournalError::io("start the writer of", folder, e))?;
        Ok(Self {
            folder: folder.to_owned(),
            segments,
            durable,
            room: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            requests: Some(requests),
            thread: Some(thread),
            _lock: lock,
        })
    }

    /// Appends records in this order and resolves when they survive a crash, with their offsets.
    ///
    /// A batch is not a transaction: after an error, a crash, or if the future is dropped, any prefix of it
    /// may be found in the journal.
    ///
    /// # Errors
    /// [`JournalError::Full`] when the disk is: nothing is damaged, and appending works again once there is
    /// room. [`JournalError::TooLarge`] before anything is written. [`JournalError::Io`] for the rest.
    pub async fn append(&self, records: Vec<Record>) -> Result<Range<u64>, JournalError> {
        let bodies = records.iter().map(EncodedBody::new).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = bodies.iter().map(EncodedBody::frame_len).sum();
        if bodies.is_empty() {
            let next = self.next_offset();
            return Ok(next..next);
        }
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.queue_bytes);
        let closed = || JournalError::Closed {
            folder: self.folder.clone(),
        };
        let room = Arc::clone(&self.room)
            .acquire_many_owned(share)
            .await
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests
            .send(Request {
                bodies,
                bytes,
                reply,
                _room: room,
            })
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Reads durable records from an offset on, at least one if there is one, then up to about `max_bytes`.
    /// An offset below [`Journal::first_offset`] reads from there. Blocks on the disk, though a tail is
    /// usually in memory.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk cannot be read at all. Damage is skipped, not an error.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Batch, JournalError> {
        let durable = self.next_offset();
        let mut batch = Batch {
            entries: Vec::new(),
            next: from,
        };
        let mut taken = 0;
        for segment in self.segments.from(from) {
            let Some(reader) = segment.reader(&self.segments, from)? else {
                continue;
            };
            let mut walker = reader.walk();
            loop {
                let step = walker
                    .step(from)
                    .map_err(|e| JournalError::io("read", segment.path(), e))?;
                match step {
                    Step::End => break,
                    Step::Skipped => {}
                    Step::Damage(region) => self.segments.note_damage(&segment, region),
                    Step::Record(entry) => {
                        taken += entry.record.size();
                        batch.next = entry.offset + 1;
                        batch.entries.push(entry);
                        if taken >= max_bytes {
                            return Ok(batch);
                        }
                    }
                }
            }
        }
        batch.next = batch.next.max(durable);
        Ok(batch)
    }

    /// Waits until there is something durable at or past `offset`: `read(offset, …)` then makes progress.
    pub async fn wait(&self, offset: u64) {
        let mut durable = self.durable.clone();
        if durable.wait_for(|&next| next > offset).await.is_err() {
            // The writer is gone, so nothing will ever come; the owner drops the journal.
            std::future::pending::<()>().await;
        }
    }

    /// Drops whole segments that hold nothing at or past `offset`. The newest segment always stays. Blocks.
    ///
    /// # Errors
    /// [`JournalError::Io`] when a file cannot be removed; what was removed stays removed.
    pub fn truncate_before(&self, offset: u64) -> Result<(), JournalError> {
        self.segments.drop_while(|_, end_offset, _| end_offset <= offset)
    }

    /// The offset that the next record gets, at the least; everything below is durable.
    pub fn next_offset(&self) -> u64 {
        *self.durable.borrow()
    }

    /// The lowest offset that may still be there.
    pub fn first_offset(&self) -> u64 {
        self.segments.first_offset().unwrap_or_else(|| self.next_offset())
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Stats {
        let counters = &self.segments.counters;
        let (quarantined, quarantined_bytes) = self.segments.damage();
        let (segments, bytes) = self.segments.sizes();
        Stats {
            appended: counters.appended.load(Ordering::Relaxed),
            groups: counters.groups.load(Ordering::Relaxed),
            quarantined,
            quarantined_bytes,
            bytes,
            segments,
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(folder = %self.folder.display(), "the journal's writer panicked");
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Journal({}, next offset {})",
            self.folder.display(),
            self.next_offset()
        )
    }
}

/// A lock whose holder panicked still guards consistent data here: every critical section is a plain move.
fn unpoison<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
