//! The one thread that writes: it gathers what waits, writes it as one group, syncs once, then answers all.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use orrery_protocol::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::format::{self, EncodedBody, SEGMENT_HEADER};
use super::segment::{Segment, Segments};
use super::{JournalError, JournalOptions};
use crate::fs::File;

/// A group is closed at this size even if more is waiting, to bound memory and latency.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// One `append`.
pub struct Request {
    pub bodies: Vec<EncodedBody>,
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<Range<u64>, JournalError>>,
    /// Its share of the queue, given back when the request is answered.
    pub _room: OwnedSemaphorePermit,
}

pub struct Writer {
    segments: Arc<Segments>,
    options: JournalOptions,
    clock: Arc<dyn Clock>,
    durable: watch::Sender<u64>,
    inbox: mpsc::Receiver<Request>,
    active: Option<Active>,
    next_offset: u64,
    buffer: Vec<u8>,
    /// Whether the last group was refused: said once, not with every attempt.
    refuses: bool,
}

struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    /// Bytes of a failed group may lie past the durable end and must go before the next write.
    dirty: bool,
    /// No more writes here: its last sync failed, and after that the page cache cannot be trusted.
    sealed: bool,
}

impl Writer {
    pub fn new(
        segments: Arc<Segments>,
        options: JournalOptions,
        clock: Arc<dyn Clock>,
        durable: watch::Sender<u64>,
        inbox: mpsc::Receiver<Request>,
        active: Option<(Arc<Segment>, Arc<dyn File>)>,
    ) -> Self {
        let active = active.map(|(segment, file)| Active {
            segment,
            file,
            dirty: false,
            sealed: false,
        });
        let next_offset = *durable.borrow();
        Self {
            segments,
            options,
            clock,
            durable,
            inbox,
            active,
            next_offset,
            buffer: Vec::new(),
            refuses: false,
        }
    }

    /// Runs until every sender is gone. If it panics, appenders get [`JournalError::Closed`].
    pub fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(request) = self.inbox.try_recv()
            {
                bytes += request.bytes;
                group.push(request);
            }
            match self.commit(&group, bytes as u64) {
                Ok(first_offset) => {
                    if std::mem::take(&mut self.refuses) {
                        tracing::info!(folder = %self.segments.folder.display(), "the journal takes records again");
                    }
                    answer(group, first_offset);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.refuses, true) {
                        tracing::error!("{error}");
                    }
                    for request in group {
                        // An appender that went away no longer wants the answer.
                        let _ = request.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes and syncs one group; returns the offset of its first record.
    fn commit(&mut self, group: &[Request], bytes: u64) -> Result<u64, JournalError> {
        self.make_room(bytes)?;
        let active = self.active.as_mut().ok_or_else(|| JournalError::Closed {
            folder: self.segments.folder.clone(),
        })?;
        let start = active.segment.end();
        let first_offset = self.next_offset;
        let appended = self.clock.wall();
        let bodies = group.iter().flat_map(|request| &request.bodies);
        self.buffer.clear();
        let mut frames = Vec::new();
        for (offset, body) in (first_offset..).zip(bodies) {
            frames.push((offset, start + self.buffer.len() as u64));
            body.write_frame(active.segment.salt, offset, appended, &mut self.buffer);
        }
        let path = active.segment.path();
        active.file.write_at(start, &self.buffer).map_err(|error| {
            active.dirty = true;
            JournalError::io("append to", path, error)
        })?;
        active.file.sync().map_err(|error| {
            active.dirty = true;
            active.sealed = true;
            JournalError::io("sync", path, error)
        })?;
        let count = frames.len() as u64;
        active
            .segment
            .grow(start + self.buffer.len() as u64, frames.into_iter());
        self.next_offset += count;
        self.segments.counters.appended.fetch_add(count, Ordering::Relaxed);
        self.segments.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.durable.send_replace(self.next_offset);
        self.buffer.shrink_to(GROUP_BYTES);
        Ok(first_offset)
    }

    /// Leaves a clean active segment with room for a group.
    fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        if let Some(active) = &mut self.active {
            let end = active.segment.end();
            if active.dirty {
                let path = active.segment.path();
                active
                    .file
                    .truncate(end)
                    .map_err(|e| JournalError::io("clean the end of", path, e))?;
                active.dirty = false;
            }
            let fits = end == SEGMENT_HEADER as u64 || end + bytes <= self.options.segment_bytes;
            if fits && !active.sealed {
                return Ok(());
            }
            if end == SEGMENT_HEADER as u64 {
                // An empty segment is left behind; its successor must not share its base.
                self.next_offset = self.next_offset.max(active.segment.base + 1);
            }
        }
        self.roll()
    }

    /// Starts a new segment, then lets retention drop old ones.
    fn roll(&mut self) -> Result<(), JournalError> {
        let base = self.next_offset;
        let salt = RandomState::new().build_hasher().finish();
        let path = self.segments.folder.join(format::segment_name(base, salt));
        let fs = Arc::clone(&self.segments.fs);
        let created = fs.create(&path).and_then(|file| {
            file.write_at(0, &format::segment_header(base, salt))?;
            file.sync()?;
            fs.sync_dir(&self.segments.folder)?;
            Ok(file)
        });
        let file = created.map_err(|error| {
            // Best effort: a leftover is an empty segment, which reading skips. It keeps its base, though.
            if fs.remove(&path).is_err() {
                self.next_offset += 1;
            }
            JournalError::io("start a segment of", &path, error)
        })?;
        let segment = Segment::new(base, salt, path, SEGMENT_HEADER as u64, Some(Vec::new()));
        let segment = self.segments.push(segment);
        self.active = Some(Active {
            segment,
            file,
            dirty: false,
            sealed: false,
        });
        if let Some(limit) = self.options.retain_bytes
            && let Err(error) = self.segments.drop_while(|total, _, oldest| total - oldest >= limit)
        {
            tracing::warn!(%error, "the journal could not drop its oldest segment");
        }
        Ok(())
    }
}

fn answer(group: Vec<Request>, first_offset: u64) {
    let mut next = first_offset;
    for request in group {
        let start = next;
        next += request.bodies.len() as u64;
        // An appender that went away no longer wants the answer.
        let _ = request.reply.send(Ok(start..next));
    }
}
